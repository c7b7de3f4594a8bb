"""Noise schedules as plain rows, from our own arithmetic or from a checkpoint's scheduler_config.json.

A schedule is a tuple of `Row`. Each row is one evaluation of the network in the process
x_t = alpha * x0 + sigma * noise, together with the level that the solver moves to from there.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
from torch import Tensor

from sora_cli.engine.canvas import steps_from
from sora_cli.errors import SoraError

Config = Mapping[str, Any]
MOST_TIMESTEPS = 10_000
Prediction = Literal["x0", "v", "flow", "epsilon"]
Sigmas = TypeVar("Sigmas", float, np.ndarray)


@dataclass(frozen=True, slots=True)
class Row:
    """One network evaluation at (t, alpha, sigma) and the level the step leads to.

    t is what the network is told, in its own units; a next_t below 0 lies past the end of a discrete table.
    Where a reference's steps don't meet (CogVideoX in 7 steps), next_alpha isn't the next row's alpha.
    """

    t: float
    alpha: float
    sigma: float
    next_alpha: float
    next_sigma: float
    next_t: float

    @property
    def final(self) -> bool:
        """Whether nothing lies beyond: multistep solvers end on a first-order step here."""
        return self.next_sigma == 0 or self.next_t < 0

    @property
    def log_snr(self) -> float:
        """Half the log signal-to-noise ratio, lambda = log(alpha / sigma); -inf for pure noise."""
        return log_snr(self.alpha, self.sigma)

    @property
    def log_snr_gain(self) -> float:
        """The step size h = lambda(next) - lambda(now) of exponential integrators; inf from or to an end."""
        return log_snr(self.next_alpha, self.next_sigma) - self.log_snr


Rows = tuple[Row, ...]


def log_snr(alpha: float, sigma: float) -> float:
    """Log of alpha / sigma, with its limits -inf (alpha 0) and inf (sigma 0)."""
    if alpha == 0:
        return -math.inf
    return math.inf if sigma == 0 else math.log(alpha / sigma)


def time_shift(sigma: Sigmas, shift: float) -> Sigmas:
    """The shift a: t' = a t / (1 + (a - 1) t), towards noise for a > 1; its inverse is the shift 1 / a.

    Source: Esser et al. 2024, Scaling Rectified Flow Transformers (arXiv:2403.03206), eq. 23.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def flow_schedule(steps: int, *, shift: float = 1.0, start: float = 1.0, scale: float = 1000.0) -> Rows:
    """Rectified flow in `steps` steps, evenly spaced before the shift, from sigma `start` to 0.

    `start` is the first sigma itself (1 is pure noise), `scale` the network's timestep at sigma 1.
    Raises ValueError unless steps >= 1 and 0 < start <= 1.
    Source: Liu et al. 2022, Flow Straight and Fast (arXiv:2209.03003).
    """
    if steps < 1 or not 0 < start <= 1:
        raise ValueError(f"steps {steps}, start {start}: at least one step from a start in (0, 1]")
    first = time_shift(start, 1 / shift)
    sigmas = [start, *(time_shift(first * (1 - step / steps), shift) for step in range(1, steps + 1))]
    return flow_rows(sigmas, [scale * sigma for sigma in sigmas[:-1]])


def flow_rows(sigmas: Sequence[float], timesteps: Sequence[float]) -> Rows:
    """Flow-matching rows (alpha = 1 - sigma) of n + 1 sigmas, the last of them where the last step ends."""
    ends = [*timesteps[1:], 0.0]
    return tuple(
        Row(t=t, alpha=1 - sigma, sigma=sigma, next_alpha=1 - end, next_sigma=end, next_t=next_t)
        for t, sigma, end, next_t in zip(timesteps, sigmas[:-1], sigmas[1:], ends, strict=True)
    )


def truncate(rows: Rows, strength: float) -> Rows:
    """The last `strength` share of the rows, at least one: start from `noised(x0, noise, rows[0])`.

    Raises ValueError unless 0 < strength <= 1. Source: Meng et al. 2021, SDEdit (arXiv:2108.01073).
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength {strength}: more than 0, at most 1")
    return rows[-steps_from(len(rows), strength) :]


def noised(x0: Tensor, noise: Tensor, row: Row) -> Tensor:
    """x_t = alpha * x0 + sigma * noise at the row's level; all (b, c, t, h, w)."""
    return (row.alpha * x0).add_(row.sigma * noise)


