"""Frames to write, and readers that don't share a line with the code under test."""

from collections.abc import Callable, Iterator
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
