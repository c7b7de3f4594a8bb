"""Figures drawn sharp in decoded frames: only where they are, and the same however much of the frame is looked at."""

import pytest
import torch

from sora_cli.model.retouch import BESIDE, CELL, Retouch, light_on, lit
from sora_weights.spec import RetouchSpec


def square(rows: slice, columns: slice, size: tuple[int, int] = (192, 256)) -> torch.Tensor:
    """A red figure, (1, 4, H, W)."""
    made = torch.zeros(1, 4, *size)
    made[:, 0, rows, columns] = made[:, 3, rows, columns] = 1
    return made


def test_nothing_changes_where_no_figure_is(retouch):
    frames, figure = torch.rand(1, 3, 192, 256) * 2 - 1, square(slice(80, 120), slice(100, 140))
    assert torch.allclose(retouch(frames, 0 * figure, 0 * figure[:, 3:]), frames, atol=1e-6)
    off = (retouch(frames, figure, figure[:, 3:]) - frames).abs().amax((0, 1))
    reach = CELL * BESIDE
    assert off[80 - reach : 120 + reach, 100 - reach : 140 + reach].max() > 0.1
    off[80 - reach : 120 + reach, 100 - reach : 140 + reach] = 0
    assert off.max() < 1e-6


@pytest.mark.parametrize("corner", [(80, 100), (0, 0), (152, 216)])
def test_a_part_of_a_frame_becomes_what_it_becomes_in_the_whole(retouch, corner: tuple[int, int]):
    top, left = corner
    frames, figure = torch.rand(1, 3, 192, 256) * 2 - 1, square(slice(top, top + 40), slice(left, left + 40))
    rows, columns = (
        slice(max(0, (at - retouch.margin) // 8 * 8), at + 40 + retouch.margin // 8 * 8 + 8) for at in corner
    )
    whole, part = (
        retouch(frames, figure, figure[:, 3:]),
        retouch(*(each[..., rows, columns] for each in (frames, figure, figure[:, 3:]))),
    )
    # how far the whole figure is off is the same mean, summed in another order
    assert torch.allclose(part, whole[..., rows, columns], atol=1e-4)


def test_at_the_beginning_a_figure_that_is_there_is_taken_and_another_is_not():
    network, figure = Retouch(RetouchSpec()), square(slice(80, 120), slice(100, 140))
    soft = torch.nn.functional.avg_pool2d(figure, 9, 1, 4)
    for order, taken in (((0, 1, 2), True), ((2, 0, 1), False)):
        colours = soft[:, order]
        drawn = (network(colours * 2 - 1, figure, figure[:, 3:]) + 1) / 2
        before, after = ((each - figure[:, :3])[..., 82:118, 102:138].abs().mean() for each in (colours, drawn))
        assert after < before * 0.7 if taken else after > before * 0.9, (before, after)


def test_figures_take_the_light_that_the_frames_show():
    figure, light = square(slice(40, 160), slice(40, 200)), torch.tensor([0.6, 0.8, 1.0]).view(1, 3, 1, 1)
    figure[:, 1:3] = figure[:, :1] / 2
    frames = (figure[:, :3] * light) * 2 - 1
    shown = lit(figure[None], light_on(frames[None], figure[None]))[0]
    assert torch.allclose(shown[:, :3], figure[:, :3] * light, atol=0.02)
    assert torch.equal(shown[:, 3:], figure[:, 3:])
