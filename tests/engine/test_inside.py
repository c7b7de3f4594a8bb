"""Figures that words put inside a mask."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from sora_cli.engine.canvas import Level
from sora_cli.engine.inside import confined, largest_part
from sora_cli.model.tracing import Pose

shares = st.floats(0.0, 1.0)


@st.composite
def poses(draw: st.DrawFn) -> Pose:
    frames = draw(st.integers(1, 8))
    x, y = (torch.tensor([[draw(shares) for _ in range(frames)]]) for _ in range(2))
    size = torch.tensor([[draw(st.floats(0.05, 1.5)) for _ in range(frames)]])
    nothing = torch.zeros(1, frames)
    return Pose(x, y, size, nothing, nothing, nothing)


@given(poses(), st.integers(4, 30), st.integers(4, 30), st.tuples(shares, shares, shares, shares))
def test_a_figure_stays_inside_its_mask(pose: Pose, rows: int, columns: int, corners: tuple[float, ...]):
    top, bottom = sorted(int(share * (rows - 1)) for share in corners[:2])
    left, right = sorted(int(share * (columns - 1)) for share in corners[2:])
    inside = torch.zeros(rows, columns)
    inside[top : bottom + 1, left : right + 1] = 1
    level = Level(8 * columns, 8 * rows)
    made = confined(pose, inside, level)
    half = made.size * (level.width * level.height) ** 0.5 / 2
    x, y = made.x * level.width, made.y * level.height
    assert (x - half).min() >= 8 * left - 0.1
    assert (x + half).max() <= 8 * (right + 1) + 0.1
    assert (y - half).min() >= 8 * top - 0.1
    assert (y + half).max() <= 8 * (bottom + 1) + 0.1
    assert (made.size <= pose.size + 1e-4).all()
    assert (made.there == 1).all()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 13)), min_size=1, max_size=30))
def test_the_largest_part_of_a_mask_hangs_together_and_touches_no_other(points: list[tuple[int, int]]):
    inside = torch.zeros(10, 14)
    for row, column in points:
        inside[row, column] = 1
    part = largest_part(inside)
    assert 1 <= part.sum() <= inside.sum()
    assert ((inside > 0) | (part == 0)).all()
    around = torch.nn.functional.max_pool2d(part[None], 3, 1, 1)[0] > 0
    assert (inside[around] == part[around]).all()


def test_of_two_islands_the_larger_is_chosen():
    inside = torch.zeros(12, 20)
    inside[1:4, 1:4] = inside[6:10, 15:19] = 1
    assert largest_part(inside).nonzero().amin(0).tolist() == [6, 15]
