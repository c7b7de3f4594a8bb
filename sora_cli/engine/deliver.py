"""The output of a job: the sources' own frames and those that were made, in order, into one file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from sora_cli.engine.boards import Made, Own
from sora_cli.engine.border import Border
from sora_cli.engine.compose import made_frames
from sora_cli.engine.footage import Footage, Source
from sora_cli.engine.measures import Fidelity, Seams
from sora_cli.engine.work import Work, drawn_inside, probed
from sora_cli.media.editing import ClipWriter, open_clip_writer
from sora_cli.media.sound import Sound
from sora_cli.media.staging import Ledger
from sora_cli.media.writer import FrameWriter, open_writer

REDRAWING = ("reconstruct", "fill", "edit", "upscale")  # commands that give a clip's frames back, each in its place


@dataclass(slots=True)
class Measures:
    """What is measured on the frames of a film on their way into the file."""

    seams: Seams | None = None
    fidelity: Fidelity | None = None
    compression: float | None = None
    endless: bool = False

    @classmethod
    def of(cls, work: Work) -> "Measures":
        """The measures of a command: how well joins of clips are hidden, or how well a clip is reconstructed."""
        request = work.request
        if request.command == "reconstruct":
            canvas = work.canvases[0]
            latents = (
                canvas.latent_frames * work.model.specs.vae.channels * _area(canvas.levels[-1].latents(canvas.grid))
            )
            return cls(fidelity=Fidelity(), compression=canvas.frames * 3 * canvas.width * canvas.height / latents)
        if request.clip is None or len(work.film.output) == 1:
            return cls()
        return cls(seams=Seams(request.fps, work.film.joins), endless=work.film.endless)

    def values(self) -> dict[str, Any]:
        """The JSON's metrics."""
        if self.fidelity is not None:
            fidelity = self.fidelity
            return {"psnr": fidelity.psnr, "ssim": fidelity.ssim, "compression": self.compression}
        if self.seams is not None:
            return {"seams": self.seams.loop_values() if self.endless else self.seams.values()}
        return {}


def _area(sides: tuple[int, int]) -> int:
    return sides[0] * sides[1]


@contextmanager
def open_film_writer(
    work: Work, path: Path, *, metadata: str | None, force: bool, ledger: Ledger
) -> Iterator[FrameWriter]:
    """A writer for a film: one that keeps the clip's own planes where there is a clip, else one of RGB frames."""
    request, frames = work.request, work.film.frames
    width, height, fps = request.width, request.height, request.fps
    if request.clip is None:
        with open_writer(
            path,
            width=width,
            height=height,
            fps=fps,
            frames=frames,
            metadata=metadata,
            force=force,
            make_folder=True,
            ledger=ledger,
        ) as plain:
            yield plain
        return
    with open_clip_writer(
        path,
        like=probed(request.clip),
        width=width,
        height=height,
        fps=fps,
        frames=frames,
        sounds=sounds_of(work),
        metadata=metadata,
        force=force,
        make_folder=True,
        ledger=ledger,
    ) as writer:
        yield writer


def sounds_of(work: Work) -> list[Sound]:
    """The sound of the clips' own frames, where they lie in the output; what is made is silent.

    Where frames are drawn anew, each in its place, their sound stays; where one clip becomes another, so does it.
    """
    request, at = work.request, 0
    sounds = []
    if request.mode == "blend":
        return _cross_faded(work)
    own = [Own(0, 0, work.film.frames)] if request.command in REDRAWING else work.film.output
    for piece in own:
        if isinstance(piece, Own):
            start, stop = piece.first / request.fps, (piece.first + piece.count) / request.fps
            sounds.append(Sound(Path(request.sources[piece.source]), start, stop, Fraction(at) / request.fps))
        at += piece.count
    return sounds


