"""layer_norm_modulate on Triton: mean, variance, scale and shift while a tile of rows is in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sora_kernels._triton.tiles import contiguous_rows, on_device_of, row_tile


@triton.jit
def _layer_norm_modulate(
    x_ptr, shift_ptr, scale_ptr, out_ptr, tokens, width, x_strides, shift_strides, scale_strides, eps,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(1).to(tl.int64)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < tokens) & (column < width)
    x = tl.load(x_ptr + sample * x_strides[0] + row * x_strides[1] + column, mask=inside, other=0.0).to(tl.float32)
    shift_at = shift_ptr + sample * shift_strides[0] + row * shift_strides[1] + column
    scale_at = scale_ptr + sample * scale_strides[0] + row * scale_strides[1] + column
    shift = tl.load(shift_at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_at, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, x - (tl.sum(x, axis=1) / width)[:, None], 0.0)
    normalised = centred * tl.rsqrt(tl.sum(centred * centred, axis=1) / width + eps)[:, None]
    y = (normalised * (1.0 + scale) + shift).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + (sample * tokens + row) * width + column, y, mask=inside)


def run(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """`sora_kernels.layer_norm_modulate`: x (b, n, d), shift and scale (b or 1, n or 1, d)."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if not x.numel():
        return out
    batch, tokens, width = x.shape
    tile = row_tile(width)
    rows, shift, scale = (contiguous_rows(each).expand(x.shape) for each in (x, shift, scale))
    with on_device_of(x):
        _layer_norm_modulate[(triton.cdiv(tokens, tile.rows), batch)](
            rows, shift, scale, out, tokens, width, *(each.stride()[:2] for each in (rows, shift, scale)), eps,
            ROWS=tile.rows, COLUMNS=tile.columns, num_warps=tile.warps,
        )  # fmt: skip
    return out
