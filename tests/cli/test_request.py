"""Sizes, times and rates are resolved exactly, and a request survives its JSON."""

import json
import math
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sora_cli.errors import SoraError
from sora_cli.request import (
    DEVICES,
    DTYPES,
    MAX_FRAMES,
    MAX_SEED,
    MAX_SIDE,
    Request,
    Wishes,
    frame_count,
    parse_fps,
    parse_guidance,
    parse_memory,
    parse_seconds,
    parse_size,
    resolve,
    revise,
    rounding_note,
)
from sora_weights.spec import Defaults

DEFAULTS = Defaults(width=320, height=180, fps=Fraction(24), seconds=2.0, steps=20, guidance=3.0, min_side=16)
CAT = Wishes(prompt="a cat", seed=7)

requests = st.builds(
    Request,
    command=st.just("generate"),
    prompt=st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    negative=st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    model=st.sampled_from(["diorama", "some/model"]),
    width=st.integers(16, MAX_SIDE),
    height=st.integers(16, MAX_SIDE),
    frames=st.integers(1, MAX_FRAMES),
    fps=st.fractions(1, 240, max_denominator=1001),
    steps=st.integers(1, 1000),
    guidance=st.floats(0, 100),
    seed=st.integers(0, MAX_SEED),
    device=st.sampled_from(DEVICES),
    dtype=st.sampled_from(DTYPES),
    memory=st.none() | st.integers(1, 2**50),
    draft=st.booleans(),
    composed=st.none() | st.tuples(st.integers(16, 8192), st.integers(16, 8192)),
)


@given(requests)
def test_a_request_survives_its_json_exactly(request: Request) -> None:
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("640x360", (640, 360)),
        ("250X142", (250, 142)),
        ("16x16", (16, 16)),
        ("1080p", (1920, 1080)),
        ("720p", (1280, 720)),
        ("480p", (854, 480)),
        ("16:9", (320, 180)),
        ("32:18", (320, 180)),
        ("9:16", (180, 320)),
        ("1:1", (240, 240)),
    ],
)
def test_sizes_are_the_pixels_that_they_name(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text, DEFAULTS) == size


@given(st.integers(1, 30), st.integers(1, 30))
def test_an_aspect_ratio_has_even_sides_and_no_fewer_pixels_than_the_default(across: int, down: int) -> None:
    width, height = parse_size(f"{across}:{down}", DEFAULTS)
    assert width % 2 == height % 2 == 0
    assert width * height >= DEFAULTS.width * DEFAULTS.height
    assert abs(min(width, height) * max(across, down) / min(across, down) - max(width, height)) <= 3
    assert parse_size(f"{down}:{across}", DEFAULTS) == (height, width)


@given(st.fractions(Fraction(1, 1000), 400, max_denominator=10**6), st.fractions(1, 240, max_denominator=1001))
def test_frames_are_the_floor_of_seconds_times_rate_plus_a_half(seconds: Fraction, fps: Fraction) -> None:
    assert frame_count(seconds, fps) == max(1, math.floor(seconds * fps + Fraction(1, 2)))


@pytest.mark.parametrize(
    ("seconds", "fps", "frames"),
    [("2", "24", 48), ("10", "24", 240), ("0.0625", "24", 2), ("0.001", "24", 1), ("10", "30000/1001", 300)],
)
def test_a_half_frame_rounds_up(seconds: str, fps: str, frames: int) -> None:
    assert frame_count(parse_seconds(seconds), parse_fps(fps)) == frames


def test_rates_are_exact() -> None:
    assert parse_fps("30000/1001") == Fraction(30000, 1001)
    assert parse_fps("23.976") == Fraction(2997, 125)
    assert parse_seconds("0.1") == Fraction(1, 10)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4G", 4 << 30),
        ("512MB", 512 << 20),
        ("1.5GiB", 3 << 29),
        ("100k", 100 << 10),
        ("7", 7),
        ("2 T", None),
    ],
)
def test_memory_is_read_in_powers_of_1024(text: str, size: int | None) -> None:
    if size is not None:
        assert parse_memory(text) == size
    else:
        with pytest.raises(SoraError, match="not an amount"):
            parse_memory(text)


@pytest.mark.parametrize("parse", [parse_seconds, parse_fps, parse_guidance, parse_memory])
@given(text=st.text(max_size=30) | st.sampled_from(["nan", "inf", "-inf", "1e9", "1e999999999", "-1", "", "1/0"]))
def test_any_text_is_a_sane_value_or_a_usage_error(parse: Any, text: str) -> None:
    try:
        assert 0 <= parse(text) < 2**60
    except SoraError as error:
        assert error.code == "bad_usage"
        assert "\n" not in str(error)


def test_without_wishes_the_models_defaults_count_and_the_seed_is_fresh() -> None:
    first, second = (resolve("generate", Wishes(prompt="a cat"), DEFAULTS) for _ in range(2))
    assert (first.width, first.height, first.frames, first.fps) == (320, 180, 48, 24)
    assert (first.steps, first.guidance, first.model) == (20, 3.0, "diorama")
    assert first.seed != second.seed
    assert 0 <= first.seed < 2**32


def test_another_rate_keeps_the_seconds() -> None:
    assert resolve("generate", replace(CAT, fps=Fraction(12)), DEFAULTS).frames == 24


@pytest.mark.parametrize(
    ("wishes", "changed"),
    [
        (Wishes(seed=8), {"seed"}),
        (Wishes(size="1:1"), {"width", "height"}),
        (Wishes(frames=9), {"frames"}),
        (Wishes(prompt="a dog", steps=3), {"prompt", "steps"}),
        (Wishes(), set()),
    ],
)
def test_a_revision_changes_only_what_is_named(wishes: Wishes, changed: set[str]) -> None:
    base = resolve("generate", CAT, DEFAULTS)
    revised = revise(base, wishes, DEFAULTS)
    names = {field.name for field in fields(Request)}
    assert {name for name in names if getattr(base, name) != getattr(revised, name)} == changed


def test_seconds_that_are_no_whole_frames_are_told() -> None:
    request = resolve("generate", replace(CAT, seconds=Fraction("1.03")), DEFAULTS)
    assert rounding_note(Fraction("1.03"), request) == "1.03 s at 24 fps is rounded to 25 frames"
    assert rounding_note(Fraction(2), resolve("generate", CAT, DEFAULTS)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"width": True},
        {"width": 10**30},
        {"width": "320"},
        {"height": 0},
        {"frames": 1.5},
        {"fps": 24},
        {"fps": "1e999999999"},
        {"fps": "1/0"},
        {"guidance": float("nan")},
        {"guidance": 1e308},
        {"seed": -1},
        {"seed": None},
        {"device": ["cpu"]},
        {"device": "cuda; rm"},
        {"memory": -1},
        {"draft": 1},
        {"prompt": ["a cat"]},
        {"prompt": "x" * 100_000},
        {"prompt": "\ud800"},
        {"surprise": 1},
    ],
    ids=repr,
)
def test_a_hostile_request_is_refused_by_name(change: dict[str, Any]) -> None:
    data = {**resolve("generate", CAT, DEFAULTS).to_json(), **change}
    with pytest.raises(SoraError, match=f"request.{next(iter(change))}") as caught:
        Request.from_json(data)
    assert caught.value.code == "bad_input"


def test_a_request_with_a_field_missing_is_refused_by_name() -> None:
    data = resolve("generate", CAT, DEFAULTS).to_json()
    del data["seed"]
    with pytest.raises(SoraError, match=r"request\.seed is missing"):
        Request.from_json(data)
