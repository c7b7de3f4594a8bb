"""Files that appear whole or not at all: written as `.part`, published together, else removed."""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from sora_cli.errors import SoraError
from sora_cli.result import Output

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})
_CHUNK_BYTES = 1 << 20


class Ledger(Protocol):
    """Who notes what becomes of an output, so that a run that is killed at any moment leaves nothing behind."""

    def begun(self, part: Path) -> None:
        """A file that is not whole is about to be made."""

    def whole(self, output: Output, names: Mapping[Path, Path]) -> None:
        """All is written, and each file gets its name next."""


class Staging:
    """The half-written files of one output; `staged` is how to get one."""

    def __init__(self, force: bool, ledger: Ledger | None) -> None:
        self._force = force
        self._ledger = ledger
        self._token = secrets.token_hex(4)
        self._targets: dict[Path, Path] = {}
        self._scratch: list[Path] = []
        self._claimed: list[Path] = []
        self._made: list[Path] = []
        self._published = False

    def make_folder(self, folder: Path) -> None:
        """Makes `folder` and its missing parents; they go again if nothing is published."""
        missing = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._made.append(path)

    def part(self, target: Path) -> Path:
        """An empty new file beside `target`, which `publish` renames to it."""
        part = self._create(target, "part")
        self._targets[part] = target
        return part

    def scratch(self, target: Path, name: str) -> Path:
        """An empty new file beside `target` that never outlives the work."""
        path = self._create(target, f"{name}.part")
        self._scratch.append(path)
        return path

    def digest(self) -> str:
        """The sha256 over the bytes of all parts, in order, in hexadecimal."""
        return digest_of(self._targets)

    def publish(self, output: Output) -> None:
        """Brings all parts to the disk and gives them their names, under which they are `output`.

        Raises SoraError output_exists where a name was taken meanwhile and `force` is off, and OSError; after
        either, `clear` takes back the names already given, except over files that `force` replaced.
        """
        for part in self._targets:
            _sync(part)
        if self._ledger is not None:
            self._ledger.whole(output, self._targets)
        for part, target in self._targets.items():
            self._publish_one(part, target)
        self._published = True
        for folder in {target.parent for target in self._targets.values()}:
            _sync_folder(folder)

    def clear(self) -> None:
        """Removes parts and scratch files, and all that was made if nothing was published."""
        for part, target in self._targets.items():
            if not self._published and _same_file(part, target):
                target.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
        for path in self._scratch + ([] if self._published else self._claimed):
            path.unlink(missing_ok=True)
        for folder in reversed([] if self._published else self._made):
            with suppress(OSError):  # something else has been put there: it is not ours to remove
                folder.rmdir()

    def _create(self, target: Path, ending: str) -> Path:
        path = target.with_name(f"{target.name[:50]}.{self._token}.{ending}")
        if self._ledger is not None:
            self._ledger.begun(path)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        return path

    def _publish_one(self, part: Path, target: Path) -> None:
        if self._force:
            os.replace(part, target)
            return
        try:
            self._publish_exclusively(part, target)
        except FileExistsError:
            raise SoraError(
                "output_exists", f"{target}: appeared meanwhile", "choose another name or use --force"
            ) from None

    def _publish_exclusively(self, part: Path, target: Path) -> None:
        """Names `part` `target` too, in one step that fails if the name is taken."""
        try:
            os.link(part, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            self._claimed.append(target)
            os.replace(part, target)


def name_rest(names: Mapping[Path, Path], *, force: bool) -> None:
    """Give whole files the names that a run which was killed didn't come to give them. Raises OSError."""
    for part, target in names.items():
        if part.exists() and not _same_file(part, target) and (force or not target.exists()):
            os.replace(part, target)


def digest_of(files: Iterable[Path]) -> str:
    """The sha256 over the bytes of all files, in order, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def staged(*, force: bool, ledger: Ledger | None = None) -> Iterator[Staging]:
    """A `Staging` that leaves nothing behind but what it published, whatever is raised; `ledger` is told of it."""
    staging = Staging(force, ledger)
    try:
        yield staging
    finally:
        staging.clear()


def _same_file(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes new names in `folder` survive a power cut, where the system can do that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems refuse; the files themselves are synced
            os.fsync(handle)
    finally:
        os.close(handle)
