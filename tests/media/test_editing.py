"""The user's frames come out as they went in, and new frames beside them are made like them."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from sora_cli.errors import SoraError
from sora_cli.media.clip import ClipFrame, open_source
from sora_cli.media.editing import ClipWriter, open_clip_writer
from sora_cli.media.planes import views
from sora_cli.media.probe import Probe, probe
from sora_cli.media.writer import FrameWriter

MakeClip = Callable[..., Path]
MakeFrames = Callable[[int, int, int], list[np.ndarray]]
Write = Callable[..., FrameWriter]

VIDEOS = [".mp4", ".mov", ".webm", ".mkv"]


def rewrite(source: Path | str, target: Path, before: int = 0, after: int = 0, **options: Any) -> ClipWriter:
    """Copies a clip between `before` and `after` new frames of mid grey."""
    with open_source(source) as clip:
        found = clip.probe
        settings = {"fps": found.fps or Fraction(24), "sounds": (), "metadata": None, "force": False, **options}
        new = np.full((found.height, found.width, 3), 128, np.uint8)
        with open_clip_writer(
            target,
            like=found,
            width=found.width,
            height=found.height,
            frames=before + found.frames + after,
            **settings,
        ) as writer:
            for _ in range(before):
                writer.write(new)
            for frame in clip.frames():
                writer.copy(frame)
            for _ in range(after):
                writer.write(new)
    return writer


def planes(frame: av.VideoFrame) -> list[np.ndarray]:
    """Every plane, uint8 (rows, columns, bytes of a pixel)."""
    found = []
    for index, plane in enumerate(frame.planes):
        bits = [part.bits for part in frame.format.components if part.plane == index]
        size = frame.format.padded_bits_per_pixel // 8 if len(frame.planes) == 1 else (bits[0] + 7) // 8
        rows = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)
        found.append(rows[: plane.height, : plane.width * size].reshape(plane.height, plane.width, size))
    return found


def decoded(path: Path) -> list[av.VideoFrame]:
    with open_source(path) as clip:
        return [frame.native for frame in clip.frames() if frame.native is not None]


def times(path: Path) -> list[Fraction]:
    with open_source(path) as clip:
        return [frame.time for frame in clip.frames()]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_planes_come_back_bit_for_bit(odd: Any, tmp_path: Path) -> None:
    writer = rewrite(odd.path, tmp_path / "copy.mkv", before=2, after=1)
    sources, copies = decoded(odd.path), decoded(tmp_path / "copy.mkv")[2:-1]
    assert len(sources) == len(copies) == len(odd.made.times)
    assert {copy.format.name for copy in copies} == {odd.made.stored or sources[0].format.name}
    turn = odd.made.counterclockwise // 90
    for source, copy in zip(sources, copies, strict=True):
        if odd.name == "rgb":
            assert np.array_equal(source.to_ndarray(format="rgb24"), copy.to_ndarray(format="rgb24"))
        elif odd.name == "turned, odd":
            luma, *chroma = planes(source)
            spread = [plane.repeat(2, axis=0).repeat(2, axis=1)[: luma.shape[0], : luma.shape[1]] for plane in chroma]
            assert same([np.rot90(plane, turn) for plane in (luma, *spread)], planes(copy))
            assert any("turned" in note for note in writer.notes)
        else:
            assert same([np.rot90(plane, turn) for plane in planes(source)], planes(copy))
            assert writer.notes == []


def test_what_a_clip_is_like_stays(odd: Any, tmp_path: Path) -> None:
    rewrite(odd.path, tmp_path / "copy.mkv")
    before, after = probe(odd.path), probe(tmp_path / "copy.mkv")
    assert (after.width, after.height, after.rotation) == (before.width, before.height, 0)
    assert (after.frames, after.variable_rate, after.has_alpha) == (
        before.frames,
        before.variable_rate,
        before.has_alpha,
    )
    assert after.colour.matrix == before.colour.matrix or "rgb" in odd.name
    assert (after.colour.primaries, after.colour.transfer) == (before.colour.primaries, before.colour.transfer)
    assert after.colour.range == before.colour.range
    assert float(after.pixel_aspect) == pytest.approx(float(before.pixel_aspect), rel=0.02)
    assert (after.interlaced, after.field_order) == (before.interlaced, before.field_order)
    if before.frames > 1 and not before.variable_rate:
        assert after.fps == before.fps


@pytest.mark.parametrize("ending", VIDEOS)
def test_every_clip_fits_every_format(odd: Any, tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"copy{ending}"
    rewrite(odd.path, target, before=1)
    with open_source(odd.path) as clip, open_source(target) as copy:
        assert (copy.probe.width, copy.probe.height) == (clip.probe.width, clip.probe.height)
        for source, result in zip(clip.frames(), copy.frames(1), strict=True):
            assert np.mean((source.rgb.astype(float) - result.rgb) ** 2) < 120


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_new_frames_have_the_colours_that_were_asked_for(odd: Any, tmp_path: Path, ending: str) -> None:
    rewrite(odd.path, tmp_path / f"copy{ending}", after=1)
    with open_source(tmp_path / f"copy{ending}") as copy:
        (last,) = copy.frames(copy.probe.frames - 1)
    assert np.abs(last.rgb.astype(int) - 128).max() <= (2 if ending == ".mkv" else 4)


@pytest.mark.parametrize("ending", VIDEOS)
@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.mkv"])
def test_the_file_is_as_long_as_its_frames(tmp_path: Path, name: str, ending: str, make_clip: MakeClip) -> None:
    output = rewrite(make_clip(name), tmp_path / f"copy{ending}", before=2).output
    assert output is not None
    with av.open(str(tmp_path / f"copy{ending}")) as container:
        assert container.duration / 1_000_000 == pytest.approx(output.seconds, abs=0.002)


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv", ".webm", ".gif", ".webp"])
def test_variable_times_stay_and_new_frames_keep_the_rate(tmp_path: Path, ending: str, make_clip: MakeClip) -> None:
    ticks = (0, 40, 80, 200, 240, 510, 540)
    source = make_clip("a.mkv", "ffv1", times=ticks, tick=Fraction(1, 1000))
    rewrite(source, tmp_path / f"copy{ending}", before=3, after=2, fps=Fraction(24))
    step = Fraction(1, 24)
    old = [3 * step + Fraction(tick, 1000) for tick in ticks]
    expected = [0, step, 2 * step, *old, old[-1] + step, old[-1] + 2 * step]
    clock = {".mp4": 0, ".mov": 0, ".gif": Fraction(1, 100)}.get(ending, Fraction(1, 1000))
    found = times(tmp_path / f"copy{ending}")
    assert all(abs(a - b) <= clock for a, b in zip(found, expected, strict=True))


def test_a_constant_rate_stays_exact_from_a_clock_of_milliseconds(tmp_path: Path, make_clip: MakeClip) -> None:
    rate = Fraction(30000, 1001)
    source = make_clip("a.mkv", rate=rate)
    rewrite(source, tmp_path / "copy.mp4", before=5)
    assert times(tmp_path / "copy.mp4") == [index / rate for index in range(17)]


def test_frames_go_where_they_are_told(tmp_path: Path, make_clip: MakeClip) -> None:
    source = make_clip("a.mp4", times=(0, 1, 2))
    with open_source(source) as clip:
        frames = list(clip.frames())
        options = settings(clip.probe, frames=3)
        with open_clip_writer(tmp_path / "copy.mp4", **options) as writer:
            for frame, at in zip(frames, (0, 3, 10), strict=True):
                writer.copy(frame, Fraction(at, 25))
    assert times(tmp_path / "copy.mp4") == [0, Fraction(3, 25), Fraction(10, 25)]


def settings(like: Probe, **more: Any) -> dict[str, Any]:
    size = {"width": like.width, "height": like.height, "fps": like.fps or Fraction(24)}
    return {"like": like, "sounds": (), "metadata": None, "force": False, **size, **more}


def test_time_never_goes_back(tmp_path: Path, make_clip: MakeClip) -> None:
    with open_source(make_clip("a.mp4")) as clip:
        frame = next(iter(clip.frames()))
        with (
            pytest.raises(SoraError, match="comes after"),
            open_clip_writer(tmp_path / "copy.mkv", **settings(clip.probe, frames=2)) as writer,
        ):
            writer.copy(frame, Fraction(1))
            writer.copy(frame, Fraction(1, 2))
    assert not list(tmp_path.glob("copy*"))


def test_another_clips_frames_are_converted_once_with_a_note(tmp_path: Path, make_clip: MakeClip) -> None:
    a = make_clip("a.mkv", "ffv1", form="yuv444p10le", times=(0,))
    b = make_clip("b.mkv", "ffv1", form="yuv420p", times=(0,))
    with open_source(a) as clip, open_source(b) as other:
        with open_clip_writer(tmp_path / "copy.mkv", **settings(clip.probe, frames=2)) as writer:
            writer.copy(next(clip.frames()))
            writer.copy(next(other.frames()))
        expected = next(other.frames()).rgb
    assert writer.notes == ["frames in yuv420p are converted to yuv444p10le"]
    with open_source(tmp_path / "copy.mkv") as copy:
        assert np.abs(next(copy.frames(1)).rgb.astype(int) - expected).max() <= 2


def test_deep_clips_get_new_frames_in_their_own_depth(tmp_path: Path, make_clip: MakeClip) -> None:
    source = make_clip("a.mkv", "ffv1", form="yuv444p10le")
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (48, 64, 3)).copy()
    with open_source(source) as clip, open_clip_writer(tmp_path / "b.mkv", **settings(clip.probe, frames=1)) as writer:
        writer.write(ramp)
    (frame,) = decoded(tmp_path / "b.mkv")
    luma = planes(frame)[0].view(np.uint16)[..., 0]
    assert frame.format.name == "yuv444p10le"
    assert np.abs(luma[0] - (64 + np.arange(64) * 4 * 876 / 255)).max() <= 1


def test_transparent_animations_keep_their_alpha_in_mkv(tmp_path: Path, make_frames: MakeFrames) -> None:
    alpha = np.linspace(0, 255, 20).astype(np.uint8)
    pictures = [np.dstack([frame, np.broadcast_to(alpha, (16, 20))]) for frame in make_frames(20, 16, 3)]
    images = [Image.fromarray(picture) for picture in pictures]
    images[0].save(
        tmp_path / "a.webp", save_all=True, append_images=images[1:], duration=100, lossless=True, exact=True
    )
    rewrite(tmp_path / "a.webp", tmp_path / "copy.mkv", after=1)
    copies = decoded(tmp_path / "copy.mkv")
    assert [copy.format.name for copy in copies] == ["bgra"] * 4
    with Image.open(tmp_path / "a.webp") as animation:
        for index, copy in enumerate(copies[:3]):
            animation.seek(index)
            assert np.array_equal(copy.to_ndarray(format="rgba"), np.asarray(animation.convert("RGBA")))
    assert (copies[-1].to_ndarray(format="rgba")[..., 3] == 255).all()


@pytest.mark.parametrize(("mode", "stored"), [("L", "gray"), ("RGB", "bgr0"), ("P", "bgr0"), ("I;16", "gray16le")])
def test_pictures_keep_what_they_are(tmp_path: Path, mode: str, stored: str) -> None:
    picture = Image.effect_noise((20, 16), 60).convert("RGB").convert(mode if mode != "I;16" else "I")
    picture.convert(mode).save(tmp_path / "a.png")
    rewrite(tmp_path / "a.png", tmp_path / "copy.mkv", after=2)
    first, *_ = decoded(tmp_path / "copy.mkv")
    assert first.format.name == stored
    with open_source(tmp_path / "a.png") as clip, open_source(tmp_path / "copy.mkv") as copy:
        difference = next(clip.frames()).rgb.astype(int) - next(copy.frames()).rgb
    assert np.abs(difference).max() <= (1 if mode == "I;16" else 0)


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_animations_play_for_ever(tmp_path: Path, ending: str, make_clip: MakeClip) -> None:
    rewrite(make_clip("a.mp4"), tmp_path / f"copy{ending}")
    with Image.open(tmp_path / f"copy{ending}") as image:
        assert image.info["loop"] == 0


LOSSES = [
    ("alpha.mp4", {"codec": "ffv1", "form": "yuva420p", "source": "a.mkv"}, "transparency"),
    ("deep.mp4", {"codec": "ffv1", "form": "yuv420p10le", "source": "a.mkv"}, "10 bits"),
    ("woven.mp4", {"codec": "mpeg2video", "options": {"flags": "+ildct+ilme"}, "source": "a.mpg"}, "interlaced"),
    ("wide.gif", {"aspect": Fraction(4, 3), "source": "a.mp4"}, "square"),
    ("odd.mp4", {"codec": "ffv1", "size": (51, 33), "source": "a.mkv"}, "odd"),
]


@pytest.mark.parametrize(("name", "made", "word"), LOSSES)
def test_what_a_format_cannot_hold_is_told(
    tmp_path: Path, name: str, made: dict[str, Any], word: str, make_clip: MakeClip
) -> None:
    fields = dict(made)
    source = make_clip(fields.pop("source"), **fields)
    (note,) = rewrite(source, tmp_path / name).notes
    assert word in note


@pytest.mark.parametrize("aspect", [Fraction(16, 9), Fraction(4, 3), Fraction(8, 9), Fraction(1, 2)])
@pytest.mark.parametrize("ending", VIDEOS)
def test_the_shape_of_a_pixel_is_kept(tmp_path: Path, ending: str, aspect: Fraction, make_clip: MakeClip) -> None:
    source = make_clip("a.mp4", aspect=aspect, size=(144, 120))
    rewrite(source, tmp_path / f"copy{ending}", before=1, metadata='{"schema": "sora/1"}')
    found = probe(tmp_path / f"copy{ending}")
    assert (found.pixel_aspect, found.frames, found.metadata) == (aspect, 13, {"schema": "sora/1"})
    with open_source(tmp_path / f"copy{ending}") as copy:
        assert [frame.index for frame in copy.frames(7)] == [7, 8, 9, 10, 11, 12]


def test_metadata_and_the_result_are_as_with_every_writer(tmp_path: Path, make_clip: MakeClip) -> None:
    source = make_clip("a.mp4")
    output = rewrite(source, tmp_path / "copy.mkv", after=3, metadata='{"schema": "sora/1"}').output
    assert output is not None
    assert (output.frames, output.fps, output.seconds, output.kind) == (15, 25, 0.6, "video")
    assert probe(tmp_path / "copy.mkv").metadata == {"schema": "sora/1"}


def test_an_error_leaves_nothing(tmp_path: Path, make_clip: MakeClip) -> None:
    source = make_clip("a.mp4")
    with open_source(source) as clip:
        for frames in (3, 20):
            with (
                pytest.raises(SoraError),
                open_clip_writer(tmp_path / "copy.mkv", **settings(clip.probe, frames=frames)) as writer,
            ):
                for frame in clip.frames():
                    writer.copy(frame)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("target", "code"),
    [("no/copy.mkv", "missing_folder"), ("a.mp4", "output_exists"), ("copy.xyz", "unsupported_format")],
)
def test_refusals_come_before_the_work(tmp_path: Path, target: str, code: str, make_clip: MakeClip) -> None:
    source = make_clip("a.mp4")
    with pytest.raises(SoraError) as refusal:
        rewrite(source, tmp_path / target)
    assert refusal.value.code == code


def test_a_clip_may_be_replaced_by_its_own_copy(tmp_path: Path, make_clip: MakeClip) -> None:
    source = make_clip("a.mkv")
    rewrite(source, source, after=4, force=True)
    assert probe(source).frames == 16


def test_sequences_are_copied_as_pictures(tmp_path: Path, make_clip: MakeClip) -> None:
    rewrite(make_clip("a.mp4"), tmp_path / "frames" / "%03d.png", before=1)
    assert len(list((tmp_path / "frames").iterdir())) == 13


def test_frames_of_another_size_are_a_mistake(tmp_path: Path, make_clip: MakeClip) -> None:
    with (
        open_source(make_clip("a.mp4")) as clip,
        pytest.raises(SoraError, match="not uint8"),
        open_clip_writer(tmp_path / "b.mkv", **settings(clip.probe, frames=12) | {"width": 32}) as writer,
    ):
        writer.copy(next(clip.frames()))


def test_a_copied_frame_needs_no_native(tmp_path: Path, make_clip: MakeClip) -> None:
    with open_source(make_clip("a.mp4")) as clip:
        frame = next(clip.frames())
        bare = ClipFrame(frame.index, frame.time, frame.rgb)
        with open_clip_writer(tmp_path / "b.mkv", **settings(clip.probe, frames=1)) as writer:
            writer.copy(bare)
    assert probe(tmp_path / "b.mkv").frames == 1


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv422p10le", "gray", "bgr0"])
def test_a_patch_leaves_every_sample_outside_its_mask_alone(tmp_path: Path, pixel_format: str) -> None:
    source, target = tmp_path / "clip.mkv", tmp_path / "out.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 32, 24, pixel_format
        for k in range(3):
            pixels = np.random.default_rng(k).integers(0, 255, (24, 32, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=pixel_format)))
        container.mux(stream.encode())
    inside = np.zeros((24, 32), bool)
    inside[4:10, 6:20] = True
    made = np.full((24, 32, 3), 200, np.uint8)
    with open_source(source) as clip:
        size = {"width": 32, "height": 24, "fps": Fraction(24), "frames": 3}
        with open_clip_writer(target, like=clip.probe, **size, sounds=[], metadata=None, force=False) as writer:
            for frame in clip.frames():
                writer.patch(frame, made, inside)
    with av.open(str(source)) as before, av.open(str(target)) as after:
        for one, other in zip(before.decode(video=0), after.decode(video=0), strict=True):
            assert one.format.name == other.format.name
            for own, patched in zip(views(one), views(other), strict=True):
                down, across = 24 // own.shape[0], 32 // own.shape[1]
                mask = inside[::down, ::across]
                assert (own[~mask] == patched[~mask]).all()
                assert (patched[mask] == patched[mask][0]).all()
