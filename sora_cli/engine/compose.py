"""What a board makes, joined to what is given beside it so that nobody sees where."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

import numpy as np

from sora_cli.engine.boards import Board
from sora_cli.engine.footage import Source, given_frames

FADE_SECONDS = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Joint:
    """What the autoencoder loses of the given frame beside a piece: source minus decoded, (H, W, 3) int16."""

    lost: np.ndarray
    frames: int  # over how many frames it fades out

    def added(self, away: int) -> np.ndarray | float:
        """What to add `away` frames from the join, the nearest being 0."""
        if away >= self.frames:
            return 0.0
        return self.lost * math.cos(math.pi / 2 * away / self.frames) ** 2


def made_frames(
    board: Board, sources: Sequence[Source], decoded: Iterable[np.ndarray], fps: Fraction
) -> Iterator[np.ndarray]:
    """The frames that a board is for, uint8 (H, W, 3), in order.

    `decoded` are all frames of its canvas. What the autoencoder loses of the given frames on either side is carried
    in and fades out over half a second, so that a join doesn't show its blur as a jump.
    """
    stream = _Beside(board, sources, decoded)
    fade = max(1, round(FADE_SECONDS * fps))
    before = _joint([lost for _, lost in islice(stream, board.first)][-1:], fade)
    waiting: deque[np.ndarray] = deque()
    done = 0
    for frame, _ in islice(stream, board.count):
        waiting.append(frame)
        if len(waiting) > fade:
            yield _mended(waiting.popleft(), done, board.count, before, None)
            done += 1
    behind = _joint([lost for _, lost in islice(stream, 1)], fade)
    for frame in waiting:
        yield _mended(frame, done, board.count, before, behind)
        done += 1


class _Beside:
    """The frames of a canvas as decoded, each with what is lost of the frame given there, or None."""

    def __init__(self, board: Board, sources: Sequence[Source], decoded: Iterable[np.ndarray]) -> None:
        self._decoded = enumerate(decoded)
        self._given = {given.at: given for given in board.given}
        self._sources = sources
        self._truth: Iterator[np.ndarray] = iter(())

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray | None]:
        index, frame = next(self._decoded)
        if index in self._given:
            given = self._given[index]
            self._truth = given_frames(self._sources[given.source], given)
        truth = next(self._truth, None)
        return frame, None if truth is None else truth.astype(np.int16) - frame


def _joint(lost: Sequence[np.ndarray | None], fade: int) -> Joint | None:
    return None if not lost or lost[0] is None else Joint(lost[0], fade)


def _mended(frame: np.ndarray, index: int, count: int, before: Joint | None, behind: Joint | None) -> np.ndarray:
    """Frame number `index` of a board's `count` with what is lost on either side added."""
    if before is None and behind is None:
        return frame
    mended = frame.astype(np.float32)
    mended += 0 if before is None else before.added(index)
    mended += 0 if behind is None else behind.added(count - 1 - index)
    return np.clip(np.rint(mended), 0, 255).astype(np.uint8)
