"""The command line as a process: quick to help, quiet when its reader leaves, stopped by signals."""

import os
import signal
from typing import Any

import pytest

HEAVY = {"torch", "transformers", "av", "numpy", "PIL", "einops", "safetensors", "rich", "pydantic"}

LOOKING = """
import sys
from sora_cli.app import main
main()
print(*sys.modules, file=sys.stderr)
"""

# Stands for the engine: writes half a video, tells that it has begun, and waits to be stopped.
WAITING = """
import sys, time
from types import ModuleType
import numpy as np
from sora_cli.media.writer import open_writer

def render(request, *, output, force, embed_metadata, preview, progress):
    size = {"width": 32, "height": 16, "fps": request.fps, "frames": 9}
    with open_writer(output, **size, metadata=None, force=force) as writer:
        writer.write(np.zeros((16, 32, 3), np.uint8))
        progress.stage("waiting")
        time.sleep(60)

module = ModuleType("sora_cli.engine.render")
module.render, module.plan = render, lambda request, output, preview: {}
sys.modules["sora_cli.engine.render"] = module
from sora_cli.app import main
sys.exit(main())
"""


def test_help_imports_nothing_heavy(spawn: Any) -> None:
    (spawn.modules / "looking.py").write_text(LOOKING)
    out, err = spawn("--help", module="looking").communicate(timeout=60)
    assert "generate" in out
    assert not HEAVY & set(err.split())


def test_a_usage_error_is_one_line_of_a_process_that_ends_with_2(spawn: Any) -> None:
    process = spawn("generate", "a cat", "--no-such-option")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)


def test_a_reader_that_leaves_early_is_no_traceback(spawn: Any) -> None:
    read, write = os.pipe()
    os.close(read)
    process = spawn("generate", "--help", stdout=write)
    os.close(write)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 1


def test_what_belongs_on_a_closed_stderr_is_not_told_on_stdout(spawn: Any) -> None:
    process = spawn("models", "show", "nobody", stderr=None, preexec_fn=lambda: os.close(2))
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 2


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_work_says_how_to_go_on_and_leaves_nothing(spawn: Any, number: signal.Signals) -> None:
    (spawn.modules / "waiting.py").write_text(WAITING)
    folder = spawn.folder
    heard = lambda: signal.signal(number, signal.SIG_DFL)  # noqa: E731 - whatever the tests themselves ignore
    process = spawn("generate", "a cat", "--seed", 1, module="waiting", preexec_fn=heard)
    assert "waiting\n" in iter(process.stderr.readline, "")
    assert list(folder.iterdir())
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("error: stopped before the end: start again with sora generate 'a cat'")
    assert list(folder.iterdir()) == []
