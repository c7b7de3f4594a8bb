"""Which implementation of an operator runs: the first that can, or exactly the one asked for by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


class BackendError(RuntimeError):
    """A backend was asked for by name and does not exist or cannot run these arguments."""


def _runs_anything(*_args: Any, **_kwargs: Any) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Backend:
    """One implementation of an operator.

    `refusal` gets the operator's arguments and says in words why they can't be run, or None if they can.
    """

    name: str
    run: Callable[..., Tensor]
    refusal: Callable[..., str | None] = _runs_anything


def dispatch(operator: str, backends: tuple[Backend, ...], wanted: str, *args: Any, **kwargs: Any) -> Tensor:
    """Run `operator` on the backend `wanted`, or for "auto" on the first of `backends` that can.

    Raises BackendError when a backend asked for by name is unknown or refuses: a name never falls back.
    """
    chosen = _first_able(operator, backends, args, kwargs) if wanted == "auto" else _named(operator, backends, wanted)
    if wanted != "auto" and (reason := chosen.refusal(*args, **kwargs)):
        raise BackendError(f"{operator} on backend {wanted!r}: {reason}; use backend='auto'")
    return chosen.run(*args, **kwargs)


def _named(operator: str, backends: tuple[Backend, ...], wanted: str) -> Backend:
    for backend in backends:
        if backend.name == wanted:
            return backend
    known = ", ".join(backend.name for backend in backends)
    raise BackendError(f"{operator} has no backend {wanted!r}; use auto, {known}")


def _first_able(operator: str, backends: tuple[Backend, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Backend:
    for backend in backends:
        if backend.refusal(*args, **kwargs) is None:
            return backend
    raise BackendError(f"{operator}: none of its backends can run these arguments")
