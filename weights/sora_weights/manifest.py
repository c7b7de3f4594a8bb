"""A model's description in JSON, which may come from anyone: every value is checked as it is taken."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from sora_weights.errors import WeightsError

MAX_BYTES = 16 * 2**20
MAX_VALUE = 10**6

T = TypeVar("T")


class Manifest:
    """A JSON object from a file; `take` hands out its values, checked, and errors name file and field."""

    def __init__(self, path: Path, values: Mapping[str, Any], prefix: str = "") -> None:
        self.path = path
        self._values = values
        self._prefix = prefix

    @property
    def values(self) -> Mapping[str, Any]:
        """The values as they are, unchecked."""
        return self._values

    def get(self, field: str, read: Callable[[Any], T], default: T) -> T:
        """The field's value through `read`; `default` where the field is missing or null."""
        return default if self._values.get(field) is None else self.take(field, read)

    def take(self, field: str, read: Callable[[Any], T]) -> T:
        """The field's value through `read`, which raises ValueError or TypeError for one it can't use."""
        if field not in self._values:
            raise self._bad(field, "is missing")
        try:
            return read(self._values[field])
        except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
            raise self._bad(field, f"can't be {str(self._values[field])[:60]!r}") from error

    def has(self, field: str) -> bool:
        """Whether it is there."""
        return field in self._values

    def take_spec(self, field: str, spec: type[T]) -> T:
        """A dataclass of positive whole numbers; what the file leaves out has the dataclass's default."""
        inner = Manifest(self.path, self.take(field, mapping), f"{self._prefix}{field}.")
        names = {each.name for each in fields(spec)}  # type: ignore[arg-type]
        for name in inner._values:
            if name not in names:
                raise inner._bad(name, "is unknown")
        try:
            return spec(**{name: inner.take(name, positive) for name in inner._values})
        except TypeError as error:
            raise self._bad(field, f"is incomplete ({error})") from error

    def inner(self, field: str) -> "Manifest":
        """The object in a field."""
        return Manifest(self.path, self.take(field, mapping), f"{self._prefix}{field}.")

    def _bad(self, field: str, problem: str) -> WeightsError:
        return WeightsError("bad_weights", f"{self.path}: {self._prefix}{field[:60]} {problem}", "get the model again")


def read_manifest(path: Path) -> Manifest:
    """The JSON object in `path`. Raises WeightsError("bad_weights") for anything else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("too large")
        values = mapping(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError("bad_weights", f"{path}: it is not a model's JSON", "get the model again") from error
    return Manifest(path, values)


def mapping(value: Any) -> Mapping[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise TypeError("an object is needed")
    return value


def text(value: Any) -> str:
    """A JSON string."""
    if not isinstance(value, str):
        raise TypeError("a string is needed")
    return value


def name(value: Any) -> str:
    """A name that can be typed after an option and can't be mistaken for a path."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text(value)):
        raise ValueError("letters, digits, dots, dashes")
    return text(value)


def file_names(value: Any) -> list[str]:
    """The keys of a JSON object that are names of files in its own folder."""
    names = list(mapping(value))
    if any(name in ("", ".", "..") or re.search(r"[/\\:\0]", name) for name in names):
        raise ValueError("files in the same folder are needed")
    return names


def sha256(value: Any) -> str:
    """A SHA-256 in lower-case hexadecimal."""
    if not re.fullmatch(r"[0-9a-f]{64}", text(value)):
        raise ValueError("64 hexadecimal digits are needed")
    return text(value)


def positive(value: Any) -> int:
    """A whole number from 1 to a million."""
    if type(value) is not int or not 1 <= value <= MAX_VALUE:
        raise ValueError("a positive whole number is needed")
    return value


def amount(value: Any) -> float:
    """A number from 0 to a million."""
    if type(value) not in (int, float) or not 0 <= value <= MAX_VALUE:
        raise ValueError("a number that is not negative is needed")
    return float(value)


def flag(value: Any) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise TypeError("true or false is needed")
    return value


def number(value: Any) -> float:
    """A number between minus and plus a million."""
    if type(value) not in (int, float) or not -MAX_VALUE <= value <= MAX_VALUE:
        raise ValueError("a number is needed")
    return float(value)


def tuple_of(read: Callable[[Any], T], most: int = 4096) -> Callable[[Any], tuple[T, ...]]:
    """A list of at most `most` values, each through `read`."""

    def each(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list) or not 0 < len(value) <= most:
            raise ValueError("a list is needed")
        return tuple(read(item) for item in value)

    return each


def up_to(most: int) -> Callable[[Any], int]:
    """A whole number from 1 to `most`."""

    def read(value: Any) -> int:
        if positive(value) > most:
            raise ValueError(f"at most {most}")
        return positive(value)

    return read


def rate(value: Any) -> Fraction:
    """Frames per second: 24, "24" or "30000/1001"."""
    if type(value) not in (int, str) or not re.fullmatch(r"[0-9]{1,6}(/[0-9]{1,6})?", str(value)):
        raise ValueError("a frame rate is needed")
    return Fraction(value)


def names(value: Any) -> tuple[str, ...]:
    """A list of names in an order that matters."""
    if not isinstance(value, list):
        raise TypeError("a list is needed")
    return tuple(text(each) for each in value)


def phrases(value: Any) -> tuple[tuple[str, ...], ...]:
    """A list of lists of names, none of them empty."""
    if not isinstance(value, list) or not all(value):
        raise TypeError("a list of lists is needed")
    return tuple(names(each) for each in value)


def words(value: Any) -> frozenset[str] | None:
    """A list of words, or null."""
    if value is None:
        return None
    if not isinstance(value, list):
        raise TypeError("a list is needed")
    return frozenset(text(word) for word in value)
