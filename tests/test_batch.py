"""Batches through the command line with the real model: the same frames, one process, and no work done twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sora_cli.engine.job import stopped_jobs

CAT = {"command": "generate", "prompt": "a cat", "size": "64x48", "frames": 5, "steps": 1, "seed": 1}

# Ends the second job by Ctrl-C after its first step, or tells of a batch how many tensors each job has left behind.
MODULES = {
    "stopping": """
import sys
import sora_cli.engine.draw as draw
whole, begun = draw._draw_level, []
def stop(*asked, **more):
    begun.append(asked)
    if len(begun) == 2:
        raise KeyboardInterrupt
    return whole(*asked, **more)
draw._draw_level = stop
from sora_cli.app import main
sys.exit(main(sys.argv[1:]))
""",
    "counting": """
import gc, sys
import torch
import sora_cli.batch as batch
tidy = batch._tidy
def count():
    tidy()
    print("left", sum(torch.is_tensor(each) for each in gc.get_objects()), file=sys.stderr)
batch._tidy = count
from sora_cli.app import main
sys.exit(main(sys.argv[1:]))
""",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that a test leaves are no other test's."""
    monkeypatch.setenv("SORA_HOME", str(tmp_path / "home"))


def jobs(folder: Path, *lines: dict[str, Any]) -> str:
    (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return "jobs.jsonl"


def frames(path: Path) -> np.ndarray:
    """Every frame of a video, (T, H, W, 3) uint8."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def run(spawn: Any, module: str, *arguments: str) -> tuple[int, str, str]:
    (spawn.modules / f"{module}.py").write_text(MODULES[module])
    process = spawn(*arguments, module=module)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_a_job_of_a_batch_draws_what_it_draws_alone_and_reads_what_came_before(sora: Callable[..., Any], folder: Path):
    more = {"command": "extend", "clip": "cat.mkv", "backward": True, "frames": 4, "steps": 1, "seed": 2}
    made = sora("batch", jobs(folder, {**CAT, "output": "cat.mkv"}, {**more, "output": "long.mkv"}), "-q")
    assert (made.code, made.paths) == (0, ["cat.mkv", "long.mkv"]), made.err
    cat = ("a cat", "--size", "64x48", "--frames", 5, "--steps", 1, "--seed", 1)
    assert sora("generate", *cat, "-o", "alone.mkv", "-q").code == 0
    options = ("--backward", "--frames", 4, "--steps", 1, "--seed", 2)
    assert sora("extend", "alone.mkv", *options, "-o", "more.mkv", "-q").code == 0
    assert np.array_equal(frames(folder / "cat.mkv"), frames(folder / "alone.mkv"))
    assert np.array_equal(frames(folder / "long.mkv"), frames(folder / "more.mkv"))


def test_a_batch_that_was_stopped_goes_on_with_the_job_that_was_stopped(spawn: Any):
    folder = spawn.folder
    drawn = {name: value for name, value in CAT.items() if name != "seed"}
    lines = ({**CAT, "output": "a.mkv"}, {**drawn, "count": 2, "output": "b.mkv"}, {**CAT, "output": "c.mkv"})
    code, out, err = run(spawn, "stopping", "batch", jobs(folder, *lines), "--json")
    told = json.loads(out)
    assert (code, told["ok"], told["error"]["code"]) == (130, False, "interrupted")
    assert [job["job"] for job in told["jobs"]] == [1]
    assert err.splitlines()[-1] == ("error: stopped in job 2 of 3: go on with sora batch --resume jobs.jsonl --json")
    seeds = [job.request.seed for job in stopped_jobs()]
    assert len(seeds) == 2
    process = spawn("batch", "jobs.jsonl", "--resume", "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert [output["path"] for output in json.loads(out)["outputs"]] == ["b-0.mkv", "b-1.mkv", "c.mkv"]
    assert "b-0.mkv: it goes on where it was stopped" in err
    assert json.loads(out)["jobs"][1]["seed"] == min(seeds)
    assert not stopped_jobs()
    assert sorted(path.name for path in folder.iterdir()) == ["a.mkv", "b-0.mkv", "b-1.mkv", "c.mkv", "jobs.jsonl"]


def test_a_job_whose_clip_has_changed_meanwhile_begins_anew(spawn: Any):
    folder = spawn.folder
    jobs(folder, {**CAT, "output": "a.mkv"})
    assert run(spawn, "counting", "batch", "jobs.jsonl", "-q")[0] == 0
    loop = {"command": "loop", "clip": "a.mkv", "frames": 4, "steps": 1, "seed": 1}
    jobs(folder, {**CAT, "output": "b.mkv"}, {**loop, "output": "loop.mkv"})
    assert run(spawn, "stopping", "batch", "jobs.jsonl", "-q")[0] == 130
    (folder / "a.mkv").write_bytes((folder / "b.mkv").read_bytes() + b"\0")
    process = spawn("batch", "jobs.jsonl", "--resume")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "loop.mkv\n"), err
    assert "it goes on where it was stopped" not in err


def test_no_job_leaves_tensors_to_the_next(spawn: Any):
    lines = [{**CAT, "output": f"{k}.mkv"} for k in range(2)]
    loops = [{"command": "loop", "clip": f"{k}.mkv", "frames": 4, "steps": 1, "output": f"l{k}.mkv"} for k in range(2)]
    code, _, err = run(spawn, "counting", "batch", jobs(spawn.folder, *lines, *loops))
    assert code == 0, err
    left = [int(line.split()[1]) for line in err.splitlines() if line.startswith("left ")]
    assert len(left) == 4
    assert len(set(left)) == 1
