"""Small layers that several networks share."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from sora_kernels import linear_gelu, rms_norm


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis with a learned scale (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return rms_norm(x, self.weight.to(x.dtype), self.eps)


Activation = Callable[[Tensor], Tensor]
gelu_tanh: Activation = partial(F.gelu, approximate="tanh")


class Projector(nn.Module):
    """Two linear layers with an activation between, SiLU unless another is given."""

    def __init__(self, inward: int, width: int, activation: Activation = F.silu, inner: int | None = None) -> None:
        super().__init__()
        self.inward = nn.Linear(inward, inner or width)
        self.outward = nn.Linear(inner or width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., inward) -> (..., width)."""
        if self.activation is gelu_tanh:
            return self.outward(linear_gelu(x, self.inward.weight, self.inward.bias))
        return self.outward(self.activation(self.inward(x)))


def learned(*shape: int) -> nn.Parameter:
    """A table to be learned, of small normal values.

    On the meta device it has none: to draw them there PyTorch would load its compiler and sympy, 150 MB that stay.
    """
    table = torch.empty(*shape)
    return nn.Parameter(table if table.is_meta else table.normal_() * 0.02)


def sinusoid(values: Tensor, width: int, longest: float = 10_000.0) -> Tensor:  # (...) -> (..., width)
    """Cosines and sines of `values` at geometric frequencies (Vaswani et al. 2017, section 3.5); float32."""
    rates = torch.exp(-math.log(longest) * torch.arange(width // 2, device=values.device) / (width // 2))
    angles = values.float()[..., None] * rates
    return torch.cat([angles.cos(), angles.sin()], -1)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zero what lies outside a padded sample: x (b, c, t, h, w), mask (b, t, h, w) or None."""
    return x if mask is None else x * rearrange(mask, "b t h w -> b 1 t h w").to(x.dtype)


class FrameConv(nn.Module):
    """A 3x3 convolution over (h, w) of every frame; padding of a batch counts as the outside of the picture."""

    def __init__(self, inward: int, outward: int, *, zero: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inward, outward, 3, padding=1)
        if zero:
            nn.init.zeros_(self.conv.weight)
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(b, c, t, h, w) -> (b, c', t, h, w); the mask is (b, t, h, w)."""
        frames = rearrange(masked(x, mask), "b c t h w -> (b t) c h w").contiguous(memory_format=torch.channels_last)
        return rearrange(self.conv(frames), "(b t) c h w -> b c t h w", b=len(x))


class FrameResidual(nn.Module):
    """x + conv(silu(conv(silu(norm(x))))) over (h, w), the last convolution starting at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels)
        self.first = FrameConv(channels, channels)
        self.second = FrameConv(channels, channels, zero=True)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(b, c, t, h, w) -> (b, c', t, h, w); the mask is (b, t, h, w)."""
        y = rearrange(self.norm(rearrange(x, "b c t h w -> b t h w c")), "b t h w c -> b c t h w")
        y = self.first(F.silu(y), mask)
        return x + self.second(F.silu(y), mask)
