"""Streams of RGB frames into mp4, mov, webm and mkv, through FFmpeg's libraries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.format import VideoFormat
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from sora_cli.media.colour import BT709, FULL, LIMITED, RGB, SRGB_TRANSFER, Tags, exact_scaling
from sora_cli.media.matroska import set_pixel_aspect
from sora_cli.media.probe import FieldOrder
from sora_cli.media.sound import Sound, SoundEncoder, SoundRecipe

_FIELD_ORDERS: Mapping[FieldOrder, int] = {"top": 2, "bottom": 3}  # FFmpeg's AVFieldOrder


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
_FFV1 = {"level": "3", "slicecrc": "1"}

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


@dataclass(frozen=True, slots=True)
class Look:
    """What a stream's pixels are: their format, what its numbers mean, their shape, and which lines come first.

    `matrix` is swscale's number for the conversion of RGB, and `value_range` FFmpeg's; `tags` are what the file
    says, which may be nothing.
    """

    pixel_format: str
    tags: Tags
    matrix: int
    value_range: int
    pixel_aspect: Fraction = Fraction(1)
    field_order: FieldOrder | None = None


def look_of(recipe: Recipe) -> Look:
    """How generated video is stored: RGB itself, or BT.709 in its limited range."""
    if recipe.is_rgb:
        return Look(recipe.pixel_format, Tags(RGB, BT709, SRGB_TRANSFER, FULL), BT709, FULL)
    return Look(recipe.pixel_format, Tags(BT709, BT709, BT709, LIMITED), BT709, LIMITED)


class VideoEncoder:
    """Writes frames of `size` (width, height) to `path`, at times of a clock of `tick` seconds.

    The last frame is shown for 1/fps, the others until the next; `sound` grows along with them.
    """

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        look: Look,
        *,
        size: tuple[int, int],
        fps: Fraction,
        tick: Fraction | None = None,
        metadata: str | None = None,
        sound: tuple[SoundRecipe, Sequence[Sound]] | None = None,
    ) -> None:
        self.look = look
        self._path, self._size, self._muxer = path, size, recipe.muxer
        self._tick = tick or 1 / fps
        self._length = 1 / fps
        self._end = Fraction(0)
        self._reformatter = VideoReformatter()
        # An absolute name is never read as a protocol; bit-exact muxing leaves out dates and random numbers.
        options = {**recipe.muxer_options, "fflags": "+bitexact"}
        self._container = av.open(str(path.absolute()), "w", format=recipe.muxer, options=options)
        if metadata is not None:
            self._container.metadata["comment"] = metadata
        stream = self._container.add_stream(recipe.codec, rate=fps, options=dict(recipe.options))
        self._stream = cast(av.VideoStream, stream)
        self._configure(recipe, *size)
        self._sound = SoundEncoder(self._container, *sound) if sound else None

    def write(self, frame: np.ndarray, at: Fraction) -> None:
        """Encodes one frame, uint8 (H, W, 3) RGB, shown at `at` seconds. Raises OSError."""
        self.put(self.converted(frame), at)

    def put(self, picture: av.VideoFrame, at: Fraction) -> None:
        """Encodes a frame that is in the stream's own pixel format. Raises OSError."""
        picture.pts, picture.time_base = round(at / self._tick), self._tick
        picture.duration = round(self._length / self._tick)
        picture.pict_type = PictureType.NONE  # the encoder chooses, not the clip's
        self._container.mux(self._stream.encode(picture))
        self._end = at + self._length
        if self._sound is not None:
            self._sound.until(at)

    def finish(self) -> None:
        """Writes what the encoders still hold, and the file's index. Raises OSError."""
        self._container.mux(self._stream.encode())
        if self._sound is not None:
            self._sound.finish(self._end)
        self._container.close()
        if self.look.pixel_aspect != 1 and self._muxer in ("matroska", "webm"):
            set_pixel_aspect(self._path, *self._size, self.look.pixel_aspect)

    def abort(self) -> None:
        """Lets go of the file, whatever state it is in. Raises OSError where the disk is what failed."""
        if self._sound is not None:
            self._sound.close()
        self._container.close()

    def _configure(self, recipe: Recipe, width: int, height: int) -> None:
        context, tags = self._stream.codec_context, self.look.tags
        context.width, context.height = width, height
        context.pix_fmt = self.look.pixel_format
        context.time_base = self._tick
        # With several threads libx264 wrote other bytes in 5 of 40 runs on the same frames, with one in none.
        context.thread_count = 1 if recipe.codec == "libx264" else 0
        if recipe.codec == "ffv1":
            context.thread_type = "SLICE"
        context.colorspace, context.color_primaries = tags.matrix, tags.primaries
        context.color_trc, context.color_range = tags.transfer, tags.range
        if self.look.pixel_aspect != 1:
            context.sample_aspect_ratio = self.look.pixel_aspect
        if self.look.field_order is not None:
            context.field_order = _FIELD_ORDERS[self.look.field_order]

    def converted(self, frame: np.ndarray) -> av.VideoFrame:
        """A frame, uint8 (H, W, 3) RGB, as it goes into the stream."""
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        form = self.look.pixel_format
        if VideoFormat(form).is_rgb:
            return self._reformatter.reformat(picture, format=form)
        return self._reformatter.reformat(
            picture,
            format=form,
            dst_colorspace=self.look.matrix,
            dst_color_range=self.look.value_range,
            interpolation=exact_scaling(),
        )
