"""What is written is what was given: size, count, rate, colours; in every format, at awkward sizes."""

import hashlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sora_cli.errors import SoraError
from sora_cli.media.writer import FrameWriter, check_output, open_writer

Frames = list[np.ndarray]
MakeFrames = Callable[[int, int, int], Frames]
Write = Callable[..., FrameWriter]
Decode = Callable[[Path], Frames]

VIDEOS = [".mp4", ".mov", ".webm", ".mkv"]
ANIMATIONS = [".gif", ".webp"]
SIZES = [(16, 16), (17, 33), (250, 142), (16, 33), (333, 16)]
COLOURS = [
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0),
    (128, 128, 128), (200, 60, 30), (30, 200, 220), (250, 220, 40), (90, 30, 140),
]  # fmt: skip


def patches(width: int = 320, height: int = 64) -> np.ndarray:
    """Vertical stripes of `COLOURS`, uint8 (height, width, 3)."""
    stripes = np.arange(width) * len(COLOURS) // width
    return np.broadcast_to(np.array(COLOURS, np.uint8)[stripes], (height, width, 3)).copy()


def stripe_errors(frame: np.ndarray) -> int:
    """The largest error of any channel in the middle of any stripe of `patches`."""
    height, width, _ = frame.shape
    middles = [(2 * index + 1) * width // (2 * len(COLOURS)) for index in range(len(COLOURS))]
    return int(np.abs(frame[height // 2, middles].astype(int) - np.array(COLOURS)).max())


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise ratio of two pictures, dB."""
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ending", VIDEOS + ANIMATIONS)
def test_size_and_count_come_back(
    tmp_path: Path, ending: str, size: tuple[int, int], make_frames: MakeFrames, write: Write, decode: Decode
) -> None:
    path = tmp_path / f"clip{ending}"
    write(path, make_frames(*size, 7))
    assert [frame.shape for frame in decode(path)] == [(size[1], size[0], 3)] * 7
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", [*VIDEOS, *ANIMATIONS, ".png", ".jpg", ".jpeg"])
def test_one_frame_is_enough(
    tmp_path: Path, ending: str, make_frames: MakeFrames, write: Write, decode: Decode
) -> None:
    path = tmp_path / f"one{ending}"
    output = write(path, make_frames(64, 48, 1)).output
    assert len(decode(path)) == output.frames == 1
    assert output.kind == ("video" if ending in VIDEOS else "image")
    assert (output.fps is None) == (output.seconds is None) == (output.kind == "image")


@pytest.mark.parametrize(
    "fps",
    [
        Fraction(24),
        Fraction(30000, 1001),
        Fraction(24000, 1001),
        Fraction(25, 2),
        Fraction(1, 2),
        Fraction(120),
    ],
)
@pytest.mark.parametrize("ending", VIDEOS)
def test_rate_is_exact_and_time_begins_at_zero(
    tmp_path: Path, ending: str, fps: Fraction, make_frames: MakeFrames, write: Write
) -> None:
    path = tmp_path / f"clip{ending}"
    write(path, make_frames(32, 32, 25), fps=fps)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [frame.pts * stream.time_base for frame in container.decode(stream)]
        assert stream.average_rate == fps
    half_a_tick = Fraction(1, 2000) if ending in (".webm", ".mkv") else 0
    assert times[0] == 0
    assert all(abs(time - index / fps) <= half_a_tick for index, time in enumerate(times))


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(30000, 1001), Fraction(60), Fraction(100), Fraction(7)])
@pytest.mark.parametrize(("ending", "tick"), [(".gif", 10), (".webp", 1)])
def test_delays_of_animations_add_up(
    tmp_path: Path, ending: str, tick: int, fps: Fraction, make_frames: MakeFrames, write: Write
) -> None:
    path = tmp_path / f"clip{ending}"
    write(path, make_frames(24, 24, 50), fps=fps)
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        delays = []
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            delays.append(image.info["duration"])
    assert len(delays) == 50
    assert max(delays) - min(delays) <= tick
    assert abs(sum(delays) - 50 * 1000 / fps) <= tick / 2


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_equal_frames_stay_apart(tmp_path: Path, ending: str, write: Write, decode: Decode) -> None:
    path = tmp_path / f"still{ending}"
    write(path, [np.full((20, 20, 3), 90, np.uint8)] * 12)
    assert len(decode(path)) == 12


@pytest.mark.parametrize("size", [(320, 64), (321, 63)])
@pytest.mark.parametrize("ending", [*VIDEOS, *ANIMATIONS])
def test_flat_colours_survive_in_every_frame(
    tmp_path: Path, ending: str, size: tuple[int, int], write: Write, decode: Decode
) -> None:
    path = tmp_path / f"patches{ending}"
    write(path, [patches(*size)] * 5)
    assert max(stripe_errors(frame) for frame in decode(path)) <= 2


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".webm"])
def test_planes_are_bt709_and_tagged_so(tmp_path: Path, ending: str, write: Write) -> None:
    """ITU-R BT.709: Y' = 0.2126 R' + 0.7152 G' + 0.0722 B', limited range."""
    path = tmp_path / f"green{ending}"
    write(path, [np.full((32, 32, 3), (0, 255, 0), np.uint8)] * 3)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    tags = frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range
    planes = [int(np.frombuffer(plane, np.uint8)[0]) for plane in frame.planes]
    assert [int(tag) for tag in tags] == [1, 1, 1, 1]
    assert np.abs(np.array(planes) - np.array([172.6, 41.7, 26.3])).max() < 1.6


def test_mkv_returns_every_bit(tmp_path: Path, write: Write, decode: Decode) -> None:
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (33, 17, 3), dtype=np.uint8) for _ in range(9)]
    write(tmp_path / "noise.mkv", frames)
    assert np.array_equal(np.stack(decode(tmp_path / "noise.mkv")), np.stack(frames))


@pytest.mark.parametrize("size", [(160, 96), (161, 97)])
@pytest.mark.parametrize(("ending", "least"), [(".mp4", 34), (".webm", 33), (".gif", 28), (".webp", 33)])
def test_pictures_look_like_what_was_given(
    tmp_path: Path, ending: str, least: float, size: tuple[int, int], write: Write, decode: Decode
) -> None:
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    frames = [np.stack([x + index, 60 + y, 200 - x // 2 + y // 3], axis=-1).astype(np.uint8) for index in range(12)]
    write(tmp_path / f"clip{ending}", frames)
    back = decode(tmp_path / f"clip{ending}")
    assert min(psnr(a, b) for a, b in zip(frames, back, strict=True)) > least


@pytest.mark.parametrize("ending", [".mp4", ".mov"])
def test_odd_sizes_are_444_with_a_note(tmp_path: Path, ending: str, make_frames: MakeFrames, write: Write) -> None:
    odd = write(tmp_path / f"odd{ending}", make_frames(17, 33, 2))
    even = write(tmp_path / f"even{ending}", make_frames(18, 32, 2))
    assert "4:4:4" in odd.notes[0]
    assert even.notes == []
    for name, expected in (("odd", "yuv444p"), ("even", "yuv420p")):
        with av.open(str(tmp_path / f"{name}{ending}")) as container:
            assert container.streams.video[0].codec_context.pix_fmt == expected


@pytest.mark.parametrize("ending", [".mp4", ".mov"])
def test_index_stands_before_the_pictures(tmp_path: Path, ending: str, make_frames: MakeFrames, write: Write) -> None:
    write(tmp_path / f"clip{ending}", make_frames(64, 64, 5))
    data = (tmp_path / f"clip{ending}").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("ending", [*VIDEOS, *ANIMATIONS])
def test_same_frames_give_the_same_bytes(tmp_path: Path, ending: str, make_frames: MakeFrames, write: Write) -> None:
    outputs = [write(tmp_path / f"{name}{ending}", make_frames(64, 48, 6)).output for name in "ab"]
    assert outputs[0].sha256 == outputs[1].sha256
    assert outputs[0].sha256 == hashlib.sha256((tmp_path / f"a{ending}").read_bytes()).hexdigest()


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_sequence_is_numbered_pictures_in_a_new_folder(
    tmp_path: Path, ending: str, make_frames: MakeFrames, write: Write, decode: Decode
) -> None:
    pattern = tmp_path / "new" / "deep" / f"%03d{ending}"
    frames = make_frames(33, 17, 4)
    output = write(pattern, frames).output
    files = sorted(pattern.parent.iterdir())
    assert [file.name for file in files] == [f"00{index}{ending}" for index in range(4)]
    assert (output.kind, output.path, output.frames, output.fps) == ("frames", str(pattern), 4, 24)
    assert output.sha256 == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    if ending == ".png":
        assert all(np.array_equal(decode(file)[0], frame) for file, frame in zip(files, frames, strict=True))


def test_rest_of_an_earlier_sequence_is_noted(tmp_path: Path, make_frames: MakeFrames, write: Write) -> None:
    write(tmp_path / "%d.png", make_frames(16, 16, 5))
    assert "earlier sequence" in write(tmp_path / "%d.png", make_frames(16, 16, 3), force=True).notes[0]


def test_gif_above_fifty_frames_a_second_is_noted(tmp_path: Path, make_frames: MakeFrames, write: Write) -> None:
    assert "too slowly" in write(tmp_path / "a.gif", make_frames(16, 16, 3), fps=Fraction(60)).notes[0]


def test_caller_may_reuse_its_array(tmp_path: Path, decode: Decode) -> None:
    frame = np.zeros((16, 16, 3), np.uint8)
    with open_writer(
        tmp_path / "a.mkv", width=16, height=16, fps=Fraction(24), frames=3, metadata=None, force=False
    ) as writer:
        for value in (10, 20, 30):
            frame[:] = value
            writer.write(frame)
    assert [int(back[0, 0, 0]) for back in decode(tmp_path / "a.mkv")] == [10, 20, 30]


@pytest.mark.parametrize("ending", [".mp4", ".gif", ".webp"])
def test_strided_views_are_written_right(tmp_path: Path, ending: str, write: Write, decode: Decode) -> None:
    wide = np.repeat(patches(), 2, axis=1)
    write(tmp_path / f"view{ending}", [wide[:, ::2]] * 2)
    assert max(stripe_errors(frame) for frame in decode(tmp_path / f"view{ending}")) <= 2


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (np.zeros((16, 17, 3), np.uint8), "(16, 17, 3)"),
        (np.zeros((16, 16, 4), np.uint8), "(16, 16, 4)"),
        (np.zeros((16, 16), np.uint8), "(16, 16)"),
        (np.zeros((16, 16, 3), np.float32), "float32"),
    ],
)
def test_wrong_frames_are_named(tmp_path: Path, frame: np.ndarray, told: str, write: Write) -> None:
    with (
        pytest.raises(SoraError) as refusal,
        open_writer(
            tmp_path / "a.mp4", width=16, height=16, fps=Fraction(24), frames=2, metadata=None, force=False
        ) as writer,
    ):
        writer.write(frame)
    assert told in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "told"), [(1, "1 frames came, not 2"), (3, "more than 2"), (0, "0 frames came")])
@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".gif", ".webp", "-%d.png"])
def test_wrong_count_is_an_error_and_leaves_nothing(
    tmp_path: Path, ending: str, count: int, told: str, make_frames: MakeFrames
) -> None:
    with (
        pytest.raises(SoraError) as refusal,
        open_writer(
            tmp_path / f"a{ending}",
            width=16,
            height=16,
            fps=Fraction(24),
            frames=2,
            metadata=None,
            force=False,
        ) as writer,
    ):
        for frame in make_frames(16, 16, count):
            writer.write(frame)
    assert told in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "frames", "code"),
    [
        ("cat.avi", 1, "unsupported_format"),
        ("nowhere/cat.mp4", 1, "missing_folder"),
        ("there.mp4", 1, "output_exists"),
        ("dangling.mp4", 1, "output_exists"),
        ("folder.mp4", 1, "bad_usage"),
        ("there.mp4/cat.mp4", 1, "bad_usage"),
        ("there.mp4/%d.png", 3, "bad_usage"),
        ("there.mp4/x/%d.png", 3, "bad_usage"),
        ("seq/%d.png", 3, "output_exists"),
        ("cat.png", 2, "bad_usage"),
    ],
)
def test_check_refuses_before_the_work(tmp_path: Path, name: str, frames: int, code: str) -> None:
    (tmp_path / "there.mp4").write_text("mine")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "gone")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "seq").mkdir()
    (tmp_path / "seq" / "2.png").write_text("mine")
    with pytest.raises(SoraError) as refusal:
        check_output(tmp_path / name, frames=frames, force=False)
    assert refusal.value.code == code


def test_check_makes_nothing(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "%d.png", frames=3, force=False)
    check_output(tmp_path / "new" / "cat.mp4", frames=3, force=False, make_folder=True)
    assert list(tmp_path.iterdir()) == []
