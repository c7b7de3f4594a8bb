"""How visible the joins are where clips are extended, looped and joined: as the tool says, and as its files show.

    python bench/bench_seams.py CLIP [CLIP ...]

Every clip is extended forward and backward, looped, and joined with the next one given. Printed is, for each join, what
`--json` reports (contract: 1.0 is invisible) and the same ratio computed from the decoded file by other code; and
whether the clip's own planes are in the file bit for bit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import av
import numpy as np

SECONDS = 1


def main() -> None:
    """Run every command on every clip and print a table."""
    options = _options()
    found: dict[str, list[float]] = {}
    print("| clip | command | reported | in the file | planes |\n| --- | --- | --- | --- | --- |")
    for index, clip in enumerate(options.clips):
        other = options.clips[(index + 1) % len(options.clips)]
        for name, arguments in _commands(clip, other).items():
            reported, measured, same = _measured(name, clip, arguments)
            found.setdefault(name, []).extend(reported)
            both = [" ".join(f"{value:.2f}" for value in values) for values in (reported, measured)]
            print(f"| {clip.stem} | {name} | {' | '.join(both)} | {'same' if same else 'DIFFERENT'} |", flush=True)
    every = [value for values in found.values() for value in values]
    print(f"\nall {len(every)} joins: median {median(every):.2f}, worst {max(every):.2f}")


def _commands(clip: Path, other: Path) -> dict[str, list[str]]:
    return {
        "forward": ["extend", str(clip), "--seconds", str(SECONDS)],
        "backward": ["extend", str(clip), "--backward", "--seconds", str(SECONDS)],
        "loop": ["loop", str(clip), "--seconds", str(SECONDS)],
        "bridge": ["interpolate", str(clip), str(other), "--seconds", str(SECONDS)],
    }


def _measured(name: str, clip: Path, arguments: list[str]) -> tuple[list[float], list[float], bool]:
    """The seams that a command reports, those of its file, and whether that holds the clip's planes."""
    with TemporaryDirectory(prefix="bench-seams-") as folder:
        output = Path(folder) / "out.mkv"
        command = [str(Path(sys.executable).with_name("sora")), *arguments, "--seed", "0", "--json", "-o", str(output)]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        own, made = _frames(clip), _frames(output)
        own_planes, planes = _frames(clip, planes=True), _frames(output, planes=True)
    first = len(made) - len(own) if name == "backward" else 0
    joins = [first] if name == "backward" else [len(own)]
    if name == "loop":
        joins.append(len(made))
    if name == "bridge":
        joins.append(len(own) + round(SECONDS * _rate(clip)))
    loops = name == "loop"
    same = all(np.array_equal(a, b) for a, b in zip(own_planes, planes[first:], strict=False))
    return result["metrics"]["seams"], [_seam(made, join, joins, _rate(clip), loops) for join in joins], same


def _frames(path: Path, *, planes: bool = False) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        frames = video.decode(video=0)
        return [frame.to_ndarray() if planes else frame.to_ndarray(format="rgb24") for frame in frames]


def _rate(path: Path) -> float:
    with av.open(str(path)) as video:
        return float(video.streams.video[0].average_rate)


def _seam(frames: list[np.ndarray], join: int, joins: list[int], rate: float, loops: bool) -> float:
    """The change across a join over the median of the changes within half a second, or its inverse."""
    count = len(frames)
    index = range(1, count + loops)
    change = {k: float(np.abs(frames[k % count].astype(float) - frames[k - 1]).mean()) for k in index}
    reach = max(1, int(rate / 2 + 0.5))
    near = ((k - 1) % count + 1 if loops else k for k in range(join - reach, join + reach + 1))
    usual = median(change[k] for k in near if k in change and k not in joins)
    return max(change[join] / usual, usual / change[join])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Seams of extend, loop and interpolate on some clips.")
    parser.add_argument("clips", type=Path, nargs="+", help="videos, each also joined with the next one")
    return parser.parse_args()


if __name__ == "__main__":
    main()
