"""The canvas: exact sizes on the network's grid, and levels that lead to them."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sora_cli.engine.canvas import LARGEST_STEP, Canvas, Grid, Level, draft_of, lay_out

GRID = Grid(space=8, patch=16, time=4)
NATIVE = 160 * 96
sides = st.integers(16, 4096)


def canvas(width: int, height: int, frames: int = 1) -> Canvas:
    return lay_out(width, height, frames, GRID, NATIVE)


@given(sides, sides, st.integers(1, 5000))
def test_canvas_holds_the_picture_with_less_than_a_patch_to_spare(width: int, height: int, frames: int):
    made = canvas(width, height, frames)
    last = made.levels[-1]
    assert 0 <= last.width - width < 16
    assert 0 <= last.height - height < 16
    top, left = made.margins
    assert top + height <= last.height
    assert left + width <= last.width
    assert 1 + 4 * (made.latent_frames - 2) < frames <= 1 + 4 * (made.latent_frames - 1)


@given(sides, sides)
def test_levels_grow_on_the_grid_and_never_too_fast(width: int, height: int):
    levels = canvas(width, height).levels
    assert all(level.width % 16 == 0 and level.height % 16 == 0 for level in levels)
    areas = [level.width * level.height for level in levels]
    assert areas == sorted(areas)
    if max(width, height) / min(width, height) < 4:
        growth = [(b / a) ** 0.5 for a, b in pairwise(areas)]
        assert all(rate < 1.5 * LARGEST_STEP for rate in growth)


def test_default_size_is_drafted_at_half():
    levels = canvas(320, 180).levels
    assert [(level.width, level.height) for level in levels] == [(160, 96), (320, 192)]


def test_small_pictures_have_one_level():
    assert len(canvas(160, 96).levels) == 1
    assert len(canvas(16, 16).levels) == 1


def test_latents_of_a_level_are_rows_then_columns():
    assert canvas(320, 180).levels[-1].latents(GRID) == (24, 40)


@given(sides, sides)
def test_a_draft_is_the_first_level_and_its_picture_fits(width: int, height: int):
    draft = draft_of(width, height, GRID, NATIVE)
    made = draft.canvas(9, GRID)
    assert made.levels == canvas(width, height).levels[:1]
    assert (made.width % 2, made.height % 2) == (0, 0)
    assert all(pad >= 0 for pad in made.padding)


@given(st.integers(32, 1024), st.integers(32, 1024), sides, sides)
def test_a_final_begins_with_its_draft_and_enlarges_both_sides_alike(w: int, h: int, width: int, height: int):
    draft = draft_of(w, h, GRID, NATIVE)
    width, height = max(width, draft.level.width), max(height, draft.level.height)
    final = lay_out(width, height, 1, GRID, NATIVE, draft)
    first, last = final.levels[0], final.levels[-1]
    assert first == draft.level
    assert all(pad >= 0 for pad in final.padding)
    scale = max(width / draft.width, height / draft.height)
    assert all(0 <= large - small * scale < 16 for small, large in zip(_sides(first), _sides(last), strict=True))


def _sides(level: Level) -> tuple[int, int]:
    return level.width, level.height
