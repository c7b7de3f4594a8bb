"""Where the figure of a video goes, before any picture is drawn: a course of poses, denoised by the one loop."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from sora_cli.engine.backbones import DioramaBackbone, Place
from sora_cli.engine.canvas import Level
from sora_cli.engine.denoiser import WHOLE_PICTURE, Known, Network, Window, from_network, pinned
from sora_cli.engine.job import LatentFile
from sora_cli.engine.pipeline import Sampler, steady, words_at
from sora_cli.engine.reel import Span, spans
from sora_cli.engine.sample import normal_draws, sample
from sora_cli.engine.schedule import flow_schedule
from sora_cli.engine.solvers import SOLVERS
from sora_cli.model.course import Course, shape_of
from sora_cli.model.dit import seconds_of
from sora_cli.model.tracing import Pose

STEPS = 16
LONGEST, CONTEXT = 64, 16  # latent frames of a course that are denoised together, and how many of them are known
SURE, DRAWN = 0.001, 1.0  # how much poses are doubted that are known, and that are drawn


@torch.no_grad()
def plan_course(
    sampler: Sampler,
    level: Level,
    latents: LatentFile,
    poses: LatentFile,
    known: Sequence[bool],
    seed: int,
    seen_in: Window = WHOLE_PICTURE,
) -> None:
    """Write into `poses` where the figure that the words are about stands in every latent frame of a level.

    Where it stands in `known` frames, and how it moves there, is read off their `latents`, from the part of the picture
    that it is `seen_in`; the course leads there.
    """
    assert isinstance(sampler.backbone, DioramaBackbone)  # no other family has courses
    there, generator = list(known) or [False] * poses.frames, torch.Generator().manual_seed(seed)
    _read_known(sampler, level, latents, poses, there, seen_in)
    whole = Span(0, poses.frames, 0, poses.frames)
    begun = torch.rand((), generator=generator).item()
    rows, solver = flow_schedule(STEPS, scale=1.0), SOLVERS[sampler.flow.solver]
    for span in spans(poses.frames, LONGEST, CONTEXT, there):
        numbers = Course.numbers(Pose.of(poses.read(span.start, span.stop)))
        mask = torch.ones_like(numbers[:, :1])
        mask[:, :, span.first - span.start : span.last - span.start] = 0.0
        part = Known(numbers.where(mask > 0, 0.0), mask, "native")
        denoise = pinned(from_network(_bound(sampler, level, span, poses.frames), "x0", part), part)
        noise = torch.randn(numbers.shape, generator=generator)
        made = sample(denoise, rows, noise, solver, normal_draws(generator, noise), lambda _step: None)
        pose = Course.pose(made)
        poses.write(span.first, pose.numbers()[:, :, span.first - span.start : span.last - span.start])
    steady(sampler, poses, torch.where(torch.tensor(there), SURE, DRAWN))
    pose = Pose.of(poses.read(0, poses.frames))
    seconds = seconds_of(0, poses.frames, sampler.fps, sampler.grid.time)
    loop = sampler.backbone.loop(words_at(sampler, whole, poses.frames).prompt)
    moment = animated(pose.moment[0], seconds, torch.tensor(there), loop, begun * loop)
    poses.write(0, replace(pose, moment=moment[None]).numbers())


def animated(known_moments: Tensor, seconds: Tensor, known: Tensor, loop: float, begun: float) -> Tensor:
    """The moments (n,) of an animation that takes `loop` seconds, at `seconds` (n,), as they are where they are known.

    Beside known ones it goes on at its usual pace, between two of them at the pace nearest to that with which it
    arrives; without any it is at `begun` at first.
    """
    at = known.nonzero()[:, 0].tolist()
    if not at:
        return seconds + begun
    moments = known_moments.clone()
    for index in (~known).nonzero()[:, 0].tolist():
        before = max((k for k in at if k < index), default=None)
        behind = min((k for k in at if k > index), default=None)
        nearest = behind if before is None else before
        assert nearest is not None
        pace = 1.0
        if before is not None and behind is not None:
            length, turn = seconds[behind] - seconds[before], known_moments[behind] - known_moments[before]
            pace = ((turn + loop * ((length - turn) / loop).round()) / length).item()
        moments[index] = known_moments[nearest] + pace * (seconds[index] - seconds[nearest])
    return moments


def _bound(sampler: Sampler, level: Level, span: Span, frames: int) -> Network:
    """The denoiser of courses for a window of a video of so many latent frames; it computes where its weights are."""
    assert isinstance(sampler.backbone, DioramaBackbone)
    network, device = sampler.backbone.network.course, sampler.backbone.device
    features, seen = (each.to(device) for each in words_at(sampler, span, frames).prompt)
    seconds = seconds_of(min(span.start, 1), span.stop - span.start, sampler.fps, sampler.grid.time)[None].to(device)
    shape = shape_of(level.width, level.height, sampler.fps / sampler.grid.time)[None].to(device)

    def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
        return network(x.to(device), timesteps.to(device), features, seen, seconds, shape).to(x)

    return denoise


def _read_known(
    sampler: Sampler, level: Level, latents: LatentFile, poses: LatentFile, known: Sequence[bool], seen_in: Window
) -> None:
    """Write where the figure stands in the known latent frames of a level."""
    assert isinstance(sampler.backbone, DioramaBackbone)
    for there, run in groupby(range(len(known)), key=lambda frame: (known[frame], frame // sampler.flow.window)):
        if not there[0]:
            continue
        frames = list(run)
        span = Span(frames[0], frames[-1] + 1, frames[0], frames[-1] + 1)
        x = latents.read(span.start, span.stop)[..., seen_in.h, seen_in.w].to(sampler.backbone.device)
        words = words_at(sampler, span, poses.frames).prompt
        place = Place(level, seen_in, span, sampler.fps)
        pose = sampler.backbone.pose(x, x.new_zeros(1, len(frames)), words, place)
        poses.write(span.start, replace(pose, moment=sampler.backbone.moment(x, pose, words, place)).numbers())
