"""What a command hands back, and its JSON."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol

SCHEMA = "sora/1"


class Progress(Protocol):
    """How long work tells where it stands."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A named stage begins, of `total` units where that is known."""

    def step(self, done: int, detail: str = "") -> None:
        """`done` units of the stage are finished."""

    def note(self, text: str) -> None:
        """A line that the user must see, on stderr and among the JSON's notes."""


@dataclass(frozen=True, slots=True)
class Output:
    """One result on disk; sizes in pixels, `fps` in frames per second."""

    path: str
    kind: Literal["video", "image", "frames"]
    width: int
    height: int
    frames: int
    fps: Fraction | None
    seconds: float | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which weights made a result; `digest` is the sha256 over their files."""

    name: str
    family: str
    digest: str


@dataclass(frozen=True, slots=True)
class Result:
    """A finished piece of work; `timings` in seconds by stage, `peak` in bytes."""

    outputs: tuple[Output, ...]
    model: ModelInfo
    notes: tuple[str, ...]
    metrics: dict[str, Any]
    timings: dict[str, float]
    peak: dict[str, int | None]


def merge(results: Sequence[Result]) -> Result:
    """The results of `--count N` as one: outputs in order, times added, the highest peak."""
    stages = dict.fromkeys(stage for result in results for stage in result.timings)
    measured = [name for name in results[0].metrics if all(name in result.metrics for result in results)]
    places = dict.fromkeys(place for result in results for place in result.peak)
    return Result(
        outputs=tuple(output for result in results for output in result.outputs),
        model=results[0].model,
        notes=tuple(dict.fromkeys(note for result in results for note in result.notes)),
        metrics={name: _all(result.metrics[name] for result in results) for name in measured},
        timings={stage: sum(result.timings.get(stage, 0.0) for result in results) for stage in stages},
        peak={place: _highest(result.peak.get(place) for result in results) for place in places},
    )


def _all(values: Iterable[Any]) -> Any:
    """One measure of several results: where there are lists, the entries of all, else that of the first."""
    first, *others = values
    return first if not isinstance(first, tuple) else sum(others, first)


def _highest(values: Any) -> int | None:
    return max((value for value in values if value is not None), default=None)


def rate_json(fps: Fraction | None) -> int | str | None:
    """A frame rate as JSON carries it, exactly: 24, or "30000/1001" where it is not whole."""
    if fps is None:
        return None
    return fps.numerator if fps.denominator == 1 else str(fps)


def output_json(output: Output) -> dict[str, Any]:
    """One entry of the JSON's `outputs`."""
    return {
        "path": output.path,
        "kind": output.kind,
        "width": output.width,
        "height": output.height,
        "frames": output.frames,
        "fps": rate_json(output.fps),
        "seconds": output.seconds,
        "sha256": output.sha256,
    }


def result_json(
    result: Result, *, command: str, seed: int, request: Mapping[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    """The whole object that `--json` prints for a command that makes something."""
    return {
        "schema": SCHEMA,
        "ok": True,
        "command": command,
        "outputs": [output_json(output) for output in result.outputs],
        "model": {"name": result.model.name, "family": result.model.family, "digest": result.model.digest},
        "seed": seed,
        "request": dict(request),
        "notes": list(notes),
        "metrics": finite(result.metrics),
        "timings": finite(result.timings),
        "peak": {place: result.peak.get(place) for place in ("rss_bytes", "device_bytes")},
    }


def finite(value: Any) -> Any:
    """`value` with null for what JSON can't write: infinities and NaN."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: finite(item) for key, item in value.items()}
        case list() | tuple():
            return [finite(item) for item in value]
        case Fraction():
            return str(value)
    return value
