"""The path from words to latents: text, the draft, and the levels that refine it."""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sora_cli.engine.backbones import Backbone, Condition, DioramaBackbone, Figure, Place, Text
from sora_cli.engine.canvas import Canvas, Level, levels_from
from sora_cli.engine.checkpoint import Point
from sora_cli.engine.decode import decode_frames, decode_groups
from sora_cli.engine.denoiser import (
    WHOLE_PICTURE,
    Denoiser,
    Known,
    Window,
    blend_weights,
    from_network,
    guided,
    pinned,
    settled,
    windowed,
    windows,
)
from sora_cli.engine.devices import Precision
from sora_cli.engine.filming import split_camera
from sora_cli.engine.job import LatentFile
from sora_cli.engine.networks import Autoencoder, load_text_encoder
from sora_cli.engine.reel import Span, spans
from sora_cli.engine.sample import Step, common_noise, mixed_noise, normal_draws, sample
from sora_cli.engine.schedule import (
    Prediction,
    Rows,
    Scheduler,
    flow_schedule,
    noised,
    scheduler_from_config,
)
from sora_cli.engine.solvers import SOLVERS, rows_for, state_from_tensors
from sora_cli.model.dit import Reliance, seconds_of
from sora_cli.model.tracing import Pose, steadied
from sora_cli.model.vae.patch import TIME, PatchVAE
from sora_weights.spec import FlowSpec, Grid, Model

ENLARGE_TILE = 48  # the same on every machine: what is enlarged is sampled from
SEEN_AT = 0.3  # how noisy a draft is made in which the figure is to be seen
STEADIED, MARGIN = 48, 16  # latent frames whose poses are steadied at a time, and how many around them matter
KEPT_TEXTS = 64  # encoded prompts in the cache; the oldest go first

OnStep = Callable[[int, Step, Tensor], None]
"""Gets a window's number, its step, and the generator's state when the level began."""


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the words say: the prompt, what guidance leads away from, and where the prompt says something of the camera,
    the prompt without that, and that alone.
    """

    prompt: Text
    negative: Text
    unfilmed: Text | None = None
    filming: Text | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Clearing:
    """Where what is around goes on first, 1 in `hole`, (h, w), and the noise level at which drawing starts then."""

    hole: Tensor
    start: float


@dataclass(frozen=True, slots=True)
class Stage:
    """One level of the picture in the making: its size, how it is denoised, how far guidance goes, and how many latent
    frames of what is there already a window in time sees. Without rows it is enlarged and no more; so are windows in
    space whose detail is nowhere above `smooth`. One that `holds` starts from what is known around it, with little
    noise, and from no level before; one that is `cleared` from what is around a hole, with more.
    """

    level: Level
    rows: Rows
    solver: str
    prediction: Prediction
    guidance: float
    context: int
    smooth: float = 0.0
    holds: bool = False
    cleared: Clearing | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Latents that stay as they are where `inside`, (h, w), is 0; drawing is allowed where it is 1."""

    latents: LatentFile
    inside: Tensor


@dataclass(frozen=True, slots=True)
class Member:
    """One of several figures: the text that tells it and what it does, where it stands in each latent frame, the part
    of the picture in which it is to be seen in given frames, and whether it is `meeting` others on its way.
    """

    text: Text
    poses: LatentFile
    seen_in: Window = WHOLE_PICTURE
    meeting: bool = False


@dataclass(frozen=True, slots=True)
class Sampler:
    """Everything that denoising needs and that no level changes."""

    backbone: Backbone
    words: Conditioning
    grid: Grid
    fps: float
    flow: FlowSpec
    generator: torch.Generator
    condition: Condition | None = None
    known_mode: Literal["native", "pin"] = "native"
    towards: Conditioning | None = None  # what the words have become by the end of the video
    poses: LatentFile | None = None  # of the figure in every latent frame, where these are known
    camera: LatentFile | None = None  # how it sees the scene in every latent frame, where the network can be told
    reliance: float = 0.0  # on the memory of figures, beyond what the network learned, in logits
    company: tuple[Member, ...] = ()  # the figures in a picture of several, in the place of the one of `poses`

    @property
    def said(self) -> Text:
        """The prompt, with what it says of the camera only where the network is not told of that in numbers."""
        unfilmed = None if self.camera is None else self.words.unfilmed
        return self.words.prompt if unfilmed is None else unfilmed

    @property
    def cast(self) -> tuple[Member, ...]:
        """Every figure whose place is known."""
        if self.company or self.poses is None:
            return self.company
        return (Member(self.said, self.poses),)


