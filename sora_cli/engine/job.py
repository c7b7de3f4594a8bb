"""A job's folder: the request, where it stands, and latents on disk, from the first moment until the result is whole.

A run that is stopped or killed leaves its folder, from which `sora resume` goes on. This module needs no torch: the
folder is there before the heavy imports begin.
"""

import errno
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.errors import RESUME, SoraError, as_sora_error
from sora_cli.locks import take
from sora_cli.media.formats import plan_output
from sora_cli.media.staging import digest_of, name_rest
from sora_cli.request import Request
from sora_cli.result import Output
from sora_cli.settings import folders
from sora_weights.registry import find_model
from sora_weights.store import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

ABOUT, LOCK, PARTS, WHOLE = "job.json", "lock", "parts.jsonl", "whole.json"
BEGINNING = 60  # seconds after which a folder without a job that no process holds is what remains of one


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where the result goes, as it was asked for, and how it is written."""

    output: str
    force: bool
    embed_metadata: bool


class LatentFile:
    """Latents on disk, float32, one latent frame after another; only what is asked for is ever in memory.

    Ordinary reads and writes, not a memory map: mapped pages would count as this process's memory.
    """

    def __init__(self, path: Path, frames: int, shape: tuple[int, int, int]) -> None:
        """The file for `frames` latent frames of `shape` (c, h, w): the one that is there, else a new one.

        Raises OSError when the disk is full.
        """
        self.path, self.frames, self.shape = path, frames, shape
        self._bytes = 4 * math.prod(shape)
        if path.is_file() and path.stat().st_size == frames * self._bytes:
            return
        with open(path, "wb") as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not in the middle of the work
                os.posix_fallocate(file.fileno(), 0, frames * self._bytes)
            else:
                file.truncate(frames * self._bytes)

    def read(self, start: int, stop: int, rows: tuple[int, int] | None = None) -> "Tensor":
        """Latent frames start .. stop - 1, (1, c, t, h, w), or of their `rows` the first up to the last but one."""
        import torch

        channels, height, columns = self.shape
        top, bottom = rows or (0, height)
        latents = torch.empty(1, channels, stop - start, bottom - top, columns)
        together = 1 if rows else channels  # channels that lie in one piece
        part = torch.empty(together, bottom - top, columns)
        with open(self.path, "rb") as file:
            for index, channel in product(range(start, stop), range(0, channels, together)):
                file.seek(index * self._bytes + 4 * columns * (channel * height + top))
                if file.readinto(part.numpy().data.cast("B")) != part.nbytes:
                    raise OSError(errno.EIO, "it is shorter than it was", str(self.path))
                latents[0, channel : channel + together, index - start] = part
        return latents

    def write(self, start: int, latents: "Tensor") -> None:
        """Put latents (1, c, t, h, w) at latent frame `start`."""
        import torch

        with open(self.path, "r+b") as file:
            file.seek(start * self._bytes)
            for frame in latents[0].unbind(1):
                file.write(frame.to("cpu", torch.float32).contiguous().numpy().data.cast("B"))

    def __iter__(self) -> Iterator["Tensor"]:
        """Each latent frame in turn, (1, c, h, w)."""
        for index in range(self.frames):
            yield self.read(index, index + 1)[:, :, 0]


class Job:
    """A folder of its own below the user's jobs folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """What `sora resume` calls it."""
        return self.folder.name

    @property
    def request(self) -> Request:
        """The request that the job is for. Raises SoraError("bad_input")."""
        return Request.from_json(self._about()["request"])

    @property
    def delivery(self) -> Delivery:
        """Where its result goes, from any current folder. Raises SoraError("bad_input")."""
        about = self._about()
        try:
            delivery = Delivery(**about["delivery"])
            return replace(delivery, output=str(Path(about["folder"]) / delivery.output))
        except TypeError as error:
            raise SoraError("bad_input", f"job {self.name}", "another version of sora wrote it") from error

    @property
    def started_in(self) -> str:
        """The folder that it was started in. Raises SoraError("bad_input")."""
        return str(self._about()["folder"])

    def latents(self, name: str, frames: int, shape: tuple[int, int, int]) -> LatentFile:
        """Room for `frames` latent frames of `shape` (c, h, w); what is there already stays."""
        return LatentFile(self.folder / f"{name}.latents", frames, shape)

    def drop(self, latents: LatentFile) -> None:
        """Remove latents that are not needed any more."""
        latents.path.unlink(missing_ok=True)

    def begun(self, part: Path) -> None:
        """Note a file of the output that is not whole yet: `sweep` removes it. Raises OSError."""
        with open(self.folder / PARTS, "a", encoding="utf-8") as file:
            file.write(json.dumps(os.path.abspath(part)) + "\n")

    def whole(self, output: Output, names: Mapping[Path, Path]) -> None:
        """Note the output when its files are about to get their names. Raises OSError."""
        told = {**asdict(output), "fps": None if output.fps is None else str(output.fps)}
        told["names"] = [[os.path.abspath(part), os.path.abspath(target)] for part, target in names.items()]
        part = self.folder / f"{WHOLE}.part"
        part.write_text(json.dumps(told), encoding="utf-8")
        os.replace(part, self.folder / WHOLE)

    def sweep(self) -> None:
        """Of what a run that was killed has left beside its output, name what is whole and remove what is not."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            names = json.loads((self.folder / WHOLE).read_bytes())["names"]
            parts = {Path(part): Path(target) for part, target in names if part.endswith(".part")}
            name_rest(parts, force=self.delivery.force)
        with suppress(OSError, ValueError):
            for line in (self.folder / PARTS).read_text(encoding="utf-8").splitlines():
                part = Path(json.loads(line))
                if part.suffix == ".part":
                    part.unlink(missing_ok=True)

    def delivered(self) -> Output | None:
        """The output, if a run was stopped only after that had its name."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            told = json.loads((self.folder / WHOLE).read_bytes())
            del told["names"]
            output = Output(**told | {"fps": None if told["fps"] is None else Fraction(told["fps"])})
            if digest_of(plan_output(output.path, output.frames).files()) == output.sha256:
                return output
        return None

    def write(self, request: Request, delivery: Delivery) -> None:
        """Put down what the job is for, and by which files. Raises OSError."""
        about = {
            "request": request.to_json(),
            "delivery": asdict(delivery),
            "folder": os.getcwd(),
            "digest": find_model(request.model).digest(),
            "sources": {path: sha256_of(Path(path)) for path in request.files if Path(path).is_file()},
        }
        part = self.folder / f"{ABOUT}.part"
        part.write_text(json.dumps(about, indent=1), encoding="utf-8")
        os.replace(part, self.folder / ABOUT)

    def check(self) -> None:
        """Go to the folder that the job was started in; raise SoraError("bad_input") for weights or sources that are
        not what they were, as their frames would be others.
        """
        about = self._about()
        try:
            os.chdir(about["folder"])
        except OSError as error:
            gone = f"{about['folder']}: the job was started there, and it is gone"
            raise SoraError("bad_input", gone, "make it again") from error
        for path, digest in about["sources"].items():
            if not Path(path).is_file() or sha256_of(Path(path)) != digest:
                raise SoraError("bad_input", f"{path}: it is not what the job was started with", "start it again")
        if find_model(self.request.model).digest() != about["digest"]:
            raise SoraError("bad_input", f"job {self.name}: its model's weights have changed", "start it again")

    @contextmanager
    def held(self, *, new: bool) -> Iterator[None]:
        """The job is this process's alone, and is removed when the work succeeds; what was stopped is kept.

        A `new` job is removed as well when it is refused, or stopped before it is put down what it is for.

        Raises SoraError("bad_usage") where another process has it; the errors of stopped work say how to go on.
        """
        with open(self.folder / LOCK, "wb") as lock:
            if not take(lock):
                raise SoraError("bad_usage", f"job {self.name}", "another process is at it")
            try:
                yield
            except BaseException as error:
                if new and (as_sora_error(error).exit_code == 2 or not (self.folder / ABOUT).exists()):
                    shutil.rmtree(self.folder, ignore_errors=True)
                else:
                    error.add_note(f"{RESUME} {self.name}")
                raise
        (self.folder / ABOUT).unlink(missing_ok=True)  # first, so that it is no job any more when the rest is half gone
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_running(self) -> bool:
        """Whether a process is at it now."""
        try:
            with open(self.folder / LOCK, "rb+") as lock:
                return not take(lock)
        except OSError:
            return False

    def _about(self) -> dict[str, Any]:
        try:
            about = json.loads((self.folder / ABOUT).read_bytes())
            if not {"request", "delivery", "folder", "digest", "sources"} <= set(about):
                raise ValueError("incomplete")
        except (OSError, ValueError, TypeError) as error:
            raise SoraError("bad_input", f"{self.folder}: it holds no job", "see sora resume --list") from error
        return dict(about)


@contextmanager
def new_job(request: Request, delivery: Delivery) -> Iterator[Job]:
    """Make a folder, write the request into it, and hold it.

    Raises SoraError("bad_settings") where no folder can be made, and what `Job.held` raises.
    """
    job = _empty_job()
    with job.held(new=True):
        job.write(request, delivery)
        yield job


def put_off(request: Request, delivery: Delivery) -> None:
    """Put down a job that nobody has begun, for `sora resume`. Raises what `new_job` raises at first."""
    _empty_job().write(request, delivery)


def _empty_job() -> Job:
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
    return Job(folder)


def stopped_jobs() -> list[Job]:
    """The jobs that no process is at, the latest last. Remains of others are removed."""
    found = folders()["jobs"]
    with suppress(OSError):
        paths = [path for path in sorted(found.iterdir()) if not Job(path).is_running()]
        for path in paths:
            if not (path / ABOUT).exists() and time.time() - path.stat().st_mtime > BEGINNING:
                shutil.rmtree(path, ignore_errors=True)
        return [Job(path) for path in paths if (path / ABOUT).is_file()]
    return []
