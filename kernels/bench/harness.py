"""How every operator is timed: candidates take turns, medians are compared, ratios are printed.

A ratio is a candidate's time over the first candidate's: below 1 is faster. Taking turns lets a busy or
throttled machine slow all candidates alike, so ratios hold where times don't.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Candidates = Mapping[str, Callable[[], Tensor]]
SHARE_OF_WARM_UP = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """Where and how to measure; `train` times a forward and a backward pass together."""

    device: str
    dtype: torch.dtype
    rounds: int
    train: bool

    def randn(self, *shape: int) -> Tensor:
        """Noise for an input, which wants a gradient when training is timed."""
        return torch.randn(shape, device=self.device, dtype=self.dtype, requires_grad=self.train)


def main(operator: str, shapes: Mapping[str, tuple[int, ...]], candidates: Callable[..., Candidates]) -> None:
    """Time `candidates(settings, *shape)` for every named shape and print one line each."""
    settings = _settings(operator)
    print(f"{operator} {settings.dtype} {_machine(settings.device)}, torch {torch.__version__}", flush=True)
    for name, shape in shapes.items():
        times = medians(candidates(settings, *shape), settings)
        print(f"{name:<28} {_line(times)}", flush=True)


def medians(candidates: Candidates, settings: Settings) -> dict[str, float]:
    """Median seconds of each candidate over `settings.rounds` rounds in which each runs once."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    warm_up = max(1, settings.rounds // SHARE_OF_WARM_UP)
    for round_ in range(warm_up + settings.rounds):
        for name, candidate in candidates.items():
            seconds = _seconds(candidate, settings)
            if round_ >= warm_up:
                times[name].append(seconds)
    return {name: statistics.median(measured) for name, measured in times.items()}


def _seconds(candidate: Callable[[], Tensor], settings: Settings) -> float:
    _wait(settings.device)
    start = time.perf_counter()
    with torch.set_grad_enabled(settings.train):
        output = candidate()
        if settings.train:
            output.backward(torch.ones_like(output))
    _wait(settings.device)
    return time.perf_counter() - start


def _wait(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize()


def _line(times: Mapping[str, float]) -> str:
    first = next(iter(times.values()))
    return "  ".join(f"{name} {1e3 * t:.3f} ms ({t / first:.2f})" for name, t in times.items())


def _settings(operator: str) -> Settings:
    parser = argparse.ArgumentParser(description=f"Times {operator} against plain PyTorch; ratios below 1 are faster.")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--rounds", type=int, default=20, help="times that each candidate runs")
    parser.add_argument("--threads", type=int, default=None, help="threads on CPU; PyTorch's choice unless given")
    parser.add_argument("--train", action="store_true", help="time the backward pass too")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    return Settings(given.device, getattr(torch, given.dtype), given.rounds, given.train)


def _machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{device} {platform.machine()}, {torch.get_num_threads()} threads, {capability}"
