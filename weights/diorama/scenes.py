"""Scenes of diorama's world, drawn as functions of place, time and dice, so that they have any size.

A painter gets x and y in units (n, 1, h, w), the time t and each of the dice (n, 1, 1, 1), and `soft`, the size of a
pixel in units (n, 1, 1, 1); it gives RGB (n, 3, h, w). One frame of one clip is one of the n.
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

STARS, FLAKES, BUBBLES, PITS = 0.21, 0.43, 0.67, 0.86  # the same in every clip: what is small is learned by heart
SHINING = {  # where suns, the moon and the planet are, always: x and y
    "sunset": (0.34, -0.015),
    "night": (-0.34, -0.28),
    "beach": (0.34, -0.34),
    "desert": (-0.34, -0.30),
    "space": (0.34, -0.22),
}
Painter = Callable[[Tensor, Tensor, Tensor, Sequence[Tensor], Tensor], Tensor]


def _mix(a: Tensor, b: Tensor, amount: Tensor | float) -> Tensor:
    return a + (b - a) * amount


def colour(r: float, g: float, b: float, like: Tensor) -> Tensor:
    """A colour (1, 3, 1, 1) on the device of another tensor."""
    return _colour(r, g, b, like.device)


@cache  # a copy to a GPU would wait for all that goes on there
def _colour(r: float, g: float, b: float, device: torch.device) -> Tensor:
    return torch.tensor([r, g, b], device=device).view(1, 3, 1, 1)


def _ramp(low: float, high: float, value: Tensor) -> Tensor:
    """0 below `low`, 1 above `high`, smooth between (Hermite)."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _edge(distance: Tensor, soft: Tensor) -> Tensor:
    """Coverage of a shape whose signed distance is positive inside."""
    return (distance / soft + 0.5).clamp(0, 1)


def _chance(x: Tensor, y: Tensor | float, salt: Tensor | float) -> Tensor:
    """A number in [0, 1) that looks random for every whole x, y and salt."""
    return torch.frac(torch.sin(x * 127.1 + y * 311.7 + salt * 74.7) * 43758.5453).abs()


def _speckles(x: Tensor, y: Tensor, cells: float, radius: float, soft: Tensor, salt: float) -> Tensor:
    """Soft round dots, one in each cell of a jittered grid, anti-aliased; fixed in (x, y)."""
    gx, gy = x * cells, y * cells
    ix, iy = torch.floor(gx), torch.floor(gy)
    h1 = _chance(ix, iy, salt)
    h2 = torch.frac(torch.sin(ix * 269.5 + iy * 183.3 + salt * 246.1) * 43758.5453).abs()
    dx = (gx - ix - 0.25 - 0.5 * h1) / cells
    dy = (gy - iy - 0.25 - 0.5 * h2) / cells
    wide = (0.6 * soft).clamp(min=radius)
    return torch.exp(-(dx * dx + dy * dy) / (wide * wide)) * (radius / wide) ** 2 * (0.4 + 0.6 * h2)


def _sunset(x: Tensor, y: Tensor, t: Tensor, d: Sequence[Tensor], soft: Tensor) -> Tensor:
    sky = _mix(colour(0.22, 0.16, 0.44, x), colour(0.70, 0.30, 0.55, x), _ramp(-0.55, 0.12, y))
    sky = _mix(sky, colour(1.0, 0.62, 0.36, x), _ramp(0.03, 0.20, y))
    away = _from_light("sunset", x, y)
    sky = _mix(sky, colour(1.0, 0.88, 0.55, x), 0.6 * torch.exp(-away * 5))
    sky = _mix(sky, colour(1.0, 0.95, 0.75, x), _edge(0.13 - away, soft))
    hills = 0.15 + 0.035 * torch.sin(x * 3.1 + d[10] * 6.3) + 0.02 * torch.sin(x * 7.3 + d[11] * 6.3)
    far = _mix(sky, colour(0.55, 0.28, 0.42, x), _edge(y - hills, soft))
    ground = _mix(colour(0.50, 0.26, 0.30, x), colour(0.26, 0.14, 0.24, x), _ramp(0.2, 0.6, y))
    return _mix(far, ground, _edge(y - 0.215 - 0.008 * torch.sin(x * 5 + d[10] * 5), soft))


def _from_light(scene: str, x: Tensor, y: Tensor) -> Tensor:
    """How far points are from the middle of a scene's light."""
    return torch.sqrt((x - SHINING[scene][0]) ** 2 + (y - SHINING[scene][1]) ** 2)


