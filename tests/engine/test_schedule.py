"""Rows: our own flow schedules, and those of diffusers' schedulers from their own configurations."""

import json
import math
from collections.abc import Callable
from itertools import pairwise

import diffusers
import pytest
import torch
from diffusers import SchedulerMixin
from hypothesis import given
from hypothesis import strategies as st

from sora_cli.engine.schedule import (
    doubled,
    flow_schedule,
    noised,
    scheduler_from_config,
    time_shift,
    truncate,
)
from sora_cli.errors import SoraError

COGVIDEOX = {
    "_class_name": "CogVideoXDPMScheduler",
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
STEPS = [1, 2, 5, 7, 20, 50, 77]
unit = st.floats(1e-3, 1)


def euler(shift: float) -> SchedulerMixin:
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)


def unipc(shift: float) -> SchedulerMixin:
    return diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=shift, prediction_type="flow_prediction")


@given(sigma=unit, shift=st.floats(0.1, 20))
def test_time_shift_keeps_the_ends_and_is_undone_by_its_inverse(sigma: float, shift: float) -> None:
    assert time_shift(0.0, shift) == 0
    assert math.isclose(time_shift(1.0, shift), 1)
    assert math.isclose(time_shift(time_shift(sigma, shift), 1 / shift), sigma)


@given(steps=st.integers(1, 60), shift=st.floats(0.2, 12), start=unit)
def test_flow_schedule_runs_from_its_start_down_to_clean(steps: int, shift: float, start: float) -> None:
    rows = flow_schedule(steps, shift=shift, start=start)
    assert len(rows) == steps
    assert math.isclose(rows[0].sigma, start)
    assert (rows[-1].next_alpha, rows[-1].next_sigma, rows[-1].next_t) == (1, 0, 0)
    for row in rows:
        assert row.next_sigma < row.sigma
        assert row.alpha == 1 - row.sigma
        assert math.isclose(row.t, 1000 * row.sigma)


@given(steps=st.integers(2, 60), shift=st.floats(0.2, 12))
def test_each_step_ends_where_the_next_begins(steps: int, shift: float) -> None:
    rows = flow_schedule(steps, shift=shift)
    for row, following in pairwise(rows):
        assert (row.next_t, row.next_alpha, row.next_sigma) == (following.t, following.alpha, following.sigma)


@given(steps=st.integers(1, 60), strength=unit)
def test_truncation_keeps_the_last_share_of_the_steps(steps: int, strength: float) -> None:
    rows = flow_schedule(steps)
    kept = truncate(rows, strength)
    assert kept == rows[-len(kept) :]
    assert abs(len(kept) - strength * steps) <= 0.5 or len(kept) == 1


@pytest.mark.parametrize("strength", [0, -0.1, 1.1, math.nan])
def test_a_strength_outside_its_range_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        truncate(flow_schedule(5), strength)


@pytest.mark.parametrize(("steps", "start"), [(0, 1), (5, 0), (5, 1.5)])
def test_a_schedule_without_steps_or_noise_is_refused(steps: int, start: float) -> None:
    with pytest.raises(ValueError, match="start"):
        flow_schedule(steps, start=start)


def test_noised_latents_follow_the_process() -> None:
    x0, noise = torch.randn(2, 1, 3, 2, 2, 2)
    row = flow_schedule(4)[1]
    torch.testing.assert_close(noised(x0, noise, row), 0.25 * x0 + 0.75 * noise)


def test_doubled_rows_evaluate_the_end_of_every_step_but_the_last() -> None:
    rows = flow_schedule(3)
    sigmas = [row.sigma for row in rows]
    assert [row.sigma for row in doubled(rows)] == sorted(sigmas + sigmas[1:], reverse=True)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("make", [euler, unipc])