def doubled(rows: Rows) -> Rows:
    """Rows for `heun`: each step is followed by a second evaluation at its end, which stays where it is.

    The last step to sigma 0 has no second evaluation: the noise direction is undefined there.
    """
    return tuple(each for row in rows for each in ((row,) if row.final else (row, _stay_at_end(row))))


def _stay_at_end(row: Row) -> Row:
    return Row(row.next_t, row.next_alpha, row.next_sigma, row.next_alpha, row.next_sigma, row.next_t)


@dataclass(frozen=True, slots=True)
class Scheduler:
    """What a scheduler_config.json says: a key of SOLVERS, what the network predicts, the rows of n steps.

    `levels` gives the rows of n steps from any noise level on; None for discrete schedules, which are cut instead.
    """

    solver: str
    prediction: Prediction
    rows: Callable[[int], Rows]
    levels: Callable[[int, float], Rows] | None = None

    def part(self, steps: int, strength: float) -> Rows:
        """The last `strength` share of the rows, or as many from noise level `strength` on."""
        if self.levels is None:
            return truncate(self.rows(steps), strength)
        return self.levels(steps_from(steps, strength), strength)


def scheduler_from_config(config: Config) -> Scheduler:
    """Reads a diffusers scheduler_config.json, with diffusers' own defaults for keys that it leaves out.

    Raises SoraError (bad_weights) for a class or a setting that would need other arithmetic than ours.
    """
    return _READERS[_named(config, "_class_name", "", _READERS)](config)


def _read_euler(config: Config) -> Scheduler:
    _require(config, {**_PLAIN_SIGMAS, "invert_sigmas": False, "stochastic_sampling": False})
    train, shift = _timesteps(config), _number(config, "shift", 1.0)

    def rows(steps: int) -> Rows:
        # The reference shifts the smallest sigma when it is made and all of them again here.
        sigmas = time_shift(np.linspace(1.0, time_shift(1 / train, shift), steps), shift)
        sigmas = sigmas.astype(np.float32)
        return _to_clean(sigmas, sigmas * np.float32(train))

    return Scheduler("euler", "flow", rows)


def _read_unipc(config: Config) -> Scheduler:
    _require({"use_flow_sigmas": False, **config}, {**_PLAIN_SIGMAS, **_UNIPC_2_BH2})
    train, shift = _timesteps(config), _number(config, "flow_shift", 1.0)

    def rows(steps: int) -> Rows:
        sigmas = time_shift(np.linspace(1, 1 / train, steps + 1)[:-1], shift)
        # The reference keeps the first alpha above 0 for its logarithm and tells the network whole timesteps.
        sigmas[0] -= 1e-6
        return _to_clean(sigmas.astype(np.float32), np.trunc(sigmas * train))

    return Scheduler("unipc", _prediction(config), rows)


