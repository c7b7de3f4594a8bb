"""`sora generate` from 256 to 1920 pixels, from 9:16 to 21:9, from one frame to a minute.

    python bench/bench_sizes.py [--sheet FILE.png] [--prompt "a cat at sunset"]

Printed is, for each job, seconds from start to finish, seconds for each frame, the peak that `--json` reports, and
whether the file has exactly the size and the frames that were asked for, as PyAV reads it. With `--sheet` three frames
of each are kept there as pictures to look at.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import av
from PIL import Image, ImageDraw

SEED = 0
JOBS = (  # size, and how long
    ("256x144", "--frames", 1),
    ("256x144", "--seconds", 2),
    ("180x320", "--seconds", 2),
    ("320x180", "--seconds", 60),
    ("360x640", "--seconds", 2),
    ("480x480", "--seconds", 2),
    ("640x274", "--seconds", 2),
    ("640x360", "--seconds", 10),
    ("1001x777", "--frames", 7),
    ("1280x720", "--seconds", 2),
    ("1080x1920", "--frames", 1),
    ("1920x823", "--seconds", 1),
    ("1920x1080", "--frames", 1),
)
RATE = 24
SHOWN, HEIGHT = 3, 160  # frames of a job on the sheet, and how high


def main() -> None:
    """Run every job and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", default="a cat at sunset")
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    rows = []
    print("| size | frames | seconds | a frame | peak, MB | exact |\n| --- | --- | --- | --- | --- | --- |")
    with TemporaryDirectory(prefix="bench-sizes-") as name:
        for index, (size, how, much) in enumerate(JOBS):
            output = Path(name) / f"{index}.mkv"
            command = ["generate", options.prompt, *f"--size {size} {how} {much} --seed {SEED} --fps {RATE}".split()]
            seconds, told = run([*command, "-o", str(output)])
            asked = much if how == "--frames" else much * RATE
            count, shown = look(output, asked)
            exact = count == asked and {f"{frame.width}x{frame.height}" for frame in shown} == {size}
            peak = told["peak"]["rss_bytes"] / 1e6
            print(f"| {size} | {count} | {seconds:.1f} | {seconds / count:.3f} | {peak:.0f} | {exact} |", flush=True)
            output.unlink()
            rows.append((f"{size}, {count} frames", shown))
    if options.sheet is not None:
        sheet(rows).save(options.sheet)


def run(arguments: list[str]) -> tuple[float, dict]:
    """Seconds of a command, and what it tells as JSON."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "sora_cli", *arguments, "--json"], capture_output=True, text=True, check=True
    )
    return time.perf_counter() - began, json.loads(done.stdout)


def look(path: Path, expected: int) -> tuple[int, list[Image.Image]]:
    """How many frames a video has, and `SHOWN` of them, evenly spread over as many as are expected."""
    wanted, shown, count = {round(k * (expected - 1) / (SHOWN - 1)) for k in range(SHOWN)}, [], 0
    with av.open(str(path)) as container:
        for count, frame in enumerate(container.decode(video=0), 1):
            if count - 1 in wanted:
                shown.append(frame.to_image())
    return count, shown


def sheet(rows: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    """A row of frames for each job, under what it was."""
    small = [
        (text, [each.resize((round(each.width * HEIGHT / each.height), HEIGHT)) for each in shown])
        for text, shown in rows
    ]
    width = max(sum(each.width + 4 for each in shown) for _, shown in small)
    whole = Image.new("RGB", (width, (HEIGHT + 18) * len(small)), "white")
    for index, (text, shown) in enumerate(small):
        left, top = 0, index * (HEIGHT + 18)
        ImageDraw.Draw(whole).text((2, top + 2), text, fill="black")
        for each in shown:
            whole.paste(each, (left, top + 16))
            left += each.width + 4
    return whole


if __name__ == "__main__":
    main()
