"""diorama's world: captioned clips of animated figures in scenes that are drawn by this file, at any size.

Coordinates: one unit is the shorter side of the picture, the origin its centre, y points down. So a scenario looks the
same at every resolution, and a crop of a large picture can be drawn without drawing the rest.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor
from vocabulary import CAMERAS_OF_MOTION, MOTIONS, SCENES, SUBJECTS, held_out

GROUND = 0.30  # where feet stand, in units below the centre
SPRITE_FPS = 24
TINTS = {"sunset": (1.0, 0.94, 0.90), "night": (0.66, 0.72, 0.95), "underwater": (0.74, 0.93, 1.0)}


@dataclass(frozen=True, slots=True)
class Sprites:
    """The animation of one subject at halving sizes: uint8 (frames, 4, s, s), premultiplied alpha, facing left."""

    mips: tuple[Tensor, ...]
    feet: float = 1.0  # lowest opaque row over all frames, as a fraction of the height

    def level(self, pixels: float) -> Tensor:
        """The smallest level that still has as many pixels as will be drawn."""
        fitting = [mip for mip in self.mips if mip.shape[-1] >= pixels]
        return fitting[-1] if fitting else self.mips[0]


def load_sprites(assets: Path, code: str) -> Sprites:
    """Read an animated WebP; `assets` is searched below for CODE.webp (also with the suffix -fe0f)."""
    found = [p for name in (code, f"{code}-fe0f") for p in sorted(assets.glob(f"**/*anim*/**/{name}.webp"))]
    if not found:
        raise FileNotFoundError(f"{code}.webp is nowhere below {assets}: see weights/README.md for the packages")
    image = Image.open(found[0])
    frames = []
    for index in range(getattr(image, "n_frames", 1)):
        image.seek(index)
        frames.append(np.asarray(image.convert("RGBA").resize((256, 256), Image.Resampling.LANCZOS)))
    rgba = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
    rows = (rgba[:, 3] > 0.5).any(2).any(0).nonzero()
    mips = [rgba]
    while mips[-1].shape[-1] > 32:
        mips.append(F.avg_pool2d(mips[-1], 2))
    return Sprites(tuple((mip * 255).round().to(torch.uint8) for mip in mips), float(rows.max() + 1) / 256)


def load_all_sprites(assets: Path, cache: Path) -> dict[str, Sprites]:
    """Every subject's sprites; decoded once, then kept as tensors in `cache`."""
    sprites = {}
    for name, subject in SUBJECTS.items():
        kept = cache / f"{subject.code}.npz"
        if not kept.exists():
            made = load_sprites(assets, subject.code)
            cache.mkdir(parents=True, exist_ok=True)
            np.savez(kept, feet=made.feet, **{str(i): mip.numpy() for i, mip in enumerate(made.mips)})
        with np.load(kept) as data:
            mips = tuple(torch.from_numpy(data[str(i)]) for i in range(len(data.files) - 1))
            sprites[name] = Sprites(mips, float(data["feet"]))
    return sprites


@dataclass(frozen=True, slots=True)
class Scenario:
    """One clip, whatever its size: who, where, what happens, seen how, and private random numbers in [0, 1)."""

    subject: str
    scene: str
    motion: str
    camera: str = "static"
    dice: tuple[float, ...] = field(default=(0.5,) * 16)


def draw_scenario(rng: random.Random, *, held: bool = False) -> Scenario:
    """A random scenario from the combinations that training shows (or, with `held`, from those it never shows)."""
    while True:
        subject, scene = rng.choice(list(SUBJECTS)), rng.choice(list(SCENES))
        motion = "still" if rng.random() < 0.2 else rng.choice(list(MOTIONS))
        if held_out(subject, scene, motion) == held:
            break
    cameras = CAMERAS_OF_MOTION[motion]
    camera = "static" if rng.random() < 0.6 else rng.choice(cameras)
    return Scenario(subject, scene, motion, camera, tuple(rng.random() for _ in range(16)))


