"""Every command on a clip: how long it takes, how much memory, and whether the clip's own frames come back.

    python bench/bench_commands.py CLIP OTHER [--sheets FOLDER]

CLIP and OTHER are lossless videos of one size. Printed is, for each command, seconds from start to finish, the peak
that `--json` reports, and whether the planes of the clip's own frames are in the result bit for bit, as PyAV decodes
them (beside a mask: their luma); for `reconstruct` also the PSNR that it prints beside the one computed from the files.
With `--sheets` frames of each result are kept there as pictures to look at.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from PIL import Image

SEED = 0
SHOWN = 6  # frames on a sheet


@dataclass(frozen=True)
class Case:
    """A command line, and which of the result's frames are the clip's own: (from frame, to frame, the clip's first)."""

    name: str
    words: str
    own: tuple[int, int, int] = (0, 0, 0)


def main() -> None:
    """Run every command and print a table."""
    options = _options()
    with TemporaryDirectory(prefix="bench-commands-") as name:
        folder = Path(name)
        clip = _decoded(options.clip)
        _write_inputs(folder, clip.rgb[len(clip.rgb) // 2])
        print("| command | seconds | peak, MB | the clip's own planes |\n| --- | --- | --- | --- |")
        for case in _cases(len(clip.rgb)):
            words = case.words.format(clip=options.clip, other=options.other, folder=folder)
            output = folder / f"{case.name}.mkv"
            seconds, told = _run([*words.split("|"), "-o", str(output)])
            made = _decoded(output)
            same = _same(case, clip, made, folder)
            if "psnr" in told["metrics"]:
                same = f"PSNR {told['metrics']['psnr']:.2f}, by the files {_psnr(clip.rgb, made.rgb):.2f} dB"
            peak = told["peak"]["rss_bytes"] / 1e6
            shown = words.replace("|", " ").replace(f"{folder}/", "").replace(f"{options.clip.parent}/", "")
            print(f"| {shown} | {seconds:.1f} | {peak:.0f} | {same} |", flush=True)
            if options.sheets is not None:
                _sheet(made.rgb).save(options.sheets / f"{case.name}.png")


def _cases(n: int) -> list[Case]:
    whole = (0, n, 0)
    return [
        Case("img2vid", "img2vid|{folder}/picture.png|--seconds|2"),
        Case("extend", "extend|{clip}", whole),
        Case("extend-backward", "extend|{clip}|--backward", (48, 48 + n, 0)),
        Case("extend-both", "extend|{clip}|--both", (48, 48 + n, 0)),
        Case("loop", "loop|{clip}", whole),
        Case("bridge", "interpolate|{clip}|{other}", whole),
        Case("blend", "interpolate|{clip}|{other}|--mode|blend|--seconds|1", (0, n - 24, 0)),
        Case("fill-frames", "fill|{clip}|--frames|12-35", (0, 12, 0)),
        Case("fill-cut", "fill|{clip}|--mask|{folder}/half.png"),
        Case("fill-named", "fill|{clip}|a ladybug|--mask|{folder}/corner.png"),
        Case("edit", "edit|{clip}|a turtle in the snow|--strength|0.7"),
        Case("edit-mask", "edit|{clip}|a turtle in the snow|--strength|0.7|--mask|{folder}/half.png"),
        Case("upscale", "upscale|{clip}|--size|640x360"),
        Case("reconstruct", "reconstruct|{clip}"),
    ]


def _write_inputs(folder: Path, frame: np.ndarray) -> None:
    height, width = frame.shape[:2]
    half, corner = np.zeros((2, height, width), np.uint8)
    half[:, width // 2 :] = 255
    corner[height // 2 :, : width // 3] = 255
    for name, pixels in (("picture", frame), ("half", half), ("corner", corner)):
        Image.fromarray(pixels).save(folder / f"{name}.png")


def _run(words: list[str]) -> tuple[float, dict]:
    command = [str(Path(sys.executable).with_name("sora")), *words, "--seed", str(SEED), "--json"]
    began = time.perf_counter()
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - began, json.loads(result.stdout)


@dataclass(frozen=True)
class Decoded:
    """A video's frames as RGB, and as they are stored: its planes one below the other."""

    rgb: list[np.ndarray]
    planes: list[np.ndarray]


def _decoded(path: Path) -> Decoded:
    with av.open(str(path)) as video:
        frames = list(video.decode(video=0))
    return Decoded([frame.to_ndarray(format="rgb24") for frame in frames], [_stored(frame) for frame in frames])


def _stored(frame: av.VideoFrame) -> np.ndarray:
    packed = frame.format.name == "bgr0"  # what FFV1 makes of RGB, which PyAV makes no array of
    return frame.to_ndarray(format="rgb24") if packed else frame.to_ndarray()


def _same(case: Case, clip: Decoded, made: Decoded, folder: Path) -> str:
    first, last, at = case.own
    if last > first:
        pairs = zip(made.planes[first:last], clip.planes[at:], strict=False)
        return f"{last - first} frames: {_word(all(np.array_equal(a, b) for a, b in pairs))}"
    mask = {"fill-cut": "half", "edit-mask": "half", "fill-named": "corner"}.get(case.name)
    if mask is None:
        return "-"
    kept = np.asarray(Image.open(folder / f"{mask}.png")) == 0
    height = len(kept)
    same = all(
        np.array_equal(a[:height][kept], b[:height][kept]) for a, b in zip(made.planes, clip.planes, strict=True)
    )
    return f"beside the mask: {_word(same)}"


def _word(same: bool) -> str:
    return "the same" if same else "DIFFERENT"


def _psnr(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    errors = [np.mean((a.astype(float) - b) ** 2) for a, b in zip(one, other, strict=True)]
    return float(10 * np.log10(255**2 / np.mean(errors)))


def _sheet(frames: list[np.ndarray]) -> Image.Image:
    index = np.linspace(0, len(frames) - 1, SHOWN).round().astype(int)
    return Image.fromarray(np.concatenate([frames[k] for k in index], 1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Every command on a clip.")
    parser.add_argument("clip", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--sheets", type=Path, help="a folder for pictures of the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
