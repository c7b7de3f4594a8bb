"""Keys as int8: less their mean, which shifts all scores of a query alike, with one scale for each group of keys.

Source: Zhang et al., SageAttention (arXiv:2410.02367), sections 4.2 and 4.3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sora_kernels._triton.tiles import contiguous_rows, on_device_of
from sora_kernels._triton.turn import places_of, step_of, strides_of

GROUP = 64
"""Keys that share a scale; the attention kernel takes as many at a time."""


class Keys(NamedTuple):
    """Whole numbers (b, heads, n, dim) and their scales (b, heads, groups), float32."""

    values: Tensor
    scales: Tensor


@triton.jit
def to_int8(x):
    """Float32 in [-127, 127] to the nearest whole number."""
    return tl.floor(x + 0.5).to(tl.int8)


@triton.jit
def scale_of(largest):
    """The scale that takes the largest magnitude to 127; 1 where all is zero."""
    return tl.where(largest > 0, largest / 127.0, 1.0)


@triton.jit
def _quantise(
    k_ptr, mean_ptr, mask_ptr, out_ptr, scale_ptr, heads, tokens, dim, k_strides, mask_stride,
    MASKED: tl.constexpr, STEP: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    sample, head = tl.program_id(2).to(tl.int64), tl.program_id(1).to(tl.int64)
    key = (tl.program_id(0) * GROUP + tl.arange(0, GROUP)).to(tl.int64)
    column = tl.arange(0, DIM)
    inside = (key < tokens)[:, None] & (column < dim)[None, :]
    series = sample * heads + head
    k = tl.load(k_ptr + places_of(sample, head, key, k_strides, STEP, DIM), mask=inside, other=0.0).to(tl.float32)
    k -= tl.load(mean_ptr + series * dim + column, mask=column < dim, other=0.0)[None, :]
    if MASKED:
        seen = tl.load(mask_ptr + sample * mask_stride + key, mask=key < tokens, other=0) != 0
        k = tl.where(seen[:, None], k, 0.0)
    scale = scale_of(tl.max(tl.max(tl.where(inside, tl.abs(k), 0.0), axis=1), axis=0))
    tl.store(scale_ptr + series * tl.num_programs(0) + tl.program_id(0), scale)
    tl.store(out_ptr + (series * tokens + key[:, None]) * dim + column[None, :], to_int8(k / scale), mask=inside)


def sum_of_keys(k: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The sum of the keys (b, heads, n, dim) that the mask (b, n) shows, (b, heads, dim) float32, and their number."""
    if mask is None:
        return k.sum(2, dtype=torch.float32), torch.full((len(k), 1, 1), k.shape[2], device=k.device)
    shown = k.masked_fill(~mask[:, None, :, None], 0)
    return shown.sum(2, dtype=torch.float32), mask.sum(1)[:, None, None]


def quantised(k: Tensor, mean: Tensor, mask: Tensor | None) -> Keys:
    """Keys (b, heads, n, dim) less their mean (b, heads, dim); those that the mask (b, n) hides become 0."""
    batch, heads, tokens, dim = k.shape
    groups = triton.cdiv(tokens, GROUP)
    values = torch.empty(k.shape, dtype=torch.int8, device=k.device)
    scales = torch.empty(batch, heads, groups, dtype=torch.float32, device=k.device)
    if not k.numel():
        return Keys(values, scales)
    k, mean = contiguous_rows(k), mean.contiguous()
    step = step_of(k)
    with on_device_of(k):
        _quantise[(groups, heads, batch)](
            k, mean, k if mask is None else mask, values, scales, heads, tokens, dim,
            strides_of(k, step), 0 if mask is None else mask.stride(0),
            MASKED=mask is not None, STEP=step, GROUP=GROUP, DIM=triton.next_power_of_2(dim), num_warps=4,
        )  # fmt: skip
    return Keys(values, scales)
