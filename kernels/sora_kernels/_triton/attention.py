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

from sora_kernels._triton.blocks import block_of, copied_in_blocks, exact_blocks
from sora_kernels._triton.products import product
from sora_kernels._triton.tiles import contiguous_rows, on_device_of
from sora_kernels._triton.turn import heads_side_by_side, step_of, strides_of


@triton.jit
def _head(x, sample, head, strides, STEP: tl.constexpr, DESCRIBED: tl.constexpr):
    """Where the rows of one head begin; a descriptor knows by itself."""
    return x if DESCRIBED else x + (sample.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[1]) * STEP


@triton.jit
def _rows(
    x, sample, head, first, last, stride,
    COUNT: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr, CHECKED: tl.constexpr, DESCRIBED: tl.constexpr,
):  # fmt: skip
    """A tile [COUNT, WIDE] of a head's rows from `first` on; zero from `last` on, where checked, and beyond DIM."""
    if DESCRIBED:
        tile = tl.reshape(x.load([sample, head, first, 0]), (COUNT, WIDE))
    else:
        row, column = tl.arange(0, COUNT)[:, None], tl.arange(0, WIDE)[None, :]
        places = x + tl.cast(first, tl.int64) * stride + row * stride + column
        if CHECKED:
            tile = tl.load(places, mask=(first + row < last) & (column < DIM), other=0)
        elif DIM < WIDE:
            tile = tl.load(places, mask=(row < COUNT) & (column < DIM), other=0)
        else:
            tile = tl.load(places)
    return tile


