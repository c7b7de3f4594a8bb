"""What a job draws, in time: canvases of frames, which of them a clip gives, and which pieces make up the output.

Every command that knows frames describes a `Film`; the engine draws what is missing and knows no commands. Frames of a
canvas lie in latent frames: the first holds one, every later one `time`.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from sora_weights.spec import Grid

CONTEXT_SECONDS = Fraction(1)  # how much of a clip is shown beside what is drawn: one frame has no velocity


@dataclass(frozen=True, slots=True)
class Given:
    """Frames first .. first + count - 1 of source number `source`, lying on the canvas from frame `at` on.

    Where a source has not so many, its last frame is meant again and again.
    """

    source: int
    first: int
    count: int
    at: int


@dataclass(frozen=True, slots=True)
class Board:
    """A canvas of `frames` frames, what is given on it, and the frames first .. first + count - 1 that it is for.

    `start` is what drawing starts from, where it doesn't start from noise alone.
    """

    frames: int
    given: tuple[Given, ...]
    first: int
    count: int
    start: tuple[Given, ...] = ()

    def known(self, grid: Grid) -> tuple[bool, ...]:
        """Which latent frames are given whole."""
        held = {frame for given in self.given for frame in range(given.at, given.at + given.count)}
        return tuple(held.issuperset(group) for group in groups(grid.latent_frames(self.frames), grid.time))

    def stretch_at(self, frame: int) -> Given | None:
        """The stretch that gives a frame of the canvas; None where it is not given."""
        return next((given for given in self.given if given.at <= frame < given.at + given.count), None)

    @property
    def edges(self) -> tuple[Given, ...]:
        """The given frames just before what the board is for and just behind it, as far as there are."""
        beside = ((frame, self.stretch_at(frame)) for frame in (self.first - 1, self.first + self.count))
        return tuple(Given(each.source, each.first + frame - each.at, 1, frame) for frame, each in beside if each)


@dataclass(frozen=True, slots=True)
class Own:
    """A stretch of the output that is a source's own: frames first .. first + count - 1."""

    source: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Made:
    """A stretch of the output that board number `board` is for."""

    board: int
    count: int


Piece = Own | Made


@dataclass(frozen=True, slots=True)
class Film:
    """The boards of a job and its output as pieces in order; `endless` if the last frame flows into the first."""

    boards: tuple[Board, ...]
    output: tuple[Piece, ...]
    endless: bool = False

    @property
    def frames(self) -> int:
        """Frames of the output."""
        return sum(piece.count for piece in self.output)

    @property
    def joins(self) -> tuple[int, ...]:
        """The numbers of the frames that begin a new piece, but for the first."""
        return tuple(sum(piece.count for piece in self.output[:k]) for k in range(1, len(self.output)))


def film(boards: tuple[Board, ...], *output: Piece, endless: bool = False) -> Film:
    """A film of those pieces that hold frames."""
    return Film(boards, tuple(piece for piece in output if piece.count), endless)


def groups(latent_frames: int, time: int) -> tuple[range, ...]:
    """The frames of each latent frame: one, then `time` at a time."""
    return (range(1), *(range(1 + time * k, 1 + time * (k + 1)) for k in range(latent_frames - 1)))


def drawn(frames: int) -> Film:
    """A video of which nothing is known."""
    return film((Board(frames, (), 0, frames),), Made(0, frames))


def pictured(frames: int, grid: Grid, *, last: bool) -> Film:
    """A video that begins with the picture of source 0 and, with `last`, ends with that of source 1.

    The pictures themselves are its first and last frame; the latent frame of the last one holds nothing else.
    """
    opening = Given(0, 0, 1, 0)
    if not last or frames == 1:
        return film((Board(frames, (opening,), 1, frames - 1),), Own(0, 0, 1), Made(0, frames - 1))
    end = whole_opening(frames, grid)
    board = Board(end, (opening, Given(1, 0, grid.time, end - grid.time)), 1, frames - 2)
    return film((board,), Own(0, 0, 1), Made(0, frames - 2), Own(1, 0, 1))


def extended(clip: int, before: int, behind: int, fps: Fraction, grid: Grid) -> Film:
    """A clip of `clip` frames with new ones before it, behind it, or both."""
    boards = tuple(board(clip, new, fps, grid) for board, new in ((_before, before), (_behind, behind)) if new)
    return film(boards, Made(0, before), Own(0, 0, clip), Made(len(boards) - 1, behind))


