"""What diorama's denoiser is shown in training: batches of pictures, close-ups, clips and crops of large pictures."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from vocabulary import CAMERAS, CAMERAS_OF_MOTION, MOTIONS, SCENES, SUBJECTS, TO_THE_RIGHT, caption
from world import (
    ANIMATED,
    LATER,
    Scenario,
    Shots,
    Sprites,
    View,
    draw,
    draw_scenario,
    figure_pixels,
    in_order,
    light_pixels,
    seen_by,
    shots_of,
)

from sora_cli.model.dit import STILL_RATE, Place, seconds_of
from sora_cli.model.vae.patch import SPACE, TIME, PatchVAE

STATIC = "static"  # the camera of which captions say nothing
WORDINGS = 4  # captions of each combination
CAPTIONS_OF_SCENE = WORDINGS * sum(len(CAMERAS_OF_MOTION[motion]) for motion in MOTIONS)  # for each subject
PATCH = 16  # pixels along a patch
OPENING = 0.3  # seconds into its motion at most when a video begins, so that it has somewhere to go
LATEST = 1.6  # the same for what begins in mid-stream, and for parts of pictures
MOVED, MOVED_ON = 0.35, 2.5  # share of samples that get a moving camera, and seconds since it began at most
CLOSEST = 0.6  # close-ups are never noisier: they would teach that every window has a figure
SKYWARD = 0.6  # share of parts around figures that are around the light in their scene's sky instead, if it has one
BENT, BENT_OVER = 2.0, 8  # pixels of a draft by which shapes are off at most, about, and from one bend to the next
REFINED = 0.7  # crops of large pictures are never noisier: they are only ever refined
SHAPES = {  # pictures of about the same area, in pixels; a padded batch mixes one row of these
    "wide": ((160, 96), (160, 96), (144, 96), (176, 80), (160, 80)),
    "square": ((128, 128), (112, 112), (128, 112), (112, 128)),
    "tall": ((96, 160), (96, 144), (80, 160), (96, 176)),
}
SMALL_SHAPES = {  # half of the clips: motion is learned as well from less than half of the patches
    "wide": ((96, 64), (112, 64), (96, 48)),
    "square": ((80, 80), (64, 64)),
    "tall": ((64, 96), (64, 112)),
}
ORIENTATIONS = ("wide", "wide", "wide", "square", "tall")


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares of what is shown: pictures, close-ups of their figures, clips, crops of large pictures (the rest)."""

    images: float
    closeups: float
    clips: float
    mixed: float = 0.4  # share of batches with several shapes, padded and masked

    def towards(self, other: "Mixture", share: float) -> "Mixture":
        """A mixture between this one, at a share of 0, and the other, at 1."""
        names = [field.name for field in fields(self)]
        return Mixture(*((1 - share) * getattr(self, name) + share * getattr(other, name) for name in names))


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Examples of one size, or padded to one: latents (b, c, t, h, w); `figure`, the share of each that is figure,
    (b, t, h, w); `artwork`, the point of the figure that each shows, (b, 2, t, h, w); which figures are `mirrored`,
    (b,), and at which `moment` of their animation they are, in seconds, (b, t); mask (b, t, h, w) or None; place; rows
    of the caption table (b,), and of the same without a word of the camera; the highest timestep to train at; and what
    the latents would be had the picture been enlarged from a smaller one, for crops.
    """

    latents: Tensor
    figure: Tensor
    artwork: Tensor
    mirrored: Tensor
    moment: Tensor
    mask: Tensor | None
    place: Place
    words: Tensor
    silent: Tensor
    noisiest: float = 1.0
    enlarged: Tensor | None = None

    @property
    def kind(self) -> str:
        """What it shows, in a word."""
        return "part" if self.noisiest < 1 else "image" if self.latents.shape[2] == 1 else "clip"

    @property
    def scene(self) -> Tensor:
        """The number of each sample's scene, (b,), by the order of `combinations`."""
        return self.words // CAPTIONS_OF_SCENE % len(SCENES)

    @property
    def subject(self) -> Tensor:
        """The number of each sample's subject, (b,), by the order of `combinations`."""
        return self.words // (CAPTIONS_OF_SCENE * len(SCENES))

    def to(self, device: str) -> "Batch":
        """The same on another device."""
        moved = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**{name: each.to(device) if hasattr(each, "to") else each for name, each in moved.items()})


