"""Softmax attention with an optional mask of padded keys."""

from __future__ import annotations

import torch
from einops import einsum, rearrange
from torch import Tensor
from torch.nn import functional

from sora_kernels.dispatch import Backend, dispatch
from sora_kernels.precision import records_gradient
from sora_kernels.shapes import check_keys, check_mask

SMALL_SCORES = 256 * 256
"""Scores per head below which PyTorch's blocked CPU kernel is slower to train with than the plain formula."""


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    """softmax(scale * q k^T) v.

    q (b, heads, n, dim), k and v (b, heads, n_k, dim); mask (b, n_k), True where a key may be seen; scale is
    1/sqrt(dim) unless given. Returns (b, heads, n, dim) in q's dtype, zeros where the mask hides every key.
    Raises ValueError for shapes that do not fit each other or a mask that is not boolean.
    """
    check_keys("attention", q, k, v)
    check_mask("attention", mask, q.shape[0], k.shape[2])
    return dispatch("attention", BACKENDS, backend, q, k, v, mask, scale)


def attention_ref(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """`attention` in plain PyTorch, in the precision of q."""
    scores = einsum(q, k, "b heads n dim, b heads n_k dim -> b heads n n_k")
    scores = scores * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is None:
        return scores.softmax(-1) @ v
    seen = rearrange(mask, "b n_k -> b 1 1 n_k")
    weights = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(-1) * seen
    return weights @ v


def _torch(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    if q.device.type == "cpu" and q.shape[2] * k.shape[2] <= SMALL_SCORES and records_gradient(q, k, v):
        return attention_ref(q, k, v, mask, scale)
    seen = None if mask is None else rearrange(mask, "b n_k -> b 1 1 n_k")
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)


BACKENDS = (Backend("torch", _torch), Backend("reference", attention_ref))
