"""The only place that prints: results on stdout, progress, notes and errors on stderr, JSON."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from sora_cli.errors import SoraError
from sora_cli.result import SCHEMA, Result, finite, result_json

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

STREAM_SECONDS = 0.1
PLAIN_SECONDS = 10.0


class Mode(Enum):
    """How results are told on stdout."""

    TEXT = "text"
    JSON = "json"
    STREAM = "stream"

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "Mode":
        """The mode that a command line asks for, even one that can't be parsed."""
        if "--json-stream" in arguments:
            return cls.STREAM
        return cls.JSON if "--json" in arguments else cls.TEXT


class Meter(Protocol):
    """One way to show how far the work is."""

    def stage(self, name: str, total: int | None) -> None:
        """A stage of `total` units begins."""

    def step(self, done: int, detail: str) -> None:
        """`done` units of it are finished."""

    def close(self) -> None:
        """The work is over, done or not."""


class Console:
    """Prints for one run of one command; itself the `Progress` that long work reports to.

    `again` is the command line that would start the same work again, `more` what the last JSON object holds besides.
    """

    def __init__(self, mode: Mode = Mode.TEXT, *, quiet: bool = False, again: Sequence[str] = ()) -> None:
        self.mode = mode
        self.quiet = quiet
        self.again = list(again)
        self.more: dict[str, Any] = {}
        self.notes: list[str] = []
        self._meters: list[Meter] | None = None

    # Progress -----------------------------------------------------------------------------------------------

    def stage(self, name: str, total: int | None = None) -> None:
        """A named stage begins, of `total` units where that is known."""
        for meter in self._open_meters():
            meter.stage(name, total)

    def step(self, done: int, detail: str = "") -> None:
        """`done` units of the stage are finished."""
        for meter in self._open_meters():
            meter.step(done, detail)

    def note(self, text: str) -> None:
        """A line that the user must see; said once however often it comes."""
        if text in self.notes:
            return
        self.notes.append(text)
        if self.mode is Mode.STREAM:
            self.event({"type": "note", "text": text})
        self.say(f"note: {text}")

    def say(self, text: str) -> None:
        """A plain line on stderr, unless quiet."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def event(self, value: Mapping[str, Any]) -> None:
        """One event of a stream on stdout."""
        print_json({"schema": SCHEMA, **value})

    def close(self) -> None:
        """Takes the progress bar off the terminal."""
        for meter in self._meters or ():
            meter.close()
        self._meters = None

    def _open_meters(self) -> list[Meter]:
        if self._meters is None:
            self._meters = [] if self.quiet else [Bar() if sys.stderr.isatty() else Lines()]
            if self.mode is Mode.STREAM:
                self._meters.append(Events(self.event))
        return self._meters

    # Results ------------------------------------------------------------------------------------------------

    def result(self, result: Result, *, command: str, seed: int, request: Mapping[str, Any]) -> None:
        """The end of a command that makes something: its paths, or the one JSON object."""
        self.close()
        for note in result.notes:
            self.note(note)
        if self.mode is Mode.TEXT:
            for output in result.outputs:
                print_line(output.path)
        else:
            self._object("result", result_json(result, command=command, seed=seed, request=request, notes=self.notes))

    def answer(self, command: str, data: Any, lines: Sequence[str]) -> None:
        """The end of a command that tells something: `lines`, or `data` as JSON."""
        self.lines(lines)
        if self.mode is not Mode.TEXT:
            self._object("result", self._ok(command, data))

    def lines(self, lines: Sequence[str]) -> None:
        """Lines for people; JSON has the same as values."""
        self.close()
        for line in lines if self.mode is Mode.TEXT else ():
            print_line(line)

    def done(self, command: str) -> None:
        """The end of a command whose answer is in `more`."""
        self.close()
        if self.mode is not Mode.TEXT:
            self._object("result", {"schema": SCHEMA, "ok": True, "command": command, "notes": self.notes})

    def plan(self, command: str, seed: int, request: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        """The end of a dry run: on stderr, as stdout carries nothing but paths; or JSON."""
        self.close()
        for name, value in plan.items():
            self.say(f"{name}: {value if isinstance(value, str) else json.dumps(finite(value), default=str)}")
        if self.mode is not Mode.TEXT:
            more = {"outputs": [], "seed": seed, "request": dict(request)}
            self._object("result", {**self._ok(command, dict(plan)), **more})

    def error(self, command: str | None, error: SoraError) -> None:
        """The end of a command that failed: one line on stderr, and JSON where that was asked for."""
        self.close()
        print(f"error: {error}", file=sys.stderr, flush=True)
        if self.mode is not Mode.TEXT:
            detail = {"code": error.code, "message": error.message, "hint": error.hint}
            self._object("error", {"schema": SCHEMA, "ok": False, "command": command, "error": detail})

    def _ok(self, command: str, data: Any) -> dict[str, Any]:
        return {"schema": SCHEMA, "ok": True, "command": command, "data": finite(data), "notes": self.notes}

    def _object(self, kind: str, value: dict[str, Any]) -> None:
        value = {**value, **self.more}
        if self.mode is Mode.STREAM:
            self.event({**value, "type": kind})
        else:
            print_json(value)


class JobConsole(Console):
    """Prints for one job of a batch: its events carry its number, and the object that ends it is kept in `ended`."""

    def __init__(self, job: int, mode: Mode, *, quiet: bool, again: Sequence[str]) -> None:
        super().__init__(mode, quiet=quiet, again=again)
        self.job = job
        self.ended: dict[str, Any] | None = None

    def begin(self, text: str) -> None:
        """Tells that the job begins."""
        if self.mode is Mode.STREAM:
            self.event({"type": "stage", "name": text, "total": None})
        self.say(text)

    def skip(self, command: str, why: str) -> None:
        """The end of a job that needs no work."""
        self.note(why)
        told = {"schema": SCHEMA, "ok": True, "command": command, "skipped": True, "outputs": [], "notes": self.notes}
        self._object("result", told)

    def event(self, value: Mapping[str, Any]) -> None:
        """One event of a stream on stdout."""
        super().event({**value, "job": self.job})

    def _object(self, kind: str, value: dict[str, Any]) -> None:
        self.ended = value
        if self.mode is Mode.STREAM:
            super()._object(kind, value)


def print_line(text: str) -> None:
    """One line on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on a line of stdout."""
    sys.stdout.write(json.dumps(value, allow_nan=False, default=str) + "\n")
    sys.stdout.flush()


class Bar:
    """A live bar with the time left, on a terminal."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None

    def stage(self, name: str, total: int | None) -> None:
        """Replaces the bar of the stage before."""
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.close()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(
            *columns,
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
            console=RichConsole(stderr=True),
            transient=True,
            redirect_stdout=False,
        )
        self._bar.start()
        self._bar.add_task(name, total=total, detail="")

    def step(self, done: int, detail: str) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, detail=detail)

    def close(self) -> None:
        """Takes the bar off."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Lines:
    """A line for each stage, and one every ten seconds, where stderr is a file or a pipe."""

    def __init__(self) -> None:
        self._name = ""
        self._total: int | None = None
        self._began = self._told = 0.0

    def stage(self, name: str, total: int | None) -> None:
        """Tells that a stage begins."""
        self._name, self._total = name, total
        self._began = self._told = time.monotonic()
        print(name if total is None else f"{name}: {total}", file=sys.stderr, flush=True)

    def step(self, done: int, detail: str) -> None:
        """Tells how far it is, when the last line is old enough."""
        now = time.monotonic()
        if now - self._told < PLAIN_SECONDS:
            return
        self._told = now
        left = ""
        if self._total and done:
            left = f", about {(now - self._began) * (self._total - done) / done:.0f} s left"
        of = f" of {self._total}" if self._total else ""
        print(f"{self._name}: {done}{of}{left} {detail}".rstrip(), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the lines that were printed."""


class Events:
    """JSON objects on stdout, steps at most ten a second."""

    def __init__(self, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._tell = tell
        self._name = ""
        self._total: int | None = None
        self._told = float("-inf")

    def stage(self, name: str, total: int | None) -> None:
        """Tells that a stage begins."""
        self._name, self._total = name, total
        self._tell({"type": "stage", "name": name, "total": total})

    def step(self, done: int, detail: str) -> None:
        """Tells how far it is, when the last step is old enough."""
        now = time.monotonic()
        if now - self._told >= STREAM_SECONDS:
            self._told = now
            event = {"name": self._name, "done": done, "total": self._total, "detail": detail}
            self._tell({"type": "step", **event})

    def close(self) -> None:
        """The result is the event that ends them."""
