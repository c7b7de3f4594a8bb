"""Many jobs in one process: every line is checked before the first is drawn, and one that fails stops no other.

Each job is parsed, checked and run by its own command, with a console of its own.
"""

import gc
import os
import shlex
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from sora_cli import naming
from sora_cli.console import Console, JobConsole, Mode
from sora_cli.errors import SoraError, as_sora_error, explained, one_line
from sora_cli.joblines import Job, job_of, place_of, read_lines
from sora_cli.machine import forget_peak_memory, give_back_memory
from sora_cli.media.formats import is_folder_text, is_pattern, numbered
from sora_cli.options import goes_on
from sora_cli.remains import is_made
from sora_cli.request import DEFAULT_MODEL, bad

SOURCES = ("clip", "other", "image", "last", "mask", "source")  # parameters that name files to read
CHECK = "--dry-run"
MAX_NAMED = 8  # further lines that an error names


@dataclass(frozen=True, slots=True)
class Batch:
    """A file of jobs, and the context of the command line that named it."""

    source: str
    context: typer.Context

    @property
    def dry(self) -> bool:
        """Whether plans are told and nothing is made."""
        return bool(self.context.params["dry_run"])

    @property
    def group(self) -> TyperGroup:
        """All commands."""
        group = self.context.find_root().command
        assert isinstance(group, TyperGroup)
        return group


@dataclass(frozen=True, slots=True)
class Plan:
    """A job that was checked: what it reads that earlier lines make, by path, whether it names an output, and whether
    all of that is there already.
    """

    job: Job
    awaited: Mapping[str, int]
    named: bool
    made: bool


class Makers:
    """Which line of a batch makes a file."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._patterns: dict[Path, int] = {}

    def add(self, path: Path, line: int) -> None:
        """Take down that a line makes a file, or all files of a numbered sequence."""
        self._places[naming.place_of(path)] = line
        if is_pattern(path):
            self._patterns[path] = line

    def of(self, path: Path) -> int | None:
        """The line that makes this file."""
        line = self._places.get(naming.place_of(path))
        return line or next((line for pattern, line in self._patterns.items() if naming.makes(pattern, path)), None)

    def twin(self, path: Path) -> int | None:
        """A line that makes this file, or one file of this sequence."""
        if not is_pattern(path):
            return self.of(path)
        within = (line for place, line in self._places.items() if naming.makes(path, Path(place)))
        return self.of(path) or next(within, None)


# Before anything is drawn -----------------------------------------------------------------------------------


def load(batch: Batch) -> list[Plan]:
    """Every job of the file, checked. Raises the SoraError of the first line that is wrong, which names the others."""
    jobs, plans = list[Job](), list[Plan]()
    wrong: dict[int, SoraError] = {}
    for number, (line, text) in enumerate(read_lines(batch.source), 1):
        with _kept(wrong, line):
            jobs.append(job_of(number, line, text, batch.group))
    _refuse(batch, wrong)
    makers = Makers()
    for job in jobs:
        with _kept(wrong, job.line):
            plans.append(_check(batch, job, makers))
    _refuse(batch, wrong)
    return plans


@contextmanager
def _kept(wrong: dict[int, SoraError], line: int) -> Iterator[None]:
    """Keeps what is wrong with a line, so that the next one can be looked at."""
    try:
        yield
    except Exception as error:
        wrong[line] = as_sora_error(error)


def _refuse(batch: Batch, wrong: Mapping[int, SoraError]) -> None:
    if not wrong:
        return
    (line, error), *others = wrong.items()
    more = ""
    if others:
        lines = ", ".join(str(line) for line, _ in others[:MAX_NAMED]) + (", ..." if len(others) > MAX_NAMED else "")
        more = f" (wrong too: line{'s' if len(others) > 1 else ''} {lines})"
    raise SoraError(error.code, f"{place_of(batch.source, line)}: {error.message}", f"{error.hint}{more}") from error


def _check(batch: Batch, job: Job, makers: Makers) -> Plan:
    """Raises what the job itself would raise before it draws; `makers` are told what it will make."""
    with _parsed(batch, job, _silent(job)) as context:
        given = context.params
    outputs = _outputs(given)
    awaited = {path: line for path in _sources(given) if (line := makers.of(Path(path))) is not None}
    done = goes_on(batch.context) and not given["force"] and outputs != () and all(map(is_made, outputs))
    for path in () if done else _written(given):
        if (line := makers.twin(path)) is not None:
            raise bad(str(path), f"line {line} makes it too; give it another name")
        makers.add(path, job.line)
    if awaited and not done:
        _check_waiting(batch, job, given, awaited)
    elif not done:
        _run(batch, job, _silent(job), CHECK)
    return Plan(job, awaited, bool(outputs), done)


def _check_waiting(batch: Batch, job: Job, given: Mapping[str, Any], awaited: Mapping[str, int]) -> None:
    """Checks what can be checked of a job while files that it reads are yet to be made."""
    from sora_cli.media.writer import check_output
    from sora_weights.registry import find_model

    find_model(given["model"] or DEFAULT_MODEL)
    for output in _outputs(given):
        check_output(output, frames=1, force=given["force"])
    for path in _sources(given):
        if path not in awaited and "%" not in path and not os.path.exists(path):
            raise SoraError("missing_input", path, "there is no such file, and no line before makes it")
    if any(os.path.lexists(path) for path in awaited):
        return  # what will take its place may be quite another clip
    try:
        _run(batch, job, _silent(job), CHECK)
    except Exception as error:
        told = as_sora_error(error)
        if told.code != "missing_input" or not any(_first(path) in told.message for path in awaited):
            raise


def _first(path: str) -> str:
    """The file that is missed first where this one isn't there."""
    return str(numbered(Path(path), 0)) if is_pattern(Path(path)) else path


