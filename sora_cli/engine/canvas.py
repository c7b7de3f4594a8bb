"""The latent grid of a job: exact pixels and frames outside, the network's grid inside, and the sizes on the way.

A small network draws best at the size it was trained at. So a picture is drafted at about that size, then enlarged
and refined, level by level, until it has the pixels asked for. The levels follow from request and model alone.
"""

import math
from dataclasses import dataclass

from sora_weights.spec import Grid

LARGEST_STEP = 3.6  # how much a level may enlarge the one before it, along a side
SNUG = 1.35  # a picture up to this much larger (along a side) than native is drawn at once


@dataclass(frozen=True, slots=True)
class Level:
    """A size at which the whole picture is denoised, in pixels; both sides are multiples of a patch."""

    width: int
    height: int

    def latents(self, grid: Grid) -> tuple[int, int]:
        """Rows and columns of latents."""
        return self.height // grid.space, self.width // grid.space


@dataclass(frozen=True, slots=True)
class Canvas:
    """A picture of exact size on the network's grid: `levels` from the draft to the padded picture."""

    width: int
    height: int
    frames: int
    grid: Grid
    levels: tuple[Level, ...]

    @property
    def latent_frames(self) -> int:
        """Latent frames of the whole job."""
        return self.grid.latent_frames(self.frames)

    @property
    def margins(self) -> tuple[int, int]:
        """Rows and columns of the last level that lie before the picture: padding is split between both sides."""
        left, _, top, _ = self.padding
        return top, left

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Columns and rows of the last level around the picture: left, right, top, bottom."""
        last = self.levels[-1]
        across, down = last.width - self.width, last.height - self.height
        return across // 2, across - across // 2, down // 2, down - down // 2


def lay_out(width: int, height: int, frames: int, grid: Grid, native_area: int) -> Canvas:
    """The canvas of `frames` frames of exactly `width` x `height` pixels, drafted near `native_area` pixels."""
    last = Level(_whole(width, grid.patch), _whole(height, grid.patch))
    enlarged = math.sqrt(last.width * last.height / native_area)
    if enlarged <= SNUG:
        return Canvas(width, height, frames, grid, (last,))
    first = nearest_level(last, native_area, grid.patch)
    side = math.sqrt(last.width * last.height / (first.width * first.height))
    steps = max(1, math.ceil(math.log(side) / math.log(LARGEST_STEP) - 1e-9))
    between = [
        nearest_level(last, first.width * first.height * side ** (2 * k / steps), grid.patch) for k in range(1, steps)
    ]
    return Canvas(width, height, frames, grid, (first, *between, last))


def nearest_level(shape: Level, area: float, patch: int) -> Level:
    """The size on the grid whose aspect ratio and area are nearest to a shape's and to `area`."""
    ratio = shape.width / shape.height
    ideal = math.sqrt(area / ratio)
    rows = range(max(patch, patch * (round(ideal / patch) - 1)), patch * (round(ideal / patch) + 2), patch)
    candidates = [Level(_nearest(row * ratio, patch), row) for row in rows]
    return min(candidates, key=lambda level: _misfit(level, ratio, area))


def _misfit(level: Level, ratio: float, area: float) -> float:
    aspect = abs(math.log(level.width / level.height / ratio))
    return 4 * aspect + abs(math.log(level.width * level.height / area))


def _nearest(value: float, unit: int) -> int:
    return max(unit, unit * math.floor(value / unit + 0.5))


def _whole(value: int, unit: int) -> int:
    return unit * math.ceil(value / unit)
