"""Levels in windows: what a window's network is shown of what is there already."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sora_cli.engine.backbones import Condition, DioramaBackbone, Place, Text
from sora_cli.engine.canvas import Level
from sora_cli.engine.denoiser import Network
from sora_cli.engine.job import LatentFile
from sora_cli.engine.pipeline import (
    Conditioning,
    Sampler,
    Stage,
    denoise_level,
    find_poses,
    words_at,
)
from sora_cli.engine.reel import Span
from sora_cli.engine.schedule import flow_schedule
from sora_cli.model.dit import DiT
from sora_weights.spec import DiTSpec, FlowSpec, Grid

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

    def detail(self, x0: Tensor) -> float:
        return x0.abs().max().item()


def drawn(folder: Path, flow: FlowSpec, frames: int, poses: LatentFile | None = None) -> tuple[Watching, Tensor]:
    """What was asked for a video of `frames` latent frames, and its latents."""
    watching = Watching()
    sampler = Sampler(
        backbone=watching,
        words=Conditioning(WORDS, WORDS),
        grid=GRID,
        fps=float(Fraction(24)),
        flow=flow,
        generator=torch.Generator().manual_seed(0),
        poses=poses,
    )
    stage = Stage(Level(32, 32), flow_schedule(2, scale=1.0), "euler", "x0", 1.0, flow.context)
    latents = LatentFile(folder / "x.latents", frames, (3, 4, 4))
    denoise_level(sampler, stage, latents, None, lambda *told: None)
    return watching, latents.read(0, frames)


@pytest.mark.parametrize("frames", [1, 4, 12])
def test_a_window_sees_its_context(tmp_path: Path, frames: int):
    watching, latents = drawn(tmp_path, FLOW, frames)
    for place, seen, known in watching.asked:
        assert seen == place.span.stop - place.span.start
        assert known == seen - place.span.new
    assert torch.isfinite(latents).all()


def test_windows_of_an_enlarged_picture_that_are_smooth_stay_as_they_are(tmp_path: Path):
    watching, level = Watching(), Level(96, 32)
    sampler = Sampler(watching, Conditioning(WORDS, WORDS), GRID, 24.0, FLOW, torch.Generator().manual_seed(0))
    stage = Stage(level, flow_schedule(2, start=0.5, scale=1.0), "euler", "x0", 1.0, FLOW.context, smooth=0.5)
    start, latents = (LatentFile(tmp_path / name, 5, (3, 4, 12)) for name in ("start", "latents"))
    enlarged = torch.rand(1, 3, 5, 4, 12, generator=torch.Generator().manual_seed(1)) * 0.4
    enlarged[..., 10:] += 1
    start.write(0, enlarged)
    denoise_level(sampler, stage, latents, start, lambda *told: None)
    assert {(place.window.w.start, place.window.w.stop) for place, _, _ in watching.asked} == {(8, 12)}
    drawn = latents.read(0, 5)
    assert torch.allclose(drawn[..., :8], enlarged[..., :8], atol=1e-6)
    assert not torch.allclose(drawn[..., 10:], enlarged[..., 10:], atol=0.1)


def test_dioramas_network_tells_smooth_latents_from_others():
    spec = DiTSpec(channels=8, width=32, depth=1, heads=2, conv_width=8, text_width=6, text_tokens=1, artwork=16)
    backbone = DioramaBackbone(DiT(spec), GRID)
    x0 = torch.zeros(1, 8, 3, 4, 4)
    x0[:, :6] = torch.randn(1, 6, 3, 4, 4)  # colours and slopes
    assert backbone.detail(x0) == 0
    x0[0, 7, 1, 2, 3] = 2.0  # one latent of one frame: half of the energy of one channel in two, a quarter of four
    assert backbone.detail(x0) == pytest.approx(4 / 2 / 4)


def test_words_say_nothing_of_a_camera_that_the_network_is_told_of(tmp_path: Path):
    said, silent = ((torch.full((1, 1, 1), value), WORDS[1]) for value in (1.0, 2.0))
    sampler = Sampler(Watching(), Conditioning(said, WORDS, silent), GRID, 24.0, FLOW, torch.Generator())
    filmed = replace(sampler, camera=LatentFile(tmp_path / "camera", 5, (4, 1, 1)))
    unsaid = replace(filmed, words=Conditioning(said, WORDS))
    (figure,) = replace(filmed, poses=LatentFile(tmp_path / "poses", 5, (6, 1, 1))).cast
    assert figure.text is silent
    assert [words_at(each, Span(0, 5, 0, 5), 5).prompt[0].item() for each in (sampler, filmed, unsaid)] == [1, 2, 1]


def test_a_window_is_told_the_poses_of_its_own_frames(tmp_path: Path):
    poses = LatentFile(tmp_path / "poses", 12, (6, 1, 1))
    poses.write(0, torch.arange(12.0).view(1, 1, 12, 1, 1).expand(1, 6, 12, 1, 1))
    watching, _ = drawn(tmp_path, FLOW, 12, poses)
    for place, _, _ in watching.asked:
        there = [float(index) for index in range(place.span.start, place.span.stop)]
        (figure,) = place.figures
        assert figure.pose.x[0].tolist() == there


def test_every_frame_of_a_draft_has_a_pose_and_it_is_always_the_same(tmp_path: Path):
    torch.manual_seed(0)
    spec = DiTSpec(channels=4, width=32, depth=2, heads=2, conv_width=8, text_width=1, text_tokens=1, artwork=16)
    sampler = Sampler(
        DioramaBackbone(DiT(spec), GRID), Conditioning(WORDS, WORDS), GRID, 24.0, FLOW, torch.Generator().manual_seed(0)
    )
    latents = LatentFile(tmp_path / "x.latents", 12, (4, 4, 4))
    latents.write(0, torch.randn(1, 4, 12, 4, 4))
    found = []
    for turn in range(2):
        poses = LatentFile(tmp_path / f"poses{turn}", 12, (6, 1, 1))
        find_poses(sampler, Level(32, 32), latents, poses)
        found.append(poses.read(0, 12))
    assert torch.equal(*found)
    assert torch.isfinite(found[0]).all()
    assert (found[0][:, 2] > 0).all()
