"""The built-in model's camera: it stands still unless words move it, and goes where they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from sora_cli.engine.canvas import Level
from sora_cli.engine.courses import plan_camera
from sora_cli.engine.devices import choose_precision
from sora_cli.engine.networks import load_backbone
from sora_cli.engine.pipeline import Sampler, encode_words
from sora_weights.families.diorama import FAMILY
from sora_weights.registry import find_model

FRAMES = 13
Planned = Callable[..., torch.Tensor]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """The camera that a prompt and a seed move: how far it looks across and down and sees, and sees of what is near,
    (4, t).
    """
    model, cache = find_model("diorama"), tmp_path_factory.mktemp("texts")
    precision = choose_precision("float32", "cpu", model)
    backbone = load_backbone(model, "cpu", precision)

    def plan(prompt: str, seed: int) -> torch.Tensor:
        words = encode_words(model, prompt, "", cache, "cpu", precision)
        sampler = Sampler(backbone, words, model.grid, 24.0, FAMILY.flow, torch.Generator())
        return plan_camera(sampler, Level(160, 96), FRAMES, seed)[0, [0, 1, 2, 4]]

    return plan


@pytest.mark.parametrize("prompt", ["a cat at sunset", "a car moving left", "a man coming towards the camera"])
def test_without_a_word_it_is_not_planned(prompt: str, tmp_path: Path):
    model = find_model("diorama")
    words = encode_words(model, prompt, "", tmp_path, "cpu", choose_precision("float32", "cpu", model))
    assert words.filming is words.unfilmed is None


@pytest.mark.parametrize("words", ["static camera", "the camera is still"])
def test_it_stands_still_if_words_say_so(planned: Planned, words: str):
    assert [planned(f"a cat at sunset, {words}", seed).abs().max().item() for seed in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("words", "row", "sign"),
    [
        ("the camera pans right", 0, 1),
        ("the camera pans left", 0, -1),
        ("the camera tilts down", 1, 1),
        ("the camera tilts up", 1, -1),
        ("the camera zooms in", 2, -1),
        ("the camera zooms out", 2, 1),
        ("dolly in", 2, -1),
        ("the camera pulls back", 2, 1),
    ],
)
def test_it_goes_where_words_say(planned: Planned, words: str, row: int, sign: int):
    for seed in range(3):
        camera = planned(f"a car driving to the left, {words}", seed)
        gone = (camera[:, -1] - camera[:, 0]) * sign
        assert gone[row] > 0.02
        assert gone[row] > 2 * (gone[:3] * (torch.arange(3) != row)).abs().max()


def test_who_drives_passes_what_is_near_sooner_than_what_is_far_and_who_zooms_does_not(planned: Planned):
    for seed in range(3):
        for words, least, most in (("zooms in", 1, 1), ("zooms out", 1, 1), ("moves in", 2, 5), ("pulls back", 2, 5)):
            camera = planned(f"a cat at sunset, the camera {words}", seed)
            share = (camera[3] / camera[2])[camera[2].abs() > 1e-3]
            assert (share >= least - 1e-3).all()
            assert (share <= most + 1e-3).all()


def red(path: str) -> list[tuple[float, float]]:
    """Where a ladybug's red is in each frame, from 0 at the left to 1 at the right, and its share of the picture."""
    with av.open(path) as video:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]).astype(float)
    there = frames[..., 0] > 1.6 * frames[..., 1:].max(-1)
    return [(float(np.nonzero(each)[1].mean()) / each.shape[1], float(each.mean())) for each in there]


@pytest.mark.parametrize(
    ("prompt", "across", "larger"),
    [
        ("a ladybug standing still in the snow, the camera pans left", 1, 0),
        ("a ladybug and a penguin standing still in the snow, the camera pans right", -1, 0),
        ("a ladybug standing still in the snow, the camera zooms in", 0, 1),
        ("a ladybug standing still in the snow, static camera", 0, 0),
    ],
)
def test_figures_are_seen_as_the_camera_moves(sora: Callable[..., Any], prompt: str, across: int, larger: int):
    run = sora("generate", prompt, "--size", "160x96", "--frames", 41, "-o", "clip.mkv", "--seed", 2, "-q")
    assert run.code == 0, run.err
    (began, small), *_, (ended, large) = red("clip.mkv")
    assert (ended - began) * across > 0.02 if across else abs(ended - began) < 0.04
    assert large / small > 1.1 if larger else 0.8 < large / small < 1.25
