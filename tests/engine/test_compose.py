"""Joins: what is made is brought near to what is given beside it, and nowhere else."""

import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import finalize

import numpy as np
import pytest
import torch

from sora_cli.engine.boards import Board, Given
from sora_cli.engine.compose import made_frames
from sora_cli.engine.denoiser import Known
from sora_cli.engine.footage import Still
from sora_cli.engine.measures import difference
from sora_cli.engine.pipeline import carried


class Clip:
    """A source of grey frames of the given levels."""

    def __init__(self, *levels: int) -> None:
        self.levels = levels
        self.count = len(levels)

    def frames(self, start: int, stop: int):
        return (np.full((4, 4, 3), level, np.uint8) for level in self.levels[start:stop])


def made(board: Board, source, decoded: list[int]) -> list[int]:
    frames = (np.full((4, 4, 3), level, np.uint8) for level in decoded)
    with TemporaryDirectory() as folder:
        return [int(frame[0, 0, 0]) for frame in made_frames(board, [source], frames, Fraction(8), Path(folder))]


def joined_at_once(board: Board, source: list[np.ndarray], decoded: list[np.ndarray], fade: int) -> list[np.ndarray]:
    """What `made_frames` gives, made with all frames in memory."""
    new = decoded[board.first : board.first + board.count]
    sides = []
    for side in (-1, 1):
        edge = board.first - 1 if side < 0 else board.first + board.count
        given = next((each for each in board.given if each.at <= edge < each.at + each.count), None)
        off = (np.zeros(new[0].shape, np.float32), 0.0)
        if given is not None:
            held = [source[given.first + k] for k in range(given.count)]
            near = held[::-1][: fade + 1] if side < 0 else held[: fade + 1]
            end = new[::-side][: fade + 1]
            guess = bringing(near[0], end[0], steps(near))
            mended = [rounded(frame + taken_back(guess, away, fade)) for away, frame in enumerate(end)]
            off = bringing(near[0], end[0], [*steps(near), *steps(mended)])
        sides.append(off)
    left, right = sides
    made = []
    for k, frame in enumerate(new):
        back = [taken_back(left, k, fade), taken_back(right, board.count - 1 - k, fade)]
        both = [i for i in range(board.count) if i < fade and board.count - 1 - i < fade]
        if left[1] and right[1] and both:
            ends = [max(0, both[0] - 1), min(board.count - 1, both[-1] + 1)]
            share = 0.5 if board.count == 1 else np.interp(k, ends, [0, 1])
            back = [back[0] * (1 - share), back[1] * share]
        made.append(rounded(frame + sum(back)))
    return made


@pytest.mark.parametrize("count", range(1, 14))
def test_what_is_too_bright_everywhere_never_becomes_too_dark(count: int):
    source = Clip(*[100] * 20)
    board = Board(count + 8, (Given(0, 0, 4, 0), Given(0, 4, 4, 4 + count)), 4, count)
    found = made(board, source, [110] * board.frames)
    assert all(100 <= level <= 110 for level in found)
    assert found == found[::-1]
    assert found[0] <= 101


def weight(away: int, fade: int) -> float:
    return math.cos(math.pi / 2 * away / fade) ** 2 if away < fade else 0.0


