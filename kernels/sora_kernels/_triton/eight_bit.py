"""Keys as int8, less their mean, which shifts all scores of a query alike; values as fp8 where the GPU has it.

Source: Zhang et al., SageAttention2 (arXiv:2411.10958), sections 3.2 and 3.3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sora_kernels._triton.products import to_fp8
from sora_kernels._triton.tiles import contiguous_rows
from sora_kernels._triton.turn import ROWS, places_of, step_of, strides_of

NARROWEST = 32
"""The least width of a product in 8 bits; narrower heads are filled up with zeros."""


SPARE = 128
"""Rows behind the last query, so that a whole block can be read there."""


class EightBit(NamedTuple):
    """Matrices of the samples' heads one after the other, and float32 scales.

    q int8 (b·heads·n + SPARE, dim), k int8 (b·heads·n_k, dim) with n_k a multiple of a group, v fp8 (b·heads·dim, n_k),
    each 16 in the order of `order_of_values`, or as it was (b·heads·n_k, dim). Scales of a query, and of a group of
    keys; scores are in powers of two.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_scales: Tensor
    k_scales: Tensor
    v_scales: Tensor


@triton.jit
def to_int8(x):
    """Float32 in [-127, 127] to the nearest whole number."""
    return tl.floor(x + 0.5).to(tl.int8)


@triton.jit
def scale_of(largest):
    """The scale that takes the largest magnitude to 127; 1 where all is zero."""
    return tl.where(largest > 0, largest / 127.0, 1.0)


@triton.jit
def order_of_values(place):
    """Which value stands at a place: two and two of every 8 side by side, as a product's result lies in registers.

    The weights can so be the next product's left side without moving between threads.
    """
    return (place & -16) | ((place & 2) << 2) | ((place & 12) >> 1) | (place & 1)


