"""diorama's world: captioned clips of animated figures in drawn scenes, at any size, many at once, on any device.

Coordinates: one unit is the shorter side of the picture, the origin its centre, y points down. So a scenario looks the
same at every resolution, and a crop of a large picture can be drawn without drawing the rest.
"""

import math
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from scenes import PAINTERS, SHINING, colour
from torch import Tensor
from vocabulary import CAMERAS, CAMERAS_OF_MOTION, MOTIONS, SCENES, SUBJECTS, TURNING, held_out

from sora_cli.model.tracing import Pose

LARGEST_FIGURE = 0.75  # units along a figure's side, at most
GROUND = 0.30  # where feet stand, in units below the centre
SPRITE_FPS = 24
ANIMATED = 12  # which of the dice says how far on a figure's animation is when a clip begins
LATER = 3  # seconds of that at most
LARGEST = 256  # pixels along a side of the artwork; smaller levels halve it down to SMALLEST
SMALLEST = 32
PARALLAX = 0.35  # how much of a camera's move is seen far away, where scenes are, as a share of what figures show of it
AT_ONCE = {"cpu": 2**21, "cuda": 2**24}  # pixels that are drawn at once, about
TINTS = {
    "sunset": (1.0, 0.94, 0.90),
    "night": (0.66, 0.72, 0.95),
    "underwater": (0.74, 0.93, 1.0),
    "space": (0.84, 0.84, 0.98),
}


@dataclass(frozen=True, slots=True, eq=False)
class Sprites:
    """The animations of all subjects, in the order of `SUBJECTS`, at halving sizes.

    `mips` are uint8 (frames, 4, s, s), premultiplied alpha, all subjects one after the other; the frames of subject i
    begin at `first[i]`, are `count[i]`, and stand on `feet[i]`: the lowest opaque row, as a fraction of the height.
    """

    mips: tuple[Tensor, ...]
    first: Tensor
    count: Tensor
    feet: Tensor

    def level(self, pixels: float) -> Tensor:
        """The smallest level that still has as many pixels as will be drawn."""
        fitting = [mip for mip in self.mips if mip.shape[-1] >= pixels]
        return fitting[-1] if fitting else self.mips[0]

    def to(self, device: str) -> "Sprites":
        """The same on another device."""
        mips = tuple(mip.to(device) for mip in self.mips)
        return Sprites(mips, self.first.to(device), self.count.to(device), self.feet.to(device))


def _artwork(assets: Path, code: str) -> Path:
    """An animated WebP: CODE.webp somewhere below `assets` (also with the suffix -fe0f)."""
    found = [p for name in (code, f"{code}-fe0f") for p in sorted(assets.glob(f"**/*anim*/**/{name}.webp"))]
    if not found:
        raise FileNotFoundError(f"{code}.webp is nowhere below {assets}: see weights/README.md for the packages")
    return found[0]


