"""A video transformer's whole attention: norm of queries and keys, rotary positions, softmax attention."""

from __future__ import annotations

import torch
from torch import Tensor

from sora_kernels.attention import attention, attention_ref
from sora_kernels.dispatch import Backend, dispatch
from sora_kernels.precision import by_blocks, widen
from sora_kernels.rms_norm import normalise, rms_norm_ref
from sora_kernels.rope import rope_ref, turned, turns
from sora_kernels.shapes import check_alike, check_keys, check_mask, check_table, check_width


def qk_norm_rope_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    extra_k: Tensor | None = None,
    extra_v: Tensor | None = None,
    mask: Tensor | None = None,
    eps: float = 1e-6,
    *,
    backend: str = "auto",
) -> Tensor:
    """attention(rope(rms_norm(q)), [rope(rms_norm(k)), extra_k], [v, extra_v], mask), norms per head.

    q, k and v (b, heads, n, dim); q_weight and k_weight (dim,) or None; cos and sin (n, dim/2), or
    (b, n, dim/2). extra_k and extra_v (b, heads, m, dim), text say, are used as they are: neither normed nor
    turned. mask (b, n + m), True where a key may be seen, the extra keys last. Returns (b, heads, n, dim) in
    q's dtype.
    Raises ValueError for shapes that do not fit each other, or only one of extra_k and extra_v.
    """
    name = "qk_norm_rope_attention"
    check_alike(name, q, k)
    check_keys(name, q, k, v)
    check_table(name, q, cos, sin)
    check_width(name, "q_weight", q_weight, q)
    check_width(name, "k_weight", k_weight, k)
    extra = _check_extra(name, q, extra_k, extra_v)
    check_mask(name, mask, q.shape[0], k.shape[2] + extra)
    arguments = (q, k, v, q_weight, k_weight, cos, sin, extra_k, extra_v, mask, eps)
    return dispatch(name, BACKENDS, backend, *arguments)


def qk_norm_rope_attention_ref(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    extra_k: Tensor | None = None,
    extra_v: Tensor | None = None,
    mask: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """`qk_norm_rope_attention` in plain PyTorch, in the precision of q."""
    q = rope_ref(rms_norm_ref(q, q_weight, eps), cos, sin)
    k = rope_ref(rms_norm_ref(k, k_weight, eps), cos, sin)
    return attention_ref(q, _joined(k, extra_k), _joined(v, extra_v), mask)


def _check_extra(operator: str, q: Tensor, extra_k: Tensor | None, extra_v: Tensor | None) -> int:
    """How many extra keys there are; raises ValueError unless keys and values are both there and fit q."""
    if extra_k is None and extra_v is None:
        return 0
    if extra_k is None or extra_v is None:
        raise ValueError(f"{operator}: extra_k and extra_v go together; one of them is missing")
    check_keys(operator, q, extra_k, extra_v)
    return extra_k.shape[2]


def _joined(own: Tensor, extra: Tensor | None) -> Tensor:
    return own if extra is None else torch.cat([own, extra.to(own.dtype)], dim=2)


def _normed_and_turned(x: Tensor, weight: Tensor | None, turn: Tensor, eps: float) -> Tensor:
    """`rope(rms_norm(x))`, rounded once."""
    wide_weight = None if weight is None else widen(weight)
    return by_blocks(lambda rows, turn: turned(normalise(rows, wide_weight, eps), turn), x, turn)


def _torch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    extra_k: Tensor | None,
    extra_v: Tensor | None,
    mask: Tensor | None,
    eps: float,
) -> Tensor:
    turn = turns(cos, sin)
    q = _normed_and_turned(q, q_weight, turn, eps)
    k = _normed_and_turned(k, k_weight, turn, eps)
    return attention(q, _joined(k, extra_k), _joined(v, extra_v), mask)


BACKENDS = (Backend("torch", _torch), Backend("reference", qk_norm_rope_attention_ref))
