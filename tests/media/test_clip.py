"""A user's clip is read as it is shown, frame by frame, from any place, whatever it was made with."""

import resource
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import ref

import av
import numpy as np
import pytest
from PIL import Image

from sora_cli.errors import SoraError
from sora_cli.media.clip import ClipFrame, open_source
from sora_cli.media.writer import FrameWriter

MakeClip = Callable[..., Path]
MakeFrames = Callable[[int, int, int], list[np.ndarray]]
Write = Callable[..., FrameWriter]


def read(path: Path | str, start: int = 0, stop: int | None = None) -> list[ClipFrame]:
    with open_source(path) as clip:
        return list(clip.frames(start, stop))


def refusal(path: Path | str, start: int = 0) -> SoraError:
    with pytest.raises(SoraError) as caught:
        read(path, start)
    assert "\n" not in str(caught.value)
    return caught.value


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9)))


def test_every_clip_is_read_whole_upright_and_in_time(odd: Any, make_frames: MakeFrames) -> None:
    with open_source(odd.path) as clip:
        frames = list(clip.frames())
        probe = clip.probe
    made = odd.made
    count, turn = len(made.times), -made.counterclockwise // 90
    assert [frame.index for frame in frames] == list(range(count)) == list(range(probe.frames))
    assert {frame.rgb.shape for frame in frames} == {(probe.height, probe.width, 3)}
    tick = made.tick or 1 / made.rate
    clock = Fraction(1, 1000) if made.ending in (".mkv", ".webm") else Fraction(1, 90000)
    assert all(
        abs(frame.time - (time - made.times[0]) * tick) <= clock for frame, time in zip(frames, made.times, strict=True)
    )
    assert probe.variable_rate == odd.name.startswith("variable")
    fade = np.linspace(40, 255, made.size[0]) / 255 if probe.has_alpha else np.ones(made.size[0])
    for frame, picture in zip(frames, make_frames(*made.size, count), strict=True):
        seen = picture * fade[:, None]
        if "gray" in made.form:
            seen = (seen @ (0.299, 0.587, 0.114))[..., None]
        assert psnr(frame.rgb, np.rot90(seen, -turn)) > 22


def test_entering_late_gives_the_frames_of_a_whole_reading(odd: Any) -> None:
    whole = read(odd.path)
    with open_source(odd.path) as clip:
        for start in range(len(whole)):
            late = next(iter(clip.frames(start)))
            assert (late.index, late.time) == (whole[start].index, whole[start].time)
            assert np.array_equal(late.rgb, whole[start].rgb)


def test_late_frames_are_reached_without_decoding_the_beginning(make_clip: MakeClip, monkeypatch: Any) -> None:
    path = make_clip("long.mp4", size=(32, 32), times=tuple(range(600)), options={"preset": "ultrafast", "g": "25"})
    decoded = 0
    from sora_cli.media import clip as module

    plain = module._decoded

    def counting(*arguments: Any) -> Any:
        nonlocal decoded
        for frame in plain(*arguments):
            decoded += 1
            yield frame

    monkeypatch.setattr(module, "_decoded", counting)
    assert [frame.index for frame in read(path, 590, 593)] == [590, 591, 592]
    assert decoded <= 25


