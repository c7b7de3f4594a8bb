"""Pieces of clips' sound laid on the timeline of an output, mixed and encoded while its frames are written."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import av
import numpy as np

from sora_cli.errors import SoraError
from sora_cli.media.probe import decoder_of, is_shown, video_stream
from sora_cli.media.source import is_picture, is_sequence, open_clip, open_regular

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

_BLOCK = 1024  # samples mixed at once
_JUMP = Fraction(1, 50)  # seconds between a stamp and the samples so far that are a gap and no rounding
_EARLIER = Fraction(1, 2)  # seconds before a piece at which decoding begins, so that codecs have warmed up
_SURROUND = 6  # channels of 5.1
# What each count of channels is where a file doesn't say, and as the lossy codecs know it.
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1"}
_SHORT = frozenset({"u8", "u8p", "s16", "s16p"})  # sample formats that 16 bits hold
_AAC_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000})
_USUAL_RATE = 48000


@dataclass(frozen=True, slots=True)
class Sound:
    """A piece of a clip's sound: from `start` to `stop` (its end where None), laid at `at` in the output.

    `start` and `stop` are seconds since the clip's first video frame, `at` seconds since the output's. It grows
    from silence over the first `fade_in` seconds and shrinks to it over the last `fade_out`, in straight lines, so
    that a sound faded into itself stays as it is. Raises ValueError for a `fade_out` without a `stop`.
    """

    path: str | Path
    start: Fraction
    stop: Fraction | None
    at: Fraction
    fade_in: Fraction = Fraction(0)
    fade_out: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        if self.fade_out and self.stop is None:
            raise ValueError("a fade out needs to know where the sound stops")


@dataclass(frozen=True, slots=True)
class Shape:
    """Samples a second, FFmpeg's name of the channel layout, and of the samples' format as decoded."""

    rate: int
    layout: str
    sample_format: str

    @property
    def channels(self) -> int:
        """How many the layout has."""
        return av.AudioLayout(self.layout).nb_channels


@dataclass(frozen=True, slots=True)
class SoundRecipe:
    """How an output's sound is encoded."""

    codec: str
    rate: int
    layout: str
    sample_format: str
    bit_rate: int | None


_LOSSY: Mapping[str, str] = MappingProxyType({"mp4": "aac", "mov": "aac", "webm": "libopus"})
_BITS_OF_A_CHANNEL = 96_000


def shape_of(sounds: Sequence[Sound]) -> tuple[Shape | None, list[str]]:
    """What the first piece that has sound is like, None where none has; and what the user must know.

    Raises SoraError as opening a clip does.
    """
    for path in dict.fromkeys(str(sound.path) for sound in sounds):
        found = _shape(path)
        if found is not None:
            shape, tracks = found
            notes = [f"{path}: the first of {tracks} sound tracks is kept"] if tracks > 1 else []
            return shape, notes
    return None, []


def recipe_for(form: str, shape: Shape) -> tuple[SoundRecipe, list[str]]:
    """How sound of that shape is kept in format `form`: without loss in mkv; at up to 5.1 channels."""
    kept = min(shape.channels, _SURROUND)
    notes = [f"{shape.channels} channels of sound are mixed to 5.1"] if kept < shape.channels else []
    if form == "mkv":
        layout = shape.layout if kept == shape.channels else _LAYOUTS[kept]
        codec, sample_format = ("flac", "s16") if shape.sample_format in _SHORT else ("pcm_f32le", "flt")
        return SoundRecipe(codec, shape.rate, layout, sample_format, None), notes
    lossy = _LOSSY[form]
    layout = "4.0" if (lossy, kept) == ("aac", 4) else _LAYOUTS[kept]
    rate = shape.rate if lossy == "aac" and shape.rate in _AAC_RATES else _USUAL_RATE
    return SoundRecipe(lossy, rate, layout, "fltp" if lossy == "aac" else "flt", _BITS_OF_A_CHANNEL * kept), notes


