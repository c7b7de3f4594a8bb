"""A file is there whole or not at all, whatever happens meanwhile, and nobody's file is touched."""

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sora_cli.errors import SoraError
from sora_cli.media import staging
from sora_cli.media.writer import FrameWriter, open_writer
from sora_cli.result import Output

Write = Callable[..., FrameWriter]
MakeFrames = Callable[[int, int, int], list[np.ndarray]]

OUTPUTS = ["a.mp4", "a.mov", "a.webm", "a.mkv", "a.gif", "a.webp", "new/%d.png", "new/deep/%d.jpg", "%d.webp"]


def tree(folder: Path) -> list[str]:
    """Every path below `folder`."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def interrupt_with(error: BaseException, path: Path, frames: list[np.ndarray], after: int) -> None:
    """Raises `error` inside the writer's block after some frames."""
    height, width, _ = frames[0].shape
    with open_writer(
        path, width=width, height=height, fps=Fraction(24), frames=len(frames), metadata="{}", force=False
    ) as writer:
        for frame in frames[:after]:
            writer.write(frame)
        raise error


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ValueError("broken"), OSError(errno.ENOSPC, "full"), SystemExit(1)]
)
@pytest.mark.parametrize("after", [0, 1, 9])
@pytest.mark.parametrize("name", OUTPUTS)
def test_an_error_leaves_nothing(
    tmp_path: Path, name: str, after: int, error: BaseException, make_frames: MakeFrames
) -> None:
    with pytest.raises(type(error)) as caught:
        interrupt_with(error, tmp_path / name, make_frames(64, 48, 10), after)
    assert caught.value is error
    assert tree(tmp_path) == []


@pytest.mark.parametrize("name", OUTPUTS)
def test_target_is_absent_until_it_is_whole(tmp_path: Path, name: str, make_frames: MakeFrames) -> None:
    with open_writer(
        tmp_path / name, width=16, height=16, fps=Fraction(24), frames=3, metadata=None, force=False
    ) as writer:
        for frame in make_frames(16, 16, 3):
            writer.write(frame)
            files = [path for path in tmp_path.rglob("*") if path.is_file()]
            assert files
            assert all(path.suffix == ".part" for path in files)
    assert not any(path.endswith(".part") for path in tree(tmp_path))


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_file_that_appears_meanwhile_stays(tmp_path: Path, name: str, make_frames: MakeFrames) -> None:
    path = tmp_path / name
    late = Path(str(path) % 2) if "%" in name else path
    with (
        pytest.raises(SoraError) as refusal,
        open_writer(path, width=16, height=16, fps=Fraction(24), frames=4, metadata=None, force=False) as writer,
    ):
        for frame in make_frames(16, 16, 4):
            writer.write(frame)
        late.write_text("mine")
    assert refusal.value.code == "output_exists"
    assert late.read_text() == "mine"
    assert [item for item in tmp_path.rglob("*") if item.is_file()] == [late]


@pytest.mark.parametrize("name", ["a.mp4", "%d.png"])
def test_file_systems_without_links_are_served(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, make_frames: MakeFrames, write: Write
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path / name, make_frames(16, 16, 3))
    assert tree(tmp_path) == (["a.mp4"] if name == "a.mp4" else ["0.png", "1.png", "2.png"])
    with staging.staged(force=False) as late:
        late.part(tmp_path / "fresh.png").write_text("x")
        late.part(tmp_path / tree(tmp_path)[0]).write_text("x")
        with pytest.raises(SoraError):
            late.publish(Output("a", "image", 1, 1, 1, None, None, late.digest()))
    assert "fresh.png" not in tree(tmp_path)


def test_force_replaces_the_file_and_keeps_a_links_target(
    tmp_path: Path, make_frames: MakeFrames, write: Write
) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a.mkv").symlink_to(tmp_path / "precious")
    write(tmp_path / "a.mkv", make_frames(16, 16, 2), force=True)
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "a.mkv").is_symlink()


def test_an_error_keeps_the_file_that_force_would_replace(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("mine")
    with (
        pytest.raises(KeyboardInterrupt),
        open_writer(
            tmp_path / "a.mp4", width=16, height=16, fps=Fraction(24), frames=1, metadata=None, force=True
        ) as writer,
    ):
        writer.write(np.zeros((16, 16, 3), np.uint8))
        raise KeyboardInterrupt
    assert (tmp_path / "a.mp4").read_text() == "mine"
    assert tree(tmp_path) == ["a.mp4"]


def test_a_folder_that_others_filled_stays(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        open_writer(
            tmp_path / "new" / "%d.png",
            width=16,
            height=16,
            fps=Fraction(24),
            frames=1,
            metadata=None,
            force=False,
        ),
    ):
        (tmp_path / "new" / "notes.txt").write_text("mine")
        raise KeyboardInterrupt
    assert tree(tmp_path) == ["new", "new/notes.txt"]


def test_two_writers_of_one_name_do_not_mix(tmp_path: Path, make_frames: MakeFrames) -> None:
    settings = {"width": 16, "height": 16, "fps": Fraction(24), "frames": 1, "metadata": None, "force": False}
    with (
        pytest.raises(SoraError),
        open_writer(tmp_path / "a.png", **settings) as second,
        open_writer(tmp_path / "a.png", **settings) as first,
    ):
        first.write(np.full((16, 16, 3), 7, np.uint8))
        second.write(np.full((16, 16, 3), 9, np.uint8))
    assert tree(tmp_path) == ["a.png"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path, make_frames: MakeFrames, write: Write) -> None:
    write(tmp_path / "a.mp4", make_frames(16, 16, 1))
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "a.mp4").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_long_names_and_odd_names_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_frames: MakeFrames, write: Write
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [
        "x" * 251 + ".mp4",
        "concat:a|b.mp4",
        "file:http:%3A.mkv",
        "-y.webm",
        "a b'\"\n.gif",
        "ünï🐱.mov",
    ]
    for name in names:
        write(Path(name), make_frames(16, 16, 2))
    assert tree(tmp_path) == sorted(names)


FULL_DISK = """
import json, resource, signal, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from sora_cli.media.writer import open_writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
random = np.random.default_rng(0)
frames = [random.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in range(12)]
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    with open_writer(
        Path(sys.argv[1]), width=128, height=128, fps=Fraction(24), frames=12, metadata=None, force=False
    ) as writer:
        for frame in frames:
            writer.write(frame)
except OSError as error:
    print(json.dumps({"errno": error.errno}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file sizes are POSIX")
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.webm", "a.mkv", "a.gif", "a.webp", "new/%d.png"])
def test_a_disk_that_takes_no_more_is_an_oserror_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / name)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"errno": errno.EFBIG}
    assert tree(tmp_path) == []