def encode_words(
    model: Model, prompt: str, negative: str, cache: Path, device: str, precision: Precision
) -> Conditioning:
    """Encode both texts, as `encode_texts` does, and apart what the prompt says of the camera, where the model can be
    told of that in numbers.
    """
    filming, unfilmed = split_camera(prompt) if model.figures else ("", prompt)
    texts = (prompt, negative, unfilmed, filming) if filming else (prompt, negative)
    features, seen = encode_texts(model, texts, cache, device, precision)
    return Conditioning(*zip(features[:, None], seen[:, None], strict=True))


def encode_texts(model: Model, texts: Sequence[str], cache: Path, device: str, precision: Precision) -> Text:
    """Encode texts together, or read them from `cache`, where they are kept by model, precision and texts."""
    what = "\0".join((model.digest(), device, str(precision.text), *texts))
    kept = cache / "text" / f"{hashlib.sha256(what.encode()).hexdigest()}.safetensors"
    with suppress(Exception):  # a cache that can't be read is made again
        tensors = load_file(kept)
        return tensors["features"], tensors["seen"]
    features, seen = (each.cpu() for each in load_text_encoder(model, device, precision)(list(texts)))
    with suppress(OSError, SafetensorError):  # nor is one that can't be written needed
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}.part")
        save_file({"features": features.contiguous(), "seen": seen.contiguous()}, part)
        part.replace(kept)
        _forget_oldest(kept.parent)
    return features, seen


def _forget_oldest(folder: Path) -> None:
    kept = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in kept[KEPT_TEXTS:]:
        file.unlink(missing_ok=True)


def scheduler_of(model: Model, flow: FlowSpec) -> Scheduler:
    """The schedule that a model brings with it, or its family's.

    Raises SoraError("bad_weights") for a scheduler_config.json that asks for what we don't have.
    """
    if model.scheduler is not None:
        return scheduler_from_config(model.scheduler)
    rows = partial(flow_schedule, shift=flow.shift, scale=1.0)
    return Scheduler(flow.solver, "x0", rows, lambda steps, start: rows(steps, start=start))


def stages(
    canvas: Canvas,
    flow: FlowSpec,
    scheduler: Scheduler,
    steps: int,
    guidance: float,
    strength: float = 1.0,
    *,
    refined: bool = True,
) -> tuple[Stage, ...]:
    """The draft in `steps` steps with guidance, then each larger level in a few steps without.

    With a `strength` below 1 drawing starts from what is there, and from the last level if that leaves the composition
    as it is. Larger levels that are not to be `refined` are only enlarged.
    """
    solver, prediction = scheduler.solver, scheduler.prediction
    rows = scheduler.rows(steps) if strength == 1 else scheduler.part(steps, strength)
    levels = levels_from(canvas.levels, strength, flow.composed)

    def refining(number: int) -> Rows:
        start, count = flow.refinement(number)
        return flow_schedule(max(count, 1), start=start, scale=1.0) if refined else ()

    later = (
        Stage(level, refining(number), solver, prediction, 1.0, flow.refine_context, flow.smooth)
        for number, level in enumerate(levels[1:], 1)
    )
    return (Stage(levels[0], rows, solver, prediction, guidance, flow.context), *later)


def holding(levels: Sequence[Stage], flow: FlowSpec) -> Stage:
    """The last level by itself, for what the network doesn't know: of that it would make something else."""
    rows = _rows_from(levels[0].rows, flow.given_start)
    return replace(levels[0], level=levels[-1].level, rows=rows, guidance=1.0, holds=True)


def clearing(stage: Stage, cleared: Clearing) -> Stage:
    """A draft of what is inside a mask, which begins with what is around that and not with noise alone, of which the
    network would make a scene of its own.
    """
    return replace(stage, rows=_rows_from(stage.rows, cleared.start), cleared=cleared)