def test_flow_rows_equal_diffusers(make: Callable[[float], SchedulerMixin], shift: float, steps: int) -> None:
    reference = make(shift)
    reference.set_timesteps(steps)
    rows = scheduler_from_config(json.loads(reference.to_json_string())).rows(steps)
    sigmas = [row.sigma for row in rows] + [rows[-1].next_sigma]
    torch.testing.assert_close(torch.tensor(sigmas), reference.sigmas, rtol=2e-7, atol=0)
    timesteps = torch.tensor([float(row.t) for row in rows])
    torch.testing.assert_close(timesteps, reference.timesteps.float(), rtol=2e-7, atol=0)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("snr_shift", [1.0, 3.0])
def test_cogvideox_rows_equal_diffusers(spacing: str, snr_shift: float, steps: int) -> None:
    options = COGVIDEOX | {"timestep_spacing": spacing, "snr_shift_scale": snr_shift}
    reference = diffusers.CogVideoXDDIMScheduler.from_config(options)
    reference.set_timesteps(steps)
    rows = scheduler_from_config(json.loads(reference.to_json_string())).rows(steps)
    assert [row.t for row in rows] == reference.timesteps.tolist()
    expected = reference.alphas_cumprod[reference.timesteps].sqrt()
    alphas = torch.tensor([row.alpha for row in rows], dtype=torch.float64)
    torch.testing.assert_close(alphas, expected, rtol=1e-12, atol=1e-12)


def test_cogvideox_starts_at_pure_noise() -> None:
    rows = scheduler_from_config(COGVIDEOX).rows(5)
    assert (rows[0].alpha, rows[0].sigma, rows[0].log_snr) == (0, 1, -math.inf)


def test_steps_that_do_not_divide_the_table_end_off_the_next_row_as_the_reference_does() -> None:
    rows = scheduler_from_config(COGVIDEOX).rows(7)
    assert (rows[0].next_t, rows[1].t) == (857, 856)
    assert rows[-1].next_t == 0
    assert rows[-1].next_sigma > 0


@pytest.mark.parametrize(
    ("name", "settings", "named"),
    [
        ("", {}, "_class_name ''"),
        ("PNDMScheduler", {}, "PNDMScheduler"),
        ("UniPCMultistepScheduler", {}, "use_flow_sigmas False"),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "solver_order": 3}, "solver_order 3"),
        ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "w"}, "prediction_type 'w'"),
        ("FlowMatchEulerDiscreteScheduler", {"use_karras_sigmas": True}, "use_karras_sigmas True"),
        ("CogVideoXDDIMScheduler", {"beta_schedule": "linear"}, "beta_schedule 'linear'"),
        ("CogVideoXDDIMScheduler", {"timestep_spacing": "even"}, "timestep_spacing 'even'"),
    ],
)
def test_settings_that_need_other_arithmetic_are_refused_by_name(
    name: str, settings: dict[str, object], named: str
) -> None:
    with pytest.raises(SoraError, match=named) as refused:
        scheduler_from_config({"_class_name": name, **settings})
    assert refused.value.code == "bad_weights"


@pytest.mark.parametrize("steps", [0, 1001])
def test_more_steps_than_the_table_holds_are_refused(steps: int) -> None:
    scheduler = scheduler_from_config(COGVIDEOX)
    with pytest.raises(SoraError, match=f"--steps {steps}"):
        scheduler.rows(steps)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": "3.0"}, "shift"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "flow_shift": None}, "flow_shift"),
        ({"_class_name": "CogVideoXDDIMScheduler", "num_train_timesteps": 10**10}, "num_train_timesteps"),
        ({"_class_name": "CogVideoXDDIMScheduler", "num_train_timesteps": 10.5}, "num_train_timesteps"),
        ({"_class_name": "CogVideoXDDIMScheduler", "beta_start": -1}, "beta_start"),
        ({"_class_name": "CogVideoXDPMScheduler", "snr_shift_scale": True}, "snr_shift_scale"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_name(config: dict[str, object], key: str) -> None:
    with pytest.raises(SoraError, match=key) as caught:
        scheduler_from_config(config).rows(4)
    assert caught.value.code == "bad_weights"
