"""What a file holds is told exactly, and what is no video or picture is refused in one line."""

import json
import math
import os
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from sora_cli.errors import SoraError
from sora_cli.media.metadata import read_metadata
from sora_cli.media.probe import exact_rate, probe
from sora_cli.media.writer import FrameWriter

Write = Callable[..., FrameWriter]
MakeFrames = Callable[[int, int, int], list[np.ndarray]]

CODECS = {
    ".mp4": ("h264", "yuv420p", 8),
    ".mov": ("h264", "yuv420p", 8),
    ".webm": ("vp9", "yuv420p", 8),
    ".mkv": ("ffv1", "bgr0", 8),
}


def make_clip(path: Path, *, times: list[int], **options: Any) -> None:
    """A 64x48 clip with frames at `times` in 1/1000 s; options as the keywords below."""
    kind = {"codec": "libx264", "format": "yuv420p", "rotation": 0, "aspect": None, "sound": False} | options
    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind["codec"], rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, kind["format"]
        stream.codec_context.time_base = Fraction(1, 1000)
        if kind["aspect"]:
            stream.codec_context.sample_aspect_ratio = kind["aspect"]
        if kind["rotation"]:
            stream.set_display_rotation(kind["rotation"])
        if kind["sound"]:
            add_sound(container, seconds=1)
        for time in times:
            frame = av.VideoFrame(64, 48, kind["format"])
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def add_sound(container: Any, seconds: int) -> None:
    """An AAC track of silence in stereo."""
    stream = container.add_stream("aac", rate=48000, layout="stereo")
    for start in range(0, 48000 * seconds, 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 48000, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(30000, 1001), Fraction(60000, 1001), Fraction(120000, 1001)])
@pytest.mark.parametrize("ending", CODECS)
def test_videos_are_described_exactly(
    tmp_path: Path, ending: str, fps: Fraction, make_frames: MakeFrames, write: Write
) -> None:
    path = tmp_path / f"clip{ending}"
    write(path, make_frames(50, 34, 41), fps=fps, metadata='{"schema": "sora/1"}')
    found = probe(path)
    assert (found.kind, found.width, found.height, found.frames) == ("video", 50, 34, 41)
    assert (found.fps, found.variable_rate) == (fps, False)
    assert (found.codec, found.pixel_format, found.bit_depth) == CODECS[ending]
    assert found.seconds == pytest.approx(float(41 / fps))
    assert found.metadata == {"schema": "sora/1"}
    assert (found.rotation, found.pixel_aspect, found.interlaced, found.audio) == (0, 1, False, ())


def test_colour_tags_are_named(tmp_path: Path, make_frames: MakeFrames, write: Write) -> None:
    write(tmp_path / "a.mp4", make_frames(16, 16, 2))
    write(tmp_path / "a.mkv", make_frames(16, 16, 2))
    lossy, lossless = probe(tmp_path / "a.mp4").colour, probe(tmp_path / "a.mkv").colour
    assert (lossy.matrix, lossy.primaries, lossy.transfer, lossy.range) == (
        "bt709",
        "bt709",
        "bt709",
        "limited",
    )
    assert (lossless.matrix, lossless.primaries, lossless.transfer) == ("gbr", "bt709", "iec61966-2-1")
    assert lossless.range == "full"


@pytest.mark.parametrize(("ending", "fps"), [(".gif", Fraction(25)), (".webp", Fraction(25))])
def test_animations_are_described(
    tmp_path: Path, ending: str, fps: Fraction, make_frames: MakeFrames, write: Write
) -> None:
    write(tmp_path / f"a{ending}", make_frames(33, 17, 10), fps=fps)
    found = probe(tmp_path / f"a{ending}")
    assert (found.kind, found.width, found.height, found.frames) == ("animation", 33, 17, 10)
    assert (found.fps, found.seconds, found.variable_rate) == (fps, 0.4, False)


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(30000, 1001), Fraction(60)])
@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_rounded_delays_are_still_a_constant_rate(
    tmp_path: Path, ending: str, fps: Fraction, make_frames: MakeFrames, write: Write
) -> None:
    write(tmp_path / f"a{ending}", make_frames(16, 16, 30), fps=fps)
    assert not probe(tmp_path / f"a{ending}").variable_rate


def test_uneven_delays_are_a_variable_rate(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), (index * 20, 0, 0)) for index in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[50, 300, 50, 50])
    found = probe(tmp_path / "a.gif")
    assert (found.variable_rate, found.seconds) == (True, 0.45)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_pictures_are_described(tmp_path: Path, ending: str, make_frames: MakeFrames, write: Write) -> None:
    write(tmp_path / f"a{ending}", make_frames(33, 17, 1))
    found = probe(tmp_path / f"a{ending}")
    assert (found.kind, found.width, found.height, found.frames, found.fps) == ("image", 33, 17, 1, None)


