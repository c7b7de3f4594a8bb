"""attention on Triton: forward, one pass over the keys, softmax taken online in float32.

A program holds a block of queries and goes through the sequence's own keys, then through the extra ones, which lie in
tensors of their own and are never copied behind the others. Source: Milakov and Gimelshein, Online normalizer
calculation for softmax (arXiv:1805.02867), and Dao, FlashAttention-2 (arXiv:2307.08691).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from sora_kernels._triton.blocks import exact_blocks
from sora_kernels._triton.products import product
from sora_kernels._triton.tiles import contiguous_rows, on_device_of
from sora_kernels._triton.turn import heads_side_by_side, step_of, strides_of

@triton.jit
def _rows(pointer, stride, rows, COUNT: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr, CHECKED: tl.constexpr):
    """A tile [COUNT, WIDE] of rows from `pointer` on; zero beyond `rows` of them, where checked, and beyond DIM."""
    row, column = tl.arange(0, COUNT)[:, None], tl.arange(0, WIDE)[None, :]
    places = pointer + row * stride + column
    if CHECKED:
        x = tl.load(places, mask=(row < rows) & (column < DIM), other=0)
    elif DIM < WIDE:
        x = tl.load(places, mask=(row < COUNT) & (column < DIM), other=0)
    else:
        x = tl.load(places)
    return x


@triton.jit
def _near(key, query, grid, window):
    """Which keys [1, keys] lie within the window around queries [queries, 1], both counted along (t, h, w)."""
    height, width = grid[1], grid[2]
    frames = tl.abs(key // (height * width) - query // (height * width)) <= window[0]
    rows = tl.abs(key // width % height - query // width % height) <= window[1]
    return frames & rows & (tl.abs(key % width - query % width) <= window[2])


@triton.jit
def _over_keys(
    acc, total, peak, q, unit, query, k_ptr, v_ptr, mask_ptr, first, last, k_stride, v_stride, grid, window,
    CHECKED: tl.constexpr, MASKED: tl.constexpr, WINDOWED: tl.constexpr,
    STAGES: tl.constexpr, BLOCK_K: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Attend to keys first .. last - 1: sums of weighted values, sums of weights, largest scores in powers of two."""
    k_ptr += tl.cast(first, tl.int64) * k_stride
    v_ptr += tl.cast(first, tl.int64) * v_stride
    for start in tl.range(first, last, BLOCK_K, num_stages=STAGES):
        left = last - start
        key = start + tl.arange(0, BLOCK_K)
        k = _rows(k_ptr, k_stride, left, BLOCK_K, DIM, WIDE, CHECKED)
        scores = product(q, tl.trans(k), tl.zeros((q.shape[0], BLOCK_K), tl.float32))
        if CHECKED:
            scores = tl.where((key < last)[None, :], scores, float("-inf"))
        if MASKED:
            seen = tl.load(mask_ptr + key, mask=key < last, other=0) != 0
            scores = tl.where(seen[None, :], scores, float("-inf"))
        if WINDOWED:
            scores = tl.where(_near(key[None, :], query[:, None], grid, window), scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, axis=1) * unit)
        base = higher
        if MASKED or WINDOWED:
            base = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(scores * unit - base[:, None])
        fade = tl.exp2(peak - base)
        total = total * fade + tl.sum(weights, axis=1)
        v = _rows(v_ptr, v_stride, left, BLOCK_K, DIM, WIDE, CHECKED)
        acc = product(weights.to(v.dtype), v, acc * fade[:, None])
        peak = higher
        k_ptr += BLOCK_K * k_stride
        v_ptr += BLOCK_K * v_stride
    return acc, total, peak


