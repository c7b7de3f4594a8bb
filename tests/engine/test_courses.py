"""Courses: every latent frame gets a pose, known figures stay where they are, and a seed always gives the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_cli.engine.backbones import DioramaBackbone, Place
from sora_cli.engine.canvas import Level
from sora_cli.engine.courses import animated, plan_camera, plan_course
from sora_cli.engine.denoiser import Window
from sora_cli.engine.job import LatentFile
from sora_cli.engine.pipeline import Conditioning, Sampler
from sora_cli.engine.reel import Span
from sora_cli.model.artwork import Drawn, halved
from sora_cli.model.dit import DiT, seconds_of
from sora_weights.families.diorama import FAMILY
from sora_weights.spec import DiTSpec, Grid

GRID = Grid(space=8, patch=16, time=4)
SPEC = DiTSpec(
    channels=4, width=32, depth=2, heads=2, conv_width=8, text_width=6, text_tokens=2, artwork=16, course_width=16
)
LEVEL = Level(64, 32)


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    torch.manual_seed(0)
    words = torch.randn(1, 2, 6), torch.ones(1, 2, dtype=torch.bool)
    network = DiT(SPEC).requires_grad_(False)
    pictures = torch.randint(256, (SPEC.figures, 4, 16, 16), dtype=torch.uint8)
    network.memory.artwork = Drawn(halved(pictures), torch.arange(SPEC.figures))
    backbone = DioramaBackbone(network, GRID)
    return Sampler(backbone, Conditioning(words, words, words, words), GRID, 24.0, FAMILY.flow, torch.Generator())


def planned(folder: Path, sampler: Sampler, known: list[bool], seed: int = 0) -> torch.Tensor:
    """The poses of a video of which some latent frames are known, all of them random."""
    folder.mkdir(exist_ok=True)
    latents = LatentFile(folder / "x.latents", len(known), (4, 4, 8))
    latents.write(0, torch.randn(1, 4, len(known), 4, 8, generator=torch.Generator().manual_seed(1)))
    poses = LatentFile(folder / "poses", len(known), (6, 1, 1))
    plan_course(sampler, LEVEL, latents, poses, known, seed)
    return poses.read(0, len(known))


@pytest.mark.parametrize("frames", [1, 2, 13, 150])
def test_every_latent_frame_gets_a_pose_that_follows_from_the_seed(tmp_path: Path, sampler: Sampler, frames: int):
    poses, again, other = (
        planned(tmp_path / str(turn), sampler, [False] * frames, seed) for turn, seed in enumerate((3, 3, 4))
    )
    assert torch.isfinite(poses).all()
    assert (poses[:, 2] > 0).all()
    assert (poses[:, 4] == 1).all()
    assert torch.equal(poses, again)
    assert not torch.equal(poses, other)


@pytest.mark.parametrize("frames", [1, 13, 150])
def test_every_latent_frame_gets_a_camera_that_follows_from_the_seed(sampler: Sampler, frames: int):
    first, again, other = (plan_camera(sampler, LEVEL, frames, seed) for seed in (3, 3, 4))
    assert first.shape == (1, 5, frames)
    assert torch.isfinite(first).all()
    assert (first[:, 3] == 1).all()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_camera_that_hardly_moves_stands_still(sampler: Sampler, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sora_cli.engine.courses.UNMOVED", 1e9)
    assert plan_camera(sampler, LEVEL, 7, 0)[:, :3].abs().max() == 0


def test_without_a_word_a_camera_is_at_rest(sampler: Sampler):
    unsaid = replace(sampler, words=Conditioning(sampler.words.prompt, sampler.words.negative))
    assert plan_camera(unsaid, LEVEL, 9, 0)[0].tolist() == [[0.0] * 9] * 3 + [[1.0] * 9, [0.0] * 9]


def test_what_is_near_is_left_behind_at_least_as_soon_as_what_is_far(sampler: Sampler):
    for frames in (1, 13, 40):
        far, near = plan_camera(sampler, LEVEL, frames, 0)[0, [2, 4]]
        share = (near / far)[far.abs() > 1e-3]
        assert torch.allclose(share, share[:1])
        assert (share >= 1).all()


def test_known_figures_stay_where_the_network_sees_them(tmp_path: Path, sampler: Sampler):
    known = [True] * 4 + [False] * 9 + [True] * 4
    poses = planned(tmp_path, sampler, known)
    assert torch.isfinite(poses).all()
    latents = LatentFile(tmp_path / "x.latents", len(known), (4, 4, 8))
    assert isinstance(sampler.backbone, DioramaBackbone)
    whole = Window(slice(None), slice(None), slice(None))
    for start, stop in ((0, 4), (13, 17)):
        x = latents.read(start, stop)
        place = Place(LEVEL, whole, Span(start, stop, start, stop), 24.0)
        seen = sampler.backbone.pose(x, torch.zeros(1, stop - start), sampler.words.prompt, place)
        assert torch.allclose(poses[:, :5, start:stop], seen.numbers()[:, :5], atol=0.02)


@settings(deadline=None)
@given(
    known=st.lists(st.booleans(), min_size=2, max_size=20),
    loop=st.floats(0.5, 4),
    begun=st.floats(-3, 3),
    fps=st.sampled_from((8.0, 24.0, 120.0)),
)
def test_an_animation_goes_on_evenly_and_arrives_as_it_is_known(
    known: list[bool], loop: float, begun: float, fps: float
):
    seconds, there = seconds_of(0, len(known), fps, 4), torch.tensor(known)
    apart = torch.linspace(0, 1, len(known))
    told = torch.where(there, begun + seconds + apart, 0.0)
    moments = animated(told, seconds, there, loop, begun)
    assert torch.equal(moments[there], told[there])
    if not any(known):
        assert torch.allclose(moments, seconds + begun)
        return
    first, last = known.index(True), len(known) - 1 - known[::-1].index(True)
    for beside in (moments[: first + 1] - seconds[: first + 1], moments[last:] - seconds[last:]):
        assert torch.allclose(beside, beside[:1].expand_as(beside), atol=1e-4)
    between = [index for index in range(first, last) if not known[index]]
    for index in between:
        left = max(k for k in range(index) if known[k])
        right = min(k for k in range(index, len(known)) if known[k])
        off = moments[index] - told[left] - (seconds[index] - seconds[left])
        share = (seconds[index] - seconds[left]) / (seconds[right] - seconds[left])
        assert off.abs() <= share * loop / 2 + 1e-3  # the pace is the usual one but for half a turn by the end
