"""The lines of a batch: each is one JSON object that stands for a command line, and is parsed as one."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup

from sora_cli.errors import SoraError
from sora_cli.request import Request, bad
from sora_cli.settings import KEYS

STDIN = "-"
EXAMPLE = '{"command": "generate", "prompt": "a cat"}'
WHOLE_BATCH = ("dry_run", "json", "json_stream", "quiet", "debug")
KINDS: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}

Parameter = Any  # of typer's own copy of click


@dataclass(frozen=True, slots=True)
class Job:
    """One line of a batch as the command line that it stands for; jobs and lines are counted from 1."""

    number: int
    line: int
    command: TyperCommand
    options: tuple[str, ...]
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """The command's name."""
        return str(self.command.name)

    def words(self, *more: str) -> list[str]:
        """What follows the command's name, with `more` options."""
        return [*self.options, *more, "--", *self.arguments]


def place_of(source: str, line: int | None = None) -> str:
    """What errors call the file, or a line of it."""
    name = "stdin" if source == STDIN else source
    return name if line is None else f"{name} line {line}"


def read_lines(source: str) -> list[tuple[int, str]]:
    """The lines of a file, or of stdin, that are neither blank nor comments, with their numbers.

    Raises SoraError: missing_input or bad_input.
    """
    try:
        content = _stdin() if source == STDIN else Path(source).read_bytes()
        lines = content.decode("utf-8-sig").split("\n")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SoraError("missing_input", place_of(source), "there is no such file; name one of JSON lines") from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise SoraError("bad_input", place_of(source), f"it can't be read ({why}); name a text file") from error
    found = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    found = [(number, line) for number, line in found if line and not line.startswith("#")]
    if not found:
        raise SoraError("bad_input", place_of(source), f"no job is in it; try {EXAMPLE}")
    return found


def _stdin() -> bytes:
    return b"" if sys.stdin is None else sys.stdin.buffer.read()  # None where it was closed


def job_of(number: int, line: int, text: str, group: TyperGroup) -> Job:
    """The job that a line describes. Raises SoraError: bad_usage or bad_input."""
    given = _object(text)
    command = _command(given.pop("command", None), group)
    if {"width", "height"} <= set(given):
        given = _from_request(command, given)
    values = _values(command, given)
    arguments = [each for each in command.params if isinstance(each, TyperArgument)]
    for each in arguments:
        if each.required and each.name not in values:
            raise bad(f"no {_label(each)}", f'{command.name} needs it: "{_label(each)}": ...')
    options = [each for each in command.params if each not in arguments and each.name in values]
    return Job(
        number,
        line,
        command,
        tuple(_option(each, values[str(each.name)]) for each in options),
        tuple(values[each.name] for each in arguments if each.name in values),
    )


def _object(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SoraError("bad_input", _short(text), f"it is not JSON: {str(error)[:100]}") from error
    if not isinstance(given, dict):
        raise SoraError("bad_input", _short(text), f"it is no object; try {EXAMPLE}")
    return given


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name[:40]} stands there twice")
    return dict(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _command(name: Any, group: TyperGroup) -> TyperCommand:
    """The command of that name, if it is one that draws. Raises SoraError("bad_usage")."""
    drawing = {
        each: command
        for each, command in group.commands.items()
        if isinstance(command, TyperCommand) and any(parameter.name == "seed" for parameter in command.params)
    }
    if not isinstance(name, str) or name not in drawing:
        told = "no command" if name is None else f"command {_short(json.dumps(name, ensure_ascii=False))}"
        raise bad(told, f"it is one of {', '.join(drawing)}")
    return drawing[name]


def _values(command: TyperCommand, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, by the command's own names of parameters: text, or True. Raises SoraError("bad_usage")."""
    named = {key: each for each in command.params for key in _keys(each)}
    values: dict[str, Any] = {}
    for key, value in given.items():
        parameter = named.get(key.replace("_", "-"))
        if parameter is None:
            known = ", ".join(_label(each) for each in command.params if each.name not in WHOLE_BATCH)
            raise bad(f"{_short(key)} of {command.name}", f"it is not known; there are {known}")
        if parameter.name in WHOLE_BATCH:
            raise bad(key, f"it is for the whole batch: sora batch {parameter.opts[0]}")
        if parameter.name in values:
            raise bad(key, f"it is given twice; {_label(parameter)} is enough")
        if value is not None and value is not False:
            values[parameter.name] = _text(parameter, key, value)
        elif value is False and not _is_flag(parameter):
            _text(parameter, key, value)
    return values


def _keys(parameter: Parameter) -> Iterator[str]:
    """The names under which a line may give a parameter, with hyphens."""
    if isinstance(parameter, TyperArgument):
        yield from {str(parameter.name), str(parameter.metavar).lower()}
    else:
        yield from (text.removeprefix("--") for text in parameter.opts if text.startswith("--"))


def _label(parameter: Parameter) -> str:
    """The name under which help speaks of a parameter."""
    return str(parameter.name) if isinstance(parameter, TyperArgument) else str(parameter.opts[0]).removeprefix("--")


def _is_flag(parameter: Parameter) -> bool:
    return bool(getattr(parameter, "is_flag", False))


def _kinds(parameter: Parameter) -> tuple[type, ...]:
    """The types that a value may have, as in the settings files."""
    if _is_flag(parameter):
        return (bool,)
    return (int, float) if parameter.name == "strength" else KEYS.get(parameter.name, (str,))


def _text(parameter: Parameter, key: str, value: Any) -> str | bool:
    """The text that the command line has for a value; True for a flag. Raises SoraError("bad_usage")."""
    kinds = _kinds(parameter)
    if type(value) not in kinds:
        told = _short(json.dumps(value, ensure_ascii=False))
        raise bad(f"{key} {told}", f"it is {' or '.join(KINDS[kind] for kind in kinds)}")
    if isinstance(value, str) and "\0" in value:
        raise bad(f"{key} {_short(value)}", "it holds a character that no command line can; leave it out")
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f")
    return value if isinstance(value, bool) else str(value)


def _option(parameter: Parameter, value: str | bool) -> str:
    return str(parameter.opts[0]) if value is True else f"{parameter.opts[0]}={value}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."


def _from_request(command: TyperCommand, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a line would give to ask for the same as the `request` object of a file's metadata or of `--json`.

    Raises SoraError("bad_input") as `Request.from_json` does, and for the final of a draft.
    """
    described = {field.name for field in fields(Request)}
    delivery = {"count", "force", "metadata"}  # what `--json` puts beside the fields of a request
    beside = {name: given[name] for name in given if name not in described | delivery}
    request = Request.from_json({"command": command.name, **{name: given[name] for name in given if name in described}})
    if request.composed is not None:
        told = 'a draft\'s final is made of its file: {"command": "generate", "from": FILE, "size": ...}'
        raise SoraError("bad_input", "request.composed", told)
    asked = {name: value for name, value in request.to_json().items() if name in described - {"command", "side", "gap"}}
    asked |= {"size": f"{request.width}x{request.height}", "frames": _frames(request), str(request.side): True}
    asked |= {"prompt-b": request.prompt_b, "no-metadata": given.get("metadata") is False}
    asked |= {name: given[name] for name in ("count", "force") if name in given}
    known = {key for each in command.params for key in _keys(each)}
    return {name: value for name, value in asked.items() if name in known} | beside


def _frames(request: Request) -> int | str | None:
    if request.command == "fill":
        return None if request.gap is None else "{}-{}".format(*request.gap)
    return request.frames
