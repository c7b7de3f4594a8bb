"""What decoders and encoders hold: counted for every pixel format and container, and more than what is measured."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sora_cli.media import formats, held
from sora_cli.media.planes import ffv1_formats
from sora_cli.media.probe import probe

SIDE = (1024, 512)
MEASURED = """
import sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from sora_cli.media.writer import open_writer

def memory(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

def write(width, height, frames):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    before = memory("VmRSS")
    facts = {"width": width, "height": height, "fps": Fraction(24), "frames": frames, "metadata": None, "force": True}
    with open_writer(Path(sys.argv[1]), **facts) as writer:
        for k in range(frames):
            noise[k * 9 :: 40] += 9
            writer.write(noise)
    return before

write(64, 64, 2)  # loads the libraries
Path("/proc/self/clear_refs").write_text("5")
before = write(int(sys.argv[2]), int(sys.argv[3]), 34)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells it there")
@pytest.mark.parametrize("ending", ["mkv", "mp4", "webm", "gif"])
def test_an_encoder_holds_less_than_is_planned(tmp_path: Path, ending: str):
    path = tmp_path / f"clip.{ending}"
    told = subprocess.run([sys.executable, "-c", MEASURED, path, *map(str, SIDE)], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) <= held.written_size(path, SIDE[0] * SIDE[1], None)


@given(pixels=st.integers(256, 10**8), more=st.integers(1, 10**6), ending=st.sampled_from(sorted(formats.FORMATS)))
def test_larger_frames_need_more(pixels: int, more: int, ending: str):
    path = Path(f"a{ending}")
    assert 0 < held.written_size(path, pixels, None) < held.written_size(path, pixels + more, None)


MORE = [("gray", "yuv420p"), ("yuv420p", "yuv444p"), ("yuv444p", "yuv444p10le"), ("bgr0", "bgra"), ("bgra", "rgba64le")]


@pytest.mark.parametrize(("less", "more"), MORE)
def test_deeper_samples_and_more_of_them_need_more(less: str, more: str):
    assert held.lossless_size(less) < held.lossless_size(more)


def test_every_lossless_format_is_counted():
    sizes = [held.lossless_size(form) for form in ffv1_formats()]
    assert min(sizes) >= held.lossless_size("gray")


def test_a_clip_is_written_back_in_its_own_pixel_format(make_clip: Callable[..., Path]):
    clip = probe(make_clip("a.mkv", form="yuv420p"))
    assert held.written_size(Path("b.mkv"), 10**6, clip) < held.written_size(Path("b.mkv"), 10**6, None)


def test_deep_clips_take_more_to_read(make_clip: Callable[..., Path]):
    sizes = [held.read_size(probe(make_clip(f"{form}.mkv", form=form))) for form in ("yuv420p", "yuv420p10le")]
    assert sizes[0] < sizes[1]
