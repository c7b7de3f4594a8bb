"""Runs every benchmark and prints its tables in markdown, ready for kernels/README.md.

    PYTHONPATH=kernels python kernels/bench/all.py --device cuda > tables.md

Each benchmark is a process of its own, so that none inherits another's memory or compiled code. On a GPU all compile at
the same time and are then timed one after the other. Without one, `--tiny` shows in a minute whether everything runs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VERSIONED = ("torch", "triton", "diffusers")
SAME = 0.9999
READY = "ready"
OURS = ("sora_kernels", "triton+torch", "triton", "int8")


def start(script: Path, *options: str) -> subprocess.Popen[str]:
    """A benchmark that compiles, says so and waits."""
    environment = {"TORCHINDUCTOR_COMPILE_THREADS": "4", **os.environ}
    return subprocess.Popen(
        [sys.executable, str(script), "--json", "--wait", *options],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def until_ready(benchmark: subprocess.Popen[str]) -> None:
    """Wait until it has compiled everything, or ended."""
    for line in benchmark.stdout or ():
        if line.strip() == READY:
            return
        print(f"  {line.rstrip()}", file=sys.stderr, flush=True)


def results_of(benchmark: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Its results, one for each shape, now that it is its turn; what goes wrong is told on stderr and is no result."""
    out, _ = benchmark.communicate("\n")
    script = Path(str(benchmark.args[1])).stem  # type: ignore[index]
    print(out.rstrip(), f"{script} ended with {benchmark.returncode}", sep="\n", file=sys.stderr, flush=True)
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def table(results: list[dict[str, Any]]) -> Iterator[str]:
    """One operator's lines: a row for each shape and dtype, a column for each candidate."""
    names = list(dict.fromkeys(name for result in results for name in (*result["seconds"], *result["left_out"])))
    yield f"| {results[0]['operator']} | dtype | {' | '.join(names)} |"
    yield "| --- " * (2 + len(names)) + "|"
    for result in results:
        cells = (_cell(result, name) for name in names)
        yield f"| {result['shape']} | {result['dtype']} | {' | '.join(cells)} |"


def ratios(results: list[dict[str, Any]]) -> Iterator[str]:
    """How many times as fast as others ours are: a row for each shape, dtype and other candidate."""
    ours = [name for name in OURS if any(name in result["seconds"] for result in results)]
    yield f"| {results[0]['operator']} | dtype | against | {' | '.join(ours)} |"
    yield "| --- " * (3 + len(ours)) + "|"
    for result in results:
        seconds = result["seconds"]
        for other in (name for name in seconds if name not in OURS):
            cells = (f"{seconds[other] / seconds[name]:.2f}" if name in seconds else "-" for name in ours)
            yield f"| {result['shape']} | {result['dtype']} | {other} | {' | '.join(cells)} |"


def notes(results: list[dict[str, Any]]) -> Iterator[str]:
    """Why candidates are missing, each reason once."""
    reasons = {(name, why) for result in results for name, why in result["left_out"].items()}
    for name, why in sorted(reasons):
        yield f"- {name} in {results[0]['operator']}: {why}"


def _cell(result: dict[str, Any], name: str) -> str:
    if name not in result["seconds"]:
        return "-"
    seconds = result["seconds"]
    first = next(iter(seconds.values()))
    cosine = result["cosines"].get(name, 1.0)
    unlike = "" if cosine >= SAME else f", cosine {cosine:.4f}"
    return f"{seconds[name] / first:.2f} ({1e3 * seconds[name]:.3g} ms{unlike})"


def _versions() -> Iterator[str]:
    for name in VERSIONED:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"no {name}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs every benchmark and prints markdown tables.")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16"], help="float32, bfloat16, float16")
    parser.add_argument("--only", nargs="+", default=[], help="operators, all unless given")
    parser.add_argument("--rounds", default="7", help="times that each candidate runs")
    parser.add_argument("--threads", default=None, help="threads on CPU")
    parser.add_argument("--depth", default="2", help="blocks of the whole step; 30 is Wan 1.3B")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to see whether everything runs")
    return parser.parse_args()


def main() -> None:
    """Run, then print."""
    given = _options()
    options = ["--device", given.device, "--rounds", given.rounds, "--depth", given.depth]
    options += ["--tiny"] if given.tiny else []
    options += ["--threads", given.threads] if given.threads else []
    scripts = [path for path in sorted(HERE.glob("bench_*.py")) if not given.only or path.stem[6:] in given.only]
    started: Iterable[subprocess.Popen[str]] = (
        start(path, *options, "--dtype", dtype) for path in scripts for dtype in given.dtypes
    )
    if given.device == "cuda":
        started = list(started)
        for benchmark in started:
            until_ready(benchmark)
    results = [result for benchmark in started for result in results_of(benchmark)]
    if not results:
        sys.exit("no benchmark gave a result")
    print(
        f"{results[0]['machine']}, {', '.join(_versions())}, {datetime.date.today()}, medians of {given.rounds} rounds"
    )
    for _, each in groupby(results, itemgetter("operator")):
        rows = list(each)
        print("", *table(rows), "", *ratios(rows), *notes(rows), sep="\n")


if __name__ == "__main__":
    main()
