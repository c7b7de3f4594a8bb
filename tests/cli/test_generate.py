"""`sora generate`: options become a request, results become paths or JSON, a file can be made again."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from sora_cli.media.metadata import read_metadata
from sora_cli.request import Request

Sora = Callable[..., Any]
SMALL = ("--size", "32x16", "--frames", "3")


def test_stdout_carries_the_path_and_nothing_else(sora: Sora, engine: Any) -> None:
    run = sora("generate", "a cat at sunset", *SMALL)
    assert (run.code, run.paths) == (0, ["a-cat-at-sunset.mp4"])
    assert Path("a-cat-at-sunset.mp4").exists()
    assert "denoise: 20" in run.err
    assert "note: drawn on paper" in run.err


def test_quiet_says_nothing_on_stderr(sora: Sora, engine: Any) -> None:
    assert sora("generate", "a cat", *SMALL, "-q").err == ""


def test_a_second_run_takes_a_fresh_name(sora: Sora, engine: Any) -> None:
    assert [sora("generate", "a cat", *SMALL).paths for _ in range(2)] == [["a-cat.mp4"], ["a-cat-2.mp4"]]


def test_a_seed_that_nobody_named_is_reported_and_fresh(sora: Sora, engine: Any) -> None:
    first, second = (sora("generate", "a cat", *SMALL, "--json") for _ in range(2))
    assert first.json["seed"] != second.json["seed"]
    assert f"seed {first.json['seed']}" in first.err


def test_count_numbers_seeds_and_names(sora: Sora, engine: Any) -> None:
    run = sora("generate", "a cat", *SMALL, "--seed", 5, "--count", 3, "-o", "cat.gif")
    assert run.paths == ["cat-0.gif", "cat-1.gif", "cat-2.gif"]
    assert [request.seed for request in engine.asked] == [5, 6, 7]
    assert all(Path(path).exists() for path in run.paths)


def test_a_folder_that_ends_in_a_slash_is_made(sora: Sora, engine: Any) -> None:
    assert sora("generate", "a cat", *SMALL, "-o", "new/deep/").paths == ["new/deep/a-cat.mp4"]
    assert Path("new/deep/a-cat.mp4").exists()


def test_an_image_is_one_frame(sora: Sora, engine: Any) -> None:
    run = sora("generate", "a cat", "--size", "32x16", "-o", "cat.png", "--json")
    assert run.json["outputs"][0] | {"sha256": None} == {
        "path": "cat.png",
        "kind": "image",
        "width": 32,
        "height": 16,
        "frames": 1,
        "fps": None,
        "seconds": None,
        "sha256": None,
    }


def test_json_has_the_shape_of_the_contract(sora: Sora, engine: Any) -> None:
    found = sora("generate", "a cat", *SMALL, "--seed", 1, "-o", "cat.mp4", "--json").json
    assert list(found) == [
        *("schema", "ok", "command", "outputs", "model", "seed"),
        *("request", "notes", "metrics", "timings", "peak"),
    ]
    assert (found["schema"], found["ok"], found["command"], found["seed"]) == ("sora/1", True, "generate", 1)
    assert found["model"] == {"name": "diorama", "family": "diorama", "digest": "11" * 32}
    assert set(found["request"]) >= {field.name for field in fields(Request)} | {"count", "force", "metadata"}
    assert found["notes"] == ["drawn on paper"]
    assert found["peak"] == {"rss_bytes": 1, "device_bytes": None}
    output = found["outputs"][0]
    assert (output["path"], output["kind"], output["frames"], output["fps"]) == ("cat.mp4", "video", 3, 24)


def test_a_stream_ends_with_the_result_and_keeps_steps_to_ten_a_second(sora: Sora, engine: Any) -> None:
    engine.steps = 5000
    run = sora("generate", "a cat", *SMALL, "--json-stream")
    kinds = [event["type"] for event in run.events]
    assert kinds[0] == "stage"
    assert kinds[-1] == "result"
    assert "note" in kinds
    assert 1 <= kinds.count("step") <= 10
    assert all(event["schema"] == "sora/1" for event in run.events)


def test_a_dry_run_tells_the_plan_and_makes_nothing(sora: Sora, engine: Any, folder: Path) -> None:
    run = sora("generate", "a cat", "-o", "new/", "--dry-run", "--json")
    assert run.json["data"] == {"stages": ["denoise"], "memory_bytes": 1, "outputs": ["new/a-cat.mp4"]}
    assert run.json["outputs"] == []
    assert run.json["request"]["frames"] == 48
    plain = sora("generate", "a cat", "--dry-run")
    assert (plain.code, plain.out) == (0, "")
    assert 'stages: ["denoise"]' in plain.err
    assert (list(folder.iterdir()), engine.asked) == ([], [])


def test_from_makes_the_same_request_again(sora: Sora, engine: Any) -> None:
    sora("generate", "a cat", *SMALL, "--seed", 9, "--steps", 4, "--guidance", 2.5, "-o", "cat.mp4")
    run = sora("generate", "--from", "cat.mp4", "-o", "again.mp4")
    assert run.code == 0
    assert engine.asked[0] == engine.asked[1]
    assert read_metadata(Path("cat.mp4")) == read_metadata(Path("again.mp4"))


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (["--seed", "10"], {"seed": 10}),
        (["--steps", "7"], {"steps": 7}),
        (["a dog"], {"prompt": "a dog"}),
        (["--size", "16x32"], {"width": 16, "height": 32}),
        (["--fps", "12"], {"fps": Fraction(12), "frames": 2}),
        (["-o", "still.png"], {"frames": 1}),
    ],
)
def test_options_beside_from_change_only_what_they_name(
    sora: Sora, engine: Any, options: list[str], changed: dict[str, Any]
) -> None:
    sora("generate", "a cat", *SMALL, "--seed", 9, "-o", "cat.mp4")
    assert sora("generate", "--from", "cat.mp4", *options).code == 0
    before, after = engine.asked
    names = [field.name for field in fields(Request)]
    assert {n: getattr(after, n) for n in names if getattr(after, n) != getattr(before, n)} == changed


def test_settings_do_not_change_a_request_that_is_replayed(
    sora: Sora, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sora("generate", "a cat", *SMALL, "--seed", 9, "-o", "cat.mp4")
    monkeypatch.setenv("SORA_STEPS", "3")
    Path("sora.toml").write_text("seed = 4\nframes = 8\n")
    assert sora("generate", "--from", "cat.mp4").code == 0
    assert engine.asked[0] == engine.asked[1]


def test_other_weights_are_told(sora: Sora, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sora("generate", "a cat", *SMALL, "-o", "cat.mp4")
    monkeypatch.setattr(type(engine.model), "digest", lambda self: "22" * 32)
    run = sora("generate", "--from", "cat.mp4", "--json")
    assert run.code == 0
    assert any("the frames will differ" in note for note in run.json["notes"])


def test_without_metadata_there_is_nothing_to_replay(sora: Sora, engine: Any) -> None:
    sora("generate", "a cat", *SMALL, "-o", "cat.mp4", "--no-metadata")
    run = sora("generate", "--from", "cat.mp4")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "no sora metadata" in run.err


def crash(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (MemoryError(), "out_of_memory", 1),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "out_of_memory", 1),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full", 1),
        (KeyboardInterrupt(), "interrupted", 130),
        (RuntimeError("a\nbug"), "internal", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_a_failure_is_one_line_and_leaves_nothing(
    sora: Sora, engine: Any, folder: Path, error: BaseException, code: str, status: int
) -> None:
    engine.fail = crash(error)
    run = sora("generate", "a cat", *SMALL, "--seed", 1, "-o", "new/", "-q", "--json")
    assert (run.code, run.json["error"]["code"]) == (status, code)
    assert (run.err.count("\n"), run.err.startswith("error: ")) == (1, True)
    assert list(folder.iterdir()) == []


def test_an_interruption_says_how_to_start_again(sora: Sora, engine: Any) -> None:
    engine.fail = crash(KeyboardInterrupt())
    run = sora("generate", "a cat", *SMALL)
    seed = engine.asked[0].seed
    assert run.err.splitlines()[-1].endswith(
        f"start again with sora generate 'a cat' --size 32x16 --frames 3 --seed {seed}"
    )


def test_a_seed_to_start_again_with_stands_before_the_dashes(sora: Sora, engine: Any) -> None:
    engine.fail = crash(KeyboardInterrupt())
    run = sora("generate", *SMALL, "--", "-cat")
    assert run.err.splitlines()[-1].endswith(f"--frames 3 --seed {engine.asked[0].seed} -- -cat")


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_device_that_is_not_there_is_refused_in_one_line(
    sora: Sora, engine: Any, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = sora("generate", "a cat", *SMALL, "--device", "cuda", "--json", *more)
    assert (run.code, run.json["error"]["code"], run.err.count("\n")) == (2, "device_unavailable", 1)


def test_debug_shows_where_an_error_came_from(sora: Sora, engine: Any) -> None:
    engine.fail = crash(RuntimeError("a bug"))
    assert "--debug" in sora("generate", "a cat", *SMALL).err
    run = sora("generate", "a cat", *SMALL, "--debug")
    assert run.code == 1
    assert "Traceback" in run.err
    assert "in render" in run.err


HOSTILE: list[tuple[str, Any]] = [
    ("schema", {"schema": "sora/9"}),
    ("command", {"command": "extend"}),
    ("request", {"request": [1]}),
    ("model", {"model": "diorama"}),
    ("digest", {"model": {"name": "diorama", "digest": 5}}),
    ("request.width", {"request": {"width": 10**40}}),
    ("request.surprise", {"request": {"surprise": 1}}),
    ("request.steps", {"request": {"steps": 1e308}}),
    ("request.command", {"request": {"command": "extend"}}),
    ("request.draft", {"request": {"draft": "yes"}}),
    ("request.composed", {"request": {"composed": [640]}}),
    ("request.composed", {"request": {"composed": [640, 1e9]}}),
    ("prompt", {"request": {"prompt": "  "}}),
    ("takes no clips", {"request": {"mode": "blend"}}),
    ("takes no clips", {"request": {"clip": "/etc/passwd"}}),
    ("takes no clips", {"request": {"mask": "/etc/passwd"}}),
]


@pytest.mark.parametrize(("words", "change"), HOSTILE, ids=[words for words, _ in HOSTILE])
def test_hostile_metadata_is_refused_in_one_line(
    sora: Sora, engine: Any, monkeypatch: pytest.MonkeyPatch, words: str, change: dict[str, Any]
) -> None:
    sora("generate", "a cat", *SMALL, "-o", "cat.mp4")
    found = read_metadata(Path("cat.mp4"))
    assert found is not None
    inner = change.get("request")
    changed = found | ({"request": found["request"] | inner} if isinstance(inner, dict) else change)
    monkeypatch.setattr("sora_cli.media.metadata.read_metadata", lambda _path: changed)
    run = sora("generate", "--from", "cat.mp4")
    assert (run.code, run.err.count("\n"), run.out) == (2, 1, "")
    assert words in run.err


def test_a_name_that_is_not_unicode_comes_back_as_it_was(sora: Sora, engine: Any) -> None:
    name = os.fsdecode(b"caf\xe9.gif")
    run = sora("generate", "a cat", *SMALL, "-o", name, "--json")
    assert run.code == 0
    assert json.loads(run.out)["outputs"][0]["path"] == name
