"""Where a job stands, on disk after every step: what a run that was killed needs to go on to the same frames."""

import errno
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sora_cli.engine.sample import Step
from sora_cli.engine.solvers import state_to_tensors

SAVE_SECONDS = 1.0  # steps in between are made again; the end of a window is always saved
NAME = "state.safetensors"


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Steps done of a window, of a level, of a board. A board's number past the last means that all is drawn."""

    board: int
    level: int
    window: int = 0
    done: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A mark, and the tensors that work goes on from: "level" and "generator" hold the generator's state when the
    level began and now; "x" and the solver's state are there where a window is under way.
    """

    mark: Mark
    tensors: Mapping[str, Tensor]


@dataclass(slots=True)
class Checkpoint:
    """The point of a job in its folder, written whole or not at all."""

    folder: Path
    saved: float = field(default=-SAVE_SECONDS)

    def save(self, mark: Mark, tensors: Mapping[str, Tensor]) -> None:
        """Replace the point. Raises OSError."""
        part = self.folder / f"{NAME}.part"
        try:
            here = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
            save_file(here, part, {"mark": json.dumps(astuple(mark))})
        except SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))
            raise OSError(int(code[1]) if code else errno.EIO, str(error), str(part)) from error
        os.replace(part, self.folder / NAME)
        self.saved = time.monotonic()

    def save_step(self, mark: Mark, step: Step, level: Tensor, generator: torch.Generator, *, last: bool) -> None:
        """Replace the point by a window's step, unless that was done a moment ago and this is not its `last`."""
        if last or time.monotonic() - self.saved >= SAVE_SECONDS:
            state = {"x": step.x, "level": level, "generator": generator.get_state(), **state_to_tensors(step.state)}
            self.save(mark, state)

    def load(self) -> Point | None:
        """The point, or None where there is none that can be read."""
        try:
            with safe_open(self.folder / NAME, "pt") as file:
                mark = Mark(*json.loads(file.metadata()["mark"]))
                return Point(mark, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return None
