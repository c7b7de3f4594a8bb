"""Commands on clips, end to end with diorama: exact counts, the user's own frames untouched, joins measured."""

import json
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from sora_cli.media.writer import open_writer

SIZE = (64, 48)
FAST = ("--steps", 2, "--seed", 1)


def pan(path: Path, frames: int = 30, phase: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A clip of a smooth pattern that moves one pixel a frame, losslessly; its frames."""
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    made = [
        np.stack([128 + 90 * np.sin((x + k + phase) / 7 + c) * np.cos(y / 9) for c in range(3)], -1).astype(np.uint8)
        for k in range(frames)
    ]
    with open_writer(
        path, width=width, height=height, fps=Fraction(24), frames=frames, metadata=None, force=True
    ) as writer:
        for frame in made:
            writer.write(frame)
    return np.stack(made)


def read(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize(("side", "own", "total"), [("--forward", 0, 42), ("--backward", 12, 42), ("--both", 12, 54)])
def test_extend_adds_exactly_the_new_frames_and_keeps_the_clip(
    sora: Callable[..., Any], folder: Path, side: str, own: int, total: int
):
    clip = pan(folder / "clip.mkv")
    run = sora("extend", "clip.mkv", side, "--seconds", 0.5, *FAST, "-o", "out.mkv", "--json")
    assert run.code == 0, run.err
    made = read(folder / "out.mkv")
    assert len(made) == total
    assert (made[own : own + 30] == clip).all()
    assert len(run.json["metrics"]["seams"]) == (2 if side == "--both" else 1)
    assert max(run.json["metrics"]["seams"]) < 2


def test_loop_leads_from_the_end_to_the_beginning(sora: Callable[..., Any], folder: Path):
    clip = pan(folder / "clip.mkv")
    run = sora("loop", "clip.mkv", "--frames", 10, *FAST, "-o", "out.mkv", "--json")
    assert run.code == 0, run.err
    made = read(folder / "out.mkv")
    assert len(made) == 40
    assert (made[:30] == clip).all()
    assert len(run.json["metrics"]["seams"]) == 2
    steps = [np.abs(a.astype(int) - b).mean() for a, b in zip(made, [*made[1:], made[0]], strict=True)]
    assert max(steps[29], steps[39]) < 2 * np.median(steps)
    assert min(steps) > 0


def test_interpolate_joins_two_clips(sora: Callable[..., Any], folder: Path):
    one, two = pan(folder / "a.mkv"), pan(folder / "b.mkv", 20, phase=40)
    run = sora("interpolate", "a.mkv", "b.mkv", "--frames", 9, *FAST, "-o", "out.mkv", "--json")
    assert run.code == 0, run.err
    made = read(folder / "out.mkv")
    assert len(made) == 59
    assert (made[:30] == one).all()
    assert (made[39:] == two).all()
    assert len(run.json["metrics"]["seams"]) == 2


@pytest.mark.parametrize("gap", [(10, 14), (0, 5), (25, 29), (7, 7), (0, 29)])
def test_fill_draws_the_gap_alone(sora: Callable[..., Any], folder: Path, gap: tuple[int, int]):
    clip = pan(folder / "clip.mkv")
    run = sora("fill", "clip.mkv", "--frames", f"{gap[0]}-{gap[1]}", *FAST, "-o", "out.mkv")
    assert run.code == 0, run.err
    made = read(folder / "out.mkv")
    same = [bool((a == b).all()) for a, b in zip(made, clip, strict=True)]
    assert same == [not gap[0] <= index <= gap[1] for index in range(30)]


def test_a_mask_leaves_the_rest_of_the_picture_alone(sora: Callable[..., Any], folder: Path):
    clip = pan(folder / "clip.mkv", 9)
    inside = np.zeros((48, 64), np.uint8)
    inside[11:20, 21:40] = 255
    Image.fromarray(inside).save(folder / "mask.png")
    for command in (("fill", "clip.mkv", "a cat"), ("edit", "clip.mkv", "a cat", "--strength", 0.5)):
        run = sora(*command, "--mask", "mask.png", *FAST, "-o", "out.mkv", "--force")
        assert run.code == 0, run.err
        changed = (read(folder / "out.mkv") != clip).any(-1).any(0)
        assert changed[12:20, 22:40].mean() > 0.9
        changed[10:20, 20:40] = False
        assert not changed.any()


def test_edit_ranges_from_the_reconstruction_to_a_fresh_video(sora: Callable[..., Any], folder: Path):
    clip = pan(folder / "clip.mkv", 9)
    assert sora("reconstruct", "clip.mkv", "-o", "same.mkv").code == 0
    errors = []
    for strength in (0, 0.3, 1):
        options = ("--strength", strength, *FAST, "-o", f"{strength}.mkv")
        assert sora("edit", "clip.mkv", "a cat at sunset", *options).code == 0
        errors.append(np.abs(read(folder / f"{strength}.mkv").astype(int) - clip).mean())
    assert (read(folder / "0.mkv") == read(folder / "same.mkv")).all()
    assert errors == sorted(errors)


def test_upscale_gives_the_same_frames_larger(sora: Callable[..., Any], folder: Path):
    clip = pan(folder / "clip.mkv", 9)
    run = sora("upscale", "clip.mkv", "--size", "128x96", "--strength", 0.1, *FAST, "-o", "out.mkv")
    assert run.code == 0, run.err
    made = read(folder / "out.mkv")
    assert made.shape == (9, 96, 128, 3)
    smaller = made.reshape(9, 48, 2, 64, 2, 3).mean((2, 4))
    assert np.corrcoef(smaller.ravel(), clip.ravel())[0, 1] > 0.8


def test_blend_lets_two_clips_overlap(sora: Callable[..., Any], folder: Path):
    one, two = pan(folder / "a.mkv"), pan(folder / "b.mkv", 20, phase=40)
    options = ("--mode", "blend", "--prompt-b", "a dog", "--frames", 8, *FAST, "-o", "out.mkv", "--json")
    run = sora("interpolate", "a.mkv", "b.mkv", "a cat", *options)
    assert run.code == 0, run.err
    made = read(folder / "out.mkv")
    assert len(made) == 42
    assert (made[:22] == one[:22]).all()
    assert (made[30:] == two[8:]).all()
    assert len(run.json["metrics"]["seams"]) == 2


def hum(folder: Path, name: str, clip: str, pitch: float) -> None:
    """A clip with a tone of one second."""
    with av.open(str(folder / clip)) as source, av.open(str(folder / name), "w") as made:
        shown = made.add_stream_from_template(source.streams.video[0])
        heard = made.add_stream("pcm_s16le", rate=8000, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = shown
                made.mux(packet)
        wave = (8000 * np.sin(2 * np.pi * pitch * np.arange(8000) / 8000)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.rate = 8000
        made.mux(heard.encode(frame))
        made.mux(heard.encode())


def tones(path: Path, pitches: tuple[float, ...], start: float, stop: float) -> list[bool]:
    """Which pitches are heard between two moments of a file."""
    with av.open(str(path)) as file:
        rate = file.streams.audio[0].rate
        sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)]).astype(float)
    part = sound[int(start * rate) : int(stop * rate)]
    part = part / 32768 if np.abs(part).max() > 1 else part
    time = np.arange(len(part)) / rate
    return [abs(np.mean(part * np.exp(-2j * np.pi * pitch * time))) > 0.01 for pitch in pitches]


@pytest.mark.parametrize("command", [("edit", "a.mkv", "a cat"), ("upscale", "a.mkv", "--size", "128x96")])
def test_a_clip_that_is_drawn_anew_keeps_its_sound(sora: Callable[..., Any], folder: Path, command: tuple[str, ...]):
    pan(folder / "silent.mkv", 24)
    hum(folder, "a.mkv", "silent.mkv", 500)
    assert sora(*command, "--strength", 0.1, *FAST, "-o", "out.mkv").code == 0
    assert tones(folder / "out.mkv", (500,), 0.1, 0.9) == [True]


def test_sounds_cross_fade_where_two_clips_blend(sora: Callable[..., Any], folder: Path):
    pan(folder / "silent.mkv", 24)
    for name, pitch in (("a.mkv", 500), ("b.mkv", 1300)):
        hum(folder, name, "silent.mkv", pitch)
    assert sora("interpolate", "a.mkv", "b.mkv", "--mode", "blend", "--frames", 12, *FAST, "-o", "out.mkv").code == 0
    parts = ((0.05, 0.45), (0.6, 0.9), (1.05, 1.45))
    heard = [tones(folder / "out.mkv", (500, 1300), *part) for part in parts]
    assert heard == [[True, False], [True, True], [False, True]]


@pytest.mark.parametrize("strength", [0.2, 0.8])
def test_a_dry_run_tells_the_steps_that_are_made(sora: Callable[..., Any], folder: Path, strength: float):
    pan(folder / "clip.mkv", 5, size=(320, 192))
    command = ("edit", "clip.mkv", "a cat", "--strength", strength, "--steps", 4, "--seed", 1)
    planned = sora(*command, "--dry-run", "--json").json["data"]["levels"]
    events = sora(*command, "-o", "out.mkv", "--json-stream").events
    stages = {event["name"]: event["total"] for event in events if event["type"] == "stage"}
    made = [total for name, total in stages.items() if name.split()[0] in ("draft", "refine")]
    assert made == [level["steps"] for level in planned]


def test_reconstruct_tells_what_an_independent_computation_finds(sora: Callable[..., Any], folder: Path):
    clip = pan(folder / "clip.mkv")
    run = sora("reconstruct", "clip.mkv", "-o", "out.mkv", "--json")
    assert run.code == 0, run.err
    made = read(folder / "out.mkv")
    error = np.mean((made.astype(float) - clip) ** 2)
    assert run.json["metrics"]["psnr"] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-6)
    assert 0 < run.json["metrics"]["ssim"] <= 1
    latents = (1 + 29 // 4 + 1) * 32 * (SIZE[0] // 8) * (SIZE[1] // 8)
    assert run.json["metrics"]["compression"] == pytest.approx(30 * 3 * SIZE[0] * SIZE[1] / latents)


def test_a_picture_comes_to_life_as_its_own_first_and_last_frame(sora: Callable[..., Any], folder: Path):
    first, last = (np.random.default_rng(k).integers(0, 255, (48, 64, 3), dtype=np.uint8) for k in range(2))
    Image.fromarray(first).save(folder / "a.png")
    Image.fromarray(last).save(folder / "b.png")
    run = sora("img2vid", "a.png", "a cat", "--last", "b.png", "--frames", 12, *FAST, "-o", "out.mkv")
    assert run.code == 0, run.err
    made = read(folder / "out.mkv")
    assert len(made) == 12
    assert (made[0] == first).all()
    assert (made[-1] == last).all()


def test_another_rate_shows_the_clip_at_its_own_speed(sora: Callable[..., Any], folder: Path):
    clip = pan(folder / "clip.mkv")
    run = sora("extend", "clip.mkv", "--fps", 12, "--frames", 4, *FAST, "-o", "out.mkv", "--json")
    assert run.code == 0, run.err
    made = read(folder / "out.mkv")
    assert len(made) == 19
    assert (made[:15] == clip[::2]).all()
    assert run.json["outputs"][0]["fps"] == 12


UNEVEN = (0, 40, 120, 153, 273, 313, 393, 426, 546, 586, 700, 740)  # ms


def planes(path: Path) -> list[np.ndarray]:
    """The frames of a video as they are stored."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def noisy(path: Path, moments: tuple[int, ...], pixel_format: str = "yuv420p") -> None:
    """A lossless clip of noise, its frames shown at `moments`, in ms."""
    dice = np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pixel_format
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for moment in moments:
            pixels = dice.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=pixel_format)
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    "command",
    [
        ("fill", "clip.mkv", "--frames", "4-6", "--steps", "1"),
        ("edit", "clip.mkv", "a cat", "--strength", "0.1", "--steps", "1"),
        ("upscale", "clip.mkv", "--size", "128x96", "--strength", "0.1", "--steps", "1"),
        ("reconstruct", "clip.mkv"),
    ],
    ids=lambda command: command[0],
)
def test_frames_in_the_place_of_others_are_shown_when_those_were(
    sora: Callable[..., Any], folder: Path, command: tuple[str, ...]
):
    noisy(folder / "clip.mkv", UNEVEN)
    run = sora(*command, "-o", "out.mkv")
    assert run.code == 0, run.err
    assert times(folder / "out.mkv") == pytest.approx(times(folder / "clip.mkv"), abs=1e-3)


