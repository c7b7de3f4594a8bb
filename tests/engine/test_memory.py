"""The memory plan: refuses what cannot work, chooses tiles and nothing else."""

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_cli.engine.canvas import Canvas, Grid, lay_out
from sora_cli.engine.memory import MB, Footprint, Media, footprint_of, plan_memory
from sora_cli.errors import SoraError
from sora_weights.families.diorama import FAMILY
from sora_weights.registry import find_model

BARE = "import torch; print([int(line.split()[1]) for line in open('/proc/self/status') if 'VmHWM' in line][0] // 1024)"
BARE_MEDIA = Media(written=216 * MB)  # .mp4 at 1080p
CLIP = Media(read=89 * MB, written=216 * MB, joined=True, beside=True)
GRID = Grid(space=8, patch=16, time=4)
FLOW, FOOTPRINT = FAMILY.flow, footprint_of(find_model("diorama"))


def canvas(width: int, height: int, frames: int) -> Canvas:
    return lay_out(width, height, frames, GRID, 160 * 96)


def least_of(error: SoraError) -> int:
    return int(error.hint.split("MB")[0].split()[-1])


def test_memory_does_not_grow_with_length():
    short = plan_memory(canvas(1920, 1080, 240), FLOW, FOOTPRINT, None, BARE_MEDIA)
    long = plan_memory(canvas(1920, 1080, 1440), FLOW, FOOTPRINT, None, BARE_MEDIA)
    assert short.peak == long.peak
    assert long.disk > 5 * short.disk


def test_less_memory_means_smaller_tiles():
    roomy = plan_memory(canvas(1920, 1080, 48), FLOW, FOOTPRINT, 64 * 1024 * MB, BARE_MEDIA)
    tight = plan_memory(canvas(1920, 1080, 48), FLOW, FOOTPRINT, roomy.peak - 1, BARE_MEDIA)
    assert tight.tile_side < roomy.tile_side
    assert tight.peak <= roomy.peak - 1


def test_too_little_memory_is_refused_with_the_least_that_works():
    with pytest.raises(SoraError) as caught:
        plan_memory(canvas(1920, 1080, 48), FLOW, FOOTPRINT, 10 * MB, BARE_MEDIA)
    assert caught.value.code == "memory_too_small"
    least = least_of(caught.value)
    assert plan_memory(canvas(1920, 1080, 48), FLOW, FOOTPRINT, least * MB, BARE_MEDIA).peak <= least * MB


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells it there")
@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920)])
@pytest.mark.parametrize("footprint", [FOOTPRINT, replace(FOOTPRINT, networks=80 * MB, token=64_000)])
@pytest.mark.parametrize("media", [BARE_MEDIA, CLIP], ids=["words", "clip"])
def test_1080p_takes_at_most_a_gigabyte_more_than_torch_itself(
    size: tuple[int, int], footprint: Footprint, media: Media
):
    bare = int(subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=True).stdout)
    with pytest.raises(SoraError) as caught:
        plan_memory(canvas(*size, 240), FLOW, footprint, 10 * MB, media)
    assert least_of(caught.value) <= bare + 1024


def test_a_wider_network_is_planned_with_more_for_each_token():
    model = find_model("diorama")
    wider = replace(model, specs=replace(model.specs, dit=replace(model.specs.dit, width=576, conv_width=192)))
    assert 1.3 < footprint_of(wider).token / FOOTPRINT.token < 1.6


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(16, 4096),
    height=st.integers(16, 4096),
    frames=st.integers(1, 2000),
    media=st.builds(
        Media,
        read=st.integers(0, 10**9),
        written=st.integers(0, 10**9),
        joined=st.booleans(),
        beside=st.booleans(),
        preview=st.booleans(),
    ),
    limit=st.integers(1, 16 * 1024),
)
def test_a_plan_keeps_to_its_limit_and_names_the_least_that_works(
    width: int, height: int, frames: int, media: Media, limit: int
):
    asked = canvas(width, height, frames)
    try:
        plan = plan_memory(asked, FLOW, FOOTPRINT, limit * MB, media)
    except SoraError as error:
        least = least_of(error)
        assert least > limit
        assert plan_memory(asked, FLOW, FOOTPRINT, least * MB, media).peak <= least * MB
        with pytest.raises(SoraError):
            plan_memory(asked, FLOW, FOOTPRINT, (least - 1) * MB, media)
    else:
        assert plan.peak <= limit * MB
        assert plan.peak >= plan.libraries + plan.networks + max(plan.encode, plan.denoise, plan.decode)


@settings(max_examples=60, deadline=None)
@given(read=st.integers(0, 10**9), written=st.integers(0, 10**9), more=st.integers(0, 10**9))
def test_what_reading_and_writing_hold_never_makes_a_plan_smaller(read: int, written: int, more: int):
    asked = canvas(640, 360, 48)
    media = Media(read, written, joined=True, beside=True)
    peak = plan_memory(asked, FLOW, FOOTPRINT, None, media).peak
    for larger in (replace(media, read=read + more), replace(media, written=written + more)):
        assert peak <= plan_memory(asked, FLOW, FOOTPRINT, None, larger).peak <= peak + more
    for smaller in (replace(media, joined=False), replace(media, beside=False)):
        assert plan_memory(asked, FLOW, FOOTPRINT, None, smaller).peak <= peak


@pytest.mark.parametrize("change", [{"read": 900 * MB}, {"written": 900 * MB}, {"preview": True}])
def test_what_is_held_beside_is_counted(change: dict[str, int]):
    peaks = [
        plan_memory(canvas(1920, 1080, 48), FLOW, FOOTPRINT, None, replace(CLIP, **each)).peak for each in ({}, change)
    ]
    assert peaks[0] < peaks[1]


def test_a_clip_that_is_only_measured_needs_no_room_for_denoising():
    plans = [plan_memory(canvas(640, 360, 48), FLOW, FOOTPRINT, None, CLIP, drawn=drawn) for drawn in (True, False)]
    assert plans[1].denoise == 0
    assert plans[1].networks < plans[0].networks
    assert plans[1].decode == plans[0].decode