def rounded(frame: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def steps(frames: list[np.ndarray]) -> list[float]:
    return [difference(one, other) for one, other in pairwise(frames)]


def bringing(given: np.ndarray, new: np.ndarray, around: list[float]) -> tuple[np.ndarray, float]:
    """What the made frame lacks, and how much of that is brought."""
    jump = difference(given, new)
    usual = float(np.median(around)) if around else jump
    return given.astype(np.float32) - new, 1 - min(usual / jump, 1)


def taken_back(lacking: tuple[np.ndarray, float], away: int, fade: int) -> np.ndarray:
    """What is left of it: what is loud goes in a quarter of the time."""
    off, share = lacking
    shape = off - off.mean((0, 1))
    loud = 1 - np.exp(-((np.abs(shape).max(-1, keepdims=True) / 40) ** 2))
    return share * (off * weight(away, fade) + shape * loud * (weight(away, max(1, fade // 4)) - weight(away, fade)))


class Frames(list[np.ndarray]):
    """A source of these frames."""

    @property
    def count(self) -> int:
        return len(self)

    def frames(self, start: int, stop: int):
        return iter(self[start:stop])


@pytest.mark.parametrize(("before", "behind"), [(5, 0), (0, 4), (5, 4), (1, 8)])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 6, 9, 24])
def test_frames_that_wait_on_the_disk_are_joined_as_those_in_memory(
    before: int, behind: int, count: int, tmp_path: Path
):
    rng = np.random.default_rng(100 * before + 10 * behind + count)
    source = Frames(rng.integers(100 + 2 * k, 104 + 2 * k, (33, 5, 3), dtype=np.uint8) for k in range(20))
    given = (Given(0, 2, before, 0), Given(0, 11, behind, before + count))
    board = Board(before + count + behind, tuple(each for each in given if each.count), before, count)
    decoded = [rng.integers(3 * k, 60 + 3 * k, (33, 5, 3), dtype=np.uint8) for k in range(board.frames)]
    found = list(made_frames(board, [source], decoded, Fraction(8), tmp_path))
    assert (np.stack(found) == np.stack(joined_at_once(board, source, decoded, 4))).all()
    assert not list(tmp_path.iterdir())


def test_only_a_few_frames_are_in_memory_at_once(tmp_path: Path):
    """Whatever the rate: 60 frames wait for a join here."""
    alive: set[int] = set()
    most = 0

    def fresh(value: int) -> np.ndarray:
        nonlocal most
        frame = np.full((4, 4, 3), value % 200, np.uint8)
        alive.add(id(frame))
        finalize(frame, alive.discard, id(frame))
        most = max(most, len(alive))
        return frame

    class Fresh:
        count = 200

        def frames(self, start: int, stop: int):
            return (fresh(k) for k in range(start, stop))

    board = Board(400, (Given(0, 0, 100, 0), Given(0, 0, 100, 300)), 100, 200)
    for _ in made_frames(board, [Fresh()], (fresh(3 * k) for k in range(400)), Fraction(120), tmp_path):
        pass
    assert most <= 6


def test_a_jump_becomes_a_step_like_those_around_it_and_is_taken_back():
    board = Board(25, (Given(0, 0, 5, 0),), 5, 20)
    decoded = [0] * 5 + [120 + 2 * k for k in range(20)]
    found = made(board, Clip(10, 12, 14, 16, 18), decoded)
    steps = np.diff([18, *found])
    assert found[4:] == decoded[9:]
    assert (steps > 0).all()
    assert steps[0] <= 1.5 * np.median(steps[:5])


def test_what_stands_elsewhere_is_gone_before_it_is_seen_twice():
    def scene(at: int, sky: int) -> np.ndarray:
        frame = np.full((16, 32, 3), sky, np.uint8)
        frame[4:12, at : at + 8] = 20
        return frame

    board = Board(48, (Given(0, 0, 24, 0),), 24, 24)
    source = Frames(scene(4, 200) for _ in range(24))
    decoded = [scene(4, 200)] * 24 + [scene(16, 190 + k % 2) for k in range(24)]
    with TemporaryDirectory() as folder:
        found = list(made_frames(board, [source], decoded, Fraction(24), Path(folder)))
    ghost, sky = [frame[8, 6, 0] for frame in found], [frame[1, 1, 0] for frame in found]
    assert ghost[0] < 60
    assert ghost[3] > 180
    assert sky[3] > 195 > 192 > sky[12]


def test_both_sides_of_a_gap_are_met():
    board = Board(17, (Given(0, 0, 5, 0), Given(0, 5, 4, 13)), 5, 8)
    found = made(board, Clip(10, 11, 12, 13, 14, 50, 51, 52, 53), [0] * 5 + [30] * 8 + [0] * 4)
    assert 14 < found[0] <= 14 + 4
    assert 50 > found[-1] >= 50 - 5
    assert found == sorted(found)


def test_what_fits_is_left_alone():
    board = Board(9, (Given(0, 0, 5, 0),), 5, 4)
    assert made(board, Clip(10, 14, 18, 22, 26), [0] * 5 + [28, 31, 33, 36]) == [28, 31, 33, 36]


def test_nothing_given_means_nothing_changed():
    assert made(Board(5, (), 0, 5), Still(np.zeros((4, 4, 3), np.uint8)), [1, 2, 3, 4, 5]) == [1, 2, 3, 4, 5]


def test_what_is_known_is_carried_on_and_across():
    latents = torch.tensor([0.0, 0.0, 10.0, 0.0, 0.0, 0.0, 20.0, 0.0]).view(1, 1, 8, 1, 1)
    mask = (latents > 0).float()
    across = carried(Known(latents, mask, "native")).flatten()
    assert torch.allclose(across, torch.tensor([10.0, 10.0, 10.0, 12.5, 15.0, 17.5, 20.0, 20.0]))