@triton.jit
def _near(key, query, grid, window):
    """Which keys [1, keys] lie within the window around queries [queries, 1], both counted along (t, h, w)."""
    height, width = grid[1], grid[2]
    frames = tl.abs(key // (height * width) - query // (height * width)) <= window[0]
    rows = tl.abs(key // width % height - query // width % height) <= window[1]
    return frames & rows & (tl.abs(key % width - query % width) <= window[2])


@triton.jit
def _over_keys(
    acc, total, peak, q, unit, query, k_at, v_at, mask_ptr, sample, head, first, last, k_stride, v_stride,
    grid, window,
    CHECKED: tl.constexpr, MASKED: tl.constexpr, WINDOWED: tl.constexpr, DESCRIBED: tl.constexpr,
    STAGES: tl.constexpr, BLOCK_K: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Attend to keys first .. last - 1: sums of weighted values, sums of weights, largest scores in powers of two."""
    for start in tl.range(first, last, BLOCK_K, num_stages=STAGES):
        key = start + tl.arange(0, BLOCK_K)
        k = _rows(k_at, sample, head, start, last, k_stride, BLOCK_K, DIM, WIDE, CHECKED, DESCRIBED)
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
        v = _rows(v_at, sample, head, start, last, v_stride, BLOCK_K, DIM, WIDE, CHECKED, DESCRIBED)
        acc = product(weights.to(v.dtype), v, acc * fade[:, None])
        peak = higher
    return acc, total, peak


@triton.jit
def _over_window(
    acc, total, peak, q, unit, query, k_at, v_at, mask_ptr, sample, head, begin, end, k_stride, v_stride,
    grid, window,
    MASKED: tl.constexpr, DESCRIBED: tl.constexpr, STAGES: tl.constexpr,
    BLOCK_K: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr,
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
            acc, total, peak, q, unit, query, k_at, v_at, mask_ptr, sample, head,
            (frame * height + top) * width, (frame * height + bottom + 1) * width, k_stride, v_stride,
            grid, window, True, MASKED, True, DESCRIBED, STAGES, BLOCK_K, DIM, WIDE,
        )  # fmt: skip
    return acc, total, peak


SIZES = ["tokens", "keys", "extras", "q_strides", "k_strides", "v_strides", "extra_k_strides", "extra_v_strides"]
SIZES += ["out_strides", "mask_stride", "grid", "window"]
"""What no kernel is compiled for anew: strides are in steps, see `turn.step_of`."""


@triton.jit(do_not_specialize=SIZES)
def _attention(
    q_at, k_at, v_at, extra_k_at, extra_v_at, mask_ptr, out_ptr, tokens, keys, extras, unit,
    q_strides, k_strides, v_strides, extra_k_strides, extra_v_strides, out_strides, mask_stride, grid, window,
    MASKED: tl.constexpr, WINDOWED: tl.constexpr, EXTRA: tl.constexpr, DESCRIBED: tl.constexpr, STEP: tl.constexpr,
    DIM: tl.constexpr, WIDE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Tensors are pointers, or descriptors of blocks (1, 1, rows, WIDE), which the copy engine reads."""
    sample, head = tl.program_id(2), tl.program_id(1)
    begin = tl.program_id(0) * BLOCK_Q
    query = begin + tl.arange(0, BLOCK_Q)
    q_at = _head(q_at, sample, head, q_strides, STEP, DESCRIBED)
    k_at = _head(k_at, sample, head, k_strides, STEP, DESCRIBED)
    v_at = _head(v_at, sample, head, v_strides, STEP, DESCRIBED)
    k_row, v_row = k_strides[2] * STEP, v_strides[2] * STEP
    mask_ptr += sample.to(tl.int64) * mask_stride

    q = _rows(q_at, sample, head, begin, tokens, q_strides[2] * STEP, BLOCK_Q, DIM, WIDE, True, DESCRIBED)
    acc = tl.zeros((BLOCK_Q, WIDE), tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    peak = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    if WINDOWED:
        acc, total, peak = _over_window(
            acc, total, peak, q, unit, query, k_at, v_at, mask_ptr, sample, head, begin,
            tl.minimum(begin + BLOCK_Q, tokens) - 1, k_row, v_row, grid, window,
            MASKED, DESCRIBED, STAGES, BLOCK_K, DIM, WIDE,
        )  # fmt: skip
    else:
        whole = keys // BLOCK_K * BLOCK_K
        acc, total, peak = _over_keys(
            acc, total, peak, q, unit, query, k_at, v_at, mask_ptr, sample, head, 0, whole, k_row, v_row,
            grid, window, False, MASKED, False, DESCRIBED, STAGES, BLOCK_K, DIM, WIDE,
        )  # fmt: skip
        acc, total, peak = _over_keys(
            acc, total, peak, q, unit, query, k_at, v_at, mask_ptr, sample, head, whole, keys, k_row, v_row,
            grid, window, True, MASKED, False, DESCRIBED, 1, BLOCK_K, DIM, WIDE,
        )  # fmt: skip
    if EXTRA:
        acc, total, peak = _over_keys(
            acc, total, peak, q, unit, query,
            _head(extra_k_at, sample, head, extra_k_strides, STEP, DESCRIBED),
            _head(extra_v_at, sample, head, extra_v_strides, STEP, DESCRIBED), mask_ptr + keys, sample, head,
            0, extras, extra_k_strides[2] * STEP, extra_v_strides[2] * STEP, grid, window,
            True, MASKED, False, DESCRIBED, 1, BLOCK_K, DIM, WIDE,
        )  # fmt: skip

    out = acc / tl.where(total > 0, total, 1.0)[:, None]
    column = tl.arange(0, WIDE)[None, :]
    out_ptr = _head(out_ptr, sample, head, out_strides, STEP, False) + begin.to(tl.int64) * (out_strides[2] * STEP)
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
    more, wide = extra or own, max(16, triton.next_power_of_2(dim))
    q, mask = contiguous_rows(q), None if mask is None else mask.contiguous()
    step = step_of(q, *own, *more, out)
    with on_device_of(q):
        blocks, described = exact_blocks(q), copied_in_blocks(q, *own, *more)
        read = (q, *own, *more)
        if described:
            read = (block_of(q, blocks.queries, wide), *(block_of(x, blocks.keys, wide) for x in (*own, *more)))
        _attention[(triton.cdiv(tokens, blocks.queries), heads, batch)](
            *read, q if mask is None else mask, out, tokens, own.k.shape[2], more.k.shape[2], unit_of(scale, dim),
            *(strides_of(x, step) for x in (q, *own, *more, out)), 0 if mask is None else mask.stride(0),
            grid or (1, 1, 1), window,
            MASKED=mask is not None, WINDOWED=grid is not None, EXTRA=extra is not None, DESCRIBED=described,
            STEP=step, DIM=dim, WIDE=wide,
            BLOCK_Q=blocks.queries, BLOCK_K=blocks.keys, STAGES=blocks.stages, num_warps=blocks.warps,
        )  # fmt: skip
    return out


def unit_of(scale: float | None, dim: int) -> float:
    """The scale of the scores as powers of two."""
    return (dim**-0.5 if scale is None else scale) * math.log2(math.e)
