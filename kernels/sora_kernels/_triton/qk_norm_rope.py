"""qk_norm_rope on Triton: q and k read once and written once, their angles read once for both.

Rows of a tile are heads: any heads of any tokens where each head is normed by itself, the heads of one token where
they are normed together.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sora_kernels._triton.tiles import contiguous_rows, on_device_of
from sora_kernels._triton.turn import ROWS, angles, heads_side_by_side, places_of, step_of, strides_of, tables, turn


@triton.jit
def _normed(x_ptr, weight_ptr, places, head, inside, heads, dim, eps, WEIGHTED: tl.constexpr, TOGETHER: tl.constexpr):
    """Float32 rows [rows, DIM] after their norm; zeros outside."""
    x = tl.load(x_ptr + places, mask=inside, other=0.0).to(tl.float32)
    squares = tl.sum(x * x, axis=1)
    if TOGETHER:
        x *= tl.rsqrt(tl.sum(squares, axis=0) / (heads * dim) + eps)
    else:
        x *= tl.rsqrt(squares / dim + eps)[:, None]
    if WEIGHTED:
        column = tl.arange(0, x.shape[1])[None, :]
        place = head[:, None] * dim + column if TOGETHER else column
        x *= tl.load(weight_ptr + place, mask=inside, other=0.0).to(tl.float32)
    return x


@triton.jit
def _qk_norm_rope(
    q_ptr, k_ptr, q_weight_ptr, k_weight_ptr, cos_ptr, sin_ptr, q_out_ptr, k_out_ptr, tokens, heads, dim,
    q_strides, k_strides, out_strides, table_strides, eps,
    Q_WEIGHTED: tl.constexpr, K_WEIGHTED: tl.constexpr, TOGETHER: tl.constexpr,
    STEP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(1).to(tl.int64)
    row = tl.arange(0, ROWS)
    if TOGETHER:
        token, head = tl.program_id(0).to(tl.int64) + row * 0, row.to(tl.int64)
    else:
        row += tl.program_id(0) * ROWS
        token, head = (row // heads).to(tl.int64), (row % heads).to(tl.int64)
    known = (token < tokens) & (head < heads)
    inside = known[:, None] & (tl.arange(0, DIM)[None, :] < dim)
    turned = tl.program_id(0).to(tl.int64) + tl.arange(0, 1) if TOGETHER else token
    cos, sin = angles(cos_ptr, sin_ptr, sample, turned, turned < tokens, dim // 2, table_strides, DIM // 2)
    q_places = places_of(sample, head, token, q_strides, STEP, DIM)
    k_places = places_of(sample, head, token, k_strides, STEP, DIM)
    out_places = places_of(sample, head, token, out_strides, STEP, DIM)
    q = _normed(q_ptr, q_weight_ptr, q_places, head, inside, heads, dim, eps, Q_WEIGHTED, TOGETHER)
    tl.store(q_out_ptr + out_places, turn(q, cos, sin).to(q_out_ptr.dtype.element_ty), mask=inside)
    k = _normed(k_ptr, k_weight_ptr, k_places, head, inside, heads, dim, eps, K_WEIGHTED, TOGETHER)
    tl.store(k_out_ptr + out_places, turn(k, cos, sin).to(k_out_ptr.dtype.element_ty), mask=inside)


def run(
    q: Tensor, k: Tensor, q_weight: Tensor | None, k_weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """`sora_kernels.qk_norm_rope`: q and k (b, heads, n, dim), weights (dim,), (heads, dim) or None."""
    q_out, k_out = heads_side_by_side(q), heads_side_by_side(k)
    if not q.numel():
        return q_out, k_out
    batch, heads, tokens, dim = q.shape
    together = q_weight is not None and q_weight.dim() == 2
    rows = triton.next_power_of_2(heads) if together else ROWS
    wide = max(4, triton.next_power_of_2(dim))
    q, k, turns = contiguous_rows(q), contiguous_rows(k), tables(cos, sin)
    step = step_of(q, k, q_out)
    weights = (q if q_weight is None else q_weight.contiguous(), k if k_weight is None else k_weight.contiguous())
    with on_device_of(q):
        _qk_norm_rope[(tokens if together else triton.cdiv(tokens * heads, rows), batch)](
            q, k, *weights, turns.cos, turns.sin, q_out, k_out, tokens, heads, dim,
            *(strides_of(x, step) for x in (q, k, q_out)), turns.strides, eps,
            Q_WEIGHTED=q_weight is not None, K_WEIGHTED=k_weight is not None, TOGETHER=together,
            STEP=step, ROWS=rows, DIM=wide, num_warps=max(4, min(16, rows * wide // 1024)),
        )  # fmt: skip
    return q_out, k_out
