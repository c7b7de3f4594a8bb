"""A job's folder: the request, and latents on disk, from the first moment until the result is whole.

This module needs no torch: the folder is there before the heavy imports begin.
"""

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

from sora_cli.request import Request
from sora_cli.settings import folders

if TYPE_CHECKING:
    from torch import Tensor


class Job:
    """A folder of its own below the user's jobs folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def latents(self, name: str, shape: tuple[int, ...]) -> "Tensor":
        """A float32 tensor of zeros whose memory is a file in the folder: the system keeps what fits, not we."""
        import torch

        path = self.folder / f"{name}.latents"
        elements = math.prod(shape)
        with open(path, "wb") as file:
            file.truncate(4 * elements)
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here, not a crash on a later page
                os.posix_fallocate(file.fileno(), 0, 4 * elements)
        return torch.from_file(str(path), shared=True, size=elements, dtype=torch.float32).view(shape)

    def drop(self, name: str) -> None:
        """Remove latents that are not needed any more."""
        (self.folder / f"{name}.latents").unlink(missing_ok=True)


@contextmanager
def open_job(request: Request) -> Iterator[Job]:
    """Make the folder and write the request into it; remove it when the work is over, however it ends."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    folder = folders()["jobs"] / name
    folder.mkdir(parents=True)
    try:
        (folder / "request.json").write_text(json.dumps(request.to_json(), ensure_ascii=False, indent=1))
        yield Job(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
