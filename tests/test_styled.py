"""Styles end to end: painted over what is drawn, over a clip that nothing else is asked of, and nowhere else."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sora_cli.media.writer import open_writer

FAST = ("--size", "64x48", "--steps", 1, "--seed", 1)


def read(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture
def clip(folder: Path) -> np.ndarray:
    """A clip of coloured noise, and its frames."""
    frames = np.random.default_rng(0).integers(0, 256, (7, 48, 64, 3), np.uint8)
    with open_writer(
        folder / "clip.mkv", width=64, height=48, fps=Fraction(24), frames=7, metadata=None, force=True
    ) as writer:
        for frame in frames:
            writer.write(frame)
    return frames


def test_a_styled_video_is_the_plain_one_painted(sora: Callable[..., Any], folder: Path):
    plain = sora("generate", "a cat at sunset", *FAST, "--frames", 5, "-o", "plain.mkv")
    styled = sora("generate", "a black and white video of a cat at sunset", *FAST, "--frames", 5, "-o", "styled.mkv")
    assert (plain.code, styled.code) == (0, 0), styled.err
    assert "never taught" not in styled.err
    assert "black and white: painted over what diorama draws" in styled.err
    grey = read(folder / "styled.mkv")
    assert (grey == grey[..., :1]).all()
    assert not (read(folder / "plain.mkv") == grey).all()


def test_a_clip_of_which_only_a_style_is_asked_is_not_drawn(sora: Callable[..., Any], folder: Path, clip: np.ndarray):
    run = sora("edit", "clip.mkv", "in black and white", "-o", "grey.mkv", "--json")
    assert run.code == 0, run.err
    assert "draft" not in run.json["timings"]
    assert any("nothing is drawn, so --strength doesn't matter" in note for note in run.json["notes"])
    made, luma = read(folder / "grey.mkv").astype(float), clip @ np.array([0.2126, 0.7152, 0.0722])
    assert made.shape == clip.shape
    assert np.corrcoef(made[..., 1].ravel(), luma.ravel())[0, 1] > 0.99  # each pixel its own, not decoded


def test_beside_given_frames_a_style_is_named_and_left_out(sora: Callable[..., Any], folder: Path, clip: np.ndarray):
    run = sora("extend", "clip.mkv", "a cat, pixel art", "--seconds", 0.2, "--steps", 1, "--seed", 1, "-o", "x.mkv")
    assert run.code == 0, run.err
    assert "pixel art: styles are painted over all frames" in run.err
    assert (read(folder / "x.mkv")[:7] == clip).all()


@pytest.mark.parametrize("prompt", ["make it ink", "turn this into pixel art, please", "watercolor"])
def test_plain_words_for_a_style_alone_paint_the_clip(
    sora: Callable[..., Any], folder: Path, clip: np.ndarray, prompt: str
):
    run = sora("edit", "clip.mkv", prompt, "-o", "painted.mkv", "--dry-run", "--json")
    assert run.code == 0, run.err
    assert all(level["steps"] == 0 for level in run.json["data"]["levels"])


def test_a_clip_goes_on_from_a_styled_one_without_its_word(sora: Callable[..., Any], folder: Path):
    made = sora("generate", "a cat at sunset, ink", *FAST, "--frames", 9, "-o", "ink.mkv")
    run = sora("extend", "ink.mkv", "--seconds", 0.2, "--steps", 1, "--seed", 1, "-o", "longer.mkv", "--json")
    assert (made.code, run.code) == (0, 0), run.err
    assert not any("never taught" in note or "styles are" in note for note in run.json["notes"])


def test_the_style_is_part_of_what_is_replayed(sora: Callable[..., Any], folder: Path):
    made = sora("generate", "a cat, ink", *FAST, "--frames", 1, "-o", "a.png")
    again = sora("generate", "--from", "a.png", "-o", "b.png")
    assert (made.code, again.code) == (0, 0), again.err
    assert (read(folder / "a.png") == read(folder / "b.png")).all()
