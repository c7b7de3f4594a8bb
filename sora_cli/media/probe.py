"""What a video or picture file holds, exactly: sizes, frames, rate, colours, sound and our metadata."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import accumulate, count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from sora_cli.errors import SoraError
from sora_cli.media.colour import MATRICES, PRIMARIES, RANGES, TRANSFERS, Colour, has_alpha
from sora_cli.media.formats import numbered
from sora_cli.media.metadata import comment_tag, parse, picture_comment
from sora_cli.media.source import is_picture, is_sequence, open_clip, open_picture, open_regular
from sora_cli.result import rate_json

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from PIL import Image

Kind = Literal["video", "image", "animation", "sequence"]
FieldOrder = Literal["top", "bottom"]

_MAX_PIXELS = 1 << 28
_ANIMATED = ("GIF", "WEBP", "PNG")  # the second picture of a phone's JPEG is no second frame
_MILLISECOND = Fraction(1, 1000)
_CENTISECOND = Fraction(1, 100)
_NTSC = Fraction(1000, 1001)
_ZERO_DELAY = 100  # milliseconds that browsers show a frame whose delay is 0
# FFmpeg's AVFieldOrder.
_FIELD_ORDERS: Mapping[int, FieldOrder] = {2: "top", 3: "bottom", 4: "bottom", 5: "top"}
_LIBVPX = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
# Bits of a channel in Pillow's modes; 8 in all others.
_DEPTHS = {"1": 1, "I;16": 16, "I": 32, "F": 32}


@dataclass(frozen=True, slots=True)
class Audio:
    """One audio stream; `sample_rate` in Hz, `seconds` where the file says."""

    codec: str
    channels: int
    sample_rate: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Probe:
    """One file; sizes in pixels, `width` and `height` as shown, after `rotation` (degrees clockwise).

    `pixel_aspect` is width over height of a pixel as shown; `fps` is exact, the mean where `variable_rate`.
    `field_order` tells which lines of interlaced frames come first; `time_base` is the clock's tick in seconds.
    """

    path: str
    kind: Kind
    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    coded_width: int
    coded_height: int
    rotation: int
    pixel_aspect: Fraction
    frames: int
    fps: Fraction | None
    variable_rate: bool
    seconds: float | None
    colour: Colour
    bit_depth: int
    has_alpha: bool
    interlaced: bool
    field_order: FieldOrder | None
    time_base: Fraction | None
    audio: tuple[Audio, ...]
    metadata: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values; fractions as text, such as "30000/1001"."""
        rate = rate_json(self.fps)
        return asdict(self) | {
            "fps": rate,
            "pixel_aspect": str(self.pixel_aspect),
            "time_base": None if self.time_base is None else str(self.time_base),
            "audio": [*map(asdict, self.audio)],
        }


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each frame is shown, in order: `ticks` of `unit` seconds; empty where the file doesn't say.

    `distinct` tells that a frame can be known by its tick.
    """

    ticks: Sequence[int]
    unit: Fraction
    distinct: bool

    def seconds(self, index: int) -> Fraction:
        """When frame `index` is shown, in seconds since the first one."""
        return (self.ticks[index] - self.ticks[0]) * self.unit


_UNTOLD = Timeline((), Fraction(0), distinct=False)


def probe(path: str | Path) -> Probe:
    """Reads the file, or the numbered sequence if `path` is a pattern such as `frames/%04d.png`.

    Raises SoraError: missing_input, and bad_input for what is no readable video or picture.
    """
    return survey(path)[0]


def survey(path: str | Path) -> tuple[Probe, Timeline]:
    """The same, with the time of every frame. Raises as `probe` does."""
    if is_sequence(path):
        return _survey_sequence(Path(path))
    with open_regular(path) as file:
        return _survey_picture(file, path) if is_picture(file) else _survey_clip(file, path)


def _survey_sequence(pattern: Path) -> tuple[Probe, Timeline]:
    """The first picture of a sequence, with the number of files that follow each other from 0."""
    first = probe(numbered(pattern, 0))
    files = sum(1 for _ in takewhile(Path.is_file, (numbered(pattern, index) for index in count())))
    return replace(first, path=str(pattern), kind="sequence", frames=files), _UNTOLD


def _survey_picture(file: BinaryIO, path: str | Path) -> tuple[Probe, Timeline]:
    with open_picture(file) as image:
        form = (image.format or "").lower()
        frames = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
        mode = image.mode
        has_alpha = image.has_transparency_data
        delays = _delays(image, frames) if frames > 1 else []
        image.load()
        comment = picture_comment(image)
        turned = _exif_rotation(image)
        coded = image.size
    width, height = coded[::-1] if turned in (90, 270) else coded
    ends = list(accumulate(delays))
    total = ends[-1] * _MILLISECOND if delays else None
    fps = frames / total if total else None
    tick = _CENTISECOND if form == "gif" else _MILLISECOND
    starts = [0, *ends[:-1]]
    found = Probe(
        path=str(path),
        kind="animation" if frames > 1 else "image",
        container=form,
        codec=form,
        pixel_format=mode.lower(),
        width=width,
        height=height,
        coded_width=coded[0],
        coded_height=coded[1],
        rotation=turned,
        pixel_aspect=Fraction(1),
        frames=frames,
        fps=fps,
        variable_rate=fps is not None and not _is_constant(starts, _MILLISECOND, fps, tick),
        seconds=None if total is None else float(total),
        colour=Colour(),
        bit_depth=_DEPTHS.get(mode, 8),
        has_alpha=has_alpha,
        interlaced=False,
        field_order=None,
        time_base=tick if frames > 1 else None,
        audio=(),
        metadata=parse(comment, path),
    )
    return found, Timeline(starts, _MILLISECOND, distinct=True)


def _delays(image: "Image.Image", frames: int) -> list[int]:
    """How long each frame of an animation is shown, in milliseconds."""
    delays = []
    for index in range(frames):
        image.seek(index)
        image.load()
        delays.append(round(image.info.get("duration", 0)) or _ZERO_DELAY)
    image.seek(0)
    return delays


def _exif_rotation(image: "Image.Image") -> int:
    """How far EXIF says to turn a picture clockwise; EXIF 2.3, tag 0x0112."""
    return {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}.get(image.getexif().get(0x0112, 1), 0)


def _survey_clip(file: BinaryIO, path: str | Path) -> tuple[Probe, Timeline]:
    with open_clip(file) as container:
        stream = video_stream(container, path)
        first, ticks = _read_packets(container, stream)
        if len(ticks) == len({*ticks} - {None}):
            return _survey_read(container, stream, first, ticks, path)
    file.seek(0)
    with open_clip(file) as container:
        stream = video_stream(container, path)
        first, ticks = _read_frames(container, stream)
        return _survey_read(container, stream, first, ticks, path)


def _survey_read(
    container: "InputContainer",
    stream: "VideoStream",
    first: "VideoFrame | None",
    ticks: Sequence[int | None],
    path: str | Path,
) -> tuple[Probe, Timeline]:
    """What was read all through; `ticks` has one entry for each frame."""
    if first is None:
        raise SoraError("bad_input", f"{path}: has no frame that can be decoded", "give a whole video")
    known = sorted(tick for tick in ticks if tick is not None)
    unit = stream.time_base or Fraction(0)
    whole = len(known) == len(ticks) and unit > 0
    timeline = Timeline(array("q", known), unit, len({*known}) == len(known)) if whole else _UNTOLD
    return _describe(container, stream, first, timeline, len(ticks), path), timeline


def video_stream(container: "InputContainer", path: str | Path) -> "VideoStream":
    """The first moving picture, cover art aside. Raises SoraError bad_input where there is none."""
    from av.stream import Disposition

    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        what = "holds sound only" if container.streams.audio else "holds no video"
        raise SoraError("bad_input", f"{path}: {what}", "give a video or a picture")
    context = moving[0].codec_context
    if not context:
        raise SoraError("bad_input", f"{path}: its video is in a codec that is not known here", "convert it to H.264")
    if not 0 < context.width * context.height <= _MAX_PIXELS:
        size = f"{context.width}x{context.height}"
        raise SoraError("bad_input", f"{path}: its frames claim to be {size}", "give a video of a sensible size")
    return moving[0]


def decoder_of(stream: "VideoStream") -> "VideoCodecContext":
    """What decodes a stream: FFmpeg's choice, but for alpha.

    The alpha of VP8 and VP9 lies in a second layer, which only libvpx reads.
    """
    from av.codec.context import CodecContext

    if _has_alpha_layer(stream) and stream.codec.canonical_name in _LIBVPX:
        return cast("VideoCodecContext", CodecContext.create(_LIBVPX[stream.codec.canonical_name], "r"))
    return stream.codec_context


def _read_packets(container: "InputContainer", stream: "VideoStream") -> "tuple[VideoFrame | None, list[int | None]]":
    """The first frame that can be shown, and the ticks of all from it on, by their packets: one is one frame.

    Frames before the first key frame, as a cut out of a broadcast has them, miss what they refer to. VP8's
    hidden frames have packets of their own: there, None stands among the ticks.
    """
    decoder = decoder_of(stream)
    first: VideoFrame | None = None
    ticks: list[int | None] = []
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard:
            ticks.append(None if stream.codec.canonical_name == "vp8" else packet.pts)
        if first is None:
            first = next((frame for frame in decoder.decode(packet) if is_shown(frame)), None)
    if first is not None and first.pts is not None:
        ticks = [tick for tick in ticks if tick is None or tick >= first.pts]
    return first, ticks


def _read_frames(container: "InputContainer", stream: "VideoStream") -> "tuple[VideoFrame | None, list[int | None]]":
    """The same by decoding everything, where packets don't tell."""
    decoder = decoder_of(stream)
    first: VideoFrame | None = None
    ticks: list[int | None] = []
    for packet in container.demux(stream):
        for frame in decoder.decode(packet):
            first = first or (frame if is_shown(frame) else None)
            if first is not None:
                ticks.append(frame.pts)
    return first, ticks


