"""Layers of Wan's video autoencoder (Wan Team 2025, arXiv:2503.20314, section 4.1), one frame at a time.

Everything is causal in time, so a video runs through frame by frame, (1, c, h, w) in channels-last order, and all that
a layer has to remember is the last two frames that each causal convolution has seen: `Pasts`. Streams are maps where
they can be, since a suspended generator would keep its last frame alive.
"""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from sora_cli.model.vae.wan_tiles import UNCUT, Cut
from sora_kernels import attention, causal_conv, norm_silu

NO_EPS = 1e-24  # a pixel's length is taken as it is

Pasts = dict["CausalConv", tuple[Tensor, ...]]
"""The last frames that each convolution has seen, at most two, oldest first; empty before the first frame.

One dictionary belongs to one run through a video. It is changed as the run goes on: with states handed in and out
instead, each convolution would hold three frames at once, and these frames are most of the decoder's memory.
"""


class ChannelNorm(nn.Module):
    """x / |x| * sqrt(c) * weight over the channels of each pixel, computed in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(1, c, h, w) -> (1, c, h, w)."""
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
        weight = rearrange(self.weight.float(), "c -> 1 c 1 1") * x.shape[1] ** 0.5
        return (x / length.clamp_min_(1e-12)).mul_(weight).to(x.dtype)


class NormSiLU(ChannelNorm):
    """silu(norm(x)), in one operator."""

    def forward(self, x: Tensor) -> Tensor:
        """(1, c, h, w) -> (1, c, h, w)."""
        return norm_silu(x, self.weight, NO_EPS)


class CausalConv(nn.Module):
    """A convolution over a frame and the two before it, which are kept as they are; before the video is zero.

    The weight is (t, c', h, w, c), oldest frame first.
    """

    def __init__(self, inward: int, outward: int, side: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, outward, side, side, inward))
        self.bias = nn.Parameter(torch.empty(outward))

    def forward(self, frame: Tensor, pasts: Pasts) -> Tensor:
        """(1, c, h, w) -> (1, c', h, w), and `pasts` move on by one frame. The frame must not be changed later."""
        seen = (*pasts.get(self, ()), frame)
        pasts[self] = seen[-2:]
        return self.over(seen)

    def over(self, frames: tuple[Tensor, ...]) -> Tensor:
        """The output at the last of one to three frames."""
        return causal_conv(frames[-1], frames[:-1], self.weight, self.bias)


class Residual(nn.Module):
    """skip(x) + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.norm1 = NormSiLU(inward)
        self.conv1 = CausalConv(inward, outward)
        self.norm2 = NormSiLU(outward)
        self.conv2 = CausalConv(outward, outward)
        self.skip = nn.Identity() if inward == outward else nn.Conv2d(inward, outward, 1)

    def forward(self, x: Tensor, pasts: Pasts, cut: Cut = UNCUT) -> Tensor:
        """(1, c, h, w) -> (1, c', h', w'): two pixels fewer along each cut side."""
        y = cut.peel(self.conv1(self.norm1(x), pasts))
        y = self.norm2(y)
        y = cut.peel(self.conv2(y, pasts))
        y += self.skip(cut.peel(x, 2))
        return y


class FrameAttention(nn.Module):
    """x + proj(attention(norm(x))): one head over all pixels of a frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.to_qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(1, c, h, w) -> (1, c, h, w)."""
        q, k, v = rearrange(self.to_qkv(self.norm(x)), "b (qkv c) h w -> qkv b 1 (h w) c", qkv=3)
        mixed = rearrange(attention(q, k, v), "b 1 (h w) c -> b c h w", h=x.shape[2])
        return x + self.proj(mixed)


class Middle(nn.Module):
    """A residual block, attention and another residual block, at the latents' own size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Residual(width, width) for _ in range(2))
        self.attention = FrameAttention(width)

    def forward(self, x: Tensor, pasts: Pasts) -> Tensor:
        """(1, c, h, w) -> (1, c, h, w)."""
        before, after = self.blocks
        return after(self.attention(before(x, pasts)), pasts)


class Halve(nn.Module):
    """Half the height and width, and half the frame rate where `in_time`: one frame, then one for every two."""

    def __init__(self, width: int, *, in_time: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)
        self.time = CausalConv(width, width, 1) if in_time else None

    def forward(self, frames: Iterator[Tensor], pasts: Pasts) -> Iterator[Tensor]:
        """Frames (1, c, h, w) -> (1, c, h / 2, w / 2)."""
        halved = map(self._halved, frames)
        return halved if self.time is None else self._every_second(halved, self.time)

    def _halved(self, frame: Tensor) -> Tensor:
        return self.conv(F.pad(frame, (0, 1, 0, 1)))

    def _every_second(self, frames: Iterator[Tensor], time: CausalConv) -> Iterator[Tensor]:
        for before in frames:
            yield before
            for early, late in zip(frames, frames, strict=False):
                yield time.over((before, early, late))
                before = late


class Double(nn.Module):
    """Twice the height and width in half the channels, and twice the frame rate where `in_time`.

    The first frame of a video stays one, and the convolution in time never sees it.
    """

    def __init__(self, width: int, *, in_time: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width // 2, 3)
        self.time = CausalConv(width, 2 * width, 1) if in_time else None

    def forward(self, frames: Iterator[Tensor], pasts: Pasts) -> Iterator[Tensor]:
        """Frames (1, c, h, w) -> (1, c / 2, 2 h, 2 w)."""
        doubled = partial(F.conv_transpose2d, weight=self._kernel(), bias=self.conv.bias, stride=2, padding=1)
        return map(doubled, self._in_time(frames, pasts))

    def _in_time(self, frames: Iterator[Tensor], pasts: Pasts) -> Iterator[Tensor]:
        for index, frame in enumerate(frames):
            if self.time is None or index == 0:
                yield frame
            else:
                yield from self.time(frame.contiguous(memory_format=torch.channels_last), pasts).chunk(2, 1)

    def _kernel(self) -> Tensor:  # (c', c, 3, 3) -> (c, c', 4, 4)
        """The kernel of the transposed convolution that does in one step what doubling every pixel and convolving do.

        With x[i] at both 2i and 2i + 1, the 3x3 kernel's sums over two neighbours are all that it multiplies x by:
        4 products of each pixel instead of 9.
        """
        weight = F.pad(self.conv.weight.float(), (1, 1, 1, 1))
        weight = weight[..., 1:, :] + weight[..., :-1, :]
        weight = weight[..., 1:] + weight[..., :-1]
        turned = rearrange(weight.flip(-1, -2), "o i h w -> i o h w")
        return turned.to(self.conv.weight.dtype).contiguous(memory_format=torch.channels_last)


class UpLevel(nn.Module):
    """Residual blocks at one resolution, then `Double`, except at the last level."""

    def __init__(self, inward: int, outward: int, blocks: int, doubling: Double | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Residual(outward if index else inward, outward) for index in range(blocks))
        self.doubling = doubling

    def forward(self, frames: Iterator[Tensor], pasts: Pasts, cut: Cut) -> Iterator[Tensor]:
        """Frames (1, c, h, w), with the halo of a tile, to the next level's."""
        mixed = map(partial(self._mixed, pasts=pasts, cut=cut), frames)
        return mixed if self.doubling is None else self.doubling(mixed, pasts)

    def _mixed(self, frame: Tensor, pasts: Pasts, cut: Cut) -> Tensor:
        for block in self.blocks:
            frame = block(frame, pasts, cut)
        return frame
