"""What rope and qk_norm_rope share: rows that are heads of tokens, their angles, and the turn."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 32


@triton.jit
def turn(x, cos, sin):
    """Each pair (x[2i], x[2i+1]) of float32 rows [rows, 2 pairs] by its angle, tables [rows, pairs]."""
    even, odd = tl.split(tl.reshape(x, (x.shape[0], x.shape[1] // 2, 2)))
    return tl.reshape(tl.join(even * cos - odd * sin, even * sin + odd * cos), (x.shape[0], x.shape[1]))


@triton.jit
def angles(cos_ptr, sin_ptr, sample, token, inside, pairs, strides, PAIRS: tl.constexpr):
    """The float32 tables [rows, PAIRS] of the rows' tokens; strides are of (b, n)."""
    pair = tl.arange(0, PAIRS)[None, :]
    places = sample * strides[0] + token[:, None] * strides[1] + pair
    known = inside[:, None] & (pair < pairs)
    cos = tl.load(cos_ptr + places, mask=known, other=1.0).to(tl.float32)
    return cos, tl.load(sin_ptr + places, mask=known, other=0.0).to(tl.float32)


@triton.jit
def places_of(sample, head, token, strides, STEP: tl.constexpr, DIM: tl.constexpr):
    """Offsets [rows, DIM] of the rows' values; strides are of (b, heads, n), in steps."""
    rows = (sample * strides[0] + head * strides[1] + token * strides[2]) * STEP
    return rows[:, None] + tl.arange(0, DIM)[None, :]


class Tables(NamedTuple):
    """Cosines and sines with the strides of (b, n), 0 where the batch shares them."""

    cos: Tensor
    sin: Tensor
    strides: tuple[int, int]


def tables(cos: Tensor, sin: Tensor) -> Tables:
    """The tables (n, pairs) or (b, n, pairs) with one pair of strides."""
    cos, sin = cos.contiguous(), sin.contiguous()
    return Tables(cos, sin, (cos.stride(0) if cos.dim() == 3 else 0, cos.stride(-2)))


def heads_side_by_side(x: Tensor) -> Tensor:
    """An empty tensor like x (b, heads, n, dim) that lies in memory as (b, n, heads, dim)."""
    batch, heads, tokens, dim = x.shape
    return torch.empty(batch, tokens, heads, dim, dtype=x.dtype, device=x.device).transpose(1, 2)


def step_of(*tensors: Tensor) -> int:
    """A number that divides all strides of (b, heads, n), at most 16.

    Kernels get strides in such steps and multiply by a constant, so that the compiler knows how wide it may load:
    by itself it only looks whether a stride is a multiple of 16, and heads of 72 or 88 values are not.
    """
    return math.gcd(16, *(stride for tensor in tensors for stride in tensor.stride()[:3]))


def strides_of(x: Tensor, step: int) -> tuple[int, int, int]:
    """The strides of (b, heads, n), in steps."""
    return x.stride(0) // step, x.stride(1) // step, x.stride(2) // step
