"""How the memory of Wan's decoder grows with the length of a video: in tiles it should not.

    python bench/bench_decode_memory.py --frames 9 33 129

Every length is a process of its own; what it holds above what it held before is printed, and its ratio to the
shortest. Weights and latents are random; `--decoder-width 96` is Wan's own width, less is quicker.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "weights")]
MB = 2**10  # getrusage counts in KiB


def main() -> None:
    """Run every length and print what it took."""
    options = _options()
    if options.one:
        print(_peak(options, options.one))
        return
    print(f"{options.width}x{options.height}, tiles of {options.side} latents, decoder width {options.decoder_width}")
    peaks = {frames: _in_process(frames) for frames in options.frames}
    for frames, peak in peaks.items():
        print(
            f"{frames} frames: {peak / MB:.0f} MB, {peak / peaks[options.frames[0]]:.3f} of {options.frames[0]} frames"
        )


def _in_process(frames: int) -> int:
    command = [sys.executable, __file__, *sys.argv[1:], "--one", str(frames)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak(options: argparse.Namespace, frames: int) -> int:
    """What decoding adds to the memory of this process, in KiB."""
    import torch

    from sora_cli.model.vae.wan import WanVAE
    from sora_weights.spec import WanVAESpec

    spec = WanVAESpec(width=options.decoder_width, decoder_width=options.decoder_width)
    vae = WanVAE(spec).eval()
    shape = (1, spec.channels, options.height // 8, options.width // 8)
    latents = (torch.randn(shape) for _ in range((frames - 1) // 4 + 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with TemporaryDirectory(prefix="bench-decode-") as scratch:
        made = sum(len(group) for group in vae.decode(latents, options.side, Path(scratch)))
    assert made == frames
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Peak memory of Wan's decoder for videos of several lengths.")
    parser.add_argument("--frames", type=int, nargs="+", default=[9, 33, 129], help="one more than multiples of 4")
    parser.add_argument("--height", type=int, default=480, help="pixels, a multiple of 8")
    parser.add_argument("--width", type=int, default=832, help="pixels, a multiple of 8")
    parser.add_argument("--side", type=int, default=32, help="largest side of a tile, in latents")
    parser.add_argument("--decoder-width", type=int, default=96, help="channels of the widest pictures")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
