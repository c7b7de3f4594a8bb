"""Every refusal: exit status 2, one line with value and remedy, nothing left, and the same as JSON."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CAT = ("generate", "a cat")

REFUSALS: list[tuple[tuple[str, ...], str, str]] = [
    ((), "bad_usage", "sora --help"),
    (("paint",), "bad_usage", "paint"),
    (("--no-such-option",), "bad_usage", "--no-such-option"),
    (("models",), "bad_usage", "sora models list"),
    (("models", "paint"), "bad_usage", "paint"),
    (("models", "show"), "bad_usage", "NAME"),
    (("models", "show", "nobody"), "unknown_model", "nobody"),
    (("info",), "bad_usage", "FILE"),
    (("info", "nothing.mp4"), "missing_input", "nothing.mp4"),
    (("info", "kept"), "bad_input", "kept"),
    (("info", "kept/text.mp4"), "bad_input", "text.mp4"),
    (("generate",), "bad_usage", "no prompt"),
    (("generate", ""), "bad_usage", "it is empty"),
    (("generate", " \t"), "bad_usage", "it is empty"),
    (("generate", "x" * 10_001), "bad_usage", "10001 characters"),
    (("generate", "\udce9"), "bad_usage", "not valid UTF-8"),
    (("generate", "a cat", "more"), "bad_usage", "more"),
    ((*CAT, "--no-such-option"), "bad_usage", "sora generate --help"),
    ((*CAT, "--size"), "bad_usage", "--size"),
    ((*CAT, "--size", ""), "bad_usage", "it is not a size"),
    ((*CAT, "--size", "0x10"), "bad_usage", "width and height are 16 or more; try 640x360"),
    ((*CAT, "--size", "15x320"), "bad_usage", "--size 15x320"),
    ((*CAT, "--size", "8193x16"), "bad_usage", "8192 or less"),
    ((*CAT, "--size", "999999x999999"), "bad_usage", "8192 or less"),
    ((*CAT, "--size", "big"), "bad_usage", "try 640x360, 720p or 16:9"),
    ((*CAT, "--size", "-64x64"), "bad_usage", "--size -64x64"),
    ((*CAT, "--size", "0:1"), "bad_usage", "--size 0:1"),
    ((*CAT, "--size", "9999:1"), "bad_usage", "--size 9999:1"),
    ((*CAT, "--size", "10p"), "bad_usage", "--size 10p"),
    ((*CAT, "--seconds", "0"), "bad_usage", "more than 0"),
    ((*CAT, "--seconds", "-1"), "bad_usage", "negative"),
    ((*CAT, "--seconds", "nan"), "bad_usage", "--seconds nan"),
    ((*CAT, "--seconds", "inf"), "bad_usage", "--seconds inf"),
    ((*CAT, "--seconds", "1e999999999"), "bad_usage", "--seconds 1e999999999"),
    ((*CAT, "--seconds", "99999"), "bad_usage", "100000 or fewer"),
    ((*CAT, "--seconds", "9" * 400), "bad_usage", "--seconds"),
    ((*CAT, "--seconds", "2", "--frames", "48"), "bad_usage", "exclude each other"),
    ((*CAT, "--frames", "0"), "bad_usage", "--frames 0"),
    ((*CAT, "--frames", "2.5"), "bad_usage", "whole number"),
    ((*CAT, "--frames", "100001"), "bad_usage", "1 to 100000"),
    ((*CAT, "--fps", "0"), "bad_usage", "--fps 0"),
    ((*CAT, "--fps", "1/0"), "bad_usage", "--fps 1/0"),
    ((*CAT, "--fps", "nan"), "bad_usage", "--fps nan"),
    ((*CAT, "--fps", "100000"), "bad_usage", "1 to 240"),
    ((*CAT, "--steps", "0"), "bad_usage", "--steps 0"),
    ((*CAT, "--steps", "1001"), "bad_usage", "1 to 1000"),
    ((*CAT, "--steps", "many"), "bad_usage", "whole number"),
    ((*CAT, "--guidance", "nan"), "bad_usage", "--guidance nan"),
    ((*CAT, "--guidance", "-1"), "bad_usage", "negative"),
    ((*CAT, "--guidance", "101"), "bad_usage", "0 to 100"),
    ((*CAT, "--seed", "-1"), "bad_usage", "--seed -1"),
    ((*CAT, "--seed", str(2**63)), "bad_usage", "--seed"),
    ((*CAT, "--seed", "1.0"), "bad_usage", "whole number"),
    ((*CAT, "--seed", str(2**63 - 1), "--count", "2"), "bad_usage", "the last seed"),
    ((*CAT, "--count", "0"), "bad_usage", "--count 0"),
    ((*CAT, "--device", "tpu"), "bad_usage", "auto, cpu, cuda, mps"),
    ((*CAT, "--dtype", "int8"), "bad_usage", "bfloat16"),
    ((*CAT, "--memory", "lots"), "bad_usage", "try 4G"),
    ((*CAT, "--memory", "0"), "bad_usage", "--memory 0"),
    ((*CAT, "--memory", "-4G"), "bad_usage", "--memory -4G"),
    ((*CAT, "--model", "nobody"), "unknown_model", "nobody"),
    ((*CAT, "--model", ""), "unknown_model", "model"),
    ((*CAT, "-o", ""), "bad_usage", "--output"),
    ((*CAT, "-o", "cat"), "unsupported_format", "cat"),
    ((*CAT, "-o", "cat.avi"), "unsupported_format", ".mp4"),
    ((*CAT, "-o", "nowhere/cat.mp4"), "missing_folder", "nowhere"),
    ((*CAT, "-o", "kept/text.mp4"), "output_exists", "--force"),
    ((*CAT, "-o", "kept/text.mp4/"), "bad_usage", "text.mp4"),
    ((*CAT, "-o", "cat.png", "--frames", "2"), "bad_usage", "frames/%04d.png"),
    ((*CAT, "-o", "cat.jpg", "--seconds", "2"), "bad_usage", "an image has one frame"),
    ((*CAT, "-o", "%04d-%04d.png"), "bad_usage", "%04d"),
    ((*CAT, "-o", "cat.gif", "--fps", "120"), "unsupported_format", "120"),
    ((*CAT, "-o", "x" * 300 + "/%04d.png"), "bad_usage", "not a possible file name"),
    ((*CAT, "--count", "2", "-o", "nowhere/cat.mp4"), "missing_folder", "nowhere"),
    ((*CAT, "--preview-file", "p.jpg"), "unsupported_format", "preview.png"),
    ((*CAT, "--preview-file", "nowhere/p.png"), "missing_folder", "nowhere/p.png"),
    ((*CAT, "--preview-file", "kept/p.png"), "output_exists", "--force"),
    ((*CAT, "-o", "p.png", "--preview-file", "p.png"), "bad_usage", "another name"),
    (("generate", "--from", "nothing.mp4"), "missing_input", "nothing.mp4"),
    (("generate", "--from", "kept"), "bad_input", "kept"),
    (("generate", "--from", "kept/text.mp4"), "bad_input", "text.mp4"),
    (("generate", "--from", "kept/p.png"), "bad_input", "no sora metadata"),
    (("batch",), "bad_usage", "JOBS.jsonl"),
    (("batch", "nothing.jsonl"), "missing_input", "nothing.jsonl"),
    (("batch", "kept"), "bad_input", "kept"),
    (("batch", "kept/p.png"), "bad_input", "UTF-8"),
    (("batch", "kept/text.mp4"), "bad_input", "text.mp4 line 1"),
]


def _names(arguments: tuple[str, ...]) -> str:
    return " ".join(arguments).encode("ascii", "backslashreplace").decode()[:60]


@pytest.fixture
def kept(folder: Path) -> set[Path]:
    """A folder with files that every refusal leaves alone."""
    from PIL import Image

    (folder / "kept").mkdir()
    (folder / "kept/text.mp4").write_text("not a video")
    Image.new("RGB", (4, 4)).save(folder / "kept/p.png")
    return set(folder.rglob("*"))


@pytest.mark.parametrize(("arguments", "code", "words"), REFUSALS, ids=[_names(row[0]) for row in REFUSALS])
def test_refused_in_one_line_with_nothing_left(
    sora: Callable[..., Any],
    engine: Any,
    folder: Path,
    kept: set[Path],
    arguments: tuple[str, ...],
    code: str,
    words: str,
) -> None:
    run = sora(*arguments)
    lines = run.err.splitlines()
    assert (run.code, run.out, len(lines)) == (2, "", 1)
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert ": " in lines[0].removeprefix("error: ")
    _as_json(sora(*arguments, "--json"), arguments, code)
    _as_json(sora(*arguments, "--json-stream"), arguments, code)
    assert set(folder.rglob("*")) == kept
    assert engine.asked == []


def _as_json(run: Any, arguments: tuple[str, ...], code: str) -> None:
    found = run.json
    assert (run.code, found["schema"], found["ok"], found["error"]["code"]) == (2, "sora/1", False, code)
    assert list(found["error"]) == ["code", "message", "hint"]
    assert found["command"] == (
        arguments[0] if arguments and arguments[0] not in ("paint", "--no-such-option") else None
    )


def test_json_and_json_stream_exclude_each_other(sora: Callable[..., Any], engine: Any) -> None:
    run = sora("generate", "a cat", "--json", "--json-stream")
    assert (run.code, run.json["type"], run.json["error"]["code"]) == (2, "error", "bad_usage")


def test_a_prompt_after_dashes_is_no_option(sora: Callable[..., Any], engine: Any) -> None:
    run = sora("generate", "--size", "32x16", "--frames", "1", "--", "--json")
    assert (run.code, run.paths) == (0, ["json.mp4"])