def read_animation(file: Path) -> np.ndarray:
    """All frames of an animated picture: uint8 (frames, 4, s, s), premultiplied alpha."""
    image, frames = Image.open(file), []
    for index in range(getattr(image, "n_frames", 1)):
        image.seek(index)
        rgba = np.asarray(image.convert("RGBA").resize((LARGEST, LARGEST), Image.Resampling.LANCZOS), np.uint16)
        frames.append(np.concatenate([(rgba[..., :3] * rgba[..., 3:] + 127) // 255, rgba[..., 3:]], -1))
    return np.stack(frames).astype(np.uint8).transpose(0, 3, 1, 2)


def load_sprites(assets: Path, processes: int = 1) -> Sprites:
    """Every subject's artwork, read by several processes."""
    files = [_artwork(assets, subject.code) for subject in SUBJECTS.values()]
    if processes > 1:
        with ProcessPoolExecutor(processes) as pool:
            return sprites_of(list(pool.map(read_animation, files)))
    return sprites_of([read_animation(file) for file in files])


def sprites_of(animations: Sequence[np.ndarray]) -> Sprites:
    """Sprites from one animation of each subject, uint8 (frames, 4, s, s)."""
    counts = torch.tensor([len(frames) for frames in animations])
    feet = [float(np.flatnonzero((frames[:, 3] > 127).any((0, 2)))[-1] + 1) / LARGEST for frames in animations]
    mips = [torch.from_numpy(np.concatenate(animations))]
    while mips[-1].shape[-1] > SMALLEST:
        halves = [F.avg_pool2d(part.float(), 2).round().to(torch.uint8) for part in mips[-1].split(256)]
        mips.append(torch.cat(halves))
    return Sprites(tuple(mips), counts.cumsum(0) - counts, counts, torch.tensor(feet))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One clip, whatever its size: who, where, what happens, seen how, and private random numbers in [0, 1)."""

    subject: str
    scene: str
    motion: str
    camera: str = "static"
    dice: tuple[float, ...] = field(default=(0.5,) * 16)


def draw_scenario(rng: random.Random, *, held: bool = False, turning: bool = False) -> Scenario:
    """A random scenario from the combinations that training shows (or, with `held`, from those it never shows), with
    figures that may be `turning`, or without.
    """
    motions = [motion for motion in MOTIONS if turning or motion not in TURNING]
    while True:
        subject, scene = rng.choice(list(SUBJECTS)), rng.choice(list(SCENES))
        motion = "still" if rng.random() < 0.2 else rng.choice(motions)
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


@dataclass(frozen=True, slots=True, eq=False)
class Path2D:
    """Where figures are at each time: centre x, lift above their place, size, and which look right; (b, T) each."""

    x: Tensor
    lift: Tensor
    size: Tensor
    mirrored: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """How cameras see the world, (b, T) each: where they look, across and down, in units; and how far they see of what
    is near, where figures are, and of what is far (1 = the whole picture).
    """

    across: Tensor
    down: Tensor
    near: Tensor
    far: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Cast:
    """A batch of scenarios in their views as tensors: figures (b,); dice (b, 16); 1 or 0 for each of `TRAITS`; width,
    height, left and top of the views.
    """

    figures: Tensor
    numbers: Tensor  # all else, (b, 16 + traits + 4)

    def __getitem__(self, part: slice | Tensor) -> "Cast":
        return Cast(self.figures[part], self.numbers[part])

    def to(self, device: torch.device | str) -> "Cast":
        """The same on another device; two copies for all of it, for each copy waits."""
        return Cast(self.figures.to(device), self.numbers.to(device))

    def dice(self, index: int) -> Tensor:
        """One of the dice of each scenario, (b, 1)."""
        return self.numbers[:, index, None]

    def has(self, trait: str) -> Tensor:
        """1 for each scenario with a trait, 0 for the others: (b, 1)."""
        return self.numbers[:, 16 + TRAITS.index(trait), None]

    @property
    def sides(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Width, height, left and top of the views in pixels, (b, 1) each."""
        width, height, left, top = self.numbers[:, -4:, None].unbind(1)
        return width, height, left, top


TRAITS = (*MOTIONS, *CAMERAS, "stands")


def cast_of(scenarios: Sequence[Scenario], views: Sequence[View]) -> Cast:
    """The tensors of some scenarios in their views, on the CPU."""
    subjects, rows = list(SUBJECTS), []
    for s, view in zip(scenarios, views, strict=True):
        stays = "stands" if SUBJECTS[s.subject].stays == "ground" else ""
        traits = (float(trait in (s.motion, s.camera, stays)) for trait in TRAITS)
        rows.append((*s.dice, *traits, view.width, view.height, view.left, view.top))
    figures = torch.tensor([subjects.index(s.subject) for s in scenarios])
    return Cast(figures, torch.tensor(rows))


def paths(cast: Cast, times: Tensor) -> Path2D:
    """Where the figures of a cast are at `times` (b, T)."""
    width, height, _, _ = cast.sides
    d = [cast.dice(i) for i in range(16)]
    jump, rise, sink, circle, pace = (cast.has(motion) for motion in ("jump", "rise", "sink", "circle", "pace"))
    leap_left, leap_right = cast.has("leap_left"), cast.has("leap_right")
    left, right, leaps = cast.has("left") + leap_left, cast.has("right") + leap_right, leap_left + leap_right
    jump = jump + leaps
    lower = (jump + rise + sink + circle + 0.6 * pace).clamp(max=1)
    size0 = 0.58 + 0.17 * d[0] - lower * (0.13 + 0.06 * d[0])  # so that heads stay in the picture
    reach = ((width / height).clamp(min=1.0) / 2 - size0 * 0.46).clamp(min=0.04)  # so that all of it is seen
    closer, away = cast.has("closer"), cast.has("away")
    walks, scales = left + right, closer + away

    length = (2 * reach).clamp(max=0.9)
    gone = ((times + 0.6 * d[1] - 0.1).clamp(min=0) * (0.20 + 0.12 * d[3])).minimum(length)
    rests = (2 * d[1] - 1) * reach.clamp(max=0.25) * (1 - 0.5 * scales)
    x = walks * (right - left) * (gone - length / 2) + (1 - walks) * rests

    hops = (0.18 + 0.06 * d[3]) * torch.sin(torch.pi * (times * (0.85 + 0.1 * d[4]) + 0.15 * d[5])).abs()
    height = ((times + d[3] * 0.5).clamp(min=0) * (0.12 + 0.1 * d[4])).clamp(max=0.28)
    lift = (walks - leaps) * 0.012 * torch.sin(gone * 40).abs() + jump * hops + rise * height + sink * (0.28 - height)
    lift = lift - (rise + sink) * 0.06 * (1 - cast.has("stands"))

    grown = ((times + d[3] * 0.4).clamp(min=0) * (0.22 + 0.1 * d[4])).clamp(max=0.62)
    size = (1 - scales) * size0 + closer * 0.40 * torch.exp(grown) + away * 0.40 * torch.exp(0.62 - grown)

    turn = 2 * torch.pi * (times * (0.20 + 0.08 * d[3]) + d[1])  # of who goes in circles, or there and back
    wide, air = torch.minimum(reach, torch.full_like(reach, 0.30)), 1 - cast.has("stands")
    x = x * (1 - circle - pace) + (circle + pace) * wide * turn.cos()
    lift = lift + circle * air * (0.10 + 0.10 * turn.sin()) + pace * 0.012 * torch.sin(turn * 6).abs()
    size = size * (1 + 0.16 * circle * (1 - air) * turn.sin())  # on the ground circles lead closer and away
    to_right = right + (circle + pace) * (turn.sin() < 0).float()
    return Path2D(x.expand_as(times), lift, size.expand_as(times), to_right.expand_as(times))


def poses(cast: Cast, times: Tensor, feet: Tensor) -> Pose:
    """Where the figures of a cast, who stand on `feet` (subjects,), are seen at `times` (b, T)."""
    path, camera = paths(cast, times), camera_of(cast, times)
    width, height, _, _ = cast.sides
    unit = torch.minimum(width, height)
    x = (path.x - camera.across) / camera.near * unit / width + 0.5
    y = (_middle(cast, path, feet) - camera.down) / camera.near * unit / height + 0.5
    size = path.size / camera.near * unit / (width * height).sqrt()
    moment = times + cast.dice(ANIMATED) * LATER
    return Pose(x, y, size, path.mirrored, torch.ones_like(x), moment)


def _middle(cast: Cast, path: Path2D, feet: Tensor) -> Tensor:
    """How far below the picture's centre the middles of figures are, (b, T), in units."""
    bottom = GROUND - 0.08 * cast.dice(7) * (1 - cast.has("stands"))
    lowest = feet[cast.figures][:, None] - 0.5
    return bottom - path.lift - lowest * path.size


def camera_of(cast: Cast, times: Tensor) -> Camera:
    """How the scenarios of a cast are seen at `times` (b, T). Who zooms sees less of everything, who moves in most of
    all of what is near.
    """
    speed = 0.08 + 0.06 * cast.dice(6)
    moved, seen = times.clamp(-1, 2.5) * speed, times.clamp(-1, 3) * speed
    across = (cast.has("pan_right") - cast.has("pan_left")) * (moved - 0.08)
    down = (cast.has("tilt_down") - cast.has("tilt_up")) * (0.7 * moved - 0.08)
    zoom = cast.has("zoom_out") * (seen - 0.3) - cast.has("zoom_in") * seen
    dolly = cast.has("dolly_out") * (seen - 0.3) - cast.has("dolly_in") * seen
    near, far = torch.exp(zoom + dolly), torch.exp(zoom + PARALLAX * dolly)
    return Camera(*(each.expand_as(times) for each in (across, down, near, far)))


def seen_by(cast: Cast, times: Tensor) -> Tensor:
    """How cameras see scenes at `times` (b, T): what `Place` tells of a camera that is known, (b, 3, T)."""
    camera = camera_of(cast, times)
    return torch.stack([camera.across, camera.down, camera.far.log()], 1)


@dataclass(frozen=True, slots=True, eq=False)
class Shots:
    """What is to be drawn: a cast in order of `scenes`, the pixels (h, w) of each view, times in seconds (b, T), and
    the shorter side of the largest picture.
    """

    cast: Cast
    scenes: tuple[str, ...]
    size: tuple[int, int]
    times: Tensor
    shorter: int


def in_order(scenarios: Sequence[Scenario]) -> list[int]:
    """The numbers of scenarios in the order of their scenes, in which they are drawn."""
    scenes = list(PAINTERS)
    return sorted(range(len(scenarios)), key=lambda i: scenes.index(scenarios[i].scene))


def shots_of(scenarios: Sequence[Scenario], views: Sequence[View], times: Tensor) -> Shots:
    """Scenarios `in_order`, each in its view, all of one size, and at its own `times` (seconds, (b, T))."""
    shorter = max(min(view.width, view.height) for view in views)
    return Shots(cast_of(scenarios, views), tuple(s.scene for s in scenarios), views[0].size, times.float(), shorter)


def render(s: Scenario, sprites: Sprites, view: View, times: Tensor) -> Tensor:
    """Draw a scenario at the given `times` (seconds, (T,)): RGB in [0, 1], (T, 3, h, w), h x w the view's crop."""
    return draw(shots_of([s], [view], times[None]), sprites)[0][0]


def draw(shots: Shots, sprites: Sprites) -> tuple[Tensor, Tensor, Tensor]:
    """Draw shots where the sprites are. Returns RGB in [0, 1], (b, T, 3, h, w), how much of each pixel is the figure,
    (b, T, 1, h, w), and which point of the figure, as it stands there, a pixel shows, (b, T, 2, h, w): x and y from -1
    to 1, beyond that outside it.
    """
    device, frames = sprites.feet.device, shots.times.shape[1]
    cast, times = shots.cast.to(device), shots.times.to(device)
    level, parts, start = sprites.level(LARGEST_FIGURE * shots.shorter), [], 0
    at_once = max(1, AT_ONCE[device.type] // math.prod((frames, *shots.size)))
    for scene, group in groupby(shots.scenes):
        stop = start + len(list(group))
        for some in range(start, stop, at_once):
            part = slice(some, min(some + at_once, stop))
            parts.append(_render_scene(scene, cast[part], sprites, level, shots.size, times[part]))
        start = stop
    picture, share, artwork = (
        rearrange(torch.cat(part), "(b T) c h w -> b T c h w", T=frames) for part in zip(*parts, strict=True)
    )
    return picture, share, artwork


def _render_scene(
    scene: str, cast: Cast, sprites: Sprites, level: Tensor, size: tuple[int, int], times: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`draw` for one scene, with the artwork of one level; everything is (b·T, ...)."""
    device, frames, (rows, columns) = times.device, times.shape[1], size
    width, height, left, top = cast.sides
    unit = torch.minimum(width, height)
    path, camera = paths(cast, times), camera_of(cast, times)
    across = (torch.arange(columns, device=device) + 0.5 + left - width / 2) / unit  # (b, w)
    down = (torch.arange(rows, device=device) + 0.5 + top - height / 2) / unit

    def seen(zoom: Tensor) -> tuple[Tensor, Tensor]:
        x = rearrange(across[:, None] * zoom[..., None] + camera.across[..., None], "b T w -> (b T) 1 1 w")
        y = rearrange(down[:, None] * zoom[..., None] + camera.down[..., None], "b T h -> (b T) 1 h 1")
        return x.expand(-1, 1, rows, -1), y.expand(-1, 1, -1, columns)

    dice = [_each(cast.dice(i), frames) for i in range(16)]
    ground = PAINTERS[scene](*seen(camera.far), _each(times, frames), dice, _each(1 / unit, frames))
    rgba, shadow, artwork = _figure(cast, path, sprites, level, times, *seen(camera.near))
    tint = colour(*TINTS.get(scene, (1.0, 1.0, 1.0)), ground)
    picture = ground * (1 - shadow) * (1 - rgba[:, 3:]) + rgba[:, :3] * tint
    return picture.clamp(0, 1), rgba[:, 3:], artwork


def _each(values: Tensor, frames: int) -> Tensor:
    """Values (b, T) or (b, 1) for every frame of every clip: (b·T, 1, 1, 1)."""
    return rearrange(values.expand(-1, frames), "b T -> (b T) 1 1 1")


def _figure(
    cast: Cast, path: Path2D, sprites: Sprites, level: Tensor, times: Tensor, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The figures' premultiplied RGBA, (n, 4, h, w), their shadows on the ground, (n, 1, h, w), and which point of the
    figure each pixel shows, (n, 2, h, w): x and y from -1 to 1.
    """
    frames = times.shape[1]
    middle = _middle(cast, path, sprites.feet)
    size, centre_x, centre_y, stands = (_each(each, frames) for each in (path.size, path.x, middle, cast.has("stands")))
    u = (x - centre_x) / (size / 2)
    v = (y - centre_y) / (size / 2)
    pose = torch.floor((times + cast.dice(ANIMATED) * LATER) * SPRITE_FPS + 0.5).long()
    index = sprites.first[cast.figures][:, None] + pose % sprites.count[cast.figures][:, None]
    facing = _each(1 - 2 * path.mirrored, frames)
    grid = torch.stack([(u * facing).squeeze(1), v.squeeze(1)], -1)
    atlas = level[index.flatten()].float() / 255
    rgba = F.grid_sample(atlas, grid, padding_mode="zeros", align_corners=False)
    flat = ((x - centre_x) / (0.40 * size)) ** 2 + ((y - GROUND + 0.012) / (0.055 * size)) ** 2
    fade = (1 - _each(path.lift, frames) * 2).clamp(0.2, 1)
    return rgba, stands * 0.38 * fade * torch.exp(-flat * 1.6), torch.cat([u, v], 1)


def light_pixels(
    scenarios: Sequence[Scenario], views: Sequence[View], times: Sequence[float]
) -> list[tuple[float, float] | None]:
    """Where the sun, moon or planet of each scenario is in its whole picture at a time, (x, y) in pixels."""
    camera = camera_of(cast_of(scenarios, views), torch.tensor(times)[:, None])
    found, seen = list[tuple[float, float] | None](), torch.cat([camera.across, camera.down, camera.far], 1).tolist()
    for s, view, (across, down, far) in zip(scenarios, views, seen, strict=True):
        unit, light = min(view.width, view.height) / far, SHINING.get(s.scene)
        there = light and ((light[0] - across) * unit + view.width / 2, (light[1] - down) * unit + view.height / 2)
        found.append(there)
    return found


def figure_pixels(
    scenarios: Sequence[Scenario], views: Sequence[View], times: Sequence[float]
) -> list[tuple[float, float]]:
    """About where the middle of each figure is in its whole picture at a time, (x, y) in pixels."""
    cast, at = cast_of(scenarios, views), torch.tensor(times)[:, None]
    path, camera = paths(cast, at), camera_of(cast, at)
    width, height, _, _ = cast.sides
    unit = torch.minimum(width, height)
    x = (path.x - camera.across) / camera.near * unit + width / 2
    y = (GROUND - path.lift - path.size / 2 - camera.down) / camera.near * unit + height / 2
    return [(across, down) for across, down in torch.cat([x, y], 1).tolist()]