def is_shown(frame: "VideoFrame") -> bool:
    """Whether a clip can begin with this frame: it needs no other, or has all that it needs."""
    return frame.key_frame or not frame.is_corrupt


def _describe(
    container: "InputContainer",
    stream: "VideoStream",
    frame: "VideoFrame",
    timeline: Timeline,
    frames: int,
    path: str | Path,
) -> Probe:
    rotation = round(-frame.rotation) % 360
    aspect = stream.sample_aspect_ratio or Fraction(1)
    size = frame.width, frame.height
    turned = rotation in (90, 270)
    fps, variable = _rate(stream, timeline.ticks, frames)
    return Probe(
        path=str(path),
        kind="video",
        container=container.format.name,
        codec=stream.codec.canonical_name,
        pixel_format=frame.format.name,
        width=size[turned],
        height=size[not turned],
        coded_width=frame.width,
        coded_height=frame.height,
        rotation=rotation,
        pixel_aspect=1 / aspect if turned else aspect,
        frames=frames,
        fps=fps,
        variable_rate=variable,
        seconds=None if fps is None else float(frames / fps),
        colour=_colour(frame),
        bit_depth=frame.format.components[0].bits,
        has_alpha=_has_alpha_layer(stream) or has_alpha(frame.format),
        interlaced=bool(frame.interlaced_frame),
        field_order=_FIELD_ORDERS.get(stream.codec_context.field_order) if frame.interlaced_frame else None,
        time_base=stream.time_base,
        audio=tuple(_audio(container)),
        metadata=parse(comment_tag(container.metadata), path),
    )


