"""Layers of CogVideoX's video autoencoder, each computed in strips of rows so that its temporaries stay small.

Tensors are (1, c, t, h, w). A group norm sees the whole chunk, so its statistics are taken first; norm, activation and
convolution then are one pass over strips. A strip reaches one row into its neighbours, so strips give what the whole
chunk gives. Tensors are written in place: run this under `torch.no_grad`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

REACH = 2  # earlier frames that a causal convolution of three frames sees
LEAST_STRIP = 32_768  # channels * frames * rows; below some 20,000 torch takes a convolution several times as slow

Past: TypeAlias = dict[nn.Module, Tensor]
"""What a stream's causal convolutions remember: the last two frames that each of them read, (1, c, 2, h, w)."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What every layer is told about the frames that pass: they are computed in strips of at most `rows`.

    `past` belongs to the stream: each convolution takes its own frames out and leaves the new ones. `guide` are the
    latents (1, c, t, h, w) that the decoder's norms look at.
    """

    past: Past
    rows: int
    guide: Tensor | None = None

    def strips(self, height: int, least: int = 1) -> Iterator[tuple[int, int]]:
        """First row and end of about equal strips of a picture of `height` rows, none much lower than `least`.

        First rows are even, so that a strip can be halved. Where both can't be had, `least` wins over `rows`.
        """
        pairs = (height + 1) // 2
        count = max(1, min(-(-height // self.rows), height // least, pairs))
        return pairwise(min(2 * (index * pairs // count), height) for index in range(count + 1))


def spans(frames: int, steps: int) -> tuple[slice, ...]:
    """Which of a chunk's `frames` belong to each of its `steps`, the frames it had before time was doubled.

    Steps hold equally many frames; of an odd number of frames the first is alone. A single step holds them all.
    """
    if steps == 1:
        return (slice(0, frames),)
    alone = frames % 2
    each = (frames - alone) // (steps - alone)
    rest = tuple(slice(start, start + each) for start in range(alone, frames, each))
    return (slice(0, 1), *rest) if alone else rest


@dataclass(frozen=True, slots=True)
class Activation:
    """silu(x * scale + shift); both are float32 (1, c, t', h', w'), coarser than x: the nearest values are used."""

    scale: Tensor
    shift: Tensor

    def write(self, out: Tensor, x: Tensor, top: int) -> None:
        """Fill `out` (1, c, t, n, w) from the n rows of x (1, c, t, h, w) that start at `top`."""
        rows = slice(top, top + out.shape[-2])
        for step, span in enumerate(spans(x.shape[2], self.scale.shape[2])):
            scale = _nearest(self.scale[:, :, step : step + 1], rows, x)
            shift = _nearest(self.shift[:, :, step : step + 1], rows, x)
            torch.addcmul(shift, x[:, :, span, rows], scale, out=out[:, :, span])
        F.silu(out, inplace=True)


def _nearest(coarse: Tensor, rows: slice, x: Tensor) -> Tensor:
    """The values (1, c, 1, h', w') for some rows of x; an axis of size 1 is left to broadcasting."""
    height, width = coarse.shape[-2:]
    if height > 1:
        places = torch.arange(rows.start, rows.stop, device=x.device)
        coarse = coarse.index_select(-2, places * height // x.shape[-2])
    return coarse.repeat_interleave(x.shape[-1] // width, -1) if width > 1 else coarse


class GroupNorm(nn.Module):
    """Group norm over (t, h, w) of a chunk (Wu & He 2018) and SiLU, given as the `Activation` that does it."""

    def __init__(self, width: int, groups: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.groups = groups
        self.eps = eps

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Activation:
        """(1, c, t, h, w); the guide is not looked at."""
        mean, variance = (repeat(m, "g -> (g c)", c=len(self.weight) // self.groups) for m in self._moments(x))
        scale = self.weight.float() * torch.rsqrt(variance + self.eps)
        shift = self.bias.float() - mean * scale
        return Activation(rearrange(scale, "c -> 1 c 1 1 1"), rearrange(shift, "c -> 1 c 1 1 1"))

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each group, float32; in two passes, one group's copy at a time."""
        means, variances = [], []
        for group in rearrange(x, "1 (g c) t h w -> g (c t h w)", g=self.groups):
            values = group.float()
            means.append(values.mean())
            variances.append((values - means[-1]).square_().mean())
        return torch.stack(means), torch.stack(variances)


class GuidedNorm(nn.Module):
    """A group norm whose scale and shift are linear in the latents (SpatialNorm: Zheng et al. 2022, arXiv:2209.09002).

    The latents are enlarged to x by nearest values. Being linear in each latent by itself, scale and shift are computed
    before they are enlarged.
    """

    def __init__(self, width: int, groups: int, eps: float, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(width, groups, eps)
        self.guide = nn.Conv3d(channels, 2 * width, 1)

    def forward(self, x: Tensor, guide: Tensor) -> Activation:
        """From x (1, c, t, h, w) and the guide (1, z, t', h', w')."""
        plain = self.norm(x)
        scale, shift = self.guide(guide).float().chunk(2, 1)
        return Activation(plain.scale * scale, torch.addcmul(shift, plain.shift, scale))


class CausalConv(nn.Module):
    """A 3x3x3 convolution that sees two earlier frames; at a stream's start they are its first frame, repeated."""

    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inward, outward, 3, padding=(0, 0, 1))

    def forward(self, x: Tensor, chunk: Chunk, activation: Activation | None = None) -> Tensor:
        """Convolve activation(x): (1, c, t, h, w) -> (1, c', t, h, w)."""
        out = x.new_empty(1, self.conv.out_channels, *x.shape[2:])
        for rows, strip in self.strips(x, chunk, activation):
            out[..., rows, :] = strip
        return out

    def strips(self, x: Tensor, chunk: Chunk, activation: Activation | None) -> Iterator[tuple[slice, Tensor]]:
        """Rows and values (1, c', t, n, w) of each strip of the output, downwards; x may be overwritten by them."""
        before = chunk.past.pop(self, None)
        after = x.new_empty(1, x.shape[1], REACH, *x.shape[3:])
        above = x.new_zeros(1, x.shape[1], x.shape[2] + REACH, 1, x.shape[4])
        least = 1 + LEAST_STRIP // (above.shape[1] * above.shape[2])
        for top, bottom in chunk.strips(x.shape[3], least):
            padded = _padded(x, before, activation, top, bottom)
            padded[..., :1, :] = above
            above = padded[..., -2:-1, :].clone()
            after[..., top:bottom, :] = padded[:, :, -REACH:, 1:-1]
            yield slice(top, bottom), self.conv(padded)
        chunk.past[self] = after


def _padded(x: Tensor, before: Tensor | None, activation: Activation | None, top: int, bottom: int) -> Tensor:
    """Some rows of activation(x) with the two frames before and the row below; the row above is left to be filled."""
    padded = x.new_empty(1, x.shape[1], x.shape[2] + REACH, bottom - top + 2, x.shape[4])
    end = min(bottom + 1, x.shape[3])
    inside = padded[..., 1 : 1 + end - top, :]
    if activation is None:
        inside[:, :, REACH:] = x[..., top:end, :]
    else:
        activation.write(inside[:, :, REACH:], x, top)
    inside[:, :, :REACH] = inside[:, :, REACH : REACH + 1] if before is None else before[..., top:end, :]
    if end == bottom:
        padded[..., -1:, :] = 0
    return padded


class Residual(nn.Module):
    """shortcut(x) + second(silu(norm(first(silu(norm(x)))))) of causal convolutions; norms see the whole chunk."""

    def __init__(self, inward: int, outward: int, first_norm: nn.Module, second_norm: nn.Module) -> None:
        super().__init__()
        self.first_norm = first_norm
        self.first = CausalConv(inward, outward)
        self.second_norm = second_norm
        self.second = CausalConv(outward, outward)
        self.shortcut = nn.Identity() if inward == outward else nn.Conv3d(inward, outward, 1)

    def forward(self, x: Tensor, chunk: Chunk) -> Tensor:
        """(1, c, t, h, w) -> (1, c', t, h, w)."""
        y = self.first(x, chunk, self.first_norm(x, chunk.guide))
        for rows, strip in self.second.strips(y, chunk, self.second_norm(y, chunk.guide)):
            torch.add(strip, self.shortcut(x[..., rows, :]), out=y[..., rows, :])
        return y


class Shrink(nn.Module):
    """Halve a picture by a 3x3 convolution and, with `time`, the frames by their means in pairs.

    Of an odd number of frames the first stays alone. The convolution sees zeros right of and below the picture.
    """

    def __init__(self, width: int, time: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)
        self.time = time

    def forward(self, x: Tensor, chunk: Chunk) -> Tensor:
        """(1, c, t, h, w) -> (1, c, ceil(t / 2) or t, h / 2, w / 2)."""
        frames = (x.shape[2] + 1) // 2 if self.time else x.shape[2]
        out = x.new_empty(1, x.shape[1], frames, x.shape[3] // 2, x.shape[4] // 2)
        for top, bottom in chunk.strips(x.shape[3]):
            pictures = rearrange(self._paired(x[..., top : bottom + 1, :]), "1 c t h w -> t c h w")
            below = bottom - top + 1 - pictures.shape[2]
            strip = self.conv(F.pad(pictures, (0, 1, 0, below)))
            out[..., top // 2 : bottom // 2, :] = rearrange(strip, "t c h w -> 1 c t h w")
        return out

    def _paired(self, x: Tensor) -> Tensor:
        if not self.time:
            return x
        alone = x.shape[2] % 2
        pairs = (x[:, :, alone::2] + x[:, :, alone + 1 :: 2]) / 2
        return torch.cat([x[:, :, :1], pairs], 2) if alone else pairs


class Grow(nn.Module):
    """Double a picture by nearest values and a 3x3 convolution and, with `time`, the frames by showing each twice.

    Of an odd number of frames the first is shown once.
    """

    def __init__(self, width: int, time: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=(0, 1))
        self.time = time

    def forward(self, x: Tensor, chunk: Chunk) -> Tensor:
        """(1, c, t, h, w) -> (1, c, 2 t, 2 t - 1 or t, 2 h, 2 w)."""
        before = x.shape[2]
        frames = 2 * before - before % 2 if self.time else before
        out = x.new_empty(1, x.shape[1], frames, 2 * x.shape[3], 2 * x.shape[4])
        for top, bottom in chunk.strips(out.shape[3]):
            strip = rearrange(self.conv(_enlarged(x, top, bottom)), "t c h w -> 1 c t h w")
            for step, span in enumerate(spans(frames, before)):
                out[:, :, span, top:bottom] = strip[:, :, step : step + 1]
        return out


def _enlarged(x: Tensor, top: int, bottom: int) -> Tensor:
    """Some rows of x at twice its size, and the rows around them: (1, c, t, h, w) -> (t, c, bottom - top + 2, 2 w)."""
    height = 2 * x.shape[3]
    places = torch.arange(top - 1, bottom + 1, device=x.device).clamp_(0, height - 1) // 2
    rows = rearrange(x, "1 c t h w -> t c h w").index_select(2, places)
    enlarged = rows.repeat_interleave(2, -1)
    if top == 0:
        enlarged[:, :, 0] = 0
    if bottom == height:
        enlarged[:, :, -1] = 0
    return enlarged
