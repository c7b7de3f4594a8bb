"""Wan's full-size decoder against diffusers: time, peak memory and pixels, whole and in tiles.

    python bench/bench_wan_vae.py --height 480 --width 832 --frames 9 --side 32

Every decode is a process of its own, which says when it began and ended and how much memory it ever held; ways take
turns, medians are compared, and ratios are printed. Weights are random. Needs the `test` extra.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "weights")]

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from sora_weights.spec import WanVAESpec  # noqa: E402

WAYS = ("diffusers", "whole", "tiles")


@dataclass(frozen=True, slots=True)
class Measure:
    """One decode: seconds, and the most memory that its process ever held, in getrusage's unit."""

    seconds: float
    memory: int
    memory_before: int


def main() -> None:
    """Run every way in turn and print how they compare."""
    options = _options()
    if options.way:
        print(json.dumps(_decode(options)))
        return
    with TemporaryDirectory(prefix="bench-wan-vae-") as folder:
        _random_weights(Path(folder))
        measures: dict[str, list[Measure]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way in WAYS:
                measures[way].append(_in_process(way, Path(folder)))
        _report(options, measures, {way: torch.load(Path(folder) / f"{way}.pt") for way in WAYS})


def _report(options: argparse.Namespace, measures: Mapping[str, list[Measure]], frames: Mapping[str, Tensor]) -> None:
    print(f"{options.frames} frames of {options.width}x{options.height}, tiles of {options.side} latents,")
    print(f"{options.dtype}, {torch.get_num_threads()} threads, {options.rounds} rounds, torch {torch.__version__}")
    for way, other in (("whole", "diffusers"), ("tiles", "whole")):
        apart = (frames[way] - frames[other]).abs().max()
        print(f"{way} / {other}: {_ratios(measures[way], measures[other])}, largest difference {apart:.1e}")


def _ratios(ours: list[Measure], theirs: list[Measure]) -> str:
    """How the medians compare; memory with and without what the process held before it decoded."""
    sides = {
        "time": (statistics.median(m.seconds for m in side) for side in (ours, theirs)),
        "peak memory": (statistics.median(m.memory for m in side) for side in (ours, theirs)),
        "memory added": (statistics.median(m.memory - m.memory_before for m in side) for side in (ours, theirs)),
    }
    return ", ".join(f"{name} {mine / other:.2f}" for name, (mine, other) in sides.items())


def _in_process(way: str, folder: Path) -> Measure:
    command = [sys.executable, __file__, *sys.argv[1:], "--way", way, "--folder", str(folder)]
    return Measure(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _decode(options: argparse.Namespace) -> dict[str, float]:
    """Decode once, keep the frames in the folder and say what it took."""
    latent_frames = (options.frames - 1) // 4 + 1
    shape = (1, WanVAESpec().channels, latent_frames, options.height // 8, options.width // 8)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    decode = _diffusers(options) if options.way == "diffusers" else _ours(options)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    frames = decode(latents)
    seconds, memory = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.save(frames, options.folder / f"{options.way}.pt")
    return {"seconds": seconds, "memory": memory, "memory_before": before}


def _diffusers(options: argparse.Namespace) -> Callable[[Tensor], Tensor]:
    vae = _reference().from_pretrained(options.folder, torch_dtype=getattr(torch, options.dtype)).eval()

    @torch.no_grad()
    def decode(latents: Tensor) -> Tensor:
        return vae.decode(latents.to(vae.dtype)).sample[0].transpose(0, 1).float()

    return decode


def _ours(options: argparse.Namespace) -> Callable[[Tensor], Tensor]:
    from sora_cli.model.vae.wan import WanVAE
    from sora_weights.reader import load_into, open_weights
    from sora_weights.rules.wan_vae import KEYS

    with torch.device("meta"):
        vae = WanVAE(WanVAESpec())
    load_into(vae, open_weights(options.folder), KEYS, getattr(torch, options.dtype))
    side = options.side if options.way == "tiles" else max(options.height, options.width)

    def decode(latents: Tensor) -> Tensor:
        return torch.cat(list(vae.decode(iter(latents.unbind(2)), side, options.folder)))

    return decode


def _random_weights(folder: Path) -> None:
    torch.manual_seed(0)
    _reference()().save_pretrained(folder)


def _reference() -> Any:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times Wan's decoder against diffusers; ratios below 1 are better.")
    parser.add_argument("--height", type=int, default=480, help="pixels, a multiple of 8")
    parser.add_argument("--width", type=int, default=832, help="pixels, a multiple of 8")
    parser.add_argument("--frames", type=int, default=9, help="one more than a multiple of 4")
    parser.add_argument("--side", type=int, default=32, help="largest side of a tile, in latents")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--rounds", type=int, default=3, help="times that each way runs")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
