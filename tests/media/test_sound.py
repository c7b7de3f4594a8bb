"""Sound moves with its frames: a click at a known time is heard at that time, wherever its clip was put."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from einops import rearrange

from sora_cli.media.clip import open_source
from sora_cli.media.editing import ClipWriter, open_clip_writer
from sora_cli.media.probe import probe
from sora_cli.media.sound import Mixer, Sound

RATE = 48000
FRAME = 1024  # samples of an AAC frame
SIZE = (32, 32)
SECOND = Fraction(1)
MakeSounding = Callable[..., Path]


def add_click_track(container: Any, clicks: list[float], seconds: float, options: dict[str, Any]) -> Callable[[], None]:
    """A sound stream, silent but for a short tone at each of `clicks` seconds; returns what writes it."""
    codec, layout, rate = options["codec"], options["layout"], options["rate"]
    stream = container.add_stream(codec, rate=rate, layout=layout)
    channels = av.AudioLayout(layout).nb_channels
    samples = np.zeros((channels, round(seconds * rate)), np.float32)
    tone = 0.5 * np.sin(np.arange(rate // 100) * 2 * np.pi * 1000 / rate)
    for number, click in enumerate(clicks):
        start = round(click * rate)
        samples[number % channels if options["apart"] else slice(None), start : start + len(tone)] = tone

    def write() -> None:
        for start in range(0, samples.shape[1], FRAME):
            block = rearrange(samples[:, start : start + FRAME], "channels n -> 1 (n channels)")
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="flt", layout=layout)
            frame.sample_rate, frame.pts = rate, start + round(options["late"] * rate)
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())

    return write


@pytest.fixture
def sounding(tmp_path: Path) -> MakeSounding:
    """(name, clicks in seconds of the sound, options) -> a clip of 24 frames a second with that sound.

    `video_late` and `late` are when video and sound begin in the file, in seconds.
    """

    def make(name: str, clicks: list[float], seconds: float = 1.0, **more: Any) -> Path:
        options = {"codec": "aac", "layout": "stereo", "rate": RATE, "late": 0.0, "video_late": 0.0, "apart": False}
        options |= more
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast", "g": "12"})
            (stream.width, stream.height), stream.pix_fmt = SIZE, "yuv420p"
            write_sound = add_click_track(container, clicks, seconds, options)
            for index in range(round(seconds * 24)):
                frame = av.VideoFrame(*SIZE, "yuv420p")
                frame.pts, frame.time_base = index + round(options["video_late"] * 24), Fraction(1, 24)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
            write_sound()
        return path

    return make


def rewrite(source: Path, target: Path, sounds: list[Sound], before: int = 0, after: int = 0) -> ClipWriter:
    """The clip's frames between new ones, with `sounds`."""
    with open_source(source) as clip:
        found = clip.probe
        grey = np.full((found.height, found.width, 3), 128, np.uint8)
        with open_clip_writer(
            target,
            like=found,
            width=found.width,
            height=found.height,
            fps=Fraction(24),
            frames=before + found.frames + after,
            sounds=sounds,
            metadata=None,
            force=False,
        ) as writer:
            for _ in range(before):
                writer.write(grey)
            for frame in clip.frames():
                writer.copy(frame)
            for _ in range(after):
                writer.write(grey)
    return writer


def heard(path: Path) -> tuple[np.ndarray, int]:
    """All samples, float32 (channels, n), on the timeline of the video's first frame; and their rate."""
    with av.open(str(path)) as container:
        video = next(container.decode(video=0))
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        zero, rate = Fraction(video.pts) * video.time_base, stream.rate
        resampler = av.AudioResampler(format="fltp", layout=stream.layout.name, rate=rate)
        whole = np.zeros((stream.channels, 0), np.float32)
        for frame in container.decode(stream):
            place = round((frame.pts * frame.time_base - zero) * rate)
            for part in resampler.resample(frame):
                samples = part.to_ndarray()[:, max(0, -place) :]
                gap = max(0, max(place, 0) - whole.shape[1])
                gap = gap if gap > rate // 100 else 0
                whole = np.concatenate([whole, np.zeros((whole.shape[0], gap), np.float32), samples], axis=1)
    return whole, rate


