"""Which pixels a tile of Wan's decoder needs at each level, so that tiles decode to the pixels of the whole picture.

A 3x3 convolution spoils one pixel along each side that was cut out of the picture; along the picture's border it sees
zeros, as it does without tiles. So a tile enters each level with a halo of as many pixels as convolutions will spoil.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from torch import Tensor

Slices = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Cut:
    """The sides of a tile that were cut out of the picture: 1 where cut, 0 where the picture ends."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def peel(self, x: Tensor, pixels: int = 1) -> Tensor:  # (..., h, w) -> (..., h', w')
        """A view of `x` without what convolutions have spoilt along the cut sides."""
        height, width = x.shape[-2:]
        rows = slice(pixels * self.top, height - pixels * self.bottom)
        columns = slice(pixels * self.left, width - pixels * self.right)
        return x[..., rows, columns]


UNCUT = Cut()


@dataclass(frozen=True, slots=True)
class Span:
    """Rows, or columns, start .. stop - 1 of a picture that has `size` of them."""

    start: int
    stop: int
    size: int

    @property
    def whole(self) -> "Span":
        """All of them."""
        return Span(0, self.size, self.size)

    def times(self, factor: int) -> "Span":
        """The same part of a picture `factor` times as large."""
        return Span(self.start * factor, self.stop * factor, self.size * factor)

    def grown(self, by: int) -> "Span":
        """With `by` more at both ends, as far as the picture goes."""
        return Span(max(self.start - by, 0), min(self.stop + by, self.size), self.size)

    def peeled(self, by: int) -> "Span":
        """With `by` less at each end that is not the picture's."""
        return Span(self.start + by * (self.start > 0), self.stop - by * (self.stop < self.size), self.size)

    def within(self, outer: "Span") -> slice:
        """Where this lies in a tensor that holds `outer`."""
        return slice(self.start - outer.start, self.stop - outer.start)


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of a picture."""

    rows: Span
    columns: Span

    @property
    def cut(self) -> Cut:
        """The sides along which the picture goes on."""
        rows, columns = self.rows, self.columns
        inner = rows.start > 0, rows.stop < rows.size, columns.start > 0, columns.stop < columns.size
        return Cut(*map(int, inner))

    @property
    def place(self) -> Slices:
        """Where this lies in the picture."""
        return slice(self.rows.start, self.rows.stop), slice(self.columns.start, self.columns.stop)

    @property
    def picture(self) -> "Region":
        """The whole picture."""
        return Region(self.rows.whole, self.columns.whole)

    def times(self, factor: int) -> "Region":
        """The same part of a picture `factor` times as large."""
        return Region(self.rows.times(factor), self.columns.times(factor))

    def grown(self, by: int) -> "Region":
        """With `by` more on all sides, as far as the picture goes."""
        return Region(self.rows.grown(by), self.columns.grown(by))

    def peeled(self, by: int) -> "Region":
        """With `by` less along the cut sides."""
        return Region(self.rows.peeled(by), self.columns.peeled(by))

    def within(self, outer: "Region") -> Slices:
        """Where this lies in a tensor (..., h, w) that holds `outer`."""
        return self.rows.within(outer.rows), self.columns.within(outer.columns)


@dataclass(frozen=True, slots=True)
class TilePlan:
    """What is done for one tile.

    `entries[i]` is what level i needs of what comes to it, `cuts[i]` the sides along which its convolutions spoil
    pixels, `exit` where the tile lies in what the decoder makes in the end, and `pixels` the tile itself.
    """

    entries: tuple[Slices, ...]
    cuts: tuple[Cut, ...]
    exit: Slices
    pixels: Region


def tile_regions(rows: int, columns: int, side: int) -> tuple[Region, ...]:
    """Tiles of at most `side` x `side` that cover rows x columns once, row by row, as equal as they can be.

    Raises ValueError unless side is at least 1.
    """
    if side < 1:
        raise ValueError(f"tiles of {side} latents: at least 1")
    return tuple(Region(down, across) for down in _spans(rows, side) for across in _spans(columns, side))


def plan_tile(latents: Region, levels: int, convolutions: int) -> TilePlan:
    """The plan for a tile of latents through `levels` of so many 3x3 convolutions each.

    Between levels the picture is doubled and convolved once; after the last it is convolved once more.
    """
    halos = _halos(levels, convolutions)
    needed = [latents.times(2**level).grown(halo) for level, halo in enumerate(halos)]
    made = [region.peeled(convolutions) for region in needed]
    coming = [latents.picture, *(region.times(2) for region in made[:-1])]
    pixels = latents.times(2 ** (levels - 1))
    return TilePlan(
        tuple(region.within(outer) for region, outer in zip(needed, coming, strict=True)),
        tuple(region.cut for region in needed),
        pixels.within(made[-1]),
        pixels,
    )


def _halos(levels: int, convolutions: int) -> tuple[int, ...]:
    """How many pixels around a tile enter each level."""
    halos = [convolutions + 1]
    for _ in range(levels - 1):
        halos.append(convolutions + ceil((halos[-1] + 1) / 2))
    return tuple(reversed(halos))


def _spans(size: int, side: int) -> tuple[Span, ...]:
    count = ceil(size / side)
    bounds = [index * size // count for index in range(count + 1)]
    return tuple(Span(start, stop, size) for start, stop in pairwise(bounds))
