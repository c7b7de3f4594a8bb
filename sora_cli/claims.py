"""Names of files that don't exist yet, claimed before the work: of two runs that begin at once, each gets its own.

A claim is a lock on an empty file in the cache, named after the path. Nothing is put beside the output, and a claim
ends with its process, even where that is killed.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from sora_cli.locks import take
from sora_cli.naming import missing, place_of
from sora_cli.settings import folders


class Claims:
    """The names that this process holds until the `with` block ends."""

    def __init__(self) -> None:
        self._held: list[tuple[Path, BinaryIO]] = []

    def __enter__(self) -> "Claims":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def take(self, paths: Sequence[Path]) -> bool:
        """Claim all these paths, or none where one exists or is another run's. Looking comes last: who had the claim
        may have written the file.
        """
        if all(self._claim(path) for path in paths) and missing(paths):
            return True
        self._release()
        return False

    def _claim(self, path: Path) -> bool:
        lock = _lock_of(path)
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            while True:
                file = open(lock, "ab")  # noqa: SIM115 - it is open for as long as the claim lasts
                if not take(file):
                    file.close()
                    return False
                if _is_at(file, lock):
                    self._held.append((lock, file))
                    return True
                file.close()  # whoever had it has removed it meanwhile
        except OSError:
            return True  # nowhere to keep claims: the writer still never replaces a file

    def _release(self) -> None:
        for lock, file in self._held:
            with suppress(OSError):  # Windows removes no open file: an empty one stays in the cache
                lock.unlink(missing_ok=True)
            file.close()
        self._held.clear()


def _lock_of(path: Path) -> Path:
    return folders()["cache"] / "names" / f"{hashlib.sha256(os.fsencode(place_of(path))).hexdigest()}.lock"


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False
