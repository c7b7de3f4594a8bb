"""Root-mean-square norm over the last axis."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sora_kernels.dispatch import Backend, dispatch
from sora_kernels.precision import by_blocks, records_gradient, widen
from sora_kernels.refusals import row_refusal, triton_refusal
from sora_kernels.shapes import check_width


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6, *, backend: str = "auto") -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight`, over the last axis.

    x (..., d); weight (d,) in any floating dtype, or None. Returns x's shape and dtype.
    Source: Zhang and Sennrich, Root Mean Square Layer Normalization (2019), equation 4.
    Raises ValueError for a weight of another width.
    """
    check_width("rms_norm", "weight", weight, x)
    result: Tensor = dispatch("rms_norm", BACKENDS, backend, x, weight, eps)
    return result


def rms_norm_ref(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """`rms_norm` in plain PyTorch, in the precision of x."""
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return y if weight is None else (y * weight).to(x.dtype)


def normalise(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """The formula on x as it is, without the cast at the end."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    y = x * torch.rsqrt(norm.square() / x.shape[-1] + eps)
    if weight is None:
        return y
    return y * weight if records_gradient(y, weight) else y.mul_(weight)


def _torch(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    if x.is_cuda and (weight is None or weight.dtype == x.dtype):  # one kernel, where a CPU has several
        return functional.rms_norm(x, x.shape[-1:], weight, eps)
    wide_weight = None if weight is None else widen(weight)
    return by_blocks(lambda rows: normalise(rows, wide_weight, eps), x)


def _triton(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    from sora_kernels._triton import rms_norm as kernel

    return kernel.run(x, weight, eps)


def _triton_refuses(x: Tensor, weight: Tensor | None, _eps: float) -> str | None:
    return triton_refusal(x, weight) or row_refusal(x.shape[-1])


BACKENDS = (
    Backend("torch", _torch),
    Backend("triton", _triton, _triton_refuses),
    Backend("reference", rms_norm_ref),
)
