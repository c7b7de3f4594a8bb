"""RMS norm over the channels of every pixel and SiLU, as video autoencoders have them before their convolutions."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from sora_kernels.dispatch import Backend, dispatch
from sora_kernels.precision import by_blocks, records_gradient, widen
from sora_kernels.refusals import row_refusal, triton_refusal
from sora_kernels.rms_norm import normalise
from sora_kernels.shapes import check_channels


def norm_silu(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6, *, backend: str = "auto") -> Tensor:
    """`silu(x / sqrt(mean(x^2) + eps) * weight)`, the mean over the channels.

    x (b, c, ...), in channels-last order or any other; weight (c,) in any floating dtype, or None. Returns x's
    shape, dtype and order in memory. Wan's autoencoder divides by |x| and multiplies by sqrt(c), which is this
    with an eps that is next to nothing, 1e-24 say.
    Raises ValueError for a weight of another width.
    """
    check_channels("norm_silu", "weight", weight, x)
    result: Tensor = dispatch("norm_silu", BACKENDS, backend, x, weight, eps)
    return result


def norm_silu_ref(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """`norm_silu` in plain PyTorch, in the precision of x."""
    y = x * torch.rsqrt(x.square().mean(1, keepdim=True) + eps)
    return functional.silu(y if weight is None else y * weight.view(-1, *[1] * (x.dim() - 2))).to(x.dtype)


def _activated(rows: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    y = normalise(rows, weight, eps)
    return functional.silu(y, inplace=not records_gradient(y))


def _torch(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Channels last and by blocks, each small enough to stay in a processor's cache from the norm to the SiLU."""
    wide = None if weight is None else widen(weight)
    pixels = rearrange(x, "b c ... -> b ... c")
    rows = pixels.reshape(-1, x.shape[1])
    return rearrange(
        by_blocks(lambda part: _activated(part, wide, eps), rows).reshape(pixels.shape), "b ... c -> b c ..."
    )


def _triton(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    from sora_kernels._triton import norm_silu as kernel

    return kernel.run(x, weight, eps)


def _triton_refuses(x: Tensor, weight: Tensor | None, _eps: float) -> str | None:
    return triton_refusal(x, weight) or row_refusal(x.shape[1])


BACKENDS = (
    Backend("torch", _torch),
    Backend("triton", _triton, _triton_refuses),
    Backend("reference", norm_silu_ref),
)
