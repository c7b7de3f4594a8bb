"""Frames to write, and readers that don't share a line with the code under test."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from sora_cli.media.writer import FrameWriter, open_writer

PICTURES = {".gif", ".webp", ".png", ".jpg", ".jpeg"}


def moving_frames(width: int, height: int, count: int) -> Iterator[np.ndarray]:
    """A gradient that drifts with a square that crosses it: every frame differs from the others."""
    y, x = np.mgrid[0:height, 0:width]
    for index in range(count):
        planes = (x * 255 // width, y * 255 // height, (x + y + 8 * index) % 256)
        frame = np.stack(planes, axis=-1).astype(np.uint8)
        left = index * max(1, width - width // 4) // max(1, count)
        frame[height // 4 : height // 2, left : left + width // 4] = (230, 90, 30)
        yield frame


def decoded(path: Path) -> list[np.ndarray]:
    """All frames of a file, uint8 (H, W, 3) RGB."""
    if path.suffix in PICTURES:
        with Image.open(path) as image:
            return [_at(image, index) for index in range(getattr(image, "n_frames", 1))]
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _at(image: Image.Image, index: int) -> np.ndarray:
    image.seek(index)
    return np.asarray(image.convert("RGB"))


def written(path: Path, frames: list[np.ndarray], **options: Any) -> FrameWriter:
    """Writes `frames` to `path`; 24 frames a second, no metadata and no force unless told."""
    height, width, _ = frames[0].shape
    settings = {"fps": Fraction(24), "metadata": None, "force": False, **options}
    with open_writer(path, width=width, height=height, frames=len(frames), **settings) as writer:
        for frame in frames:
            writer.write(frame)
    return writer


@pytest.fixture
def make_frames() -> Callable[[int, int, int], list[np.ndarray]]:
    """(width, height, count) -> frames."""
    return lambda width, height, count: list(moving_frames(width, height, count))


@pytest.fixture
def write() -> Callable[..., FrameWriter]:
    """(path, frames, **options of open_writer) -> the closed writer."""
    return written


@pytest.fixture
def decode() -> Callable[[Path], list[np.ndarray]]:
    """path -> frames."""
    return decoded


@dataclass(frozen=True, slots=True)
class Odd:
    """How an unusual clip is made, and what a copy of it in .mkv is stored as; `None` where it stays as it was."""

    ending: str
    codec: str
    form: str = "yuv420p"
    size: tuple[int, int] = (64, 48)
    rate: Fraction = Fraction(25)
    times: tuple[int, ...] = tuple(range(12))
    tick: Fraction | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    counterclockwise: int = 0
    aspect: Fraction | None = None
    matrix: int = 2
    value_range: int = 0
    alpha_layer: bool = False
    stored: str | None = None


_OPEN_GOP = {"g": "6", "bf": "2", "flags": "-cgop", "sc_threshold": "1000000000"}
_X264 = {"preset": "veryfast", "g": "5", "bf": "2", "x264-params": "scenecut=0"}
ODD: dict[str, Odd] = {
    "b-frames": Odd(".mp4", "libx264", options=_X264),
    "open group, mp4": Odd(".mp4", "libx264", options={**_X264, "x264-params": "open-gop=1:scenecut=0:bframes=3"}),
    "open group, ts": Odd(".ts", "mpeg2video", options=_OPEN_GOP, times=tuple(range(30))),
    "hevc": Odd(".mp4", "libx265", options={"preset": "ultrafast", "x265-params": "log-level=0:keyint=5:bframes=2"}),
    "b-frames without stamps, avi": Odd(".avi", "mpeg4", options={"g": "6", "bf": "2"}),
    "program stream": Odd(".mpg", "mpeg2video", options={"g": "6", "bf": "2"}, times=tuple(range(20))),
    "vp8": Odd(".webm", "libvpx", options={"g": "5"}),
    "vp9": Odd(".webm", "libvpx-vp9", options={"g": "5", "deadline": "realtime", "cpu-used": "8"}),
    "turned 90": Odd(".mp4", "libx264", counterclockwise=-90, options=_X264),
    "turned 180": Odd(".mp4", "libx264", counterclockwise=180, options=_X264),
    "turned 270": Odd(".mp4", "libx264", counterclockwise=90, options=_X264),
    "turned 4:2:2": Odd(".mov", "libx264", "yuv422p", counterclockwise=-90, stored="yuv440p"),
    "turned, odd": Odd(".mov", "mjpeg", "yuvj420p", (51, 33), counterclockwise=-90, stored="yuv444p"),
    "variable rate, mp4": Odd(".mp4", "libx264", times=(0, 40, 80, 200, 240, 501, 510), tick=Fraction(1, 1000)),
    "variable rate, mkv": Odd(".mkv", "ffv1", times=(0, 40, 80, 200, 240, 501, 510), tick=Fraction(1, 1000)),
    "10 bit": Odd(".mkv", "ffv1", "yuv420p10le"),
    "10 bit 4:2:2": Odd(".mov", "prores_ks", "yuv422p10le"),
    "4:4:4": Odd(".mp4", "libx264", "yuv444p"),
    "odd size": Odd(".mkv", "ffv1", "yuv420p", (51, 33)),
    "alpha": Odd(".mkv", "ffv1", "yuva420p"),
    "alpha, rgb": Odd(".mkv", "ffv1", "bgra"),
    "alpha, deep": Odd(".mov", "prores_ks", "yuva444p10le", stored="yuva444p12le"),
    "alpha, vp9": Odd(".webm", "libvpx-vp9", "yuva420p", alpha_layer=True),
    "grey": Odd(".mkv", "ffv1", "gray"),
    "grey, 16 bit": Odd(".mkv", "ffv1", "gray16le"),
    "rgb": Odd(".avi", "huffyuv", "rgb24", stored="bgr0"),
    "full range": Odd(".mov", "mjpeg", "yuvj420p", stored="yuv420p"),
    "interlaced": Odd(".mpg", "mpeg2video", options={"flags": "+ildct+ilme"}),
    "anamorphic": Odd(".mp4", "libx264", aspect=Fraction(4, 3)),
    "anamorphic, turned": Odd(".mp4", "libx264", aspect=Fraction(4, 3), counterclockwise=90),
    "120 fps": Odd(".mp4", "libx264", rate=Fraction(120)),
    "NTSC": Odd(".mkv", "libx264", rate=Fraction(30000, 1001), options=_X264),
    "late start": Odd(".mkv", "libx264", times=tuple(range(20, 32)), options=_X264),
    "one frame": Odd(".mp4", "libx264", times=(0,)),
    "BT.2020": Odd(".mp4", "libx264", "yuv420p10le", matrix=9, value_range=1),
    "BT.709, full": Odd(".mp4", "libx264", matrix=1, value_range=2, stored="yuv420p"),
}


def make_odd(path: Path, odd: Odd) -> None:
    """Writes the clip, of a moving picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(odd.codec, rate=odd.rate, options=dict(odd.options))
        context = stream.codec_context
        (stream.width, stream.height), stream.pix_fmt = odd.size, odd.form
        tick = odd.tick or 1 / odd.rate
        context.time_base, context.thread_count = tick, 1
        context.colorspace, context.color_range = odd.matrix, odd.value_range
        if odd.aspect:
            context.sample_aspect_ratio = odd.aspect
        if odd.counterclockwise:
            stream.set_display_rotation(odd.counterclockwise)
        if odd.alpha_layer:
            stream.metadata["alpha_mode"] = "1"
        for time, picture in zip(odd.times, moving_frames(*odd.size, len(odd.times)), strict=True):
            frame = _with_alpha(picture).reformat(format=odd.form)
            frame.pts, frame.time_base = time, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _with_alpha(picture: np.ndarray) -> av.VideoFrame:
    alpha = np.broadcast_to(np.linspace(40, 255, picture.shape[1]).astype(np.uint8), picture.shape[:2])
    return av.VideoFrame.from_ndarray(np.dstack([picture, alpha]), format="rgba")


@dataclass(frozen=True, slots=True)
class OddFile:
    """A clip of the table `ODD` on disk."""

    name: str
    path: Path
    made: Odd


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> OddFile:
    """Each clip of the table."""
    made = ODD[request.param]
    path = tmp_path / f"odd{made.ending}"
    make_odd(path, made)
    return OddFile(request.param, path, made)


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """(name of the file, codec, fields of `Odd`) -> path."""

    def make(name: str, codec: str = "libx264", **fields: Any) -> Path:
        path = tmp_path / name
        make_odd(path, Odd(path.suffix, codec, **fields))
        return path

    return make