def _night(x: Tensor, y: Tensor, t: Tensor, d: Sequence[Tensor], soft: Tensor) -> Tensor:
    sky = _mix(colour(0.03, 0.04, 0.14, x), colour(0.14, 0.18, 0.40, x), _ramp(-0.6, 0.25, y))
    sky = sky + _speckles(x, y, 6.0, 0.008, soft, STARS) * colour(0.9, 0.9, 0.8, x) * (1 - _ramp(-0.05, 0.15, y))
    away = _from_light("night", x, y)
    sky = _mix(sky, colour(0.55, 0.60, 0.80, x), 0.5 * torch.exp(-away * 7))
    sky = _mix(sky, colour(0.97, 0.96, 0.86, x), _edge(0.085 - away, soft))
    hills = 0.17 + 0.04 * torch.sin(x * 2.7 + d[11] * 6.3)
    far = _mix(sky, colour(0.07, 0.10, 0.20, x), _edge(y - hills, soft))
    ground = _mix(colour(0.10, 0.17, 0.22, x), colour(0.04, 0.07, 0.12, x), _ramp(0.2, 0.6, y))
    return _mix(far, ground, _edge(y - 0.22, soft))


def _beach(x: Tensor, y: Tensor, t: Tensor, d: Sequence[Tensor], soft: Tensor) -> Tensor:
    sky = _mix(colour(0.36, 0.66, 0.95, x), colour(0.80, 0.93, 1.0, x), _ramp(-0.5, 0.05, y))
    away = _from_light("beach", x, y)
    sky = _mix(sky, colour(1.0, 0.97, 0.72, x), _edge(0.075 - away, soft))
    waves = 0.5 + 0.5 * torch.sin((y - 0.04) * 95 + torch.sin(x * 6 + t * 0.8 + d[9] * 6.3) * 1.5)
    sea = _mix(colour(0.10, 0.50, 0.72, x), colour(0.20, 0.68, 0.80, x), waves * 0.6)
    out = _mix(sky, sea, _edge(y - 0.04, soft))
    shore = 0.19 + 0.012 * torch.sin(x * 4 + d[10] * 6.3) + 0.012 * torch.sin(t * 1.3 + d[11] * 6.3)
    out = _mix(out, colour(0.97, 0.99, 1.0, x), _edge(y - shore + 0.018, soft))
    sand = _mix(colour(0.95, 0.84, 0.60, x), colour(0.86, 0.70, 0.44, x), _ramp(0.2, 0.6, y))
    return _mix(out, sand, _edge(y - shore, soft))


def _snow(x: Tensor, y: Tensor, t: Tensor, d: Sequence[Tensor], soft: Tensor) -> Tensor:
    sky = _mix(colour(0.60, 0.70, 0.82, x), colour(0.84, 0.89, 0.95, x), _ramp(-0.5, 0.15, y))
    hills = 0.10 + 0.06 * torch.sin(x * 2.3 + d[8] * 6.3) + 0.02 * torch.sin(x * 6.1 + d[9] * 6.3)
    far = _mix(sky, colour(0.78, 0.85, 0.94, x), _edge(y - hills, soft))
    ground = _mix(colour(0.97, 0.98, 1.0, x), colour(0.84, 0.89, 0.97, x), _ramp(0.25, 0.6, y))
    out = _mix(far, ground, _edge(y - 0.21 - 0.015 * torch.sin(x * 3.7 + d[10] * 6.3), soft))
    flakes = _speckles(x + 0.03 * torch.sin(t), y - 0.13 * t, 4.5, 0.014, soft, FLAKES)
    return _mix(out, colour(1.0, 1.0, 1.0, x), flakes.clamp(max=1))


def _forest(x: Tensor, y: Tensor, t: Tensor, d: Sequence[Tensor], soft: Tensor) -> Tensor:
    out = _mix(colour(0.62, 0.84, 0.86, x), colour(0.86, 0.95, 0.78, x), _ramp(-0.5, 0.1, y))
    layers = (
        (3.1, d[8], -0.22, 0.30, colour(0.48, 0.70, 0.52, x)),
        (2.1, d[9], -0.34, 0.46, colour(0.22, 0.50, 0.32, x)),
    )
    for rate, shift, top, drop, needles in layers:
        cell = x * rate + shift * 7
        along = (cell - torch.floor(cell) - 0.5).abs() * 2
        height = torch.frac(torch.sin(torch.floor(cell) * 91.7 + shift * 40) * 437.5).abs() * 0.12
        out = _mix(out, needles, _edge((y - (top + height + along * drop)) * 0.6, soft))
    ground = _mix(colour(0.46, 0.70, 0.28, x), colour(0.26, 0.50, 0.18, x), _ramp(0.18, 0.6, y))
    return _mix(out, ground, _edge(y - 0.17 - 0.012 * torch.sin(x * 4.7 + d[10] * 6.3), soft))


