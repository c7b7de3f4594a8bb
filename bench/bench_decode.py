"""diorama's decoder at 1920x1080 beside what its products would take at the rate of a large matrix product.

A product that is wide enough runs at the rate of the machine; convolutions of few channels, norms and rearrangements
can't. Prints seconds for each frame of the decoder, of its products at that rate (the floor), the ratio of both, and
beside them what the video encoder and drawing one figure sharp take:
    python bench/bench_decode.py --threads 2
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from sora_cli.engine.decode import decode_tile, tiles
from sora_cli.engine.devices import choose_precision
from sora_cli.engine.memory import SIDES
from sora_cli.engine.networks import load_retouch, load_vae
from sora_cli.media.writer import open_writer
from sora_cli.model.vae.patch import SPACE, TIME
from sora_weights.registry import find_model

WIDTH, HEIGHT = 1920, 1088
FIGURE = 512  # pixels along the square around a figure there, about
SIDE = 2048


def rate(dtype: torch.dtype) -> float:
    """Floating-point operations a second of a square matrix product of `SIDE` rows."""
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    return 2 * SIDE**3 / timed(lambda: a @ b)


def timed(run: Callable[[], object], repeats: int = 5) -> float:
    """Median seconds of a run, after one that does not count."""
    run()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def operations(run: Callable[[], object]) -> int:
    """Floating-point operations of the products and convolutions of a run."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def encoded(frame: np.ndarray, suffix: str, count: int = 24) -> float:
    """Seconds for each frame (H, W, 3) of a video in a file with this suffix."""
    with tempfile.TemporaryDirectory() as folder:
        began, height, width = time.perf_counter(), *frame.shape[:2]
        path = Path(folder) / f"clip{suffix}"
        facts = {"width": width, "height": height, "fps": Fraction(24), "frames": count, "metadata": None}
        with open_writer(path, force=True, **facts) as writer:
            for at in range(count):
                writer.write(np.roll(frame, 4 * at, 1))
        return (time.perf_counter() - began) / count


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    model = find_model("diorama")
    precision = choose_precision("auto", "cpu", model)
    vae, (retouch, _) = load_vae(model, "cpu", precision), load_retouch(model, "cpu", precision)
    rows, columns = HEIGHT // SPACE, WIDTH // SPACE
    latent, before = torch.randn(2, 1, model.specs.vae.channels, rows, columns).unbind(0)
    parts = tiles(rows, columns, SIDES[0], vae.halo)

    def decoder() -> list[torch.Tensor]:
        return [decode_tile(vae, latent, before, part) for part in parts]

    def linear() -> torch.Tensor:
        return vae._linear_inverse(latent)

    dtype = vae.inward.weight.dtype
    took, whole, narrow = timed(decoder), operations(decoder), rate(dtype)
    floor = (whole - operations(linear)) / narrow + operations(linear) / rate(latent.dtype)
    print(f"{WIDTH}x{HEIGHT}, {asked.threads} threads, torch {torch.__version__}, {dtype}: {narrow / 1e9:.0f} GFLOP/s")
    print(f"decoder {took / TIME:.3f} s a frame, its products {floor / TIME:.3f} s: {took / floor:.2f} times the floor")
    seen, figure = torch.rand(1, 3, FIGURE, FIGURE) * 2 - 1, torch.rand(1, 4, FIGURE, FIGURE)
    print(f"drawing a figure sharp {timed(lambda: retouch(seen, figure, figure[:, 3:])):.3f} s a frame")
    smooth = F.interpolate(torch.rand(1, 3, 27, 48), (1080, WIDTH), mode="bicubic")[0].clamp(0, 1) * 255
    pixels = np.ascontiguousarray(smooth.byte().permute(1, 2, 0).numpy())
    print(", ".join(f"{suffix} {encoded(pixels, suffix):.3f} s a frame" for suffix in (".mp4", ".mkv")))


if __name__ == "__main__":
    main()
