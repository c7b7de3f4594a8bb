"""Frames that wait on the disk for their turn, so that memory need not hold them."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np


class Spool:
    """A queue of at most `room` frames in `file`, uint8 (H, W, 3), all of one shape; `spooled` is how to get one."""

    def __init__(self, file: FileIO, room: int) -> None:
        self._file, self._room = file, room
        self._first = self._count = 0
        self._shape: tuple[int, ...] = ()
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        """Frame `index` of those that wait, 0 being the next in turn and -1 the last. Raises IndexError and OSError."""
        if not -self._count <= index < self._count:
            raise IndexError(f"frame {index} of {self._count}")
        self._seek(self._first + index % self._count)
        frame = np.empty(self._shape, np.uint8)
        if self._file.readinto(frame.data.cast("B")) != self._bytes:
            raise OSError(errno.EIO, "a frame that waited is cut off")
        return frame

    def __iter__(self) -> Iterator[np.ndarray]:
        """The frames that wait, one in memory at a time."""
        return (self[index] for index in range(self._count))

    def __reversed__(self) -> Iterator[np.ndarray]:
        """The same, the last one first."""
        return (self[index] for index in reversed(range(self._count)))

    def append(self, frame: np.ndarray) -> None:
        """Put a frame behind the others. Raises IndexError where there is no room, and OSError."""
        if self._count == self._room:
            raise IndexError(f"there is room for {self._room} frames")
        self._shape, self._bytes = frame.shape, frame.nbytes
        self._seek(self._first + self._count)
        if self._file.write(np.ascontiguousarray(frame).data.cast("B")) != self._bytes:
            raise OSError(errno.ENOSPC, "a frame that waits was cut off")
        self._count += 1

    def popleft(self) -> np.ndarray:
        """Take the next frame in turn. Raises IndexError where none waits, and OSError."""
        frame = self[0]
        self._first, self._count = (self._first + 1) % self._room, self._count - 1
        return frame

    def _seek(self, place: int) -> None:
        self._file.seek(place % self._room * self._bytes)


@contextmanager
def spooled(folder: Path, room: int) -> Iterator[Spool]:
    """A queue of at most `room` frames in a file in `folder` that has no name and ends with its process.

    Ordinary reads and writes, not a memory map: mapped pages would count as this process's memory. Raises OSError.
    """
    with TemporaryFile(dir=folder, buffering=0) as file:
        yield Spool(file, room)
