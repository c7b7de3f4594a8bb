"""Several figures in one picture: who is named, with which words, and that everybody has room."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sora_cli.engine.canvas import Level
from sora_cli.engine.company import (
    APART,
    MOST,
    Named,
    give_rooms,
    in_view,
    nouns_of,
    parts_of,
    parts_of_picture,
    prompts_of,
)
from sora_cli.engine.job import LatentFile
from sora_cli.model.tracing import Pose

FIGURES = {"cat": 0, "cats": 0, "dog": 1, "bear": 2, "owl": 3, "owls": 3, "duck": 4}


def named(text: str) -> Named:
    parts = parts_of(text)
    return prompts_of(parts, {word: FIGURES.get(word) for _, part in parts for word in part.split()})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat on the beach", []),
        ("a cat and its shadow", []),
        ("a cat and a cat", []),
        ("a cat and a dog", ["a cat", "a dog"]),
        ("a cat, a dog, and an owl jumping", ["a cat jumping", "a dog jumping", "an owl jumping"]),
        ("a cat and a dog,", ["a cat", "a dog"]),
        (",", []),
        ("and", []),
        ("a cat with no dog", []),
        ("a cat and a dog on the beach", ["a cat on the beach", "a dog on the beach"]),
        ("a cat on the beach and a dog", ["a cat on the beach", "a dog on the beach"]),
        ("a cat jumping and a dog moving left", ["a cat jumping", "a dog moving left"]),
        ("a cat, a dog and a teddy bear at night", ["a cat at night", "a dog at night", "a teddy bear at night"]),
        ("a cat jumping with a dog in a field, in winter", ["a cat jumping", "a dog in a field, in winter"]),
        ("a cat in front of a sunset with an owl", ["a cat in front of a sunset", "an owl in front of a sunset"]),
        ("A cat AND an owl", ["A cat", "an owl"]),
        ("two cats on the beach", ["cats on the beach"] * 2),
        ("Two cats and a dog at night", ["cats at night", "cats at night", "a dog at night"]),
        ("a dog with 3 owls", ["a dog", "owls", "owls"]),
        ("a cat with two eyes", []),
    ],
)
def test_each_figure_has_a_prompt_of_its_own(text: str, expected: list[str]):
    assert list(named(text).prompts) == expected


def test_who_is_behind_whom():
    assert named("a dog moving right behind a cat") == Named(
        ("a dog moving right", "a cat"), (1, 0), "moving right", meeting=True
    )
    assert named("a dog in front of a cat") == Named(("a cat", "a dog"), (0, 1), meeting=True)
    assert named("a dog and a cat in front of tall buildings").meeting is False


def test_there_are_no_more_figures_than_a_picture_has_room_for():
    told = named("a cat, a dog, a bear, an owl and a duck at night")
    assert (told.prompts, told.figures) == (("a cat", "a dog", "a bear"), (0, 1, 2))
    assert len(told.figures) == MOST


def test_verbs_and_places_name_no_figures():
    parts = parts_of("a cat sailing by the sea, and a zebu flying a kite")
    assert nouns_of(parts, frozenset({"cat", "sailing", "sea", "flying"}), ["under the sea"]) == ["cat"]


@given(st.integers(1, 40), st.integers(2, MOST))
def test_parts_of_a_picture_are_patches_and_cover_it(patches: int, count: int):
    parts = [part.w for part in parts_of_picture(2 * patches, count)]
    assert len(parts) == 2 * count
    for part in parts:
        assert 0 <= part.start < part.stop <= 2 * patches
        assert part.start % 2 == part.stop % 2 == 0
    assert {at for part in parts for at in range(part.start, part.stop)} == set(range(2 * patches))


@given(
    st.integers(2, MOST),
    st.sampled_from([(320, 192), (192, 320), (192, 192), (1920, 1088)]),
    st.floats(0.2, 1.2),
    st.floats(0.0, 1.0),
)
def test_everybody_has_room_and_stands_on_the_same_ground(
    tmp_path_factory: pytest.TempPathFactory, count: int, size: tuple[int, int], large: float, x: float
):
    folder, level, one = Path(tmp_path_factory.mktemp("poses")), Level(*size), torch.ones(1, 5)
    before = Pose(x * one, 0.6 * one, large * one, 0 * one, one, 0 * one)
    files = [LatentFile(folder / str(number), 5, (6, 1, 1)) for number in range(count)]
    for file in files:
        file.write(0, before.numbers())
    give_rooms(files, level)
    side = (level.width * level.height) ** 0.5
    made = [Pose.of(file.read(0, 5)) for file in files]
    for left, right in pairwise(made):
        assert (right.x - left.x).max() < APART / count + 1e-5
        assert (right.x - left.x).min() > APART / count / 2
    for pose in made:
        half = pose.size * side / level.width / 2
        assert (pose.x - half).min() > -1e-5
        assert (pose.x + half).max() < 1 + 1e-5
        assert pose.size.max() * side <= 0.95 * level.width / count
        feet = [each.y * level.height + each.size * side / 2 for each in (before, pose)]
        assert torch.allclose(*feet, atol=0.01)


@given(st.lists(st.floats(-0.3, 0.3), min_size=4, max_size=4), st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_a_figure_is_seen_where_the_camera_looks(view: list[float], x: float, y: float):
    across, down, far, near = view
    camera, level = torch.tensor([across, down, far, 1.0, near]).view(1, 5, 1), Level(160, 96)
    pose = replace(Pose.nowhere(1), x=torch.tensor([[x]]), y=torch.tensor([[y]]), size=torch.tensor([[0.5]]))
    seen = in_view(pose, camera, level)
    assert ((seen.x - 0.5) * 160 / 96 * math.exp(near) + across).item() == pytest.approx((x - 0.5) * 160 / 96, abs=1e-5)
    assert ((seen.y - 0.5) * math.exp(near) + down).item() == pytest.approx(y - 0.5, abs=1e-5)
    assert (seen.size * math.exp(near)).item() == pytest.approx(0.5, abs=1e-5)
