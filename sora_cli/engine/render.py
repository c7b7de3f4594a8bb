"""A request becomes a file. Importing this module is cheap: torch comes once the job's folder is there."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import sora_cli
from sora_cli.engine.canvas import Canvas, Level
from sora_cli.engine.job import Job, LatentFile, open_job
from sora_cli.engine.work import Work, notes_of, plan, prepare
from sora_cli.media.writer import check_output
from sora_cli.request import Request, record
from sora_cli.result import ModelInfo, Output, Progress, Result
from sora_cli.settings import folders

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from sora_cli.engine.backbones import Condition
    from sora_cli.engine.boards import Given
    from sora_cli.engine.devices import Precision
    from sora_cli.engine.footage import Source
    from sora_cli.engine.networks import Autoencoder
    from sora_cli.engine.pipeline import Kept, Sampler, Stage
    from sora_cli.engine.sample import Step

PREVIEW_SECONDS = 1.0  # at most one preview in so many
__all__ = ["plan", "render"]


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
    sources: "list[Source]"
    clock: Clock


def render(
    request: Request, *, output: Path, force: bool, embed_metadata: bool, preview: Path | None, progress: Progress
) -> Result:
    """Make the video or image that `request` describes and write it to `output`, whole or not at all.

    Raises SoraError (device_unavailable, memory_too_small, those of sources and writer) and WeightsError (bad_weights).
    """
    work = prepare(request)
    check_output(output, frames=work.film.frames, force=force, make_folder=True)
    notes = notes_of(work)
    for note in notes:
        progress.note(note)
    with open_job(request) as job, ExitStack() as opened:
        studio = _studio(work, job, Clock(progress), opened)
        latents = _all_latents(studio, preview)
        written = _write(studio, latents, Delivery(output, force, embed_metadata, preview))
        for note in written.notes:
            progress.note(note)
        return _result(studio, written, (*notes, *written.notes))


def _studio(work: Work, job: Job, clock: Clock, opened: ExitStack) -> Studio:
    with clock.stage("load"):
        from sora_cli.engine.devices import choose_device, choose_precision
        from sora_cli.engine.footage import open_sources
        from sora_cli.engine.networks import check_parts, load_vae

        device = choose_device(work.request.device)
        precision = choose_precision(work.request.dtype, device, work.model)
        check_parts(work.model)
        sources = open_sources(work.request, opened)
        return Studio(work, job, device, precision, load_vae(work.model, device, precision), sources, clock)


def _all_latents(studio: Studio, preview: Path | None) -> list[LatentFile]:
    """The latents of every board at its last level, in the job's folder."""
    boards = range(len(studio.work.canvases))
    if all(all(studio.work.known(board)) for board in boards):
        return [_given(studio, board) for board in boards]
    sampler = _sampler(studio)
    return [_latents(studio, sampler, board, preview) for board in boards]


def _given(studio: Studio, board: int) -> LatentFile:
    """The latents of a board on which everything is given."""
    canvas = studio.work.canvases[board]
    given = studio.work.film.boards[board].given
    return _placed(studio, given, canvas, canvas.levels[-1], f"board{board}")


def _placed(studio: Studio, stretches: "Sequence[Given]", canvas: Canvas, level: Level, name: str) -> LatentFile:
    """Room for the latents of a canvas at one level, with stretches of sources already there."""
    from sora_cli.engine.footage import place

    shape = (studio.work.model.specs.vae.channels, *level.latents(canvas.grid))
    latents = studio.job.latents(name, canvas.latent_frames, shape)
    if stretches:
        with studio.clock.stage("encode"):
            place(studio.vae, stretches, studio.sources, canvas, level, latents)
    return latents


def _latents(studio: Studio, sampler: "Sampler", board: int, preview: Path | None) -> LatentFile:
    """Denoise the draft of a board and every level after it; the last level's latents."""
    from sora_cli.engine.pipeline import denoise_level

    work, job = studio.work, studio.job
    canvas, drawn, known = work.canvases[board], work.film.boards[board], work.known(board)
    latents: LatentFile | None = None
    for index, stage in enumerate(_stages(work, canvas, begun=bool(drawn.start))):
        if latents is not None:
            start: LatentFile | None = _enlarged(studio, latents, canvas, index, stage.level)
        elif drawn.start:
            start = _placed(studio, drawn.start, canvas, stage.level, f"board{board}-start")
        else:
            start = None
        latents = _placed(studio, drawn.given, canvas, stage.level, f"board{board}-level{index}")
        name = "draft" if index == 0 else f"refine {stage.level.width}x{stage.level.height}"
        kept = _kept(studio, canvas, stage.level, board)
        with studio.clock.stage(name, len(stage.rows) * work.windows(board)):
            denoise_level(sampler, stage, latents, start, _reporter(studio, preview), known, kept)
        if start is not None:
            job.drop(start)
    assert latents is not None
    return latents


