"""What the numbers in a stream mean as colours: tags by name and number, and the conversions to RGB and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from av import VideoFrame
    from av.video.format import VideoFormat
    from av.video.reformatter import VideoReformatter

# The names of ITU-T H.273's numbers, as FFmpeg spells them.
MATRICES: Mapping[int, str] = MappingProxyType(
    {
        0: "gbr",
        1: "bt709",
        4: "fcc",
        5: "bt470bg",
        6: "smpte170m",
        7: "smpte240m",
        8: "ycgco",
        9: "bt2020nc",
        10: "bt2020c",
        14: "ictcp",
    }
)
PRIMARIES: Mapping[int, str] = MappingProxyType(
    {
        1: "bt709",
        4: "bt470m",
        5: "bt470bg",
        6: "smpte170m",
        7: "smpte240m",
        8: "film",
        9: "bt2020",
        10: "smpte428",
        11: "smpte431",
        12: "smpte432",
        22: "ebu3213",
    }
)
TRANSFERS: Mapping[int, str] = MappingProxyType(
    {
        1: "bt709",
        4: "gamma22",
        5: "gamma28",
        6: "smpte170m",
        7: "smpte240m",
        8: "linear",
        9: "log100",
        10: "log316",
        11: "iec61966-2-4",
        12: "bt1361e",
        13: "iec61966-2-1",
        14: "bt2020-10",
        15: "bt2020-12",
        16: "smpte2084",
        17: "smpte428",
        18: "arib-std-b67",
    }
)
RANGES: Mapping[int, str] = MappingProxyType({1: "limited", 2: "full"})

UNSAID = 2  # H.273's number for a matrix, primaries or a transfer that the file doesn't tell
RGB, BT709, SRGB_TRANSFER = 0, 1, 13
RANGE_UNSAID, LIMITED, FULL = 0, 1, 2
# swscale's numbers for the matrices that it knows, by those of H.273.
_SWSCALE = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT601_SWSCALE, _BT709_SWSCALE = 5, 1
_SD_WIDTH, _SD_HEIGHT = 1280, 576  # below this width and up to this height, an untagged clip is BT.601


@dataclass(frozen=True, slots=True)
class Colour:
    """A stream's colour tags by FFmpeg's names; None where the file doesn't say."""

    matrix: str | None = None
    primaries: str | None = None
    transfer: str | None = None
    range: str | None = None


@dataclass(frozen=True, slots=True)
class Tags:
    """The same as the numbers of H.273, and FFmpeg's number for the range."""

    matrix: int = UNSAID
    primaries: int = UNSAID
    transfer: int = UNSAID
    range: int = RANGE_UNSAID


def tags_of(colour: Colour) -> Tags:
    """The numbers for names that come from `Colour`."""
    return Tags(
        _number(MATRICES, colour.matrix, UNSAID),
        _number(PRIMARIES, colour.primaries, UNSAID),
        _number(TRANSFERS, colour.transfer, UNSAID),
        _number(RANGES, colour.range, RANGE_UNSAID),
    )


def _number(names: Mapping[int, str], name: str | None, unsaid: int) -> int:
    return next((number for number, known in names.items() if known == name), unsaid)


def swscale_matrix(matrix: int, width: int, height: int) -> int:
    """The number in swscale for the matrix of a picture; one that is untagged or unknown is guessed by the size.

    The guess is the players': BT.601 for standard definition, BT.709 above.
    """
    is_small = width < _SD_WIDTH and height <= _SD_HEIGHT
    return _SWSCALE.get(matrix, _BT601_SWSCALE if is_small else _BT709_SWSCALE)


def effective_range(form: "VideoFormat", tagged: int) -> int:
    """The range that numbers in this pixel format have; untagged grey and RGB are full, as FFmpeg has it."""
    if form.name.startswith("yuvj"):
        return FULL
    if tagged != RANGE_UNSAID:
        return tagged
    return FULL if form.is_rgb or form.name.startswith(("gray", "ya", "mono")) else LIMITED


def has_alpha(form: "VideoFormat") -> bool:
    """Whether a pixel format carries alpha; a palette may."""
    return form.has_palette or any(component.is_alpha for component in form.components)


def to_rgb(frame: "VideoFrame", reformatter: "VideoReformatter") -> "np.ndarray":
    """A decoded frame as stored, uint8 (H, W, 3) RGB, by its own matrix and range; alpha over black."""
    alpha = has_alpha(frame.format)
    picture = reformatter.reformat(
        frame,
        format="rgba" if alpha else "rgb24",
        src_colorspace=None if frame.format.is_rgb else swscale_matrix(frame.colorspace, frame.width, frame.height),
        src_color_range=effective_range(frame.format, frame.color_range),
        dst_color_range=FULL,
        interpolation=exact_scaling(),
    )
    pixels = picture.to_ndarray()
    return over_black(pixels) if alpha else pixels


def over_black(pixels: "np.ndarray") -> "np.ndarray":
    """Straight RGBA, uint8 (H, W, 4), as seen on black, uint8 (H, W, 3)."""
    colours, alpha = pixels[..., :3].astype("uint16"), pixels[..., 3:].astype("uint16")
    return ((colours * alpha + 127) // 255).astype("uint8")


def exact_scaling() -> int:
    """Flags of swscale for a conversion that rounds, where its fast paths cut off."""
    from av.video.reformatter import Interpolation

    return Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
