"""A name, a folder or a hub id becomes a model, or an error that says what is here."""

import hashlib
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from sora_weights import registry, store
from sora_weights.errors import WeightsError
from sora_weights.registry import broken_models, check_sums, find_model, list_models, verify

CONTENTS = {
    "dit.safetensors": b"dit",
    "vae.safetensors": b"vae",
    "text.safetensors": b"text",
    "tokenizer.json": b"{}",
    "figures.zip": b"zip",
}


def described(name: str = "diorama", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "licence": "Apache-2.0",
        "about": "A small world.",
        "vocabulary": ["cat", "sunset"],
        "defaults": {
            "width": 320, "height": 180, "fps": "24", "seconds": 2.0,
            "steps": 20, "guidance": 3.0, "min_side": 16,
        },
        "files": {file: hashlib.sha256(content).hexdigest() for file, content in CONTENTS.items()},
        "dit": {"depth": 5, "heads": 4},
        "vae": {},
        "text": {"vocabulary": 900},
        **changes,
    }  # fmt: skip


def written(folder: Path, description: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in CONTENTS.items():
        (folder / file).write_bytes(content)
    (folder / "diorama.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of our own, with a built-in model."""
    monkeypatch.setenv("SORA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(store, "BUILTIN", written(tmp_path / "builtin", described()))
    return tmp_path / "home" / "weights"


@pytest.mark.parametrize("name", ["diorama", "default"])
def test_built_in_model_is_found_with_its_facts(name: str) -> None:
    model = find_model(name)
    assert (model.name, model.family, model.licence) == ("diorama", "diorama", "Apache-2.0")
    assert model.vocabulary == {"cat", "sunset"}
    assert (model.defaults.width, model.defaults.height, model.defaults.fps) == (320, 180, Fraction(24))
    assert (model.specs.dit.depth, model.specs.dit.heads, model.specs.text.vocabulary) == (5, 4, 900)
    assert {file.name for file in model.files} == CONTENTS.keys()
    assert model.parts["dit"].read_bytes() == b"dit"
    assert model.figures == ()


def test_a_model_may_name_the_figures_that_it_remembers(tmp_path: Path) -> None:
    folder = written(tmp_path / "remembering", described(dit={"figures": 2}, figures=["dog", "cat"]))
    assert find_model(str(folder)).figures == ("dog", "cat")


def test_a_model_may_name_the_scenes_that_it_knows(tmp_path: Path) -> None:
    folder = written(tmp_path / "travelled", described(scenes=[["at night", "in the dark"], ["in space"]]))
    assert find_model(str(folder)).scenes == (("at night", "in the dark"), ("in space",))


def test_installed_models_are_listed_after_the_built_in_one(home: Path) -> None:
    written(home / "one", described("zoo"))
    written(home / "two", described("aquarium"))
    assert [model.name for model in list_models()] == ["diorama", "zoo", "aquarium"]
    assert find_model("aquarium").folder == home / "two"


def test_folder_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path / "mine", described("own"))
    monkeypatch.chdir(tmp_path)
    assert {find_model(name).name for name in ("mine", "./mine", str(folder), f"{folder}/")} == {"own"}


def test_installed_name_wins_over_a_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "here" / "diorama", described("impostor"))
    monkeypatch.chdir(tmp_path / "here")
    assert find_model("diorama").name == "diorama"
    assert find_model("./diorama").name == "impostor"


@pytest.mark.parametrize(
    ("name", "problem", "remedy"),
    [
        ("catfish", "model catfish: it is not known", "diorama"),
        ("", "it is not known", "diorama"),
        ("a/b", "model a/b: it is not on this machine", "sora models pull a/b downloads it"),
        ("./absent", "there is no such folder", "diorama"),
        ("/absent/too", "there is no such folder", "diorama"),
        ("~nobody-here/x", "there is no such folder", "diorama"),
        ("nul\0", "it is not known", "diorama"),
        ("x" * 5000, "it is not known", "diorama"),
    ],
)
def test_unknown_model_is_refused_with_what_is_known(name: str, problem: str, remedy: str) -> None:
    with pytest.raises(WeightsError) as refused:
        find_model(name)
    assert refused.value.code == "unknown_model"
    assert problem in refused.value.message
    assert remedy in refused.value.hint
    assert len(str(refused.value)) < 500


def test_folder_of_an_unknown_family_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="it holds no model of a known family: known: diorama") as refused:
        find_model(str(tmp_path))
    assert (refused.value.code, str(tmp_path) in refused.value.message) == ("unknown_model", True)


