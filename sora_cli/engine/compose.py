"""What a board makes, joined to what is given beside it so that nobody sees where."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise

import numpy as np

from sora_cli.engine.boards import Board, Given
from sora_cli.engine.footage import Source, given_frames
from sora_cli.engine.measures import difference

FADE_SECONDS = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Joint:
    """How far what is made is off beside a join: (H, W, 3) int16 or float32, to be taken back over `frames` frames."""

    off: np.ndarray
    frames: int

    def added(self, away: int) -> np.ndarray | float:
        """What to add `away` frames from the join, the nearest being 0."""
        if away >= self.frames:
            return 0.0
        return self.off * math.cos(math.pi / 2 * away / self.frames) ** 2


def made_frames(
    board: Board, sources: Sequence[Source], decoded: Iterable[np.ndarray], fps: Fraction
) -> Iterator[np.ndarray]:
    """The frames that a board is for, uint8 (H, W, 3), in order.

    `decoded` are all frames of its canvas. Beside given frames, what is made would begin with a jump: the autoencoder
    blurs, and the network goes its own way. So its nearest frame is brought as near to the given one as the given
    frames are to each other, and the difference is taken back over half a second.
    """
    frames = islice(decoded, board.first, board.first + board.count)
    fade = max(1, round(FADE_SECONDS * fps))
    before, behind = (_neighbours(board, sources, side, fade) for side in (-1, 1))
    waiting = deque(islice(frames, fade + 1))
    left = _joint(before, list(waiting), fade)
    done = 0
    for frame in frames:
        yield _mended(waiting.popleft(), done, board.count, left, None)
        done += 1
        waiting.append(frame)
    right = _joint(behind, list(waiting)[::-1], fade)
    for frame in waiting:
        yield _mended(frame, done, board.count, left, right)
        done += 1


def _neighbours(board: Board, sources: Sequence[Source], side: int, reach: int) -> list[np.ndarray]:
    """The given frames next to what a board is for, the nearest first: those before it (side -1) or behind it (1)."""
    if board.count == board.frames:
        return []
    edge = board.first - 1 if side < 0 else board.first + board.count
    for given in board.given:
        if given.at <= edge < given.at + given.count:
            nearest = edge - given.at
            low, high = (max(0, nearest - reach), nearest + 1) if side < 0 else (nearest, nearest + reach + 1)
            part = Given(given.source, given.first + low, min(high, given.count) - low, given.at)
            frames = list(given_frames(sources[given.source], part))
            return frames[::side]
    return []


def _joint(given: Sequence[np.ndarray], made: Sequence[np.ndarray], fade: int) -> Joint | None:
    """What brings the nearest made frame as near to the nearest given one as frames on both sides are to each other.

    Both sequences begin at the join. What is taken back adds to the steps of the made frames, so these are measured
    once with a first guess.
    """
    if not given or not made:
        return None
    guess = _bringing(given[0], made[0], _steps(given), fade)
    mended = [_mended(frame, away, len(made), guess, None) for away, frame in enumerate(made)]
    return _bringing(given[0], made[0], [*_steps(given), *_steps(mended)], fade)


def _steps(frames: Sequence[np.ndarray]) -> list[float]:
    return [difference(one, other) for one, other in pairwise(frames)]


def _bringing(given: np.ndarray, made: np.ndarray, steps: Sequence[float], fade: int) -> Joint | None:
    """What makes the step from one frame to the other the median of `steps`, if it is larger."""
    jump = difference(given, made)
    usual = float(np.median(steps)) if steps else jump
    if jump <= usual:
        return None
    return Joint((given.astype(np.float32) - made) * (1 - usual / jump), fade)


def _mended(frame: np.ndarray, index: int, count: int, before: Joint | None, behind: Joint | None) -> np.ndarray:
    """Frame number `index` of a board's `count` with what is off on either side taken back."""
    if before is None and behind is None:
        return frame
    mended = frame.astype(np.float32)
    mended += 0 if before is None else before.added(index)
    mended += 0 if behind is None else behind.added(count - 1 - index)
    return np.clip(np.rint(mended), 0, 255).astype(np.uint8)
