"""Joins: what is made is brought near to what is given beside it, and nowhere else."""

from fractions import Fraction

import numpy as np
import torch

from sora_cli.engine.boards import Board, Given
from sora_cli.engine.compose import made_frames
from sora_cli.engine.denoiser import Known
from sora_cli.engine.footage import Still
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
    return [int(frame[0, 0, 0]) for frame in made_frames(board, [source], frames, Fraction(8))]


def test_a_jump_becomes_a_step_like_those_around_it_and_is_taken_back():
    board = Board(25, (Given(0, 0, 5, 0),), 5, 20)
    decoded = [0] * 5 + [120 + 2 * k for k in range(20)]
    found = made(board, Clip(10, 12, 14, 16, 18), decoded)
    steps = np.diff([18, *found])
    assert found[4:] == decoded[9:]
    assert (steps > 0).all()
    assert steps[0] <= 1.5 * np.median(steps[:5])


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
