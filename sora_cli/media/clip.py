"""A user's clip as a stream of frames, from any place on, as it is shown and as it is stored.

What is refused: a file shorter than its container says, and the first frame that can't be decoded without a fault
(by its number). What is tolerated: damaged sound (silence there), bytes after the end, a missing or wrong index,
frames before the first key frame (they were never shown, and aren't counted), and a file whose container doesn't
tell its length (MPEG-TS, Ogg, raw streams): it ends where its last whole frame does. Damage that
a decoder hides without a word, as those of FFV1 and MPEG-2 do, can't be told from a picture.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

import numpy as np

from sora_cli.errors import SoraError
from sora_cli.media.colour import over_black, to_rgb
from sora_cli.media.formats import numbered
from sora_cli.media.planes import right_angle, turned_pixels
from sora_cli.media.probe import Probe, Timeline, decoder_of, is_shown, survey, video_stream
from sora_cli.media.source import open_clip, open_picture, open_regular
from sora_cli.media.whole import check_whole

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer
    from PIL.Image import Image

SEQUENCE_RATE = 24  # frames a second of a numbered sequence, which has no rate of its own
_STEP_BACK = 250  # frames: the longest distance of key frames that encoders choose by themselves
_DEEP_GREY = ("I;16", "I;16L", "I;16B")


@dataclass(frozen=True, slots=True)
class ClipFrame:
    """One frame; `time` in seconds since the clip's first, exact.

    `rgb` is uint8 (H, W, 3) as shown: upright, by the clip's own matrix and range, alpha over black. `native` is
    what the decoder gave, before its rotation, for copying it bit for bit; None where nothing more than `rgb` is
    known.
    """

    index: int
    time: Fraction
    rgb: np.ndarray
    native: "VideoFrame | None" = None


class Clip:
    """An opened clip or picture; `open_source` is how to get one."""

    def __init__(self, probe: Probe, timeline: Timeline) -> None:
        self.probe = probe
        self._timeline = timeline
        self._readers: WeakSet[Generator[ClipFrame, None, None]] = WeakSet()  # one that nobody reads ends

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[ClipFrame]:
        """The frames `start` to `stop`, excluded, one at a time; several such streams may run side by side.

        For a late `start` the file is entered at a key frame before it, wherever that leads to the very frame.
        Raises SoraError bad_input at a frame that is damaged or missing, and OSError.
        """
        stop = self.probe.frames if stop is None else min(stop, self.probe.frames)
        reader = self._read(max(start, 0), stop)
        self._readers.add(reader)
        return reader

    def time(self, index: int) -> Fraction:
        """When frame `index` is shown, in seconds since the first one, exactly."""
        if self._timeline.ticks:
            return self._timeline.seconds(index)
        return Fraction(index) / (self.probe.fps or SEQUENCE_RATE)

    def close(self) -> None:
        """Ends all streams of frames."""
        for reader in list(self._readers):
            reader.close()

    def _read(self, start: int, stop: int) -> Generator[ClipFrame, None, None]:
        match self.probe.kind:
            case "video":
                return self._video(start, stop)
            case "sequence":
                return self._sequence(start, stop)
        return self._animation(start, stop)

    def _video(self, start: int, stop: int) -> Generator[ClipFrame, None, None]:
        from av.video.reformatter import VideoReformatter

        if start >= stop:
            return
        reformatter = VideoReformatter()
        for aim in (*self._aims(start), None):
            with open_regular(self.probe.path) as file, open_clip(file) as container:
                stream = video_stream(container, self.probe.path)
                frames = _decoded(container, stream, aim)
                reached = self._numbered(frames, 0) if aim is None else self._entered(frames, start)
                if reached is None:
                    continue
                for index, frame in reached:
                    if index >= start:
                        yield self._shown(index, frame, to_rgb(frame, reformatter))
                    if index + 1 == stop:
                        return

    def _aims(self, start: int) -> Iterator[int]:
        """Ticks to enter the file at, nearest first, so that frame `start` is met; none for the beginning."""
        if self._timeline.distinct and start > 0:
            yield self._timeline.ticks[start]
            if start > _STEP_BACK:
                yield self._timeline.ticks[start - _STEP_BACK]

    def _entered(self, frames: "Iterator[VideoFrame]", start: int) -> "Iterator[tuple[int, VideoFrame]] | None":
        """Frame `start` and what follows, numbered; None where entering here doesn't lead to it faultlessly.

        Frames before the first key frame are passed over: after entering, what they refer to is missing.
        """
        import av

        expected: int | None = None
        try:
            for frame in frames:
                if expected is None and (frame.is_corrupt or not frame.key_frame):
                    continue
                index = self._index(frame)
                if frame.is_corrupt or index is None or index > start or expected not in (None, index):
                    return None
                if index == start:
                    return self._numbered(chain([frame], frames), start)
                expected = index + 1
        except (av.error.FFmpegError, ValueError):
            return None
        return None

    def _numbered(self, frames: "Iterator[VideoFrame]", start: int) -> "Iterator[tuple[int, VideoFrame]]":
        """Numbers frames from `start` on. Raises SoraError bad_input where one is damaged or missing."""
        import av

        index, begun = start, start > 0
        try:
            for frame in frames:
                begun = begun or is_shown(frame)
                if begun:
                    self._check(index, frame)
                    yield index, frame
                    index += 1
        except av.error.FFmpegError as error:
            raise self._damaged(index, error.strerror or "") from None
        if index < self.probe.frames:
            raise self._damaged(index, "missing")

    def _check(self, index: int, frame: "VideoFrame") -> None:
        """Raises SoraError bad_input unless `frame` is frame `index`, whole, and like the first one."""
        if frame.is_corrupt:
            raise self._damaged(index, "decoded with errors")
        if self._timeline.distinct and self._index(frame) != index:
            raise self._damaged(index, "missing")
        size, form = (frame.width, frame.height), frame.format.name
        if (*size, form) != (self.probe.coded_width, self.probe.coded_height, self.probe.pixel_format):
            what = f"{self.probe.path}: changes to {size[0]}x{size[1]} {form} at frame {index}"
            raise SoraError("bad_input", what, "cut it there, or re-encode it")

    def _index(self, frame: "VideoFrame") -> int | None:
        """Which frame this is, by its tick; None for one that the file doesn't announce."""
        from bisect import bisect_left

        ticks = self._timeline.ticks
        if frame.pts is None:
            return None
        index = bisect_left(ticks, frame.pts)
        return index if index < len(ticks) and ticks[index] == frame.pts else None

    def _damaged(self, index: int, reason: str) -> SoraError:
        detail = f" ({reason})" if reason else ""
        message = f"{self.probe.path}: frame {index} of {self.probe.frames} is damaged{detail}"
        return SoraError("bad_input", message, "repair the file, or cut it before that frame")

    def _shown(self, index: int, frame: "VideoFrame", stored: np.ndarray) -> ClipFrame:
        rgb = turned_pixels(stored, right_angle(frame))
        return ClipFrame(index, self.time(index), np.ascontiguousarray(rgb), frame)

    def _animation(self, start: int, stop: int) -> Generator[ClipFrame, None, None]:
        with open_regular(self.probe.path) as file, open_picture(file) as image:
            for index in range(start, stop):
                if self.probe.kind == "animation":
                    image.seek(index)
                yield self._picture(index, image)

    def _sequence(self, start: int, stop: int) -> Generator[ClipFrame, None, None]:
        for index in range(start, stop):
            path = numbered(Path(self.probe.path), index)
            with open_regular(path) as file, open_picture(file) as image:
                frame = self._picture(index, image)
            height, width, _ = frame.rgb.shape
            if (width, height) != (self.probe.width, self.probe.height):
                size = f"{self.probe.width}x{self.probe.height}"
                raise SoraError("bad_input", f"{path}: is {width}x{height}, the first is {size}", "use one size")
            yield frame

    def _picture(self, index: int, image: "Image") -> ClipFrame:
        rgb, native = upright(image)
        return ClipFrame(index, self.time(index), rgb, native)


