"""Styles that a prompt may ask for, painted over drawn frames by rule: ink, pixel art, watercolour, black and white.

All are functions of a pixel's surroundings and of where it lies in the picture, so paper and hatching stand still while
what is drawn on them moves. Lengths are shares of the picture's shorter side: a style looks the same at every size.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

LUMA = (0.2126, 0.7152, 0.0722)  # of linear BT.709 weights, on values as they are
STRIP = 2**18  # pixels that are painted at once, about

PAPER, INK = (0.97, 0.95, 0.90), (0.11, 0.11, 0.17)
LINE = 0.005  # of the shorter side: how wide ink lines are, about
FAINT = 0.008  # a change of colours that is drawn no line
WIDER = 1.6  # the ratio of two Gaussians whose difference is about a Laplacian
SHARPER = 70.0  # how soon a line is black
HATCH = 0.022  # from one hatching line to the next

CELLS = 60  # pixels of pixel art along the shorter side
SHADES = 8  # of each colour
DITHER = 0.4  # of a shade
SLACK = 0.12  # of a shade: how much nearer another must be
BAYER = torch.tensor([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16 - 0.46875
VIVID = 1.25  # how much stronger colours are

BRUSH = 0.011  # reach of a brush
GRAIN, WASH = 0.006, 0.12  # sizes of the paper's grain, and of the unevenness of a wash
DOTS = 256  # of noise to a side, before it comes again
RIM = 3.0  # how much darker pigment is where it ends
BOLD = 8.0  # how decidedly a brush keeps to the evener side


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Rows of a picture: RGB (1, 3, h, w) in [0, 1], which row of the picture is the first, and the shorter side of the
    whole picture.
    """

    pixels: Tensor
    top: int
    unit: int

    def places(self) -> tuple[Tensor, Tensor]:
        """The rows (h, 1) and columns (1, w) of the picture, in pixels."""
        height, width = self.pixels.shape[2:]
        return torch.arange(self.top, self.top + height)[:, None].float(), torch.arange(width)[None].float()


def in_style(frames: Iterable[np.ndarray], name: str) -> Iterator[np.ndarray]:
    """The frames of a video, (H, W, 3) uint8, in the style of a name (`vocabulary.STYLES`)."""
    if name == "pixel art":
        return _pixel_art(frames)
    paint, reach = BRUSHES[name]
    return (_painted(frame, paint, reach) for frame in frames)


