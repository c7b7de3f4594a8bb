"""Rotary position embedding over any number of axes, on interleaved pairs."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from sora_kernels.dispatch import Backend, dispatch
from sora_kernels.precision import by_blocks, widen
from sora_kernels.refusals import triton_refusal
from sora_kernels.shapes import check_table


def rope(x: Tensor, cos: Tensor, sin: Tensor, *, backend: str = "auto") -> Tensor:
    """Turn each pair (x[2i], x[2i+1]) of every token by its angle.

    x (b, heads, n, dim); cos and sin (n, dim/2), or (b, n, dim/2) where the batch's positions differ.
    Returns x's shape and dtype. Source: Su et al., RoFormer (2021), equation 34.
    Raises ValueError for an odd dim or tables of another size.
    """
    check_table("rope", x, cos, sin)
    result: Tensor = dispatch("rope", BACKENDS, backend, x, cos, sin)
    return result


def rope_ref(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rope` in plain PyTorch, in the precision of x."""
    cos, sin = (rearrange(table.to(x.dtype), "... n pairs -> ... 1 n pairs") for table in (cos, sin))
    even, odd = rearrange(x, "... (pairs two) -> two ... pairs", two=2)
    return rearrange(torch.stack([even * cos - odd * sin, even * sin + odd * cos]), "two ... pairs -> ... (pairs two)")


def rope_table(positions: Tensor, dims: tuple[int, ...], theta: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines for `rope`: axis a turns its pair i by positions[..., a] * theta^(-2i / dims[a]).

    positions (..., n, axes) in the units that the network was trained in, fractions allowed; dims even, one
    per axis, in the order in which they lie in the head. Returns two float32 tensors (..., n, sum(dims)/2);
    angles are computed in float64. Raises ValueError for an odd dim or another number of axes.
    """
    if positions.shape[-1] != len(dims) or any(dim % 2 for dim in dims):
        raise ValueError(f"rope_table: dims {dims} must be even, one for each of {positions.shape[-1]} axes")
    device = positions.device
    if device.type == "mps":  # has no float64
        positions = positions.cpu()
    angles = [
        axis.double()[..., None] * _frequencies(dim, theta, positions.device)
        for axis, dim in zip(positions.unbind(-1), dims, strict=True)
    ]
    angle = torch.cat(angles, dim=-1)
    return angle.cos().float().to(device), angle.sin().float().to(device)


def turns(cos: Tensor, sin: Tensor) -> Tensor:
    """The tables as complex numbers with an axis for the heads: (..., 1, n, pairs)."""
    return rearrange(torch.complex(widen(cos), widen(sin)), "... n pairs -> ... 1 n pairs")


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """The tokens x (b, heads, n, dim), float32 or float64, times `turn`, each pair one complex number."""
    pairs = torch.view_as_complex(rearrange(_viewable(x), "... (pairs two) -> ... pairs two", two=2))
    return rearrange(torch.view_as_real(pairs * turn), "... pairs two -> ... (pairs two)")


def _frequencies(dim: int, theta: float, device: torch.device) -> Tensor:
    exponents = torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim
    return torch.pow(theta, -exponents)


def _viewable(x: Tensor) -> Tensor:
    """The tensor itself where pairs lie at even offsets, as a complex view needs; otherwise a copy."""
    aligned = x.stride(-1) == 1 and not any(stride % 2 for stride in (*x.stride()[:-1], x.storage_offset()))
    return x if aligned else x.contiguous()


def _torch(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return by_blocks(turned, x, turns(cos, sin))


def _triton(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    from sora_kernels._triton import rope as kernel

    return kernel.run(x, cos, sin)


def _triton_refuses(x: Tensor, cos: Tensor, sin: Tensor) -> str | None:
    return triton_refusal(x, cos, sin)


BACKENDS = (
    Backend("torch", _torch),
    Backend("triton", _triton, _triton_refuses),
    Backend("reference", rope_ref),
)
