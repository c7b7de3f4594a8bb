"""A request becomes a file. Importing this module is cheap: torch comes once the job's folder is there."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sora_cli
from sora_cli.engine.canvas import Canvas, Grid, lay_out
from sora_cli.engine.job import Job, open_job
from sora_cli.engine.memory import MemoryPlan, plan_memory
from sora_cli.engine.reel import spans
from sora_cli.engine.vocabulary import unknown_words
from sora_cli.media.writer import check_output, open_writer
from sora_cli.request import Request, record
from sora_cli.result import ModelInfo, Progress, Result
from sora_cli.settings import folders
from sora_weights.families import FAMILIES
from sora_weights.registry import find_model
from sora_weights.spec import Model

if TYPE_CHECKING:
    from torch import Tensor

    from sora_cli.engine.pipeline import Sampler
    from sora_cli.model.vae.patch import PatchVAE

GRID = Grid(space=8, patch=16, time=4)
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


def prepare(request: Request) -> Work:
    """Lay out the canvas and plan the memory. Raises SoraError("memory_too_small")."""
    model = find_model(request.model)
    flow = FAMILIES[model.family].flow
    canvas = lay_out(request.width, request.height, request.frames, GRID, flow.native_area)
    return Work(request, model, canvas, plan_memory(canvas, flow.window, flow.reach, request.memory))


def plan(request: Request) -> dict[str, Any]:
    """What `--dry-run` tells: levels, latents, windows, steps, bytes of memory and disk. Nothing is sampled."""
    work = prepare(request)
    flow = FAMILIES[work.model.family].flow
    levels = [
        {
            "width": level.width,
            "height": level.height,
            "latents": [work.canvas.latent_frames, *level.latents(GRID)],
            "windows": work.windows,
            "steps": (request.steps if index == 0 else flow.refine_steps) * work.windows,
        }
        for index, level in enumerate(work.canvas.levels)
    ]
    memory = {
        "peak_bytes": work.memory.peak,
        "disk_bytes": work.memory.disk,
        "tile": work.memory.tile_side * GRID.space,
    }
    return {"model": work.model.name, "levels": levels, "memory": memory}


def render(
    request: Request,
    *,
    output: Path,
    force: bool,
    embed_metadata: bool,
    preview: Path | None,
    progress: Progress,
) -> Result:
    """Make the video or image that `request` describes and write it to `output`, whole or not at all.

    Raises SoraError (device_unavailable, memory_too_small, those of the writer) and WeightsError (bad_weights).
    """
    check_output(output, frames=request.frames, force=force, make_folder=True)
    work, notes = prepare(request), []
    if unknown := unknown_words(request.prompt, work.model.vocabulary):
        words = ", ".join(unknown)
        notes.append(f"{work.model.name} was never taught: {words}; this is its best guess, {LARGER_MODELS}")
        progress.note(notes[0])
    clock = Clock(progress)
    with open_job(request) as job:
        return _render(work, job, output, force, embed_metadata, preview, clock, notes)


def _render(
    work: Work,
    job: Job,
    output: Path,
    force: bool,
    embed_metadata: bool,
    preview: Path | None,
    clock: Clock,
    notes: list[str],
) -> Result:
    with clock.stage("load"):
        import torch

        from sora_cli.engine.devices import choose_device, choose_dtype
        from sora_cli.engine.networks import load_vae

        device = choose_device(work.request.device)
        dtype = choose_dtype(work.request.dtype, device)
        vae = load_vae(work.model, device, dtype)
    latents = _latents(work, job, vae, device, dtype, preview, clock)
    metadata = json.dumps(_record(work), ensure_ascii=False) if embed_metadata else None
    request = work.request
    with (
        clock.stage("decode", request.frames),
        open_writer(
            output,
            width=request.width,
            height=request.height,
            fps=request.fps,
            frames=request.frames,
            metadata=metadata,
            force=force,
            make_folder=True,
        ) as writer,
    ):
        _write(vae, latents, work, writer, clock.progress)
    for note in writer.notes:
        clock.progress.note(note)
    assert writer.output is not None
    return Result(
        outputs=(writer.output,),
        model=ModelInfo(work.model.name, work.model.family, work.model.digest()),
        notes=(*notes, *writer.notes),
        metrics={"device": device, "dtype": str(dtype).removeprefix("torch.")},
        timings=clock.seconds,
        peak={"rss_bytes": _peak_memory(), "device_bytes": _device_peak(torch, device)},
    )


def _latents(
    work: Work, job: Job, vae: "PatchVAE", device: str, dtype: Any, preview: Path | None, clock: Clock
) -> "Tensor":
    """Denoise the draft and every level after it; the last level's latents, (1, c, t, h, w), in the job's folder."""
    from sora_cli.engine.pipeline import denoise_level, enlarge, stages

    sampler = _sampler(work, device, dtype, clock)
    flow, request = sampler.flow, work.request
    before: Tensor | None = None
    for index, stage in enumerate(stages(work.canvas, flow, request.steps, request.guidance)):
        shape = (1, work.model.specs.dit.channels, work.canvas.latent_frames, *stage.level.latents(GRID))
        latents = job.latents(f"level{index}", shape)
        start = None
        if before is not None:
            start = job.latents(f"start{index}", shape)
            with clock.stage("enlarge"):
                enlarge(vae, before, stage.level, start, work.memory.tile_side)
            job.drop(f"level{index - 1}")
        name = "draft" if index == 0 else f"refine {stage.level.width}x{stage.level.height}"
        with clock.stage(name, len(stage.rows) * work.windows):
            denoise_level(sampler, stage, latents, start, _reporter(vae, clock.progress, preview))
        job.drop(f"start{index}")
        before = latents
    assert before is not None
    return before


def _sampler(work: Work, device: str, dtype: Any, clock: Clock) -> "Sampler":
    import torch

    from sora_cli.engine.networks import load_denoiser
    from sora_cli.engine.pipeline import Sampler, encode_words

    request = work.request
    with clock.stage("text"):
        words = encode_words(work.model, request.prompt, request.negative, folders()["cache"])
    with clock.stage("load"):
        network = load_denoiser(work.model, device, dtype)
    generator = torch.Generator().manual_seed(request.seed)
    return Sampler(network, words, work.canvas, float(request.fps), FAMILIES[work.model.family].flow, generator)


def _reporter(vae: "PatchVAE", progress: Progress, preview: Path | None) -> Any:
    from sora_cli.engine.pipeline import previews

    def on_step(done: int, step: Any) -> None:
        progress.step(done)
        if preview is not None:
            _save_preview(next(previews(vae, step.x0)), preview)

    return on_step


def _save_preview(frames: "Tensor", path: Path) -> None:
    from PIL import Image

    part = path.with_name(f".{path.name}.part")
    picture = ((frames[-1] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(picture).save(part, format="PNG")
    part.replace(path)


def _write(vae: "PatchVAE", latents: "Tensor", work: Work, writer: Any, progress: Progress) -> None:
    from sora_cli.engine.decode import frames_of

    for index, frame in enumerate(frames_of(vae, latents, work.canvas, work.memory.tile_side), 1):
        writer.write(frame)
        progress.step(index)


def _record(work: Work) -> dict[str, Any]:
    return record(work.request, work.model.digest(), sora_cli.__version__)


def _peak_memory() -> int | None:
    """The largest resident set of this process so far, in bytes; None where the system doesn't tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _device_peak(torch: Any, device: str) -> int | None:
    return int(torch.cuda.max_memory_allocated()) if device == "cuda" else None
