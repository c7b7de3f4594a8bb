"""A residual branch let in through a gate."""

from __future__ import annotations

import torch
from torch import Tensor

from sora_kernels.dispatch import Backend, dispatch
from sora_kernels.refusals import triton_refusal
from sora_kernels.shapes import check_alike, check_modulation


def gated_residual(x: Tensor, y: Tensor, gate: Tensor, *, backend: str = "auto") -> Tensor:
    """`x + gate * y`, rounded once.

    x and y (b, n, d), gate (b or 1, n or 1, d). Returns x's shape and dtype: a float32 residual stream stays
    float32 when the branch is narrower.
    Raises ValueError when y is not shaped like x or the gate does not broadcast to it.
    """
    check_alike("gated_residual", x, y)
    check_modulation("gated_residual", "gate", gate, x)
    result: Tensor = dispatch("gated_residual", BACKENDS, backend, x, y, gate)
    return result


def gated_residual_ref(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """`gated_residual` in plain PyTorch, in the precision of x."""
    return (x + gate * y).to(x.dtype)


def _torch(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    return torch.addcmul(x, y.to(x.dtype), gate.to(x.dtype))


def _triton(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    from sora_kernels._triton import gated_residual as kernel

    return kernel.run(x, y, gate)


def _triton_refuses(x: Tensor, y: Tensor, gate: Tensor) -> str | None:
    return triton_refusal(x, y, gate)


BACKENDS = (
    Backend("torch", _torch),
    Backend("triton", _triton, _triton_refuses),
    Backend("reference", gated_residual_ref),
)
