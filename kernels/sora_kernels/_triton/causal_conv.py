"""causal_conv on Triton: a matrix product over taps and channels, read straight from each frame's own memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sora_kernels._triton.products import product
from sora_kernels._triton.tiles import on_device_of
from sora_kernels.refusals import interpreted


class Blocks(NamedTuple):
    """Pixels, channels out and in of a tile, warps of a program."""

    pixels: int
    out: int
    inward: int
    warps: int


def _blocks(frame: Tensor, out_channels: int) -> Blocks:
    if interpreted():
        return Blocks(32, 16, 16, 4)
    if frame.element_size() > 2:
        return Blocks(32, 32, 16, 4)
    return Blocks(128, 128, 64, 8) if out_channels > 64 else Blocks(128, 64, 64, 4)


@triton.jit
def _taps(
    acc, frame_ptr, weight_ptr, row, column, out_channel, height, width, channels, out_channels, strides,
    SIDE: tl.constexpr, IN: tl.constexpr,
):  # fmt: skip
    """Add one frame's share to acc [pixels, out channels]; its weight is (o, side, side, c)."""
    for tap in range(SIDE * SIDE):
        y, x = row + tap // SIDE - SIDE // 2, column + tap % SIDE - SIDE // 2
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        pixels = frame_ptr + (y.to(tl.int64) * strides[1] + x * strides[2])[:, None]
        kernel = weight_ptr + ((out_channel * SIDE * SIDE + tap) * channels)[None, :]
        for first in range(0, channels, IN):
            channel = first + tl.arange(0, IN)
            known = channel < channels
            values = tl.load(pixels + channel[None, :], mask=inside[:, None] & known[None, :], other=0.0)
            chosen = known[:, None] & (out_channel < out_channels)[None, :]
            acc = product(values, tl.load(kernel + channel[:, None], mask=chosen, other=0.0), acc)
    return acc


@triton.jit(do_not_specialize=["height", "width", "length"])
def _causal_conv(
    now_ptr, before_ptr, first_ptr, weight_ptr, bias_ptr, out_ptr, height, width, channels, out_channels,
    now_strides, before_strides, first_strides, length,
    FRAMES: tl.constexpr, BIASED: tl.constexpr, SIDE: tl.constexpr,
    PIXELS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    row, column = pixel // width, pixel % width
    out_channel = tl.program_id(1) * OUT + tl.arange(0, OUT)
    weight_ptr += (length - 1) * out_channels * SIDE * SIDE * channels
    acc = tl.zeros((PIXELS, OUT), tl.float32)
    if BIASED:
        acc += tl.load(bias_ptr + out_channel, mask=out_channel < out_channels, other=0.0).to(tl.float32)[None, :]
    acc = _taps(
        acc, now_ptr + sample * now_strides[0], weight_ptr, row, column, out_channel,
        height, width, channels, out_channels, now_strides, SIDE, IN,
    )  # fmt: skip
    if FRAMES > 1:
        acc = _taps(
            acc, before_ptr + sample * before_strides[0],
            weight_ptr - 1 * out_channels * SIDE * SIDE * channels, row, column, out_channel,
            height, width, channels, out_channels, before_strides, SIDE, IN,
        )  # fmt: skip
    if FRAMES > 2:
        acc = _taps(
            acc, first_ptr + sample * first_strides[0],
            weight_ptr - 2 * out_channels * SIDE * SIDE * channels, row, column, out_channel,
            height, width, channels, out_channels, first_strides, SIDE, IN,
        )  # fmt: skip
    places = (sample * height * width + pixel.to(tl.int64))[:, None] * out_channels + out_channel[None, :]
    inside = (row < height)[:, None] & (out_channel < out_channels)[None, :]
    tl.store(out_ptr + places, acc.to(out_ptr.dtype.element_ty), mask=inside)


def run(frame: Tensor, past: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> Tensor:
    """`sora_kernels.causal_conv`: frames (b, c, h, w), weight (t, o, side, side, c), bias (o,) or None."""
    batch, channels, height, width = frame.shape
    out_channels, side = weight.shape[1:3]
    out = torch.empty(batch, height, width, out_channels, dtype=frame.dtype, device=frame.device)
    if not out.numel():
        return out.movedim(-1, 1)
    frames = [_channels_last(each) for each in (frame, *reversed(past))]
    pointers = (*frames, *[frames[0]] * (3 - len(frames)))
    weight = weight.contiguous()
    blocks = _blocks(frame, out_channels)
    with on_device_of(frame):
        _causal_conv[triton.cdiv(height * width, blocks.pixels), triton.cdiv(out_channels, blocks.out), batch](
            *pointers, weight, weight if bias is None else bias.contiguous(), out, height, width, channels,
            out_channels, *((each.stride(0), each.stride(2), each.stride(3)) for each in pointers), len(weight),
            FRAMES=len(frames), BIASED=bias is not None, SIDE=side,
            PIXELS=blocks.pixels, OUT=blocks.out, IN=blocks.inward, num_warps=blocks.warps, num_stages=3,
        )  # fmt: skip
    return out.movedim(-1, 1)


def _channels_last(x: Tensor) -> Tensor:
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous(memory_format=torch.channels_last)
