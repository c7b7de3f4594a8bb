"""The memory plan: refuses what cannot work, chooses tiles and nothing else."""

import subprocess
import sys
from dataclasses import replace

import pytest

from sora_cli.engine.canvas import Canvas, Grid, lay_out
from sora_cli.engine.memory import MB, Footprint, footprint_of, plan_memory
from sora_cli.errors import SoraError
from sora_weights.families.diorama import FAMILY
from sora_weights.registry import find_model

BARE = "import torch; print([int(line.split()[1]) for line in open('/proc/self/status') if 'VmHWM' in line][0] // 1024)"
GRID = Grid(space=8, patch=16, time=4)
FLOW, FOOTPRINT = FAMILY.flow, footprint_of(find_model("diorama"))


def canvas(width: int, height: int, frames: int) -> Canvas:
    return lay_out(width, height, frames, GRID, 160 * 96)


def least_of(error: SoraError) -> int:
    return int(error.hint.split("MB")[0].split()[-1])


def test_memory_does_not_grow_with_length():
    short = plan_memory(canvas(1920, 1080, 240), FLOW, FOOTPRINT, None)
    long = plan_memory(canvas(1920, 1080, 1440), FLOW, FOOTPRINT, None)
    assert short.peak == long.peak
    assert long.disk > 5 * short.disk


def test_less_memory_means_smaller_tiles():
    roomy = plan_memory(canvas(1920, 1080, 48), FLOW, FOOTPRINT, 64 * 1024 * MB)
    tight = plan_memory(canvas(1920, 1080, 48), FLOW, FOOTPRINT, roomy.peak - 1)
    assert tight.tile_side < roomy.tile_side
    assert tight.peak <= roomy.peak - 1


def test_too_little_memory_is_refused_with_the_least_that_works():
    with pytest.raises(SoraError) as caught:
        plan_memory(canvas(1920, 1080, 48), FLOW, FOOTPRINT, 10 * MB)
    assert caught.value.code == "memory_too_small"
    least = least_of(caught.value)
    assert plan_memory(canvas(1920, 1080, 48), FLOW, FOOTPRINT, least * MB).peak <= least * MB


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells it there")
@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920)])
@pytest.mark.parametrize("footprint", [FOOTPRINT, replace(FOOTPRINT, networks=80 * MB, token=64_000)])
@pytest.mark.parametrize("reads", [False, True])
def test_1080p_takes_at_most_a_gigabyte_more_than_torch_itself(
    size: tuple[int, int], footprint: Footprint, reads: bool
):
    bare = int(subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=True).stdout)
    with pytest.raises(SoraError) as caught:
        plan_memory(canvas(*size, 240), FLOW, footprint, 10 * MB, reads=reads)
    assert least_of(caught.value) <= bare + 1024


def test_a_wider_network_is_planned_with_more_for_each_token():
    model = find_model("diorama")
    wider = replace(model, specs=replace(model.specs, dit=replace(model.specs.dit, width=576, conv_width=192)))
    assert 1.3 < footprint_of(wider).token / FOOTPRINT.token < 1.6


def test_clips_to_read_take_more():
    plans = [plan_memory(canvas(640, 360, 48), FLOW, FOOTPRINT, None, reads=reads) for reads in (False, True)]
    assert plans[0].peak < plans[1].peak
