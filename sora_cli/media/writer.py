"""One way to write frames to any format: checked before the work, streamed during it, whole after it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from sora_cli.errors import SoraError
from sora_cli.media.formats import OutputPlan, check_limits, plan_output
from sora_cli.media.metadata import fits
from sora_cli.media.staging import Ledger, Staging, staged
from sora_cli.result import Output

if TYPE_CHECKING:
    import numpy as np

_SLOWEST_TO_REDRAW = 50  # browsers show a GIF frame of less than 2/100 s for 10/100 s


class Size(NamedTuple):
    """Pixels of a frame."""

    width: int
    height: int


class Encoder(Protocol):
    """What each format does with frames, uint8 (H, W, 3) RGB."""

    def write(self, frame: "np.ndarray", at: Fraction) -> None:
        """Takes the next frame, which is shown at `at` seconds."""

    def finish(self) -> None:
        """Completes and closes the file."""

    def abort(self) -> None:
        """Closes the file as it is."""


class FrameWriter:
    """Takes the frames of one output, one at a time; `output` is there after the `with` block."""

    def __init__(self, encoder: Encoder, plan: OutputPlan, size: Size, fps: Fraction, notes: list[str]) -> None:
        self.notes = notes
        self.output: Output | None = None
        self._encoder = encoder
        self._plan = plan
        self._size = size
        self._fps = fps
        self._count = 0
        self._end = Fraction(0)

    def write(self, frame: "np.ndarray") -> None:
        """Encodes one frame, uint8 (H, W, 3) RGB; the array may be reused afterwards.

        Raises SoraError internal for another shape or type or one frame too many, and OSError from the disk.
        """
        self._check(frame)
        self._encoder.write(frame, self._take(self._end))

    def close(self) -> None:
        """Completes the encoded file. Raises SoraError internal if frames are missing, and OSError."""
        if self._count != self._plan.frames:
            raise SoraError("internal", f"{self._plan.path}: {self._count} frames came, not {self._plan.frames}")
        self._encoder.finish()

    def abort(self) -> None:
        """Lets go of the file as it is. Raises OSError where the disk is what failed."""
        self._encoder.abort()

    def publish(self, staging: Staging) -> None:
        """Gives the completed file its name, and tells about it in `output`. Raises as `Staging.publish`."""
        still = self._plan.kind == "image"
        output = Output(
            path=str(self._plan.path),
            kind=self._plan.kind,
            width=self._size.width,
            height=self._size.height,
            frames=self._plan.frames,
            fps=None if still else self._fps,
            seconds=None if still else float(self._end),
            sha256=staging.digest(),
        )
        staging.publish(output)
        self.output = output

    def _check(self, frame: "np.ndarray") -> None:
        shape = (self._size.height, self._size.width, 3)
        if frame.shape != shape or frame.dtype.name != "uint8":
            got = f"{frame.dtype.name} {tuple(frame.shape)}"
            raise SoraError("internal", f"{self._plan.path}: a frame is {got}, not uint8 {shape}")

    def _take(self, at: Fraction) -> Fraction:
        """Counts one frame, shown at `at` seconds for 1/fps. Raises SoraError internal for one too many."""
        if self._count == self._plan.frames:
            raise SoraError("internal", f"{self._plan.path}: more than {self._plan.frames} frames came")
        self._count += 1
        self._end = at + 1 / self._fps
        return at


W = TypeVar("W", bound=FrameWriter)


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
    ledger: Ledger | None = None,
) -> Iterator[FrameWriter]:
    """A writer for exactly `frames` frames of `width` x `height` at `fps` frames a second.

    The file appears under its name, whole, when the block ends; if anything is raised, nothing is left. A `ledger` is
    told where it is until then.
    Raises SoraError as `check_output` and `FrameWriter` do, output_exists also for a file that appeared
    meanwhile, and OSError with its errno from the disk.
    """
    plan = check_output(path, frames=frames, force=force, make_folder=make_folder)
    check_limits(plan.format, width, height, fps)
    metadata, notes = fitting(metadata, plan)
    size = Size(width, height)

    def begin(staging: Staging) -> FrameWriter:
        encoder, encoder_notes = _encoder(plan, staging, size, fps, metadata)
        return FrameWriter(encoder, plan, size, fps, notes_on(plan, fps) + notes + encoder_notes)

    with completed(plan, begin, force=force, ledger=ledger) as writer:
        yield writer


@contextmanager
def completed(
    plan: OutputPlan, begin: Callable[[Staging], W], *, force: bool, ledger: Ledger | None = None
) -> Iterator[W]:
    """The writer that `begin` makes on part files; whole and under their names after the block, or gone.

    Raises SoraError output_exists for a file that appeared meanwhile, and OSError from the disk.
    """
    with staged(force=force, ledger=ledger) as staging:
        staging.make_folder(plan.folder)
        writer = begin(staging)
        try:
            yield writer
            writer.close()
        except BaseException:
            with suppress(Exception):  # a full disk fails here once more; the first error is the one to tell
                writer.abort()
            raise
        writer.publish(staging)


def fitting(metadata: str | None, plan: OutputPlan) -> tuple[str | None, list[str]]:
    """`metadata`, or None and a note where the format can't hold it."""
    if metadata is None or fits(metadata, plan.format):
        return metadata, []
    return None, [f"the request is too long for the metadata of .{plan.format.name}: left out"]


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


def notes_on(plan: OutputPlan, fps: Fraction) -> list[str]:
    """What the user must know about this output before it is looked at."""
    notes = []
    if plan.kind == "frames" and os.path.lexists(plan.file(plan.frames)):
        notes.append(f"{plan.file(plan.frames)} and what follows it are of an earlier sequence")
    if plan.format.name == "gif" and plan.kind == "video" and fps > _SLOWEST_TO_REDRAW:
        notes.append(f"{fps} frames a second: browsers play a .gif above {_SLOWEST_TO_REDRAW} too slowly")
    return notes


def _encoder(
    plan: OutputPlan, staging: Staging, size: Size, fps: Fraction, metadata: str | None
) -> tuple[Encoder, list[str]]:
    """The encoder of the plan's format on fresh part files, and its notes."""
    if (encoder := picture_encoder(plan, staging, size, fps, metadata)) is not None:
        return encoder, []
    from sora_cli.media.video import VideoEncoder, look_of, recipe_for

    recipe, notes = recipe_for(plan.format.name, *size)
    look = look_of(recipe)
    part = staging.part(plan.path)
    return VideoEncoder(part, recipe, look, size=size, fps=fps, metadata=metadata), notes


def picture_encoder(
    plan: OutputPlan, staging: Staging, size: Size, fps: Fraction, metadata: str | None
) -> Encoder | None:
    """The encoder on fresh part files for a format that Pillow reads; None for the containers of FFmpeg."""
    name = plan.format.name
    if plan.kind != "video" and name != "gif":
        from sora_cli.media.stills import StillEncoder

        return StillEncoder(lambda index: staging.part(plan.file(index)), name, metadata)
    if name == "gif":
        from sora_cli.media.gif import GifEncoder

        part = staging.part(plan.path)
        spool, plain = (staging.scratch(plan.path, scratch) for scratch in ("spool", "plain"))
        shape = {"width": size.width, "height": size.height, "frames": plan.frames}
        return GifEncoder(part, spool, plain, **shape, fps=fps, metadata=metadata)
    if name == "webp":
        from sora_cli.media.webp import WebpEncoder

        return WebpEncoder(staging.part(plan.path), width=size.width, height=size.height, fps=fps, metadata=metadata)
    return None
