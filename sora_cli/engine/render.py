"""A request becomes a file. Importing this module is cheap: torch comes once the job's folder is there."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sora_cli
from sora_cli.engine.clock import Clock
from sora_cli.engine.job import Delivery, Job, LatentFile, new_job
from sora_cli.engine.job import put_off as later
from sora_cli.engine.work import Work, notes_of, plan, prepare
from sora_cli.media.writer import check_output
from sora_cli.request import Request, record
from sora_cli.result import ModelInfo, Output, Progress, Result
from sora_weights.registry import find_model

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from sora_cli.engine.studio import Studio

__all__ = ["plan", "render"]


def render(
    request: Request, *, output: Path, force: bool, embed_metadata: bool, preview: Path | None, progress: Progress
) -> Result:
    """Make the video or image that `request` describes and write it to `output`, whole or not at all.

    Raises SoraError (device_unavailable, memory_too_small, those of sources and writer) and WeightsError (bad_weights).
    What a run that was stopped has done is kept, and the error says how to go on: `go_on`.
    """
    work = prepare(request, output, preview)
    check_output(output, frames=work.film.frames, force=force, make_folder=True)
    delivery = Delivery(output=str(output), force=force, embed_metadata=embed_metadata)
    with new_job(request, delivery) as job:
        return _finish(work, job, delivery, preview, progress)


def put_off(requests: Sequence[Request], outputs: Sequence[Path], *, force: bool, embed_metadata: bool) -> None:
    """Put down jobs that nobody has begun: `go_on` makes their results as `render` would have."""
    for request, output in zip(requests, outputs, strict=True):
        later(request, Delivery(output=str(output), force=force, embed_metadata=embed_metadata))


def go_on(job: Job, progress: Progress, output: Path | None = None, *, force: bool = False) -> Result:
    """Finish a job that was stopped: the frames are those that it would have made. The result goes to another `output`
    where one is named, and takes a file's place where one is to be `force`d.

    Raises what `render` raises, and SoraError("bad_input") where sources or weights are not what they were.
    """
    with job.held(new=False):
        job.check()
        job.sweep()
        if (there := job.delivered()) is not None:
            return _found(job, there, progress)
        asked = job.delivery
        delivery = replace(asked, output=str(output or asked.output), force=force or asked.force)
        path = Path(delivery.output)
        work = prepare(job.request, path, None)
        check_output(path, frames=work.film.frames, force=delivery.force, make_folder=True)
        return _finish(work, job, delivery, None, progress)


def _found(job: Job, output: Output, progress: Progress) -> Result:
    """The result of a job that was stopped when its output was there already."""
    note, model = f"{output.path} was there already, whole", find_model(job.request.model)
    progress.note(note)
    told = ModelInfo(model.name, model.family, model.digest())
    return Result((output,), told, (note,), {}, {}, {"rss_bytes": _peak_memory(), "device_bytes": None})


def _finish(work: Work, job: Job, delivery: Delivery, preview: Path | None, progress: Progress) -> Result:
    notes = notes_of(work)
    for note in notes:
        progress.note(note)
    from sora_cli.engine.draw import draw
    from sora_cli.engine.studio import open_studio

    with ExitStack() as opened:
        studio = open_studio(work, job, Clock(progress), preview, opened)
        written = _write(studio, [] if work.repaints else draw(studio), delivery)
        for note in written.notes:
            progress.note(note)
        return _result(studio, written, (*notes, *studio.notes, *written.notes))


@dataclass(frozen=True, slots=True)
class Written:
    """A finished output, the writer's notes, and what was measured on its frames."""

    output: Output
    notes: tuple[str, ...]
    metrics: dict[str, Any]


def _write(studio: "Studio", latents: list[LatentFile], delivery: Delivery) -> Written:
    """Decode frame by frame into the file, between the frames that the sources give."""
    from sora_cli.engine.deliver import Measures, open_film_writer, write_film

    work = studio.work
    about = json.dumps(record(work.asked, work.model.digest(), sora_cli.__version__), ensure_ascii=False)
    metadata = about if delivery.embed_metadata else None
    measures, notes, path = Measures.of(work), list[str](), Path(delivery.output)
    with (
        studio.clock.stage("decode", work.film.frames),
        open_film_writer(work, path, metadata=metadata, force=delivery.force, ledger=studio.job) as writer,
    ):
        if work.repaints:
            decoded = [_repainted(studio)]
        else:
            decoded = [_frames(studio, board, each, notes) for board, each in enumerate(latents)]
        write_film(work, studio.sources, decoded, writer, measures, studio.clock.progress.step, studio.job.folder)
    assert writer.output is not None
    return Written(writer.output, (*writer.notes, *notes), measures.values())


def _frames(studio: "Studio", board: int, latents: LatentFile, notes: list[str]) -> "Iterator[np.ndarray]":
    """All frames of a board's canvas as they are decoded, in the style that was asked for; a fallback is noted."""
    from sora_cli.engine.decode import decode_frames, frames_of, in_smaller_tiles, steadied
    from sora_cli.engine.retouching import retouched
    from sora_cli.engine.styles import in_style

    work = studio.work

    def decode(side: int) -> "Iterator[Tensor]":
        return decode_frames(studio.vae, latents, latents.frames, side, studio.job.folder)

    def tell(side: int) -> None:
        notes.append(
            f"memory ran out: decoded in tiles of {side * work.model.grid.space} pixels; --memory plans for it"
        )

    groups = in_smaller_tiles(decode, work.memory.tile_side, tell)
    if work.flow.steady and not all(work.known(board)):
        groups = retouched(studio, board, steadied(groups))  # not before: what moves sharply would be spread too
    frames = frames_of(groups, work.canvases[board])
    return frames if work.style is None else in_style(frames, work.style)


def _repainted(studio: "Studio") -> "Iterator[np.ndarray]":
    """The frames of the one clip of a job in the style that was asked for."""
    from sora_cli.engine.footage import given_frames
    from sora_cli.engine.styles import in_style

    work = studio.work
    assert work.style is not None
    (given,) = work.film.boards[0].given
    frames = islice(given_frames(studio.sources[given.source], given), work.film.frames)
    return in_style(frames, work.style)


def _result(studio: "Studio", written: Written, notes: tuple[str, ...]) -> Result:
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
    """The largest resident set of this process so far, in bytes; None where the system doesn't tell.

    Linux counts in ru_maxrss what the process that started this one held, so its own high-water mark is read there.
    """
    if mark := re.search(r"^VmHWM:\s*(\d+) kB$", _status(), re.MULTILINE):
        return int(mark[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status() -> str:
    try:
        return Path("/proc/self/status").read_text()
    except OSError:
        return ""


def _device_peak(device: str) -> int | None:
    import torch

    return torch.cuda.max_memory_allocated() if device == "cuda" else None