class Mixer:
    """The sum of the pieces, block by block, each file read as a stream. Close it."""

    def __init__(self, sounds: Sequence[Sound], rate: int, layout: str) -> None:
        self.rate, self.layout = rate, layout
        self._channels = av.AudioLayout(layout).nb_channels
        self._pieces = [_Piece(sound, rate, layout) for sound in sounds]

    def block(self, begin: int, end: int) -> np.ndarray:
        """Samples `begin` to `end`, excluded, float32 (channels, n); to be asked for in order."""
        block = np.zeros((self._channels, end - begin), np.float32)
        for piece in self._pieces:
            piece.add_to(block, begin)
        return block

    def close(self) -> None:
        """Lets go of the files."""
        for piece in self._pieces:
            piece.close()


class SoundEncoder:
    """A sound stream of an output that grows as its frames come."""

    def __init__(self, container: "OutputContainer", recipe: SoundRecipe, sounds: Sequence[Sound]) -> None:
        self._container = container
        self._mixer = Mixer(sounds, recipe.rate, recipe.layout)
        self._done = 0
        stream = cast(av.AudioStream, container.add_stream(recipe.codec, rate=recipe.rate))
        stream.codec_context.layout = recipe.layout
        stream.codec_context.format = recipe.sample_format
        stream.codec_context.time_base = Fraction(1, recipe.rate)
        if recipe.bit_rate is not None:
            stream.codec_context.bit_rate = recipe.bit_rate
        self._stream = stream

    def until(self, seconds: Fraction) -> None:
        """Mixes and encodes what is heard before `seconds`. Raises SoraError bad_input and OSError."""
        end = round(seconds * self._mixer.rate)
        while self._done < end:
            stop = min(self._done + _BLOCK, end)
            samples = np.ascontiguousarray(self._mixer.block(self._done, stop))
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self._mixer.layout)
            frame.sample_rate, frame.pts = self._mixer.rate, self._done
            frame.time_base = Fraction(1, self._mixer.rate)
            self._container.mux(self._stream.encode(frame))
            self._done = stop

    def finish(self, seconds: Fraction) -> None:
        """The rest up to `seconds`, the last frame's end, and what the encoder still holds."""
        self.until(seconds)
        self._container.mux(self._stream.encode())
        self.close()

    def close(self) -> None:
        """Lets go of the files that the sound comes from."""
        self._mixer.close()


