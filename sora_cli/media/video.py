"""Streams of RGB frames into mp4, mov, webm and mkv, through FFmpeg's libraries."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter

# Numbers of ITU-T H.273: matrix (0 RGB, 1 BT.709), primaries, transfer (1 BT.709, 13 sRGB); FFmpeg's range:
# 1 is 16..235, 2 is 0..255.
_BT709, _SRGB_TRANSFER, _RGB_MATRIX = 1, 13, 0
_LIMITED, _FULL = 1, 2


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a container's video is made; options are those of FFmpeg's muxer and encoder."""

    muxer: str
    codec: str
    pixel_format: str
    options: Mapping[str, str]
    muxer_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_rgb(self) -> bool:
        """Whether the stream holds RGB itself, so that nothing is converted."""
        return self.pixel_format == "bgr0"


# Measured on 2 CPU cores at 1080p: veryfast writes 33 frames a second in files as small as those of medium,
# which writes 15; VP9's realtime 45, its good quality 13.
_X264 = {"preset": "veryfast", "crf": "17"}
_VP9 = {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "tile-columns": "2", "crf": "20", "b": "0"}
_FFV1 = {"level": "3", "slices": "4", "slicecrc": "1"}

RECIPES: Mapping[str, Recipe] = {
    "mp4": Recipe("mp4", "libx264", "yuv420p", _X264, {"movflags": "+faststart"}),
    # mov's own comment atom counts its bytes in 16 bits; its metadata tags take any length.
    "mov": Recipe("mov", "libx264", "yuv420p", _X264, {"movflags": "+faststart+use_metadata_tags"}),
    "webm": Recipe("webm", "libvpx-vp9", "yuv420p", _VP9),
    "mkv": Recipe("matroska", "ffv1", "bgr0", _FFV1),
}


def recipe_for(name: str, width: int, height: int) -> tuple[Recipe, list[str]]:
    """The recipe of format `name` for this size, and the notes that the user must read.

    H.264 in 4:2:0 counts pixels in pairs, so an odd size keeps every pixel's own colour instead.
    """
    recipe = RECIPES[name]
    if recipe.codec == "libx264" and (width % 2 or height % 2):
        note = f"{width}x{height} is odd: .{name} is written as H.264 4:4:4, which some players don't show"
        return replace(recipe, pixel_format="yuv444p"), [note]
    return recipe, []


class VideoEncoder:
    """Writes RGB frames to `path` at an exact rate, the first at time 0."""

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        *,
        width: int,
        height: int,
        fps: Fraction,
        metadata: str | None = None,
    ) -> None:
        self._recipe = recipe
        self._tick = 1 / fps
        self._count = 0
        self._reformatter = VideoReformatter()
        # An absolute name is never read as a protocol; bit-exact muxing leaves out dates and random numbers.
        options = {**recipe.muxer_options, "fflags": "+bitexact"}
        self._container = av.open(str(path.absolute()), "w", format=recipe.muxer, options=options)
        if metadata is not None:
            self._container.metadata["comment"] = metadata
        stream = self._container.add_stream(recipe.codec, rate=fps, options=dict(recipe.options))
        self._stream = cast(av.VideoStream, stream)
        self._configure(width, height)

    def write(self, frame: np.ndarray) -> None:
        """Encodes one frame, uint8 (H, W, 3) RGB. Raises OSError."""
        picture = self._converted(av.VideoFrame.from_ndarray(frame, format="rgb24"))
        picture.pts, picture.time_base = self._count, self._tick
        self._count += 1
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Writes what the encoder still holds, and the file's index. Raises OSError."""
        self._container.mux(self._stream.encode())
        self._container.close()

    def abort(self) -> None:
        """Lets go of the file, whatever state it is in. Raises OSError where the disk is what failed."""
        self._container.close()

    def _configure(self, width: int, height: int) -> None:
        context = self._stream.codec_context
        context.width, context.height = width, height
        context.pix_fmt = self._recipe.pixel_format
        context.time_base = self._tick
        context.thread_count = 0
        if self._recipe.codec == "ffv1":
            context.thread_type = "SLICE"
        rgb = self._recipe.is_rgb
        context.colorspace = _RGB_MATRIX if rgb else _BT709
        context.color_primaries = _BT709
        context.color_trc = _SRGB_TRANSFER if rgb else _BT709
        context.color_range = _FULL if rgb else _LIMITED

    def _converted(self, frame: av.VideoFrame) -> av.VideoFrame:
        form = self._recipe.pixel_format
        if self._recipe.is_rgb:
            return self._reformatter.reformat(frame, format=form)
        return self._reformatter.reformat(
            frame,
            format=form,
            dst_colorspace=_BT709,
            dst_color_range=_LIMITED,
            dst_color_primaries=_BT709,
            dst_color_trc=_BT709,
        )
