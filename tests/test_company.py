"""Two figures in one picture, and in what goes on from it."""

from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pytest


def shares(path: str) -> np.ndarray:
    """How much of the left and of the right half of each frame is a ladybug's red and how much a penguin's purple:
    (frames, half, colour).
    """
    with av.open(path) as video:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]).astype(float)
    red, green, blue = np.moveaxis(frames, -1, 0)
    colours = (red > 1.6 * np.maximum(green, blue)), (blue > red + 10) & (red > green + 20)
    return np.stack([[half.mean((1, 2)) for half in np.split(each, 2, axis=2)] for each in colours]).transpose(2, 1, 0)


@pytest.fixture
def pair(sora: Callable[..., Any]) -> str:
    """A ladybug on the left, a penguin on the right."""
    run = sora(
        "generate",
        "a ladybug and a penguin in the snow",
        "--size",
        "160x96",
        "--frames",
        9,
        "-o",
        "pair.mkv",
        "--seed",
        1,
        "-q",
    )
    assert run.code == 0, run.err
    return "pair.mkv"


def test_each_figure_that_a_prompt_names_has_its_place(pair: str):
    for (left_red, left_purple), (right_red, right_purple) in shares(pair):
        assert left_red > 3 * right_red
        assert right_purple > 3 * left_purple
        assert min(left_red, right_purple) > 0.04


@pytest.mark.parametrize("way", [(), ("--backward",)])
def test_both_go_on_where_a_clip_is_extended(sora: Callable[..., Any], pair: str, way: tuple[str, ...]):
    run = sora("extend", pair, "--frames", 8, *way, "-o", "long.mkv", "--seed", 3, "-q")
    assert run.code == 0, run.err
    before, after = shares(pair), shares("long.mkv")
    assert len(after) == 17
    for frame in after:
        assert np.abs(frame - before.mean(0)).max() < 0.08