def _rows_from(rows: Rows, level: float) -> Rows:
    """The rows of a schedule from a noise level on, at least the last one."""
    return tuple(row for row in rows if row.sigma <= level) or rows[-1:]


def plan_windows(level: Level, frames: int, grid: Grid, flow: FlowSpec) -> tuple[Window, ...]:
    """Windows in space over one span of `frames` latent frames; a level that fits in one window has one."""
    rows, columns = level.latents(grid)
    patch = grid.patch // grid.space
    reach = flow.reach if columns >= rows else flow.reach[::-1]
    reach = (min(reach[0], rows), min(reach[1], columns))
    overlap = (min(flow.overlap[0], reach[0] - patch), min(flow.overlap[1], reach[1] - patch))
    return windows((frames, rows, columns), (frames, *reach), (0, *overlap), (1, patch, patch))


@torch.no_grad()
def denoise_level(
    sampler: Sampler,
    stage: Stage,
    latents: LatentFile,
    start: LatentFile | None,
    on_step: OnStep,
    known: Sequence[bool] = (),
    kept: Kept | None = None,
    point: Point | None = None,
) -> None:
    """Make what is not `known` of the latent frames in `latents`, window after window in time.

    `start` holds the clean latents to refine, or is None for pure noise. `kept` is what stays as it is in part of the
    picture. `on_step` is told of every step. From a `point` of this level work goes on to the same latents.
    """
    flow = sampler.flow
    channels, rows, columns = latents.shape
    if point is not None:
        sampler.generator.set_state(point.tensors["level"])
    began = sampler.generator.get_state()
    common = common_noise((1, channels, 1, rows, columns), sampler.generator) if flow.shared_noise else None
    for index, span in enumerate(spans(latents.frames, flow.window, stage.context, known)):
        if point is not None and index < point.mark.window:
            continue
        level = 1.0 if any(known[span.start : span.stop]) else flow.handed_start
        if stage.holds:
            level = flow.given_start
        here = point if point is not None and index == point.mark.window else None
        told = replace(sampler, words=words_at(sampler, span, latents.frames))
        tell = partial(_tell, on_step, index, began)
        made = _denoise_span(told, stage, latents, start, common, span, tell, kept, here, level)
        latents.write(span.first, made[:, :, span.first - span.start : span.last - span.start])


def words_at(sampler: Sampler, span: Span, frames: int) -> Conditioning:
    """The words for a window of a video of so many latent frames: on the way from the first ones to the last ones."""
    if sampler.towards is None:
        return replace(sampler.words, prompt=sampler.said)
    share = (span.first + span.last) / 2 / frames
    (features, seen), (later, seen_later) = sampler.words.prompt, sampler.towards.prompt
    return replace(sampler.words, prompt=(torch.lerp(features, later, share), seen | seen_later))


def _tell(on_step: OnStep, window: int, began: Tensor, step: Step) -> None:
    on_step(window, step, began)


def _denoise_span(
    sampler: Sampler,
    stage: Stage,
    latents: LatentFile,
    start: LatentFile | None,
    common: Tensor | None,
    span: Span,
    on_step: Callable[[Step], None],
    kept: Kept | None,
    point: Point | None,
    level: float,
) -> Tensor:
    """Denoise latent frames span.start .. span.stop - 1; returns them all, known ones included.

    `common` is what all frames' noise has in common, in this window and in every other. At a `point` inside the window
    nothing is drawn anew. Beside known frames drawing starts from these at noise `level`, where that is below 1.
    """
    device, shape = sampler.backbone.device, (1, latents.shape[0], span.stop - span.start, *latents.shape[1:])
    known = _known(sampler, latents, span, kept)
    steps, carries = stage.rows, start is None and known is not None and kept is None and level < 1
    if carries:
        steps = _rows_from(steps, level)

    def begin() -> Tensor:
        """What denoising starts from; nothing else of it stays in memory."""
        noise = _noise(sampler, span, latents.shape, common).to(device)
        if carries and known is not None:
            return noised(carried(known), noise, steps[0])
        return noise if start is None else noised(start.read(span.start, span.stop).to(device), noise, steps[0])

    solver = SOLVERS[stage.solver]
    denoiser = _denoiser(sampler, stage, known, span, start, in_part=kept is not None)
    draws = _draws(sampler, torch.zeros((), device=device).expand(shape))
    rows = rows_for(solver, steps)
    if point is None or "x" not in point.tensors:  # called by its own name: a `partial` would keep what it begins with
        return sample(denoiser, rows, begin(), solver, draws, on_step)
    sampler.generator.set_state(point.tensors["generator"])
    x, state = point.tensors["x"].to(device), state_from_tensors(point.tensors, device)
    return sample(denoiser, rows, x, solver, draws, on_step, state, point.mark.done)