@dataclass(frozen=True, slots=True)
class View:
    """The part of a picture to draw: the whole is `width` x `height` pixels, the crop starts at (left, top)."""

    width: int
    height: int
    left: int = 0
    top: int = 0
    crop_width: int | None = None
    crop_height: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what is drawn, in pixels."""
        return self.crop_height or self.height, self.crop_width or self.width


@dataclass(frozen=True, slots=True)
class Path2D:
    """Where the figure is at each time: centre x, lift above its place, size, bob; each (T,)."""

    x: Tensor
    lift: Tensor
    size: Tensor
    mirrored: bool


def _path(s: Scenario, times: Tensor, aspect: float) -> Path2D:
    d = s.dice
    size0 = 0.58 + 0.17 * d[0]
    half = max(aspect, 1.0) / 2  # half the width of the picture, in units
    reach = max(half - size0 * 0.46, 0.04)
    still = torch.zeros_like(times)
    x, lift, size = still + (2 * d[1] - 1) * min(reach, 0.25), still.clone(), still + size0
    mirrored = False  # all face left unless they go right: a small network draws both at once otherwise
    if s.motion in ("left", "right"):
        sign = 1.0 if s.motion == "right" else -1.0
        length = min(2 * reach, 0.9)
        gone = (torch.clamp(times + 0.6 * d[1] - 0.1, min=0) * (0.22 + 0.2 * d[3])).clamp(max=length)
        x, mirrored = sign * (gone - length / 2), sign > 0
        lift = 0.012 * torch.sin(gone * 40).abs()
    elif s.motion == "jump":
        lift = (0.16 + 0.1 * d[3]) * torch.sin(torch.pi * (times * (0.75 + 0.3 * d[4]) + d[5])).abs()
    elif s.motion == "rise":
        lift = (torch.clamp(times + d[3] * 0.5, min=0) * (0.12 + 0.1 * d[4])).clamp(max=0.30) - 0.06 * (
            SUBJECTS[s.subject].stays == "air"
        )
    elif s.motion == "closer":
        grow = (torch.clamp(times + d[3] * 0.4, min=0) * (0.22 + 0.1 * d[4])).clamp(max=0.62)
        size = still + 0.40 * torch.exp(grow)
        x = x * 0.5
    return Path2D(x, lift, size, mirrored)


def _camera(s: Scenario, times: Tensor) -> tuple[Tensor, Tensor]:
    """Where the camera looks (x, in units) and how far it sees (1 = the whole picture), each (T,)."""
    speed = 0.08 + 0.06 * s.dice[6]
    shift, zoom = torch.zeros_like(times), torch.ones_like(times)
    if s.camera in ("pan_left", "pan_right"):
        sign = 1.0 if s.camera == "pan_right" else -1.0
        shift = sign * (times.clamp(-1, 2.5) * speed - 0.08)
    elif s.camera == "zoom_in":
        zoom = torch.exp(-(times.clamp(-1, 3) * speed))
    elif s.camera == "zoom_out":
        zoom = torch.exp(times.clamp(-1, 3) * speed - 0.3)
    return shift, zoom


def _mix(a: Tensor, b: Tensor, amount: Tensor) -> Tensor:
    return a + (b - a) * amount


def _colour(r: float, g: float, b: float) -> Tensor:
    return torch.tensor([r, g, b]).view(1, 3, 1, 1)


def _ramp(low: float, high: float, value: Tensor) -> Tensor:
    """0 below `low`, 1 above `high`, smooth between (Hermite)."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _edge(distance: Tensor, soft: float) -> Tensor:
    """Coverage of a shape whose signed distance is positive inside; `soft` is one pixel in units."""
    return (distance / soft + 0.5).clamp(0, 1)


def _speckles(x: Tensor, y: Tensor, cells: float, radius: float, soft: float, salt: float) -> Tensor:
    """Soft round dots, one in each cell of a jittered grid, anti-aliased; fixed in (x, y)."""
    gx, gy = x * cells, y * cells
    ix, iy = torch.floor(gx), torch.floor(gy)
    h1 = torch.frac(torch.sin(ix * 127.1 + iy * 311.7 + salt * 74.7) * 43758.5453).abs()
    h2 = torch.frac(torch.sin(ix * 269.5 + iy * 183.3 + salt * 246.1) * 43758.5453).abs()
    dx = (gx - ix - 0.25 - 0.5 * h1) / cells
    dy = (gy - iy - 0.25 - 0.5 * h2) / cells
    wide = max(radius, 0.6 * soft)
    return torch.exp(-(dx * dx + dy * dy) / (wide * wide)) * (radius / wide) ** 2 * (0.4 + 0.6 * h2)


