"""A model and an engine that answer at once, so that the command line is tested alone."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import sora_cli.engine.job
import sora_cli.engine.work  # noqa: F401 - both keep the real registry's functions, if they are imported before
from sora_cli import __version__
from sora_cli.media.writer import open_writer
from sora_cli.request import Request, record
from sora_cli.result import ModelInfo, Progress, Result
from sora_weights import registry
from sora_weights.errors import WeightsError
from sora_weights.registry import Defaults


@dataclass(frozen=True, slots=True)
class PaperModel:
    """A model of no weights."""

    name: str = "diorama"
    family: str = "diorama"
    weights: str = "11" * 32
    licence: str = "Apache-2.0"
    about: str = "made of paper"
    files: tuple[Path, ...] = ()
    defaults: Defaults = field(
        default_factory=lambda: Defaults(
            width=320, height=180, fps=Fraction(24), seconds=2.0, steps=20, guidance=3.0, min_side=16
        )
    )

    def digest(self) -> str:
        return self.weights


@dataclass(slots=True)
class PaperEngine:
    """An engine that draws grey frames; it keeps what it was asked, and `fail` may raise in its midst."""

    model: PaperModel
    asked: list[Request] = field(default_factory=list)
    fail: Callable[[], None] = lambda: None
    steps: int = 20

    def render(
        self,
        request: Request,
        *,
        output: Path,
        force: bool,
        embed_metadata: bool,
        preview: Path | None,
        progress: Progress,
    ) -> Result:
        self.asked.append(request)
        text = json.dumps(record(request, self.model.digest(), __version__)) if embed_metadata else None
        progress.stage("denoise", self.steps)
        for step in range(self.steps):
            progress.step(step + 1)
        progress.note("drawn on paper")
        size = {"width": request.width, "height": request.height}
        with open_writer(output, **size, fps=request.fps, frames=request.frames, metadata=text, force=force) as writer:
            for _ in range(request.frames):
                writer.write(np.full((request.height, request.width, 3), 128, np.uint8))
                self.fail()
        assert writer.output is not None
        return Result(
            (writer.output,),
            ModelInfo(self.model.name, self.model.family, self.model.digest()),
            ("drawn on paper", *writer.notes),
            {},
            {"denoise": 0.5},
            {"rss_bytes": 1},
        )

    def plan(self, request: Request, output: Path, preview: Path | None) -> dict[str, object]:
        return {"stages": ["denoise"], "memory_bytes": 1}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> PaperModel:
    found = PaperModel()

    def find_model(name: str) -> Any:
        if name != found.name:
            raise WeightsError("unknown_model", f"--model {name}", "there is diorama")
        return found

    monkeypatch.setattr(registry, "find_model", find_model)
    monkeypatch.setattr(registry, "list_models", lambda: [found])
    return found


@pytest.fixture
def engine(model: PaperModel, monkeypatch: pytest.MonkeyPatch) -> PaperEngine:
    paper = PaperEngine(model)
    module = ModuleType("sora_cli.engine.render")
    module.render, module.plan = paper.render, paper.plan  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sora_cli.engine.render", module)
    return paper