@contextmanager
def open_source(path: str | Path) -> Iterator[Clip]:
    """A clip, an animation, a picture (one frame) or a numbered sequence, for reading.

    Raises SoraError: missing_input, and bad_input for what is no readable video or picture or was cut short.
    """
    probe, timeline = survey(path)
    if probe.kind == "video":
        with open_regular(path) as file:
            check_whole(file)
    clip = Clip(probe, timeline)
    try:
        yield clip
    finally:
        clip.close()


def _decoded(container: "InputContainer", stream: "VideoStream", aim: int | None) -> "Iterator[VideoFrame]":
    """The frames in the order in which they are shown, from a key frame at or before tick `aim`, if given."""
    decoder = decoder_of(stream)
    if aim is not None:
        container.seek(aim, stream=stream)
    for packet in container.demux(stream):
        yield from decoder.decode(packet)


def upright(image: "Image") -> "tuple[np.ndarray, VideoFrame]":
    """The current picture, turned as EXIF says: as shown, uint8 (H, W, 3), and as it can be stored."""
    from av import VideoFrame
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(image)
    if picture.mode in _DEEP_GREY:
        deep = np.asarray(picture).astype(np.uint16)
        shown = np.repeat(np.rint(deep / 257).astype(np.uint8)[..., None], 3, axis=-1)
        return shown, VideoFrame.from_ndarray(deep, format="gray16le")
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("RGB")), VideoFrame.from_ndarray(np.asarray(picture.convert("L")), "gray")
    if picture.has_transparency_data:
        pixels = np.asarray(picture.convert("RGBA"))
        return over_black(pixels), VideoFrame.from_ndarray(pixels, "rgba")
    pixels = np.asarray(picture.convert("RGB"))
    return pixels, VideoFrame.from_ndarray(pixels, "rgb24")