def onsets(path: Path) -> list[float]:
    """When each click begins, in seconds."""
    samples, rate = heard(path)
    loud = np.flatnonzero(np.abs(samples).max(axis=0) > 0.1)
    starts = loud[np.flatnonzero(np.diff(loud, prepend=-rate) > rate // 20)]
    return [float(start / rate) for start in starts]


def whole(path: Path, at: Fraction = Fraction(0), **more: Any) -> Sound:
    """All the sound of a clip of one second, laid at `at`."""
    return Sound(path, Fraction(0), SECOND, at, **more)


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".webm", ".mkv"])
@pytest.mark.parametrize("before", [0, 5, 36])
@pytest.mark.parametrize(
    "starts", [{}, {"late": 0.25}, {"video_late": 0.25}, {"late": 1.5, "video_late": 1.25}], ids=str
)
def test_clicks_move_with_their_frames(
    tmp_path: Path, ending: str, before: int, starts: dict[str, float], sounding: MakeSounding
) -> None:
    source = sounding("a.mkv", [0.3, 0.7], **starts)
    offset = starts.get("late", 0) - starts.get("video_late", 0)
    rewrite(source, tmp_path / f"copy{ending}", [whole(source, Fraction(before, 24))], before=before)
    expected = [click + offset + before / 24 for click in (0.3, 0.7)]
    found = onsets(tmp_path / f"copy{ending}")
    assert len(found) == 2
    assert all(abs(a - b) <= FRAME / RATE for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.mov", "a.mkv"])
def test_clicks_are_found_in_every_container(tmp_path: Path, name: str, sounding: MakeSounding) -> None:
    source = sounding(name, [0.3, 0.7])
    rewrite(source, tmp_path / "copy.mkv", [whole(source, Fraction(1))], before=24)
    assert onsets(tmp_path / "copy.mkv") == pytest.approx([1.3, 1.7], abs=FRAME / RATE)


@pytest.mark.parametrize("start", [Fraction(1, 5), Fraction(5, 2), Fraction(17, 2)])
@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts"])
def test_a_piece_out_of_a_long_clip_is_the_right_piece(
    tmp_path: Path, name: str, start: Fraction, sounding: MakeSounding
) -> None:
    clicks = [0.4 + index for index in range(10)]
    source = sounding(name, clicks, seconds=10.0)
    piece = Sound(source, start, start + 1, Fraction(1, 2))
    rewrite(sounding("short.mkv", [], seconds=2.0), tmp_path / "copy.mkv", [piece])
    expected = [click - float(start) + 0.5 for click in clicks if start <= click <= start + Fraction(19, 20)]
    assert onsets(tmp_path / "copy.mkv") == pytest.approx(expected, abs=FRAME / RATE)


def test_sixteen_bits_come_back_without_loss(tmp_path: Path, sounding: MakeSounding) -> None:
    source = sounding("a.mkv", [0.1, 0.5], codec="pcm_s16le", rate=44100)
    rewrite(source, tmp_path / "copy.mkv", [whole(source)])
    assert probe(tmp_path / "copy.mkv").audio[0].codec == "flac"
    assert np.array_equal(heard(source)[0], heard(tmp_path / "copy.mkv")[0])


def test_decoded_sound_comes_back_without_loss(tmp_path: Path, sounding: MakeSounding) -> None:
    source = sounding("a.mkv", [0.1, 0.5], codec="aac")
    rewrite(source, tmp_path / "copy.mkv", [whole(source)])
    before, after = heard(source)[0], heard(tmp_path / "copy.mkv")[0]
    assert after.shape == (2, RATE)
    assert any(np.array_equal(before[:, shift : shift + 40000], after[:, :40000]) for shift in range(48))


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".mkv"])
def test_six_channels_stay_apart(tmp_path: Path, ending: str, sounding: MakeSounding) -> None:
    clicks = [0.1, 0.25, 0.4, 0.55, 0.7, 0.85]
    source = sounding("a.mkv", clicks, layout="5.1", codec="pcm_s16le", apart=True)
    writer = rewrite(source, tmp_path / f"copy{ending}", [whole(source)])
    samples, rate = heard(tmp_path / f"copy{ending}")
    assert samples.shape[0] == 6
    energy = [
        [np.square(channel[round(click * rate) : round((click + 0.02) * rate)]).sum() for channel in samples]
        for click in clicks
    ]
    lossy_bass = {3} if ending != ".mkv" else set()  # a low-frequency channel has no 1 kHz in a lossy codec
    assert all(np.argmax(row) == number for number, row in enumerate(energy) if number not in lossy_bass)
    assert writer.notes == []


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".mkv"])
def test_eight_channels_are_mixed_to_six_with_a_note(tmp_path: Path, ending: str, sounding: MakeSounding) -> None:
    source = sounding("a.mkv", [0.1], layout="7.1", codec="pcm_s16le")
    writer = rewrite(source, tmp_path / f"copy{ending}", [whole(source)])
    assert probe(tmp_path / f"copy{ending}").audio[0].channels == 6
    assert "8 channels" in writer.notes[0]


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_formats_without_sound_say_so(tmp_path: Path, ending: str, sounding: MakeSounding) -> None:
    source = sounding("a.mp4", [0.1])
    writer = rewrite(source, tmp_path / f"copy{ending}", [whole(source)])
    assert writer.notes == [f"{ending} holds no sound: left out"]


