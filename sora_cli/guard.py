"""What surrounds every command: signals, broken pipes, and exceptions that become one line."""

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import typer
from typer.core import TyperGroup

from sora_cli.console import Console, Mode
from sora_cli.errors import SoraError, explained, resume_hint


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Runs one command line of `app` and returns its exit status; never raises."""
    words = before_dashes(arguments)
    console = Console(Mode.of(words), quiet=bool({"-q", "--quiet"} & set(words)), again=["sora", *arguments])
    _prepare_process()
    command: str | None = None
    try:
        group = typer.main.get_command(app)
        command = _command_named(group, words)
        return _run(group, arguments, console)
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        return _fail(error, command, console, debug="--debug" in words)


def before_dashes(arguments: Sequence[str]) -> Sequence[str]:
    """The words that may be options: those before a lone `--`."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _run(group: object, arguments: Sequence[str], console: Console) -> int:
    assert isinstance(group, TyperGroup)
    words = before_dashes(arguments)
    if {"--json", "--json-stream"} <= set(words):
        raise SoraError("bad_usage", "--json and --json-stream", "they exclude each other; give one of them")
    if not arguments:
        raise SoraError("bad_usage", "no command", 'try sora generate "a cat at sunset", or see sora --help')
    try:
        with group.make_context("sora", list(arguments), obj=console) as context:
            group.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    finally:
        console.close()
    sys.stdout.flush()
    return 0


def _fail(error: BaseException, command: str | None, console: Console, *, debug: bool) -> int:
    """Prints the error and returns its exit status."""
    told = explained(error)
    if isinstance(error, KeyboardInterrupt) and resume_hint(error) is None:
        told = SoraError("interrupted", told.message, f"start again with {shlex.join(console.again)}")
    try:
        console.error(command, told)
        if debug:
            traceback.print_exception(error)
        sys.stdout.flush()
    except OSError:  # nobody is left to be told
        _silence_stdout()
    return told.exit_code


def _command_named(group: object, words: Sequence[str]) -> str | None:
    """The command that a command line names, even one that can't be parsed."""
    assert isinstance(group, TyperGroup)
    return next((word for word in words if word in group.commands), None)


def _prepare_process() -> None:
    """SIGTERM and a closed terminal stop the work as Ctrl-C does; any file name can be printed as it is."""
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        signal.signal(signal.SIGHUP, _stop)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: print would take the other one instead
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors())


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _silence_stdout() -> None:
    """The reader has gone; what is still buffered must not raise when Python exits."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
