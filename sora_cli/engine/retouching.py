"""Figures drawn sharp again in the frames of a board: who stands where is noted when it is drawn, and used when it is
decoded.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor

from sora_cli.engine.backbones import DioramaBackbone
from sora_cli.engine.canvas import Level
from sora_cli.engine.company import MOST
from sora_cli.engine.job import LatentFile
from sora_cli.engine.memory import STRIP
from sora_cli.engine.networks import load_retouch
from sora_cli.engine.pipeline import Sampler, words_at
from sora_cli.engine.reel import Span
from sora_cli.engine.studio import Studio
from sora_cli.model.artwork import Artwork, picture_at
from sora_cli.model.dit import seconds_of
from sora_cli.model.retouch import Retouch, apart, light_on, lit
from sora_cli.model.tracing import Actor, Area, Pose, figure_pixels, moments
from sora_cli.model.vae.patch import SPACE, TIME

SEEN = 0.5  # how far a figure is there at least that is drawn sharp
NOBODY = -1.0  # number of the figure where there is none
CLEARING = 5.0  # how much more of the scenery is let go on than was learned: what is drawn has more rags than training
KEEPS = 0.8  # share of the light of all frames before that counts beside a frame's own, so that it doesn't flicker


def cast_file(studio: Studio, board: int, number: int) -> LatentFile:
    """The file for one of the figures of a board in each latent frame: `Pose.numbers` and its number in the memory, as
    if they were latents; zeros, by which nobody is there, until it is written.
    """
    shape = (len(fields(Pose)) + 1, 1, 1)
    return studio.job.latents(f"board{board}-cast{number}", studio.work.canvases[board].latent_frames, shape)


def note_cast(studio: Studio, sampler: Sampler, board: int) -> None:
    """Note who stands where on a board that is drawn."""
    for number, member in enumerate(sampler.cast):
        assert isinstance(sampler.backbone, DioramaBackbone)  # no other family has figures
        poses = member.poses
        pose, figures = Pose.of(poses.read(0, poses.frames)), torch.full((1, 1, poses.frames, 1, 1), NOBODY)
        for at in range(poses.frames if sampler.towards else 1):
            words = words_at(sampler, Span(at, at + 1, at, at + 1), poses.frames).prompt
            figure = sampler.backbone.named(words if sampler.towards else member.text)
            figures[:, :, at:] = NOBODY if figure is None else figure
        cast_file(studio, board, number).write(0, torch.cat([pose.numbers(), figures], 1))


def retouched(studio: Studio, board: int, groups: Iterable[Tensor]) -> Iterator[Tensor]:
    """Groups of frames (n, 3, H, W) in [-1, 1] of a board with its figures drawn sharp, in place."""
    model, canvas, fps = studio.work.model, studio.work.canvases[board], float(studio.work.request.fps)
    if model.specs.retouch is None:
        yield from groups
        return
    cast = [cast_file(studio, board, number).read(0, canvas.latent_frames) for number in range(MOST)]
    cast = [each for each in cast if Pose.of(each[:, :-1]).there.any()]
    if not cast:
        yield from groups
        return
    network, artwork = load_retouch(model, studio.device, studio.precision)
    sharpened = Sharpened(network, artwork, artwork.side, canvas.levels[-1], cast, fps)
    at = 0
    for group in groups:
        for frame in group:
            sharpened.draw(frame, at)
            at += 1
        yield group
        del group, frame  # before the next ones are made


class Sharpened:
    """The figures of one board as they stand in its frames, and the light on them as it was lately."""

    def __init__(
        self, network: Retouch, artwork: Artwork, side: int, level: Level, cast: Sequence[Tensor], fps: float
    ) -> None:
        """`artwork` of `side` x `side` pixels of all figures; the `cast` is what `cast_file` holds of each figure."""
        self._network, self._level = network, level
        count = cast[0].shape[2]
        seconds, rate = seconds_of(0, count, fps, TIME)[None], torch.tensor([fps / TIME])
        self._actors = []
        for numbers in cast:
            pose, figures = Pose.of(numbers[:, :-1]), numbers[0, -1, :, 0, 0].long()
            pose = replace(pose, there=((pose.there > SEEN) & (figures >= 0)).float())
            poses = moments(pose, seconds, rate, TIME) if count > 1 else (pose,) * TIME
            self._actors.append(_Part(poses, artwork, figures, side))
        self._light = torch.zeros(2, 1, 3)
        self._latent, self._shown, self._swept = -1, list[Tensor](), torch.zeros(())

    @torch.no_grad()
    def draw(self, frame: Tensor, at: int) -> None:
        """Draw the figures sharp in frame number `at`, (3, H, W) in [-1, 1], in place; frames come in order."""
        latent, part = divmod(at + TIME - 1, TIME)  # the first latent frame holds one frame
        parts = range(TIME) if latent else (TIME - 1,)
        actors = [actor.at(latent) for actor in self._actors if actor.poses[0].there[0, latent]]
        rows, columns, area = self._around([actor.poses[each] for actor in actors for each in parts], latent)
        if not actors or rows.start >= rows.stop or columns.start >= columns.stop:
            return
        if latent != self._latent:
            self._shown.clear()  # before others are made
            for each in parts:  # in bytes: there are many
                self._shown.append((figure_pixels(actors, each, latent, SPACE, area) * 255).round().byte())
            self._latent, self._swept = latent, torch.stack([each[:, 3:] for each in self._shown]).amax(0)
        figure, swept = self._shown[part - TIME] / 255, self._swept / 255
        seen = frame[None, :, rows, columns]
        self._light = KEEPS * self._light + light_on(seen[None], figure[None])
        told = (seen, lit(figure[None], self._light)[0], swept)
        frame[:, rows, columns] = torch.cat([*self._strips(*told)], 2)[0]

    def _strips(self, seen: Tensor, figure: Tensor, swept: Tensor) -> Iterator[Tensor]:
        """A frame (1, 3, H, W) with its figures drawn sharp, as many rows at a time as there is room for."""
        device, off = self._network.inward.weight.device, apart(seen, figure)
        height, halo = seen.shape[2], -(-self._network.margin // SPACE) * SPACE
        for top in range(0, height, at_once := max(SPACE, STRIP // seen.shape[3] // SPACE * SPACE)):
            bottom = min(top + at_once, height)
            first, last = max(0, top - halo), min(bottom + halo, height)
            part = (each[:, :, first:last].to(device) for each in (seen, figure, swept))
            yield (
                self._network(*part, off.to(device), CLEARING)[:, :, top - first : bottom - first].clamp(-1, 1).to(seen)
            )

    def _around(self, poses: Sequence[Pose], latent: int) -> tuple[slice, slice, Area]:
        """The pixels that matter for figures in these poses, whole latents, and these latents."""
        width, height = (torch.tensor([float(side)]) for side in (self._level.width, self._level.height))
        root, parts = float((width * height).sqrt()), []
        for axis, length in (("y", self._level.height), ("x", self._level.width)):
            middles = [float(getattr(pose, axis)[0, latent]) * length for pose in poses]
            reaches = [float(pose.size[0, latent]) * root / 2 + self._network.margin for pose in poses]
            first = min((middle - reach for middle, reach in zip(middles, reaches, strict=True)), default=0.0)
            last = max((middle + reach for middle, reach in zip(middles, reaches, strict=True)), default=0.0)
            parts.append(range(max(0, int(first // SPACE)), min(length // SPACE, int(-(-last // SPACE)))))
        down, across = ((torch.tensor(part)[None] + 0.5) * SPACE for part in parts)
        rows, columns = (slice(part.start * SPACE, part.stop * SPACE) for part in parts)
        return rows, columns, Area(across, down, width, height)


@dataclass(frozen=True, slots=True)
class _Part:
    """A figure of a board: its poses in the frames of all latent frames, and its number in each of these."""

    poses: Sequence[Pose]
    artwork: Artwork
    figures: Tensor
    side: int

    def at(self, latent: int) -> Actor:
        """The figure as it is in a latent frame."""
        return Actor(self.poses, partial(picture_at, self.artwork, self.figures[latent : latent + 1]), self.side)
