"""attention in 8 bits on Triton: scores from int8, weights and values in fp8 where the GPU has it, else in 16 bits.

What is multiplied comes as `eight_bit.quantised` leaves it: text behind video in one sequence, all in matrices of
contiguous rows. Source: Zhang et al., SageAttention2 (arXiv:2411.10958), without its 4-bit scores.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sora_kernels._triton.attention import unit_of
from sora_kernels._triton.blocks import copied_in_blocks, has_fp8, int8_blocks, matrix_of
from sora_kernels._triton.eight_bit import quantised
from sora_kernels._triton.products import product, to_fp8
from sora_kernels._triton.tiles import on_device_of
from sora_kernels._triton.turn import heads_side_by_side, step_of, strides_of

SUMS_APART = True
"""Whether each block's sum of values is added in float32.

Without, programs need fewer registers: on an H200 that was 1.203 times cuDNN's speed instead of 1.137, but results came
out 0.8 % too small instead of 0.2 %, so it stays on.
"""
HEADROOM = tl.constexpr(8.0)
"""Weights are up to 2^8 of the largest, near the end of fp8's range: smaller ones keep more of their digits."""


@triton.jit
def _in_fours(x):
    """Columns of x [rows, n] in the order of `eight_bit.order_of_values`."""
    x = tl.reshape(x, (x.shape[0], x.shape[1] // 16, 2, 4, 2))
    return tl.reshape(tl.permute(x, (0, 1, 3, 2, 4)), (x.shape[0], x.shape[1] * x.shape[2] * x.shape[3] * x.shape[4]))


@triton.jit
def _tile(x, first, left, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DESCRIBED: tl.constexpr):
    """[ROWS, COLUMNS] of a matrix `width` wide, from row `first` and column `left` on."""
    if DESCRIBED:
        tile = x.load([first, left])
    else:
        row = tl.cast(first, tl.int64) + tl.arange(0, ROWS)
        tile = tl.load(x + row[:, None] * width + (left + tl.arange(0, COLUMNS))[None, :])
    return tile


@triton.jit
def _over_keys(
    acc, part, fade, total, peak, v_scale, q, q_scale, k_at, v_at, k_scale_ptr, v_scale_ptr, mask_ptr,
    series, first, last, keys, padded,
    CHECKED: tl.constexpr, MASKED: tl.constexpr, FP8: tl.constexpr, APART: tl.constexpr, DESCRIBED: tl.constexpr,
    STAGES: tl.constexpr, BLOCK_K: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Attend to keys first .. last - 1, of which there are `keys`. The sum of weighted values is acc * fade + part.

    A block's own sum, where it is kept apart, is added a block later, so that its product goes on while the next
    scores are computed, and in float32, which the sums of fp8 products inside a tensor core are not.
    """
    for start in tl.range(first, last, BLOCK_K, num_stages=STAGES):
        key = start + tl.arange(0, BLOCK_K)
        k = _tile(k_at, series * padded + start, 0, WIDE, BLOCK_K, WIDE, DESCRIBED)
        scores = tl.dot(q, tl.trans(k), out_dtype=tl.int32).to(tl.float32)
        if CHECKED:
            scores = tl.where((key < keys)[None, :], scores, float("-inf"))
        if MASKED:
            seen = tl.load(mask_ptr + key, mask=key < keys, other=0) != 0
            scores = tl.where(seen[None, :], scores, float("-inf"))
        if APART:
            acc = acc * fade[:, None] + part
        factor = q_scale * tl.load(k_scale_ptr + start // BLOCK_K)
        higher = tl.maximum(peak, tl.max(scores, axis=1) * factor)
        base = tl.where(higher == float("-inf"), 0.0, higher) if MASKED else higher
        weights = tl.exp2(scores * factor[:, None] - (base - HEADROOM)[:, None])
        fade = tl.exp2(peak - base)
        total = total * fade + tl.sum(weights, axis=1)
        if FP8:
            scale = tl.load(v_scale_ptr + start // BLOCK_K)
            fade *= v_scale / scale
            v_scale = scale
            v = _tile(v_at, series * WIDE, start, padded, WIDE, BLOCK_K, DESCRIBED)
            v, weights = tl.trans(v), to_fp8(_in_fours(weights))
        else:
            v = _tile(v_at, series * padded + start, 0, WIDE, BLOCK_K, WIDE, DESCRIBED)
            weights = weights.to(v.dtype)
        if APART:
            part = product(weights, v, tl.zeros((q.shape[0], WIDE), tl.float32))
        else:
            part = product(weights, v, part * fade[:, None])
        peak = higher
    return acc, part, fade, total, peak, v_scale


@triton.jit(do_not_specialize=["tokens", "keys", "out_strides", "mask_stride"])
def _attention_int8(
    q_at, k_at, v_at, q_scale_ptr, k_scale_ptr, v_scale_ptr, mask_ptr, out_ptr, tokens, keys, out_strides, mask_stride,
    MASKED: tl.constexpr, FP8: tl.constexpr, APART: tl.constexpr, DESCRIBED: tl.constexpr,
    STEP: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """q, k and v are pointers, or descriptors of tiles (rows, columns), which the copy engine reads."""
    sample, head = tl.program_id(2).to(tl.int64), tl.program_id(1).to(tl.int64)
    series = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    begin = tl.program_id(0) * BLOCK_Q
    query = begin + tl.arange(0, BLOCK_Q)
    groups = tl.cdiv(keys, BLOCK_K)
    k_scale_ptr += series * groups
    v_scale_ptr += series * groups
    mask_ptr += sample * mask_stride
    q = _tile(q_at, series * tokens + begin, 0, WIDE, BLOCK_Q, WIDE, DESCRIBED)
    q_scale = tl.load(q_scale_ptr + series.to(tl.int64) * tokens + query, mask=query < tokens, other=1.0)

    acc = tl.zeros((BLOCK_Q, WIDE), tl.float32)
    part = tl.zeros((BLOCK_Q, WIDE), tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    fade = tl.zeros((BLOCK_Q,), tl.float32)
    peak = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    whole = keys // BLOCK_K * BLOCK_K
    acc, part, fade, total, peak, v_scale = _over_keys(
        acc, part, fade, total, peak, tl.full((), 1.0, tl.float32), q, q_scale,
        k_at, v_at, k_scale_ptr, v_scale_ptr, mask_ptr, series, 0, whole, keys, groups * BLOCK_K,
        False, MASKED, FP8, APART, DESCRIBED, STAGES, BLOCK_K, WIDE,
    )  # fmt: skip
    acc, part, fade, total, peak, v_scale = _over_keys(
        acc, part, fade, total, peak, v_scale, q, q_scale,
        k_at, v_at, k_scale_ptr, v_scale_ptr, mask_ptr, series, whole, keys, keys, groups * BLOCK_K,
        True, MASKED, FP8, APART, DESCRIBED, 1, BLOCK_K, WIDE,
    )  # fmt: skip

    out = (acc * fade[:, None] + part) * (v_scale / tl.where(total > 0, total, 1.0))[:, None]
    column = tl.arange(0, WIDE)[None, :]
    out_ptr += (sample * out_strides[0] + head * out_strides[1] + begin.to(tl.int64) * out_strides[2]) * STEP
    places = tl.arange(0, BLOCK_Q)[:, None] * (out_strides[2] * STEP) + column
    inside = (query < tokens)[:, None] & (column < DIM)
    tl.store(out_ptr + places, out.to(out_ptr.dtype.element_ty), mask=inside)


def run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float | None,
    extra_k: Tensor | None,
    extra_v: Tensor | None,
) -> Tensor:
    """`sora_kernels.attention` in 8 bits: q (b, heads, n, dim), keys and values, mask (b, n_k + m)."""
    batch, heads, tokens, dim = q.shape
    out = heads_side_by_side(q)
    keys = k.shape[2] + (0 if extra_k is None else extra_k.shape[2])
    if not q.numel() or not keys:
        return out.zero_()
    mask = None if mask is None else mask.contiguous()
    step = step_of(out)
    with on_device_of(q):
        blocks, fp8 = int8_blocks(q), has_fp8()
        bits = quantised(q, k, v, extra_k, extra_v, mask, unit_of(scale, dim), blocks.keys, fp8)
        wide, described, read = bits.k.shape[1], copied_in_blocks(bits.q, bits.k, bits.v), (bits.q, bits.k, bits.v)
        if described:
            values = (wide, blocks.keys) if fp8 else (blocks.keys, wide)
            read = (
                matrix_of(bits.q, blocks.queries, wide), matrix_of(bits.k, blocks.keys, wide),
                matrix_of(bits.v, *values),
            )  # fmt: skip
        _attention_int8[(triton.cdiv(tokens, blocks.queries), heads, batch)](
            *read, *bits[3:], bits.q if mask is None else mask, out, tokens, keys, strides_of(out, step),
            0 if mask is None else mask.stride(0),
            MASKED=mask is not None, FP8=fp8, APART=SUMS_APART, DESCRIBED=described,
            STEP=step, DIM=dim, WIDE=wide,
            BLOCK_Q=blocks.queries, BLOCK_K=blocks.keys, STAGES=blocks.stages, num_warps=blocks.warps,
        )  # fmt: skip
    return out
