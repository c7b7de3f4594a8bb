"""Training of diorama's denoiser: what it is shown, in which proportions, and its loss."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange, reduce
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from vocabulary import CAMERAS_OF_MOTION, MOTIONS, SCENES, SUBJECTS, caption
from world import Scenario, Sprites, View, draw_scenario, figure_pixel, render_figure

from sora_cli.engine.networks import load_bert
from sora_cli.engine.sample import mixed_noise
from sora_cli.model.dit import STILL_RATE, DiT, Place, locate, seconds_of
from sora_cli.model.vae.patch import SPACE, TIME, PatchVAE
from sora_weights.families.diorama import FAMILY
from sora_weights.spec import TextSpec

WORDINGS = 16  # captions of each combination
TOKENS = 560  # patches in a batch, about
PATCH = 16  # pixels along a patch
FOCUS = 3.0  # how much more a latent weighs in the loss where it is all figure
CLOSEST = 0.6  # close-ups are never noisier: they would teach that every window has a figure
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


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares of what is shown: pictures, close-ups of their figures, clips, crops of large pictures (the rest)."""

    images: float
    closeups: float
    clips: float
    mixed: float = 0.4  # share of batches with several shapes, padded and masked


@dataclass(frozen=True, slots=True)
class Sample:
    """One training example: latents (c, t, h, w) and where they lie in picture and time."""

    latents: Tensor
    figure: Tensor  # share of each latent that is figure, (t, h, w)
    artwork: Tensor  # the point of the figure's artwork that each latent shows, (2, t, h, w)
    view: View
    fps: float
    words: int
    first: int = 0  # the latent frame of its clip that it begins with


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded examples: latents (b, c, t, h, w), figure (b, t, h, w), artwork (b, 2, t, h, w), mask (b, t, h, w) or
    None, place, rows of the caption table (b,), and the highest timestep to train at.
    """

    latents: Tensor
    figure: Tensor
    artwork: Tensor
    mask: Tensor | None
    place: Place
    words: Tensor
    noisiest: float

    @property
    def kind(self) -> str:
        """What it shows, in a word."""
        return "part" if self.noisiest < 1 else "image" if self.latents.shape[2] == 1 else "clip"

    def to(self, device: str) -> "Batch":
        """The same on another device."""
        mask = None if self.mask is None else self.mask.to(device)
        latents, figure, artwork = (each.to(device) for each in (self.latents, self.figure, self.artwork))
        return Batch(latents, figure, artwork, mask, self.place.to(device), self.words, self.noisiest)


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


def place_of(sample: Sample) -> Place:
    """Where the latents of a sample lie (a batch of one)."""
    t, h, w = sample.latents.shape[1:]
    view, fps = sample.view, sample.fps
    rate = fps / TIME if t > 1 else STILL_RATE
    seconds = seconds_of(sample.first, t, fps, TIME)
    return locate(seconds, rate, (view.height, view.width), (view.top, view.left), (h, w), SPACE)


def collate(samples: list[Sample], noisiest: float = 1.0) -> Batch:
    """Pad to the largest of each side; positions in the padding repeat the last one."""
    shapes = [sample.latents.shape for sample in samples]
    c, t, h, w = shapes[0][0], *(max(shape[axis] for shape in shapes) for axis in (1, 2, 3))
    latents, figure = torch.zeros(len(samples), c, t, h, w), torch.zeros(len(samples), t, h, w)
    artwork = torch.zeros(len(samples), 2, t, h, w)
    mask = torch.zeros(len(samples), t, h, w, dtype=torch.bool)
    places = []
    for i, sample in enumerate(samples):
        st, sh, sw = sample.latents.shape[1:]
        latents[i, :, :st, :sh, :sw] = sample.latents
        figure[i, :st, :sh, :sw] = sample.figure
        artwork[i, :, :st, :sh, :sw] = sample.artwork
        mask[i, :st, :sh, :sw] = True
        p = place_of(sample)
        places.append(
            (
                _extended(p.seconds, t),
                _extended(p.rows, h),
                _extended(p.columns, w),
                p.height,
                p.width,
                p.rate,
            )
        )
    place = Place(*(torch.cat(parts) for parts in zip(*places, strict=True)))
    words = torch.tensor([sample.words for sample in samples])
    return Batch(latents, figure, artwork, None if bool(mask.all()) else mask, place, words, noisiest)


def _extended(row: Tensor, length: int) -> Tensor:
    return torch.cat([row, row[:, -1:].expand(1, length - row.shape[1])], 1)


class Examples(IterableDataset[Batch]):
    """Endless batches, rendered and encoded as they are needed; each worker has its own dice."""

    def __init__(self, sprites: dict[str, Sprites], vae: PatchVAE, mixture: Mixture, seed: int) -> None:
        self.sprites, self.vae, self.mixture, self.seed = sprites, vae, mixture, seed
        self.index = {combination: i for i, combination in enumerate(combinations())}

    def _sample(
        self, rng: random.Random, view: View, latent_frames: int, fps: float, side: int | None = None
    ) -> Sample:
        """A random scenario, or with `side` a square around its figure; half of the clips begin in mid-stream."""
        s: Scenario = draw_scenario(rng)
        first = int(latent_frames > 1 and rng.random() < 0.5)
        start = rng.uniform(-0.1, 1.6)
        if side is not None:
            view = _around(figure_pixel(s, view, start), view, side, rng)
        times = torch.arange(TIME * (latent_frames + first) - 3) / fps + start
        picture, share, artwork = render_figure(s, self.sprites, view, times)
        with torch.no_grad():
            latents = self.vae.encode(rearrange(picture, "T c h w -> 1 c T h w") * 2 - 1)[0, :, first:]
        words = self.index[s.subject, s.scene, s.motion, s.camera] * WORDINGS + rng.randrange(WORDINGS)
        share, artwork = _pooled(share)[0, first:], _pooled(artwork)[:, first:]
        return Sample(latents, share, artwork, view, fps, words, first)

    def _whole(self, rng: random.Random, latent_frames: int) -> Batch:
        fps = rng.choice((8, 12, 15, 24, 24, 24, 24, 24, 30, 48))
        sizes = SMALL_SHAPES if latent_frames > 1 and rng.random() < 0.5 else SHAPES
        shapes = sizes[rng.choice(("wide", "wide", "wide", "square", "tall"))]
        mixed, one = rng.random() < self.mixture.mixed, rng.choice(shapes)
        samples: list[Sample] = []
        used = 0
        while used < TOKENS:
            width, height = rng.choice(shapes) if mixed else one
            samples.append(self._sample(rng, View(width, height), latent_frames, fps))
            used += latent_frames * width * height // PATCH**2
        return collate(samples)

    def _closeups(self, rng: random.Random, latent_frames: int) -> Batch:
        """The figure and a little around it, at the size at which pictures are composed: cheap, all that matters."""
        side = 80 if rng.random() < 0.7 else 96
        count = max(1, TOKENS // (latent_frames * (side // PATCH) ** 2))
        shapes = SHAPES[rng.choice(("wide", "wide", "wide", "square", "tall"))]
        views = [View(*rng.choice(shapes)) for _ in range(count)]
        return collate([self._sample(rng, view, latent_frames, 24, side) for view in views], CLOSEST)

    def _crops(self, rng: random.Random) -> Batch:
        """Parts of large pictures, little noisy: they are only ever refined."""
        latent_frames = rng.choice((1, 1, 1, 4))
        factor = rng.choice((2, 2, 2, 3, 4, 8, 12))
        width, height = rng.choice(SHAPES[rng.choice(("wide", "wide", "square", "tall"))])
        width, height, side = width * factor, height * factor, rng.choice((96, 112, 128, 160, 208))
        samples = []
        for _ in range(max(1, TOKENS // (latent_frames * (side // PATCH) ** 2))):
            left = rng.randrange(0, max(width - side, 0) + 1, PATCH)
            top = rng.randrange(0, max(height - side, 0) + 1, PATCH)
            view = View(width, height, left, top, min(side, width), min(side, height))
            around = side if rng.random() < 0.6 else None
            samples.append(self._sample(rng, view, latent_frames, 24, around))
        return collate(samples, REFINED)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        rng = random.Random(f"{self.seed}/{worker.id if worker else 0}")
        torch.set_num_threads(1)
        while True:
            pick = rng.random()
            if pick < self.mixture.images:
                yield self._whole(rng, 1)
            elif pick < self.mixture.images + self.mixture.closeups:
                yield self._closeups(rng, 1)
            elif pick < self.mixture.images + self.mixture.closeups + self.mixture.clips:
                yield self._whole(rng, rng.choice((4, 4, 7, 13, 13)))
            else:
                yield self._crops(rng)


def _around(middle: tuple[float, float], view: View, side: int, rng: random.Random) -> View:
    """A square of a picture near `middle` (x, y), on the grid of patches and inside the picture."""
    corner = []
    for centre, length in zip(middle, (view.width, view.height), strict=True):
        wanted = centre - side / 2 + rng.uniform(-PATCH, PATCH)
        corner.append(min(max(0, PATCH * round(wanted / PATCH)), max(0, (length - side) // PATCH * PATCH)))
    return View(view.width, view.height, *corner, min(side, view.width), min(side, view.height))


def _pooled(share: Tensor) -> Tensor:
    """What holds for pixels (4t - 3, c, H, W), for latents on the average: (c, t, h, w)."""
    padded = torch.cat([share[:1].expand(TIME - 1, -1, -1, -1), share])
    return reduce(padded, "(t T) c (h p) (w q) -> c t h w", "mean", T=TIME, p=SPACE, q=SPACE)


def latent_spread(vae: PatchVAE, examples: Examples, batches: int) -> Tensor:
    """The standard deviation of each latent channel over some batches of whole pictures, (c,)."""
    stream, rows = iter(examples), []
    for _ in range(batches):
        rows.append(rearrange(next(stream).latents, "b c t h w -> (b t h w) c"))
    return torch.cat(rows).std(0)


def caption_table(kept: Path, builtin: Path) -> tuple[Tensor, Tensor]:
    """Features of all captions in float16, (captions, tokens, e), and which tokens are real; made once, then kept.

    `builtin` holds text.safetensors and tokenizer.json (`train.py text`).
    """
    if not kept.exists():
        weights = load_file(builtin / "text.safetensors")
        spec = TextSpec(len(weights["embeddings.word_embeddings.weight"]))
        encoder = load_bert(builtin / "text.safetensors", builtin / "tokenizer.json", spec)
        parts = [encoder(batch) for batch in _batches(captions(), 64)]
        save_file(
            {"features": torch.cat([f for f, _ in parts]).half(), "seen": torch.cat([s for _, s in parts])},
            kept,
        )
    table = load_file(kept)
    return table["features"], table["seen"]


def _batches(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def draw_timesteps(batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Timesteps (b, t) and which frames are to be learned (b, t).

    Logit-normal over whole samples, or even up to the batch's `noisiest`. A third of the clips hold known frames
    (clean, or a little noisy as CogVideoX's conditions: sigma = exp(N(-3, 0.5))), a tenth draw each frame by itself.
    """
    b, _, t = batch.latents.shape[:3]
    if batch.noisiest < 1:
        level = torch.rand(b, 1, generator=rng) * (batch.noisiest - 0.02) + 0.02
    else:
        level = torch.sigmoid(torch.randn(b, 1, generator=rng) * 1.2 + 0.9)  # what is where is decided early
    level = level.expand(b, t).clone()
    learned = torch.ones(b, t, dtype=torch.bool)
    if t == 1:
        return level, learned
    for i in range(b):
        dice = float(torch.rand((), generator=rng))
        if dice < 0.10:
            level[i] = torch.rand(t, generator=rng)
        elif dice < 0.40:
            known = _known_frames(t, rng)
            noisy = torch.exp(torch.randn((), generator=rng) * 0.5 - 3).clamp(max=0.25)
            level[i, known] = noisy if float(torch.rand((), generator=rng)) < 0.5 else 0.0
            learned[i, known] = False
    return level, learned


