"""Where models lie on this machine, and the checksums of their files."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

BUILTIN = Path(__file__).parent / "builtin"
CHUNK_BYTES = 2**22
LARGE = 2**28  # bytes from which on a file's checksum is remembered


def weights_folder() -> Path:
    """Where installed models lie, a folder each: in SORA_HOME or the user's data folder. It may not exist."""
    if home := os.environ.get("SORA_HOME"):
        return Path(os.path.expanduser(home)) / "weights"
    import platformdirs

    return platformdirs.user_data_path("sora", appauthor=False) / "weights"


def model_folders() -> list[Path]:
    """The built-in model's folder, then those of installed models by name."""
    return [BUILTIN, *installed_folders()]


def installed_folders() -> list[Path]:
    """The folders of installed models by name; those of downloads that are not whole begin with a dot."""
    installed = weights_folder()
    if not installed.is_dir():
        return []
    return sorted(path for path in installed.iterdir() if path.is_dir() and not path.name.startswith("."))


def remove(folder: Path) -> None:
    """Remove a model's folder at once, or the link to it. Raises OSError."""
    if folder.is_symlink():
        folder.unlink()
        return
    gone = folder.with_name(f".{folder.name}.gone")  # half a model is none, whenever this is stopped
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(folder, gone)
    shutil.rmtree(gone)


def cache_folder() -> Path:
    """Where checksums of large files are remembered: in SORA_HOME or the user's cache folder. It may not exist."""
    if home := os.environ.get("SORA_HOME"):
        return Path(os.path.expanduser(home)) / "cache"
    import platformdirs

    return platformdirs.user_cache_path("sora", appauthor=False)


def sha256_of(file: Path) -> str:
    """A file's SHA-256 in hexadecimal, computed once for as long as its size and time stay.

    That of a large file is remembered from one run to the next: it takes a minute for every few gigabytes.
    """
    facts = file.stat()
    return _sha256(file.resolve(), facts.st_size, facts.st_mtime_ns)


def sha256_of_sums(sums: Iterable[str]) -> str:
    """The SHA-256 over hexadecimal checksums in sorted order, so that file names and order don't matter."""
    return hashlib.sha256("".join(sorted(sums)).encode()).hexdigest()


def fresh_sha256_of(file: Path) -> str:
    """A file's SHA-256 in hexadecimal, from its bytes."""
    sum_ = hashlib.sha256()
    with file.open("rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            sum_.update(chunk)
    return sum_.hexdigest()


@lru_cache(maxsize=1024)
def _sha256(file: Path, size: int, time: int) -> str:
    if size < LARGE:
        return fresh_sha256_of(file)
    name = hashlib.sha256(f"{file}\0{size}\0{time}".encode()).hexdigest()
    kept = cache_folder() / "sums" / name
    with suppress(OSError, ValueError):
        if re.fullmatch(r"[0-9a-f]{64}", known := kept.read_text()):
            return known
    found = fresh_sha256_of(file)
    with suppress(OSError):  # a sum that can't be kept is computed again
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}.part")
        part.write_text(found)
        part.replace(kept)
    return found
