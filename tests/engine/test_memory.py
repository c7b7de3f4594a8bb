"""The memory plan: refuses what cannot work, chooses tiles and nothing else."""

import pytest

from sora_cli.engine.canvas import Canvas, Grid, lay_out
from sora_cli.engine.memory import MB, footprint_of, plan_memory
from sora_cli.errors import SoraError
from sora_weights.families.diorama import FAMILY
from sora_weights.registry import find_model

GRID = Grid(space=8, patch=16, time=4)
FLOW, FOOTPRINT = FAMILY.flow, footprint_of(find_model("diorama"))


def canvas(width: int, height: int, frames: int) -> Canvas:
    return lay_out(width, height, frames, GRID, 160 * 96)


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
    least = int(caught.value.hint.split("MB")[0].split()[-1])
    assert plan_memory(canvas(1920, 1080, 48), FLOW, FOOTPRINT, least * MB).peak <= least * MB
