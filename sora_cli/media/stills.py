"""Single pictures and numbered sequences of them, through Pillow."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from sora_cli.media import metadata as tags
from sora_cli.media.webp import QUALITY

_JPEG_QUALITY = 95


class StillEncoder:
    """Writes each RGB frame as a picture of its own; the first one carries the metadata.

    `part_of` gives the file for frame `index`.
    """

    def __init__(self, part_of: Callable[[int], Path], name: str, metadata: str | None) -> None:
        self._part_of = part_of
        self._name = name
        self._metadata = metadata
        self._count = 0

    def write(self, frame: np.ndarray, at: Fraction) -> None:
        """Writes one picture, uint8 (H, W, 3) RGB; a file of its own has no time. Raises OSError."""
        metadata = self._metadata if self._count == 0 else None
        save_picture(self._part_of(self._count), frame, self._name, metadata)
        self._count += 1

    def finish(self) -> None:
        """Every picture is whole as soon as it is written."""

    def abort(self) -> None:
        """No file is held open between two pictures."""


def save_picture(path: Path, frame: np.ndarray, name: str, metadata: str | None) -> None:
    """Writes `frame`, uint8 (H, W, 3) RGB, as png, jpg or webp. Raises OSError."""
    image = Image.fromarray(frame)
    with path.open("wb") as file:
        match name:
            case "png":
                image.save(file, "PNG", pnginfo=None if metadata is None else tags.png_text(metadata))
            case "jpg":
                comment = b"" if metadata is None else tags.ascii_json(metadata)
                image.save(file, "JPEG", quality=_JPEG_QUALITY, subsampling="4:4:4", comment=comment)
            case "webp":
                exif = b"" if metadata is None else tags.exif(metadata)
                image.save(file, "WEBP", quality=QUALITY, exif=exif)
            case _:
                raise ValueError(f"{name} is not a picture format")