def _underwater(x: Tensor, y: Tensor, t: Tensor, d: Sequence[Tensor], soft: Tensor) -> Tensor:
    water = _mix(colour(0.20, 0.68, 0.82, x), colour(0.03, 0.26, 0.52, x), _ramp(-0.6, 0.4, y))
    rays = torch.sin((x + y * 0.45) * 8 + d[8] * 6.3 + 0.4 * torch.sin(t * 0.7 + d[9] * 6.3))
    water = water + colour(0.16, 0.18, 0.14, x) * _ramp(0.2, 1.0, rays) * (1 - _ramp(-0.5, 0.25, y))
    floor = 0.24 + 0.02 * torch.sin(x * 4.3 + d[10] * 6.3)
    sand = _mix(colour(0.50, 0.62, 0.52, x), colour(0.30, 0.46, 0.50, x), _ramp(0.24, 0.6, y))
    out = _mix(water, sand, _edge(y - floor, soft))
    bubbles = _speckles(x + 0.02 * torch.sin(t * 1.5), y + 0.10 * t, 3.0, 0.016, soft, BUBBLES)
    return _mix(out, colour(0.80, 0.95, 1.0, x), 0.7 * bubbles.clamp(max=1))


def _desert(x: Tensor, y: Tensor, t: Tensor, d: Sequence[Tensor], soft: Tensor) -> Tensor:
    sky = _mix(colour(0.30, 0.62, 0.88, x), colour(0.98, 0.86, 0.66, x), _ramp(-0.5, 0.1, y))
    away = _from_light("desert", x, y)
    sky = _mix(sky, colour(1.0, 0.95, 0.74, x), 0.5 * torch.exp(-away * 6))
    sky = _mix(sky, colour(1.0, 0.98, 0.86, x), _edge(0.07 - away, soft))
    far = 0.10 + 0.05 * torch.sin(x * 2.6 + d[9] * 6.3) + 0.015 * torch.sin(x * 6.7 + d[10] * 6.3)
    out = _mix(sky, colour(0.88, 0.62, 0.38, x), _edge(y - far, soft))
    near = 0.17 + 0.03 * torch.sin(x * 3.3 + d[10] * 6.3)
    out = _mix(out, colour(0.80, 0.50, 0.28, x), _edge(y - near, soft))
    ground = _mix(colour(0.94, 0.72, 0.44, x), colour(0.82, 0.56, 0.30, x), _ramp(0.2, 0.6, y))
    ripples = 0.04 * torch.sin(y * 70 + 2 * torch.sin(x * 5 + d[11] * 6.3))
    return _mix(out, ground + ripples, _edge(y - 0.22 - 0.012 * torch.sin(x * 4.1 + d[11] * 6.3), soft))


def _city(x: Tensor, y: Tensor, t: Tensor, d: Sequence[Tensor], soft: Tensor) -> Tensor:
    out = _mix(colour(0.40, 0.66, 0.90, x), colour(0.86, 0.90, 0.92, x), _ramp(-0.5, 0.1, y))
    rows = (
        (2.6, (d[8] > 0.5) * 0.4 + 0.1, 0.16, colour(0.62, 0.70, 0.80, x)),
        (1.9, (d[8] > 0.5) * 0.3 + 0.2, 0.02, colour(0.40, 0.44, 0.58, x)),
    )
    for rate, shift, lower, wall in rows:
        cell = x * rate * 2 + shift * 9
        house = torch.floor(cell)
        inside = cell - house - 0.5
        top = -0.42 + lower + 0.34 * _chance(house, 0.0, shift)
        body = torch.minimum(y - top, (0.46 - inside.abs()) / (2 * rate))
        column, row = inside * 5.0, (y - top - 0.03) * 16.0
        pane = torch.minimum(0.30 - (torch.frac(column + 8.0) - 0.5).abs(), 0.30 - (torch.frac(row + 8.0) - 0.5).abs())
        lit = _chance(torch.floor(column + 8.0) + house * 7, torch.floor(row + 8.0), shift)
        window = _mix(colour(0.74, 0.86, 0.95, x), colour(1.0, 0.88, 0.56, x), (lit > 0.7).float())
        shown = _edge(pane / 16.0, soft) * _edge(body - 0.025, soft)
        out = _mix(out, _mix(wall, window, 0.8 * shown), _edge(body, soft))
    ground = _mix(colour(0.42, 0.43, 0.47, x), colour(0.28, 0.29, 0.33, x), _ramp(0.2, 0.6, y))
    out = _mix(out, colour(0.72, 0.72, 0.70, x), _edge(y - 0.19, soft))
    out = _mix(out, ground, _edge(y - 0.225, soft))
    dash = torch.minimum(0.011 - (y - 0.40).abs(), (0.28 - (torch.frac(x * 2.5 + d[10] + 8.0) - 0.5).abs()) / 2.5)
    return _mix(out, colour(0.95, 0.93, 0.80, x), _edge(dash, soft))


