"""What is drawn inside a mask, joined to what is around it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sora_cli.engine.border import Border, filled


def masked(shape: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    inside = np.zeros(shape, bool)
    top, bottom, left, right = box
    inside[top:bottom, left:right] = True
    return inside


@given(
    st.integers(48, 120),
    st.integers(48, 120),
    st.tuples(*[st.floats(0, 1)] * 4),
    st.tuples(*[st.integers(-30, 30)] * 3),
)
def test_a_wrong_colour_is_taken_back_at_the_border_and_nothing_else_changes(height, width, corners, off):
    top, bottom = sorted(int(share * (height - 1)) for share in corners[:2])
    left, right = sorted(int(share * (width - 1)) for share in corners[2:])
    inside = masked((height, width), (top, bottom + 1, left, right + 1))
    own = np.full((height, width, 3), 120, np.uint8)
    made = (own.astype(int) + np.array(off)).astype(np.uint8)
    joined = Border(inside).joined(own, made)
    assert (joined[~inside] == made[~inside]).all()
    grown = np.pad(~inside, 1, mode="edge")
    beside = inside & (grown[2:, 1:-1] | grown[:-2, 1:-1] | grown[1:-1, 2:] | grown[1:-1, :-2])
    if not inside.all():
        assert np.abs(joined[beside].astype(int) - 120).max() <= np.abs(off).max() / 2 + 1


def test_it_fades_far_inside():
    inside = masked((240, 240), (20, 220, 20, 220))
    own, made = np.full((240, 240, 3), 100, np.uint8), np.full((240, 240, 3), 110, np.uint8)
    joined = Border(inside).joined(own, made).astype(int)
    assert abs(joined[20, 120] - 100).max() <= 2
    assert (joined[120, 120] == 110).all()
    assert np.abs(np.diff(joined[20:120, 120, 0])).max() <= 2


def test_another_shape_at_the_border_is_left_alone():
    inside = masked((64, 64), (16, 48, 16, 48))
    own, made = np.full((64, 64, 3), 250, np.uint8), np.full((64, 64, 3), 20, np.uint8)
    assert np.abs(Border(inside).joined(own, made).astype(int) - 20).max() <= 1


@pytest.mark.parametrize("box", [(0, 64, 0, 64), (0, 1, 0, 1), (63, 64, 0, 64)])
def test_any_mask_will_do(box: tuple[int, int, int, int]):
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert (Border(masked((64, 64), box)).joined(frame, frame) == frame).all()


def test_a_hole_in_layers_is_filled_with_them():
    rows = torch.linspace(-1, 1, 40)[:, None]
    picture = torch.where(rows > 0.2, rows, rows - 1).expand(1, 3, 40, 60)
    hole = torch.zeros(1, 1, 40, 60)
    hole[..., 10:30, 20:40] = 1
    made = filled(torch.where(hole > 0, 9.0, picture), hole)
    assert (made - picture).abs().max() < 0.5
    assert (made - picture).abs().mean() < 0.02
    assert torch.equal(made[..., :10, :], picture[..., :10, :])


@pytest.mark.parametrize("known", [(0, 0), (39, 59), (20, 5)])
def test_a_single_known_column_or_row_fills_all_that_it_can(known: tuple[int, int]):
    picture, hole = torch.zeros(1, 3, 40, 60), torch.ones(1, 1, 40, 60)
    picture[..., known[0], :], hole[..., known[0], :] = 0.5, 0
    assert torch.allclose(filled(picture, hole), torch.tensor(0.5))


def test_nothing_known_is_no_reason_to_fail():
    assert filled(torch.ones(1, 3, 8, 8), torch.ones(1, 1, 8, 8)).isfinite().all()
