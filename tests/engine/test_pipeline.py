"""Levels in windows: what a window's network is shown of what is there already."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sora_cli.engine.backbones import Condition, Place, Text
from sora_cli.engine.canvas import Level
from sora_cli.engine.denoiser import Network
from sora_cli.engine.job import LatentFile
from sora_cli.engine.pipeline import Conditioning, Sampler, Stage, denoise_level
from sora_cli.engine.schedule import flow_schedule
from sora_weights.spec import FlowSpec, Grid

GRID = Grid(space=8, patch=16, time=4)
FLOW = FlowSpec(window=5, context=1, reach=(4, 4), overlap=(2, 2))
WORDS = (torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool))


class Watching:
    """A network that expects whatever its first frame shows, and notes what it was asked."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        self.asked: list[tuple[Place, int, int]] = []

    def bind(self, text: Text, place: Place, condition: Condition | None) -> Network:
        def network(x: Tensor, timesteps: Tensor) -> Tensor:
            self.asked.append((place, x.shape[2], int((timesteps == 0).sum())))
            return x[:, :, :1].expand_as(x)

        return network


def drawn(folder: Path, flow: FlowSpec, frames: int) -> tuple[Watching, Tensor]:
    """What was asked for a video of `frames` latent frames, and its latents."""
    watching = Watching()
    sampler = Sampler(
        backbone=watching,
        words=Conditioning(WORDS, WORDS),
        grid=GRID,
        fps=float(Fraction(24)),
        flow=flow,
        generator=torch.Generator().manual_seed(0),
    )
    stage = Stage(Level(32, 32), flow_schedule(2, scale=1.0), "euler", "x0", 1.0, flow.context)
    latents = LatentFile(folder / "x.latents", frames, (3, 4, 4))
    denoise_level(sampler, stage, latents, None, lambda *told: None)
    return watching, latents.read(0, frames)


def test_an_anchored_window_sees_the_videos_beginning(tmp_path: Path):
    flow = replace(FLOW, anchored=True)
    watching, latents = drawn(tmp_path, flow, 12)
    later = [asked for asked in watching.asked if asked[0].span.start > flow.context]
    assert later
    for place, frames, known in later:
        assert place.anchor
        assert frames == 1 + place.span.stop - place.span.start
        assert known == 1 + flow.context
    assert latents.std(2).max() < 1e-6  # so all later frames are what the first one is


@pytest.mark.parametrize("frames", [1, 4, 12])
def test_without_an_anchor_a_window_sees_its_context_alone(tmp_path: Path, frames: int):
    watching, latents = drawn(tmp_path, FLOW, frames)
    for place, seen, known in watching.asked:
        assert not place.anchor
        assert seen == place.span.stop - place.span.start
        assert known == seen - place.span.new
    assert torch.isfinite(latents).all()