def _sunset(x: Tensor, y: Tensor, t: Tensor, d: tuple[float, ...], soft: float) -> Tensor:
    sky = _mix(_colour(0.22, 0.16, 0.44), _colour(0.70, 0.30, 0.55), _ramp(-0.55, 0.12, y))
    sky = _mix(sky, _colour(1.0, 0.62, 0.36), _ramp(0.03, 0.20, y))
    sx, sy = (2 * d[8] - 1) * 0.45, 0.02 - 0.12 * d[9]
    away = torch.sqrt((x - sx) ** 2 + (y - sy) ** 2)
    sky = _mix(sky, _colour(1.0, 0.88, 0.55), 0.6 * torch.exp(-away * 5))
    sky = _mix(sky, _colour(1.0, 0.95, 0.75), _edge(0.13 - away, soft))
    hills = 0.15 + 0.035 * torch.sin(x * 3.1 + d[10] * 6.3) + 0.02 * torch.sin(x * 7.3 + d[11] * 6.3)
    far = _mix(sky, _colour(0.55, 0.28, 0.42), _edge(y - hills, soft))
    ground = _mix(_colour(0.50, 0.26, 0.30), _colour(0.26, 0.14, 0.24), _ramp(0.2, 0.6, y))
    return _mix(far, ground, _edge(y - 0.215 - 0.008 * torch.sin(x * 5 + d[10] * 5), soft))


def _night(x: Tensor, y: Tensor, t: Tensor, d: tuple[float, ...], soft: float) -> Tensor:
    sky = _mix(_colour(0.03, 0.04, 0.14), _colour(0.14, 0.18, 0.40), _ramp(-0.6, 0.25, y))
    sky = sky + _speckles(x, y, 6.0, 0.008, soft, d[8]) * _colour(0.9, 0.9, 0.8) * (1 - _ramp(-0.05, 0.15, y))
    mx, my = (2 * d[9] - 1) * 0.5, -0.30 + 0.08 * d[10]
    away = torch.sqrt((x - mx) ** 2 + (y - my) ** 2)
    sky = _mix(sky, _colour(0.55, 0.60, 0.80), 0.5 * torch.exp(-away * 7))
    sky = _mix(sky, _colour(0.97, 0.96, 0.86), _edge(0.085 - away, soft))
    hills = 0.17 + 0.04 * torch.sin(x * 2.7 + d[11] * 6.3)
    far = _mix(sky, _colour(0.07, 0.10, 0.20), _edge(y - hills, soft))
    ground = _mix(_colour(0.10, 0.17, 0.22), _colour(0.04, 0.07, 0.12), _ramp(0.2, 0.6, y))
    return _mix(far, ground, _edge(y - 0.22, soft))


def _beach(x: Tensor, y: Tensor, t: Tensor, d: tuple[float, ...], soft: float) -> Tensor:
    sky = _mix(_colour(0.36, 0.66, 0.95), _colour(0.80, 0.93, 1.0), _ramp(-0.5, 0.05, y))
    away = torch.sqrt((x - (2 * d[8] - 1) * 0.5) ** 2 + (y + 0.34) ** 2)
    sky = _mix(sky, _colour(1.0, 0.97, 0.72), _edge(0.075 - away, soft))
    waves = 0.5 + 0.5 * torch.sin((y - 0.04) * 95 + torch.sin(x * 6 + t * 0.8 + d[9] * 6.3) * 1.5)
    sea = _mix(_colour(0.10, 0.50, 0.72), _colour(0.20, 0.68, 0.80), waves * 0.6)
    out = _mix(sky, sea, _edge(y - 0.04, soft))
    shore = 0.19 + 0.012 * torch.sin(x * 4 + d[10] * 6.3) + 0.012 * torch.sin(t * 1.3 + d[11] * 6.3)
    out = _mix(out, _colour(0.97, 0.99, 1.0), _edge(y - shore + 0.018, soft))
    sand = _mix(_colour(0.95, 0.84, 0.60), _colour(0.86, 0.70, 0.44), _ramp(0.2, 0.6, y))
    return _mix(out, sand, _edge(y - shore, soft))


