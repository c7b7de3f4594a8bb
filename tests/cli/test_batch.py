"""`sora batch`: each line is a command line of its own, all are checked first, one that fails stops no other."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Sora = Callable[..., Any]
CAT = {"command": "generate", "prompt": "a cat", "size": "32x16", "frames": 3, "seed": 1, "output": "cat.mkv"}


def jobs(*lines: dict[str, Any] | str) -> str:
    Path("jobs.jsonl").write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return "jobs.jsonl"


def test_results_are_told_as_they_come_and_progress_says_where_it_is(sora: Sora, engine: Any) -> None:
    dog = {**CAT, "prompt": "a dog", "output": None}
    run = sora("batch", jobs("# two animals", CAT, "", dog))
    assert (run.code, run.paths) == (0, ["cat.mkv", "a-dog.mp4"])
    assert "job 1 of 2: generate cat.mkv" in run.err
    assert "job 2 of 2: generate a dog" in run.err
    assert [request.prompt for request in engine.asked] == ["a cat", "a dog"]


def test_a_line_asks_for_what_the_command_line_asks_for(sora: Sora, engine: Any) -> None:
    options = {"fps": "30000/1001", "guidance": 1.5, "negative": "--json", "memory": "4G", "steps": 3, "draft": False}
    assert sora("batch", jobs({**CAT, **options, "prompt": "--help", "no-metadata": True})).code == 0
    words = ("--fps", "30000/1001", "--guidance", 1.5, "--negative=--json", "--memory", "4G", "--steps", 3)
    words = (*words, "--size", "32x16", "--frames", 3, "--seed", 1, "--no-metadata", "-o", "alone.mkv")
    assert sora("generate", *words, "--", "--help").code == 0
    assert engine.asked[0] == engine.asked[1]
    assert Path("cat.mkv").read_bytes() == Path("alone.mkv").read_bytes()


def test_settings_and_variables_reach_every_job(sora: Sora, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("sora.toml").write_text("steps = 2")
    monkeypatch.setenv("SORA_GUIDANCE", "2")
    assert sora("batch", jobs(CAT)).code == 0
    assert (engine.asked[0].steps, engine.asked[0].guidance) == (2, 2.0)


def test_jobs_come_from_stdin_too(sora: Sora, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(CAT).encode())))
    assert sora("batch", "-").paths == ["cat.mkv"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{")))
    assert "error: stdin line 1: {: it is not JSON" in sora("batch", "-").err


WRONG: list[tuple[dict[str, Any] | str, str, str]] = [
    ("[]", "bad_input", "it is no object"),
    ("{", "bad_input", "it is not JSON"),
    ('{"seed": 1, "seed": 2}', "bad_input", "seed stands there twice"),
    ('{"seed": NaN}', "bad_input", "NaN"),
    ("[" * 100_000, "bad_input", "it is not JSON"),
    ({"prompt": "a cat"}, "bad_usage", "no command: it is one of generate, img2vid"),
    ({"command": "paint"}, "bad_usage", 'command "paint": it is one of generate'),
    ({"command": "batch"}, "bad_usage", 'command "batch"'),
    ({"command": "resume"}, "bad_usage", 'command "resume"'),
    ({"command": ["generate"]}, "bad_usage", "command"),
    ({"command": "extend"}, "bad_usage", "no clip"),
    ({"command": "interpolate", "clip": "a.mp4", "prompt": "b"}, "bad_usage", "no other"),
    ({**CAT, "colour": "red"}, "bad_usage", "colour of generate: it is not known; there are prompt, from, model"),
    ({**CAT, "backward": True}, "bad_usage", "backward of generate"),
    ({**CAT, "seed": "1"}, "bad_usage", 'seed "1": it is a whole number'),
    ({**CAT, "seed": True}, "bad_usage", "seed true: it is a whole number"),
    ({**CAT, "seed": False}, "bad_usage", "seed false"),
    ({**CAT, "seed": -1}, "bad_usage", "--seed -1: it is 0 to"),
    ({**CAT, "size": 64}, "bad_usage", "size 64: it is a text"),
    ({**CAT, "size": "0x10"}, "bad_usage", "--size 0x10: width and height are 16 or more"),
    ({**CAT, "force": "yes"}, "bad_usage", "true or false"),
    ({**CAT, "output": "a\0b.mp4"}, "bad_usage", "no command line can"),
    ({**CAT, "preview-file": "p.png", "preview_file": "q.png"}, "bad_usage", "given twice"),
    ({**CAT, "json": True}, "bad_usage", "sora batch --json"),
    ({**CAT, "dry_run": True}, "bad_usage", "sora batch --dry-run"),
    ({**CAT, "seconds": 1}, "bad_usage", "exclude each other"),
    ({**CAT, "model": "nobody"}, "unknown_model", "nobody"),
    ({**CAT, "output": "cat.avi"}, "unsupported_format", "cat.avi"),
    ({**CAT, "output": "nowhere/cat.mp4"}, "missing_folder", "nowhere"),
    ({**CAT, "output": "jobs.jsonl"}, "unsupported_format", "jobs.jsonl"),
    ({"command": "extend", "clip": "nothing.mp4"}, "missing_input", "nothing.mp4"),
    ({"command": "generate", "width": 32, "height": 16}, "bad_input", "request.device is missing"),
]


@pytest.mark.parametrize(("line", "code", "words"), WRONG, ids=[str(row[0])[:50] for row in WRONG])
def test_a_wrong_line_is_refused_by_number_before_anything_is_drawn(
    sora: Sora, engine: Any, folder: Path, line: dict[str, Any] | str, code: str, words: str
) -> None:
    run = sora("batch", jobs({**CAT, "output": "first.mkv"}, "", line), "--json")
    assert (run.code, run.json["ok"], run.json["error"]["code"]) == (2, False, code)
    assert run.err.startswith("error: jobs.jsonl line 3: ")
    assert words in run.err
    assert run.err.count("\n") == 1
    assert engine.asked == []
    assert [path.name for path in folder.iterdir()] == ["jobs.jsonl"]


def test_an_output_that_exists_is_refused_unless_forced(sora: Sora, engine: Any) -> None:
    Path("cat.mkv").write_text("mine")
    run = sora("batch", jobs(CAT), "--json")
    assert (run.code, run.json["error"]["code"]) == (2, "output_exists")
    assert Path("cat.mkv").read_text() == "mine"
    assert sora("batch", jobs({**CAT, "force": True})).code == 0


@pytest.mark.parametrize("other", ["cat.mkv", "./cat.mkv", "../here/cat.mkv"])
def test_two_jobs_with_one_output_are_refused(sora: Sora, engine: Any, other: str) -> None:
    run = sora("batch", jobs(CAT, {**CAT, "output": other, "force": True}))
    assert run.code == 2
    assert "jobs.jsonl line 2" in run.err
    assert "line 1 makes it too" in run.err


def test_names_of_a_count_and_of_a_sequence_are_outputs_too(sora: Sora, engine: Any) -> None:
    counted = sora("batch", jobs({**CAT, "output": "cat-1.mkv"}, {**CAT, "count": 2}))
    assert "cat-1.mkv: line 1 makes it too" in counted.err
    preview = {**CAT, "preview_file": "now.png"}
    assert "now.png: line 1 makes it too" in sora("batch", jobs(preview, {**preview, "output": "dog.mkv"})).err
    within = sora("batch", jobs({**CAT, "frames": 1, "output": "002.png"}, {**CAT, "output": "%03d.png"}))
    assert "%03d.png: line 1 makes it too" in within.err
    numbered = sora("batch", jobs({**CAT, "output": "f/%03d.png"}, {**CAT, "frames": 1, "output": "./f/002.png"}))
    assert "f/002.png: line 1 makes it too" in numbered.err


def test_all_wrong_lines_are_named(sora: Sora, engine: Any) -> None:
    wrong = {**CAT, "size": "0x10"}
    assert "(wrong too: lines 2, 4)" in sora("batch", jobs(wrong, wrong, {**CAT, "output": "dog.mkv"}, wrong)).err


def test_one_that_fails_stops_no_other(sora: Sora, engine: Any) -> None:
    lines = [{**CAT, "output": f"{k}.mkv"} for k in range(3)]

    def fail() -> None:
        if len(engine.asked) == 2:
            raise MemoryError("too much")

    engine.fail = fail
    run = sora("batch", jobs(*lines))
    assert (run.code, run.paths) == (1, ["0.mkv", "2.mkv"])
    assert "error: jobs.jsonl line 2: too much: ask for a smaller --size" in run.err
    assert run.err.splitlines()[-1] == "error: 1 of 3 jobs failed: go on with sora batch --resume jobs.jsonl"


def test_only_bad_input_ends_with_2(sora: Sora, engine: Any) -> None:
    engine.fail = lambda: Path("1.mkv").touch()
    run = sora("batch", jobs(*({**CAT, "output": f"{k}.mkv"} for k in range(2))))
    assert (run.code, run.paths) == (2, ["0.mkv"])


def test_json_holds_every_job_as_it_would_tell_of_itself(sora: Sora, engine: Any) -> None:
    alone = sora("generate", "a cat", "--size", "32x16", "--frames", 3, "--seed", 1, "-o", "cat.mkv", "--json").json
    Path("cat.mkv").unlink()

    def fail() -> None:
        if len(engine.asked) == 3:
            raise OSError(28, "No space left on device", "dog.mkv")

    engine.fail = fail
    found = sora("batch", jobs("", CAT, {**CAT, "output": "dog.mkv"}), "--json").json
    assert (found["schema"], found["ok"], found["command"]) == ("sora/1", False, "batch")
    assert found["error"]["code"] == "disk_full"
    assert found["outputs"] == alone["outputs"]
    assert found["jobs"][0] == {"job": 1, "line": 2, **alone}
    assert (found["jobs"][1]["line"], found["jobs"][1]["ok"], found["jobs"][1]["error"]["code"]) == (
        3,
        False,
        "disk_full",
    )


def test_a_stream_says_whose_each_event_is_and_ends_with_the_whole(sora: Sora, engine: Any) -> None:
    *events, last = sora("batch", jobs(CAT, {**CAT, "output": "dog.mkv"}), "--json-stream").events
    assert [event["job"] for event in events] == sorted(event["job"] for event in events)
    for job in (1, 2):
        kinds = [event["type"] for event in events if event["job"] == job]
        assert kinds[0] == "stage"
        assert kinds[-1] == "result"
        assert {"stage", "step", "note", "result"} == set(kinds)
    assert (last["type"], last["ok"], len(last["jobs"])) == ("result", True, 2)
    assert "job" not in last
    assert all(event["schema"] == "sora/1" for event in (*events, last))


def test_a_dry_run_plans_all_and_makes_nothing(sora: Sora, engine: Any, folder: Path) -> None:
    line = {"command": "extend", "clip": "cat.mkv", "output": "long.mkv"}
    found = sora("batch", jobs(CAT, line), "--dry-run", "--json").json
    assert found["jobs"][0]["data"]["outputs"] == ["cat.mkv"]
    assert found["jobs"][1]["notes"] == ["it is planned when line 1 has made cat.mkv"]
    plain = sora("batch", jobs(CAT, line), "--dry-run")
    assert (plain.code, plain.out) == (0, "")
    assert 'outputs: ["cat.mkv"]' in plain.err
    assert [path.name for path in folder.iterdir()] == ["jobs.jsonl"]
    assert engine.asked == []


def test_quiet_says_nothing(sora: Sora, engine: Any) -> None:
    assert sora("batch", jobs(CAT), "-q").err == ""


WAITING: list[tuple[dict[str, Any], str]] = [
    ({"command": "fill", "clip": "cat.mkv"}, "say what to draw anew"),
    ({"command": "extend", "clip": "cat.mkv", "both": True, "forward": True}, "exclude each other"),
    ({"command": "interpolate", "clip": "cat.mkv", "other": "nothing.mkv"}, "nothing.mkv: there is no such file"),
    ({"command": "interpolate", "clip": "nothing.mkv", "b": "cat.mkv"}, "nothing.mkv: there is no such file"),
    ({"command": "loop", "clip": "cat.mkv", "output": "loop.avi"}, "loop.avi"),
    ({"command": "loop", "clip": "cat.mkv", "output": "jobs.jsonl"}, "jobs.jsonl"),
    ({"command": "loop", "clip": "cat.mkv", "model": "nobody"}, "nobody"),
]


@pytest.mark.parametrize(("line", "words"), WAITING, ids=[row[1] for row in WAITING])
def test_a_job_that_waits_for_another_is_checked_as_far_as_can_be(
    sora: Sora, engine: Any, line: dict[str, Any], words: str
) -> None:
    run = sora("batch", jobs(CAT, line))
    assert run.code == 2
    assert words in run.err
    assert engine.asked == []


def test_what_waits_for_a_job_that_failed_fails_too_and_takes_no_old_file(sora: Sora, engine: Any) -> None:
    assert sora("batch", jobs(CAT)).code == 0

    def fail() -> None:
        raise MemoryError

    engine.fail = fail
    run = sora("batch", jobs({**CAT, "force": True}, {"command": "loop", "clip": "cat.mkv", "output": "loop.mkv"}))
    assert run.code == 1
    assert "jobs.jsonl line 2: cat.mkv: line 1, which makes it, failed" in run.err
    assert len(engine.asked) == 2


def test_resume_leaves_what_is_there_but_not_what_is_forced(sora: Sora, engine: Any) -> None:
    lines = (CAT, {**CAT, "output": "dog.mkv"}, {**CAT, "output": "f/%04d.png"}, {**CAT, "output": "n.mkv", "count": 2})
    assert sora("batch", jobs(*lines)).code == 0
    Path("dog.mkv").unlink()
    Path("n-0.mkv").unlink()
    run = sora("batch", jobs(*lines), "--resume", "--json")
    assert [output["path"] for output in run.json["outputs"]] == ["dog.mkv", "n-0.mkv"]
    assert [job.get("skipped", False) for job in run.json["jobs"]] == [True, False, True, False]
    assert "note: it is there already" in run.err
    assert sora("batch", jobs({**CAT, "force": True}), "--resume").paths == ["cat.mkv"]
    nameless = sora("batch", jobs({**CAT, "output": None}), "--resume")
    assert (nameless.code, "note: it names no output" in nameless.err) == (0, True)


REQUESTS: list[dict[str, Any]] = [
    CAT,
    {**CAT, "size": "64x32", "draft": True, "fps": 29.97, "guidance": 0.00001},
    {"command": "extend", "clip": "clip.mkv", "backward": True, "frames": 4, "prompt": ""},
    {"command": "interpolate", "clip": "clip.mkv", "other": "clip.mkv", "mode": "blend", "prompt-b": "a dog"},
    {"command": "fill", "clip": "clip.mkv", "frames": "1-2"},
    {"command": "fill", "clip": "clip.mkv", "mask": "mask.png"},
    {"command": "edit", "clip": "clip.mkv", "prompt": "a dog", "strength": 0.25, "count": 2},
    {"command": "upscale", "clip": "clip.mkv", "size": "64x32"},
    {"command": "reconstruct", "clip": "clip.mkv", "no-metadata": True},
    {"command": "img2vid", "image": "mask.png", "last": "mask.png", "frames": 4},
]


@pytest.mark.parametrize("line", REQUESTS, ids=[line["command"] for line in REQUESTS])
def test_a_request_of_metadata_or_json_is_a_line_as_it_is(sora: Sora, engine: Any, line: dict[str, Any]) -> None:
    from PIL import Image

    assert sora("batch", jobs({**CAT, "output": "clip.mkv"})).code == 0
    Image.new("L", (32, 16), 255).save("mask.png")
    asked = sora("batch", jobs({**line, "output": "out.mkv"}), "--dry-run", "--json").json["jobs"][0]["request"]
    again = sora("batch", jobs({**asked, "output": "out.mkv"}), "--dry-run", "--json").json["jobs"][0]["request"]
    assert again == asked


def test_the_final_of_a_draft_is_made_of_its_file(sora: Sora, engine: Any) -> None:
    asked = sora("batch", jobs(CAT), "--dry-run", "--json").json["jobs"][0]["request"]
    assert '"from": FILE' in sora("batch", jobs({**asked, "composed": [32, 16]})).err
