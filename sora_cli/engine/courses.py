"""Where the figure of a video goes, and its camera, before any picture is drawn: a course, denoised by the one loop."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from sora_cli.engine.backbones import DioramaBackbone, Place
from sora_cli.engine.canvas import Level
from sora_cli.engine.denoiser import WHOLE_PICTURE, Known, Network, Window, from_network, pinned
from sora_cli.engine.job import LatentFile
from sora_cli.engine.pipeline import Conditioning, Sampler, steady, words_at
from sora_cli.engine.reel import Span, spans
from sora_cli.engine.sample import normal_draws, sample
from sora_cli.engine.schedule import flow_schedule
from sora_cli.engine.solvers import SOLVERS
from sora_cli.model.course import NUMBERS, POSE, Course, shape_of
from sora_cli.model.dit import seconds_of
from sora_cli.model.tracing import Pose

STEPS = 16
LONGEST, CONTEXT = 64, 16  # latent frames of a course that are denoised together, and how many of them are known
UNMOVED = 0.02  # a camera that is never farther than this from where it stands at rest isn't moved at all
PROBES, PROBED = 4, 13  # courses of how many latent frames that say how a camera moves
DRIVEN, NEAREST = 1.8, 5.0  # how much sooner what is near is passed by a camera that drives, at least and at most
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
    own = poses.read(0, poses.frames)
    numbers = Course.numbers(Pose.of(own), torch.zeros(1, NUMBERS - POSE, poses.frames))
    made = Course.pose(_denoised(sampler, level, numbers, there, generator)).numbers()
    poses.write(0, torch.where(torch.tensor(there)[:, None, None], own, made))
    steady(sampler, poses, torch.where(torch.tensor(there), SURE, DRAWN))
    pose = Pose.of(poses.read(0, poses.frames))
    seconds = seconds_of(0, poses.frames, sampler.fps, sampler.grid.time)
    loop = sampler.backbone.loop(words_at(sampler, whole, poses.frames).prompt)
    moment = animated(pose.moment[0], seconds, torch.tensor(there), loop, begun * loop)
    poses.write(0, replace(pose, moment=moment[None]).numbers())


@torch.no_grad()
def plan_camera(sampler: Sampler, level: Level, frames: int, seed: int) -> Tensor:
    """How a camera sees a scene in every latent frame of a video of which nothing is known yet: (1, 5, frames), as
    `Place` has it and the logarithm of how far it sees of what is near. At rest, unless words move it.
    """
    at_rest = _seen(torch.zeros(1, 3, frames), 1.0)
    if sampler.words.filming is None:
        return at_rest
    filming = replace(
        sampler, words=Conditioning(sampler.words.filming, sampler.words.negative), camera=None, towards=None
    )
    camera = Course.camera(_alone(filming, level, max(frames, PROBED), seed))[..., :frames]
    return at_rest if camera.abs().max() < UNMOVED else _seen(camera, _nearness(filming, level))


def _seen(camera: Tensor, nearness: float) -> Tensor:
    return torch.cat([camera, torch.ones_like(camera[:, :1]), camera[:, 2:] * nearness], 1)


def _alone(sampler: Sampler, level: Level, frames: int, seed: int) -> Tensor:
    """A course of which nothing is known."""
    numbers, generator = torch.zeros(1, NUMBERS, frames, 1, 1), torch.Generator().manual_seed(seed)
    return _denoised(sampler, level, numbers, [False] * frames, generator)


def _nearness(sampler: Sampler, level: Level) -> float:
    """How much sooner a camera leaves behind what is near than what is far, when it sees more or less of that: as much
    for one that zooms, sooner for one that drives. Read off the sizes of the figures in some short courses.
    """
    among, of_far = 0.0, UNMOVED**2
    for seed in range(PROBES):
        course = _alone(sampler, level, PROBED, seed)
        far, size = Course.camera(course)[:, 2], Course.pose(course).size.log()
        among -= float(((size - size.mean()) * (far - far.mean())).sum())
        of_far += float((far - far.mean()).square().sum())
    return 1.0 if among / of_far < DRIVEN else min(among / of_far, NEAREST)


def _denoised(
    sampler: Sampler, level: Level, numbers: Tensor, known: Sequence[bool], generator: torch.Generator
) -> Tensor:
    """A course of which some frames are `known`: its numbers (1, 7, n, 1, 1), window after window."""
    frames, solver, rows = len(known), SOLVERS[sampler.flow.solver], flow_schedule(STEPS, scale=1.0)
    course = numbers.clone()
    for span in spans(frames, LONGEST, CONTEXT, known):
        there = course[:, :, span.start : span.stop]
        mask = torch.ones_like(there[:, :1])
        mask[:, :, span.first - span.start : span.last - span.start] = 0.0
        part = Known(there.where(mask > 0, 0.0), mask, "native")
        denoise = pinned(from_network(_bound(sampler, level, span, frames), "x0", part), part)
        noise = torch.randn(there.shape, generator=generator)
        made = sample(denoise, rows, noise, solver, normal_draws(generator, noise), lambda _step: None)
        course[:, :, span.first : span.last] = made[:, :, span.first - span.start : span.last - span.start]
    return course


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
