"""`sora models default`: one line of the user's settings, and no other."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sora_cli import settings
from sora_cli.errors import SoraError

Sora = Callable[..., Any]


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config" / "sora" / "sora.toml"
    monkeypatch.setattr(settings, "files", lambda: (Path("sora.toml"), path))
    return path


def test_the_default_is_told_with_what_says_so(sora: Sora, user_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sora("models", "default").out == "diorama\n"
    assert sora("models", "default", "--json").json["data"] == {"name": "diorama", "from": None}
    Path("sora.toml").write_text('model = "./mine"')
    assert sora("models", "default", "--json").json["data"] == {"name": "./mine", "from": "sora.toml"}
    monkeypatch.setenv("SORA_MODEL", "other")
    assert sora("models", "default", "--json").json["data"] == {"name": "other", "from": "SORA_MODEL"}


def test_a_default_that_is_chosen_lasts(sora: Sora, user_file: Path) -> None:
    assert sora("models", "default", "default").out == "diorama\n"
    assert user_file.read_text() == 'model = "diorama"\n'
    assert sora("generate", "a cat", "--dry-run", "--json").json["request"]["model"] == "diorama"
    Path("sora.toml").write_text('model = "./mine"')
    assert "note: sora.toml says ./mine, which counts here" in sora("models", "default", "diorama").err


def test_an_unknown_model_is_no_default(sora: Sora, user_file: Path) -> None:
    run = sora("models", "default", "nobody", "--json")
    assert (run.code, run.json["error"]["code"]) == (2, "unknown_model")
    assert not user_file.exists()


def test_a_folder_is_a_default_from_everywhere(sora: Sora, user_file: Path, folder: Path) -> None:
    import shutil

    from sora_weights.store import BUILTIN

    shutil.copytree(BUILTIN, folder / "mine")
    assert sora("models", "default", "./mine").out == f"{folder / 'mine'}\n"


FILES = [
    ("", 'model = "new"\n'),
    ("steps = 3", 'steps = 3\nmodel = "new"\n'),
    ('# mine\nmodel = "old"  # a note\nsteps = 3\n', '# mine\nmodel = "new"  # a note\nsteps = 3\n'),
    ("steps = 3\r\nmodel='old'\r\nseed = 1\r\n", 'steps = 3\r\nmodel="new"\r\nseed = 1\r\n'),
    ('"model" = "o\\"ld"\n', '"model" = "new"\n'),
    ('# model = "old"\n', '# model = "old"\nmodel = "new"\n'),
    ('negative = """\nmodel = "x"\n"""\nmodel = "old"', 'negative = """\nmodel = "x"\n"""\nmodel = "new"'),
    ('negative = """\nmodel = "x"\n"""\n', 'negative = """\nmodel = "x"\n"""\nmodel = "new"\n'),
]


@pytest.mark.parametrize(("before", "after"), FILES, ids=[row[0][:20] for row in FILES])
def test_one_line_is_changed_and_the_rest_stays(user_file: Path, before: str, after: str) -> None:
    user_file.parent.mkdir(parents=True)
    user_file.write_bytes(before.encode())
    user_file.chmod(0o600)
    assert settings.keep("model", "new") == user_file
    assert user_file.read_bytes().decode() == after
    assert user_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in user_file.parent.iterdir()] == ["sora.toml"]


@pytest.mark.parametrize("value", ['a "quoted" \\ name', "ä/🐈", "it's"])
def test_any_name_can_be_kept(user_file: Path, value: str) -> None:
    for _ in range(2):
        settings.keep("model", value)
        assert tomllib.loads(user_file.read_text()) == {"model": value}


@pytest.mark.parametrize("text", ['model = """old"""', "stepz = 3", "steps = ", "\x00"])
def test_a_file_that_cannot_be_changed_safely_stays_as_it_is(user_file: Path, text: str) -> None:
    user_file.parent.mkdir(parents=True)
    user_file.write_text(text)
    with pytest.raises(SoraError, match=r"sora\.toml") as refused:
        settings.keep("model", "new")
    assert refused.value.code == "bad_settings"
    assert user_file.read_text() == text


def test_a_link_to_the_settings_stays_a_link(user_file: Path, tmp_path: Path) -> None:
    user_file.parent.mkdir(parents=True)
    (tmp_path / "dotfile").write_text("steps = 3\n")
    user_file.symlink_to(tmp_path / "dotfile")
    settings.keep("model", "new")
    assert user_file.is_symlink()
    assert (tmp_path / "dotfile").read_text() == 'steps = 3\nmodel = "new"\n'
