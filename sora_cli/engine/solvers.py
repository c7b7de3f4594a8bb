"""Solvers of the reverse process: pure steps whose whole history is an explicit state.

step(state, row, x, x0, draw) -> (state, x): x (b, c, t, h, w) float32 are the latents at the row's level, x0
the denoiser's prediction there; the returned x is at the row's next level. Only `draw` touches the outside.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from sora_cli.engine.schedule import Row, Rows, doubled

Draw = Callable[[], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """One earlier evaluation: its row and the x0 (b, c, t, h, w) predicted there."""

    row: Row
    x0: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What a solver remembers: earlier evaluations, newest first, and where its last step began."""

    past: tuple[Past, ...] = ()
    origin: Tensor | None = None


Solver = Callable[[State, Row, Tensor, Tensor, Draw], tuple[State, Tensor]]


def transfer(row: Row, x: Tensor, x0: Tensor) -> Tensor:
    """Carries x to the row's next level along a constant x0: x' = (s'/s) x + (a' - a s'/s) x0.

    This is DDIM with eta 0 (Song et al. 2020, arXiv:2010.02502, eq. 12), Euler in flow matching, and the
    first-order step of DPM-Solver++ and UniPC; their higher orders differ only in the x0 that they pass.
    """
    keep = row.next_sigma / row.sigma
    return (keep * x).add_((row.next_alpha - row.alpha * keep) * x0)


def ddim(state: State, row: Row, x: Tensor, x0: Tensor, draw: Draw) -> tuple[State, Tensor]:
    """DDIM with eta 0, which for flow matching is Euler's method. Remembers and draws nothing."""
    return state, transfer(row, x, x0)


def heun(state: State, row: Row, x: Tensor, x0: Tensor, draw: Draw) -> tuple[State, Tensor]:
    """Heun's method on the probability-flow ODE dx = x0 d(alpha) + noise d(sigma); takes rows from `doubled`.

    A step's first row goes to its end by Euler; its second evaluates there and repeats the step with the mean
    of both slopes. Raises ValueError for rows that are not doubled.
    Source: Karras et al. 2022, Elucidating the Design Space (arXiv:2206.00364), algorithm 1.
    """
    if state.origin is None:
        return (State() if row.final else State((Past(row, x0),), x)), transfer(row, x, x0)
    if row.next_t != row.t:
        raise ValueError("heun evaluates each step twice: pass the rows through `doubled`")
    first = state.past[0]
    slope_x0 = (first.x0 + x0) / 2
    slope_noise = (_noise(first.row, state.origin, first.x0) + _noise(row, x, x0)) / 2
    step = first.row
    moved = (step.next_alpha - step.alpha) * slope_x0 + (step.next_sigma - step.sigma) * slope_noise
    return State(), state.origin + moved


def dpmpp_2m(state: State, row: Row, x: Tensor, x0: Tensor, draw: Draw) -> tuple[State, Tensor]:
    """DPM-Solver++(2M), first order on the first and the last step.

    Source: Lu et al. 2022, DPM-Solver++ (arXiv:2211.01095), algorithm 2.
    """
    return State((Past(row, x0),)), transfer(row, x, _extrapolated(state, row, x0))


def unipc(state: State, row: Row, x: Tensor, x0: Tensor, draw: Draw) -> tuple[State, Tensor]:
    """UniPC of order 2 with B(h) = e^h - 1 ("bh2") on predicted x0, as Wan samples.

    The new x0 first corrects the step that led here, then predicts the next one; the second-order predictor
    is that of DPM-Solver++(2M). Source: Zhao et al. 2023, UniPC (arXiv:2302.04867), algorithms 1 and 2.
    """
    if state.origin is not None:
        x = transfer(state.past[0].row, state.origin, _corrected(state, x0))
    return State((Past(row, x0), *state.past[:1]), x), transfer(row, x, _extrapolated(state, row, x0))


def cogvideox_dpm(state: State, row: Row, x: Tensor, x0: Tensor, draw: Draw) -> tuple[State, Tensor]:
    """CogVideoX's stochastic DPM-Solver++(2M); draws once on the first step and on a final one, else twice.

    With q = e^-h, x' = (s'/s) q x + a' (1 - q^2) x0 + s' sqrt(1 - q^2) noise. Of two draws the reference
    throws the first away; so do we, for the same noise from the same seed.
    Source: SDE-DPM-Solver++(2M) of Lu et al. 2022 (arXiv:2211.01095), as CogVideoX's pipeline has it.
    """
    noise = draw()
    if state.past and not row.final:
        noise = draw()
    decay = math.exp(-row.log_snr_gain)
    renewed = 1 - decay**2
    mean = row.next_sigma / row.sigma * decay * x + row.next_alpha * renewed * _extrapolated(state, row, x0)
    return State((Past(row, x0),)), mean + row.next_sigma * math.sqrt(renewed) * noise


SOLVERS: Mapping[str, Solver] = {
    "euler": ddim,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "unipc": unipc,
    "ddim": ddim,
    "cogvideox_dpm": cogvideox_dpm,
}


def rows_for(solver: Solver, rows: Rows) -> Rows:
    """The evaluations that a solver makes of a schedule: two a step for heun, one for each of the others."""
    return doubled(rows) if solver is heun else rows


def state_to_tensors(state: State) -> dict[str, Tensor]:
    """A state as named tensors that share no memory; `state_from_tensors` gives it back exactly."""
    tensors = {} if state.origin is None else {"origin": state.origin.clone()}
    for age, past in enumerate(state.past):
        tensors[f"past.{age}.row"] = torch.tensor(astuple(past.row), dtype=torch.float64)
        tensors[f"past.{age}.x0"] = past.x0.clone()
    return tensors


def state_from_tensors(tensors: Mapping[str, Tensor], device: torch.device | str = "cpu") -> State:
    """The state that `state_to_tensors` wrote, on a device; names that it didn't write are left alone."""
    ages = range(sum(name.startswith("past.") for name in tensors) // 2)
    past = (Past(Row(*tensors[f"past.{age}.row"].tolist()), tensors[f"past.{age}.x0"].to(device)) for age in ages)
    origin = tensors.get("origin")
    return State(tuple(past), None if origin is None else origin.to(device))


def _noise(row: Row, x: Tensor, x0: Tensor) -> Tensor:
    return (x - row.alpha * x0) / row.sigma


def _extrapolated(state: State, row: Row, x0: Tensor) -> Tensor:
    """x0 halfway into the step, from this prediction and the last: arXiv:2211.01095, algorithm 2."""
    if not state.past or row.final:
        return x0
    last = state.past[0]
    half_ratio = row.log_snr_gain / (2 * (row.log_snr - last.row.log_snr))
    return (x0 - last.x0).mul_(half_ratio).add_(x0)


def _corrected(state: State, x0: Tensor) -> Tensor:
    """The x0 that redoes the last step knowing its end: UniC-1 or UniC-2 of arXiv:2302.04867, algorithm 1."""
    last, *earlier = state.past
    if not earlier:
        return last.x0 + 0.5 * (x0 - last.x0)
    hh = -last.row.log_snr_gain
    ratio = (earlier[0].row.log_snr - last.row.log_snr) / -hh
    grown = math.expm1(hh)
    phi_2 = grown / hh - 1
    phi_3 = phi_2 / hh - 0.5
    weight_past = (phi_2 - 2 * phi_3) / grown / (1 - ratio)
    weight_new = phi_2 / grown - weight_past
    return last.x0 + weight_past / ratio * (earlier[0].x0 - last.x0) + weight_new * (x0 - last.x0)
