"""Names of outputs: fresh readable ones, numbered ones for `--count`, and folders that are made."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count as numbers
from pathlib import Path

from sora_cli.errors import SoraError
from sora_cli.media.formats import is_folder_text, is_pattern

MAX_STEM = 48
MAX_STEM_BYTES = 120
STILLS = {".png", ".jpg", ".jpeg"}


def missing(paths: Sequence[Path]) -> bool:
    """Whether nothing has any of these names."""
    return not any(os.path.lexists(path) for path in paths)


def place_of(path: Path) -> str:
    """The one text for a path, however it is written: its folder resolved, its own name as it is."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def makes(output: Path, path: Path) -> bool:
    """Whether writing `output` writes `path`: the same file, or one of a numbered sequence."""
    if place_of(output) == place_of(path):
        return True
    if not is_pattern(output) or os.path.realpath(output.parent) != os.path.realpath(path.parent):
        return False
    return any(output.name % int(digits) == path.name for digits in re.findall(r"\d{1,9}", path.name))


def output_paths(
    output: str | None, prompt: str, count: int, free: Callable[[Sequence[Path]], bool] = missing
) -> tuple[Path, ...]:
    """Where `count` results go: as asked, or here or in the folder `output/` under the first names that are `free`."""
    if output is not None and not output.strip():
        raise SoraError("bad_usage", f"--output {output!r}", "it is empty; name a file such as cat.mp4")
    if output is None or is_folder_text(output):
        return _fresh(Path(output or "."), slug(prompt), count, free)
    return numbered(Path(output), count)


def is_still(output: str | None) -> bool:
    """Whether the name of the output implies one frame."""
    return output is not None and Path(output).suffix.lower() in STILLS and "%" not in Path(output).name


def numbered(path: Path, count: int) -> tuple[Path, ...]:
    """`cat.mp4` -> cat.mp4, or cat-0.mp4, cat-1.mp4 ... when there are several."""
    if count == 1:
        return (path,)
    return tuple(path.with_name(f"{path.stem}-{k}{path.suffix}") for k in range(count))


def _fresh(folder: Path, stem: str, count: int, free: Callable[[Sequence[Path]], bool]) -> tuple[Path, ...]:
    """The first names that are free: cat.mp4, then cat-2.mp4, cat-3.mp4 ..."""
    for number in numbers(1):
        name = stem if number == 1 else f"{stem}-{number}"
        paths = numbered(folder / f"{name}.mp4", count)
        if free(paths):
            break
    return paths


def slug(prompt: str) -> str:
    """The first words of a prompt as a file name: letters and digits of any script, joined by hyphens."""
    text = unicodedata.normalize("NFKC", prompt).lower()
    found = "".join(c if c.isalnum() else " " for c in text.replace("'", "")).split()
    name = ""
    for word in found:
        longer = f"{name}-{word}" if name else word[:MAX_STEM]
        if len(longer) > MAX_STEM or len(longer.encode()) > MAX_STEM_BYTES:
            break
        name = longer
    return name or "video"


@contextmanager
def made_folder(output: str | None) -> Iterator[None]:
    """The folder `output/`, made if the user asked for one; unmade when the work inside fails.

    Raises `bad_input` when a file stands in its place or it can't be made.
    """
    made: list[Path] = []
    if output is not None and is_folder_text(output):
        made = _make(Path(output))
    try:
        yield
    except BaseException:
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()
        raise


def _make(folder: Path) -> list[Path]:
    """The folders that had to be made for `folder`, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SoraError(
            "missing_folder", f"{folder}/", f"the folder can't be made ({error.strerror}); choose another"
        ) from error
    return missing


def check_preview(preview: Path, outputs: Sequence[Path], *, force: bool) -> None:
    """Refuses a preview that could not be written, or would replace something."""
    if preview.suffix.lower() != ".png":
        raise SoraError("unsupported_format", f"--preview-file {preview}", "it is a .png file; try preview.png")
    if preview in outputs:
        raise SoraError("bad_usage", f"--preview-file {preview}", "it is the output too; give it another name")
    if not os.path.isdir(preview.parent):
        raise SoraError("missing_folder", f"--preview-file {preview}", "its folder does not exist; make it first")
    if os.path.lexists(preview) and not force:
        raise SoraError("output_exists", f"--preview-file {preview}", "it exists; give --force or another name")
