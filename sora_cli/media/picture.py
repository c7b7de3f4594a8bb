"""A user's picture as the one that a video begins or ends with."""

from pathlib import Path
from typing import TYPE_CHECKING

from sora_cli.errors import SoraError
from sora_cli.media.source import open_picture, open_regular

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

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


def read_mask(path: Path, width: int, height: int, grain: tuple[int, int]) -> "np.ndarray":
    """Where to draw, bool (H, W): a picture's bright pixels, resized, grown to whole blocks of `grain` pixels, across
    and down, for which a clip keeps one colour.

    Raises SoraError missing_input and bad_input, the latter also for a picture without a bright pixel.
    """
    import numpy as np
    from PIL import Image

    grey = read_picture(path, width, height).convert("L").resize((width, height), Image.Resampling.NEAREST)
    bright = np.asarray(grey) >= BRIGHT
    if not bright.any():
        raise SoraError("bad_input", f"{path}: it is dark everywhere", "a mask is white where to draw")
    across, down = grain
    padded = np.pad(bright, ((0, -height % down), (0, -width % across)))
    blocks = padded.reshape(len(padded) // down, down, -1, across).any((1, 3))
    return blocks.repeat(down, 0).repeat(across, 1)[:height, :width]


def middle(size: tuple[int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """The largest centred box (left, top, right, bottom) whose aspect ratio is nearest to width:height."""
    across, down = size
    wide = min(across, max(1, round(down * width / height)))
    high = min(down, max(1, round(across * height / width)))
    left, top = (across - wide) // 2, (down - high) // 2
    return left, top, left + wide, top + high


def _read(path: Path) -> "Image":
    """The first picture in a file, upright, RGB, what is transparent over black."""
    from PIL import Image

    from sora_cli.media.clip import upright

    with open_regular(path) as file, open_picture(file) as picture:
        return Image.fromarray(upright(picture)[0])
