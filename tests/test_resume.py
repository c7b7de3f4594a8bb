"""Jobs that were killed go on to the very same frames."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sora_cli.engine.job import stopped_jobs
from sora_cli.media.writer import open_writer

GENERATE = ("generate", "a cat at sunset", "--size", "200x120", "--frames", 30, "--steps", 8, "--seed", 3)
EXTEND = ("extend", "clip.mkv", "a fish", "--both", "--seconds", 1, "--steps", 6, "--seed", 3)
KILLS = int(os.environ.get("KILLS", "2"))  # of each command; before a release: KILLS=20 pytest tests/test_resume.py


def read(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def clip(path: Path) -> None:
    rng = np.random.default_rng(1)
    with open_writer(path, width=200, height=120, fps=Fraction(24), frames=26, metadata=None, force=True) as writer:
        for _ in range(26):
            writer.write(rng.integers(0, 255, (12, 20, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1))


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


@pytest.mark.parametrize("command", [GENERATE, EXTEND], ids=["generate", "extend"])
def test_killed_job_resumes_to_the_same_frames(spawn: Any, command: tuple[object, ...]):
    folder, dice = spawn.folder, random.Random(7)
    clip(folder / "clip.mkv")
    began = time.monotonic()
    code, _, err = finish(spawn(*command, "-o", "whole.mkv"))
    assert code == 0, err
    length, whole = time.monotonic() - began, read(folder / "whole.mkv")
    for kill in range(KILLS):
        resumed = False
        while not resumed:
            (folder / f"{kill}.mkv").unlink(missing_ok=True)
            process = spawn(*command, "-o", f"{kill}.mkv", "--force")
            time.sleep(dice.uniform(0.3, 0.95) * length)
            process.send_signal(signal.SIGKILL)
            finished = finish(process)[0] == 0
            resumed = bool(stopped_jobs()) and not finished
        if (folder / f"{kill}.mkv").exists():  # killed in its very last moment
            assert (read(folder / f"{kill}.mkv") == whole).all()
        code, _, err = finish(spawn("resume", "--json"))
        assert code == 0, err
        assert (read(folder / f"{kill}.mkv") == whole).all()
        assert not stopped_jobs()
        assert not list(folder.glob("*.part"))


DEATHS = {
    "half_written": "writer.FrameWriter.close",
    "whole_but_nameless": "staging.Staging._publish_one",
    "named_but_not_tidied": "staging.Staging.clear",
}


@pytest.mark.parametrize("moment", DEATHS)
def test_a_death_while_the_file_is_made_leaves_nothing_that_resume_does_not_mend(spawn: Any, moment: str):
    module, _, name = DEATHS[moment].partition(".")
    (spawn.modules / f"{moment}.py").write_text(
        "import os, sys\n"
        f"import sora_cli.media.{module} as {module}\n"
        f"{module}.{name} = lambda *asked: os._exit(9)\n"
        "from sora_cli.app import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    small = ("generate", "a cat", "--size", "32x32", "--frames", 2, "--steps", 1, "--seed", 1, "-q")
    assert finish(spawn(*small, "-o", "out.mkv", module=moment))[0] == 9
    assert (spawn.folder / "out.mkv").exists() == (moment == "named_but_not_tidied")
    code, out, err = finish(spawn("resume"))
    assert (code, Path(out.strip()).name) == (0, "out.mkv"), err
    assert len(read(spawn.folder / "out.mkv")) == 2
    assert [path.name for path in spawn.folder.iterdir()] == ["out.mkv"]
    assert not stopped_jobs()


@pytest.mark.parametrize("force", [False, True])
def test_a_death_between_the_names_of_a_sequence_leaves_it_whole_after_resume(spawn: Any, force: bool):
    (spawn.modules / "dying.py").write_text(
        "import os, sys\n"
        "from sora_cli.media.staging import Staging\n"
        "name = Staging._publish_one\n"
        "Staging._publish_one = lambda self, part, target: (\n"
        "    os._exit(9) if '0002' in target.name else name(self, part, target)\n"
        ")\n"
        "from sora_cli.app import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    small = ("generate", "a cat", "--size", "32x32", "--frames", 5, "--steps", 1, "--seed", 1, "-q")
    small = (*small, "-o", "f/%04d.png", *(["--force"] if force else []))
    assert finish(spawn(*small, module="dying"))[0] == 9
    code, _, err = finish(spawn("resume"))
    assert code == 0, err
    assert sorted(path.name for path in (spawn.folder / "f").iterdir()) == [f"{k:04d}.png" for k in range(5)]
    assert not stopped_jobs()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_job_and_says_how_to_go_on(spawn: Any, number: signal.Signals):
    heard = lambda: signal.signal(number, signal.SIG_DFL)  # noqa: E731 - whatever the tests themselves ignore
    process = spawn(*GENERATE, "-o", "out.mkv", preexec_fn=heard)
    assert any(line.startswith("draft") for line in iter(process.stderr.readline, ""))
    began = time.monotonic()
    process.send_signal(number)
    code, out, err = finish(process)
    assert (code, out) == (130, "")
    assert time.monotonic() - began < 4
    (job,) = stopped_jobs()
    assert err.splitlines()[-1] == f"error: stopped before the end: go on with sora resume {job.name}"
    assert job.name in spawn("resume", "--list", "--json").communicate(timeout=60)[0]
    code, out, err = finish(spawn("resume", job.name))
    assert code == 0, err
    assert len(read(Path(out.strip()))) == 30


def test_nothing_to_resume_is_said_in_one_line(sora: Callable[..., Any]):
    assert sora("resume", "no-such-job").code == 2
    assert "resume --list" in sora("resume").err


def stopped(spawn: Any, *command: object) -> int:
    """How a command ends that Ctrl-C stops before its first step."""
    (spawn.modules / "stopping.py").write_text(
        "import sys\n"
        "import sora_cli.engine.draw as draw\n"
        "def stop(*asked, **more):\n"
        "    raise KeyboardInterrupt\n"
        "draw._draw_level = stop\n"
        "from sora_cli.app import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    return finish(spawn(*command, module="stopping"))[0]


def test_what_was_not_begun_of_several_results_waits_too(spawn: Any):
    small = ("generate", "a cat", "--size", "32x32", "--frames", 2, "--steps", 1)
    assert stopped(spawn, *small, "--seed", 5, "--count", 3, "-o", "cat.mkv") == 130
    for _ in range(3):
        assert finish(spawn("resume"))[0] == 0
    assert finish(spawn("resume"))[0] == 2
    for seed in range(3):
        assert finish(spawn(*small, "--seed", 5 + seed, "-o", "alone.mkv", "--force"))[0] == 0
        assert (read(spawn.folder / f"cat-{seed}.mkv") == read(spawn.folder / "alone.mkv")).all()


def test_a_name_that_was_taken_meanwhile_is_told_before_the_work(spawn: Any):
    small = ("generate", "a cat", "--size", "32x32", "--frames", 2, "--steps", 1)
    assert stopped(spawn, *small, "-o", "cat.mkv") == 130
    (spawn.folder / "cat.mkv").touch()
    code, _, err = finish(spawn("resume"))
    assert code == 2
    assert "--force" in err
    code, out, _ = finish(spawn("resume", "-o", "other.mkv"))
    assert (code, Path(out.strip())) == (0, spawn.folder / "other.mkv")
    assert len(read(spawn.folder / "other.mkv")) == 2
    assert (spawn.folder / "cat.mkv").stat().st_size == 0