def _cross_faded(work: Work) -> list[Sound]:
    """The sound of two clips that overlap."""
    one, other = (Path(path) for path in work.request.sources)
    overlap, end = work.request.seconds, work.film.frames / work.request.fps
    begin = work.film.joins[0] / work.request.fps
    return [
        Sound(one, Fraction(0), begin + overlap, Fraction(0), fade_out=overlap),
        Sound(other, Fraction(0), end - begin, begin, fade_in=overlap),
    ]


def write_film(
    work: Work,
    sources: Sequence[Source],
    decoded: Sequence[Iterator[np.ndarray]],
    writer: FrameWriter,
    measures: Measures,
    tell: Callable[[int], None],
    scratch: Path,
) -> None:
    """Write all pieces of a film; `decoded` are the frames of each board's canvas. `tell` gets the frames done.

    In the folder `scratch` frames wait for their turn.
    """
    done = 0
    for piece in work.film.output:
        for frame in _piece(work, sources, decoded, writer, measures, piece, done, scratch):
            if measures.seams is not None:
                measures.seams.add(frame)
            done += 1
            tell(done)


def _piece(
    work: Work,
    sources: Sequence[Source],
    decoded: Sequence[Iterator[np.ndarray]],
    writer: FrameWriter,
    measures: Measures,
    piece: Own | Made,
    at: int,
    scratch: Path,
) -> Iterator[np.ndarray]:
    """Write one piece, from frame `at` of the output on, and give its frames as they are written, uint8 (H, W, 3)."""
    if isinstance(piece, Own):
        yield from _own(sources[piece.source], piece, writer)
        return
    board = work.film.boards[piece.board]
    if measures.fidelity is not None:
        truth = sources[0].frames(0, board.frames)
        made = _compared(truth, decoded[piece.board], measures.fidelity)
    else:
        made = made_frames(board, sources, decoded[piece.board], work.request.fps, scratch)
    if work.request.mask is not None:
        yield from _patched(work, sources[0], made, writer)
        return
    times = sources[0] if work.request.command in REDRAWING else None
    for index, frame in enumerate(made, at):
        if isinstance(writer, ClipWriter) and isinstance(times, Footage) and not times.retimed:
            writer.replace(frame, times.clip.time(index))
        else:
            writer.write(frame)
        yield frame


def _compared(truth: Iterator[np.ndarray], made: Iterator[np.ndarray], fidelity: Fidelity) -> Iterator[np.ndarray]:
    """Frames, each compared with its original on the way."""
    for original, frame in zip(truth, made, strict=True):
        fidelity.add(original, frame)
        yield frame


def _patched(work: Work, source: Source, made: Iterator[np.ndarray], writer: FrameWriter) -> Iterator[np.ndarray]:
    """Write the clip's frames with what was made in the place of the mask, and give them."""
    request = work.request
    assert request.mask is not None
    inside = drawn_inside(request)
    border = Border(inside)
    if not isinstance(writer, ClipWriter) or (footage := _footage(source)) is None:
        for pixels, frame in zip(source.frames(0, work.film.frames), made, strict=True):
            patched = np.where(inside[..., None], border.joined(pixels, frame), pixels)
            writer.write(patched)
            yield patched
        return
    for own, frame in zip(footage.own(0, work.film.frames), made, strict=True):
        joined = border.joined(own.rgb, frame)
        writer.patch(own, joined, inside, writer.end if footage.retimed else None)
        yield joined


def _footage(source: Source) -> Footage | None:
    """A source whose frames can be used as they are."""
    return source if isinstance(source, Footage) and not source.resized else None


def _own(source: Source, piece: Own, writer: FrameWriter) -> Iterator[np.ndarray]:
    """Write a source's own frames, as they are where they can be kept."""
    if not isinstance(writer, ClipWriter) or (footage := _footage(source)) is None:
        for frame in source.frames(piece.first, piece.first + piece.count):
            writer.write(frame)
            yield frame
        return
    for own in footage.own(piece.first, piece.first + piece.count):
        writer.copy(own, writer.end if footage.retimed else None)
        yield own.rgb
