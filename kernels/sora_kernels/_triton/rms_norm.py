"""rms_norm on Triton: a tile of whole rows per program, read once and written once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sora_kernels._triton.tiles import contiguous_rows, on_device_of, row_tile


@triton.jit
def _rms_norm(
    x_ptr, weight_ptr, out_ptr, rows, width, x_row, eps,
    WEIGHTED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < rows) & (column < width)
    x = tl.load(x_ptr + row.to(tl.int64) * x_row + column, mask=inside, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, axis=1) / width + eps)[:, None]
    if WEIGHTED:
        y *= tl.load(weight_ptr + column, mask=column < width, other=0.0).to(tl.float32)
    tl.store(out_ptr + row.to(tl.int64) * width + column, y.to(out_ptr.dtype.element_ty), mask=inside)


def run(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """`sora_kernels.rms_norm`: x (..., d), weight (d,) or None."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if not x.numel():
        return out
    rows = contiguous_rows(x.reshape(-1, x.shape[-1]))
    tile = row_tile(rows.shape[1])
    scale = x if weight is None else weight.contiguous()
    with on_device_of(x):
        _rms_norm[(triton.cdiv(len(rows), tile.rows),)](
            rows, scale, out, *rows.shape, rows.stride(0), eps,
            WEIGHTED=weight is not None, ROWS=tile.rows, COLUMNS=tile.columns, num_warps=tile.warps,
        )  # fmt: skip
    return out
