"""Locks on open files: one process at a time, and none any more when that process is gone, however it ends."""

from typing import BinaryIO


def take(lock: BinaryIO) -> bool:
    """Lock an open file for as long as it is open, or say that it is locked."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
