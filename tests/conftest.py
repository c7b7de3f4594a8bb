"""What tests share: a machine without settings, and the command line as a function."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@dataclass(frozen=True, slots=True)
class Run:
    """How one command line ended."""

    code: int
    out: str
    err: str

    @property
    def paths(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout, or the last of a stream."""
        return json.loads(self.out.splitlines()[-1])

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Spawn:
    """Starts the command line, or one of `modules`, as a process of its own in `folder`."""

    folder: Path
    modules: Path

    def __call__(self, *arguments: object, module: str = "sora_cli", **more: Any) -> subprocess.Popen[str]:
        source = os.pathsep.join(map(str, (ROOT, ROOT / "kernels", ROOT / "weights", self.modules)))
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": source},
            text=True,
            **streams,
        )


@pytest.fixture
def spawn(tmp_path: Path) -> Spawn:
    """Runs one command line in a process of its own, in an empty folder."""
    places = tmp_path / "there", tmp_path / "modules"
    for place in places:
        place.mkdir()
    return Spawn(*places)


@pytest.fixture(autouse=True, scope="session")
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Weights, jobs and caches of the tests stay among the tests, and no `SORA_*` variable reaches them."""
    home = tmp_path_factory.mktemp("sora-home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SORA_")]:
            patch.delenv(name)
        patch.setenv("SORA_HOME", str(home))
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        yield home


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def sora(folder: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Runs one command line in this process, in an empty current folder."""
    from sora_cli.app import main

    def run(*arguments: object) -> Run:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        told = capfd.readouterr()
        return Run(code, told.out, told.err)

    return run


@pytest.fixture
def retouch() -> Any:
    """A small network that draws figures sharp, of random weights."""
    import torch

    from sora_cli.model.retouch import Retouch
    from sora_weights.spec import RetouchSpec

    torch.manual_seed(0)
    made = Retouch(RetouchSpec(width=16, depth=2)).requires_grad_(False)
    for parameter in made.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    return made
