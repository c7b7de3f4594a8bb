"""Styles: the same pixels whatever the strip, still paper, few shades, and lines where shapes end."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_cli.engine import styles
from sora_cli.engine.styles import in_style
from sora_cli.engine.vocabulary import STYLES


def disc(height: int = 90, width: int = 121) -> np.ndarray:
    """A light disc on a dark ground that grows lighter to the right."""
    y, x = np.mgrid[:height, :width]
    inside = ((y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 3) ** 2)[..., None]
    ground = np.stack([x * 60 / width, 30 + 0 * x, 70 + x * 50 / width], -1)
    return np.where(inside, (250, 200, 90), ground).astype(np.uint8)


def one(frame: np.ndarray, name: str) -> np.ndarray:
    (made,) = in_style([frame], name)
    return made


@pytest.mark.parametrize("name", STYLES)
def test_a_strip_does_not_show(name: str, monkeypatch: pytest.MonkeyPatch):
    whole = one(disc(), name)
    assert whole.shape == disc().shape
    assert whole.dtype == np.uint8
    monkeypatch.setattr(styles, "STRIP", 121 * 7)
    assert np.abs(one(disc(), name).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("name", STYLES)
def test_a_frame_always_looks_the_same_and_another_than_it_did(name: str):
    frames = list(in_style([disc()] * 3, name))
    assert all((frame == frames[0]).all() for frame in frames)
    assert np.abs(frames[0].astype(int) - disc()).mean() > 3


@settings(max_examples=20)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(list(STYLES)))
def test_pictures_of_any_size_keep_it(height: int, width: int, name: str):
    assert one(np.full((height, width, 3), 90, np.uint8), name).shape == (height, width, 3)


def test_black_and_white_has_no_colour():
    made = one(disc(), "black and white")
    assert (made == made[..., :1]).all()


def test_pixel_art_has_large_pixels_of_few_shades():
    made = one(disc(120, 160), "pixel art")
    assert (made == made[::2, ::2].repeat(2, 0).repeat(2, 1)).all()
    assert len(np.unique(made)) <= styles.SHADES


def test_grain_does_not_make_large_pixels_flicker():
    rng = np.random.default_rng(0)
    noisy = [np.clip(disc().astype(int) + rng.integers(-2, 3, disc().shape), 0, 255).astype(np.uint8) for _ in range(8)]
    frames = np.stack(list(in_style(noisy, "pixel art")))
    assert (frames == frames[:1]).all(0).mean() > 0.995
    assert (frames == np.stack([one(frame, "pixel art") for frame in noisy])).mean() < 1  # or this would show nothing


def test_ink_draws_the_rim_of_a_shape_and_hatches_what_is_dark():
    made = one(disc(180, 240), "ink").mean(-1)
    middle = made[80:100, 110:130]
    assert middle.min() > 200  # what is light stays paper
    assert made[84:96, 170:185].min() < 80  # the rim is drawn at the right of the disc
    dark = made[5:30, 5:40]
    assert 0.3 < (dark < 128).mean() < 0.95


def test_watercolour_is_lighter_than_what_it_paints_and_even_in_itself():
    noise = np.random.default_rng(0).integers(-12, 13, (90, 121, 3))
    made = one(np.clip(disc().astype(int) + noise, 0, 255).astype(np.uint8), "watercolour")
    assert made.mean() > disc().mean()
    assert np.abs(np.diff(made[35:55, 50:70].astype(int), axis=1)).mean() < 6
