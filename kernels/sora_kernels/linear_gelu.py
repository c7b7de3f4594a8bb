"""A linear layer and the GELU behind it, as the MLPs of diffusion transformers begin."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sora_kernels.dispatch import Backend, dispatch
from sora_kernels.precision import records_gradient
from sora_kernels.shapes import check_linear

ONEDNN_DTYPES = (torch.float32, torch.bfloat16)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """`gelu(x weight^T + bias)`, GELU by its approximation with tanh (Hendrycks & Gimpel 2016, arXiv:1606.08415).

    x (..., k), weight (n, k), bias (n,) or None, all of one dtype. Returns (..., n).
    Backend "onednn" applies GELU to sums that are still in the processor's cache.
    Raises ValueError for a weight or bias of another width.
    """
    check_linear("linear_gelu", weight, bias, x)
    result: Tensor = dispatch("linear_gelu", BACKENDS, backend, x, weight, bias)
    return result


def linear_gelu_ref(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear_gelu` in plain PyTorch, in the precision of x."""
    return functional.gelu(functional.linear(x, weight, bias), approximate="tanh")


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "tanh")
    return result


def _onednn_refuses(x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    if x.device.type != "cpu":
        return f"it runs on a CPU, not on {x.device.type}"
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (built and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return "this build of PyTorch is without oneDNN"
    if x.dtype not in ONEDNN_DTYPES or {part.dtype for part in (weight, bias) if part is not None} != {x.dtype}:
        return f"it takes float32 or bfloat16 throughout, not {x.dtype} with {weight.dtype}"
    if x.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "this processor lacks what oneDNN needs for bfloat16"
    if torch.is_autocast_enabled("cpu") or records_gradient(x, weight, bias):
        return "it knows no gradients and no autocast"
    return "an empty tensor" if x.numel() == 0 else None


BACKENDS = (
    Backend("onednn", _onednn, _onednn_refuses),
    Backend("torch", linear_gelu_ref),
    Backend("reference", linear_gelu_ref),
)