def _rate(stream: "VideoStream", times: Sequence[int], frames: int) -> tuple[Fraction | None, bool]:
    """Frames per second, and whether it varies; the mean over the timestamps if it does."""
    stated = stream.average_rate
    if len(times) < 2 or len(times) < frames or stream.time_base is None:
        return stated and exact_rate(stated), False
    if stated and _is_constant(times, stream.time_base, rate := exact_rate(stated), stream.time_base):
        return rate, False
    span = (times[-1] - times[0]) * stream.time_base
    mean = (frames - 1) / span if span else stated
    return mean and mean.limit_denominator(100_000), True


def exact_rate(rate: Fraction) -> Fraction:
    """`rate`, or the NTSC rate (n x 1000/1001) that it is an approximation of.

    Matroska stores a frame's length in whole nanoseconds, and FFmpeg makes 60000/1001 into 19001/317 of it.
    """
    ntsc = round(rate / _NTSC) * _NTSC
    near = abs(rate / ntsc - 1) < Fraction(1, 1_000_000) if ntsc else False
    return ntsc if near and rate.denominator > 1 else rate


def _is_constant(times: Sequence[int], unit: Fraction, fps: Fraction, tick: Fraction) -> bool:
    """Whether times, in `unit` seconds, are those of a constant rate on a clock of `tick` seconds."""
    allowed = float(tick * fps) + 1e-6
    step = float(unit * fps)
    return all(abs((time - times[0]) * step - index) <= allowed for index, time in enumerate(times))


def _colour(frame: "VideoFrame") -> Colour:
    return Colour(
        matrix=MATRICES.get(int(frame.colorspace)),
        primaries=PRIMARIES.get(int(frame.color_primaries)),
        transfer=TRANSFERS.get(int(frame.color_trc)),
        range=RANGES.get(int(frame.color_range)),
    )


def _has_alpha_layer(stream: "VideoStream") -> bool:
    """WebM keeps alpha in a second layer, which shows in a tag and not in the pixel format."""
    return stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1"


def _audio(container: "InputContainer") -> Iterator[Audio]:
    for stream in container.streams.audio:
        seconds = None
        if stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            seconds = container.duration / 1_000_000
        if stream.codec_context:
            yield Audio(stream.codec.canonical_name, stream.channels, stream.rate, seconds)
        else:
            yield Audio("unknown", 0, 0, seconds)
