"""Runs every benchmark and prints its tables in markdown, ready for kernels/README.md.

    PYTHONPATH=kernels python kernels/bench/all.py --device cuda > tables.md

Each benchmark is a process of its own, so that none inherits another's memory or compiled code. Without a GPU,
`--tiny` shows in a minute whether everything runs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VERSIONED = ("torch", "triton", "diffusers")
SAME = 0.9999


def run(script: Path, *options: str) -> list[dict[str, Any]]:
    """The results of one benchmark, one for each shape; what goes wrong is told on stderr and is no result."""
    print(f"{script.stem} {' '.join(options)}", file=sys.stderr, flush=True)
    finished = subprocess.run(
        [sys.executable, str(script), "--json", *options], stdout=subprocess.PIPE, text=True, check=False
    )
    if finished.returncode:
        print(f"{script.stem} ended with {finished.returncode}", file=sys.stderr, flush=True)
    lines = finished.stdout.splitlines()
    for line in lines:
        if not line.startswith("{"):
            print(f"  {line}", file=sys.stderr, flush=True)
    return [json.loads(line) for line in lines if line.startswith("{")]


def table(results: list[dict[str, Any]]) -> Iterator[str]:
    """One operator's lines: a row for each shape and dtype, a column for each candidate."""
    names = list(dict.fromkeys(name for result in results for name in (*result["seconds"], *result["left_out"])))
    yield f"| {results[0]['operator']} | dtype | {' | '.join(names)} |"
    yield "| --- " * (2 + len(names)) + "|"
    for result in results:
        cells = (_cell(result, name) for name in names)
        yield f"| {result['shape']} | {result['dtype']} | {' | '.join(cells)} |"


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
    parser.add_argument("--rounds", default="20", help="times that each candidate runs")
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
    results = [result for path in scripts for dtype in given.dtypes for result in run(path, *options, "--dtype", dtype)]
    if not results:
        sys.exit("no benchmark gave a result")
    print(
        f"{results[0]['machine']}, {', '.join(_versions())}, {datetime.date.today()}, medians of {given.rounds} rounds"
    )
    for _, each in groupby(results, itemgetter("operator")):
        rows = list(each)
        print("", *table(rows), *notes(rows), sep="\n")


if __name__ == "__main__":
    main()