def _behind(clip: int, new: int, fps: Fraction, grid: Grid) -> Board:
    context = opening_context(clip, fps, grid)
    return Board(context + new, (Given(0, clip - context, context, 0),), context, new)


def _before(clip: int, new: int, fps: Fraction, grid: Grid) -> Board:
    """The new frames fill whole latent frames; those too many at the beginning are drawn and left out."""
    room = whole_opening(new, grid)
    context = later_context(room, clip, fps, grid)
    return Board(room + context, (Given(0, 0, context, room),), room - new, new)


def looped(clip: int, new: int, fps: Fraction, grid: Grid) -> Film:
    """A clip and `new` frames that lead from its end to its beginning."""
    return film((_between(0, clip, 0, clip, new, fps, grid),), Own(0, 0, clip), Made(0, new), endless=True)


def bridged(first: int, second: int, new: int, fps: Fraction, grid: Grid) -> Film:
    """Two clips with `new` frames between that lead from the one to the other."""
    board = _between(0, first, 1, second, new, fps, grid)
    return film((board,), Own(0, 0, first), Made(0, new), Own(1, 0, second))


def _between(
    first: int, first_length: int, second: int, second_length: int, new: int, fps: Fraction, grid: Grid
) -> Board:
    tail = opening_context(first_length, fps, grid)
    head = later_context(tail + new, second_length, fps, grid)
    given = (Given(first, first_length - tail, tail, 0), Given(second, 0, head, tail + new))
    return Board(tail + new + head, given, tail, new)


def filled(clip: int, first: int, last: int, fps: Fraction, grid: Grid) -> Film:
    """A clip whose frames first .. last are drawn anew, between what is before and behind them."""
    new, behind = last - first + 1, clip - last - 1
    before = opening_context(first, fps, grid) if first else 0
    at = before + new if before or not behind else whole_opening(new, grid)
    head = later_context(at, behind, fps, grid) if behind else 0
    given = (Given(0, first - before, before, 0), Given(0, last + 1, head, at))
    board = Board(at + head, tuple(each for each in given if each.count), at - new, new)
    return film((board,), Own(0, 0, first), Made(0, new), Own(0, last + 1, behind))


def reconstructed(clip: int, grid: Grid) -> Film:
    """A clip encoded and decoded: everything is given, and nothing of the output is the clip's own."""
    given = Given(0, 0, whole_opening(clip, grid), 0)
    return film((Board(clip, (given,), 0, clip),), Made(0, clip))


def redrawn(clip: int, grid: Grid) -> Film:
    """A clip that is drawn anew as a whole, from itself."""
    whole = Given(0, 0, whole_opening(clip, grid), 0)
    return film((Board(clip, (), 0, clip, (whole,)),), Made(0, clip))


def blended(first: int, second: int, overlap: int, fps: Fraction, grid: Grid) -> Film:
    """Two clips that overlap by `overlap` frames, drawn from source 2, in which the one fades into the other.

    Raises ValueError unless both clips are longer than the overlap.
    """
    if overlap >= min(first, second):
        raise ValueError(f"{overlap} frames of overlap in clips of {first} and {second}")
    tail = opening_context(first - overlap, fps, grid)
    head = later_context(tail + overlap, second - overlap, fps, grid)
    begin = first - overlap - tail
    given = (Given(0, begin, tail, 0), Given(1, overlap, head, tail + overlap))
    board = Board(tail + overlap + head, given, tail, overlap, (Given(2, begin, tail + overlap + head, 0),))
    return film((board,), Own(0, 0, first - overlap), Made(0, overlap), Own(1, overlap, second - overlap))


def opening_context(available: int, fps: Fraction, grid: Grid) -> int:
    """Frames of context that a canvas begins with: about a second, one and then whole latent frames."""
    wanted = 1 + grid.time * max(1, round(CONTEXT_SECONDS * fps / grid.time))
    return min(wanted, 1 + grid.time * ((available - 1) // grid.time))


def later_context(at: int, available: int, fps: Fraction, grid: Grid) -> int:
    """Frames of context from frame `at` on, about a second, that end with a latent frame and hold a whole one."""
    wanted = grid.time * max(2, round(CONTEXT_SECONDS * fps / grid.time))
    end = at + min(wanted, available)
    end -= (end - 1) % grid.time
    return max(end, whole_opening(at, grid) + grid.time) - at


def whole_opening(frames: int, grid: Grid) -> int:
    """The least number of frames from the beginning of a canvas that are whole latent frames and hold `frames`."""
    return 1 + grid.time * math.ceil((frames - 1) / grid.time)
