"""A request becomes a file. Importing this module is cheap: torch comes once the job's folder is there."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sora_cli
from sora_cli.engine.canvas import Canvas, Level, lay_out
from sora_cli.engine.job import Job, LatentFile, open_job
from sora_cli.engine.memory import MemoryPlan, footprint_of, plan_memory
from sora_cli.engine.reel import spans
from sora_cli.engine.vocabulary import count_tokens, unknown_words
from sora_cli.errors import SoraError
from sora_cli.media.writer import FrameWriter, check_output, open_writer
from sora_cli.request import Request, record
from sora_cli.result import ModelInfo, Progress, Result
from sora_cli.settings import folders
from sora_weights.families import FAMILIES
from sora_weights.registry import check_sums, find_model
from sora_weights.spec import CogVideoXSpec, Model, WanSpec

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from sora_cli.engine.backbones import Condition
    from sora_cli.engine.devices import Precision
    from sora_cli.engine.networks import Autoencoder
    from sora_cli.engine.pipeline import Sampler
    from sora_cli.engine.sample import Step

PREVIEW_SECONDS = 1.0  # at most one preview in so many
LARGER_MODELS = "larger open models such as Wan 2.1 and CogVideoX know far more words"


@dataclass(slots=True)
class Clock:
    """Seconds by stage, told to the user as they begin."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """Time a stage of `total` steps."""
        self.progress.stage(name, total)
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class Work:
    """A request with everything that follows from it before any tensor is made."""

    request: Request
    model: Model
    canvas: Canvas
    memory: MemoryPlan

    @property
    def windows(self) -> int:
        """Windows in time at every level."""
        flow = FAMILIES[self.model.family].flow
        return len(spans(self.canvas.latent_frames, flow.window, flow.context))

    @property
    def guidance(self) -> float:
        """How far guidance goes; 1 is none, and published models know nothing below it."""
        asked = self.request.guidance
        return asked if self.model.scheduler is None else max(asked, 1.0)


def prepare(request: Request) -> Work:
    """Lay out the canvas and plan the memory.

    Raises SoraError("memory_too_small"), and WeightsError("bad_weights") for files that are not what was recorded.
    """
    model = find_model(request.model)
    check_sums(model)
    _check_pictures(request, model)
    flow = FAMILIES[model.family].flow
    canvas = lay_out(request.width, request.height, request.frames, model.grid, flow.native_area)
    return Work(request, model, canvas, plan_memory(canvas, flow, footprint_of(model), request.memory))


def _check_pictures(request: Request, model: Model) -> None:
    """Raise SoraError("bad_usage") unless the model can do with as many pictures as there are."""
    shown = model.knows == "channels"
    if shown and request.image is None:
        raise SoraError("bad_usage", f"--model {request.model}", "it brings pictures to life: use sora img2vid")
    if not shown and request.image is not None:
        raise SoraError("not_available", f"--model {request.model}", "it takes no picture in this version")
    if request.last is not None and not takes_last(model):
        raise SoraError("bad_usage", f"--last with {model.name}", "this model takes one picture, the first")
    learned = isinstance(model.specs.dit, CogVideoXSpec) and model.specs.dit.learned
    if learned and (request.width, request.height) != (model.defaults.width, model.defaults.height):
        sizes = f"{model.defaults.width}x{model.defaults.height}"
        raise SoraError("bad_usage", f"--size {request.width}x{request.height}", f"this model draws {sizes} alone")


def takes_last(model: Model) -> bool:
    """Whether the model was trained on a first and a last picture."""
    return isinstance(model.specs.dit, WanSpec) and model.specs.dit.image_tokens is not None


def plan(request: Request) -> dict[str, Any]:
    """What `--dry-run` tells: levels, latents, windows, steps, bytes of memory and disk. Nothing is sampled."""
    work = prepare(request)
    flow = FAMILIES[work.model.family].flow
    levels = [
        {
            "width": level.width,
            "height": level.height,
            "latents": [work.canvas.latent_frames, *level.latents(work.canvas.grid)],
            "windows": work.windows,
            "steps": (request.steps if index == 0 else flow.refine_steps) * work.windows,
        }
        for index, level in enumerate(work.canvas.levels)
    ]
    memory = {
        "peak_bytes": work.memory.peak,
        "disk_bytes": work.memory.disk,
        "tile": work.memory.tile_side * work.canvas.grid.space,
    }
    return {"model": work.model.name, "levels": levels, "memory": memory}


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where the result goes and how it is written; a preview of the work in progress, if one is wanted."""

    output: Path
    force: bool
    embed_metadata: bool
    preview: Path | None


