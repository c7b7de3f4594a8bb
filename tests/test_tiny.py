"""The whole path in seconds: the real command line, the real model, real files, small pictures."""

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

SMALL = ("--size", "48x32", "--frames", "5", "--steps", "2", "--seed", "7", "-q")


def frames(path: Path) -> np.ndarray:
    """Every frame of a video, (T, H, W, 3) uint8."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize(
    ("size", "count", "name"),
    [
        ("250x142", 5, "landscape.mkv"),
        ("96x176", 2, "tall.mp4"),
        ("64x64", 9, "square.webm"),
        ("33x17", 6, "odd.mkv"),
        ("16x16", 1, "least.mkv"),
        ("210x90", 4, "wide.gif"),
    ],
)
def test_output_has_exactly_the_pixels_and_frames_asked_for(
    sora: Callable[..., Any], folder: Path, size: str, count: int, name: str
):
    run = sora("generate", "a cat at sunset", "--size", size, "--frames", count, "--steps", 1, "-o", name, "-q")
    assert run.code == 0, run.err
    assert run.paths == [name]
    made = frames(folder / name)
    width, height = map(int, size.split("x"))
    assert made.shape == (count, height, width, 3)


def test_one_frame_is_an_image(sora: Callable[..., Any], folder: Path):
    run = sora("generate", "a fish underwater", "--size", "64x48", "--steps", 2, "-o", "fish.png", "-q", "--json")
    assert run.code == 0, run.err
    (output,) = run.json["outputs"]
    assert (output["kind"], output["frames"], output["width"], output["height"]) == ("image", 1, 64, 48)
    with Image.open(folder / "fish.png") as image:
        assert image.size == (64, 48)


def test_same_seed_gives_identical_frames_and_another_seed_others(sora: Callable[..., Any], folder: Path):
    for name, seed in (("a.mkv", 1), ("b.mkv", 1), ("c.mkv", 2)):
        assert sora("generate", "a dog on a beach", *SMALL[:-3], "--seed", seed, "-q", "-o", name).code == 0
    first, again, other = (frames(folder / name) for name in ("a.mkv", "b.mkv", "c.mkv"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_memory_limit_never_changes_the_picture(sora: Callable[..., Any], folder: Path):
    size = ("--size", "320x256", "--frames", "2", "--steps", "1", "--seed", "3", "-q")
    assert sora("generate", "a car at night", *size, "-o", "roomy.mkv").code == 0
    least = sora("generate", "a car at night", *size, "--memory", "64MB", "-o", "none.mkv", "--json")
    assert least.code == 2
    assert least.json["error"]["code"] == "memory_too_small"
    assert not (folder / "none.mkv").exists()
    enough = least.json["error"]["hint"].split("needs ")[1].split()[0]
    assert sora("generate", "a car at night", *size, "--memory", enough, "-o", "tight.mkv").code == 0
    roomy, tight = (frames(folder / name) for name in ("roomy.mkv", "tight.mkv"))
    assert np.array_equal(roomy, tight)


@pytest.mark.skipif(sys.platform != "linux", reason="the heap is given back there alone")
@pytest.mark.parametrize("size", ["320x180", "1280x720"])
def test_the_memory_plan_is_above_what_a_run_takes(spawn: Any, size: str):
    asked = ("generate", "a car at night", "--size", size, "--frames", 1, "--steps", 1, "-o", "car.png", "--json")
    planned = json.loads(spawn(*asked, "--dry-run").communicate()[0])["data"]["memory"]["peak_bytes"]
    taken = json.loads(spawn(*asked).communicate()[0])["peak"]["rss_bytes"]
    assert taken < planned


def test_too_little_memory_is_refused_in_one_line(sora: Callable[..., Any]):
    run = sora("generate", "a quokka at night", "--memory", "64MB")
    assert (run.code, run.out, run.err.count("\n")) == (2, "", 1)


def test_a_file_replays_itself_from_its_metadata(sora: Callable[..., Any], folder: Path):
    assert sora("generate", "a duck in the snow", *SMALL, "-o", "first.mkv").code == 0
    assert sora("generate", "--from", "first.mkv", "-o", "again.mkv", "-q").code == 0
    assert np.array_equal(frames(folder / "first.mkv"), frames(folder / "again.mkv"))
    changed = sora("generate", "--from", "first.mkv", "--frames", 2, "-o", "short.mkv", "--json", "-q")
    assert changed.json["request"]["frames"] == 2
    assert changed.json["request"]["prompt"] == "a duck in the snow"
    assert len(frames(folder / "short.mkv")) == 2


def test_json_tells_what_was_made_by_what(sora: Callable[..., Any]):
    told = sora("generate", "a rocket at night", *SMALL, "--fps", "30000/1001", "-o", "r.mp4", "--json").json
    assert told["schema"] == "sora/1"
    assert told["ok"] is True
    assert told["seed"] == 7
    assert told["model"]["name"] == "diorama"
    assert len(told["model"]["digest"]) == 64
    assert Fraction(told["outputs"][0]["fps"]) == Fraction(30000, 1001)
    assert {"load", "text", "draft", "decode"} <= set(told["timings"])
    assert told["peak"]["rss_bytes"] > 10**8


def test_words_it_was_never_taught_are_named(sora: Callable[..., Any]):
    run = sora("generate", "a quokka at sunset", *SMALL[:-1], "-o", "q.mkv", "--json")
    assert run.code == 0
    (note,) = [note for note in run.json["notes"] if "quokka" in note]
    assert "sunset" not in note
    assert "quokka" in run.err


def test_dry_run_plans_and_makes_nothing(sora: Callable[..., Any], folder: Path):
    size = ("--size", "1920x1080", "--seconds", "10")
    told = sora("generate", "a cat at sunset", *size, "-o", "big.mp4", "--dry-run", "--json").json
    levels = told["data"]["levels"]
    assert [levels[-1]["width"], levels[-1]["height"]] == [1920, 1088]
    assert levels[-1]["latents"] == [61, 136, 240]
    assert [level["steps"] // level["windows"] for level in levels] == [6, 3, 1, 1]
    assert told["data"]["memory"]["peak_bytes"] > 0
    assert list(folder.iterdir()) == []


def test_count_makes_numbered_results_with_seeds_in_a_row(sora: Callable[..., Any], folder: Path):
    run = sora("generate", "a horse in a forest", *SMALL, "--count", 2, "-o", "h.mkv")
    assert run.paths == ["h-0.mkv", "h-1.mkv"]
    alone = sora("generate", "a horse in a forest", *SMALL[:-3], "--seed", 8, "-q", "-o", "alone.mkv")
    assert alone.code == 0
    assert np.array_equal(frames(folder / "h-1.mkv"), frames(folder / "alone.mkv"))


def test_preview_is_written_and_whole(sora: Callable[..., Any], folder: Path):
    assert sora("generate", "a turtle on a beach", *SMALL, "-o", "t.mkv", "--preview-file", "now.png").code == 0
    with Image.open(folder / "now.png") as image:
        image.load()
    assert sorted(path.name for path in folder.iterdir()) == ["now.png", "t.mkv"]


def test_job_folder_is_gone_when_the_work_is_done(sora: Callable[..., Any], own_home: Path):
    assert sora("generate", "a cat at sunset", *SMALL, "-o", "c.mkv").code == 0
    assert not list((own_home / "jobs").iterdir())


def test_job_folder_is_there_before_torch(spawn: Any, own_home: Path):
    module = spawn.modules / "watch.py"
    module.write_text(
        "import sys\n"
        "import sora_cli.engine.job as job\n"
        "whole = job.new_job\n"
        "def watched(*asked):\n"
        "    assert 'torch' not in sys.modules\n"
        "    print('early', file=sys.stderr)\n"
        "    return whole(*asked)\n"
        "job.new_job = watched\n"
        "from sora_cli.app import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    process = spawn("generate", "a cat", "--size", "16x16", "--frames", 1, "--steps", 1, "-o", "x.png", module="watch")
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert "early" in told


def test_a_window_of_a_long_video_is_handed_on(sora: Callable[..., Any], folder: Path):
    """More latent frames than one window holds: the count stays exact and neighbouring frames stay close."""
    run = sora("generate", "a cat at sunset", "--size", "32x32", "--frames", 70, "--steps", 2, "-o", "l.mkv", "-q")
    assert run.code == 0, run.err
    made = frames(folder / "l.mkv").astype(float)
    assert len(made) == 70
    steps = np.abs(np.diff(made, axis=0)).mean((1, 2, 3))
    assert np.isfinite(steps).all()


def test_no_metadata_leaves_nothing_behind(sora: Callable[..., Any]):
    assert sora("generate", "a cat at sunset", *SMALL, "--no-metadata", "-o", "n.mp4").code == 0
    assert sora("info", "n.mp4", "--json").json["data"]["metadata"] is None
    assert sora("generate", "--from", "n.mp4", "-o", "m.mp4").code == 2


def test_models_and_doctor_answer_in_json(sora: Callable[..., Any]):
    names = [model["name"] for model in sora("models", "list", "--json").json["data"]]
    assert "diorama" in names
    shown = json.dumps(sora("models", "show", "diorama", "--json").json["data"])
    assert "Apache-2.0" in shown
    assert sora("doctor", "--json").json["ok"] is True


def test_a_prompt_that_is_cut_is_told(sora: Callable[..., Any]):
    long = "a cat at sunset " * 12
    (note,) = [n for n in sora("generate", long, *SMALL, "-o", "l.mkv", "--json").json["notes"] if "tokens" in n]
    assert "24 tokens" in note


def test_a_home_that_cannot_be_written_is_one_line(sora: Callable[..., Any], monkeypatch: Any, tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SORA_HOME", str(tmp_path / "file"))
    run = sora("generate", "a cat at sunset", *SMALL, "-o", "c.mkv")
    assert run.code == 2
    assert "SORA_HOME" in run.err
    assert len(run.err.splitlines()) == 1
