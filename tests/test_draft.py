"""Drafts and their finals, through the command line with the real model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CAT = ("generate", "a cat in the snow", "--steps", 6, "--seed", 4, "-q")


def picture(path: Path, size: tuple[int, int] = (40, 22)) -> np.ndarray:
    """An image at a small size, float (h, w, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX), dtype=float)


def test_a_final_has_the_size_asked_for_and_the_composition_of_its_draft(sora: Callable[..., Any], folder: Path):
    draft = sora(*CAT, "--size", "320x180", "--draft", "-o", "draft.png", "--json")
    assert draft.code == 0, draft.err
    (output,) = draft.json["outputs"]
    assert (output["width"], output["height"]) == (160, 90)
    final = sora("generate", "--from", "draft.png", "--size", "400x225", "-o", "final.png", "--json")
    assert final.code == 0, final.err
    (output,) = final.json["outputs"]
    assert (output["width"], output["height"]) == (400, 225)
    assert sora(*CAT[:-2], 5, "-q", "--size", "400x225", "-o", "other.png").code == 0
    made, same, other = (picture(folder / name) for name in ("draft.png", "final.png", "other.png"))
    assert np.abs(made - same).mean() < 0.7 * np.abs(made - other).mean()


def test_a_draft_replays_as_a_draft_and_a_final_as_a_final(sora: Callable[..., Any], folder: Path):
    assert sora(*CAT, "--size", "320x180", "--draft", "-o", "draft.png").code == 0
    assert sora("generate", "--from", "draft.png", "-o", "again.png", "-q").code == 0
    assert np.array_equal(picture(folder / "draft.png", (160, 90)), picture(folder / "again.png", (160, 90)))
    assert sora("generate", "--from", "draft.png", "--size", "240x136", "-o", "final.png", "-q").code == 0
    assert sora("generate", "--from", "final.png", "-o", "twice.png", "-q").code == 0
    assert np.array_equal(picture(folder / "final.png", (240, 136)), picture(folder / "twice.png", (240, 136)))


def test_a_final_is_not_smaller_than_its_draft(sora: Callable[..., Any]):
    assert sora(*CAT, "--size", "320x180", "--draft", "-o", "draft.png").code == 0
    run = sora("generate", "--from", "draft.png", "--size", "96x54", "-o", "final.png")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "160x90" in run.err


def test_frames_drawn_beside_a_clip_have_its_size_also_in_a_draft(sora: Callable[..., Any]):
    made = sora("generate", "a fish underwater", "--size", "320x180", "--frames", 9, "--steps", 1, "-o", "c.mkv", "-q")
    assert made.code == 0, made.err
    run = sora("extend", "c.mkv", "--frames", 8, "--steps", 2, "--draft", "-o", "long.mkv", "-q", "--json")
    assert run.code == 0, run.err
    (output,) = run.json["outputs"]
    assert (output["width"], output["height"], output["frames"]) == (320, 180, 17)
    assert not any(stage.startswith("refine") for stage in run.json["timings"])


def test_the_plan_of_a_draft_has_one_level(sora: Callable[..., Any]):
    told = sora(*CAT, "--size", "1080p", "--draft", "--dry-run", "--json").json
    (level,) = told["data"]["levels"]
    assert level["width"] * level["height"] < 200 * 120
