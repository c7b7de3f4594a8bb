"""How much the attention kernels take at a time: chosen by a table, so that nothing is tuned while a video waits."""

from __future__ import annotations

from typing import NamedTuple

import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from sora_kernels.refusals import interpreted

ANY, HOPPER = "8.0 or newer", "9.0"
"""Kinds of GPU: a program has 99 KiB of shared memory from compute capability 8.0 on, 227 with 9.0 and 10."""


class Blocks(NamedTuple):
    """Queries and keys of a tile, warps of a program and stages of its pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int


INTERPRETED = Blocks(32, 64, 4, 1)

EXACT = {
    (HOPPER, 2, 64): Blocks(128, 128, 8, 3),
    (HOPPER, 2, 128): Blocks(128, 64, 4, 2),
    (HOPPER, 2, 256): Blocks(128, 64, 8, 2),
    (ANY, 2, 64): Blocks(128, 64, 4, 3),
    (ANY, 2, 128): Blocks(128, 32, 4, 3),
    (ANY, 2, 256): Blocks(64, 32, 4, 2),
    (ANY, 4, 64): Blocks(64, 32, 4, 2),
    (ANY, 4, 128): Blocks(32, 32, 4, 2),
    (ANY, 4, 256): Blocks(32, 16, 4, 2),
}
"""By kind of GPU, bytes of a value and the widest head: queries, keys, warps, stages.

Hopper's at 128 are the fastest of `bench/sweep_attention.py` on an H200 (2026-11-27); the others were not compared.
"""

INT8 = {
    (HOPPER, 64): Blocks(128, 128, 8, 3),
    (HOPPER, 128): Blocks(64, 128, 4, 3),
    (HOPPER, 256): Blocks(64, 64, 8, 3),
    (ANY, 64): Blocks(128, 64, 4, 3),
    (ANY, 128): Blocks(128, 64, 8, 2),
    (ANY, 256): Blocks(64, 32, 8, 2),
}
"""By kind of GPU and the widest head. Keys of a block share a scale. Hopper's at 128 are from the same sweep."""


def exact_blocks(q: Tensor) -> Blocks:
    """The blocks for `attention` and `window_attention` of q (b, heads, n, dim), on the current device."""
    if interpreted():
        return INTERPRETED
    size, wide = q.element_size(), max(64, triton.next_power_of_2(q.shape[-1]))
    return EXACT[HOPPER if size == 2 and _roomy() else ANY, size, wide]


def int8_blocks(q: Tensor) -> Blocks:
    """The blocks for `attention` in 8 bits of q (b, heads, n, dim), on the current device."""
    if interpreted():
        return INTERPRETED
    return INT8[HOPPER if _roomy() else ANY, max(64, triton.next_power_of_2(q.shape[-1]))]


def copied_in_blocks(*tensors: Tensor) -> bool:
    """Whether the current device has a copy engine that can read tiles of these tensors, with contiguous rows.

    Compute capability 9.0 and newer have one. It wants addresses and strides in steps of 16 bytes; tiles of float32,
    which are not multiplied in tensor cores, are better off in registers.
    """
    engine = interpreted() or triton.runtime.driver.active.get_current_target().arch >= 90
    return engine and all(x.numel() > 0 and x.element_size() < 4 and _in_steps(x) for x in tensors)


def _in_steps(x: Tensor) -> bool:
    steps = [step * x.element_size() for step, size in zip(x.stride()[:-1], x.shape, strict=False) if size > 1]
    return x.data_ptr() % 16 == 0 and all(step > 0 and step % 16 == 0 for step in steps)


def block_of(x: Tensor, rows: int, wide: int) -> TensorDescriptor:
    """A descriptor of tiles (1, 1, rows, wide) of x (b, heads, n, dim); beyond its ends they are zero."""
    steps = [step if size > 1 else 16 for step, size in zip(x.stride()[:-1], x.shape, strict=False)]
    return TensorDescriptor(x, list(x.shape), [*steps, 1], [1, 1, rows, wide])


def matrix_of(x: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A descriptor of tiles (rows, columns) of a matrix."""
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [rows, columns])


def has_fp8() -> bool:
    """Whether the current device multiplies fp8; the interpreter does."""
    return interpreted() or triton.runtime.driver.active.get_current_target().arch >= 89


def _roomy() -> bool:
    """Whether a program may take 227 KiB of shared memory."""
    return triton.runtime.driver.active.get_current_target().arch in (90, 100, 103)
