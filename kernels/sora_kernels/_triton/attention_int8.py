"""attention in 8 bits on Triton: scores from int8, weights and values in fp8 where the GPU has it, else in 16 bits.

Queries are rounded here, a scale for each; keys and values come as `eight_bit.quantised` leaves them, text behind video
in one sequence. Source: Zhang et al., SageAttention2 (arXiv:2411.10958), without its 4-bit scores.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sora_kernels._triton.attention import unit_of
from sora_kernels._triton.blocks import has_fp8, int8_blocks
from sora_kernels._triton.eight_bit import quantised, scale_of, to_int8
from sora_kernels._triton.products import product, to_fp8
from sora_kernels._triton.tiles import contiguous_rows, on_device_of
from sora_kernels._triton.turn import heads_side_by_side, step_of, strides_of

HEADROOM = tl.constexpr(8.0)
"""Weights are up to 2^8 of the largest, near the end of fp8's range: smaller ones keep more of their digits."""


@triton.jit
def _in_fours(x):
    """Columns of x [rows, n] in the order of `eight_bit.order_of_values`."""
    x = tl.reshape(x, (x.shape[0], x.shape[1] // 16, 2, 4, 2))
    return tl.reshape(tl.permute(x, (0, 1, 3, 2, 4)), (x.shape[0], x.shape[1] * x.shape[2] * x.shape[3] * x.shape[4]))


@triton.jit
def _over_keys(
    acc, part, fade, total, peak, v_scale, q, q_scale, k_ptr, v_ptr, k_scale_ptr, v_scale_ptr, mask_ptr,
    first, last, keys, v_stride,
    CHECKED: tl.constexpr, MASKED: tl.constexpr, FP8: tl.constexpr,
    STAGES: tl.constexpr, BLOCK_K: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Attend to keys first .. last - 1, of which there are `keys`. The sum of weighted values is acc * fade + part.

    A block's own sum is added a block later, so that its product goes on while the next scores are computed, and in
    float32, which the sums of fp8 products inside a tensor core are not.
    """
    row, column = tl.arange(0, BLOCK_K), tl.arange(0, WIDE)
    for start in tl.range(first, last, BLOCK_K, num_stages=STAGES):
        key = start + row
        k = tl.load(k_ptr + (start + row)[:, None] * WIDE + column[None, :])
        scores = tl.dot(q, tl.trans(k), out_dtype=tl.int32).to(tl.float32)
        if CHECKED:
            scores = tl.where((key < keys)[None, :], scores, float("-inf"))
        if MASKED:
            seen = tl.load(mask_ptr + key, mask=key < keys, other=0) != 0
            scores = tl.where(seen[None, :], scores, float("-inf"))
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
            v = tl.trans(tl.load(v_ptr + start + column[:, None] * v_stride + row[None, :]))
            part = tl.dot(to_fp8(_in_fours(weights)), v)
        else:
            v = tl.load(v_ptr + (start + row)[:, None] * WIDE + column[None, :])
            part = product(weights.to(v.dtype), v, tl.zeros((q.shape[0], WIDE), tl.float32))
        peak = higher
    return acc, part, fade, total, peak, v_scale


@triton.jit(do_not_specialize=["tokens", "keys", "q_strides", "out_strides", "mask_stride"])
def _attention_int8(
    q_ptr, k_ptr, v_ptr, k_scale_ptr, v_scale_ptr, mask_ptr, out_ptr, tokens, keys, groups, unit,
    q_strides, out_strides, mask_stride,
    MASKED: tl.constexpr, FP8: tl.constexpr, STEP: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    sample, head = tl.program_id(2).to(tl.int64), tl.program_id(1).to(tl.int64)
    begin = tl.program_id(0) * BLOCK_Q
    query, column = begin + tl.arange(0, BLOCK_Q), tl.arange(0, WIDE)[None, :]
    inside = (query < tokens)[:, None] & (column < DIM)
    series = (sample * tl.num_programs(1) + head) * groups
    k_ptr += series * (BLOCK_K * WIDE)
    v_ptr += series * (BLOCK_K * WIDE)
    k_scale_ptr += series
    v_scale_ptr += series
    mask_ptr += sample * mask_stride

    q_ptr += (sample * q_strides[0] + head * q_strides[1] + begin.to(tl.int64) * q_strides[2]) * STEP
    places = tl.arange(0, BLOCK_Q)[:, None] * (q_strides[2] * STEP) + column
    wide = tl.load(q_ptr + places, mask=inside, other=0.0).to(tl.float32) * unit
    q_scale = scale_of(tl.max(tl.abs(wide), axis=1))
    q = to_int8(wide / q_scale[:, None])

    acc = tl.zeros((BLOCK_Q, WIDE), tl.float32)
    part = tl.zeros((BLOCK_Q, WIDE), tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    fade = tl.zeros((BLOCK_Q,), tl.float32)
    peak = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    whole = keys // BLOCK_K * BLOCK_K
    acc, part, fade, total, peak, v_scale = _over_keys(
        acc, part, fade, total, peak, tl.full((), 1.0, tl.float32), q, q_scale, k_ptr, v_ptr, k_scale_ptr, v_scale_ptr, mask_ptr,
        0, whole, keys, groups * BLOCK_K, False, MASKED, FP8, STAGES, BLOCK_K, WIDE,
    )  # fmt: skip
    acc, part, fade, total, peak, v_scale = _over_keys(
        acc, part, fade, total, peak, v_scale, q, q_scale, k_ptr, v_ptr, k_scale_ptr, v_scale_ptr, mask_ptr,
        whole, keys, keys, groups * BLOCK_K, True, MASKED, FP8, 1, BLOCK_K, WIDE,
    )  # fmt: skip

    out = (acc * fade[:, None] + part) * (v_scale / tl.where(total > 0, total, 1.0))[:, None]
    out_ptr += (sample * out_strides[0] + head * out_strides[1] + begin.to(tl.int64) * out_strides[2]) * STEP
    places = tl.arange(0, BLOCK_Q)[:, None] * (out_strides[2] * STEP) + column
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
    q, mask = contiguous_rows(q), None if mask is None else mask.contiguous()
    step = step_of(q, out)
    with on_device_of(q):
        blocks, fp8 = int8_blocks(q), has_fp8()
        sides = quantised(k, v, extra_k, extra_v, mask, blocks.keys, fp8)
        _attention_int8[(triton.cdiv(tokens, blocks.queries), heads, batch)](
            q, *sides, q if mask is None else mask, out, tokens, keys, sides.k_scales.shape[2], unit_of(scale, dim),
            strides_of(q, step), strides_of(out, step), 0 if mask is None else mask.stride(0),
            MASKED=mask is not None, FP8=fp8, STEP=step, DIM=dim, WIDE=sides.k.shape[3],
            BLOCK_Q=blocks.queries, BLOCK_K=blocks.keys, STAGES=blocks.stages, num_warps=blocks.warps,
        )  # fmt: skip
    return out