def test_alpha_depth_and_exif_rotation_of_pictures(tmp_path: Path) -> None:
    Image.new("RGBA", (20, 16)).save(tmp_path / "alpha.png")
    Image.new("I;16", (20, 16)).save(tmp_path / "deep.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (20, 16)).save(tmp_path / "turned.jpg", exif=turned)
    assert probe(tmp_path / "alpha.png").has_alpha
    assert probe(tmp_path / "deep.png").bit_depth == 16
    found = probe(tmp_path / "turned.jpg")
    assert (found.rotation, found.width, found.height, found.coded_width) == (90, 16, 20, 20)


def test_a_phone_picture_with_a_preview_is_one_picture(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (20, 16), colour) for colour in ("red", "blue")]
    pictures[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=pictures[1:])
    found = probe(tmp_path / "a.jpg")
    assert (found.kind, found.frames) == ("image", 1)


def test_sequence_is_counted_from_zero_without_gaps(tmp_path: Path, make_frames: MakeFrames, write: Write) -> None:
    write(tmp_path / "%03d.png", make_frames(16, 16, 5))
    (tmp_path / "003.png").unlink()
    found = probe(tmp_path / "%03d.png")
    assert (found.kind, found.frames, found.path) == ("sequence", 3, str(tmp_path / "%03d.png"))


@pytest.mark.parametrize(("counterclockwise", "clockwise"), [(90, 270), (-90, 90), (180, 180)])
def test_rotation_is_applied_to_the_size(tmp_path: Path, counterclockwise: int, clockwise: int) -> None:
    make_clip(tmp_path / "a.mp4", times=[0, 40, 80], rotation=counterclockwise, aspect=Fraction(4, 3))
    found = probe(tmp_path / "a.mp4")
    sideways = clockwise != 180
    assert found.rotation == clockwise
    assert (found.width, found.height) == ((48, 64) if sideways else (64, 48))
    assert (found.coded_width, found.coded_height) == (64, 48)
    assert found.pixel_aspect == (Fraction(3, 4) if sideways else Fraction(4, 3))


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_variable_rate_is_told_with_the_mean(tmp_path: Path, ending: str) -> None:
    make_clip(tmp_path / f"a{ending}", times=[0, 40, 80, 200, 240, 500])
    found = probe(tmp_path / f"a{ending}")
    assert (found.variable_rate, found.frames, found.fps) == (True, 6, Fraction(10))


def test_sound_is_described(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", times=list(range(0, 1000, 40)), sound=True)
    (track,) = probe(tmp_path / "a.mp4").audio
    assert (track.codec, track.channels, track.sample_rate) == ("aac", 2, 48000)
    assert track.seconds == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("form", "depth"), [("yuv420p10le", 10), ("yuv444p", 8)])
def test_depth_is_told(tmp_path: Path, form: str, depth: int) -> None:
    make_clip(tmp_path / "a.mkv", times=[0, 40], format=form)
    found = probe(tmp_path / "a.mkv")
    assert (found.pixel_format, found.bit_depth) == (form, depth)


