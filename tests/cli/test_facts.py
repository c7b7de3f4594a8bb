"""`sora info`, `sora models` and `sora doctor` answer in lines and under `data`."""

import platform
from collections.abc import Callable
from typing import Any

import pytest

from sora_cli import __version__, machine

Sora = Callable[..., Any]


def test_info_tells_what_a_file_holds_and_how_it_was_made(sora: Sora, engine: Any) -> None:
    sora("generate", "a cat", "--size", "32x16", "--frames", 3, "--seed", 4, "-o", "cat.mp4")
    data = sora("info", "cat.mp4", "--json").json["data"]
    assert (data["width"], data["height"], data["frames"], data["fps"]) == (32, 16, 3, 24)
    assert data["metadata"]["request"]["seed"] == 4
    lines = sora("info", "cat.mp4").out.splitlines()
    assert "32x16 pixels, 3 frames" in lines
    assert "prompt: a cat" in lines


def test_info_puts_hostile_text_on_one_line(sora: Sora, engine: Any) -> None:
    sora("generate", "a cat\x1b[2J\nerror: gone", "--size", "32x16", "--frames", 1, "-o", "cat.mp4")
    assert "prompt: a cat [2J error: gone" in sora("info", "cat.mp4").out.splitlines()


def test_models_are_listed_and_shown(sora: Sora, model: Any) -> None:
    assert sora("models", "list").out.startswith("diorama  diorama")
    assert [found["name"] for found in sora("models", "list", "--json").json["data"]] == ["diorama"]
    shown = sora("models", "show", "diorama", "--json").json
    assert shown["command"] == "models"
    assert (shown["data"]["digest"], shown["data"]["defaults"]["size"]) == ("11" * 32, "320x180")
    assert "licence: Apache-2.0" in sora("models", "show", "diorama").out.splitlines()


def test_doctor_tells_what_this_machine_can_run(sora: Sora, model: Any) -> None:
    data = sora("doctor", "--json").json["data"]
    assert (data["sora"], data["python"]) == (__version__, platform.python_version())
    assert data["devices"][0]["name"] == "cpu"
    assert data["devices"][0]["dtypes"]["float32"] == {"works": True, "fast": True}
    assert data["encoders"][".mp4 .mov"] is True
    assert data["models"] == ["diorama"]
    assert data["cpu_count"] >= 1
    assert data["disk_free_bytes"] > 0
    assert set(data["folders"]) == {"weights", "jobs", "cache"}
    assert "device cpu" in sora("doctor").out


@pytest.mark.parametrize(
    ("flags", "fast"), [(set(), False), ({"avx512_bf16"}, True), ({"sse2", "amx_bf16"}, True)], ids=str
)
def test_a_dtype_is_fast_where_the_processor_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], fast: bool
) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(flags))
    dtypes = machine.devices()[0]["dtypes"]
    assert dtypes["bfloat16"]["fast"] is (fast and dtypes["bfloat16"]["works"])
    assert dtypes["float32"]["fast"]


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "unknown"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5120 GiB")],
)
def test_sizes_are_told_in_powers_of_1024(size: int | None, text: str) -> None:
    assert machine.size_text(size) == text


def test_the_version_is_told(sora: Sora) -> None:
    assert sora("--version").out == f"sora {__version__}\n"


def test_intel_cores_count_no_bfloat16_outside_of_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = "vendor_id\t: {}\nflags\t\t: fpu avx512_bf16 {}\n"
    for vendor, more, kept in (
        ("GenuineIntel", "", False),
        ("AuthenticAMD", "", True),
        ("GenuineIntel", "amx_bf16", False),
    ):
        text = facts.format(vendor, more)
        monkeypatch.setattr(machine, "_text", lambda _, text=text: text)
        assert ("avx512_bf16" in machine.cpu_flags()) is kept
        assert bool(machine.FAST_FLAGS["bfloat16"] & machine.cpu_flags()) is (kept or bool(more))
