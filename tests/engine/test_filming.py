"""What a prompt says of the camera is told from what it says of the picture."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sora_cli.engine.filming import split_camera


@pytest.mark.parametrize(
    ("prompt", "said", "rest"),
    [
        ("a cat at sunset, the camera pans left", "the camera pans left", "a cat at sunset"),
        ("a cat, slow zoom in, at night", "slow zoom in", "a cat, at night"),
        ("with a static camera, a cow", "a static camera", "a cow"),
        ("a ghost, the camera slowly moves in", "the camera slowly moves in", "a ghost"),
        ("a cat, the camera very slowly pans to the left", "the camera very slowly pans to the left", "a cat"),
        ("a cat, the camera slowly, steadily pans left", "the camera slowly, steadily pans left", "a cat"),
        ("a cat, the camera pans left and zooms in", "the camera pans left and zooms in", "a cat"),
        ("a cat, the camera pans left, then right", "the camera pans left, then right", "a cat"),
        ("a cat, the  camera\npans   left", "the camera pans left", "a cat"),
        ("a cat and the camera pans right", "the camera pans right", "a cat"),
        ("a cat jumping while the camera zooms in", "the camera zooms in", "a cat jumping"),
        ("a cat (the camera pans left)", "the camera pans left", "a cat"),
        ("a cat. The camera pans left. At night.", "The camera pans left", "a cat. At night"),
        ("a bus, Camera tilting upwards, cartoon style", "Camera tilting upwards", "a bus, cartoon style"),
        ("a rocket flying up, dolly out", "dolly out", "a rocket flying up"),
        ("a cat, zoom-in", "zoom-in", "a cat"),
        ("a cat, left pan", "left pan", "a cat"),
        ("a cat, slow push in", "slow push in", "a cat"),
        ("a cat, the view tilts down", "the view tilts down", "a cat"),
        (
            "a truck going left, the camera tracks right, in a city",
            "the camera tracks right",
            "a truck going left, in a city",
        ),
        ("a cat, the camera pans left in the snow", "the camera pans left", "a cat, in the snow"),
        ("a dog, the camera is still", "the camera is still", "a dog"),
        ("a cat, slow zoom in, the camera tilts up", "slow zoom in, the camera tilts up", "a cat"),
        (
            "the camera pans slowly to the left",
            "the camera pans slowly to the left",
            "the camera pans slowly to the left",
        ),
    ],
)
def test_what_moves_the_camera_stands_apart(prompt: str, said: str, rest: str):
    assert split_camera(prompt) == (said, rest)


@pytest.mark.parametrize(
    "prompt",
    [
        "a dog coming towards the camera",
        "a cat looking at the camera",
        "a cat  in a pan in a kitchen",
        "a car moving left",
        "a butterfly zooming out at sunset",
        "a family camera",
        "a bee zooming in circles",
        "a car zooming out of a garage",
        "a train pulling in",
        "a cat, no zoom in",
        "the camera is on a table",
        "my camera is left behind",
        "a camera",
        "",
    ],
)
def test_what_the_picture_shows_is_left_as_it_is(prompt: str):
    assert split_camera(prompt) == ("", prompt)


WORDS = "a the camera pans left in out zoom , . and then slowly cat ( ) is still"


@given(st.lists(st.sampled_from(WORDS.split())))
def test_no_word_is_said_twice_or_made_up(words: list[str]):
    said, rest = split_camera(" ".join(words))
    assert said or rest == " ".join(words)
    if rest != " ".join(words):
        left = Counter(re.findall(r"\w+", f"{said} {rest}"))
        assert left <= Counter(re.findall(r"\w+", " ".join(words)))