def _read_cogvideox(config: Config, solver: str) -> Scheduler:
    _require(config, {"beta_schedule": "scaled_linear", "trained_betas": None})
    spacing = _named(config, "timestep_spacing", "leading", _SPACINGS)
    offset = int(_number(config, "steps_offset", 0, least=0)) if spacing == "leading" else 0
    alphas_bar = _cogvideox_alphas_bar(config)
    beyond = 1.0 if config.get("set_alpha_to_one", True) else float(alphas_bar[0])

    def row(t: int, stride: int) -> Row:
        now, after = float(alphas_bar[t]), float(alphas_bar[t - stride]) if t >= stride else beyond
        return Row(
            t=t,
            alpha=math.sqrt(now),
            sigma=math.sqrt(1 - now),
            next_alpha=math.sqrt(after),
            next_sigma=math.sqrt(1 - after),
            next_t=t - stride,
        )

    def rows(steps: int) -> Rows:
        train = len(alphas_bar)
        if not 1 <= steps <= train:
            raise SoraError("bad_usage", f"--steps {steps}", f"this model takes 1 to {train} steps")
        return tuple(row(int(t) + offset, train // steps) for t in _SPACINGS[spacing](train, steps))

    return Scheduler(solver, _prediction(config), rows)


def _to_clean(sigmas: np.ndarray, timesteps: np.ndarray) -> Rows:
    return flow_rows([*sigmas.tolist(), 0.0], timesteps.tolist())


def _cogvideox_alphas_bar(config: Config) -> np.ndarray:
    """Cumulative products of alpha (timesteps,), float64: scaled-linear betas, SNR shift, zero terminal SNR.

    Sources: Yang et al. 2024, CogVideoX (arXiv:2408.06072), and for the rescaling Lin et al. 2023, Common
    Diffusion Noise Schedules and Sample Steps are Flawed (arXiv:2305.08891), algorithm 1.
    """
    first, last = (_number(config, key, usual, most=1) for key, usual in (("beta_start", 0.00085), ("beta_end", 0.012)))
    betas = np.linspace(first**0.5, last**0.5, _timesteps(config)) ** 2
    alphas_bar: np.ndarray = np.cumprod(1 - betas)
    shift = _number(config, "snr_shift_scale", 3.0)
    alphas_bar = alphas_bar / (shift + (1 - shift) * alphas_bar)
    if config.get("rescale_betas_zero_snr", False):
        roots = np.sqrt(alphas_bar)
        alphas_bar = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    return alphas_bar


_PREDICTIONS: Mapping[str, Prediction] = {
    "sample": "x0",
    "v_prediction": "v",
    "flow_prediction": "flow",
    "epsilon": "epsilon",
}
# Descending timesteps by table 2 of arXiv:2305.08891; numpy rounds halves to even, as the references do.
_SPACINGS: Mapping[str, Callable[[int, int], np.ndarray]] = {
    "trailing": lambda train, steps: np.round(np.arange(train, 0, -train / steps)) - 1,
    "leading": lambda train, steps: (np.arange(steps) * (train // steps))[::-1],
    "linspace": lambda train, steps: np.linspace(0, train - 1, steps).round()[::-1],
}
_PLAIN_SIGMAS: Config = {
    "use_dynamic_shifting": False,
    "shift_terminal": None,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_UNIPC_2_BH2: Config = {
    "use_flow_sigmas": True,
    "final_sigmas_type": "zero",
    "solver_order": 2,
    "solver_type": "bh2",
    "solver_p": None,
    "predict_x0": True,
    "lower_order_final": True,
    "disable_corrector": [],
    "thresholding": False,
}
_READERS: Mapping[str, Callable[[Config], Scheduler]] = {
    "FlowMatchEulerDiscreteScheduler": _read_euler,
    "UniPCMultistepScheduler": _read_unipc,
    "CogVideoXDDIMScheduler": partial(_read_cogvideox, solver="ddim"),
    "CogVideoXDPMScheduler": partial(_read_cogvideox, solver="cogvideox_dpm"),
}


def _require(config: Config, needed: Config) -> None:
    for key, value in needed.items():
        if config.get(key, value) != value:
            raise _unsupported(key, config[key], repr(value))


def _timesteps(config: Config) -> int:
    """How many timesteps the network was trained on."""
    count = _number(config, "num_train_timesteps", 1000, least=1, most=MOST_TIMESTEPS)
    if count != int(count):
        raise _unsupported("num_train_timesteps", count, "a whole number")
    return int(count)


def _number(config: Config, key: str, default: float, *, least: float = 1e-6, most: float = 1e3) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise _unsupported(key, str(value)[:60], f"a number from {least:g} to {most:g}")
    return value


def _named(config: Config, key: str, default: str, known: Mapping[str, Any]) -> str:
    name = str(config.get(key, default))
    if name not in known:
        raise _unsupported(key, name, ", ".join(known))
    return name


def _prediction(config: Config) -> Prediction:
    return _PREDICTIONS[_named(config, "prediction_type", "epsilon", _PREDICTIONS)]


def _unsupported(key: str, value: object, supported: str) -> SoraError:
    message = f"scheduler_config.json: {key} {value!r} is not supported"
    return SoraError("bad_weights", message, f"supported: {supported}")
