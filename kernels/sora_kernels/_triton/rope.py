"""rope on Triton: rows are heads of tokens, in the order in which a projection leaves them in memory."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sora_kernels._triton.tiles import contiguous_rows, on_device_of
from sora_kernels._triton.turn import ROWS, angles, heads_side_by_side, places_of, step_of, strides_of, tables, turn


@triton.jit
def _rope(
    x_ptr, cos_ptr, sin_ptr, out_ptr, tokens, heads, dim, x_strides, out_strides, table_strides,
    STEP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    token, head = (row // heads).to(tl.int64), (row % heads).to(tl.int64)
    known = token < tokens
    inside = known[:, None] & (tl.arange(0, DIM)[None, :] < dim)
    cos, sin = angles(cos_ptr, sin_ptr, sample, token, known, dim // 2, table_strides, DIM // 2)
    x = tl.load(x_ptr + places_of(sample, head, token, x_strides, STEP, DIM), mask=inside, other=0.0).to(tl.float32)
    y = turn(x, cos, sin).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + places_of(sample, head, token, out_strides, STEP, DIM), y, mask=inside)


def run(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`sora_kernels.rope`: x (b, heads, n, dim), tables (n, dim/2) or (b, n, dim/2)."""
    out = heads_side_by_side(x)
    if not x.numel():
        return out
    batch, heads, tokens, dim = x.shape
    x, turns = contiguous_rows(x), tables(cos, sin)
    step = step_of(x, out)
    with on_device_of(x):
        _rope[(triton.cdiv(tokens * heads, ROWS), batch)](
            x, turns.cos, turns.sin, out, tokens, heads, dim, strides_of(x, step), strides_of(out, step),
            turns.strides, STEP=step, ROWS=ROWS, DIM=max(4, triton.next_power_of_2(dim)), num_warps=4,
        )  # fmt: skip
    return out
