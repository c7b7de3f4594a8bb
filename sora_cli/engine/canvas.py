"""The latent grid of a job: exact pixels and frames outside, the network's grid inside, and the sizes on the way.

A small network draws best at the size it was trained at. So a picture is drafted at about that size, then enlarged
and refined, level by level, until it has the pixels asked for. The levels follow from request and model alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from sora_weights.spec import Grid

LARGEST_STEP = 2.5  # how much a level may enlarge the one before it, along a side
SNUG = 1.35  # a picture up to this much larger (along a side) than native is drawn at once

Each = TypeVar("Each")


@dataclass(frozen=True, slots=True)
class Level:
    """A size at which the whole picture is denoised, in pixels; both sides are multiples of a patch."""

    width: int
    height: int

    def latents(self, grid: Grid) -> tuple[int, int]:
        """Rows and columns of latents."""
        return self.height // grid.space, self.width // grid.space


@dataclass(frozen=True, slots=True)
class Draft:
    """The small picture that a larger one begins with: its level on the grid, and how much of that, in the middle, is
    the picture, exactly.
    """

    level: Level
    width: Fraction
    height: Fraction

    @property
    def size(self) -> tuple[int, int]:
        """Its width and height in pixels, both even."""
        return _nearest(self.width, 2), _nearest(self.height, 2)

    def canvas(self, frames: int, grid: Grid) -> "Canvas":
        """The canvas of the draft itself."""
        return Canvas(*self.size, frames, grid, (self.level,))


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


def lay_out(width: int, height: int, frames: int, grid: Grid, native_area: int, draft: Draft | None = None) -> Canvas:
    """The canvas of `frames` frames of exactly `width` x `height` pixels, drafted near `native_area` pixels.

    With a `draft` that is its first level; a picture of another shape shows the middle of it.
    """
    if draft is None:
        last = Level(_whole(width, grid.patch), _whole(height, grid.patch))
        enlarged = math.sqrt(last.width * last.height / native_area)
        first = last if enlarged <= SNUG else nearest_level(last, native_area, grid.patch)
    else:
        first, scale = draft.level, max(width / draft.width, height / draft.height)
        last = Level(*(max(side, _whole(side * scale, grid.patch)) for side in (first.width, first.height)))
    if first == last:
        return Canvas(width, height, frames, grid, (last,))
    side = math.sqrt(last.width * last.height / (first.width * first.height))
    steps = max(1, math.ceil(math.log(side) / math.log(LARGEST_STEP) - 1e-9))
    between = [
        nearest_level(last, first.width * first.height * side ** (2 * k / steps), grid.patch) for k in range(1, steps)
    ]
    return Canvas(width, height, frames, grid, (first, *between, last))


def levels_from(levels: Sequence[Each], strength: float, composed: float) -> Sequence[Each]:
    """The levels that are drawn where drawing starts from what is there at noise level `strength`: the last one alone
    up to the level `composed`, which leaves the composition as it is.
    """
    return levels if strength > composed else levels[-1:]


def steps_from(steps: int, strength: float) -> int:
    """How many of so many steps are left from noise level `strength` on, at least one."""
    return max(1, math.floor(strength * steps + 0.5))


def draft_of(width: int, height: int, grid: Grid, native_area: int) -> Draft:
    """The draft of a picture of `width` x `height` pixels."""
    levels = lay_out(width, height, 1, grid, native_area).levels
    first, last = levels[0], levels[-1]
    return Draft(first, Fraction(width * first.width, last.width), Fraction(height * first.height, last.height))


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


def _nearest(value: float | Fraction, unit: int) -> int:
    return max(unit, unit * math.floor(value / unit + 0.5))


def _whole(value: int | Fraction, unit: int) -> int:
    return unit * math.ceil(value / unit)
