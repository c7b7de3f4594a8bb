"""A user's picture as the one that a video begins or ends with."""

from pathlib import Path
from typing import TYPE_CHECKING

from sora_cli.errors import SoraError
from sora_cli.media.source import open_picture, open_regular

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

MAX_PIXELS = 1 << 28
BRIGHT = 128  # from which level on a mask's pixel is white


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture as it is shown, upright.

    Raises SoraError: missing_input, and bad_input for what is no readable picture.
    """
    return _read(path).size


def read_picture(path: Path, width: int, height: int) -> "Image":
    """The middle of a picture, upright, RGB, in the aspect ratio width:height and in its own resolution.

    Raises SoraError: missing_input, and bad_input for what is no readable picture.
    """
    picture = _read(path)
    return picture.crop(middle(picture.size, width, height))


def read_mask(path: Path, width: int, height: int) -> "np.ndarray":
    """Where to draw, bool (H, W): a picture's bright pixels, resized, grown to whole 2 x 2 blocks of pixels.

    Blocks are what a clip with halved chroma keeps colour for. Raises SoraError missing_input and bad_input, the latter
    also for a picture without a bright pixel.
    """
    import numpy as np
    from PIL import Image

    grey = read_picture(path, width, height).convert("L").resize((width, height), Image.Resampling.NEAREST)
    bright = np.asarray(grey) >= BRIGHT
    if not bright.any():
        raise SoraError("bad_input", f"{path}: it is dark everywhere", "a mask is white where to draw")
    padded = np.pad(bright, ((0, height % 2), (0, width % 2)), mode="edge")
    blocks = padded[0::2, 0::2] | padded[1::2, 0::2] | padded[0::2, 1::2] | padded[1::2, 1::2]
    return blocks.repeat(2, 0).repeat(2, 1)[:height, :width]


def middle(size: tuple[int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """The largest centred box (left, top, right, bottom) whose aspect ratio is nearest to width:height."""
    across, down = size
    wide = min(across, max(1, round(down * width / height)))
    high = min(down, max(1, round(across * height / width)))
    left, top = (across - wide) // 2, (down - high) // 2
    return left, top, left + wide, top + high


def _read(path: Path) -> "Image":
    """The first picture in a file, upright, RGB."""
    from PIL import ImageOps

    with open_regular(path) as file, open_picture(file) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise SoraError("bad_input", f"{path}: {picture.width}x{picture.height} pixels", "give a smaller picture")
        return ImageOps.exif_transpose(picture).convert("RGB")