def _window_of(latents: LatentFile, span: Span, window: Window, device: torch.device) -> Tensor:
    """The latents of a window in space; only its rows are read."""
    rows = (window.h.start, window.h.stop)
    return latents.read(span.start, span.stop, rows)[..., window.w].to(device)


def carried(known: Known) -> Tensor:
    """Latents (b, c, t, h, w) that go on as what is known around them is: a cross-fade from one side to the other."""
    at = (known.mask.amax(dim=(0, 1, 3, 4)) > 0).nonzero()[:, 0].tolist()
    latents = torch.empty_like(known.latents)
    for frame in range(latents.shape[2]):
        before = max((each for each in at if each <= frame), default=at[0])
        behind = min((each for each in at if each >= frame), default=at[-1])
        share = min(max((frame - before) / max(behind - before, 1), 0.0), 1.0)
        latents[:, :, frame] = torch.lerp(known.latents[:, :, before], known.latents[:, :, behind], share)
    return latents


def _noise(sampler: Sampler, span: Span, shape: tuple[int, int, int], common: Tensor | None) -> Tensor:
    """The noise that a window starts from, (1, c, t, h, w) float32, drawn as the family's reference draws it.

    Networks that see known frames clean need none there; others do, so that pinned frames are as noisy as the rest.
    """
    channels, rows, columns = shape
    if common is None:
        return _draws(sampler, torch.empty(1, channels, span.stop - span.start, rows, columns))()
    fresh = mixed_noise((1, channels, span.new, rows, columns), sampler.flow.shared_noise, sampler.generator, common)
    before, behind = span.first - span.start, span.stop - span.last
    return F.pad(fresh, (0, 0, 0, 0, before, behind)) if before or behind else fresh


def _draws(sampler: Sampler, like: Tensor) -> Callable[[], Tensor]:
    flow = sampler.flow
    dtype = sampler.backbone.dtype if flow.narrow_noise else torch.float32
    return normal_draws(sampler.generator, like, flow.noise_layout, dtype)


def _known(sampler: Sampler, latents: LatentFile, span: Span, kept: Kept | None) -> Known | None:
    """What a window knows: all but what it makes, and what is kept there."""
    if span.new == span.stop - span.start and kept is None:
        return None
    device = sampler.backbone.device
    there = latents.read(span.start, span.stop).to(device)
    mask = torch.ones_like(there[:, :1])
    made = slice(span.first - span.start, span.last - span.start)
    mask[:, :, made] = 0.0
    if kept is not None:
        there[:, :, made] = kept.latents.read(span.first, span.last).to(device)
        mask[:, :, made] = 1 - kept.inside.to(device)
    return Known(there.mul_(mask), mask, sampler.known_mode)


