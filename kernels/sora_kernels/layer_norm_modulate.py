"""Adaptive layer norm: normalise, then shift and scale from the conditioning."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from sora_kernels.dispatch import Backend, dispatch
from sora_kernels.precision import by_blocks, widen
from sora_kernels.refusals import row_refusal, triton_refusal
from sora_kernels.shapes import check_modulation


def layer_norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6, *, backend: str = "auto") -> Tensor:
    """`layer_norm(x) * (1 + scale) + shift`, the norm over the last axis without weights of its own.

    x (b, n, d); shift and scale (b or 1, n or 1, d) in any floating dtype. Returns x's shape and dtype.
    Source: adaLN of Peebles and Xie, Scalable Diffusion Models with Transformers (2022).
    Raises ValueError for a shift or scale that does not broadcast to x.
    """
    check_modulation("layer_norm_modulate", "shift", shift, x)
    check_modulation("layer_norm_modulate", "scale", scale, x)
    result: Tensor = dispatch("layer_norm_modulate", BACKENDS, backend, x, shift, scale, eps)
    return result


def layer_norm_modulate_ref(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """`layer_norm_modulate` in plain PyTorch, in the precision of x."""
    centred = x - x.mean(-1, keepdim=True)
    normalised = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    return (normalised * (1 + scale) + shift).to(x.dtype)


def _torch(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    if shift.shape == scale.shape == (1, 1, x.shape[-1]):
        return _one_pass(x, shift, scale, eps)
    if x.dtype == shift.dtype == scale.dtype:
        return _modulated(x, shift, scale, eps)
    return by_blocks(partial(_modulated, eps=eps), x, widen(shift), widen(scale))


def _one_pass(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """One shift for all tokens is an ordinary layer norm with weight 1 + scale and bias shift."""
    wide = widen(x) if x.device.type != "cpu" or x.dtype == torch.float16 else x
    weight, bias = (1 + widen(scale)).flatten(), widen(shift).flatten()
    return functional.layer_norm(wide, x.shape[-1:], weight, bias, eps).to(x.dtype)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """All in one dtype: both of PyTorch's kernels compute in float32 and round once each."""
    return torch.addcmul(shift, functional.layer_norm(x, x.shape[-1:], eps=eps), 1 + scale)


def _triton(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    from sora_kernels._triton import layer_norm_modulate as kernel

    return kernel.run(x, shift, scale, eps)


def _triton_refuses(x: Tensor, shift: Tensor, scale: Tensor, _eps: float) -> str | None:
    return triton_refusal(x, shift, scale) or row_refusal(x.shape[-1])


BACKENDS = (
    Backend("torch", _torch),
    Backend("triton", _triton, _triton_refuses),
    Backend("reference", layer_norm_modulate_ref),
)
