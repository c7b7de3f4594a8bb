"""The denoiser of courses: poses come back as they were, known ones stay, and words that are not real don't matter."""

import pytest
import torch

from sora_cli.model.course import NUMBERS, Course, shape_of
from sora_cli.model.tracing import Pose
from sora_weights.spec import DiTSpec


@pytest.fixture(scope="module")
def course() -> Course:
    torch.manual_seed(0)
    return Course(DiTSpec(text_width=6, course_width=16, course_depth=2)).eval().requires_grad_(False)


def arguments(frames: int) -> tuple[torch.Tensor, ...]:
    words, seen = torch.randn(1, 5, 6), torch.tensor([[True, True, True, False, False]])
    return words, seen, torch.arange(frames)[None] / 6, shape_of(320, 180, 6.0)[None]


def test_a_pose_and_a_camera_come_back_as_they_were():
    pose = Pose(*torch.rand(6, 2, 7).add(0.1).unbind(0))
    sides = torch.tensor([0.0, 1.0])[:, None].expand(2, 7)
    pose = Pose(pose.x, pose.y, pose.size, sides, torch.ones(2, 7), torch.zeros(2, 7))
    camera = torch.randn(2, 3, 7)
    numbers = Course.numbers(pose, camera)
    back = Course.pose(numbers)
    assert torch.allclose(Course.camera(numbers), camera, atol=1e-6)
    for name in Pose.__slots__:
        assert torch.allclose(getattr(back, name), getattr(pose, name), atol=1e-6)


def test_what_is_known_comes_back_and_is_seen_by_the_rest(course):
    x, times = torch.randn(1, NUMBERS, 7, 1, 1), torch.tensor([[0.0, 0.0, 0.8, 0.8, 0.8, 0.8, 0.8]])
    clean = course(x, times, *arguments(7))
    assert torch.allclose(clean[:, :, :2], x[:, :, :2], atol=1e-6)
    other = x.clone()
    other[:, :, 0] += 1
    assert (course(other, times, *arguments(7)) - clean)[:, :, 2:].abs().max() > 1e-4


def test_words_that_are_not_real_do_not_matter(course):
    x, times = torch.randn(1, NUMBERS, 7, 1, 1), torch.full((1, 7), 0.5)
    words, seen, seconds, shape = arguments(7)
    others = torch.where(seen[..., None], words, 9.0)
    assert torch.allclose(course(x, times, words, seen, seconds, shape), course(x, times, others, seen, seconds, shape))
    nothing = torch.zeros_like(seen)
    assert torch.isfinite(course(x, times, words, nothing, seconds, shape)).all()