class _Piece:
    """One `Sound` as samples on the output's timeline, decoded as they are needed."""

    def __init__(self, sound: Sound, rate: int, layout: str) -> None:
        self._sound, self._rate, self._layout = sound, rate, layout
        self._begin = round(sound.at * rate)
        self._end = None if sound.stop is None else self._begin + round((sound.stop - sound.start) * rate)
        self._chunks = self._decode()
        self._held: tuple[int, np.ndarray] | None = None
        self._files = ExitStack()

    def close(self) -> None:
        self._files.close()

    def add_to(self, block: np.ndarray, begin: int) -> None:
        """Adds what is heard of it in `block`, float32 (channels, n), whose first sample is `begin`."""
        end = begin + block.shape[1]
        while end > self._begin and (held := self._held or next(self._chunks, None)) is not None:
            position, samples = held
            first, last = max(position, begin), min(position + samples.shape[1], end)
            if first < last:
                heard = samples[:, first - position : last - position]
                block[:, first - begin : last - begin] += heard * self._gain(first, last)
            self._held = held if position + samples.shape[1] > end else None
            if self._held is not None:
                return

    def _gain(self, first: int, last: int) -> np.ndarray:
        """How loud samples `first` to `last` are, float32 (n,): 1 but in the fades."""
        middles = np.arange(first, last) + 0.5
        gain = np.ones(last - first)
        if self._sound.fade_in:
            gain = np.minimum(gain, (middles - self._begin) / float(self._sound.fade_in * self._rate))
        if self._sound.fade_out and self._end is not None:
            gain = np.minimum(gain, (self._end - middles) / float(self._sound.fade_out * self._rate))
        return np.clip(gain, 0, 1).astype(np.float32)

    def _decode(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first sample's place in the output, samples (channels, n)) within the piece, in order."""
        opened = _first_frame_time(self._sound.path)
        if opened is None:
            return
        reached = self._begin
        for position, samples in self._resampled(opened):
            first = max(position, reached)
            last = position + samples.shape[1]
            last = last if self._end is None else min(last, self._end)
            if first < last:
                yield first, samples[:, first - position : last - position]
                reached = last
            if self._end is not None and last >= self._end:
                break
        self._files.close()

    def _resampled(self, zero: Fraction) -> Iterator[tuple[int, np.ndarray]]:
        """The same from somewhere before the piece on; `zero` is the first video frame's time in the file.

        Samples follow each other, whatever a clock of milliseconds says, until stamp and count are far apart.
        """
        resampler = self._resampler()
        position: int | None = None
        for frame in self._audio_frames(zero + self._sound.start):
            place = self._place(frame, zero)
            if position is None or (place is not None and abs(place - position) > _JUMP * self._rate):
                resampler, position = self._resampler(), self._zero_place() if place is None else place
            frame.pts = None
            for samples in map(av.AudioFrame.to_ndarray, resampler.resample(frame)):
                yield position, cast(np.ndarray, samples)
                position += samples.shape[1]
        if position is not None:
            for samples in map(av.AudioFrame.to_ndarray, resampler.resample(None)):
                yield position, cast(np.ndarray, samples)
                position += samples.shape[1]

    def _zero_place(self) -> int:
        """Where the clip's first video frame would be in the output, in samples."""
        return self._begin - round(self._sound.start * self._rate)

    def _place(self, frame: av.AudioFrame, zero: Fraction) -> int | None:
        """Where a decoded frame belongs in the output, in samples; None where the file doesn't say."""
        if frame.pts is None or frame.time_base is None:
            return None
        return self._zero_place() + round((frame.pts * frame.time_base - zero) * self._rate)

    def _resampler(self) -> av.AudioResampler:
        return av.AudioResampler(format="fltp", layout=self._layout, rate=self._rate)

    def _audio_frames(self, start: Fraction) -> Iterator[av.AudioFrame]:
        """Decoded frames from one at or before `start` on, in seconds of the file's clock."""
        aim = start - _EARLIER
        frames = self._entered(aim) if self._sound.start > 2 * _EARLIER else None
        first = None if frames is None else next(frames, None)
        if frames is not None and first is not None and _is_before(first, start):
            yield first
            yield from frames
        else:
            yield from self._entered(None)

    def _entered(self, aim: Fraction | None) -> Iterator[av.AudioFrame]:
        """Decoded frames from around `aim` on, or from the beginning; damaged ones are left out."""
        self._files.close()
        file = self._files.enter_context(open_regular(self._sound.path))
        container = self._files.enter_context(open_clip(file))
        stream = _sound_stream(container)
        if stream is None:
            return
        with suppress(av.error.FFmpegError):
            if aim is not None and stream.time_base is not None:
                container.seek(int(aim / stream.time_base), stream=stream)
            for packet in container.demux(stream):
                with suppress(av.error.FFmpegError):
                    yield from packet.decode()


def _is_before(frame: av.AudioFrame, time: Fraction) -> bool:
    return frame.pts is not None and frame.time_base is not None and frame.pts * frame.time_base <= time


def _shape(path: str) -> tuple[Shape, int] | None:
    """The shape of a file's first sound track, and how many it has."""
    if is_sequence(path):
        return None
    with open_regular(path) as file:
        if is_picture(file):
            return None
        with open_clip(file) as container:
            stream = _sound_stream(container)
            if stream is None or not stream.rate:
                return None
            layout = stream.layout.name
            if "channels" in layout:
                layout = _LAYOUTS.get(stream.channels, "7.1")
            return Shape(stream.rate, layout, stream.codec_context.format.name), len(container.streams.audio)


def _sound_stream(container: "InputContainer") -> av.AudioStream | None:
    """The first sound track in a codec that is known."""
    return next((stream for stream in container.streams.audio if stream.codec_context), None)


def _first_frame_time(path: str | Path) -> Fraction | None:
    """When the first frame of a clip is shown, in seconds of the file's clock; None for what has no sound."""
    if _shape(str(path)) is None:
        return None
    with open_regular(path) as file, open_clip(file) as container:
        stream = video_stream(container, path)
        decoder = decoder_of(stream)
        for packet in container.demux(stream):
            for frame in decoder.decode(packet):
                if is_shown(frame):
                    return (frame.pts or 0) * (stream.time_base or Fraction(0))
    raise SoraError("bad_input", f"{path}: has no frame that can be decoded", "give a whole video")
