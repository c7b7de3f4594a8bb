"""A job's folder: the request, and latents on disk, from the first moment until the result is whole.

This module needs no torch: the folder is there before the heavy imports begin.
"""

import errno
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sora_cli.errors import SoraError
from sora_cli.request import Request
from sora_cli.settings import folders

if TYPE_CHECKING:
    from torch import Tensor


class LatentFile:
    """Latents on disk, float32, one latent frame after another; only what is asked for is ever in memory.

    Ordinary reads and writes, not a memory map: mapped pages would count as this process's memory.
    """

    def __init__(self, path: Path, frames: int, shape: tuple[int, int, int]) -> None:
        """Make the file for `frames` latent frames of `shape` (c, h, w). Raises OSError when the disk is full."""
        self.path, self.frames, self.shape = path, frames, shape
        self._bytes = 4 * math.prod(shape)
        with open(path, "wb") as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not in the middle of the work
                os.posix_fallocate(file.fileno(), 0, frames * self._bytes)

    def read(self, start: int, stop: int) -> "Tensor":
        """Latent frames start .. stop - 1, (1, c, t, h, w)."""
        import torch

        with open(self.path, "rb") as file:
            file.seek(start * self._bytes)
            data = bytearray(file.read((stop - start) * self._bytes))
        frames = torch.frombuffer(data, dtype=torch.float32).view(stop - start, *self.shape)
        return frames.movedim(0, 1)[None].contiguous()

    def write(self, start: int, latents: "Tensor") -> None:
        """Put latents (1, c, t, h, w) at latent frame `start`."""
        import torch

        data = latents[0].movedim(1, 0).to("cpu", torch.float32).contiguous()
        with open(self.path, "r+b") as file:
            file.seek(start * self._bytes)
            file.write(data.numpy().tobytes())

    def __iter__(self) -> Iterator["Tensor"]:
        """Each latent frame in turn, (1, c, h, w)."""
        for index in range(self.frames):
            yield self.read(index, index + 1)[:, :, 0]


class Job:
    """A folder of its own below the user's jobs folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def latents(self, name: str, frames: int, shape: tuple[int, int, int]) -> LatentFile:
        """Room for `frames` latent frames of `shape` (c, h, w)."""
        return LatentFile(self.folder / f"{name}.latents", frames, shape)

    def drop(self, latents: LatentFile) -> None:
        """Remove latents that are not needed any more."""
        latents.path.unlink(missing_ok=True)


@contextmanager
def open_job(request: Request) -> Iterator[Job]:
    """Make the folder and write the request into it; remove it when the work is over, however it ends.

    Raises SoraError("bad_settings") where no folder can be made.
    """
    folder = folders()["jobs"] / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        reason = error.strerror or "it can't be made"
        raise SoraError(
            "bad_settings", f"{folder.parent}: {reason}", "set SORA_HOME to a folder to write to"
        ) from error
    try:
        (folder / "request.json").write_text(json.dumps(request.to_json(), indent=1), encoding="utf-8")
        yield Job(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