BROKEN = {
    "a list": ([], "it is not a model's JSON"),
    "no name": ({key: value for key, value in described().items() if key != "name"}, "name is missing"),
    "a name like a path": (described("../x"), "name can't be '../x'"),
    "a file elsewhere": (described(files={"../dit.safetensors": "0" * 64}), "files can't be"),
    "a file that is not there": (
        described(files={"absent.safetensors": "0" * 64}),
        "absent.safetensors: it is missing",
    ),
    "a checksum that is none": (
        described(files={"dit.safetensors": "f00d"}),
        "files.dit.safetensors can't be 'f00d'",
    ),
    "an unknown field": (described(dit={"hads": 4}), "dit.hads is unknown"),
    "heads that share nothing evenly": (described(dit={"heads": 7}), "heads 7"),
    "endless depth": (described(dit={"depth": 1_000_000}), "dit.depth is 1000000"),
    "a file that is not listed": (described(files={}), "files lacks dit.safetensors"),
    "no heads": (described(dit={"heads": 0}), "dit.heads can't be '0'"),
    "a true width": (described(vae={"width": True}), "vae.width can't be 'True'"),
    "no vocabulary size": (described(text={}), "text is incomplete"),
    "networks as a list": (described(dit=[]), "dit can't be"),
    "endless rate": (
        described(defaults={**described()["defaults"], "fps": "1e999999999"}),
        "defaults.fps can't be",
    ),
    "rate over nothing": (
        described(defaults={**described()["defaults"], "fps": "1/0"}),
        "defaults.fps can't be",
    ),
    "negative seconds": (
        described(defaults={**described()["defaults"], "seconds": -1}),
        "defaults.seconds can't be",
    ),
    "words as text": (described(vocabulary="cat"), "vocabulary can't be 'cat'"),
    "figures as text": (described(figures="cat"), "figures can't be 'cat'"),
    "a scene without a phrase": (described(scenes=[["at night"], []]), "scenes can't be"),
    "scenes as words": (described(scenes=["at night"]), "scenes can't be"),
    "a name too few": (described(dit={"figures": 2}, figures=["cat"]), "figures names 1"),
}


@pytest.mark.parametrize(("description", "problem"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_description_is_refused_by_field(tmp_path: Path, description: object, problem: str) -> None:
    with pytest.raises(WeightsError) as refused:
        find_model(str(written(tmp_path / "broken", description)))
    assert refused.value.code == "bad_weights"
    assert problem in refused.value.message


def test_broken_installed_model_hides_no_other_and_is_told(home: Path) -> None:
    written(home / "broken", [])
    written(home / "whole", described("whole"))
    assert [model.name for model in list_models()] == ["diorama", "whole"]
    assert [error.code for error in broken_models()] == ["bad_weights"]


def test_digest_is_over_the_sorted_checksums_and_changes_with_a_file() -> None:
    model = find_model("diorama")
    sums = sorted(hashlib.sha256(content).hexdigest() for content in CONTENTS.values())
    assert model.digest() == hashlib.sha256("".join(sums).encode()).hexdigest()
    before = model.digest()
    model.parts["vae"].write_bytes(b"other")
    assert model.digest() != before


def test_a_file_that_is_not_what_was_recorded_is_named() -> None:
    model = find_model("diorama")
    check_sums(model)
    model.parts["vae"].write_bytes(b"yyy")
    with pytest.raises(WeightsError, match=r"vae\.safetensors: its checksum"):
        check_sums(model)


def test_verify_names_changed_and_missing_files() -> None:
    model = find_model("diorama")
    assert all(check.ok for check in verify(model))
    model.parts["vae"].write_bytes(b"xxx")
    model.parts["dit"].unlink()
    assert {check.file.name: check.ok for check in verify(model)} == {
        "dit.safetensors": False, "figures.zip": True, "text.safetensors": True, "tokenizer.json": True,
        "vae.safetensors": False,
    }  # fmt: skip
    assert {check.found for check in verify(model) if check.file.name == "dit.safetensors"} == {None}


def test_installed_models_lie_in_the_user_folder_without_sora_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SORA_HOME")
    assert store.weights_folder().name == "weights"
    assert "sora" in store.weights_folder().parts


def test_registry_is_imported_without_torch() -> None:
    paths = [str(Path(registry.__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {paths}; import sora_weights.registry; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"False"


def test_unknown_error_code_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="'other' is not an error code"):
        WeightsError("other", "x")