@triton.jit
def _both(
    own_ptr, extra_ptr, sample, head, key, tokens, extras, dim, strides, extra_strides,
    EXTRA: tl.constexpr, STEP: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Float32 rows [keys, WIDE] of one sequence, the extra ones last; zeros outside."""
    column = (tl.arange(0, WIDE) < dim)[None, :]
    own = own_ptr + places_of(sample, head, key, strides, STEP, WIDE)
    x = tl.load(own, mask=(key < tokens)[:, None] & column, other=0.0).to(tl.float32)
    if EXTRA:
        more = extra_ptr + places_of(sample, head, key - tokens, extra_strides, STEP, WIDE)
        known = (key >= tokens) & (key < tokens + extras)
        x += tl.load(more, mask=known[:, None] & column, other=0.0).to(tl.float32)
    return x


@triton.jit(do_not_specialize=["tokens", "strides"])
def _quantise_queries(
    q_ptr, out_ptr, scale_ptr, tokens, dim, unit, strides, STEP: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr
):
    sample, head = tl.program_id(2).to(tl.int64), tl.program_id(1).to(tl.int64)
    token, column = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDE)
    known = token < tokens
    places = places_of(sample, head, token, strides, STEP, WIDE)
    q = tl.load(q_ptr + places, mask=known[:, None] & (column < dim)[None, :], other=0.0).to(tl.float32) * unit
    scale = scale_of(tl.max(tl.abs(q), axis=1))
    row = (sample * tl.num_programs(1) + head) * tokens + token
    tl.store(scale_ptr + row, scale, mask=known)
    tl.store(out_ptr + row[:, None] * WIDE + column[None, :], to_int8(q / scale[:, None]), mask=known[:, None])


@triton.jit(do_not_specialize=["tokens", "extras", "k_strides", "v_strides", "extra_k_strides", "extra_v_strides"])
def _quantise(
    k_ptr, v_ptr, extra_k_ptr, extra_v_ptr, mean_ptr, mask_ptr, k_out_ptr, v_out_ptr, k_scale_ptr, v_scale_ptr,
    tokens, extras, dim, k_strides, v_strides, extra_k_strides, extra_v_strides, mask_stride,
    MASKED: tl.constexpr, EXTRA: tl.constexpr, FP8: tl.constexpr,
    STEP: tl.constexpr, GROUP: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    sample, head = tl.program_id(2).to(tl.int64), tl.program_id(1).to(tl.int64)
    groups, group = tl.num_programs(0), tl.program_id(0).to(tl.int64)
    series = sample * tl.num_programs(1) + head
    place, column = tl.arange(0, GROUP), tl.arange(0, WIDE)
    key = group * GROUP + place
    k = _both(k_ptr, extra_k_ptr, sample, head, key, tokens, extras, dim, k_strides, extra_k_strides, EXTRA, STEP, WIDE)
    k -= tl.load(mean_ptr + series * dim + column, mask=column < dim, other=0.0)[None, :]
    seen = key < tokens + extras
    if MASKED:
        seen = tl.load(mask_ptr + sample * mask_stride + key, mask=seen, other=0) != 0
    k = tl.where(seen[:, None], k, 0.0)
    scale = scale_of(tl.max(tl.max(tl.abs(k), axis=1), axis=0))
    tl.store(k_scale_ptr + series * groups + group, scale)
    rows = (series * groups + group) * GROUP + place
    tl.store(k_out_ptr + rows[:, None] * WIDE + column[None, :], to_int8(k / scale))

    if FP8:
        key = group * GROUP + order_of_values(place)
    v = _both(v_ptr, extra_v_ptr, sample, head, key, tokens, extras, dim, v_strides, extra_v_strides, EXTRA, STEP, WIDE)
    if FP8:
        largest = tl.max(tl.max(tl.abs(v), axis=1), axis=0)
        scale = tl.where(largest > 0, largest / 448.0, 1.0)
        tl.store(v_scale_ptr + series * groups + group, scale)
        places = (series * WIDE + column[:, None]) * (groups * GROUP) + (group * GROUP + place)[None, :]
        tl.store(v_out_ptr + places, to_fp8(tl.trans(v / scale)))
    else:
        tl.store(v_out_ptr + rows[:, None] * WIDE + column[None, :], v.to(v_out_ptr.dtype.element_ty))


def _sum_of_keys(k: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The sum of the keys (b, heads, n, dim) that the mask (b, n) shows, (b, heads, dim) float32, and their number."""
    if mask is None:
        return k.sum(2, dtype=torch.float32), torch.full((len(k), 1, 1), k.shape[2], device=k.device)
    shown = k.masked_fill(~mask[:, None, :, None], 0)
    return shown.sum(2, dtype=torch.float32), mask.sum(1)[:, None, None]


def _mean_of_keys(k: Tensor, extra_k: Tensor | None, mask: Tensor | None) -> Tensor:
    """The mean of all keys that the mask (b, n + m) shows, (b, heads, dim) float32."""
    own, more = (None, None) if mask is None else (mask[:, : k.shape[2]], mask[:, k.shape[2] :])
    total, count = _sum_of_keys(k, own)
    if extra_k is not None:
        extra_total, extra_count = _sum_of_keys(extra_k, more)
        total, count = total + extra_total, count + extra_count
    return total / count.clamp(min=1)


def quantised(
    q: Tensor, k: Tensor, v: Tensor, extra_k: Tensor | None, extra_v: Tensor | None, mask: Tensor | None,
    unit: float, group: int, fp8: bool,
) -> EightBit:  # fmt: skip
    """Queries times `unit`, keys and values (b, heads, n, dim), the extra ones behind them; keys in groups.

    Keys that the mask (b, n + m) hides become 0: their size costs the others no precision.
    """
    batch, heads, tokens, dim = k.shape
    q, k, v = contiguous_rows(q), contiguous_rows(k), contiguous_rows(v)
    more_k, more_v = (k, v) if extra_k is None or extra_v is None else map(contiguous_rows, (extra_k, extra_v))
    extras = 0 if extra_k is None else extra_k.shape[2]
    groups, wide = triton.cdiv(tokens + extras, group), max(NARROWEST, triton.next_power_of_2(dim))
    series, queries, padded = batch * heads, q.shape[2], groups * group

    def empty(*size: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(size, dtype=dtype, device=k.device)

    bits = EightBit(
        empty(series * queries + SPARE, wide, dtype=torch.int8), empty(series * padded, wide, dtype=torch.int8),
        empty(series * wide, padded, dtype=torch.float8_e4m3fn) if fp8 else empty(series * padded, wide, dtype=v.dtype),
        *(empty(series, number, dtype=torch.float32) for number in (queries, groups, groups)),
    )  # fmt: skip
    step = step_of(q)
    _quantise_queries[(triton.cdiv(queries, ROWS), heads, batch)](
        q, bits.q, bits.q_scales, queries, dim, unit, strides_of(q, step), STEP=step, ROWS=ROWS, WIDE=wide, num_warps=4
    )
    step = step_of(k, v, more_k, more_v)
    _quantise[(groups, heads, batch)](
        k, v, more_k, more_v, _mean_of_keys(k, extra_k, mask).contiguous(), k if mask is None else mask,
        bits.k, bits.v, bits.k_scales, bits.v_scales, tokens, extras, dim,
        *(strides_of(x, step) for x in (k, v, more_k, more_v)), 0 if mask is None else mask.stride(0),
        MASKED=mask is not None, EXTRA=extra_k is not None, FP8=fp8, STEP=step, GROUP=group, WIDE=wide, num_warps=8,
    )  # fmt: skip
    return bits
