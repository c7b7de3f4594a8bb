"""Solvers: trajectories equal to diffusers', convergence, draws, states that survive a checkpoint."""

import json
import math
from collections.abc import Callable
from itertools import pairwise

import diffusers
import pytest
import torch
from diffusers import SchedulerMixin
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from sora_cli.engine.denoiser import from_network
from sora_cli.engine.sample import Step, normal_draws, sample
from sora_cli.engine.schedule import Row, Scheduler, flow_rows, flow_schedule, scheduler_from_config
from sora_cli.engine.solvers import (
    SOLVERS,
    State,
    cogvideox_dpm,
    heun,
    rows_for,
    state_from_tensors,
    state_to_tensors,
)

SHAPE = (1, 4, 3, 6, 5)
TOLERANCE = 1e-5
STEPS = [1, 2, 5, 7, 20, 50]
COGVIDEOX = {
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def network(x: Tensor, timesteps: Tensor) -> Tensor:
    """A fixed smooth network that mixes neighbours and channels and depends on the timestep."""
    mixed = 0.6 * x + 0.3 * x.roll(1, -1) - 0.2 * x.roll(1, 1) + 0.1 * x.roll(1, 2)
    return 0.7 * torch.sin(mixed + timesteps[:, None, :, None, None] / 400) + 0.2 * x


def noise(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def relative_error(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).norm() / reference.norm())


def read(reference: SchedulerMixin) -> Scheduler:
    """Our reading of the scheduler_config.json that a reference would save."""
    return scheduler_from_config(json.loads(reference.to_json_string()))


def trajectory(scheduler: Scheduler, steps: int, generator: torch.Generator | None = None) -> list[Tensor]:
    """The latents after every row of our loop."""
    solver, seen = SOLVERS[scheduler.solver], []
    denoise = from_network(network, scheduler.prediction)
    rows = rows_for(solver, scheduler.rows(steps))
    draw = normal_draws(generator, noise()) if generator else no_draw
    sample(denoise, rows, noise(), solver, draw, lambda step: seen.append(step.x))
    return seen


def reference_trajectory(reference: SchedulerMixin, steps: int) -> list[Tensor]:
    """The latents after every step of a diffusers scheduler."""
    reference.set_timesteps(steps)
    x, seen = noise(), []
    for t in reference.timesteps:
        x = reference.step(network(x, t.expand(1, SHAPE[2])), t, x, return_dict=False)[0]
        seen.append(x)
    return seen


def reference_dpm_trajectory(
    reference: diffusers.CogVideoXDPMScheduler, steps: int, generator: torch.Generator
) -> list[Tensor]:
    """As the pipeline of CogVideoX calls its own scheduler."""
    reference.set_timesteps(steps)
    x, x0, before, seen = noise(), None, None, []
    for t in reference.timesteps:
        output = network(x, t.expand(1, SHAPE[2]))
        x, x0 = reference.step(output, x0, t, before, x, generator=generator)
        before = t
        seen.append(x)
    return seen


def assert_same_trajectory(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    assert max(relative_error(x, reference) for x, reference in zip(ours, theirs, strict=True)) <= TOLERANCE


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shift", [1.0, 3.0, 8.0])
def test_euler_follows_diffusers(shift: float, steps: int) -> None:
    reference = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    ours = trajectory(read(reference), steps)
    assert_same_trajectory(ours, reference_trajectory(reference, steps))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_unipc_follows_diffusers(shift: float, steps: int) -> None:
    reference = diffusers.UniPCMultistepScheduler(
        use_flow_sigmas=True, flow_shift=shift, prediction_type="flow_prediction"
    )
    ours = trajectory(read(reference), steps)
    assert_same_trajectory(ours, reference_trajectory(reference, steps))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("snr_shift", [1.0, 3.0])
def test_cogvideox_ddim_follows_diffusers(snr_shift: float, steps: int) -> None:
    reference = diffusers.CogVideoXDDIMScheduler(**COGVIDEOX, snr_shift_scale=snr_shift)
    ours = trajectory(read(reference), steps)
    assert_same_trajectory(ours, reference_trajectory(reference, steps))


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_ddim_follows_diffusers_with_other_predictions_and_spacing(prediction: str) -> None:
    reference = diffusers.CogVideoXDDIMScheduler(prediction_type=prediction, set_alpha_to_one=False, steps_offset=1)
    ours = trajectory(read(reference), 9)
    assert_same_trajectory(ours, reference_trajectory(reference, 9))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("snr_shift", [1.0, 3.0])
def test_cogvideox_dpm_follows_diffusers_and_draws_as_often(snr_shift: float, steps: int) -> None:
    reference = diffusers.CogVideoXDPMScheduler(**COGVIDEOX, snr_shift_scale=snr_shift)
    our_generator, their_generator = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    ours = trajectory(read(reference), steps, our_generator)
    assert_same_trajectory(ours, reference_dpm_trajectory(reference, steps, their_generator))
    assert torch.equal(our_generator.get_state(), their_generator.get_state())


@pytest.mark.parametrize(("steps", "expected"), [(1, [1]), (5, [1, 2, 2, 2, 1]), (7, [1, 2, 2, 2, 2, 2, 2])])
def test_cogvideox_dpm_draws_discarded_noise_too(steps: int, expected: list[int]) -> None:
    scheduler = scheduler_from_config({"_class_name": "CogVideoXDPMScheduler", **COGVIDEOX})
    drawn, counts = [], []

    def draw() -> Tensor:
        drawn.append(noise(len(drawn)))
        return drawn[-1]

    denoise, rows = from_network(network, "v"), scheduler.rows(steps)
    sample(denoise, rows, noise(), cogvideox_dpm, draw, lambda _: counts.append(len(drawn)))
    assert [after - before for before, after in pairwise([0, *counts])] == expected


@pytest.mark.parametrize("steps", STEPS)
def test_heun_follows_diffusers(steps: int) -> None:
    reference = diffusers.FlowMatchHeunDiscreteScheduler(shift=2.0)
    theirs = reference_trajectory(reference, steps)
    sigmas = [*reference.sigmas[:1], *reference.sigmas[1:-1:2], reference.sigmas[-1]]
    rows = flow_rows([float(s) for s in sigmas], [1000 * float(s) for s in sigmas[:-1]])
    assert_same_trajectory(trajectory(Scheduler("heun", "flow", lambda _: rows), steps), theirs)


@pytest.mark.parametrize("steps", STEPS)
def test_dpmpp_2m_follows_diffusers(steps: int) -> None:
    reference = diffusers.DPMSolverMultistepScheduler(
        use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction", algorithm_type="dpmsolver++"
    )
    theirs = reference_trajectory(reference, steps)
    rows = flow_rows(reference.sigmas.tolist(), reference.timesteps.tolist())
    assert_same_trajectory(trajectory(Scheduler("dpmpp_2m", "flow", lambda _: rows), steps), theirs)


def gaussian(x: Tensor, row: Row) -> Tensor:
    """The exact x0 expected of x when x0 is normal with mean 0.5 and deviation 0.4."""
    gain = row.alpha * 0.16 / (row.alpha**2 * 0.16 + row.sigma**2)
    return 0.5 + gain * (x - row.alpha * 0.5)


def gaussian_error(name: str, steps: int) -> float:
    """Distance from the exact solution of the probability-flow ODE between sigma 0.9 and 0.1."""
    solver, x = SOLVERS[name], noise().double()
    sigmas = [0.9 - 0.8 * step / steps for step in range(steps + 1)]
    rows = flow_rows(sigmas, sigmas[:-1])
    ended = sample(gaussian, rows_for(solver, rows), x, solver, no_draw, lambda _: None)
    standard = (x - 0.1 * 0.5) / math.hypot(0.1 * 0.4, 0.9)
    return float((ended - (0.9 * 0.5 + math.hypot(0.9 * 0.4, 0.1) * standard)).abs().max())


def no_draw() -> Tensor:
    raise AssertionError("a deterministic solver drew noise")


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("dpmpp_2m", 2), ("unipc", 2)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(name: str, order: int) -> None:
    assert math.log2(gaussian_error(name, 40) / gaussian_error(name, 80)) > order - 0.25


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_ends_on_the_last_predicted_x0(name: str) -> None:
    steps: list[Step] = []
    solver = SOLVERS[name]
    rows = rows_for(solver, flow_schedule(6, shift=3.0))
    sample(from_network(network, "flow"), rows, noise(), solver, noise, steps.append)
    assert torch.equal(steps[-1].x, steps[-1].x0)


def test_heun_refuses_rows_that_are_not_doubled() -> None:
    with pytest.raises(ValueError, match="doubled"):
        sample(gaussian, flow_schedule(3), noise(), heun, no_draw, lambda _: None)


class Killed(Exception):
    """Stands for the end of a process in mid-run."""


def checkpoint_and_die(done: int, generator: torch.Generator, saved: dict[str, Tensor]) -> Callable[[Step], None]:
    """An on_step that saves everything after `done` rows and dies there."""

    def on_step(step: Step) -> None:
        if step.done == done:
            saved.update(state_to_tensors(step.state), latents=step.x, generator=generator.get_state())
            raise Killed

    return on_step


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(SOLVERS)),
    steps=st.integers(2, 9),
    share=st.floats(0, 0.99),
    seed=st.integers(0, 99),
)
def test_a_killed_run_resumes_to_identical_latents(name: str, steps: int, share: float, seed: int) -> None:
    solver, denoise = SOLVERS[name], from_network(network, "flow")
    rows = rows_for(solver, flow_schedule(steps, shift=3.0))
    draw = normal_draws(torch.Generator().manual_seed(seed), noise())
    whole = sample(denoise, rows, noise(), solver, draw, lambda _: None)

    done, saved = 1 + int(share * len(rows)), {}
    generator = torch.Generator().manual_seed(seed)
    draw, on_step = normal_draws(generator, noise()), checkpoint_and_die(done, generator, saved)
    with pytest.raises(Killed):
        sample(denoise, rows, noise(), solver, draw, on_step)

    loaded, generator = load(save(saved)), torch.Generator()
    generator.set_state(loaded["generator"])
    draw, state = normal_draws(generator, noise()), state_from_tensors(loaded)
    resumed = sample(denoise, rows, loaded["latents"], solver, draw, lambda _: None, state, done)
    assert torch.equal(resumed, whole)


def test_an_empty_state_has_no_tensors() -> None:
    assert state_to_tensors(State()) == {}
    assert state_from_tensors({}).past == ()
