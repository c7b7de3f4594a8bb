"""Names of outputs are readable, fresh, numbered, and never in the way of a file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sora_cli.errors import SoraError
from sora_cli.naming import is_still, made_folder, output_paths, slug


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a cat at sunset", "a-cat-at-sunset"),
        ("  A Cat,\nat 50%!", "a-cat-at-50"),
        ("the cat's hat", "the-cats-hat"),
        ("../../etc/passwd", "etc-passwd"),
        ("猫 と 夕日", "猫-と-夕日"),
        ("!!!", "video"),
        ("x" * 300, "x" * 48),
    ],
)
def test_a_slug_is_the_words_of_the_prompt(prompt: str, name: str) -> None:
    assert slug(prompt) == name


@given(st.text())
def test_a_slug_is_always_a_short_plain_file_name(prompt: str) -> None:
    name = slug(prompt)
    assert name
    assert len(name.encode()) <= 200
    assert not set(name) & set('/\\:*?"<>|%. \0\n')


def test_fresh_names_step_over_what_exists(folder: Path) -> None:
    assert output_paths(None, "a cat", 1) == (Path("a-cat.mp4"),)
    Path("a-cat.mp4").touch()
    assert output_paths(None, "a cat", 1) == (Path("a-cat-2.mp4"),)
    Path("a-cat-2.mp4").symlink_to("nowhere")
    assert output_paths(None, "a cat", 1) == (Path("a-cat-3.mp4"),)


def test_fresh_numbered_names_are_all_fresh(folder: Path) -> None:
    Path("a-cat-1.mp4").touch()
    assert output_paths(None, "a cat", 2) == (Path("a-cat-2-0.mp4"), Path("a-cat-2-1.mp4"))


def test_several_results_are_numbered_before_the_ending() -> None:
    assert output_paths("out/cat.webm", "", 2) == (Path("out/cat-0.webm"), Path("out/cat-1.webm"))
    assert output_paths("f/%04d.png", "", 2) == (Path("f/%04d-0.png"), Path("f/%04d-1.png"))


def test_a_path_that_ends_in_a_slash_is_a_folder(folder: Path) -> None:
    assert output_paths("new/", "a cat", 1) == (Path("new/a-cat.mp4"),)


@pytest.mark.parametrize(
    ("output", "still"),
    [
        ("a.png", True),
        ("a.JPG", True),
        ("%04d.png", False),
        ("a.webp", False),
        ("a.mp4", False),
        (None, False),
    ],
)
def test_png_and_jpg_imply_one_frame(output: str | None, still: bool) -> None:
    assert is_still(output) is still


def test_a_folder_that_was_made_goes_away_when_the_work_fails(folder: Path) -> None:
    Path("kept").mkdir()
    for output in ("a/b/", "kept/new/"):
        with pytest.raises(RuntimeError), made_folder(output):
            assert Path(output).is_dir()
            raise RuntimeError
    assert sorted(path.name for path in folder.rglob("*")) == ["kept"]


def test_a_folder_that_held_something_stays(folder: Path) -> None:
    with pytest.raises(RuntimeError), made_folder("a/"):
        Path("a/cat.mp4").touch()
        raise RuntimeError
    assert Path("a/cat.mp4").exists()


def test_a_folder_where_a_file_stands_is_refused(folder: Path) -> None:
    Path("taken").touch()
    with pytest.raises(SoraError, match="taken/"), made_folder("taken/"):
        pass