def _kept(studio: Studio, canvas: Canvas, level: Level, board: int) -> "Kept | None":
    """What stays as it is at a level, where a mask says so."""
    request = studio.work.request
    if request.mask is None:
        return None
    from sora_cli.engine.footage import mask_latents
    from sora_cli.engine.pipeline import Kept
    from sora_cli.media.picture import read_mask

    own = _placed(studio, studio.work.film.boards[board].start, canvas, level, "kept")
    inside = read_mask(Path(request.mask), request.width, request.height)
    return Kept(own, mask_latents(inside, canvas, level))


def _stages(work: Work, canvas: Canvas, *, begun: bool) -> "tuple[Stage, ...]":
    """How the levels of a canvas are denoised; `begun` where drawing starts from frames that are there."""
    from sora_cli.engine.pipeline import scheduler_of, stages

    strength = work.request.strength if begun and work.request.strength is not None else 1.0
    scheduler = scheduler_of(work.model, work.flow)
    return stages(canvas, work.flow, scheduler, work.request.steps, work.guidance, strength)


def _enlarged(studio: Studio, before: LatentFile, canvas: Canvas, index: int, level: Level) -> LatentFile:
    """The latents of the level before at the size of this one; the old ones are dropped."""
    from sora_cli.engine.pipeline import enlarge
    from sora_cli.model.vae.patch import PatchVAE

    shape = (before.shape[0], *level.latents(canvas.grid))
    start = studio.job.latents(f"start{index}", before.frames, shape)
    assert isinstance(studio.vae, PatchVAE)  # only diorama is drafted small
    with studio.clock.stage("enlarge"):
        enlarge(studio.vae, before, level, start)
    studio.job.drop(before)
    return start


def _sampler(studio: Studio) -> "Sampler":
    import torch

    from sora_cli.engine.networks import load_backbone
    from sora_cli.engine.pipeline import Sampler, encode_words

    work, device, precision = studio.work, studio.device, studio.precision
    request = work.request
    with studio.clock.stage("text"):
        encode = partial(encode_words, work.model, cache=folders()["cache"], device=device, precision=precision)
        words = encode(request.prompt, request.negative)
        towards = None if request.prompt_b is None else encode(request.prompt_b, request.negative)
    generator = torch.Generator().manual_seed(request.seed)
    condition = _condition(studio, generator)
    with studio.clock.stage("load"):
        backbone = load_backbone(work.model, device, precision)
    mode: Literal["native", "pin"] = "native" if work.model.knows == "native" else "pin"
    fps = float(request.fps)
    return Sampler(backbone, words, work.model.grid, fps, work.flow, generator, condition, mode, towards)


def _condition(studio: Studio, generator: "torch.Generator") -> "Condition | None":
    """What the network is shown of the known pictures, where there are any."""
    work = studio.work
    if work.request.image is None or work.model.knows != "channels":
        return None
    from sora_cli.engine.conditions import conditions

    with studio.clock.stage("pictures"):
        pictures = {0: _picture(work, work.request.image)}
        if work.request.last is not None:
            pictures[work.request.frames - 1] = _picture(work, work.request.last)
        features = _features(studio, list(pictures.values()))
        return conditions(studio.vae, pictures, work.canvases[0], features, generator)


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


@dataclass(frozen=True, slots=True)
class Written:
    """A finished output, the writer's notes, and what was measured on its frames."""

    output: Output
    notes: tuple[str, ...]
    metrics: dict[str, Any]


def _write(studio: Studio, latents: "list[LatentFile]", delivery: Delivery) -> Written:
    """Decode frame by frame into the file, between the frames that the sources give."""
    from sora_cli.engine.deliver import Measures, open_film_writer, write_film

    work = studio.work
    about = json.dumps(record(work.request, work.model.digest(), sora_cli.__version__), ensure_ascii=False)
    metadata = about if delivery.embed_metadata else None
    measures = Measures.of(work)
    with (
        studio.clock.stage("decode", work.film.frames),
        open_film_writer(work, delivery.output, metadata=metadata, force=delivery.force) as writer,
    ):
        decoded = [_frames(studio, board, latents[board]) for board in range(len(latents))]
        write_film(work, studio.sources, decoded, writer, measures, studio.clock.progress.step)
    assert writer.output is not None
    return Written(writer.output, tuple(writer.notes), measures.values())


def _frames(studio: Studio, board: int, latents: LatentFile) -> "Iterator[np.ndarray]":
    """All frames of a board's canvas as they are decoded."""
    from sora_cli.engine.decode import decode_frames, frames_of

    groups = decode_frames(studio.vae, latents, latents.frames, studio.work.memory.tile_side, studio.job.folder)
    return frames_of(groups, studio.work.canvases[board])


def _result(studio: Studio, written: Written, notes: tuple[str, ...]) -> Result:
    model = studio.work.model
    ran = {"device": studio.device, "dtype": str(studio.precision.denoiser).removeprefix("torch.")}
    return Result(
        outputs=(written.output,),
        model=ModelInfo(model.name, model.family, model.digest()),
        notes=notes,
        metrics={**ran, **written.metrics},
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
