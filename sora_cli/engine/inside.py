"""Where a figure stands that is to be inside a mask."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sora_cli.engine.backbones import DioramaBackbone, Figure, Place
from sora_cli.engine.canvas import Level
from sora_cli.engine.courses import plan_course
from sora_cli.engine.denoiser import WHOLE_PICTURE
from sora_cli.engine.job import LatentFile
from sora_cli.engine.pipeline import Kept, Sampler, words_at
from sora_cli.engine.reel import Span
from sora_cli.model.tracing import Pose

ROOMY = 0.95  # share of a mask's box that a figure may fill


def covered(sampler: Sampler, level: Level, poses: LatentFile) -> Tensor:
    """How much of each latent of a level is covered by the figure that the words are about, as it stands in `poses`, on
    the average and at most: (2, h, w).
    """
    assert isinstance(sampler.backbone, DioramaBackbone)
    total, most = torch.zeros(2, *level.latents(sampler.grid))
    for start in range(0, poses.frames, sampler.flow.window):
        stop = min(start + sampler.flow.window, poses.frames)
        span = Span(start, stop, start, stop)
        pose = Pose.of(poses.read(start, stop).to(sampler.backbone.device))
        words = words_at(sampler, span, poses.frames).prompt
        place = Place(level, WHOLE_PICTURE, span, sampler.fps, (Figure(words, pose),))
        cover = sampler.backbone.cover(place).cpu()
        total, most = total + cover.sum(0), torch.maximum(most, cover.amax(0))
    return torch.stack([total / poses.frames, most])


def put_inside(sampler: Sampler, level: Level, kept: Kept, poses: LatentFile, seed: int) -> None:
    """Write into `poses` where a figure stands that the words put inside a mask, in every latent frame of a level: on a
    course like any other's, as large as there is room for, and no further than the mask goes.
    """
    plan_course(sampler, level, kept.latents, poses, (), seed)
    pose = Pose.of(poses.read(0, poses.frames))
    poses.write(0, confined(pose, kept.inside, level).numbers())


def confined(pose: Pose, inside: Tensor, level: Level) -> Pose:
    """A pose of which the figure's square stays in the box around what is `inside`, (h, w), the latents of a level, or
    around the largest part of that.
    """
    inside = largest_part(inside)
    side = (level.width * level.height) ** 0.5
    size = pose.size * side
    low, high = zip(*(_reach(inside.amax(axis)) for axis in (0, 1)), strict=True)
    sides = (level.width, level.height)
    box = [(ends[1] - ends[0]) * length for ends, length in zip(zip(low, high, strict=True), sides, strict=True)]
    size = size * min(1.0, ROOMY * min(box) / float(size.max()))
    middles = []
    for at, first, last, length, room in zip((pose.x, pose.y), low, high, sides, box, strict=True):
        centre, travel = (at.max() + at.min()) / 2, float((at.max() - at.min()) * length)
        free = max(0.0, room - float(size.max()))
        middles.append((first + last) / 2 + (at - centre) * min(1.0, free / max(travel, 1e-6)))
    return replace(pose, x=middles[0], y=middles[1], size=size / side, there=torch.ones_like(pose.there))


def largest_part(inside: Tensor) -> Tensor:
    """The largest connected part, by sides and corners, of what is not 0 in (h, w): 1 there."""
    left, best = inside > 0, torch.zeros_like(inside)
    while left.any():
        part = torch.zeros_like(inside)
        part.view(-1)[int(left.flatten().float().argmax())] = 1
        while True:
            grown = F.max_pool2d(part[None], 3, 1, 1)[0] * left
            if torch.equal(grown, part):
                break
            part = grown
        best = part if part.sum() > best.sum() else best
        left = left & (part == 0)
    return best


def _reach(line: Tensor) -> tuple[float, float]:
    """Where what is not 0 of `line` (n,) begins and ends, as shares of its length."""
    at = line.nonzero()[:, 0]
    return float(at[0]) / len(line), float(at[-1] + 1) / len(line)
