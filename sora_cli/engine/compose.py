"""What a board makes, joined to what is given beside it so that nobody sees where."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from sora_cli.engine.boards import Board, Given
from sora_cli.engine.footage import Source, given_frames
from sora_cli.engine.measures import difference, strips
from sora_cli.engine.spool import Spool, spooled

FADE_SECONDS = Fraction(1, 2)
QUICK = Fraction(1, 12)  # of this time is left to what has another shape: longer, and it would be seen as a ghost
LOUD = 40.0  # levels by which pixels are off, beyond their mean, where another shape rather than softness is likely


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """The given frame next to a join, uint8 (H, W, 3), and the steps between the given frames near it."""

    nearest: np.ndarray
    steps: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """How far what is made is off beside a join: a `share` of what the nearest frame that was `made` lacks of the one
    that is `given`, uint8 (H, W, 3) both, to be taken back over `frames` frames; on the mean it lacks `colour` (3,).

    What lacks a little is soft or of another colour, and changes slowly. What lacks much shows something else, or the
    same elsewhere: there the one gives way to the other at once, before it is seen that both are there.
    """

    given: np.ndarray
    made: np.ndarray
    colour: np.ndarray
    share: float
    frames: int

    def added(self, rows: slice, away: int) -> np.ndarray | float:
        """What to add to some rows `away` frames from the join, the nearest being 0: float32 (n, W, 3)."""
        slowly, quickly = _left(away, self.frames), _left(away, math.ceil(self.frames * QUICK))
        if not slowly:
            return 0.0
        off = self.given[rows].astype(np.float32) - self.made[rows]
        shape = off - self.colour
        loud = np.abs(shape).max(-1, keepdims=True) / LOUD
        shape *= (quickly - slowly) * (1 - np.exp(-(loud**2)))
        return (off * slowly + shape) * self.share


def _left(away: int, frames: int) -> float:
    """The share that is left of what is taken back over `frames` frames."""
    return math.cos(math.pi / 2 * away / frames) ** 2 if away < frames else 0.0


def made_frames(
    board: Board, sources: Sequence[Source], decoded: Iterable[np.ndarray], fps: Fraction, scratch: Path
) -> Iterator[np.ndarray]:
    """The frames that a board is for, uint8 (H, W, 3), in order.

    `decoded` are all frames of its canvas. Beside given frames, what is made would begin with a jump: the autoencoder
    blurs, and the network goes its own way. So its nearest frame is brought as near to the given one as the given
    frames are to each other, and the difference is taken back over half a second or less. Until it is known, frames
    wait in a file in the folder `scratch`.
    """
    frames = islice(decoded, board.first, board.first + board.count)
    fade = max(1, round(FADE_SECONDS * fps))
    before, behind = (_beside(board, sources, side, fade) for side in (-1, 1))
    if before is None and behind is None:
        yield from frames
        return
    done = 0
    with spooled(scratch, fade + 1) as waiting:
        for frame in islice(frames, fade + 1):
            waiting.append(frame)
            del frame  # before the next one is made
        left = _joint(before, waiting, -1, fade)
        for frame in frames:
            yield _mended(waiting.popleft(), done, board.count, left, None)
            done += 1
            waiting.append(frame)
            del frame
        right = _joint(behind, waiting, 1, fade)
        while waiting:
            yield _mended(waiting.popleft(), done, board.count, left, right)
            done += 1


def _beside(board: Board, sources: Sequence[Source], side: int, reach: int) -> Beside | None:
    """What is given next to what a board is for: before it (side -1) or behind it (1), as far as `reach` frames."""
    if board.count == board.frames:
        return None
    edge = board.first - 1 if side < 0 else board.first + board.count
    given = board.stretch_at(edge)
    if given is None:
        return None
    nearest = edge - given.at
    low, high = (max(0, nearest - reach), nearest + 1) if side < 0 else (nearest, nearest + reach + 1)
    part = Given(given.source, given.first + low, min(high, given.count) - low, given.at)
    return _seen(given_frames(sources[given.source], part), side)


def _seen(frames: Iterator[np.ndarray], side: int) -> Beside:
    """Frames beside a join, of which only the nearest is kept: the last one before it, the first one behind it."""
    nearest = last = next(frames)
    steps = []
    for frame in frames:
        steps.append(difference(last, frame))
        last = frame
    return Beside(last if side < 0 else nearest, tuple(steps))


def _joint(beside: Beside | None, waiting: Spool, side: int, fade: int) -> Joint | None:
    """What brings the nearest made frame as near to the nearest given one as frames on both sides are to each other.

    The frames `waiting` begin at a join before them (side -1) or end at one behind them (1). What is taken back adds
    to their steps, so these are measured once with a first guess.
    """
    if beside is None or not waiting:
        return None
    guess = _bringing(beside, waiting[0 if side < 0 else -1], beside.steps, fade)
    made = iter(waiting) if side < 0 else reversed(waiting)
    mended = (_mended(frame, away, len(waiting), guess, None) for away, frame in enumerate(made))
    steps = [difference(one, other) for one, other in pairwise(mended)]
    return _bringing(beside, waiting[0 if side < 0 else -1], [*beside.steps, *steps], fade)


def _bringing(beside: Beside, made: np.ndarray, steps: Sequence[float], fade: int) -> Joint | None:
    """What makes the step between the given frame and the `made` one the median of `steps`, if it is larger."""
    jump = difference(beside.nearest, made)
    usual = float(np.median(steps)) if steps else jump
    if jump <= usual:
        return None
    colour = (beside.nearest.mean((0, 1)) - made.mean((0, 1))).astype(np.float32)
    return Joint(beside.nearest, made, colour, 1 - usual / jump, fade)


def _mended(frame: np.ndarray, index: int, count: int, before: Joint | None, behind: Joint | None) -> np.ndarray:
    """Frame number `index` of a board's `count` with what is off on either side taken back."""
    if before is None and behind is None:
        return frame
    share = 0.0 if before is None or behind is None else _passed_on(index, count, before.frames)
    whole = np.empty_like(frame)
    for rows in strips(len(frame)):
        mended = frame[rows].astype(np.float32)
        mended += 0 if before is None else before.added(rows, index) * (1 - share)
        mended += 0 if behind is None else behind.added(rows, count - 1 - index) * (share if before else 1)
        whole[rows] = np.clip(np.rint(mended), 0, 255).astype(np.uint8)
    return whole


def _passed_on(index: int, count: int, fade: int) -> float:
    """How far frame `index` of `count` is on the way from the one join to the other, where both take something back
    over `fade` frames: in short gaps it would be taken back twice.
    """
    if count == 1:
        return 0.5
    first, last = max(0, count - 1 - fade), min(count - 1, fade)  # of those that both reach, if there are any
    return min(max((index - first) / max(last - first, 1), 0.0), 1.0)
