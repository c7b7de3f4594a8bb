"""The decoded planes of a frame, moved without touching a sample: turned, repacked, chroma repeated."""

import re
from dataclasses import dataclass
from functools import cache

import av
import numpy as np
from av.codec.codec import Codec, PixFmtLoss, find_best_pix_fmt_of_list
from av.video.format import VideoFormat
from av.video.reformatter import Interpolation, VideoReformatter

from sora_cli.media.colour import effective_range

_YUV = re.compile(r"(yuvj?a?)(4\d\d)(p.*)")
_UPRIGHT_OF = {"422": "440", "440": "422", "420": "420", "444": "444", "410": "410"}
# Where FFmpeg's nearest format would lose bits.
_NEAREST = {"ya16le": "rgba64le", "ya16be": "rgba64le"}
_LOSSES = PixFmtLoss.RESOLUTION | PixFmtLoss.DEPTH | PixFmtLoss.COLORSPACE | PixFmtLoss.ALPHA | PixFmtLoss.CHROMA


@dataclass(frozen=True, slots=True)
class Keeping:
    """How frames of a pixel format are kept without loss: repacked to `packed`, then turned.

    `full_chroma` repeats the chroma samples first; `stored` is the format in the file.
    """

    packed: str
    stored: str
    full_chroma: bool
    rotation: int
    exact: bool


def right_angle(frame: av.VideoFrame) -> int:
    """How far a frame is to be turned clockwise: 0, 90, 180 or 270; other angles are left alone."""
    angle = round(-frame.rotation) % 360
    return angle if angle % 90 == 0 else 0


def turned_pixels(pixels: np.ndarray, rotation: int) -> np.ndarray:
    """Rows and columns, the first two axes, turned clockwise by 0, 90, 180 or 270 degrees."""
    return np.rot90(pixels, -(rotation // 90))


@cache
def ffv1_formats() -> tuple[str, ...]:
    """The pixel formats that FFV1 stores."""
    return tuple(form.name for form in Codec("ffv1", "w").video_formats or ())


def keeping(name: str, rotation: int, width: int, height: int) -> Keeping:
    """How frames of pixel format `name`, `width` x `height` as stored, come into an FFV1 file.

    A turn keeps subsampled chroma in place only where the file's format has its shape (4:2:2 becomes 4:4:0),
    and where no lone last sample of an odd side would become the first: elsewhere chroma goes to 4:4:4.
    """
    packed, exact = _storable(name)
    stored = _turned_name(packed, rotation, width, height)
    if stored is not None and stored in ffv1_formats():
        return Keeping(packed, stored, full_chroma=False, rotation=rotation, exact=exact)
    return Keeping(packed, _full_chroma_name(packed), full_chroma=True, rotation=rotation, exact=exact)


def kept(frame: av.VideoFrame, plan: Keeping, reformatter: VideoReformatter) -> av.VideoFrame:
    """The frame as `plan` says, every sample as it was; upright."""
    packed = _repacked(frame, plan.packed, reformatter)
    if not plan.rotation and not plan.full_chroma:
        return packed
    planes = views(packed)
    if plan.full_chroma:
        planes = [_widened(plane, packed.height, packed.width) for plane in planes]
    sideways = plan.rotation in (90, 270)
    size = (packed.height, packed.width) if sideways else (packed.width, packed.height)
    upright = _blank(*size, plan.stored, packed)
    for target, plane in zip(views(upright), planes, strict=True):
        target[...] = turned_pixels(plane, plan.rotation)
    return upright


def patched(own: av.VideoFrame, made: av.VideoFrame, inside: np.ndarray) -> av.VideoFrame:
    """A new frame with the samples of `made` where `inside`, bool (H, W), is true, and those of `own` elsewhere.

    Both are upright and of one format; a chroma sample is inside where any of its pixels is.
    """
    joined = _blank(own.width, own.height, own.format.name, own)
    for target, kept_plane, new in zip(views(joined), views(own), views(made), strict=True):
        rows, columns = target.shape[:2]
        down, across = -(-own.height // rows), -(-own.width // columns)
        padded = np.pad(inside, ((0, rows * down - own.height), (0, columns * across - own.width)))
        mask: np.ndarray = np.any(padded.reshape(rows, down, columns, across), axis=(1, 3))
        target[...] = np.where(mask[..., None], new, kept_plane)
    return joined


def _storable(name: str) -> tuple[str, bool]:
    """The FFV1 format that holds all samples of format `name`, and whether it really holds them all."""
    plain = name.replace("yuvj", "yuv")
    if plain in ffv1_formats():
        return plain, True
    if name in _NEAREST:
        return _NEAREST[name], True
    best, loss = find_best_pix_fmt_of_list(ffv1_formats(), name, has_alpha=True)
    assert best is not None
    return best.name, not loss & _LOSSES


def _turned_name(name: str, rotation: int, width: int, height: int) -> str | None:
    """The format whose planes have the shapes of the turned ones of format `name`; None where there is none."""
    found = _YUV.fullmatch(name)
    if not rotation or found is None:
        return name
    across, down = chroma_grain(name)
    lone_row_first = rotation in (90, 180) and height % down
    lone_column_first = rotation in (180, 270) and width % across
    if lone_row_first or lone_column_first:
        return None
    kind, shape, rest = found.groups()
    if rotation == 180:
        return name
    return f"{kind}{_UPRIGHT_OF[shape]}{rest}" if shape in _UPRIGHT_OF else None


def _full_chroma_name(name: str) -> str:
    return _YUV.sub(r"\g<1>444\g<3>", name)


def chroma_grain(name: str) -> tuple[int, int]:
    """How many luma samples of a pixel format share a chroma sample, across and down."""
    form = VideoFormat(name, 64, 64)
    return 64 // form.chroma_width(), 64 // form.chroma_height()


def _repacked(frame: av.VideoFrame, name: str, reformatter: VideoReformatter) -> av.VideoFrame:
    """The same samples in another order of bytes."""
    if frame.format.name == name:
        return frame
    if frame.format.name.replace("yuvj", "yuv") == name:
        renamed = _blank(frame.width, frame.height, name, frame)
        for target, plane in zip(views(renamed), views(frame), strict=True):
            target[...] = plane
        return renamed
    value_range = effective_range(frame.format, frame.color_range)
    return reformatter.reformat(
        frame,
        format=name,
        src_color_range=value_range,
        dst_color_range=value_range,
        interpolation=Interpolation.POINT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT,
    )


def _blank(width: int, height: int, name: str, like: av.VideoFrame) -> av.VideoFrame:
    """A frame of that size and format with the colour tags of another."""
    frame = av.VideoFrame(width, height, name)
    frame.colorspace, frame.color_range = like.colorspace, effective_range(like.format, like.color_range)
    return frame


def views(frame: av.VideoFrame) -> list[np.ndarray]:
    """The planes as writable views, uint8 (rows, columns, bytes of a pixel)."""
    return [_view(frame, index) for index in range(len(frame.planes))]


def _view(frame: av.VideoFrame, index: int) -> np.ndarray:
    plane = frame.planes[index]
    bits = [component.bits for component in frame.format.components if component.plane == index]
    size = frame.format.padded_bits_per_pixel // 8 if len(frame.planes) == 1 else (bits[0] + 7) // 8
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width * size].reshape(plane.height, plane.width, size)


def _widened(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """A plane, (rows, columns, bytes), with its samples repeated to (height, width, bytes)."""
    down, across = -(-height // plane.shape[0]), -(-width // plane.shape[1])
    return plane.repeat(down, axis=0).repeat(across, axis=1)[:height, :width]
