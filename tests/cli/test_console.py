"""Progress: a bar on a terminal, sparse lines elsewhere, events in a stream."""

import json
from typing import Any

import pytest

from sora_cli import console as module
from sora_cli.console import Bar, Console, Mode


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


def test_lines_are_sparse_and_tell_the_time_left(clock: Clock, capsys: Any) -> None:
    console = Console()
    console.stage("denoise", 20)
    for step in range(1, 21):
        clock.now += 4
        console.step(step)
    assert capsys.readouterr().err.splitlines()[:2] == ["denoise: 20", "denoise: 3 of 20, about 68 s left"]


def test_events_come_ten_a_second(clock: Clock, capsys: Any) -> None:
    console = Console(Mode.STREAM, quiet=True)
    console.stage("decode", 300)
    for step in range(1, 301):
        clock.now += 1 / 100
        console.step(step, "frames")
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0] == {"schema": "sora/1", "type": "stage", "name": "decode", "total": 300}
    assert events[1]["detail"] == "frames"
    assert 28 <= len(events) - 1 <= 31


def test_a_note_is_said_once(capsys: Any) -> None:
    console = Console()
    console.note("odd size")
    console.note("odd size")
    assert capsys.readouterr().err == "note: odd size\n"
    assert console.notes == ["odd size"]


def test_a_bar_leaves_stdout_alone(capsys: Any) -> None:
    bar = Bar()
    bar.stage("denoise", 20)
    bar.step(5, "first window")
    print("path")
    bar.stage("decode", None)
    bar.close()
    assert capsys.readouterr().out == "path\n"


def test_what_json_cannot_write_is_null(capsys: Any) -> None:
    Console(Mode.JSON).answer("info", {"psnr": float("inf"), "list": [float("nan"), 1]}, [])
    assert json.loads(capsys.readouterr().out)["data"] == {"psnr": None, "list": [None, 1]}