@triton.jit
def _over_window(
    acc, total, peak, q, unit, query, k_ptr, v_ptr, mask_ptr, begin, end, k_stride, v_stride, grid, window,
    MASKED: tl.constexpr, STAGES: tl.constexpr, BLOCK_K: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Attend to the rows that queries begin .. end see: those around theirs, or all where they span two frames."""
    height, width = grid[1], grid[2]
    first_frame, last_frame = begin // (height * width), end // (height * width)
    top = tl.maximum(begin // width % height - window[1], 0)
    bottom = tl.minimum(end // width % height + window[1], height - 1)
    if first_frame != last_frame:
        top, bottom = 0, height - 1
    for frame in range(tl.maximum(first_frame - window[0], 0), tl.minimum(last_frame + window[0] + 1, grid[0])):
        acc, total, peak = _over_keys(
            acc, total, peak, q, unit, query, k_ptr, v_ptr, mask_ptr,
            (frame * height + top) * width, (frame * height + bottom + 1) * width, k_stride, v_stride,
            grid, window, True, MASKED, True, STAGES, BLOCK_K, DIM, WIDE,
        )  # fmt: skip
    return acc, total, peak


@triton.jit(do_not_specialize=["tokens", "keys", "extras"])
def _attention(
    q_ptr, k_ptr, v_ptr, extra_k_ptr, extra_v_ptr, mask_ptr, out_ptr, tokens, keys, extras, unit,
    q_strides, k_strides, v_strides, extra_k_strides, extra_v_strides, out_strides, mask_stride, grid, window,
    MASKED: tl.constexpr, WINDOWED: tl.constexpr, EXTRA: tl.constexpr, STEP: tl.constexpr, DIM: tl.constexpr,
    WIDE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    sample, head = tl.program_id(2).to(tl.int64), tl.program_id(1).to(tl.int64)
    begin = tl.program_id(0) * BLOCK_Q
    query = begin + tl.arange(0, BLOCK_Q)
    q_ptr += (sample * q_strides[0] + head * q_strides[1] + begin.to(tl.int64) * q_strides[2]) * STEP
    k_ptr += (sample * k_strides[0] + head * k_strides[1]) * STEP
    v_ptr += (sample * v_strides[0] + head * v_strides[1]) * STEP
    k_row, v_row = k_strides[2] * STEP, v_strides[2] * STEP
    mask_ptr += sample * mask_stride

    q = _rows(q_ptr, q_strides[2] * STEP, tokens - begin, BLOCK_Q, DIM, WIDE, True)
    acc = tl.zeros((BLOCK_Q, WIDE), tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    peak = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    if WINDOWED:
        acc, total, peak = _over_window(
            acc, total, peak, q, unit, query, k_ptr, v_ptr, mask_ptr, begin, tl.minimum(begin + BLOCK_Q, tokens) - 1,
            k_row, v_row, grid, window, MASKED, STAGES, BLOCK_K, DIM, WIDE,
        )  # fmt: skip
    else:
        whole = keys // BLOCK_K * BLOCK_K
        acc, total, peak = _over_keys(
            acc, total, peak, q, unit, query, k_ptr, v_ptr, mask_ptr, 0, whole,
            k_row, v_row, grid, window, False, MASKED, False, STAGES, BLOCK_K, DIM, WIDE,
        )  # fmt: skip
        acc, total, peak = _over_keys(
            acc, total, peak, q, unit, query, k_ptr, v_ptr, mask_ptr, whole, keys,
            k_row, v_row, grid, window, True, MASKED, False, 1, BLOCK_K, DIM, WIDE,
        )  # fmt: skip
    if EXTRA:
        extra_k_ptr += (sample * extra_k_strides[0] + head * extra_k_strides[1]) * STEP
        extra_v_ptr += (sample * extra_v_strides[0] + head * extra_v_strides[1]) * STEP
        acc, total, peak = _over_keys(
            acc, total, peak, q, unit, query, extra_k_ptr, extra_v_ptr, mask_ptr + keys, 0, extras,
            extra_k_strides[2] * STEP, extra_v_strides[2] * STEP, grid, window,
            True, MASKED, False, 1, BLOCK_K, DIM, WIDE,
        )  # fmt: skip

    out = acc / tl.where(total > 0, total, 1.0)[:, None]
    column = tl.arange(0, WIDE)[None, :]
    out_ptr += (sample * out_strides[0] + head * out_strides[1] + begin.to(tl.int64) * out_strides[2]) * STEP
    places = out_ptr + tl.arange(0, BLOCK_Q)[:, None] * (out_strides[2] * STEP) + column
    tl.store(places, out.to(out_ptr.dtype.element_ty), mask=(query < tokens)[:, None] & (column < DIM))


class Side(NamedTuple):
    """Keys and values (b, heads, n, dim) of one part of the sequence, with contiguous rows."""

    k: Tensor
    v: Tensor

    @classmethod
    def of(cls, k: Tensor, v: Tensor) -> Side:
        """Both, copied where their rows are not contiguous."""
        return cls(contiguous_rows(k), contiguous_rows(v))


def run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float | None,
    extra_k: Tensor | None,
    extra_v: Tensor | None,
) -> Tensor:
    """`sora_kernels.attention`: q (b, heads, n, dim), keys and values, mask (b, n_k + m)."""
    extra = None if extra_k is None or extra_v is None else Side.of(extra_k, extra_v)
    return _launch(q, Side.of(k, v), extra, mask, scale)


def run_window(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: tuple[int, int, int],
    window: tuple[int, int, int],
    mask: Tensor | None,
    scale: float | None,
    extra_k: Tensor | None,
    extra_v: Tensor | None,
) -> Tensor:
    """`sora_kernels.window_attention`: tokens of a (t, h, w) grid, the window's reach along each axis."""
    extra = None if extra_k is None or extra_v is None else Side.of(extra_k, extra_v)
    return _launch(q, Side.of(k, v), extra, mask, scale, grid, window)


def _launch(
    q: Tensor,
    own: Side,
    extra: Side | None,
    mask: Tensor | None,
    scale: float | None,
    grid: tuple[int, int, int] | None = None,
    window: tuple[int, int, int] = (0, 0, 0),
) -> Tensor:
    batch, heads, tokens, dim = q.shape
    out = heads_side_by_side(q)
    if not q.numel():
        return out
    more = extra or own
    q, mask = contiguous_rows(q), None if mask is None else mask.contiguous()
    step = step_of(q, *own, *more, out)
    with on_device_of(q):
        blocks = exact_blocks(q)
        _attention[(triton.cdiv(tokens, blocks.queries), heads, batch)](
            q, *own, *more, q if mask is None else mask, out,
            tokens, own.k.shape[2], more.k.shape[2], unit_of(scale, dim),
            *(strides_of(x, step) for x in (q, *own, *more, out)), 0 if mask is None else mask.stride(0),
            grid or (1, 1, 1), window,
            MASKED=mask is not None, WINDOWED=grid is not None, EXTRA=extra is not None,
            STEP=step, DIM=dim, WIDE=max(16, triton.next_power_of_2(dim)),
            BLOCK_Q=blocks.queries, BLOCK_K=blocks.keys, STAGES=blocks.stages, num_warps=blocks.warps,
        )  # fmt: skip
    return out


def unit_of(scale: float | None, dim: int) -> float:
    """The scale of the scores as powers of two."""
    return (dim**-0.5 if scale is None else scale) * math.log2(math.e)
