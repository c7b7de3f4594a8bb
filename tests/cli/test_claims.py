"""Fresh names are one run's alone, among processes too, and come free when that run is gone."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sora_cli.claims import Claims
from sora_cli.naming import output_paths
from sora_cli.settings import folders

CLAIMING = """
import sys
from sora_cli.claims import Claims
from sora_cli.naming import output_paths
with Claims() as claims:
    sys.stdin.readline()
    print(output_paths(None, "a cat", 1, claims.take)[0], flush=True)
    sys.stdin.readline()
"""


def locks() -> list[Path]:
    return list((folders()["cache"] / "names").glob("*"))


def claiming(spawn: Any) -> subprocess.Popen[str]:
    """A process that waits for a line, claims a name and tells it, and holds it until the next line."""
    module = spawn.modules / "claiming.py"
    if not module.exists():  # written over, it would be empty for a process that is just starting
        module.write_text(CLAIMING)
    return spawn(module="claiming", stdin=subprocess.PIPE)


def send(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_claimed_name_is_taken_until_it_is_given_back(folder: Path):
    with Claims() as one, Claims() as other:
        assert output_paths(None, "a cat", 1, one.take) == (Path("a-cat.mp4"),)
        assert output_paths(None, "a cat", 1, other.take) == (Path("a-cat-2.mp4"),)
    assert not list(folder.iterdir())
    assert not locks()
    with Claims() as again:
        assert output_paths(None, "a cat", 1, again.take) == (Path("a-cat.mp4"),)


def test_several_names_are_claimed_together_or_not_at_all(folder: Path):
    with Claims() as one, Claims() as other:
        assert one.take([Path("a-cat-1.mp4")])
        assert output_paths(None, "a cat", 2, other.take) == (Path("a-cat-2-0.mp4"), Path("a-cat-2-1.mp4"))
        with Claims() as third:
            assert third.take([Path("a-cat-0.mp4")])


def test_claims_need_no_folder_to_write_to(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "file").touch()
    monkeypatch.setenv("SORA_HOME", str(folder / "file"))
    with Claims() as claims:
        assert output_paths(None, "a cat", 1, claims.take) == (Path("a-cat.mp4"),)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by signals")
def test_processes_that_begin_at_once_choose_different_names(spawn: Any):
    running = [claiming(spawn) for _ in range(6)]
    for process in running:
        send(process)
    names = [told(process) for process in running]
    assert sorted(names) == ["a-cat-2.mp4", "a-cat-3.mp4", "a-cat-4.mp4", "a-cat-5.mp4", "a-cat-6.mp4", "a-cat.mp4"]
    first = running[names.index("a-cat.mp4")]
    first.send_signal(signal.SIGKILL)
    first.wait()
    late = claiming(spawn)
    send(late)
    assert told(late) == "a-cat.mp4"
    for process in (*running, late):
        if process is not first:
            process.communicate("\n")
            assert process.returncode == 0
    assert not list(spawn.folder.iterdir())
    assert not locks()


def test_two_commands_that_begin_at_once_make_two_files(spawn: Any):
    options = ("--size", "32x32", "--frames", 2, "--steps", 1, "-q")
    running = [spawn("generate", "a cat", *options) for _ in range(2)]
    paths = [process.communicate()[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sorted(paths) == ["a-cat-2.mp4", "a-cat.mp4"]
    assert sorted(path.name for path in spawn.folder.iterdir()) == ["a-cat-2.mp4", "a-cat.mp4"]
