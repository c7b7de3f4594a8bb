"""`sora models pull`, `verify` and `rm`, with the hub replaced by a folder."""

import errno
import fnmatch
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

DIT = "transformer/diffusion_pytorch_model.safetensors"


@dataclass(slots=True)
class Hub:
    """A hub of one model; `fail` may raise before a file is there."""

    folder: Path
    fail: Callable[[str], None] = lambda name: None
    asked: list[str] = field(default_factory=list)
    got: list[str] = field(default_factory=list)

    def model_info(self, hub_id: str, revision: str | None = None) -> SimpleNamespace:
        self.asked.append(hub_id)
        self.fail("")
        return SimpleNamespace(sha="c0ffee" if revision in (None, "main", "c0ffee") else "decade")

    def snapshot_download(
        self, hub_id: str, *, revision: str, local_dir: Path, allow_patterns: list[str], ignore_patterns: list[str]
    ) -> str:
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            wanted = any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns)
            unwanted = any(fnmatch.fnmatch(name, pattern) for pattern in ignore_patterns)
            target = local_dir / name
            if path.is_file() and wanted and not unwanted and not target.exists():
                self.fail(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
                self.got.append(name)
        (local_dir / ".cache" / "huggingface").mkdir(parents=True, exist_ok=True)
        return str(local_dir)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SORA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "weights"


@pytest.fixture
def hub(published: Callable[[str], Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(shutil.copytree(published("wan").folder, tmp_path / "hub"))
    (found.folder / "vae" / "model.bin").write_bytes(b"a pickle")
    (found.folder / "run.py").write_text("import this")
    shutil.copy(found.folder / DIT, found.folder / "transformer" / "diffusion_pytorch_model.fp16.safetensors")
    monkeypatch.setattr(huggingface_hub, "model_info", found.model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.snapshot_download)
    return found


def test_a_pulled_model_is_used_by_name_and_by_id_checked_and_removed(
    sora: Callable[..., Any], hub: Hub, home: Path, folder: Path
):
    pulled = sora("models", "pull", "tiny/wan", "--json")
    assert (pulled.code, pulled.json["data"]["name"]) == (0, "wan"), pulled.err
    assert {Path(name).suffix for name in hub.got} <= {".json", ".model", ".safetensors", ".txt", ".md"}
    assert not any("fp16" in name for name in hub.got)
    assert [path.name for path in home.iterdir()] == ["wan"]
    assert not (home / "wan" / ".cache").exists()
    small = ("a cat", "--size", "32x32", "--frames", 1, "--steps", 1, "--seed", 1, "-q")
    for name in ("wan", "tiny/wan"):
        assert sora("generate", *small, "-m", name, "-o", f"{name[:4]}.png").code == 0
    assert (folder / "wan.png").exists()
    assert (
        sora("models", "verify", "tiny/wan").out
        == f"wan: {len(pulled.json['data']['files'])} files are what was recorded\n"
    )
    again = sora("models", "pull", "tiny/wan")
    assert (again.code, len(hub.asked)) == (0, 1)
    assert "note: wan is here already" in again.err
    assert sora("models", "rm", "tiny/wan").out == f"{home / 'wan'}\n"
    assert list(home.iterdir()) == []
    assert sora("models", "show", "wan").code == 2


def test_a_file_that_changed_is_named_and_not_used(sora: Callable[..., Any], hub: Hub, home: Path):
    assert sora("models", "pull", "tiny/wan", "-q").code == 0
    (home / "wan" / "vae" / "config.json").write_text((home / "wan" / "vae" / "config.json").read_text() + "\n")
    run = sora("models", "verify", "wan")
    assert (run.code, run.out) == (1, f"{home / 'wan/vae/config.json'}: its checksum is not the recorded one\n")
    assert run.err.startswith("error: 1 of ")
    told = sora("models", "verify", "--json").json
    assert (told["ok"], told["error"]["code"]) == (False, "weights_changed")
    (diorama, wan) = told["data"]
    assert all(each["ok"] for each in diorama["files"])
    assert [each["file"] for each in wan["files"] if not each["ok"]] == [str(home / "wan/vae/config.json")]
    run = sora("generate", "a cat", "--size", "32x32", "--frames", 1, "-m", "wan")
    assert (run.code, "its checksum is not the recorded one" in run.err) == (2, True)


def test_of_a_folder_that_was_not_pulled_nothing_is_recorded(sora: Callable[..., Any], hub: Hub, home: Path):
    run = sora("models", "verify", str(hub.folder), "--json")
    assert (run.code, run.json["error"]["code"]) == (2, "not_available")
    assert "no checksums were recorded of it" in run.err
    shutil.copytree(hub.folder, home / "copied")
    run = sora("models", "verify")
    assert run.code == 0
    assert "copied: no checksums were recorded of it, nothing is compared" in run.out.splitlines()


UNUSABLE = [
    ({"_class_name": "FuturePipeline"}, "unknown_model", "FuturePipeline is of no known family"),
    ({"_class_name": "WanPipeline", "boundary_ratio": 0.9}, "bad_weights", "boundary_ratio 0.9 is not supported"),
]


@pytest.mark.parametrize(("index", "code", "words"), UNUSABLE, ids=[row[2] for row in UNUSABLE])
def test_a_model_that_sora_cannot_run_costs_no_weights(
    sora: Callable[..., Any], hub: Hub, home: Path, index: dict[str, Any], code: str, words: str
):
    (hub.folder / "model_index.json").write_text(json.dumps(index))
    run = sora("models", "pull", "tiny/wan", "--json")
    assert (run.code, run.json["error"]["code"]) == (2, code)
    assert run.json["error"]["message"] == f"model tiny/wan: model_index.json: {words}"
    assert run.json["error"]["hint"].endswith("; what was downloaded is removed")
    assert not any(name.endswith(".safetensors") for name in hub.got)
    assert list(home.iterdir()) == []


def test_a_model_of_pickles_is_removed(sora: Callable[..., Any], hub: Hub, home: Path):
    (hub.folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    run = sora("models", "pull", "tiny/wan")
    assert (run.code, run.err.count("\n")) == (2, 1)
    assert "model tiny/wan: vae: it holds no safetensors file" in run.err
    assert list(home.iterdir()) == []


def test_a_download_that_was_stopped_goes_on_and_is_no_model_before(sora: Callable[..., Any], hub: Hub, home: Path):
    def fail(name: str) -> None:
        if name.startswith("vae/diffusion"):
            raise ConnectionError("the line is down\nhere")

    hub.fail = fail
    run = sora("models", "pull", "tiny/wan", "--json")
    assert (run.code, run.json["error"]["code"], run.err.count("\n")) == (1, "download_failed", 1)
    assert "model tiny/wan: the line is down here: check the network" in run.err
    assert [model["name"] for model in sora("models", "list", "--json").json["data"]] == ["diorama"]
    begun = len(hub.got)
    hub.fail = lambda name: None
    assert sora("models", "pull", "tiny/wan").code == 0
    assert len(hub.got) > begun
    assert len(hub.got) == len(set(hub.got))


def test_what_a_stopped_download_has_left_can_be_removed(sora: Callable[..., Any], hub: Hub, home: Path):
    hub.fail = lambda name: (_ for _ in ()).throw(KeyboardInterrupt) if name.endswith(".safetensors") else None
    assert sora("models", "pull", "tiny/wan").code == 130
    assert len(list(home.iterdir())) == 1
    assert sora("models", "rm", "tiny/wan").code == 0
    assert list(home.iterdir()) == []


def hub_error(kind: type[Exception]) -> Exception:
    """An exception of the hub's library, which otherwise needs a whole answer of a server."""
    error = kind.__new__(kind)
    Exception.__init__(error, "no")
    return error


FAILURES = [
    (hub_error(errors.RepositoryNotFoundError), 2, "unknown_model", "the hub has none of that id"),
    (hub_error(errors.GatedRepoError), 2, "unknown_model", "its authors have terms"),
    (hub_error(errors.RevisionNotFoundError), 2, "unknown_model", "it has no revision v7"),
    (hub_error(errors.HfHubHTTPError), 1, "download_failed", "check the network"),
    (errors.OfflineModeIsEnabled("offline mode is enabled"), 1, "download_failed", "offline mode is enabled"),
    (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "disk_full", "free some space"),
]


@pytest.mark.parametrize(("error", "status", "code", "words"), FAILURES, ids=[row[3] for row in FAILURES])
def test_why_nothing_comes_is_told_in_one_line(
    sora: Callable[..., Any], hub: Hub, home: Path, error: Exception, status: int, code: str, words: str
):
    def fail(name: str) -> None:
        raise error

    hub.fail = fail
    run = sora("models", "pull", "tiny/wan", "--revision", "v7", "--json")
    assert (run.code, run.json["error"]["code"], run.err.count("\n")) == (status, code, 1)
    assert words in run.err
    assert not home.exists()


@pytest.mark.parametrize("name", ["wan", "a/..", "../wan", "a/b/c", "/wan", "a/.b", "a/", "", "ä/wan"])
def test_what_is_no_hub_id_is_refused_without_asking(sora: Callable[..., Any], hub: Hub, home: Path, name: str):
    run = sora("models", "pull", name, "--json")
    assert (run.code, run.json["error"]["code"]) == (2, "bad_usage")
    assert "it is no HUB-ID" in run.err
    assert hub.asked == []


def test_no_model_takes_the_place_of_another(sora: Callable[..., Any], hub: Hub, home: Path):
    run = sora("models", "pull", "tiny/diorama")
    assert (run.code, "model diorama: another one of that name is here" in run.err) == (2, True)
    assert sora("models", "pull", "tiny/wan").code == 0
    run = sora("models", "pull", "other/wan")
    assert (run.code, "sora models rm wan removes it" in run.err) == (2, True)
    run = sora("models", "pull", "tiny/wan", "--revision", "v7")
    assert (run.code, "it is here as of commit c0ffee" in run.err) == (2, True)
    assert sora("models", "pull", "tiny/wan", "--revision", "main").code == 0


def test_rm_keeps_what_is_not_its_own(sora: Callable[..., Any], hub: Hub, home: Path):
    home.mkdir(parents=True)
    (home / "linked").symlink_to(hub.folder)
    for name, words in (
        ("diorama", "it comes with sora"),
        ("default", "it comes with sora"),
        (str(hub.folder), "remove the folder yourself"),
        ("..", "it holds no model of a known family"),
        ("nobody", "it is not known"),
        ("tiny/nobody", "it is not on this machine"),
    ):
        run = sora("models", "rm", name)
        assert (run.code, run.out) == (2, ""), name
        assert words in run.err
    assert sora("models", "rm", "linked").code == 0
    assert (hub.folder / DIT).exists()
    assert list(home.iterdir()) == []


def test_a_broken_model_says_why_and_can_be_removed(sora: Callable[..., Any], hub: Hub, home: Path):
    assert sora("models", "pull", "tiny/wan").code == 0
    (home / "wan" / DIT).unlink()
    run = sora("models", "verify", "wan")
    assert (run.code, "it holds no safetensors file" in run.err) == (2, True)
    assert sora("models", "default").paths == ["diorama"]
    Path("sora.toml").write_text('model = "wan"')
    run = sora("models", "rm", "wan")
    assert run.code == 0
    assert "note: sora.toml still names it" in run.err