def test_a_clip_at_another_rate_keeps_the_planes_of_its_frames(sora: Callable[..., Any], folder: Path):
    noisy(folder / "clip.mkv", tuple(range(0, 480, 40)))
    for fps, shown in (("12.5", range(0, 12, 2)), ("50", [k // 2 for k in range(24)])):
        run = sora("extend", "clip.mkv", "--fps", fps, "--frames", 2, *FAST, "-o", f"{fps}.mkv")
        assert run.code == 0, run.err
        own, made = planes(folder / "clip.mkv"), planes(folder / f"{fps}.mkv")
        assert all(np.array_equal(own[index], frame) for index, frame in zip(shown, made, strict=False))
        assert len(made) == len(shown) + 2


@pytest.mark.parametrize(("pixel_format", "first"), [("yuv444p", 31), ("yuv420p", 30), ("yuv411p", 28)])
def test_a_mask_grows_to_whole_chroma_samples_and_no_more(
    sora: Callable[..., Any], folder: Path, pixel_format: str, first: int
):
    noisy(folder / "clip.mkv", (0, 40, 80), pixel_format)
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[:, 31:] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    assert sora("fill", "clip.mkv", "--mask", "mask.png", *FAST, "-o", "out.mkv").code == 0
    own, made = (np.stack([frame[: SIZE[1]] for frame in read_luma(folder / name)]) for name in ("clip.mkv", "out.mkv"))
    changed = (own != made).any((0, 1)).nonzero()[0]
    assert changed[0] == first


def read_luma(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [
            np.frombuffer(frame.planes[0], np.uint8).reshape(frame.height, -1)[:, : frame.width].copy()
            for frame in container.decode(video=0)
        ]


def test_a_deep_grey_picture_comes_to_life_as_it_is(sora: Callable[..., Any], folder: Path):
    Image.fromarray(np.full((64, 64), 30000, np.uint16)).save(folder / "grey.png")
    assert sora("img2vid", "grey.png", "--frames", 2, *FAST, "-o", "out.mkv").code == 0
    assert set(read(folder / "out.mkv")[0].ravel()) == {117}


def test_what_is_transparent_comes_to_life_over_black_and_a_note_says_so(sora: Callable[..., Any], folder: Path):
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(folder / "clear.png")
    run = sora("img2vid", "clear.png", "--frames", 2, *FAST, "-o", "out.mkv")
    assert "over black" in run.err
    assert read(folder / "out.mkv")[0].max() == 0


def test_a_clip_s_prompt_is_taken_from_its_metadata(sora: Callable[..., Any], folder: Path):
    made = sora("generate", "a fish underwater", "--size", "64x48", "--frames", 9, *FAST, "-o", "fish.mkv")
    assert made.code == 0
    run = sora("extend", "fish.mkv", "--frames", 3, *FAST, "-o", "out.mkv", "--dry-run", "--json")
    assert run.json["request"]["prompt"] == "a fish underwater"
    run = sora("extend", "fish.mkv", "a dog", "--frames", 3, *FAST, "-o", "out.mkv", "--dry-run", "--json")
    assert run.json["request"]["prompt"] == "a dog"


def test_the_same_seed_gives_the_same_frames(sora: Callable[..., Any], folder: Path):
    pan(folder / "clip.mkv")
    for name in ("one.mkv", "two.mkv"):
        assert sora("extend", "clip.mkv", "--frames", 5, *FAST, "-o", name).code == 0
    assert (read(folder / "one.mkv") == read(folder / "two.mkv")).all()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("extend", "none.mkv"), "no such file"),
        (("extend", "empty.mkv"), "empty"),
        (("extend", "text.mkv"), "not a readable video"),
        (("extend", "clip.mkv", "--forward", "--backward"), "exclude each other"),
        (("fill", "clip.mkv"), "--frames"),
        (("fill", "clip.mkv", "--mask", "none.png"), "no such file"),
        (("edit", "clip.mkv"), "PROMPT"),
        (("edit", "clip.mkv", "a cat", "--strength", "2"), "0 to 1"),
        (("upscale", "clip.mkv"), "--size"),
        (("upscale", "clip.mkv", "--size", "32x32"), "64x48"),
        (("upscale", "clip.mkv", "--size", "64x48"), "64x48"),
        (("interpolate", "clip.mkv", "clip.mkv", "--mode", "blend", "--seconds", "9"), "30 frames"),
        (("fill", "clip.mkv", "--frames", "5-40"), "0-29"),
        (("fill", "clip.mkv", "--frames", "9-5"), "9-5"),
        (("loop", "http://example.org/a.mp4"), "no such file"),
        (("interpolate", "clip.mkv", "none.mkv"), "no such file"),
        (("img2vid", "text.mkv"), "not a readable"),
        (("extend", "clip.mkv", "-o", "out.png"), "holds one frame"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    sora: Callable[..., Any], folder: Path, arguments: tuple[str, ...], told: str
):
    pan(folder / "clip.mkv")
    (folder / "empty.mkv").touch()
    (folder / "text.mkv").write_text("this is no video")
    before = sorted(folder.iterdir())
    run = sora(*arguments)
    assert run.code == 2
    assert told in run.err
    assert len([line for line in run.err.splitlines() if line.strip()]) == 1
    assert sorted(folder.iterdir()) == before


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells it there")
@pytest.mark.parametrize(
    "asked",
    [
        ("extend", "clip.mkv", "--backward", "--frames", 9, *FAST, "-o", "out.webm"),
        ("edit", "clip.mkv", "a cat", "--strength", 0.3, *FAST, "-o", "out.mkv", "--preview-file", "now.png"),
        ("reconstruct", "clip.mkv", "-o", "out.gif"),
    ],
    ids=lambda asked: asked[0],
)
def test_a_clip_keeps_to_the_least_memory_that_the_refusal_names(spawn: Any, asked: tuple[object, ...]):
    pan(spawn.folder / "clip.mkv", 9, size=(224, 128))
    refused = json.loads(spawn(*asked, "--memory", "10MB", "--json").communicate()[0])["error"]
    assert refused["code"] == "memory_too_small"
    least = int(refused["hint"].split("MB")[0].split()[-1])
    made = json.loads(spawn(*asked, "--memory", f"{least}MB", "--json").communicate()[0])
    assert made["peak"]["rss_bytes"] <= least * 2**20