def test_a_part_is_a_part(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4")
    assert [frame.index for frame in read(path, 3, 6)] == [3, 4, 5]
    assert [frame.index for frame in read(path, 10, 99)] == [10, 11]
    assert read(path, 12) == read(path, 5, 5) == []


def test_two_streams_of_one_clip_run_side_by_side(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4")
    with open_source(path) as clip:
        pairs = [(a.index, b.index) for a, b in zip(clip.frames(), clip.frames(6), strict=False)]
    assert pairs == [(index, index + 6) for index in range(6)]


def test_a_stream_that_nobody_reads_any_more_lets_go_of_its_decoder(make_clip: MakeClip) -> None:
    with open_source(make_clip("a.mp4")) as clip:
        stream = clip.frames()
        next(stream)
        held = ref(stream)
        del stream
        assert held() is None


def test_streams_end_with_their_clip(make_clip: MakeClip) -> None:
    with open_source(make_clip("a.mp4")) as clip:
        stream = clip.frames()
        next(stream)
    assert list(stream) == []


def flat_clip(path: Path, size: tuple[int, int], form: str, matrix: int, value_range: int) -> np.ndarray:
    """A clip of one colour; its (Y, U, V) from 0 to 1 and around 0, after removing the range of `value_range`."""
    deep = form.endswith("10le")
    values = (140, 100, 170)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        (stream.width, stream.height), stream.pix_fmt = size, form
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, value_range
        frame = av.VideoFrame(*size, form)
        for plane, value in zip(frame.planes, values, strict=True):
            whole = np.frombuffer(memoryview(plane), np.uint16 if deep else np.uint8)
            whole[:] = value * 4 if deep else value
        container.mux([*stream.encode(frame), *stream.encode()])
    luma, blue, red = values
    if value_range == 2:
        return np.array([luma / 255, (blue - 128) / 255, (red - 128) / 255])
    return np.array([(luma - 16) / 219, (blue - 128) / 224, (red - 128) / 224])


@pytest.mark.parametrize("value_range", [0, 1, 2])
@pytest.mark.parametrize("form", ["yuv420p", "yuv444p", "yuv422p10le"])
@pytest.mark.parametrize(
    ("size", "matrix", "red", "blue"),
    [
        ((64, 48), 2, 0.299, 0.114),
        ((1280, 48), 2, 0.2126, 0.0722),
        ((64, 48), 1, 0.2126, 0.0722),
        ((1280, 48), 6, 0.299, 0.114),
        ((64, 48), 9, 0.2627, 0.0593),
    ],
)
def test_colours_follow_the_tags_or_else_the_size(
    tmp_path: Path, size: tuple[int, int], matrix: int, red: float, blue: float, form: str, value_range: int
) -> None:
    luma, u, v = flat_clip(tmp_path / "a.mkv", size, form, matrix, value_range)
    r, b = luma + 2 * (1 - red) * v, luma + 2 * (1 - blue) * u
    g = (luma - red * r - blue * b) / (1 - red - blue)
    expected = np.clip(np.array([r, g, b]) * 255, 0, 255)
    assert np.abs(read(tmp_path / "a.mkv")[0].rgb - expected).max() <= 2


@pytest.mark.parametrize("ending", [".gif", ".webp", ".png"])
def test_animations_are_read_in_their_own_time(tmp_path: Path, ending: str, make_frames: MakeFrames) -> None:
    path = tmp_path / f"a{ending}"
    pictures = [Image.fromarray(frame) for frame in make_frames(20, 16, 4)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[50, 300, 50, 50], lossless=True)
    whole = read(path)
    assert [frame.time for frame in whole] == [0, Fraction(1, 20), Fraction(7, 20), Fraction(2, 5)]
    assert np.array_equal(read(path, 3)[0].rgb, whole[3].rgb)
    assert all(psnr(frame.rgb, np.asarray(picture)) > 25 for frame, picture in zip(whole, pictures, strict=True))


def test_a_frame_without_a_length_is_shown_as_long_as_in_a_browser(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (16, 16), (index * 80, 0, 0)) for index in range(3)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=0)
    assert [frame.time for frame in read(tmp_path / "a.gif")] == [0, Fraction(1, 10), Fraction(1, 5)]


def test_transparent_pictures_are_shown_over_black(tmp_path: Path) -> None:
    Image.new("RGBA", (16, 16), (200, 100, 50, 51)).save(tmp_path / "a.png")
    (frame,) = read(tmp_path / "a.png")
    assert frame.rgb[0, 0].tolist() == [40, 20, 10]


def test_pictures_are_turned_as_their_camera_says(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (20, 16)).save(tmp_path / "a.jpg", exif=turned)
    (frame,) = read(tmp_path / "a.jpg")
    assert frame.rgb.shape == (20, 16, 3)


def test_a_numbered_sequence_is_a_clip(tmp_path: Path, make_frames: MakeFrames, write: Write) -> None:
    pictures = make_frames(20, 16, 5)
    write(tmp_path / "%04d.png", pictures)
    frames = read(tmp_path / "%04d.png", 2)
    assert [frame.index for frame in frames] == [2, 3, 4]
    assert all(np.array_equal(frame.rgb, pictures[frame.index]) for frame in frames)
    assert {b.time - a.time for a, b in pairwise(frames)} == {Fraction(1, 24)}


def test_a_sequence_of_two_sizes_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "0.png")
    Image.new("RGB", (20, 16)).save(tmp_path / "1.png")
    error = refusal(tmp_path / "%d.png")
    assert error.code == "bad_input"
    assert "1.png: is 20x16" in error.message


