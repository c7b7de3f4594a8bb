"""How every operator is timed: candidates take turns, medians are compared, ratios are printed.

A ratio is a candidate's time over the first candidate's: below 1 is faster. Taking turns lets a busy or
throttled machine slow all candidates alike, so ratios hold where times don't. Beside a time stands the cosine
between a candidate's output and the first one's, where it is less than 0.9999.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import chain

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

Candidate = Callable[[], Tensor]
Candidates = Mapping[str, Candidate]
SHARE_OF_WARM_UP = 4
TINY = 12
"""The largest number of a shape with --tiny."""
SAME = 0.9999
READY = "ready"
"""What a benchmark that waits prints when everything is compiled."""
LARGER_THAN_A_CACHE = 256 << 20
"""Bytes written before each timing on a GPU, whose second cache holds 50 MiB at most."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where and how to measure; `train` times a forward and a backward pass together."""

    device: str
    dtype: torch.dtype
    rounds: int
    train: bool
    tiny: bool
    depth: int
    wait: bool = False

    def randn(self, *shape: int) -> Tensor:
        """Noise for an input, which wants a gradient when training is timed."""
        return torch.randn(shape, device=self.device, dtype=self.dtype, requires_grad=self.train)

    def on_cuda(self, candidates: Candidates) -> Candidates:
        """The candidates that need a CUDA device: none of them elsewhere, where a line says so."""
        if self.device == "cuda":
            return candidates
        _say_left_out(", ".join(candidates), f"CUDA only, and this is {self.device}")
        return {}


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of one shape: median seconds, cosines with the first candidate, and why others are missing."""

    operator: str
    shape: str
    dtype: str
    machine: str
    torch: str
    seconds: dict[str, float] = field(default_factory=dict)
    cosines: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def main(
    operator: str,
    shapes: Mapping[str, tuple[int, ...]],
    candidates: Callable[..., Candidates],
    large: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Time `candidates(settings, *shape)` for every named shape and print one line each.

    `large` shapes are for GPUs: they are timed instead on a CUDA device, and elsewhere with --tiny alone.
    """
    settings, as_json = _settings(operator)
    machine, dtype = _machine(settings.device), str(settings.dtype).removeprefix("torch.")
    if not as_json:
        print(f"{operator} {dtype} {machine}, torch {torch.__version__}", flush=True)
    able: list[tuple[Result, Candidates]] = []
    for name, shape in _chosen(settings, shapes, large or {}).items():
        result = Result(operator, name, dtype, machine, torch.__version__)
        numbers = tuple(min(number, TINY) for number in shape) if settings.tiny else shape
        able.append((result, ready(candidates(settings, *numbers), settings, result)))
    if settings.wait:
        print(READY, flush=True)
        sys.stdin.readline()
    for result, them in able:
        result.seconds.update(medians(them, settings))
        print(json.dumps(asdict(result)) if as_json else f"{result.shape:<28} {_line(result)}", flush=True)


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function through torch.compile, which is imported when it is first called."""
    ready = cache(lambda: torch.compile(function, dynamic=False))
    return lambda *arguments: ready()(*arguments)


def pinned(kernel: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function with scaled_dot_product_attention pinned to "cudnn", "flash" or another of PyTorch's kernels."""
    backend = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}[kernel]

    def run(*arguments: object) -> Tensor:
        with sdpa_kernel(backend):
            return function(*arguments)

    return run


def ready(candidates: Candidates, settings: Settings, result: Result) -> Candidates:
    """Those that can run these arguments, each run once: compiled, and compared with the first.

    One that can't is left out, and its reason kept.
    """
    able: dict[str, Candidate] = {}
    outputs: list[Tensor] = []
    for name, candidate in candidates.items():
        try:
            output = _run(candidate, settings)
        except Exception as refused:  # compilers and drivers have errors of their own kinds; each is told
            result.left_out[name] = str(refused).splitlines()[0] if str(refused) else type(refused).__name__
            continue
        able[name], outputs = candidate, outputs or [output]
        if output.shape == outputs[0].shape:
            result.cosines[name] = _cosine(output, outputs[0])
        del output
    outputs.clear()
    if settings.device == "cuda":
        torch.cuda.empty_cache()
    return able


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


def _seconds(candidate: Candidate, settings: Settings) -> float:
    if settings.device == "cuda":
        return _seconds_on_cuda(candidate, settings)
    _wait(settings.device)
    start = time.perf_counter()
    _run(candidate, settings)
    _wait(settings.device)
    return time.perf_counter() - start


def _seconds_on_cuda(candidate: Candidate, settings: Settings) -> float:
    """By the GPU's own clock, its cache full of something else; writing that hides the time that launches take."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    _something_else().zero_()
    start.record()
    _run(candidate, settings)
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


@cache
def _something_else() -> Tensor:
    return torch.empty(LARGER_THAN_A_CACHE, dtype=torch.uint8, device="cuda")


def _run(candidate: Candidate, settings: Settings) -> Tensor:
    with torch.set_grad_enabled(settings.train):
        output = candidate()
        if settings.train:
            output.backward(torch.ones_like(output))
    return output.detach()


def _cosine(found: Tensor, first: Tensor) -> float:
    return functional.cosine_similarity(found.flatten().float(), first.flatten().float(), 0).item()


def _wait(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize()


def _line(result: Result) -> str:
    first = next(iter(result.seconds.values()), 1.0)
    times = (
        f"{name} {1e3 * t:.3f} ms ({t / first:.2f}{_unlike(result.cosines.get(name, 1.0))})"
        for name, t in result.seconds.items()
    )
    missing = (f"{name} left out: {reason}" for name, reason in result.left_out.items())
    return "  ".join(chain(times, missing))


def _unlike(cosine: float) -> str:
    return "" if cosine >= SAME else f", cosine {cosine:.4f}"


def _chosen(
    settings: Settings, shapes: Mapping[str, tuple[int, ...]], large: Mapping[str, tuple[int, ...]]
) -> Mapping[str, tuple[int, ...]]:
    if settings.tiny:
        return {**shapes, **large}
    return large if large and settings.device == "cuda" else shapes


@cache
def _say_left_out(names: str, reason: str) -> None:
    print(f"# left out: {names}: {reason}", flush=True)


def _settings(operator: str) -> tuple[Settings, bool]:
    parser = argparse.ArgumentParser(description=f"Times {operator} against plain PyTorch; ratios below 1 are faster.")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--rounds", type=int, default=20, help="times that each candidate runs")
    parser.add_argument("--threads", type=int, default=None, help="threads on CPU; PyTorch's choice unless given")
    parser.add_argument("--train", action="store_true", help="time the backward pass too")
    parser.add_argument("--tiny", action="store_true", help=f"no number of a shape above {TINY}: does everything run?")
    parser.add_argument("--depth", type=int, default=2, help="blocks of a whole step; bench_dit_step.py alone looks")
    parser.add_argument("--wait", action="store_true", help="compile, print a line, wait for one, then measure")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each shape")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    dtype = getattr(torch, given.dtype)
    settings = Settings(given.device, dtype, given.rounds, given.train, given.tiny, given.depth, given.wait)
    return settings, given.json


def _machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{device} {platform.machine()}, {torch.get_num_threads()} threads, {capability}"
