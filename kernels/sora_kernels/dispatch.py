"""Which implementation of an operator runs: the first that can, or exactly the one asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

AUTO_ON_CUDA: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "rms_norm": ("torch",),
    "layer_norm_modulate": ("triton", "torch"),
    "gated_residual": ("triton", "torch"),
    "rope": ("triton", "torch"),
    "qk_norm_rope": ("triton", "torch"),
    "norm_silu": ("triton", "torch"),
    "attention": ("torch",),
    "window_attention": ("triton", "torch"),
    "qk_norm_rope_attention": ("triton+torch", "torch"),
    "causal_conv": ("torch",),
})  # fmt: skip
"""The backends among which "auto" takes the first that can, where the first tensor lies on a CUDA device.

By what was measured on an NVIDIA H200 in bfloat16 on 2026-11-27, torch 2.11 and triton 3.6 (kernels/README.md): exact
attention and convolution stay with cuDNN, which PyTorch calls, at 1.25 and 1.6 times the speed of ours, and rms_norm
with PyTorch's own kernel, at 1.06 to 1.3 times. Triton prepares queries and keys in 0.3 ms where compiled code takes
0.4 and the formula 2.2, modulates in 0.17 (0.23, 0.34), turns in 0.19 (0.18, 0.81), sees windows in 7.8 where
FlexAttention takes 9.9, and gates faster than the formula. Elsewhere an operator's own order counts, and PyTorch, which
runs anything, comes first.
"""


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
    run: Callable[..., Any]
    refusal: Callable[..., str | None] = _runs_anything


def dispatch(operator: str, backends: tuple[Backend, ...], wanted: str, *args: Any, **kwargs: Any) -> Any:
    """Run `operator` on the backend `wanted`, or for "auto" on the first that can; the first argument is a tensor.

    Raises BackendError when a backend asked for by name is unknown or refuses: a name never falls back.
    """
    if wanted == "auto":
        return _first_able(operator, _in_order(operator, backends, args[0]), args, kwargs).run(*args, **kwargs)
    chosen = _named(operator, backends, wanted)
    if reason := chosen.refusal(*args, **kwargs):
        raise BackendError(f"{operator} on backend {wanted!r}: {reason}; use backend='auto'")
    return chosen.run(*args, **kwargs)


def refusal_of(backends: tuple[Backend, ...], name: str, *args: Any) -> str | None:
    """Why the backend of that name can't run these arguments, or None if it can; for operators made of others."""
    return _named("operator", backends, name).refusal(*args)


def _in_order(operator: str, backends: tuple[Backend, ...], x: Tensor) -> Iterable[Backend]:
    if not x.is_cuda or operator not in AUTO_ON_CUDA:
        return backends
    return [_named(operator, backends, name) for name in AUTO_ON_CUDA[operator]]


def _named(operator: str, backends: tuple[Backend, ...], wanted: str) -> Backend:
    for backend in backends:
        if backend.name == wanted:
            return backend
    known = ", ".join(backend.name for backend in backends)
    raise BackendError(f"{operator} has no backend {wanted!r}; use auto, {known}")


def _first_able(operator: str, backends: Iterable[Backend], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Backend:
    for backend in backends:
        if backend.refusal(*args, **kwargs) is None:
            return backend
    raise BackendError(f"{operator}: none of its backends can run these arguments")