def combinations() -> list[tuple[str, str, str, str]]:
    """Every (subject, scene, motion, camera) that has captions, in a fixed order."""
    return [
        (subject, scene, motion, camera)
        for subject in SUBJECTS
        for scene in SCENES
        for motion in MOTIONS
        for camera in CAMERAS_OF_MOTION[motion]
    ]


def captions() -> list[str]:
    """`WORDINGS` captions of each combination, in the order of `combinations`."""
    rng = random.Random(7)
    return [caption(*combination, rng) for combination in combinations() for _ in range(WORDINGS)]


def places(views: Sequence[View], fps: Sequence[float], first: int, frames: int, camera: Tensor) -> Place:
    """Where the latents of examples in these views lie that begin with latent frame `first` of their clips, under a
    `camera` (b, 3, frames) that is known.
    """
    rows, columns = (side // SPACE for side in views[0].size)
    sides = torch.tensor([[v.width, v.height, v.left, v.top] for v in views], dtype=torch.float32)
    width, height, left, top = sides[:, :, None].unbind(1)
    return Place(
        seconds=torch.stack([seconds_of(first, frames, rate, TIME) for rate in fps]),
        rows=((torch.arange(rows) + 0.5) * SPACE + top) / height,
        columns=((torch.arange(columns) + 0.5) * SPACE + left) / width,
        height=height[:, 0],
        width=width[:, 0],
        rate=torch.tensor([rate / TIME if frames > 1 else STILL_RATE for rate in fps]),
        camera=F.pad(camera, (0, 0, 0, 1), value=1.0),
    )


def padded(parts: Sequence[Batch]) -> Batch:
    """One batch of several, padded to the largest of each side; positions in the padding repeat the last one."""
    if len(parts) == 1:
        return parts[0]
    t, h, w = (max(part.latents.shape[axis] for part in parts) for axis in (2, 3, 4))

    def filled(each: Tensor) -> Tensor:
        missing = [wanted - there for wanted, there in zip((t, h, w), each.shape[-3:], strict=True)]
        return F.pad(each, (0, missing[2], 0, missing[1], 0, missing[0]))

    def joined(name: str) -> Tensor:
        return torch.cat([filled(getattr(part, name)) for part in parts])

    mask = torch.cat([filled(torch.ones_like(part.figure, dtype=torch.bool)) for part in parts])
    lengths = {"seconds": t, "rows": h, "columns": w, "camera": t}
    moment = torch.cat([_extended(part.moment, t) for part in parts])
    where = {
        name: torch.cat([_extended(getattr(part.place, name), lengths.get(name)) for part in parts])
        for name in Place.__slots__
    }
    mirrored, *words = (torch.cat([getattr(part, name) for part in parts]) for name in ("mirrored", "words", "silent"))
    figure, artwork = joined("figure"), joined("artwork")
    return Batch(joined("latents"), figure, artwork, mirrored, moment, mask, Place(**where), *words, parts[0].noisiest)


def _extended(row: Tensor, length: int | None) -> Tensor:
    if length is None:
        return row
    return torch.cat([row, row[..., -1:].expand(*row.shape[:-1], length - row.shape[-1])], -1)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A batch that is still to be drawn: the shots, the latent frames to leave out at the beginning, how much smaller
    the pictures were that crops are enlarged from, what their shapes are bent by, and the rest as in `Batch`.
    """

    shots: Shots
    first: int
    mirrored: Tensor
    place: Place
    words: Tensor
    silent: Tensor
    noisiest: float
    factor: float | None
    seed: int


@dataclass(frozen=True, slots=True)
class Studio:
    """Draws and encodes plans, where the sprites and the autoencoder are."""

    sprites: Sprites
    vae: PatchVAE

    @torch.no_grad()
    def __call__(self, plans: Sequence[Plan]) -> Batch:
        """The batch that some plans make, padded where they differ in size."""
        return padded([self._drawn(plan) for plan in plans])

    @torch.no_grad()
    def filmed(self, plans: Sequence[Plan]) -> tuple[Tensor, Batch]:
        """The first of some plans as a video (b, 3, T, h, w) in [-1, 1], from its very beginning, and as a batch."""
        picture, _, _ = draw(plans[0].shots, self.sprites)
        return rearrange(picture, "b T c h w -> b c T h w") * 2 - 1, self._drawn(plans[0])

    def _drawn(self, plan: Plan) -> Batch:
        picture, share, artwork = draw(plan.shots, self.sprites)
        video, first = rearrange(picture, "b T c h w -> b c T h w") * 2 - 1, plan.first
        enlarged = None
        if plan.factor is not None:
            dice = torch.Generator(video.device).manual_seed(plan.seed)
            enlarged = self.vae.encode(_enlarged(video, plan.factor, dice))[:, :, first:]
        return Batch(
            self.vae.encode(video)[:, :, first:],
            _pooled(share)[:, 0, first:],
            _pooled(artwork)[:, :, first:],
            plan.mirrored.to(video.device),
            moments_of(plan.shots)[:, first:].to(video.device),
            None,
            plan.place.to(video.device),
            plan.words.to(video.device),
            plan.silent.to(video.device),
            plan.noisiest,
            enlarged,
        )


class Examples(IterableDataset[list[Plan]]):
    """Endless plans of batches of about `tokens` patches.

    `mixture` says what to show when a share of the training's time is over. Each worker has its own dice.
    """

    def __init__(self, mixture: Callable[[float], Mixture], seed: int, tokens: int = 560) -> None:
        self.mixture, self.seed, self.tokens = mixture, seed, tokens
        self.began, self.seconds = 0.0, math.inf
        self.index = {combination: i for i, combination in enumerate(combinations())}

    def _plan(
        self,
        rng: random.Random,
        views: Sequence[View],
        frames: int,
        rates: Sequence[float] = (24,),
        around: Sequence[tuple[int, int] | None] = (None,),
        noisiest: float = 1.0,
        factors: Sequence[float | None] = (None,),
        latest: float = LATEST,
        lights: float = 0.0,
    ) -> Plan:
        """Random scenarios in these views, or in windows of a size (width, height) `around` their figures, a share of
        them around the `lights` in their skies instead. Half of the clips begin in mid-stream; the others, and
        pictures, at most `latest` seconds into the motion, but later under cameras that move.
        """
        scenarios = [_with_camera(draw_scenario(rng), rng) for _ in views]
        scenarios = [scenarios[i] for i in in_order(scenarios)]
        first = int(frames > 1 and rng.random() < 0.5)
        usual = LATEST if first else latest
        starts = [rng.uniform(0.0, usual if s.camera == STATIC else MOVED_ON) for s in scenarios]
        fps = [rng.choice(rates) for _ in views]
        windows = [rng.choice(around) for _ in views]
        if any(windows):
            pairs = zip(figure_pixels(scenarios, views, starts), light_pixels(scenarios, views, starts), strict=True)
            middles = [light if light and rng.random() < lights else figure for figure, light in pairs]
            views = [
                view if window is None else _around(middle, view, window, rng)
                for middle, view, window in zip(middles, views, windows, strict=True)
            ]
        count = torch.arange(TIME * (frames + first) - 3)
        times = count / torch.tensor(fps)[:, None] + torch.tensor(starts)[:, None]
        silent = [self.index[s.subject, s.scene, s.motion, STATIC] for s in scenarios]
        said = [
            self.index.get((s.subject, s.scene, s.motion, s.camera), row)
            for s, row in zip(scenarios, silent, strict=True)
        ]
        wordings = torch.tensor([rng.randrange(WORDINGS) for _ in views])
        shots = shots_of(scenarios, views, times)
        return Plan(
            shots,
            first,
            torch.tensor([s.motion in TO_THE_RIGHT for s in scenarios]),
            places(views, fps, first, frames, seen_by(shots.cast, latent_times(times))[:, :, first:]),
            torch.tensor(said) * WORDINGS + wordings,
            torch.tensor(silent) * WORDINGS + wordings,
            noisiest,
            rng.choice(factors),
            rng.getrandbits(32),
        )

    def _whole(self, rng: random.Random, frames: int) -> list[Plan]:
        rates = (8, 12, 15, 24, 24, 24, 24, 24, 30, 48)
        sizes = SMALL_SHAPES if frames > 1 and rng.random() < 0.5 else SHAPES
        shapes = sizes[rng.choice(ORIENTATIONS)]
        mixed = rng.random() < self.mixture(self.gone).mixed
        chosen = rng.sample(shapes, 2) if mixed else [rng.choice(shapes)]
        plans = []
        for width, height in chosen:
            count = max(1, self.tokens // len(chosen) // (frames * width * height // PATCH**2))
            plans.append(self._plan(rng, [View(width, height)] * count, frames, rates, latest=OPENING))
        return plans

    def _closeups(self, rng: random.Random) -> list[Plan]:
        """The figure and a little around it, at the size at which pictures are composed: cheap, all that matters."""
        side = 80 if rng.random() < 0.7 else 96
        count = max(1, self.tokens // (side // PATCH) ** 2)
        shapes = SHAPES[rng.choice(ORIENTATIONS)]
        fitting = [shape for shape in shapes if min(shape) >= side]
        views = [View(*rng.choice(fitting)) for _ in range(count)]
        return [self._plan(rng, views, 1, around=[(side, side)], noisiest=CLOSEST)]

    def _crops(self, rng: random.Random) -> list[Plan]:
        """Parts of large pictures, little noisy, many of them on figures and on lights: they are only ever refined."""
        frames = rng.choice((1, 1, 4, 13))
        width, height = rng.choice(SHAPES[rng.choice(ORIENTATIONS)])
        across, down = rng.choice(((96, 96), (128, 128), (160, 96), (192, 128), (128, 192)))
        factor = rng.choice((2, 2, 2, 3, 4, 8, 12))
        width, height = max(across, width * factor), max(down, height * factor)
        views = []
        for _ in range(max(1, self.tokens // (frames * across * down // PATCH**2))):
            left, top = (
                PATCH * rng.randint(0, (length - side) // PATCH) for length, side in ((width, across), (height, down))
            )
            views.append(View(width, height, left, top, across, down))
        around, factors = (None, (across, down), (across, down)), (1.7, 2.0, 2.4)
        return [self._plan(rng, views, frames, (24,), around, REFINED, factors, lights=SKYWARD)]

    def begin(self, seconds: float) -> None:
        """Let the time of training begin, before any worker does."""
        self.began, self.seconds = time.monotonic(), seconds

    @property
    def gone(self) -> float:
        """The share of the time that is over."""
        return min(1.0, (time.monotonic() - self.began) / self.seconds)

    def _next(self, rng: random.Random) -> list[Plan]:
        pick, now = rng.random(), self.mixture(self.gone)
        if pick < now.images:
            return self._whole(rng, 1)
        if pick < now.images + now.closeups:
            return self._closeups(rng)
        if pick < now.images + now.closeups + now.clips:
            return self._whole(rng, rng.choice((4, 4, 7, 13, 13)))
        return self._crops(rng)

    def __iter__(self) -> Iterator[list[Plan]]:
        worker = get_worker_info()
        rng = random.Random(f"{self.seed}/{worker.id if worker else 0}")
        while True:
            yield self._next(rng)


def _with_camera(scenario: Scenario, rng: random.Random) -> Scenario:
    """A scenario as it is, or under any camera that moves, said or not: one that is told how a scene is seen must have
    seen it from everywhere.
    """
    moving = [camera for camera in CAMERAS if camera != STATIC]
    return replace(scenario, camera=rng.choice(moving)) if rng.random() < MOVED else scenario


def _around(middle: tuple[float, float], view: View, size: tuple[int, int], rng: random.Random) -> View:
    """A window of a picture near `middle` (x, y), on the grid of patches and inside the picture."""
    corner = []
    for centre, length, side in zip(middle, (view.width, view.height), size, strict=True):
        wanted = centre - side / 2 + rng.uniform(-PATCH, PATCH)
        corner.append(min(max(0, PATCH * round(wanted / PATCH)), max(0, (length - side) // PATCH * PATCH)))
    return replace(view, left=corner[0], top=corner[1], crop_width=size[0], crop_height=size[1])


def moments_of(shots: Shots) -> Tensor:
    """The middles of latent frames in seconds of the figures' animations, (b, t)."""
    return latent_times(shots.times) + shots.cast.dice(ANIMATED) * LATER


def latent_times(times: Tensor) -> Tensor:
    """The middles of latent frames, (b, t), of frames at `times` (b, 4t - 3)."""
    whole = torch.cat([times[:, :1].expand(-1, TIME - 1), times], 1)
    return reduce(whole, "b (t T) -> b t", "mean", T=TIME)


def _pooled(share: Tensor) -> Tensor:
    """What holds for pixels (b, 4t - 3, c, H, W), for latents on the average: (b, c, t, h, w)."""
    whole = torch.cat([share[:, :1].expand(-1, TIME - 1, -1, -1, -1), share], 1)
    return reduce(whole, "b (t T) c (h p) (w q) -> b c t h w", "mean", T=TIME, p=SPACE, q=SPACE)


def _enlarged(video: Tensor, factor: float, dice: torch.Generator) -> Tensor:
    """A video (b, c, T, H, W) made smaller by a factor and large again, with shapes that are bent a little, as those of
    drafts are.
    """
    b, _, count, height, width = video.shape
    frames = rearrange(video, "b c T h w -> (b T) c h w")
    small = F.interpolate(frames, (round(height / factor), round(width / factor)), mode="bicubic", antialias=True)
    grid = _bent(b, *small.shape[2:], dice).repeat_interleave(count, 0)
    small = F.grid_sample(small, grid, padding_mode="border", align_corners=False)
    return rearrange(F.interpolate(small, (height, width), mode="bicubic"), "(b T) c h w -> b c T h w", b=b)


def _bent(count: int, height: int, width: int, dice: torch.Generator) -> Tensor:
    """Where each pixel of so many small pictures is taken from, (b, h, w, 2), from -1 to 1: from beside it, the farther
    in some pictures than in others.
    """
    device = dice.device
    coarse = torch.randn(count, 2, height // BENT_OVER + 2, width // BENT_OVER + 2, generator=dice, device=device)
    far = BENT * torch.rand(count, 1, 1, 1, generator=dice, device=device)
    off = F.interpolate(coarse * far, (height, width), mode="bicubic")
    down, across = ((torch.arange(side, device=device) + 0.5) / side * 2 - 1 for side in (height, width))
    x, y = across + off[:, 0] * 2 / width, down[:, None] + off[:, 1] * 2 / height
    return torch.stack([x, y], -1)


def latent_spread(studio: Studio, examples: Examples, batches: int) -> Tensor:
    """The standard deviation of each latent channel over some batches of whole pictures, (c,)."""
    latents = (studio(plans).latents for plans in islice(examples, batches))
    return torch.cat([rearrange(each, "b c t h w -> (b t h w) c") for each in latents]).std(0)
