"""However long the video, memory stays where it is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PEAK = """
import resource, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from sora_cli.media.writer import open_writer
width, height, frames = 512, 288, int(sys.argv[2])
y, x = np.mgrid[0:height, 0:width]
still = np.stack([x // 2, y // 2, (x + y) // 4], axis=-1).astype(np.uint8)
with open_writer(
    Path(sys.argv[1]), width=width, height=height, fps=Fraction(24), frames=frames, metadata=None, force=False
) as writer:
    for index in range(frames):
        writer.write(np.roll(still, 4 * index, axis=1))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
_UNIT = 1 if sys.platform == "darwin" else 1024
_FRAME_BYTES = 512 * 288 * 3


def peak_bytes(path: Path, frames: int) -> int:
    """The most memory that a process writing `frames` frames had."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(path), str(frames)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return int(done.stdout) * _UNIT


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is measured with POSIX's getrusage")
@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mkv", "a.gif", "a.webp", "%d.jpg"])
def test_three_hundred_frames_more_cost_less_than_forty(tmp_path: Path, name: str) -> None:
    short, long = (tmp_path / str(frames) / name for frames in (100, 400))
    for path in (short, long):
        path.parent.mkdir()
    assert peak_bytes(long, 400) - peak_bytes(short, 100) < 40 * _FRAME_BYTES