@dataclass(frozen=True, slots=True)
class Studio:
    """The work on one machine: its folder, device ("cpu", "cuda", "mps") and precision, and the autoencoder, loaded."""

    work: Work
    job: Job
    device: str
    precision: "Precision"
    vae: "Autoencoder"
    clock: Clock


def render(
    request: Request, *, output: Path, force: bool, embed_metadata: bool, preview: Path | None, progress: Progress
) -> Result:
    """Make the video or image that `request` describes and write it to `output`, whole or not at all.

    Raises SoraError (device_unavailable, memory_too_small, those of the writer) and WeightsError (bad_weights).
    """
    check_output(output, frames=request.frames, force=force, make_folder=True)
    work = prepare(request)
    notes = _notes(work)
    for note in notes:
        progress.note(note)
    with open_job(request) as job:
        studio = _studio(work, job, Clock(progress))
        writer = _write(studio, _latents(studio, preview), Delivery(output, force, embed_metadata, preview))
        for note in writer.notes:
            progress.note(note)
        return _result(studio, writer, (*notes, *writer.notes))


def _notes(work: Work) -> tuple[str, ...]:
    """What the user must know of a prompt: words that the model was never taught, and what does not fit."""
    model, request = work.model, work.request
    notes = []
    if unknown := ", ".join(unknown_words(request.prompt, model.vocabulary)):
        notes.append(f"{model.name} was never taught: {unknown}; this is its best guess, {LARGER_MODELS}")
    for name, text in (("prompt", request.prompt), ("--negative", request.negative)):
        tokens, most = count_tokens(model, text), model.specs.text.tokens
        if tokens > most:
            notes.append(f"{name}: {model.name} reads {most} tokens; the last {tokens - most} of {tokens} are cut")
    return tuple(notes)


def _studio(work: Work, job: Job, clock: Clock) -> Studio:
    with clock.stage("load"):
        from sora_cli.engine.devices import choose_device, choose_precision
        from sora_cli.engine.networks import check_parts, load_vae

        device = choose_device(work.request.device)
        precision = choose_precision(work.request.dtype, device, work.model)
        check_parts(work.model)
        return Studio(work, job, device, precision, load_vae(work.model, device, precision), clock)


def _latents(studio: Studio, preview: Path | None) -> LatentFile:
    """Denoise the draft and every level after it; the last level's latents, in the job's folder."""
    from sora_cli.engine.pipeline import denoise_level, scheduler_of, stages

    work, job = studio.work, studio.job
    scheduler = scheduler_of(work.model, FAMILIES[work.model.family].flow)
    sampler, request = _sampler(studio), work.request
    latents: LatentFile | None = None
    for index, stage in enumerate(stages(work.canvas, sampler.flow, scheduler, request.steps, work.guidance)):
        shape = (work.model.specs.vae.channels, *stage.level.latents(work.canvas.grid))
        start = None if latents is None else _enlarged(studio, latents, index, stage.level)
        latents = job.latents(f"level{index}", work.canvas.latent_frames, shape)
        name = "draft" if index == 0 else f"refine {stage.level.width}x{stage.level.height}"
        with studio.clock.stage(name, len(stage.rows) * work.windows):
            denoise_level(sampler, stage, latents, start, _reporter(studio, preview))
        job.drop(f"start{index}")
    assert latents is not None
    return latents


def _enlarged(studio: Studio, before: LatentFile, index: int, level: Level) -> LatentFile:
    """The latents of the level before at the size of this one; the old ones are dropped."""
    from sora_cli.engine.pipeline import enlarge
    from sora_cli.model.vae.patch import PatchVAE

    start = studio.job.latents(
        f"start{index}", before.frames, (before.shape[0], *level.latents(studio.work.canvas.grid))
    )
    assert isinstance(studio.vae, PatchVAE)  # only diorama is drafted small
    with studio.clock.stage("enlarge"):
        enlarge(studio.vae, before, level, start)
    studio.job.drop(f"level{index - 1}")
    return start


