"""One way to write frames to any format: checked before the work, streamed during it, whole after it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sora_cli.errors import SoraError
from sora_cli.media.formats import OutputPlan, check_limits, plan_output
from sora_cli.media.metadata import fits
from sora_cli.media.staging import Staging, staged
from sora_cli.result import Output

if TYPE_CHECKING:
    import numpy as np

_SLOWEST_TO_REDRAW = 50  # browsers show a GIF frame of less than 2/100 s for 10/100 s


class Encoder(Protocol):
    """What each format does with frames, uint8 (H, W, 3) RGB."""

    def write(self, frame: "np.ndarray") -> None:
        """Takes the next frame."""

    def finish(self) -> None:
        """Completes and closes the file."""

    def abort(self) -> None:
        """Closes the file as it is."""


class FrameWriter:
    """Takes the frames of one output, one at a time; `output` is there after the `with` block."""

    def __init__(self, encoder: Encoder, plan: OutputPlan, width: int, height: int, notes: list[str]) -> None:
        self.notes = notes
        self.output: Output | None = None
        self._encoder = encoder
        self._plan = plan
        self._shape = (height, width, 3)
        self._count = 0

    def write(self, frame: "np.ndarray") -> None:
        """Encodes one frame, uint8 (H, W, 3) RGB; the array may be reused afterwards.

        Raises SoraError internal for another shape or type or one frame too many, and OSError from the disk.
        """
        if frame.shape != self._shape or frame.dtype.name != "uint8":
            got = f"{frame.dtype.name} {tuple(frame.shape)}"
            raise SoraError("internal", f"{self._plan.path}: a frame is {got}, not uint8 {self._shape}")
        if self._count == self._plan.frames:
            raise SoraError("internal", f"{self._plan.path}: more than {self._plan.frames} frames came")
        self._encoder.write(frame)
        self._count += 1

    def close(self) -> None:
        """Completes the encoded file. Raises SoraError internal if frames are missing, and OSError."""
        if self._count != self._plan.frames:
            raise SoraError("internal", f"{self._plan.path}: {self._count} frames came, not {self._plan.frames}")
        self._encoder.finish()


def check_output(path: str | Path, *, frames: int, force: bool, make_folder: bool = False) -> OutputPlan:
    """Refuses before any work what could not be written after it.

    `make_folder` allows a missing folder for a single file too, as for a name chosen in a `/` path;
    sequences always may. Raises SoraError: unsupported_format, bad_usage, missing_folder, output_exists.
    """
    plan = plan_output(path, frames)
    _check_folder(plan, may_be_missing=make_folder or plan.kind == "frames")
    for file in plan.files():
        if file.is_dir():
            raise SoraError("bad_usage", f"{file}: is a folder", "choose another name")
        if not force and os.path.lexists(file):
            raise SoraError("output_exists", f"{file}: exists", "choose another name or use --force")
    return plan


@contextmanager
def open_writer(
    path: Path,
    *,
    width: int,
    height: int,
    fps: Fraction,
    frames: int,
    metadata: str | None,
    force: bool,
    make_folder: bool = False,
) -> Iterator[FrameWriter]:
    """A writer for exactly `frames` frames of `width` x `height` at `fps` frames a second.

    The file appears under its name, whole, when the block ends; if anything is raised, nothing is left.
    Raises SoraError as `check_output` and `FrameWriter` do, output_exists also for a file that appeared
    meanwhile, and OSError with its errno from the disk.
    """
    plan = check_output(path, frames=frames, force=force, make_folder=make_folder)
    check_limits(plan.format, width, height, fps)
    notes = _notes(plan, fps)
    if metadata is not None and not fits(metadata, plan.format):
        notes.append(f"the request is too long for the metadata of .{plan.format.name}: left out")
        metadata = None
    with staged(force=force) as staging:
        staging.make_folder(plan.folder)
        encoder, encoder_notes = _encoder(plan, staging, width, height, fps, metadata)
        writer = FrameWriter(encoder, plan, width, height, notes + encoder_notes)
        try:
            yield writer
            writer.close()
        except BaseException:
            with suppress(Exception):  # a full disk fails here once more; the first error is the one to tell
                encoder.abort()
            raise
        digest = staging.digest()
        staging.publish()
        writer.output = _output(plan, width, height, fps, digest)


def _check_folder(plan: OutputPlan, *, may_be_missing: bool) -> None:
    """Raises SoraError missing_folder or bad_usage unless files can be put into the plan's folder."""
    folder = plan.folder
    if not os.path.exists(folder) and not may_be_missing:
        raise SoraError("missing_folder", f"{folder}: no such folder", f"make it, for example mkdir -p {folder}")
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    if not os.path.isdir(folder):
        raise SoraError("bad_usage", f"{folder}: is a file, not a folder", "choose another --output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SoraError("bad_usage", f"{folder}: may not be written to", "choose another --output")


def _notes(plan: OutputPlan, fps: Fraction) -> list[str]:
    """What the user must know about this output before it is looked at."""
    notes = []
    if plan.kind == "frames" and os.path.lexists(plan.file(plan.frames)):
        notes.append(f"{plan.file(plan.frames)} and what follows it are of an earlier sequence")
    if plan.format.name == "gif" and plan.kind == "video" and fps > _SLOWEST_TO_REDRAW:
        notes.append(f"{fps} frames a second: browsers play a .gif above {_SLOWEST_TO_REDRAW} too slowly")
    return notes


def _encoder(
    plan: OutputPlan, staging: Staging, width: int, height: int, fps: Fraction, metadata: str | None
) -> tuple[Encoder, list[str]]:
    """The encoder of the plan's format on fresh part files, and its notes."""
    name = plan.format.name
    if plan.kind != "video" and name != "gif":
        from sora_cli.media.stills import StillEncoder

        return StillEncoder(lambda index: staging.part(plan.file(index)), name, metadata), []
    part = staging.part(plan.path)
    if name == "gif":
        from sora_cli.media.gif import GifEncoder

        spool, plain = (staging.scratch(plan.path, scratch) for scratch in ("spool", "plain"))
        size = {"width": width, "height": height, "frames": plan.frames}
        return GifEncoder(part, spool, plain, **size, fps=fps, metadata=metadata), []
    if name == "webp":
        from sora_cli.media.webp import WebpEncoder

        return WebpEncoder(part, width=width, height=height, fps=fps, metadata=metadata), []
    from sora_cli.media.video import VideoEncoder, recipe_for

    recipe, notes = recipe_for(name, width, height)
    return VideoEncoder(part, recipe, width=width, height=height, fps=fps, metadata=metadata), notes


def _output(plan: OutputPlan, width: int, height: int, fps: Fraction, digest: str) -> Output:
    still = plan.kind == "image"
    return Output(
        path=str(plan.path),
        kind=plan.kind,
        width=width,
        height=height,
        frames=plan.frames,
        fps=None if still else fps,
        seconds=None if still else float(plan.frames / fps),
        sha256=digest,
    )