def _denoiser(
    sampler: Sampler, stage: Stage, known: Known | None, span: Span, start: LatentFile | None, *, in_part: bool
) -> Denoiser:
    """The network with its words and positions, guided, in windows, with what is known kept, and shown where frames are
    drawn `in_part`.

    Known frames hold guidance back, but not where drawing starts from a clip that the words are to change. What of an
    enlarged picture is smooth stays as it is.
    """
    frames = span.stop - span.start
    most = stage.guidance if known is None or start is not None else sampler.flow.known_guidance
    guidance = min(stage.guidance, most)
    camera = None if sampler.camera is None else sampler.camera.read(span.start, span.stop)
    figures = tuple(
        Figure(member.text, Pose.of(member.poses.read(span.start, span.stop).to(sampler.backbone.device)))
        for member in sampler.cast
    )

    def within(window: Window) -> Denoiser:
        if stage.smooth and start is not None:
            there = partial(_window_of, start, span, window, sampler.backbone.device)
            if sampler.backbone.detail(there()) < stage.smooth:
                return settled(there)
        part = known.crop(window) if known else None
        reliance = Reliance(sampler.reliance, sampler.flow.persistence)
        shown = part if in_part and sampler.known_mode == "native" else None
        place = Place(stage.level, window, span, sampler.fps, figures, reliance, shown, camera)

        def told(text: Text) -> Denoiser:
            return from_network(sampler.backbone.bind(text, place, sampler.condition), stage.prediction, part)

        return guided(told(sampler.words.prompt), told(sampler.words.negative), guidance)

    parts = plan_windows(stage.level, frames, sampler.grid, sampler.flow)
    inner = within(parts[0]) if len(parts) == 1 else windowed(within, parts, blend_weights(parts))
    return pinned(inner, known)


@torch.no_grad()
def find_poses(sampler: Sampler, level: Level, latents: LatentFile, poses: LatentFile) -> None:
    """Where the figure stands in each frame of a finished draft, on a steady course.

    The network is shown the draft a little noisy, as it is used to, always with the same noise.
    """
    assert isinstance(sampler.backbone, DioramaBackbone)  # only diorama is drafted small
    for start in range(0, latents.frames, sampler.flow.window):
        stop = min(start + sampler.flow.window, latents.frames)
        x0, timesteps = latents.read(start, stop), torch.full((1, stop - start), SEEN_AT)
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(start))
        x = torch.lerp(x0, noise, SEEN_AT).to(sampler.backbone.device)
        span = Span(start, stop, start, stop)
        camera = None if sampler.camera is None else sampler.camera.read(start, stop)
        words = words_at(sampler, span, latents.frames)
        place = Place(level, WHOLE_PICTURE, span, sampler.fps, camera=camera)
        pose = sampler.backbone.pose(x, timesteps.to(x.device), words.prompt, place)
        poses.write(start, pose.numbers())
    steady(sampler, poses, torch.ones(poses.frames))


def steady(sampler: Sampler, poses: LatentFile, doubt: Tensor) -> None:
    """Put poses on a steady course; each is believed by 1 / its `doubt`, (latent frames,)."""
    done = list[tuple[int, Tensor]]()
    for start in range(0, poses.frames, STEADIED):
        first, last = max(0, start - MARGIN), min(start + STEADIED + MARGIN, poses.frames)
        seconds = seconds_of(first, last - first, sampler.fps, sampler.grid.time)[None]
        rate = torch.tensor([sampler.fps / sampler.grid.time])
        pose = steadied(Pose.of(poses.read(first, last)), seconds, rate, doubt[None, first:last])
        done.append((start, pose.numbers()[:, :, start - first : start - first + STEADIED]))
    for start, numbers in done:  # only now: each is steadied with its neighbours as they were
        poses.write(start, numbers)


@torch.no_grad()
def enlarge(vae: PatchVAE, latents: LatentFile, level: Level, target: LatentFile) -> None:
    """Decode latents, enlarge the frames (bicubic) to `level` and encode them into `target`, step by step in time."""
    device = vae.mean.device
    for index, group in enumerate(decode_groups(vae, latents, ENLARGE_TILE)):
        frames = F.interpolate(group.to(device), (level.height, level.width), mode="bicubic", antialias=True)
        del group
        if index == 0:
            frames = frames.expand(TIME, -1, -1, -1)
        target.write(index, vae.encode_group(rearrange(frames, "T c h w -> 1 c T h w")))
        del frames  # before the next ones are made


def preview(vae: Autoencoder, x0: Tensor, side: int, scratch: Path) -> Tensor:
    """The last frame that the middle of x0 (1, c, t, h, w) decodes to, (3, H, W) in [-1, 1]."""
    (frame,) = decode_frames(vae, [x0[:, :, x0.shape[2] // 2]], 1, side, scratch)
    return frame[0]
