"""Values of a checkpoint's JSON files, each checked before anything is built from it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sora_weights.errors import WeightsError

REMEDY = "use the model's own files"
MISSING = object()


@dataclass(frozen=True, slots=True)
class Values:
    """What a JSON file `name` holds. Every reader raises WeightsError("bad_weights") for a value that can't be."""

    name: str
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            raise WeightsError("bad_weights", f"{self.name}: it is no JSON object", REMEDY)

    def count(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from `low` to `high`."""
        value = self.values.get(key, default)
        if type(value) is not int or not low <= value <= high:
            raise self.bad(key)
        return value

    def share(self, key: str, default: float | None = None) -> float:
        """A number above 0, at most 1."""
        value = self.values.get(key, default)
        if type(value) not in (int, float) or not 0 < value <= 1 or math.isnan(value):
            raise self.bad(key)
        return float(value)

    def choice(self, key: str, choices: tuple[str, ...], default: str | None = None) -> str:
        """One of several words."""
        value = self.values.get(key, default)
        if not isinstance(value, str) or value not in choices:
            raise self.bad(key)
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.bad(key)
        return value

    def bad(self, key: str) -> WeightsError:
        """The error that names a value."""
        value = self.values.get(key, MISSING)
        problem = f"{key} is missing" if value is MISSING else f"{key} is {repr(value)[:80]}"
        return WeightsError("bad_weights", f"{self.name}: {problem}", REMEDY)