def test_a_silent_clip_makes_a_silent_file(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        (stream.width, stream.height), stream.pix_fmt = SIZE, "yuv420p"
        container.mux([*stream.encode(av.VideoFrame(*SIZE, "yuv420p")), *stream.encode()])
    writer = rewrite(tmp_path / "a.mkv", tmp_path / "copy.mkv", [whole(tmp_path / "a.mkv")], after=3)
    assert (probe(tmp_path / "copy.mkv").audio, writer.notes) == ((), [])


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm"])
def test_sound_ends_with_the_last_frame(tmp_path: Path, ending: str, sounding: MakeSounding) -> None:
    source = sounding("a.mkv", [0.1], seconds=2.0)
    short = sounding("short.mkv", [], seconds=0.5)
    rewrite(short, tmp_path / f"copy{ending}", [Sound(source, Fraction(0), None, Fraction(0))])
    samples, rate = heard(tmp_path / f"copy{ending}")
    assert samples.shape[1] / rate == pytest.approx(0.5, abs=FRAME / RATE)


def test_a_bridge_is_a_silence_b(tmp_path: Path, sounding: MakeSounding) -> None:
    a, b = sounding("a.mp4", [0.5]), sounding("b.mkv", [0.25], rate=44100, layout="mono")
    sounds = [whole(a), Sound(b, Fraction(0), None, Fraction(2))]
    rewrite(a, tmp_path / "copy.mkv", sounds, after=48)
    assert onsets(tmp_path / "copy.mkv") == pytest.approx([0.5, 2.25], abs=FRAME / RATE)
    samples, rate = heard(tmp_path / "copy.mkv")
    assert (samples.shape, rate) == ((2, 3 * RATE), RATE)
    assert not samples[:, round(1.05 * RATE) : round(1.95 * RATE)].any()


def steady(path: Path) -> Path:
    """A clip of two seconds whose sound is a constant of a quarter."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=24)
        (video.width, video.height), video.pix_fmt = SIZE, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        container.mux([*video.encode(av.VideoFrame(*SIZE, "yuv420p")), *video.encode()])
        frame = av.AudioFrame.from_ndarray(np.full((1, 2 * RATE), 8192, np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux([*sound.encode(frame), *sound.encode()])
    return path


def test_a_sound_faded_into_itself_stays_as_it_is(tmp_path: Path) -> None:
    path, half = steady(tmp_path / "a.mkv"), Fraction(1, 2)
    sounds = [Sound(path, Fraction(0), SECOND, Fraction(0), fade_out=half), Sound(path, half, None, half, fade_in=half)]
    mixer = Mixer(sounds, RATE, "mono")
    mixed = np.concatenate([mixer.block(start, start + 1000) for start in range(0, 72000, 1000)], axis=1)
    mixer.close()
    assert np.abs(mixed - 0.25).max() < 1e-6


def test_fades_grow_and_shrink_in_straight_lines(tmp_path: Path) -> None:
    path, quarter = steady(tmp_path / "a.mkv"), Fraction(1, 4)
    mixer = Mixer([Sound(path, SECOND / 2, SECOND, SECOND, quarter, quarter)], RATE, "mono")
    mixed = mixer.block(0, 2 * RATE)[0]
    mixer.close()
    peak = RATE + RATE // 4
    assert not mixed[:RATE].any()
    assert not mixed[RATE + RATE // 2 :].any()
    assert mixed[RATE + RATE // 8] == pytest.approx(0.125, abs=1e-3)
    assert mixed[peak - 1 : peak + 1] == pytest.approx([0.25, 0.25], abs=1e-3)
    assert mixed[peak + RATE // 8] == pytest.approx(0.125, abs=1e-3)


def test_a_fade_out_needs_an_end(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="where the sound stops"):
        Sound(tmp_path / "a.mkv", Fraction(0), None, Fraction(0), fade_out=SECOND)


def test_damaged_sound_is_silence_and_no_error(tmp_path: Path, sounding: MakeSounding) -> None:
    source = sounding("a.mp4", [0.1, 0.8])
    with av.open(str(source)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    data = bytearray(source.read_bytes())
    for position, size in packets[15:25]:
        data[position : position + size] = b"\xff" * size
    source.write_bytes(data)
    rewrite(source, tmp_path / "copy.mkv", [whole(source)])
    found = onsets(tmp_path / "copy.mkv")
    assert found[0] == pytest.approx(0.1, abs=FRAME / RATE)
    assert found[-1] == pytest.approx(0.8, abs=FRAME / RATE)
