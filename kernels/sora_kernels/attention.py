"""Softmax attention with an optional mask of padded keys, over one sequence or over two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from einops import einsum, rearrange
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from sora_kernels.dispatch import Backend, dispatch
from sora_kernels.precision import multiplies_bfloat16, records_gradient
from sora_kernels.refusals import TRITON_DTYPES, capability, triton_refusal
from sora_kernels.shapes import check_extra, check_keys, check_mask

LONG = 256
"""Queries and keys from which going by rows pays on a CPU in bfloat16."""
ROWS = 128
"""Queries at a time on a CPU in bfloat16; measured flat from 128 to 256 for 1,248 to 8,190 keys."""
SMALL_SCORES = 256 * 256
"""Scores per head below which PyTorch's blocked CPU kernel is slower to train with than the plain formula."""

WIDEST_HEAD = 256
"""A tile of wider heads does not fit into a multiprocessor's shared memory."""

CUDNN_IS_FIRST_ON = (9, 0)
"""The compute capability where cuDNN's attention is tried before flash: on an H200 it was 1.6 to 2.4 times as fast.

PyTorch 2.11 chose it there by itself too.
"""
CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH
]  # fmt: skip

EIGHT_BIT_DTYPES = (torch.bfloat16, torch.float16)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
    extra_k: Tensor | None = None,
    extra_v: Tensor | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    """softmax(scale * q [k, extra_k]^T) [v, extra_v].

    q (b, heads, n, dim), k and v (b, heads, n_k, dim); extra_k and extra_v (b, heads, m, dim), text beside video
    say; mask (b, n_k + m), True where a key may be seen, the extra keys last; scale is 1/sqrt(dim) unless given.
    Returns (b, heads, n, dim) in q's dtype, zeros where the mask hides every key.

    backend "int8" rounds q and k to 8 bits (bfloat16 and float16 only): faster, less exact, never chosen by "auto".
    Raises ValueError for shapes that do not fit each other, a mask that is not boolean or only one of the extras.
    """
    check_keys("attention", q, k, v)
    extra = check_extra("attention", q, extra_k, extra_v)
    check_mask("attention", mask, q.shape[0], k.shape[2] + extra)
    result: Tensor = dispatch("attention", BACKENDS, backend, q, k, v, mask, scale, extra_k, extra_v)
    return result


def attention_ref(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
    extra_k: Tensor | None = None,
    extra_v: Tensor | None = None,
) -> Tensor:
    """`attention` in plain PyTorch, in the precision of q."""
    seen = None if mask is None else rearrange(mask, "b n_k -> b 1 1 n_k")
    return seen_attention_ref(q, joined(k, extra_k), joined(v, extra_v), seen, scale)


def seen_attention_ref(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, scale: float | None) -> Tensor:
    """softmax(scale * q k^T) v where `seen` (b, 1, n or 1, n_k) is True, or everywhere for None."""
    scores = einsum(q, k, "b heads n dim, b heads n_k dim -> b heads n n_k")
    scores = scores * (q.shape[-1] ** -0.5 if scale is None else scale)
    if seen is None:
        return scores.softmax(-1) @ v
    weights = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(-1) * seen
    return weights @ v


def joined(own: Tensor, extra: Tensor | None) -> Tensor:
    """Both along the tokens, in the dtype of the first."""
    return own if extra is None else torch.cat([own, extra.to(own.dtype)], dim=2)


def kernel_refusal(q: Tensor, k: Tensor, v: Tensor, extra_k: Tensor | None, scale: float | None) -> str | None:
    """Why the attention kernel can't take these heads or this scale, or None if it can."""
    dtypes = {str(x.dtype) for x in (q, k, v, extra_k) if x is not None}
    if len(dtypes) > 1:
        return f"its inputs are of several dtypes: {', '.join(sorted(dtypes))}"
    if q.shape[-1] > WIDEST_HEAD:
        return f"heads of {q.shape[-1]} values; it takes at most {WIDEST_HEAD}"
    return f"scale {scale}; it takes positive ones" if scale is not None and scale <= 0 else None


def _torch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float | None,
    extra_k: Tensor | None,
    extra_v: Tensor | None,
) -> Tensor:
    k, v = joined(k, extra_k), joined(v, extra_v)
    if q.device.type == "cpu":
        trains = records_gradient(q, k, v)
        if trains and q.shape[2] * k.shape[2] <= SMALL_SCORES:
            return attention_ref(q, k, v, mask, scale)
        if mask is None and not trains and _pays_by_rows(q, k):
            return _by_rows(q, k, v, q.shape[-1] ** -0.5 if scale is None else scale)
    seen = None if mask is None else rearrange(mask, "b n_k -> b 1 1 n_k")
    with _order_of_kernels(q, mask):
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)


def _order_of_kernels(q: Tensor, mask: Tensor | None) -> AbstractContextManager[object]:
    """The order in which PyTorch tries its kernels; what cuDNN can't take still goes to the others.

    Training is left to PyTorch's own order: cuDNN plans anew for every shape, and training brings many.
    """
    if not q.is_cuda or mask is not None or records_gradient(q) or capability(str(q.device)) != CUDNN_IS_FIRST_ON:
        return nullcontext()
    return sdpa_kernel(CUDNN_FIRST, set_priority=True)


def _pays_by_rows(q: Tensor, k: Tensor) -> bool:
    return q.dtype == torch.bfloat16 and min(q.shape[2], k.shape[2]) >= LONG and multiplies_bfloat16()


def _by_rows(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The formula head by head, a few queries at a time, so that their scores stay in a CPU's cache.

    Products run at the processor's bfloat16 rate, two to three times as fast as PyTorch's blocked kernel; scores are
    rounded to bfloat16, as they are in the formula written out, and the softmax is taken in float32.
    """
    out = torch.empty(q.shape, dtype=q.dtype)
    for target, queries, keys, values in zip(*(x.flatten(0, 1) for x in (out, q * scale, k, v)), strict=True):
        for part, rows in zip(target.split(ROWS), queries.split(ROWS), strict=True):
            torch.mm((rows @ keys.T).softmax(-1), values, out=part)
    return out


def _triton(*arguments: Any) -> Tensor:
    from sora_kernels._triton import attention as kernel

    return kernel.run(*arguments)


def _int8(*arguments: Any) -> Tensor:
    from sora_kernels._triton import attention_int8 as kernel

    return kernel.run(*arguments)


def _refuses(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float | None,
    extra_k: Tensor | None,
    extra_v: Tensor | None,
    dtypes: Sequence[torch.dtype] = TRITON_DTYPES,
) -> str | None:
    return triton_refusal(q, k, v, mask, extra_k, extra_v, dtypes=dtypes) or kernel_refusal(q, k, v, extra_k, scale)


BACKENDS = (
    Backend("torch", _torch),
    Backend("triton", _triton, _refuses),
    Backend("int8", _int8, partial(_refuses, dtypes=EIGHT_BIT_DTYPES)),
    Backend("reference", attention_ref),
)
