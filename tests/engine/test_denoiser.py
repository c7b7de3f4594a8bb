"""Network output to x0, guidance, known latents, and windows blended into one prediction."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sora_cli.engine.denoiser import (
    Denoiser,
    Grid,
    Known,
    Window,
    blend_weights,
    from_network,
    guided,
    network_inputs,
    pinned,
    prediction_to_x0,
    windowed,
    windows,
)
from sora_cli.engine.sample import sample
from sora_cli.engine.schedule import Row, flow_schedule, scheduler_from_config
from sora_cli.engine.solvers import SOLVERS, rows_for

FLOW_ROW = flow_schedule(4)[1]
COGVIDEOX = {
    "_class_name": "CogVideoXDDIMScheduler",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
CIRCLE_ROWS = scheduler_from_config(COGVIDEOX).rows(4)
Tiling = tuple[Grid, Grid, Grid, Grid]


def latents(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pointwise(x: Tensor, row: Row) -> Tensor:
    return torch.tanh(x) * row.alpha + 0.1


@pytest.mark.parametrize(
    ("kind", "row", "output"),
    [
        ("x0", FLOW_ROW, lambda x0, noise, row: x0),
        ("flow", FLOW_ROW, lambda x0, noise, row: noise - x0),
        ("epsilon", FLOW_ROW, lambda x0, noise, row: noise),
        ("v", CIRCLE_ROWS[1], lambda x0, noise, row: row.alpha * noise - row.sigma * x0),
        ("v", CIRCLE_ROWS[0], lambda x0, noise, row: row.alpha * noise - row.sigma * x0),
    ],
)
def test_a_perfect_network_of_every_kind_gives_back_x0(kind: str, row: Row, output: object) -> None:
    x0, noise = latents(2, 1, 3, 2, 4, 4)
    x = row.alpha * x0 + row.sigma * noise
    torch.testing.assert_close(prediction_to_x0(output(x0, noise, row), x, row, kind), x0)


def test_epsilon_at_zero_signal_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha is 0"):
        prediction_to_x0(latents(1, 1, 1, 1, 1), latents(1, 1, 1, 1, 1), CIRCLE_ROWS[0], "epsilon")


def test_guidance_of_x0_equals_guidance_of_the_network_output() -> None:
    x, cond, uncond = latents(3, 1, 3, 2, 4, 4)
    denoise = guided(from_network(lambda *_: cond, "flow"), from_network(lambda *_: uncond, "flow"), 6.0)
    expected = prediction_to_x0(uncond + 6.0 * (cond - uncond), x, FLOW_ROW, "flow")
    torch.testing.assert_close(denoise(x, FLOW_ROW), expected)


def test_scale_one_never_calls_the_unconditional_network() -> None:
    assert guided(pointwise, lambda x, row: pytest.fail("called"), 1.0) is pointwise


def first_frame_known(mode: str) -> Known:
    mask = torch.zeros(1, 1, 3, 4, 4)
    mask[:, :, 0] = 1
    mask[:, :, 1, :2] = 1
    return Known(latents(2, 5, 3, 4, 4, seed=1), mask, mode)


def test_native_known_frames_are_shown_clean_and_at_timestep_zero() -> None:
    known, x = first_frame_known("native"), latents(2, 5, 3, 4, 4)
    shown, timesteps = network_inputs(x, FLOW_ROW, known)
    assert timesteps.tolist() == [[0, 750, 750]] * 2
    assert torch.equal(shown[:, :, 0], known.latents[:, :, 0])
    assert torch.equal(shown[:, :, 1:], x[:, :, 1:])


def test_a_plain_network_sees_only_noisy_latents() -> None:
    x = latents(2, 5, 3, 4, 4)
    shown, timesteps = network_inputs(x, FLOW_ROW, first_frame_known("pin"))
    assert shown is x
    assert timesteps.tolist() == [[750] * 3] * 2


@pytest.mark.parametrize("mode", ["native", "pin"])
@pytest.mark.parametrize("name", SOLVERS)
def test_known_latents_come_out_of_every_solver_exactly(name: str, mode: str) -> None:
    known, x = first_frame_known(mode), latents(2, 5, 3, 4, 4)
    denoise = pinned(from_network(lambda x, timesteps: x.roll(1, 3), "flow", known), known)
    rows = rows_for(SOLVERS[name], flow_schedule(5))
    ended = sample(denoise, rows, x, SOLVERS[name], lambda: latents(*x.shape), lambda _: None)
    where = (known.mask == 1).expand_as(x)
    assert torch.equal(ended[where], known.latents[where])
    assert not torch.isclose(ended[~where], known.latents[~where]).any(dim=0).all()


def test_nothing_known_leaves_the_denoiser_as_it_is() -> None:
    assert pinned(pointwise, None) is pointwise


def test_a_cropped_known_holds_its_window() -> None:
    known, window = first_frame_known("pin"), Window(slice(1, 3), slice(0, 2), slice(2, 4))
    cropped = known.crop(window)
    assert torch.equal(cropped.latents, known.latents[:, :, 1:3, 0:2, 2:4])
    assert torch.equal(cropped.mask, known.mask[:, :, 1:3, 0:2, 2:4])


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    """Random (grid, size, overlap, patch) with whole patches."""
    patch = draw(st.tuples(*[st.integers(1, 3)] * 3))
    size = tuple(p * draw(st.integers(1, 6)) for p in patch)
    overlap = tuple(p * draw(st.integers(0, s // p - 1)) for p, s in zip(patch, size, strict=True))
    grid = tuple(p * draw(st.integers(1, 14)) for p in patch)
    return grid, size, overlap, patch


@settings(deadline=None, max_examples=100)
@given(tiling=tilings())
def test_windows_of_one_size_begin_on_patches_and_share_the_overlap(tiling: Tiling) -> None:
    grid, size, overlap, patch = tiling
    made = windows(grid, size, overlap, patch)
    for axis, name in enumerate("thw"):
        spans = sorted({(getattr(w, name).start, getattr(w, name).stop) for w in made})
        assert (spans[0][0], spans[-1][1]) == (0, grid[axis])
        assert {stop - start for start, stop in spans} == {min(size[axis], grid[axis])}
        assert all(start % patch[axis] == 0 for start, _ in spans)
        for before, after in pairwise(spans):
            assert before[0] < after[0] <= before[1] - overlap[axis]


@settings(deadline=None, max_examples=100)
@given(tiling=tilings())
def test_blend_weights_are_positive_and_sum_to_one(tiling: Tiling) -> None:
    made = windows(*tiling)
    total = torch.zeros(tiling[0])
    for window, weight in zip(made, blend_weights(made), strict=True):
        assert (weight > 0).all()
        total[window.t, window.h, window.w] += weight
    torch.testing.assert_close(total, torch.ones(tiling[0]))


@settings(deadline=None, max_examples=60)
@given(tiling=tilings())
def test_windowed_equals_whole_for_a_pointwise_denoiser(tiling: Tiling) -> None:
    made, x = windows(*tiling), latents(1, 2, *tiling[0])
    denoise = windowed(lambda window: pointwise, made, blend_weights(made))
    torch.testing.assert_close(denoise(x, FLOW_ROW), pointwise(x, FLOW_ROW), rtol=1e-5, atol=1e-6)


def test_windows_that_disagree_are_blended_without_a_step() -> None:
    made = windows((1, 1, 24), (1, 1, 16), (0, 0, 8))

    def number(window: Window) -> Denoiser:
        return lambda x, row: torch.full_like(x, window.w.start)

    denoise = windowed(number, made, blend_weights(made))
    profile = denoise(torch.zeros(1, 1, 1, 1, 24), FLOW_ROW).flatten() / 8
    assert profile[:8].tolist() == [0] * 8
    assert profile[16:].tolist() == [1] * 8
    assert 0 <= profile.diff().min() <= profile.diff().max() < 0.2


def test_each_window_gets_the_denoiser_that_was_made_for_it() -> None:
    known = first_frame_known("pin")
    made = windows((3, 4, 4), (2, 4, 2), (1, 0, 0))
    denoise = windowed(lambda window: pinned(pointwise, known.crop(window)), made, blend_weights(made))
    x = latents(2, 5, 3, 4, 4)
    torch.testing.assert_close(denoise(x, FLOW_ROW), pinned(pointwise, known)(x, FLOW_ROW))


def test_latents_of_another_grid_are_refused() -> None:
    made = windows((3, 4, 4), (2, 4, 2), (1, 0, 0))
    with pytest.raises(ValueError, match=r"\(3, 4, 4\)"):
        windowed(lambda window: pointwise, made, blend_weights(made))(latents(1, 1, 3, 4, 5), FLOW_ROW)


@pytest.mark.parametrize(
    ("size", "overlap", "patch"), [((2, 2, 2), (2, 0, 0), (1, 1, 1)), ((4, 4, 3), (0, 0, 0), (1, 2, 2))]
)
def test_windows_that_cannot_tile_are_refused(size: Grid, overlap: Grid, patch: Grid) -> None:
    with pytest.raises(ValueError, match="whole patches"):
        windows((8, 8, 8), size, overlap, patch)
