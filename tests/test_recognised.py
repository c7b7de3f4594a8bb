"""Beside given frames: what diorama knows goes on, what it doesn't know is held, and a note says which."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from sora_cli.media.writer import open_writer
from sora_cli.model.artwork import Filed
from sora_weights.registry import find_model

MODEL = find_model("diorama")
GOES_ON = "diorama sees this in the given frames, and goes on with it:"


def figure_of(name: str) -> Image.Image:
    """A figure of diorama's memory, 64x64, with transparency."""
    drawn = Filed(MODEL.parts["figures"], 256).pictures(2, torch.tensor([MODEL.figures.index(name)]), torch.tensor([0]))
    pixels = drawn[0].float()
    pixels[:3] *= 255 / pixels[3:].clamp(min=1)
    return Image.fromarray(pixels.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy(), "RGBA")


@pytest.fixture
def picture(folder: Path) -> Path:
    """A penguin in a plain snowy scene."""
    rows = np.linspace((153, 178, 209), (214, 227, 242), 96)
    rows[68:] = 245, 248, 255
    scene = Image.fromarray(np.repeat(rows[:, None], 160, 1).astype(np.uint8))
    penguin = figure_of("penguin")
    scene.paste(penguin, (48, 18), penguin)
    scene.save(folder / "penguin.png")
    return Path("penguin.png")


def frames_of(path: str) -> list[np.ndarray]:
    with av.open(path) as clip:
        return [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]


def test_a_known_figure_goes_on_without_words(sora: Callable[..., Any], picture: Path):
    run = sora("img2vid", picture, "--frames", 9, "--steps", 2, "-o", "out.mkv", "-q", "--json")
    assert run.code == 0, run.err
    assert any(note.startswith(f"{GOES_ON} a penguin") for note in run.json["notes"])
    assert not any(stage.startswith("hold") for stage in run.json["timings"])


def test_words_that_name_the_figure_need_no_note(sora: Callable[..., Any], picture: Path):
    run = sora("img2vid", picture, "a penguin in winter", "--frames", 5, "--steps", 1, "-o", "out.mkv", "-q", "--json")
    assert run.code == 0, run.err
    assert not any("given frames" in note for note in run.json["notes"])


def test_what_is_not_known_is_held_sharp(sora: Callable[..., Any], folder: Path):
    x, y = np.meshgrid(np.arange(320), np.arange(192))
    stripes = 128 + 60 * np.sin(x / 9) * np.cos(y / 14)
    Image.fromarray(np.stack([stripes, 255 - stripes, stripes / 2], -1).astype(np.uint8)).save("stripes.png")
    run = sora("img2vid", "stripes.png", "--frames", 17, "-o", "out.mkv", "-q", "--json")
    assert run.code == 0, run.err
    assert any("doesn't know what the given frames show" in note for note in run.json["notes"])
    assert [stage for stage in run.json["timings"] if stage.startswith(("draft", "refine", "hold"))] == ["hold 320x192"]
    first, *_, last = frames_of("out.mkv")
    assert np.abs(first.astype(float) - last).mean() < 8


@pytest.fixture
def clip(picture: Path) -> np.ndarray:
    """A clip of the penguin that stands still, losslessly; its only frame."""
    frame = np.asarray(Image.open(picture))
    with open_writer(
        Path("clip.mkv"), width=160, height=96, fps=Fraction(24), frames=9, metadata=None, force=True
    ) as writer:
        for _ in range(9):
            writer.write(frame)
    return frame


def mask(left: int, right: int) -> None:
    inside = np.zeros((96, 160), np.uint8)
    inside[8:92, left:right] = 255
    Image.fromarray(inside).save("mask.png")


def off(made: np.ndarray, wanted: np.ndarray, where: slice) -> float:
    """How far columns of a frame are off in the figure's rows, in levels."""
    return float(np.abs(made[18:82, where].astype(float) - wanted[18:82, where]).mean())


def test_a_figure_that_a_mask_cuts_goes_on_inside_it(sora: Callable[..., Any], clip: np.ndarray):
    mask(80, 150)
    run = sora("fill", "clip.mkv", "--mask", "mask.png", "-o", "out.mkv", "--seed", 0, "-q", "--json")
    assert run.code == 0, run.err
    assert any(note.startswith(f"{GOES_ON} a penguin") for note in run.json["notes"])
    without = np.repeat(clip[:, :1], 160, 1)
    for made in frames_of("out.mkv"):
        assert off(made, clip, slice(80, 112)) < 0.7 * off(without, clip, slice(80, 112))


def test_a_figure_inside_a_mask_gives_way_to_scenery(sora: Callable[..., Any], clip: np.ndarray):
    mask(40, 120)
    run = sora("fill", "clip.mkv", "--mask", "mask.png", "-o", "out.mkv", "--seed", 0, "-q", "--json")
    assert run.code == 0, run.err
    assert not any("penguin" in note for note in run.json["notes"])
    without = np.repeat(clip[:, :1], 160, 1)
    for made in frames_of("out.mkv"):
        assert off(made, without, slice(48, 112)) < off(clip, without, slice(48, 112)) / 2


def test_words_put_another_figure_inside_a_mask(sora: Callable[..., Any], clip: np.ndarray):
    mask(108, 156)
    run = sora("fill", "clip.mkv", "a ladybug", "--mask", "mask.png", "-o", "out.mkv", "--seed", 0, "-q", "--json")
    assert run.code == 0, run.err
    red = np.stack(frames_of("out.mkv"))[:, :, 112:152].astype(float)
    assert ((red[..., 0] > 1.5 * red[..., 1]).mean((1, 2)) > 0.05).all()


def test_edit_puts_another_figure_in_the_place_of_the_one_that_is_there(sora: Callable[..., Any], clip: np.ndarray):
    run = sora("edit", "clip.mkv", "a ladybug in winter", "--strength", 0.7, "-o", "out.mkv", "--seed", 0, "-q")
    assert run.code == 0, run.err
    made = np.stack(frames_of("out.mkv")).astype(float)
    red = made[..., 0] > 1.5 * made[..., 1:].max(-1)
    assert red[:, 18:82, 48:112].mean() > 0.05
    assert red[..., :40].mean() < 0.01
    purple = (made[..., 2] > made[..., 0] + 10) & (made[..., 0] > made[..., 1] + 20)
    assert purple.mean() < 0.01
