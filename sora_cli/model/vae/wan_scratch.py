"""Frames that wait on disk while tiles of a video are decoded one after another."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

_HALF_RANGE = 32767.5  # half of what 16 bits hold


def to_fixed(pixels: Tensor) -> Tensor:
    """[-1, 1] as 16-bit fixed point: uint16, off by 1.6e-5 at most."""
    return ((pixels.float() + 1) * _HALF_RANGE).round().to(torch.uint16)


def from_fixed(pixels: Tensor) -> Tensor:
    """What `to_fixed` was given, float32."""
    return pixels.float() / _HALF_RANGE - 1


@dataclass(frozen=True, slots=True)
class FrameFile:
    """A file of `count` frames of `shape` (h, w, c), one after another.

    Ordinary reads and writes, not a memory map: mapped pages would count as this process's memory.
    """

    path: Path
    count: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @staticmethod
    def holding(path: Path, frames: Iterable[Tensor]) -> "FrameFile":
        """Write frames (1, c, h, w) as they come, at least one and all of one shape. Raises OSError on a full disk."""
        with open(path, "wb") as file:
            count = 0
            for frame in frames:
                count += 1
                pixels = rearrange(frame, "1 c h w -> h w c").cpu().contiguous()
                file.write(pixels.view(torch.uint8).numpy().tobytes())
        return FrameFile(path, count, tuple(pixels.shape), pixels.dtype)

    def __iter__(self) -> Iterator[Tensor]:
        """Each frame in its turn, (1, c, h, w). The file is open only while it is read: there can be many."""
        for index in range(self.count):
            yield self._read(index)

    def _read(self, index: int) -> Tensor:
        size = math.prod(self.shape) * self.dtype.itemsize
        with open(self.path, "rb") as file:
            file.seek(index * size)
            pixels = torch.frombuffer(bytearray(file.read(size)), dtype=self.dtype).view(self.shape)
        return rearrange(pixels, "h w c -> 1 c h w")

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink()