def _snow(x: Tensor, y: Tensor, t: Tensor, d: tuple[float, ...], soft: float) -> Tensor:
    sky = _mix(_colour(0.60, 0.70, 0.82), _colour(0.84, 0.89, 0.95), _ramp(-0.5, 0.15, y))
    hills = 0.10 + 0.06 * torch.sin(x * 2.3 + d[8] * 6.3) + 0.02 * torch.sin(x * 6.1 + d[9] * 6.3)
    far = _mix(sky, _colour(0.78, 0.85, 0.94), _edge(y - hills, soft))
    ground = _mix(_colour(0.97, 0.98, 1.0), _colour(0.84, 0.89, 0.97), _ramp(0.25, 0.6, y))
    out = _mix(far, ground, _edge(y - 0.21 - 0.015 * torch.sin(x * 3.7 + d[10] * 6.3), soft))
    flakes = _speckles(x + 0.03 * torch.sin(t + d[11] * 6), y - 0.13 * t, 4.5, 0.014, soft, d[11])
    return _mix(out, _colour(1.0, 1.0, 1.0), flakes.clamp(max=1))


def _forest(x: Tensor, y: Tensor, t: Tensor, d: tuple[float, ...], soft: float) -> Tensor:
    out = _mix(_colour(0.62, 0.84, 0.86), _colour(0.86, 0.95, 0.78), _ramp(-0.5, 0.1, y))
    layers = (
        (3.1, d[8], -0.22, 0.30, _colour(0.48, 0.70, 0.52)),
        (2.1, d[9], -0.34, 0.46, _colour(0.22, 0.50, 0.32)),
    )
    for rate, shift, top, drop, colour in layers:
        cell = x * rate + shift * 7
        along = (cell - torch.floor(cell) - 0.5).abs() * 2
        height = torch.frac(torch.sin(torch.floor(cell) * 91.7 + shift * 40) * 437.5).abs() * 0.12
        out = _mix(out, colour, _edge((y - (top + height + along * drop)) * 0.6, soft))
    ground = _mix(_colour(0.46, 0.70, 0.28), _colour(0.26, 0.50, 0.18), _ramp(0.18, 0.6, y))
    return _mix(out, ground, _edge(y - 0.17 - 0.012 * torch.sin(x * 4.7 + d[10] * 6.3), soft))


def _underwater(x: Tensor, y: Tensor, t: Tensor, d: tuple[float, ...], soft: float) -> Tensor:
    water = _mix(_colour(0.20, 0.68, 0.82), _colour(0.03, 0.26, 0.52), _ramp(-0.6, 0.4, y))
    rays = torch.sin((x + y * 0.45) * 8 + d[8] * 6.3 + 0.4 * torch.sin(t * 0.7 + d[9] * 6.3))
    water = water + _colour(0.16, 0.18, 0.14) * _ramp(0.2, 1.0, rays) * (1 - _ramp(-0.5, 0.25, y))
    floor = 0.24 + 0.02 * torch.sin(x * 4.3 + d[10] * 6.3)
    sand = _mix(_colour(0.50, 0.62, 0.52), _colour(0.30, 0.46, 0.50), _ramp(0.24, 0.6, y))
    out = _mix(water, sand, _edge(y - floor, soft))
    bubbles = _speckles(x + 0.02 * torch.sin(t * 1.5), y + 0.10 * t, 3.0, 0.016, soft, d[11])
    return _mix(out, _colour(0.80, 0.95, 1.0), 0.7 * bubbles.clamp(max=1))


Painter = Callable[[Tensor, Tensor, Tensor, tuple[float, ...], float], Tensor]
PAINTERS: dict[str, Painter] = {
    "sunset": _sunset,
    "night": _night,
    "beach": _beach,
    "snow": _snow,
    "forest": _forest,
    "underwater": _underwater,
}