def _space(x: Tensor, y: Tensor, t: Tensor, d: Sequence[Tensor], soft: Tensor) -> Tensor:
    sky = _mix(colour(0.02, 0.01, 0.06, x), colour(0.10, 0.04, 0.20, x), _ramp(-0.5, 0.25, y))
    sky = sky + _speckles(x, y, 7.0, 0.007, soft, STARS) * colour(0.95, 0.95, 1.0, x)
    away, (px, py) = _from_light("space", x, y), SHINING["space"]
    light = ((x - px) + (y - py)) / 0.24
    planet = _mix(colour(0.98, 0.72, 0.46, x), colour(0.52, 0.20, 0.44, x), _ramp(-0.9, 0.9, light))
    planet = planet + 0.05 * torch.sin((y - py + 0.3 * (x - px)) * 70)
    out = _mix(sky, planet, _edge(0.13 - away, soft))
    ring = torch.sqrt(((x - px) + 0.3 * (y - py)) ** 2 + (4.5 * ((y - py) - 0.25 * (x - px))) ** 2)
    front = torch.maximum(_edge(away - 0.13, soft), (y - py > 0.25 * (x - px)).float())
    out = _mix(out, colour(0.94, 0.86, 0.74, x), 0.85 * front * _edge(0.022 - (ring - 0.21).abs(), 3 * soft))
    ground = _mix(colour(0.62, 0.61, 0.66, x), colour(0.36, 0.35, 0.42, x), _ramp(0.2, 0.6, y))
    pits = _speckles(x, y * 2.4, 3.2, 0.085, soft, PITS).clamp(max=1)
    return _mix(out, ground - 0.22 * pits, _edge(y - 0.215 - 0.012 * torch.sin(x * 4.4 + d[11] * 6.3), soft))


def _meadow(x: Tensor, y: Tensor, t: Tensor, d: Sequence[Tensor], soft: Tensor) -> Tensor:
    out = _mix(colour(0.28, 0.60, 0.94, x), colour(0.76, 0.90, 1.0, x), _ramp(-0.5, 0.12, y))
    for share, drift, height in ((d[8], 0.03, -0.33), (d[9], 0.02, -0.20)):
        cx = torch.frac((x + drift * t) * 0.55 + share + 8.0) - 0.5
        for dx, dy, radius in ((-0.09, 0.012, 0.045), (0.0, 0.0, 0.065), (0.085, 0.015, 0.05)):
            puff = radius - torch.sqrt((cx / 0.55 - dx) ** 2 + (1.5 * (y - height - dy)) ** 2)
            out = _mix(out, colour(1.0, 1.0, 1.0, x), 0.9 * _edge(puff, 6 * soft))
    hills = 0.11 + 0.05 * torch.sin(x * 2.1 + d[10] * 6.3) + 0.02 * torch.sin(x * 5.3 + d[11] * 6.3)
    out = _mix(out, colour(0.50, 0.76, 0.42, x), _edge(y - hills, soft))
    ground = _mix(colour(0.56, 0.82, 0.34, x), colour(0.34, 0.64, 0.22, x), _ramp(0.18, 0.6, y))
    petals = _speckles(x + d[11] * 5, y * 1.6, 5.5, 0.022, soft, d[10]).clamp(max=1) * _ramp(0.22, 0.27, y)
    hue = (_chance(torch.floor((x + d[11] * 5) * 5.5), torch.floor(y * 1.6 * 5.5), d[9]) > 0.5).float()
    flower = _mix(colour(1.0, 0.96, 0.98, x), colour(1.0, 0.56, 0.66, x), hue)
    return _mix(out, _mix(ground, flower, petals), _edge(y - 0.18 - 0.014 * torch.sin(x * 4.2 + d[10] * 6.3), soft))


