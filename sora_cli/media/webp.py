"""Animated WebP, written frame by frame.

Neither library streams it as asked: Pillow keeps every frame until the end, and FFmpeg's encoder merges equal
frames into one, so that a clip's frame count and length change. The container is small enough to write here.
Source: WebP Container Specification (RIFF chunks VP8X, ANIM, ANMF, EXIF).
"""

import io
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from sora_cli.errors import SoraError
from sora_cli.media import metadata as tags

QUALITY = 90
_METHOD = 2  # of 0 to 6: measured twice as fast as the default 4, in files of the same size
_HAS_EXIF, _ANIMATED = 0x08, 0x02
_REPLACE = 0x02  # a frame replaces the canvas; it isn't blended over it
_MAX_BYTES = 2**32 - 10


class WebpEncoder:
    """Writes RGB frames to `path` as an endless animation, in whole milliseconds whose total is right."""

    def __init__(self, path: Path, *, width: int, height: int, fps: Fraction, metadata: str | None) -> None:
        self._size = width, height
        self._fps = fps
        self._held: tuple[Fraction, bytes] | None = None
        self._metadata = metadata
        self._file = path.open("wb")
        self._file.write(_riff_header(0))
        self._file.write(_chunk(b"VP8X", _canvas(width, height, has_exif=metadata is not None)))
        self._file.write(_chunk(b"ANIM", struct.pack("<IH", 0, 0)))

    def write(self, frame: np.ndarray, at: Fraction) -> None:
        """Encodes one frame, uint8 (H, W, 3) RGB, shown at `at` seconds. Raises OSError."""
        self._put_held(at)
        self._held = at, _picture_chunk(frame)

    def finish(self) -> None:
        """Writes metadata and the file's length. Raises OSError, and SoraError write_failed beyond 4 GiB."""
        if self._held is not None:
            self._put_held(self._held[0] + 1 / self._fps)
        if self._metadata is not None:
            self._file.write(_chunk(b"EXIF", tags.exif(self._metadata)))
        length = self._file.tell()
        if length > _MAX_BYTES:
            raise SoraError("write_failed", f"a .webp of {length} bytes: 4 GiB is the most", "use .webm or .mp4")
        self._file.seek(0)
        self._file.write(_riff_header(length - 8))
        self._file.close()

    def abort(self) -> None:
        """Lets go of the file. Raises OSError where the disk is what failed."""
        self._file.close()

    def _put_held(self, until: Fraction) -> None:
        """Writes the frame before, whose length is now known: it is shown up to `until` seconds."""
        if self._held is not None:
            at, picture = self._held
            length = round(until * 1000) - round(at * 1000)
            self._file.write(_chunk(b"ANMF", _frame_header(*self._size, length) + picture))
            self._held = None


def _riff_header(length: int) -> bytes:
    return b"RIFF" + struct.pack("<I", length) + b"WEBP"


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _canvas(width: int, height: int, *, has_exif: bool) -> bytes:
    flags = _ANIMATED | (_HAS_EXIF if has_exif else 0)
    return bytes([flags, 0, 0, 0]) + _uint24(width - 1) + _uint24(height - 1)


def _frame_header(width: int, height: int, milliseconds: int) -> bytes:
    corner = _uint24(0) + _uint24(0)
    return corner + _uint24(width - 1) + _uint24(height - 1) + _uint24(milliseconds) + bytes([_REPLACE])


def _picture_chunk(frame: np.ndarray) -> bytes:
    """The VP8 chunk of a frame, taken out of the still picture that Pillow makes."""
    still = io.BytesIO()
    Image.fromarray(frame).save(still, "WEBP", quality=QUALITY, method=_METHOD)
    return still.getvalue()[12:]


def _uint24(value: int) -> bytes:
    return value.to_bytes(3, "little")