def _sources(given: Mapping[str, Any]) -> list[str]:
    """The files that a job reads."""
    return [str(given[name]) for name in SOURCES if given.get(name) is not None]


def _written(given: Mapping[str, Any]) -> list[Path]:
    """The files that a job makes and no other may; a preview that is forced may stand for one job after another."""
    preview = given["preview_file"]
    return [*_outputs(given), *([] if preview is None or given["force"] else [preview])]


def _outputs(given: Mapping[str, Any]) -> tuple[Path, ...]:
    """Where the results of a job go, as far as it names that."""
    output = given["output"]
    if output is None or not output.strip() or is_folder_text(output):
        return ()
    return naming.numbered(Path(output), given.get("count") or 1)


# One after another ------------------------------------------------------------------------------------------


def run(batch: Batch, plans: Sequence[Plan], console: Console) -> None:
    """Makes what was planned, or tells the plans. Results are told as they come, and again in the last JSON object.

    Raises SoraError once all are through if some failed; `interrupted` at once.
    """
    failed: dict[int, SoraError] = {}
    console.more = {"outputs": [], "jobs": []}
    for plan in plans:
        try:
            _run_one(batch, plan, console, failed, f"{plan.job.number} of {len(plans)}")
        except KeyboardInterrupt as error:
            told = f"stopped in job {plan.job.number} of {len(plans)}"
            raise SoraError("interrupted", told, f"go on with {_again(console)}") from error
    if failed:
        worst = max(failed.values(), key=lambda error: error.exit_code == 1)
        raise SoraError(worst.code, f"{len(failed)} of {len(plans)} jobs failed", f"go on with {_again(console)}")
    console.done("batch")


def _run_one(batch: Batch, plan: Plan, console: Console, failed: dict[int, SoraError], which: str) -> None:
    """Runs one job to its end, good or bad: what it told joins the batch's object, its error `failed`."""
    job = plan.job
    mine = JobConsole(job.number, console.mode, quiet=console.quiet, again=["sora", job.name, *job.words()])
    mine.begin(f"job {which}: {_title(job)}")
    try:
        _run_planned(batch, plan, mine, failed)
    except BrokenPipeError:
        raise
    except Exception as error:
        failed[job.line] = _told(batch, job, error, mine)
    finally:
        mine.close()
    if mine.ended is not None:
        console.more["jobs"].append({"job": job.number, "line": job.line, **mine.ended})
        console.more["outputs"] += mine.ended.get("outputs", [])
    if not batch.dry:
        _tidy()


def _tidy() -> None:
    """Leaves no job's memory to the next, nor its peak."""
    gc.collect()
    give_back_memory()
    forget_peak_memory()


def _run_planned(batch: Batch, plan: Plan, console: JobConsole, failed: Mapping[int, SoraError]) -> None:
    for path, line in plan.awaited.items():
        if line in failed:
            raise SoraError("missing_input", path, f"line {line}, which makes it, failed")
    if plan.made:
        console.skip(plan.job.name, "it is there already")
    elif batch.dry and plan.awaited:
        path, line = next(iter(plan.awaited.items()))
        console.skip(plan.job.name, f"it is planned when line {line} has made {path}")
    else:
        if goes_on(batch.context) and not plan.named:
            console.note("it names no output, so that nobody knows whether it was made: it is made again")
        _run(batch, plan.job, console, *([CHECK] if batch.dry else []))


def _run(batch: Batch, job: Job, console: JobConsole, *more: str) -> None:
    with _parsed(batch, job, console, *more) as context:
        job.command.invoke(context)


def _parsed(batch: Batch, job: Job, console: JobConsole, *more: str) -> Any:
    """The job's own context, to be used in a `with` block. Raises what the parsing of its options raises."""
    root = batch.context.find_root()
    return job.command.make_context(job.name, job.words(*more), parent=root, obj=console)


def _silent(job: Job) -> JobConsole:
    return JobConsole(job.number, Mode.JSON, quiet=True, again=())


def _told(batch: Batch, job: Job, error: Exception, console: JobConsole) -> SoraError:
    """The error as it was told; without what it refers to, which may be large."""
    why = explained(error)
    told = SoraError(why.code, f"{place_of(batch.source, job.line)}: {why.message}", why.hint)
    console.error(job.name, told)
    if batch.context.params["debug"]:
        traceback.print_exception(error)
    return told


def _title(job: Job) -> str:
    named = [option.removeprefix("--output=") for option in job.options if option.startswith("--output=")]
    return one_line(" ".join((job.name, *(named or job.arguments[:1]))))[:100]


def _again(console: Console) -> str:
    """The command line that does what is left."""
    words = console.again if "--resume" in console.again else [*console.again[:2], "--resume", *console.again[2:]]
    return shlex.join(words)