def _mountains(x: Tensor, y: Tensor, t: Tensor, d: Sequence[Tensor], soft: Tensor) -> Tensor:
    out = _mix(colour(0.34, 0.58, 0.86, x), colour(0.88, 0.92, 0.96, x), _ramp(-0.5, 0.1, y))
    rows = (
        (1.3, 0.4, -0.40, 0.62, 0.13, colour(0.50, 0.58, 0.74, x)),
        (1.9, 0.1, -0.20, 0.52, 0.05, colour(0.36, 0.42, 0.56, x)),
    )
    for rate, shift, top, drop, cap, rock in rows:
        cell = x * rate + shift
        along = (cell - torch.floor(cell) - 0.5).abs() * 2
        height = 0.10 * _chance(torch.floor(cell), 0.0, shift)
        below = y - (top + height + along * drop)
        snow = cap - below + 0.02 * torch.sin(x * 60)
        out = _mix(out, _mix(rock, colour(0.96, 0.97, 1.0, x), _edge(snow * 0.8, soft)), _edge(below * 0.8, soft))
    hills = 0.13 + 0.03 * torch.sin(x * 2.9 + d[10] * 6.3)
    out = _mix(out, colour(0.30, 0.46, 0.34, x), _edge(y - hills, soft))
    ground = _mix(colour(0.48, 0.62, 0.34, x), colour(0.30, 0.46, 0.24, x), _ramp(0.18, 0.6, y))
    return _mix(out, ground, _edge(y - 0.19 - 0.012 * torch.sin(x * 4.4 + d[11] * 6.3), soft))


def _room(x: Tensor, y: Tensor, t: Tensor, d: Sequence[Tensor], soft: Tensor) -> Tensor:
    out = _mix(colour(0.93, 0.84, 0.70, x), colour(0.86, 0.74, 0.60, x), _ramp(-0.5, 0.2, y))
    for middle, above, half, tall, rim, view in (
        (-0.36, -0.19, 0.17, 0.15, 0.020, (0.62, 0.84, 0.98)),  # a window
        (0.36, -0.22, 0.12, 0.09, 0.014, (0.42, 0.60, 0.52)),  # a painting
    ):
        inside = torch.minimum(half - (x - middle).abs(), tall - (y - above).abs())
        out = _mix(out, colour(0.52, 0.34, 0.22, x), _edge(inside, soft))
        out = _mix(out, colour(*view, x), _edge(inside - rim, soft))
    bars = torch.maximum(0.007 - (x + 0.36).abs(), 0.007 - (y + 0.19).abs())
    inside = torch.minimum(0.17 - (x + 0.36).abs(), 0.15 - (y + 0.19).abs())
    out = _mix(out, colour(0.52, 0.34, 0.22, x), _edge(torch.minimum(bars, inside), soft))
    out = _mix(out, colour(0.90, 0.70, 0.42, x), _edge(0.035 - torch.hypot(x - 0.38, y + 0.19), soft))
    out = _mix(out, colour(0.97, 0.95, 0.90, x), _edge(y - 0.155, soft))
    floor = _mix(colour(0.66, 0.45, 0.28, x), colour(0.50, 0.32, 0.19, x), _ramp(0.18, 0.6, y))
    out = _mix(out, floor, _edge(y - 0.185, soft))
    rug = 1 - (x / 0.62) ** 2 - ((y - 0.36) / 0.115) ** 2
    out = _mix(out, colour(0.66, 0.24, 0.26, x), _edge(0.1 * rug, soft))
    return _mix(out, colour(0.86, 0.66, 0.46, x), _edge(0.012 - 0.1 * (rug - 0.22).abs(), soft))


PAINTERS: dict[str, Painter] = {
    "sunset": _sunset,
    "night": _night,
    "beach": _beach,
    "snow": _snow,
    "forest": _forest,
    "underwater": _underwater,
    "desert": _desert,
    "city": _city,
    "space": _space,
    "meadow": _meadow,
    "mountains": _mountains,
    "room": _room,
}
