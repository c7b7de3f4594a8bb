"""How much of a tensor one program takes, and on which device it runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

VALUES = 4096
"""Values of a tile, where rows are shorter: enough loads in flight, and few enough registers."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows and columns that a program takes, both powers of two, and its warps."""

    rows: int
    columns: int
    warps: int


def row_tile(width: int) -> Tile:
    """The tile for whole rows of `width` values."""
    columns = triton.next_power_of_2(width)
    rows = max(1, VALUES // columns)
    return Tile(rows, columns, warps=max(4, min(16, rows * columns // 1024)))


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """Kernels launched inside run where x lies."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def contiguous_rows(x: Tensor) -> Tensor:
    """The tensor itself where the values of its last axis lie side by side, otherwise a copy."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
