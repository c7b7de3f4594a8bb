"""Option, then variable, then ./sora.toml, then the user's sora.toml, then the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sora_cli import settings
from sora_cli.errors import SoraError

Sora = Callable[..., Any]


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config" / "sora.toml"
    path.parent.mkdir()
    monkeypatch.setattr(settings, "files", lambda: (Path("sora.toml"), path))
    return path


def steps(sora: Sora, *options: str) -> int:
    return sora("generate", "a cat", "--dry-run", "--json", *options).json["request"]["steps"]


def test_the_stronger_source_wins(sora: Sora, engine: Any, user_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps(sora) == 20
    user_file.write_text("steps = 1")
    assert steps(sora) == 1
    Path("sora.toml").write_text("steps = 2")
    assert steps(sora) == 2
    monkeypatch.setenv("SORA_STEPS", "3")
    assert steps(sora) == 3
    assert steps(sora, "--steps", "4") == 4


EVERY_SETTING = {
    "size": ('"1:1"', {"width": 240, "height": 240}),
    "seconds": ("0.5", {"frames": 12}),
    "frames": ("7", {"frames": 7}),
    "fps": ('"30000/1001"', {"fps": "30000/1001", "frames": 60}),
    "steps": ("9", {"steps": 9}),
    "guidance": ("1.5", {"guidance": 1.5}),
    "negative": ('"rain"', {"negative": "rain"}),
    "seed": ("42", {"seed": 42}),
    "count": ("3", {"count": 3}),
    "device": ('"cpu"', {"device": "cpu"}),
    "dtype": ('"float32"', {"dtype": "float32"}),
    "memory": ('"4G"', {"memory": 4 << 30}),
    "model": ('"diorama"', {"model": "diorama"}),
}


@pytest.mark.parametrize("name", EVERY_SETTING)
def test_every_setting_is_a_file_entry_and_a_variable(
    sora: Sora, engine: Any, user_file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text, expected = EVERY_SETTING[name]
    user_file.write_text(f"{name} = {text}")
    from_file = sora("generate", "a cat", "--dry-run", "--json").json["request"]
    user_file.unlink()
    monkeypatch.setenv(f"SORA_{name.upper()}", text.strip('"'))
    from_variable = sora("generate", "a cat", "--dry-run", "--json").json["request"]
    for request in (from_file, from_variable):
        assert {key: request[key] for key in expected} == expected


def test_quiet_can_be_a_habit(sora: Sora, engine: Any, user_file: Path) -> None:
    user_file.write_text("quiet = true")
    assert sora("generate", "a cat", "--size", "32x16", "--frames", 1).err == ""


def test_the_table_covers_every_key() -> None:
    assert {*EVERY_SETTING, "quiet"} == set(settings.KEYS)


@pytest.mark.parametrize(
    ("local", "user", "options", "frames"),
    [
        ("frames = 5", "seconds = 1", (), 5),
        ("seconds = 1", "frames = 5", (), 24),
        ("frames = 5", "", ("--seconds", "1"), 24),
        ("seconds = 1", "", ("--frames", "5"), 5),
        ("seconds = 1", "", ("-o", "cat.png"), 1),
    ],
)
def test_of_seconds_and_frames_the_stronger_source_counts(
    sora: Sora, engine: Any, user_file: Path, local: str, user: str, options: tuple[str, ...], frames: int
) -> None:
    Path("sora.toml").write_text(local)
    user_file.write_text(user)
    assert sora("generate", "a cat", "--dry-run", "--json", *options).json["request"]["frames"] == frames


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"stepz = 3", "stepz"),
        (b"steps = ", "not TOML"),
        (b"\xff", "not TOML"),
        (b"steps = true", "int, not bool"),
        (b"steps = '3'", "int, not str"),
        (b"[generate]\nsteps = 3", "generate"),
        (b"seconds = 1\nframes = 3", "exclude each other"),
    ],
)
def test_bad_settings_are_refused_by_name(sora: Sora, engine: Any, user_file: Path, text: bytes, words: str) -> None:
    Path("sora.toml").write_bytes(text)
    run = sora("generate", "a cat", "-q")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert words in run.err


def test_a_help_page_is_there_in_spite_of_bad_settings(sora: Sora, user_file: Path) -> None:
    Path("sora.toml").write_text("nonsense")
    assert sora("generate", "--help").code == 0


def test_a_settings_file_that_is_a_folder_is_refused(user_file: Path, folder: Path) -> None:
    Path("sora.toml").mkdir()
    with pytest.raises(SoraError, match="can't be read"):
        settings.load()


def test_sora_home_moves_weights_jobs_and_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SORA_HOME", str(tmp_path))
    assert set(settings.folders().values()) == {tmp_path / name for name in ("weights", "jobs", "cache")}
    monkeypatch.delenv("SORA_HOME")
    assert not any(path.is_relative_to(tmp_path) for path in settings.folders().values())
