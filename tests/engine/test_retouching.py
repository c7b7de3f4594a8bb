"""Figures drawn sharp in a board's frames: those that are there, when they are there, wherever they stand."""

import pytest
import torch

from sora_cli.engine import retouching
from sora_cli.engine.canvas import Level
from sora_cli.engine.retouching import CLEARING, NOBODY, Sharpened
from sora_cli.model.artwork import Drawn, halved
from sora_cli.model.retouch import Retouch, light_on, lit
from sora_cli.model.tracing import Actor, Area, Pose, figure_pixels

LEVEL = Level(160, 96)


@pytest.fixture
def artwork() -> Drawn:
    """A red figure of one picture and a blue one of two."""
    pictures = torch.zeros(3, 4, 32, 32)
    pictures[0, 0], pictures[1:, 2], pictures[:, 3] = 255, 255, 255
    return Drawn(halved(pictures.byte()), torch.tensor([0, 1]))


def cast(x: float, figure: float, frames: int = 3, y: float = 0.5, size: float = 0.25) -> torch.Tensor:
    """One that stands still, (1, 7, t, 1, 1)."""
    numbers = torch.tensor([x, y, size, 0.0, 1.0, 0.0, figure])
    return numbers.view(1, 7, 1, 1, 1).expand(-1, -1, frames, -1, -1).clone()


def whole(retouch: Retouch, artwork: Drawn, casts: list[torch.Tensor], frame: torch.Tensor) -> torch.Tensor:
    """The frame with figures that stand still, drawn in the whole picture at once."""
    area = Area(
        *((torch.arange(count)[None] + 0.5) * 8 for count in (20, 12)), torch.tensor([160.0]), torch.tensor([96.0])
    )
    actors = [
        Actor(
            [Pose.of(each[:, :-1, :1])],
            lambda _, level, who=int(each[0, -1, 0]): (
                artwork.pictures(level, torch.tensor([who]), torch.tensor([0])).float() / 255
            ),
            32,
        )
        for each in casts
    ]
    figure = figure_pixels(actors, 0, 0, 8, area)
    shown = lit(figure[None], light_on(frame[None, None], figure[None]))[0]
    return retouch(frame[None], shown, figure[:, 3:], None, CLEARING)[0].clamp(-1, 1)


@pytest.mark.parametrize("places", [[(0.3, 0.5)], [(0.02, 0.9)], [(0.3, 0.5), (0.7, 0.4)], [(0.45, 0.5), (0.55, 0.5)]])
def test_figures_are_drawn_as_they_would_be_in_the_whole_frame(retouch, artwork, places):
    casts = [cast(x, figure, y=y) for figure, (x, y) in enumerate(places)]
    frame = torch.rand(3, 96, 160) * 2 - 1
    expected = whole(retouch, artwork, casts, frame)
    Sharpened(retouch, artwork, 32, LEVEL, casts, 24.0).draw(drawn := frame.clone(), 0)
    assert (drawn - frame).abs().max() > 0.1
    assert torch.allclose(drawn, expected, atol=0.02)  # figures are kept in bytes


def test_strips_are_what_the_whole_frame_is(retouch, artwork, monkeypatch):
    frame, drawn = torch.rand(3, 96, 160) * 2 - 1, []
    for at_once in (2**18, 2**11):
        monkeypatch.setattr(retouching, "STRIP", at_once)
        Sharpened(retouch, artwork, 32, LEVEL, [cast(0.4, 0.0, size=0.5)], 24.0).draw(made := frame.clone(), 0)
        drawn.append(made)
    assert (drawn[0] - frame).abs().max() > 0.1
    assert torch.allclose(*drawn, atol=1e-5)


def test_who_is_not_there_is_not_drawn(retouch, artwork):
    away, nobody = cast(0.5, 0.0), cast(0.5, NOBODY)
    away[:, 4] = 0
    for numbers in (away, nobody, cast(3.0, 0.0)):
        frame = torch.rand(3, 96, 160) * 2 - 1
        Sharpened(retouch, artwork, 32, LEVEL, [numbers], 24.0).draw(drawn := frame.clone(), 0)
        assert torch.equal(drawn, frame)


def test_a_figure_is_drawn_in_the_frames_that_show_it(retouch, artwork):
    """It comes with the second latent frame, which holds frames 1 to 4, and has left with the third."""
    numbers = cast(0.5, 1.0)
    numbers[:, 4, (0, 2)] = 0
    sharpened = Sharpened(retouch, artwork, 32, LEVEL, [numbers], 24.0)
    changed = []
    for at in range(9):
        frame = torch.zeros(3, 96, 160)
        sharpened.draw(drawn := frame.clone(), at)
        changed.append(not torch.equal(drawn, frame))
    assert changed == [False, True, True, True, True, False, False, False, False]
