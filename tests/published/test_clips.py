"""Commands on clips with published models, which are not told of known frames: these are pinned, and a note says so."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sora_cli.media.writer import open_writer


def clip(path: Path, frames: int = 14) -> np.ndarray:
    made = np.random.default_rng(0).integers(0, 255, (frames, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    with open_writer(path, width=64, height=48, fps=Fraction(8), frames=frames, metadata=None, force=True) as writer:
        for frame in made:
            writer.write(frame)
    return made


def read(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("name", ["wan", "cogvideox-2b"])
@pytest.mark.parametrize(
    ("command", "frames", "own"),
    [
        (("extend", "clip.mkv", "--frames", 5), 19, slice(0, 14)),
        (("extend", "clip.mkv", "--backward", "--frames", 5), 19, slice(5, 19)),
        (("loop", "clip.mkv", "--frames", 6), 20, slice(0, 14)),
        (("reconstruct", "clip.mkv"), 14, slice(0, 0)),
        (("edit", "clip.mkv", "a cat", "--strength", 0.5), 14, slice(0, 0)),
    ],
)
def test_clips_with_networks_that_pin(
    published: Callable[[str], Any],
    sora: Callable[..., Any],
    folder: Path,
    name: str,
    command: tuple[object, ...],
    frames: int,
    own: slice,
):
    before = clip(folder / "clip.mkv")
    steps = () if command[0] == "reconstruct" else ("--steps", 2)
    run = sora(*command, *steps, "--seed", 1, "--model", published(name).folder, "-o", "out.mkv", "--json")
    assert run.code == 0, run.err
    made = read(folder / "out.mkv")
    assert len(made) == frames
    assert (made[own] == before[own][: len(made[own])] if own.start == 0 else made[own] == before).all()
    assert ("pinned" in " ".join(run.json["notes"])) == (command[0] in ("extend", "loop"))


def test_models_of_pictures_refuse_clips(published: Callable[[str], Any], sora: Callable[..., Any], folder: Path):
    clip(folder / "clip.mkv")
    run = sora("extend", "clip.mkv", "--model", published("wan-i2v").folder)
    assert (run.code, "img2vid" in run.err) == (2, True)