def _sampler(studio: Studio) -> "Sampler":
    import torch

    from sora_cli.engine.networks import load_backbone
    from sora_cli.engine.pipeline import Sampler, encode_words

    work, device, precision = studio.work, studio.device, studio.precision
    request = work.request
    with studio.clock.stage("text"):
        cache = folders()["cache"]
        words = encode_words(work.model, request.prompt, request.negative, cache, device, precision)
    generator = torch.Generator().manual_seed(request.seed)
    condition = _condition(studio, generator)
    with studio.clock.stage("load"):
        backbone = load_backbone(work.model, device, precision)
    flow = FAMILIES[work.model.family].flow
    return Sampler(backbone, words, work.canvas, float(request.fps), flow, generator, condition)


def _condition(studio: Studio, generator: "torch.Generator") -> "Condition | None":
    """What the network is shown of the known pictures, where there are any."""
    work = studio.work
    if work.request.image is None:
        return None
    from sora_cli.engine.conditions import conditions

    with studio.clock.stage("pictures"):
        pictures = {0: _picture(work, work.request.image)}
        if work.request.last is not None:
            pictures[work.request.frames - 1] = _picture(work, work.request.last)
        features = _features(studio, list(pictures.values()))
        return conditions(studio.vae, pictures, work.canvas, features, generator)


def _picture(work: Work, path: str) -> "Image":
    from sora_cli.media.picture import read_picture

    return read_picture(Path(path), work.request.width, work.request.height)


def _features(studio: Studio, pictures: "list[Image]") -> "Tensor | None":
    """What the model's picture encoder makes of the pictures, one after the other; None where it has none."""
    if "image" not in studio.work.model.parts:
        return None
    import torch

    from sora_cli.engine.networks import load_picture_encoder

    encode = load_picture_encoder(studio.work.model, studio.device, studio.precision)
    return torch.cat([encode(picture) for picture in pictures], 1)


def _reporter(studio: Studio, path: Path | None) -> "Callable[[int, Step], None]":
    from sora_cli.engine.pipeline import preview

    shown = 0.0

    def on_step(done: int, step: "Step") -> None:
        nonlocal shown
        studio.clock.progress.step(done)
        if path is not None and time.monotonic() - shown >= PREVIEW_SECONDS:
            _save_preview(preview(studio.vae, step.x0, studio.work.memory.tile_side, studio.job.folder), path)
            shown = time.monotonic()

    return on_step


def _save_preview(frame: "Tensor", path: Path) -> None:
    from PIL import Image

    part = path.with_name(f".{path.name}.part")
    picture = ((frame + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    try:
        Image.fromarray(picture).save(part, format="PNG")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write(studio: Studio, latents: LatentFile, delivery: Delivery) -> FrameWriter:
    """Decode frame by frame into the file; the writer, which knows what was written."""
    from sora_cli.engine.decode import decode_frames, frames_of

    work, request = studio.work, studio.work.request
    about = json.dumps(record(request, work.model.digest(), sora_cli.__version__), ensure_ascii=False)
    with (
        studio.clock.stage("decode", request.frames),
        open_writer(
            delivery.output,
            width=request.width,
            height=request.height,
            fps=request.fps,
            frames=request.frames,
            metadata=about if delivery.embed_metadata else None,
            force=delivery.force,
            make_folder=True,
        ) as writer,
    ):
        groups = decode_frames(studio.vae, latents, latents.frames, work.memory.tile_side, studio.job.folder)
        for index, frame in enumerate(frames_of(groups, work.canvas), 1):
            writer.write(frame)
            studio.clock.progress.step(index)
    return writer


def _result(studio: Studio, writer: FrameWriter, notes: tuple[str, ...]) -> Result:
    model = studio.work.model
    assert writer.output is not None
    return Result(
        outputs=(writer.output,),
        model=ModelInfo(model.name, model.family, model.digest()),
        notes=notes,
        metrics={"device": studio.device, "dtype": str(studio.precision.denoiser).removeprefix("torch.")},
        timings=studio.clock.seconds,
        peak={"rss_bytes": _peak_memory(), "device_bytes": _device_peak(studio.device)},
    )


def _peak_memory() -> int | None:
    """The largest resident set of this process so far, in bytes; None where the system doesn't tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _device_peak(device: str) -> int | None:
    import torch

    return torch.cuda.max_memory_allocated() if device == "cuda" else None
