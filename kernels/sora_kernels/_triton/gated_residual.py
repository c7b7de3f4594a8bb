"""gated_residual on Triton: one pass over tiles of rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sora_kernels._triton.tiles import contiguous_rows, on_device_of

ROWS, COLUMNS = 4, 1024


@triton.jit
def _gated_residual(
    x_ptr, y_ptr, gate_ptr, out_ptr, tokens, width, x_strides, y_strides, gate_strides,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(2).to(tl.int64)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (row < tokens) & (column < width)
    x = tl.load(x_ptr + sample * x_strides[0] + row * x_strides[1] + column, mask=inside).to(tl.float32)
    y = tl.load(y_ptr + sample * y_strides[0] + row * y_strides[1] + column, mask=inside).to(tl.float32)
    gate = tl.load(gate_ptr + sample * gate_strides[0] + row * gate_strides[1] + column, mask=inside).to(tl.float32)
    out_at = out_ptr + (sample * tokens + row) * width + column
    tl.store(out_at, (x + gate * y).to(out_ptr.dtype.element_ty), mask=inside)


def run(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """`sora_kernels.gated_residual`: x and y (b, n, d), gate (b or 1, n or 1, d)."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if not x.numel():
        return out
    batch, tokens, width = x.shape
    columns = min(COLUMNS, triton.next_power_of_2(width))
    rows = ROWS * COLUMNS // columns
    x, y, gate = (contiguous_rows(each).expand(x.shape) for each in (x, y, gate))
    with on_device_of(x):
        _gated_residual[(triton.cdiv(tokens, rows), triton.cdiv(width, columns), batch)](
            x, y, gate, out, tokens, width, *(each.stride()[:2] for each in (x, y, gate)),
            ROWS=rows, COLUMNS=columns, num_warps=4,
        )  # fmt: skip
    return out