def _known_frames(frames: int, rng: torch.Generator) -> Tensor:
    count = int(torch.randint(1, max(2, frames // 2 + 1), (), generator=rng))
    kind = int(torch.randint(0, 6, (), generator=rng))
    known = torch.zeros(frames, dtype=torch.bool)
    if kind in (0, 1, 3):
        known[:count] = True
    if kind in (2, 3):
        known[-count:] = True
    if kind == 4:
        known[0] = True
    if kind == 5:
        known[torch.randperm(frames, generator=rng)[:count]] = True
    known[-1] &= bool(known.sum() < frames)
    return known


def denoising_loss(net: DiT, batch: Batch, features: Tensor, seen: Tensor, rng: torch.Generator) -> Tensor:
    """Velocity loss of the predicted clean latents: the mean of ((clean - predicted) / t)^2 over frames to learn.

    Latents of the figure weigh more: the optimum stays the same, but the little that is hard is learned sooner.
    """
    device = batch.latents.device
    timesteps, learned = draw_timesteps(batch, rng)
    noise = mixed_noise(batch.latents.shape, FAMILY.flow.shared_noise, rng).to(device)
    timesteps, learned = timesteps.to(device), learned.to(device)
    level = rearrange(timesteps, "b t -> b 1 t 1 1")
    noisy = (1 - level) * batch.latents + level * noise
    dropped = (torch.rand(len(seen), 1, generator=rng) < 0.1).to(device)
    predicted = net(noisy, timesteps, features, seen & ~dropped, batch.place, batch.mask)
    error = ((batch.latents - predicted) / level.clamp(min=0.02)) ** 2
    weight = rearrange(learned, "b t -> b 1 t 1 1") * (1 + FOCUS * batch.figure[:, None])
    if batch.mask is not None:
        weight = weight * batch.mask[:, None]
    return (error.mean(1, keepdim=True) * weight).sum() / weight.sum().clamp(min=1)