def test_deep_grey_pictures_keep_their_bits(tmp_path: Path) -> None:
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(deep).save(tmp_path / "a.png")
    (frame,) = read(tmp_path / "a.png")
    assert frame.native is not None
    assert np.array_equal(frame.native.to_ndarray(), deep)
    assert np.array_equal(frame.rgb[..., 0], deep >> 8)


@pytest.mark.parametrize("share", [0.4, 0.7, 0.99])
@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi", ".webm", ".mov"])
def test_a_clip_cut_short_is_refused(tmp_path: Path, ending: str, share: float, make_clip: MakeClip) -> None:
    codec = {".webm": "libvpx", ".avi": "mpeg4"}.get(ending, "libx264")
    data = make_clip(f"a{ending}", codec).read_bytes()
    short = tmp_path / f"short{ending}"
    short.write_bytes(data[: int(len(data) * share)])
    assert refusal(short).code == "bad_input"


def test_the_first_missing_bytes_are_counted(make_clip: MakeClip) -> None:
    path = make_clip("a.mkv")
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    assert f"100 of {len(data)} bytes are missing" in refusal(path).message


def test_bytes_after_the_end_do_no_harm(make_clip: MakeClip) -> None:
    for name in ("a.mp4", "a.mkv"):
        path = make_clip(name)
        path.write_bytes(path.read_bytes() + b"\0\0 left over from something else")
        assert len(read(path)) == 12


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.mov", "prores_ks")])
def test_damage_in_the_middle_is_told_with_its_frame(name: str, codec: str, make_clip: MakeClip) -> None:
    form = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    options = {"g": "4"} if codec == "libx264" else {}
    path = make_clip(name, codec, form=form, options=options)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    position, size = packets[7]
    data = bytearray(path.read_bytes())
    for place in range(position + 20, position + size - 4):
        data[place] ^= 0xA5
    path.write_bytes(data)
    error = refusal(path)
    assert error.code == "bad_input"
    number = int(error.message.split("frame ")[1].split(" of")[0])
    assert number == 7
    assert [frame.index for frame in read(path, 0, 4)] == [0, 1, 2, 3]


def test_frames_before_the_first_key_frame_are_not_counted(tmp_path: Path, make_clip: MakeClip) -> None:
    whole = make_clip("a.ts", "mpeg2video", times=tuple(range(30)), options={"g": "6", "bf": "2"})
    data = whole.read_bytes()
    with av.open(str(whole)) as container:
        second = [packet.pos for packet in container.demux(video=0) if packet.size][2]
    cut = tmp_path / "cut.ts"
    tables = data[: 188 * 3]
    cut.write_bytes(tables + data[second // 188 * 188 :])
    with open_source(cut) as clip:
        frames = list(clip.frames())
        assert 20 <= clip.probe.frames == len(frames) < 28
    assert np.array_equal(frames[-1].rgb, read(whole)[-1].rgb)


@pytest.mark.parametrize("name", ["http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "pipe:0", "missing.mp4"])
def test_names_are_paths_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(name).code == "missing_input"


def test_folders_and_empty_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    for path in (tmp_path, tmp_path / "empty.mp4", tmp_path / "noise.mp4"):
        assert refusal(path).code == "bad_input"


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is measured with POSIX's getrusage")
def test_the_end_of_a_long_clip_costs_a_few_frames_of_memory(make_clip: MakeClip) -> None:
    size, count = (192, 144), 800
    path = make_clip("long.mp4", size=size, times=tuple(range(count)), options={"preset": "ultrafast", "g": "48"})
    read(path, 0, 24)
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_source(path) as clip:
        tail = sum(1 for _ in clip.frames(count - 24))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
    assert tail == 24
    assert grown < 24 * size[0] * size[1] * 3
