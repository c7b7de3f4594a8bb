"""norm_silu on Triton: pixels with all their channels per program, in whatever order they lie in memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sora_kernels._triton.tiles import on_device_of, row_tile


@triton.jit
def _norm_silu(
    x_ptr, weight_ptr, out_ptr, pixels, channels, x_strides, out_strides, eps,
    WEIGHTED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(1).to(tl.int64)
    pixel = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    channel = tl.arange(0, COLUMNS)[None, :]
    inside = (pixel < pixels) & (channel < channels)
    x_at = x_ptr + sample * x_strides[0] + channel.to(tl.int64) * x_strides[1] + pixel * x_strides[2]
    x = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x, axis=1) / channels + eps)[:, None]
    if WEIGHTED:
        y *= tl.load(weight_ptr + channel, mask=channel < channels, other=0.0).to(tl.float32)
    y *= tl.sigmoid(y)
    out_at = out_ptr + sample * out_strides[0] + channel.to(tl.int64) * out_strides[1] + pixel * out_strides[2]
    tl.store(out_at, y.to(out_ptr.dtype.element_ty), mask=inside)


def run(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """`sora_kernels.norm_silu`: x (b, c, ...), weight (c,) or None."""
    out = _ordered_like(x)
    if not x.numel():
        return out
    pixels, into = (each.flatten(2) if each.dim() > 2 else each.unsqueeze(2) for each in (x, out))
    tile = row_tile(x.shape[1])
    with on_device_of(x):
        _norm_silu[(triton.cdiv(pixels.shape[2], tile.rows), len(pixels))](
            pixels, x if weight is None else weight.contiguous(), into, pixels.shape[2], pixels.shape[1],
            pixels.stride(), into.stride(), eps,
            WEIGHTED=weight is not None, ROWS=tile.rows, COLUMNS=tile.columns, num_warps=tile.warps,
        )  # fmt: skip
    return out


def _ordered_like(x: Tensor) -> Tensor:
    """An empty tensor like x (b, c, ...), channels last in memory where x has them so, otherwise contiguous."""
    shape = x.shape if x.stride(1) != 1 else (x.shape[0], *x.shape[2:], x.shape[1])
    out = torch.empty(shape, dtype=x.dtype, device=x.device)
    return out if x.stride(1) != 1 else out.movedim(-1, 1)