def test_alpha_of_video_is_told(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mkv", times=[0, 40], codec="ffv1", format="bgra")
    assert probe(tmp_path / "a.mkv").has_alpha


def test_vp8_is_counted_by_its_shown_frames(tmp_path: Path, make_frames: MakeFrames) -> None:
    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream("libvpx", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets = [stream.encode(av.VideoFrame.from_ndarray(f, format="rgb24")) for f in make_frames(64, 48, 20)]
        for index, packet in enumerate(packet for some in [*packets, stream.encode()] for packet in some):
            container.mux(_hidden(packet) if index == 7 else packet)
    assert probe(tmp_path / "a.webm").frames == 19


def _hidden(packet: av.Packet) -> av.Packet:
    """The same VP8 frame with its show_frame bit cleared; RFC 6386, 9.1."""
    data = bytearray(bytes(packet))
    data[0] &= ~0x10
    copy = av.Packet(bytes(data))
    copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, packet.stream
    return copy


def test_a_video_cut_short_tells_what_is_left(tmp_path: Path, make_frames: MakeFrames, write: Write) -> None:
    write(tmp_path / "a.mp4", make_frames(64, 48, 60))
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: len(data) * 3 // 4])
    assert 0 < probe(tmp_path / "a.mp4").frames < 60


def test_json_holds_every_field(tmp_path: Path, make_frames: MakeFrames, write: Write) -> None:
    write(tmp_path / "a.webm", make_frames(16, 16, 3), fps=Fraction(30000, 1001))
    told = json.loads(json.dumps(probe(tmp_path / "a.webm").to_json()))
    assert (told["fps"], told["pixel_aspect"], told["frames"]) == ("30000/1001", "1", 3)
    assert set(told) == set(probe(tmp_path / "a.webm").__slots__)


@pytest.mark.parametrize("number", [24, 30, 48, 60, 120, 240])
def test_ntsc_rates_are_found_in_nanoseconds(number: int) -> None:
    ntsc = Fraction(number * 1000, 1001)
    nanoseconds = round(1_000_000_000 / ntsc)
    assert exact_rate(Fraction(1_000_000_000, nanoseconds)) == ntsc
    assert exact_rate(Fraction(number)) == number


def _mkfifo(path: Path) -> None:
    os.mkfifo(path)


def _sound(path: Path) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0\0" * 800)


def _no_frames(path: Path) -> None:
    make_clip(path.with_name("whole.mp4"), times=[0, 40, 80])
    data = path.with_name("whole.mp4").read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + bytes(b ^ 0x5A for b in data[start : start + 900]) + data[start + 900 :])


def _truncated(name: str, share: float) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        whole = path.with_name(name)
        if whole.suffix in (".mp4", ".mkv"):
            make_clip(whole, times=[0, 40, 80])
        else:
            Image.effect_noise((64, 64), 90).save(whole)
        data = whole.read_bytes()
        path.write_bytes(data[: math.ceil(len(data) * share)])

    return make


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "missing_input"),
    "below a file": (lambda path: path.parent.touch(), "missing_input"),
    "folder": (Path.mkdir, "bad_input"),
    "fifo": (_mkfifo, "bad_input"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "bad_input"),
    "dangling link": (lambda path: path.symlink_to("gone"), "missing_input"),
    "link to itself": (lambda path: path.symlink_to(path), "bad_input"),
    "empty": (Path.touch, "bad_input"),
    "one byte": (lambda path: path.write_bytes(b"\0"), "bad_input"),
    "random": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(50_000)), "bad_input"),
    "zeros": (lambda path: path.write_bytes(bytes(50_000)), "bad_input"),
    "text": (_text("hello " * 1000), "bad_input"),
    "html": (_text("<html><video src='http://127.0.0.1/a.mp4'></html>"), "bad_input"),
    "playlist": (
        _text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n"),
        "bad_input",
    ),
    "concat": (_text("ffconcat version 1.0\nfile secret.mp4\n"), "bad_input"),
    "sdp": (
        _text("v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"),
        "bad_input",
    ),
    "dash": (_text('<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>'), "bad_input"),
    "sound": (_sound, "bad_input"),
    "mp4 head": (_truncated("whole.mp4", 0.3), "bad_input"),
    "mkv head": (_truncated("whole.mkv", 0.02), "bad_input"),
    "png head": (_truncated("whole.png", 0.01), "bad_input"),
    "png half": (_truncated("whole.png", 0.5), "bad_input"),
    "jpg half": (_truncated("whole.jpg", 0.5), "bad_input"),
    "gif half": (_truncated("whole.gif", 0.5), "bad_input"),
    "webp half": (_truncated("whole.webp", 0.5), "bad_input"),
    "png signature": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "bad_input"),
    "gif signature": (lambda path: path.write_bytes(b"GIF89a"), "bad_input"),
    "riff without webp": (lambda path: path.write_bytes(b"RIFF\xff\xff\xff\xffWEBPVP8X"), "bad_input"),
    "frames of noise": (_no_frames, "bad_input"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_video_or_picture_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    make_clip(tmp_path / "secret.mp4", times=[0, 40])
    make, code = HOSTILE[case]
    path = tmp_path / ("x/input.mp4" if case == "below a file" else "input.mp4")
    make(path)
    with pytest.raises(SoraError) as refusal:
        probe(path)
    assert refusal.value.code == code
    assert refusal.value.message.startswith(f"{path}: ")
    assert refusal.value.hint
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 120 + len(str(path))


@pytest.mark.parametrize("case", ["missing", "folder", "device", "empty", "random", "concat"])
def test_metadata_is_read_with_the_same_care(tmp_path: Path, case: str) -> None:
    make_clip(tmp_path / "secret.mp4", times=[0, 40])
    make, code = HOSTILE[case]
    make(tmp_path / "input.mp4")
    with pytest.raises(SoraError) as refusal:
        read_metadata(tmp_path / "input.mp4")
    assert refusal.value.code == code


@pytest.mark.parametrize(
    "name",
    [
        "http://127.0.0.1:9/a.mp4",
        "concat:real.mp4|real.mp4",
        "file:real.mp4",
        "pipe:0",
        "data:video/mp4,x",
        "50%.mp4",
        "50%.png",
        "%d.png",
        "a\0b",
    ],
)
def test_names_are_never_protocols(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make_frames: MakeFrames, write: Write
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("real.mp4"), make_frames(16, 16, 2))
    for read in (probe, read_metadata):
        with pytest.raises(SoraError) as refusal:
            read(name)
        assert refusal.value.code in ("missing_input", "bad_input")


def test_a_file_named_like_a_protocol_is_read_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_frames: MakeFrames, write: Write
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("plain.mp4"), make_frames(16, 16, 2))
    Path("concat:a|b.mp4").write_bytes(Path("plain.mp4").read_bytes())
    assert probe("concat:a|b.mp4").frames == 2


def test_a_clip_in_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    make_clip(path, times=[0, 42, 83])
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(SoraError, match="codec") as caught:
        probe(path)
    assert caught.value.code == "bad_input"


def test_sound_in_an_unknown_codec_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    make_clip(path, times=[0, 42, 83], sound=True)
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"zzzz").replace(b"esds", b"zzzy"))
    assert [audio.codec for audio in probe(path).audio] == ["unknown"]