def _world_grid(view: View, shift: Tensor, zoom: Tensor) -> tuple[Tensor, Tensor, float]:
    """World coordinates of the pixel centres, (T, 1, h, w) each, and the size of a pixel in units."""
    unit = min(view.width, view.height)
    rows, columns = view.size
    px = (torch.arange(columns) + view.left + 0.5 - view.width / 2) / unit
    py = (torch.arange(rows) + view.top + 0.5 - view.height / 2) / unit
    x = px.view(1, 1, 1, -1) * zoom.view(-1, 1, 1, 1) + shift.view(-1, 1, 1, 1)
    y = py.view(1, 1, -1, 1) * zoom.view(-1, 1, 1, 1)
    return x.expand(-1, 1, rows, columns), y.expand(-1, 1, rows, columns), 1.0 / unit


def _figure(
    s: Scenario, sprites: Sprites, view: View, times: Tensor, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The figure's premultiplied RGBA, (T, 4, h, w), its shadow on the ground, (T, 1, h, w), and which point of its
    artwork each pixel shows, (T, 2, h, w): x and y from -1 to 1.
    """
    path = _path(s, times, view.width / view.height)
    size = path.size.view(-1, 1, 1, 1)
    stands = SUBJECTS[s.subject].stays == "ground"
    bottom = GROUND if stands else GROUND - 0.08 * s.dice[7]
    centre_x = path.x.view(-1, 1, 1, 1)
    centre_y = (bottom - path.lift).view(-1, 1, 1, 1) - (sprites.feet - 0.5) * size
    u = (x - centre_x) / (size / 2)
    v = (y - centre_y) / (size / 2)
    atlas = sprites.level(float(path.size.max()) * min(view.width, view.height))
    index = torch.floor((times + s.dice[12] * 3) * SPRITE_FPS + 0.5).long() % atlas.shape[0]
    grid = torch.stack([(-u if path.mirrored else u).squeeze(1), v.squeeze(1)], -1)
    rgba = F.grid_sample(atlas[index].float() / 255, grid, padding_mode="zeros", align_corners=False)
    artwork = rearrange(grid, "T h w two -> T two h w")
    if not stands:
        return rgba, torch.zeros_like(x), artwork
    flat = ((x - centre_x) / (0.40 * size)) ** 2 + ((y - GROUND + 0.012) / (0.055 * size)) ** 2
    fade = (1 - path.lift * 2).clamp(0.2, 1).view(-1, 1, 1, 1)
    return rgba, 0.38 * fade * torch.exp(-flat * 1.6), artwork


def render(s: Scenario, sprites: dict[str, Sprites], view: View, times: Tensor) -> Tensor:
    """Draw a scenario at the given `times` (seconds, (T,)): RGB in [0, 1], (T, 3, h, w), h x w the view's crop."""
    return render_figure(s, sprites, view, times)[0]


def render_figure(s: Scenario, sprites: dict[str, Sprites], view: View, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `render` draws, how much of each pixel is the figure, (T, 1, h, w), and which point of the figure's artwork
    a pixel shows, (T, 2, h, w): x and y from -1 to 1, beyond that outside it.
    """
    times = times.float()
    shift, zoom = _camera(s, times)
    x, y, soft = _world_grid(view, shift, zoom)
    ground = PAINTERS[s.scene](x, y, times.view(-1, 1, 1, 1), s.dice, soft).expand(len(times), 3, *view.size)
    rgba, shadow, artwork = _figure(s, sprites[s.subject], view, times, x, y)
    tint = _colour(*TINTS.get(s.scene, (1.0, 1.0, 1.0)))
    picture = ground * (1 - shadow) * (1 - rgba[:, 3:]) + rgba[:, :3] * tint
    return picture.clamp(0, 1), rgba[:, 3:], artwork


def figure_pixel(s: Scenario, view: View, time: float) -> tuple[float, float]:
    """About where the middle of the figure is in the whole picture at a time, (x, y) in pixels."""
    times = torch.tensor([time])
    path, (shift, zoom) = _path(s, times, view.width / view.height), _camera(s, times)
    unit = min(view.width, view.height)
    x = (path.x - shift) / zoom
    y = (GROUND - path.lift - path.size / 2) / zoom
    return float(x * unit + view.width / 2), float(y * unit + view.height / 2)