def _painted(frame: np.ndarray, paint: Callable[[Part], Tensor], reach: float) -> np.ndarray:
    """A frame of which each pixel depends on what is around it as far as `reach`, a few rows at a time."""
    height, width, _ = frame.shape
    unit, made = min(height, width), np.empty_like(frame)
    halo = math.ceil(reach * unit) + 1
    rows = max(1, STRIP // width, 2 * halo)
    for top in range(0, height, rows):
        first, last, bottom = max(0, top - halo), min(top + rows + halo, height), min(top + rows, height)
        pixels = torch.tensor(frame[first:last]).permute(2, 0, 1)[None].float() / 255
        drawn = paint(Part(pixels, first, unit))[0, :, top - first : bottom - first]
        made[top:bottom] = rearrange((drawn.clamp(0, 1) * 255).round().byte(), "c h w -> h w c").numpy()
    return made


def _pixel_art(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Large pixels in few shades, between which an ordered pattern goes (Bayer 1973). A pixel keeps its shade as long
    as another isn't clearly nearer, so that grain doesn't make it flicker.
    """
    kept: Tensor | None = None
    for frame in frames:
        height, width, _ = frame.shape
        cell = max(2, round(min(height, width) / CELLS))
        small = _small(frame, cell)
        grey = _luma(small)
        wanted = (grey + VIVID * (small - grey)).clamp(0, 1) * (SHADES - 1)
        at = (torch.arange(side) % 4 for side in wanted.shape[2:])
        wanted = wanted + DITHER * BAYER[tuple(torch.meshgrid(*at, indexing="ij"))]
        nearest = wanted.round()
        kept = nearest if kept is None else torch.where((wanted - kept).abs() > 0.5 + SLACK, nearest, kept)
        colours = rearrange((kept / (SHADES - 1) * 255).clamp(0, 255).round().byte(), "1 c h w -> h w c").numpy()
        yield colours.repeat(cell, 0).repeat(cell, 1)[:height, :width]


def _small(frame: np.ndarray, cell: int) -> Tensor:
    """The mean colours of a frame's squares of so many pixels, (1, 3, h, w) in [0, 1], a row of them at a time."""
    height, width, _ = frame.shape
    rows = []
    for top in range(0, height, cell):
        pixels = torch.tensor(frame[top : top + cell]).permute(2, 0, 1)[None].float() / 255
        missing = (0, -width % cell, 0, cell - pixels.shape[2])
        rows.append(F.avg_pool2d(F.pad(pixels, missing, mode="replicate"), cell))
    return torch.cat(rows, 2)


def _ink(part: Part) -> Tensor:
    """Lines where colours change and hatching where it is dark, both as of one pen, on paper.

    Source: Winnemöller, Kyprianidis and Olsen 2012, XDoG: An eXtended Difference-of-Gaussians Compendium.
    """
    light = _luma(part.pixels)
    colours = [light, part.pixels[:, :1] - light, part.pixels[:, 2:] - light]
    sigma = max(0.7, LINE * part.unit)
    edges = [_blurred(each, sigma) - _blurred(each, WIDER * sigma) for each in colours]
    drop = torch.cat([-edges[0], *(each.abs() / 2 for each in edges[1:])], 1).amax(1, keepdim=True)
    line = ((drop - FAINT) * SHARPER).clamp(0, 1)
    shade = _blurred(light, 2 * sigma)
    ink = torch.maximum(line, _hatching(part, ((0.55 - shade) / 0.5).clamp(0, 1), 1))
    ink = torch.maximum(ink, _hatching(part, ((0.26 - shade) / 0.26).clamp(0, 1), -1))
    return torch.lerp(_colour(PAPER), _colour(INK), ink) * (0.98 + 0.04 * _noise(part, GRAIN, 1))


def _hatching(part: Part, dark: Tensor, slope: int) -> Tensor:
    """Ink (1, 1, h, w) on slanting lines, as wide as it is `dark`."""
    rows, columns = part.places()
    apart = max(4.0, HATCH * part.unit)
    off = torch.frac((columns + slope * rows) / (apart * math.sqrt(2)) + 4096)
    away = (off - 0.5).abs() * apart  # pixels from a line's middle
    return ((0.42 * apart * dark - away).clamp(-0.5, 0.5) + 0.5) * (dark > 0)


def _watercolour(part: Part) -> Tensor:
    """Even strokes of transparent pigment, darker at their rims, on grained paper.

    Sources: Kuwahara et al. 1976 for the strokes, with weights that are soft so that they don't flicker (Papari et al.
    2007); Bousseau et al. 2006, Interactive Watercolor Rendering, for the pigment.
    """
    strokes = _brushed(part.pixels, max(2, round(BRUSH * part.unit)))
    light = _blurred(_luma(strokes), 0.002 * part.unit + 0.5)
    rim = torch.hypot(*(_slope(light, axis) for axis in (2, 3))) * part.unit / 180
    pigment = 0.24 * _noise(part, WASH, 2) + 0.10 * _noise(part, WASH / 3, 3) + 0.14 * _noise(part, GRAIN, 4)
    pigment = pigment + (RIM * rim).clamp(max=0.7) - 0.15
    thin = 0.12 + 0.88 * strokes
    return thin - (thin - thin**2) * pigment


def _brushed(pixels: Tensor, reach: int) -> Tensor:
    """The means of the four corners around each pixel, the more of one the evener it is."""
    side = reach + 1
    padded = F.pad(pixels, (reach,) * 4, mode="replicate")
    mean, square = (F.avg_pool2d(F.avg_pool2d(each, (side, 1), 1), (1, side), 1) for each in (padded, padded**2))
    uneven = (square - mean**2).clamp(min=0).sum(1, keepdim=True)
    height, width = pixels.shape[2:]
    total = strokes = torch.zeros(1)
    for top, left in product((0, reach), repeat=2):
        corner = (..., slice(top, top + height), slice(left, left + width))
        weight = (uneven[corner].sqrt() + 0.01) ** -BOLD
        total, strokes = total + weight, strokes + weight * mean[corner]
    return strokes / total


def _black_and_white(part: Part) -> Tensor:
    """Greys of a little more contrast."""
    light = _luma(part.pixels)
    return torch.lerp(light, light * light * (3 - 2 * light), 0.5).expand(-1, 3, -1, -1)


def _luma(pixels: Tensor) -> Tensor:
    return torch.einsum("b c h w, c -> b h w", pixels, torch.tensor(LUMA))[:, None]


def _colour(rgb: tuple[float, float, float]) -> Tensor:
    return torch.tensor(rgb).view(1, 3, 1, 1)


def _slope(values: Tensor, axis: int) -> Tensor:
    """How values change along an axis, by central differences."""
    padded = F.pad(values, (0, 0, 1, 1) if axis == 2 else (1, 1, 0, 0), mode="replicate")
    return (padded.narrow(axis, 2, values.shape[axis]) - padded.narrow(axis, 0, values.shape[axis])) / 2


def _blurred(values: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (1, 1, h, w)."""
    reach = max(1, math.ceil(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    values = F.conv2d(F.pad(values, (reach, reach, 0, 0), mode="replicate"), kernel)
    return F.conv2d(F.pad(values, (0, 0, reach, reach), mode="replicate"), kernel.mT)


def _noise(part: Part, size: float, seed: int) -> Tensor:
    """Smooth noise in [-1, 1] that is always the same, (1, 1, h, w), of spots of a `size`."""
    spot = max(1.5, size * part.unit)
    table, (rows, columns) = _dots(seed), part.places()
    shape = (len(rows), columns.shape[1])
    grid = torch.stack([columns.expand(shape), rows.expand(shape)], -1)[None] / spot
    grid = torch.remainder(grid, DOTS) / DOTS * 2 - 1
    return F.grid_sample(table, grid, align_corners=True)


@lru_cache
def _dots(seed: int) -> Tensor:
    """Even noise in [-1, 1], (1, 1, n + 1, n + 1), that goes on beyond its borders as it begins."""
    dots = torch.rand(1, 1, DOTS, DOTS, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.pad(dots, (0, 1, 0, 1), mode="circular")


BRUSHES: dict[str, tuple[Callable[[Part], Tensor], float]] = {  # and how far around a pixel what is there matters
    "black and white": (_black_and_white, 0.0),
    "watercolour": (_watercolour, 2 * BRUSH + 0.02),
    "ink": (_ink, 0.03),
}
