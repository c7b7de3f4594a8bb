"""Sources of known frames: pictures and clips, brought to a job's size, streamed, and encoded onto its canvas."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from sora_cli.engine.boards import Given, groups
from sora_cli.engine.border import filled
from sora_cli.engine.canvas import Canvas, Level
from sora_cli.engine.job import LatentFile
from sora_cli.engine.networks import Autoencoder
from sora_cli.engine.timing import retimed_count, retimed_index
from sora_cli.machine import give_back_memory
from sora_cli.model.vae.cogvideox import CogVideoXVAE
from sora_cli.model.vae.patch import TIME, PatchVAE
from sora_cli.request import Request

if TYPE_CHECKING:
    from sora_cli.media.clip import Clip, ClipFrame

WARM_GROUPS = 2  # latent frames that a causal encoder is shown, and that are dropped, before a clip in mid-stream


class Source(Protocol):
    """Something that gives frames."""

    @property
    def count(self) -> int:
        """How many it has."""

    def frames(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames start .. stop - 1, uint8 (H, W, 3) RGB at the job's size."""


@dataclass(frozen=True, slots=True, eq=False)
class Still:
    """A picture at the job's size, uint8 (H, W, 3) RGB."""

    pixels: np.ndarray
    count: int = 1

    def frames(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """The picture, where it is asked for."""
        return repeat(self.pixels, min(stop, 1) - start)


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """A clip, covered and centre-cropped to (width, height) and re-timed to `fps` where it has another size or rate."""

    clip: "Clip"
    width: int
    height: int
    fps: Fraction

    @property
    def count(self) -> int:
        """How many frames the job sees."""
        return retimed_count(self.clip.probe, self.fps)

    @property
    def resized(self) -> bool:
        """Whether the clip has another size than the job."""
        return (self.clip.probe.width, self.clip.probe.height) != (self.width, self.height)

    @property
    def retimed(self) -> bool:
        """Whether the clip has another rate than the job."""
        return self.clip.probe.fps not in (None, self.fps)

    def frames(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames of the clip as the job sees them."""
        return (covered(frame.rgb, self.width, self.height) for frame in self.own(start, stop))

    def own(self, start: int, stop: int) -> "Iterator[ClipFrame]":
        """The clip's own frames, in its own size: each the one that is shown at the time of a frame of the job."""
        if start >= stop:
            return
        wanted = [retimed_index(self.clip.probe, self.fps, k) for k in range(start, stop)]
        stream = self.clip.frames(wanted[0], wanted[-1] + 1)
        at, frame = wanted[0], next(stream)
        for index in wanted:
            while at < index:
                at, frame = at + 1, next(stream)
            yield frame


@dataclass(frozen=True, slots=True, eq=False)
class Fade:
    """Two sources that overlap by `overlap` frames, the one fading into the other there, as one source."""

    first: Source
    second: Source
    overlap: int

    @property
    def count(self) -> int:
        """Frames of both together."""
        return self.first.count + self.second.count - self.overlap

    def frames(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames of the first source, of the overlap, of the second."""
        begin = self.first.count - self.overlap
        yield from self.first.frames(start, min(stop, begin))
        here, there = max(start, begin), min(stop, self.first.count)
        if here < there:
            pairs = zip(self.first.frames(here, there), self.second.frames(here - begin, there - begin), strict=True)
            for index, (one, other) in enumerate(pairs, here - begin):
                share = (index + 1) / (self.overlap + 1)
                yield np.rint(one * (1 - share) + other * share).astype(np.uint8)
        if stop > self.first.count:
            yield from self.second.frames(max(start, self.first.count) - begin, stop - begin)


def open_sources(request: Request, opened: ExitStack) -> list[Source]:
    """The sources of a request in the order of `Request.sources`; `opened` closes them.

    Raises SoraError missing_input and bad_input.
    """
    from sora_cli.media.clip import open_source
    from sora_cli.media.picture import read_picture

    width, height = request.width, request.height
    pictures = [path for path in (request.image, request.last) if path is not None]
    clips = [path for path in (request.clip, request.other) if path is not None]
    stills = (np.array(read_picture(Path(path), width, height)) for path in pictures)
    footage = (opened.enter_context(open_source(path)) for path in clips)
    sources: list[Source] = [Still(covered(pixels, width, height)) for pixels in stills]
    sources += [Footage(clip, width, height, request.fps) for clip in footage]
    if request.mode == "blend":
        sources.append(Fade(sources[0], sources[1], request.frames))
    return sources


def covered(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """A frame resized (Lanczos) to cover width x height and cropped to its middle."""
    if pixels.shape[:2] == (height, width):
        return pixels
    from sora_cli.media.picture import middle

    picture = Image.fromarray(pixels)
    box = middle(picture.size, width, height)
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS, box))


def mask_latents(inside: np.ndarray, canvas: Canvas, level: Level) -> Tensor:
    """Where to draw at a level, float (h, w): latents that hold a pixel of `inside`, (H, W) of the canvas's size."""
    left, right, top, bottom = canvas.padding
    whole = torch.from_numpy(np.pad(inside, ((top, bottom), (left, right)), mode="edge")).float()
    return F.adaptive_max_pool2d(whole[None, None], level.latents(canvas.grid))[0, 0]


def given_frames(source: Source, given: Given) -> Iterator[np.ndarray]:
    """The frames of a stretch, as many as it counts: the source's last one again and again where it ends."""
    last: np.ndarray | None = None
    made = 0
    first = min(given.first, source.count - 1)
    for last in source.frames(first, max(first + 1, min(given.first + given.count, source.count))):
        made += 1
        yield last
    assert last is not None
    yield from repeat(last, given.count - made)


def place(
    vae: Autoencoder,
    stretches: Sequence[Given],
    sources: Sequence[Source],
    canvas: Canvas,
    level: Level,
    latents: LatentFile,
    hole: Tensor | None = None,
) -> None:
    """Encode stretches of sources into `latents`, at the size of one level of the canvas; where a `hole` (h, w) of the
    level's latents is 1, what is around it goes on smoothly.
    """
    inside = None if hole is None else hole[None, None].repeat_interleave(canvas.grid.space, 2)
    inside = None if inside is None else inside.repeat_interleave(canvas.grid.space, 3)
    latent_groups = groups(canvas.latent_frames, canvas.grid.time)
    for given in stretches:
        held = range(given.at, given.at + given.count)
        whole = [k for k, group in enumerate(latent_groups) if set(group) <= set(held)]
        if not whole:
            continue
        first = latent_groups[whole[0]].start
        frames = given_frames(sources[given.source], given)
        for _ in range(first - given.at):
            next(frames)
        sized = (fitted(frame, canvas, level) for frame in frames)
        if inside is not None:
            sized = (filled(frame, inside) for frame in sized)
        for index, latent in zip(whole, encoded(vae, sized, len(whole), opening=first == 0), strict=False):
            latents.write(index, latent[:, :, None])


def fitted(pixels: np.ndarray, canvas: Canvas, level: Level) -> Tensor:
    """A frame of the canvas's size as (1, 3, H, W) in [-1, 1] at a level, its border repeated out to the grid."""
    frame = rearrange(torch.from_numpy(np.array(pixels)), "H W c -> 1 c H W").float().div_(127.5).sub_(1)
    frame = F.pad(frame, canvas.padding, mode="replicate")
    if level == canvas.levels[-1]:
        return frame
    return F.interpolate(frame, (level.height, level.width), mode="bicubic", antialias=True).clamp(-1, 1)


@torch.no_grad()
def encoded(vae: Autoencoder, frames: Iterator[Tensor], count: int, *, opening: bool) -> Iterator[Tensor]:
    """`count` latent frames (1, c, h, w), as the denoiser sees them, of frames (1, 3, H, W) in [-1, 1].

    `opening` frames begin a video: one makes the first latent frame. Others lie in mid-stream, where a causal encoder
    has a past: it is warmed up with their first frame.
    """
    if isinstance(vae, PatchVAE):
        yield from _in_groups(vae, frames, count, opening=opening)
        return
    parameter = next(vae.parameters())
    stream, dropped = frames, 0
    if not opening:
        first = next(frames)
        dropped = 1 + WARM_GROUPS
        stream = chain(repeat(first, 1 + vae_time(vae) * WARM_GROUPS), [first], frames)
    cast = (frame.to(parameter) for frame in stream)
    total = 1 + vae_time(vae) * (count + dropped - 1)
    pairs = vae.encode(cast, total) if isinstance(vae, CogVideoXVAE) else vae.encode(_first(cast, total))
    for index, (mean, _) in enumerate(pairs):
        if index >= dropped:
            yield vae.normalise(mean).float()


def vae_time(vae: Autoencoder) -> int:
    """Frames in a latent frame."""
    return getattr(vae, "time", 4)


def _first(frames: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    return (frame for frame, _ in zip(frames, range(count), strict=False))


def _in_groups(vae: PatchVAE, frames: Iterator[Tensor], count: int, *, opening: bool) -> Iterator[Tensor]:
    device = vae.mean.device
    for index in range(count):
        group = _group(frames, alone=opening and index == 0).to(device)
        give_back_memory()  # what bringing frames to the level's size has left in pieces
        yield vae.encode_group(group)[:, :, 0].float()
        del group  # before the next one is filled


def _group(frames: Iterator[Tensor], *, alone: bool) -> Tensor:
    """The frames of a latent frame, (1, 3, 4, H, W), taken one at a time; one that is `alone` is repeated."""
    first = next(frames)
    group = first.new_empty(1, 3, TIME, *first.shape[-2:])
    group[:] = first[:, :, None]
    del first
    for at in range(1, 1 if alone else TIME):
        group[:, :, at] = next(frames)
    return group
