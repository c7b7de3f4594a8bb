"""What an earlier run of the same work has left here: results that are whole, and jobs that were stopped."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sora_cli.errors import SoraError
from sora_cli.media.formats import is_pattern, numbered
from sora_cli.naming import place_of
from sora_cli.request import Request
from sora_cli.result import Progress

if TYPE_CHECKING:
    from sora_cli.engine.job import Job


@dataclass(frozen=True, slots=True)
class Piece:
    """One of the results of a command: its request, its path, and the job on the way there that was stopped, if any."""

    request: Request
    path: Path
    stopped: "Job | None" = None


def pieces_of(request: Request, paths: Sequence[Path]) -> list[Piece]:
    """The results that are asked for, with seeds that follow one another."""
    return [Piece(replace(request, seed=request.seed + k), path) for k, path in enumerate(paths)]


def as_begun(request: Request, paths: Sequence[Path]) -> Request:
    """The request with the seed that was drawn for it when its work was stopped, else as it is."""
    for k, path in enumerate(paths):
        begun = stopped_job(request, path, any_seed=True)
        if begun is not None:
            return replace(request, seed=max(0, begun.request.seed - k))
    return request


def left_of(pieces: Sequence[Piece], progress: Progress, *, force: bool) -> list[Piece]:
    """What an earlier run has not made, with the jobs that it was stopped in; what is forced is made again.

    Raises SoraError("output_exists") where nothing is left.
    """
    left = []
    for piece in pieces:
        stopped = stopped_job(piece.request, piece.path)
        if stopped is not None:
            progress.note(f"{piece.path}: it goes on where it was stopped")
        elif not force and is_made(piece.path):
            progress.note(f"{piece.path}: it is there already")
            continue
        left.append(replace(piece, stopped=stopped))
    if not left:
        raise SoraError("output_exists", str(pieces[0].path), "it is there already")
    return left


def is_made(path: Path) -> bool:
    """Whether a result is there; of a numbered sequence some files may be while others still wait for their names."""
    if not is_pattern(path):
        return os.path.lexists(path)
    return os.path.lexists(numbered(path, 0)) and not _stopped_at(path)


def stopped_job(request: Request, path: Path, *, any_seed: bool = False) -> "Job | None":
    """The last job that was stopped on the way from this request to this result, if it can go on."""
    for job in reversed(_stopped_at(path)):
        with suppress(SoraError, OSError):
            left = replace(job.request, seed=request.seed) if any_seed else job.request
            if left == request and job.started_in == os.getcwd():
                job.check()
                return job
    return None


def _stopped_at(path: Path) -> "list[Job]":
    """The jobs that were stopped on the way to this result, the last one last."""
    from sora_cli.engine.job import stopped_jobs

    found = []
    for job in stopped_jobs():
        with suppress(SoraError):
            if place_of(Path(job.delivery.output)) == place_of(path):
                found.append(job)
    return found
