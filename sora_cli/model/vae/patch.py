"""diorama's video autoencoder: a linear encoder of 8x8x4 pixel patches and a small convolutional decoder.

The encoder is a principal component analysis of non-overlapping patches, so it is causal, exactly tileable and costs
one matrix product. The decoder adds a learned correction to the linear inverse. It sees a latent frame and the one
before it, mixes at the latent grid, and refines each frame at a quarter of the resolution: no norm or attention sees
the whole picture, so tiles with a halo of `halo` latents decode to the same pixels as the whole.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from sora_weights.spec import PatchVAESpec

TIME = 4  # frames in a latent frame; the first latent frame holds one
SPACE = 8  # pixels in a latent, along each side


class ChannelNorm(nn.Module):
    """Root-mean-square norm over the channels of each position (Zhang & Sennrich 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """X (n, c, h, w) -> the same, each position normed."""
        scale = torch.rsqrt(x.float().square().mean(1, keepdim=True) + 1e-6).to(x.dtype)
        return x * scale * self.weight.to(x.dtype).view(1, -1, 1, 1)


class Residual(nn.Module):
    """x + conv3x3(silu(norm(x))), the convolution starting at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """X (n, c, h, w) -> the same."""
        return x + self.conv(F.silu(self.norm(x)))


class PatchVAE(nn.Module):
    """Encoder and decoder; videos are (b, 3, T, H, W) in [-1, 1], latents (b, c, t, h, w) with T = 4t - 3."""

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, spec: PatchVAESpec) -> None:
        super().__init__()
        self.spec = spec
        values = 3 * TIME * SPACE * SPACE
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("basis", torch.zeros(spec.channels, values))
        self.register_buffer("scale", torch.ones(spec.channels))
        self.inward = nn.Conv2d(2 * spec.channels, spec.width, 3, padding=1)
        self.blocks = nn.ModuleList(Residual(spec.width) for _ in range(spec.depth))
        self.norm = ChannelNorm(spec.width)
        self.spread = nn.Conv2d(spec.width, TIME * 4 * spec.tail_width, 1)
        self.tail = nn.ModuleList(Residual(spec.tail_width) for _ in range(spec.tail_depth))
        self.outward = nn.Conv2d(spec.tail_width, 3 * (SPACE // 2) ** 2, 3, padding=1)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)  # type: ignore[arg-type]

    @property
    def halo(self) -> int:
        """How many latents around a tile reach into it: 3x3 convolutions at the latent grid, then at half of it."""
        return 1 + self.spec.depth + (self.spec.tail_depth + 2) // 2

    def encode_group(self, frames: Tensor) -> Tensor:  # (b, 3, 4, H, W) -> (b, c, 1, h, w)
        """Encode four frames (a clip's first frame, repeated four times, is its first latent frame)."""
        values = self._centred(frames) @ (self.basis / self.scale[:, None]).T
        return rearrange(values, "b h w c -> b c 1 h w")

    def _centred(self, frames: Tensor) -> Tensor:  # (b, 3, 4, H, W) -> (b, h, w, values)
        """The patches less their mean, made row by row, as whole pictures are large."""
        rows, columns = frames.shape[3] // SPACE, frames.shape[4] // SPACE
        centred = self.mean.new_empty(len(frames), rows, columns, len(self.mean))
        for row, strip in enumerate(torch.split(frames, SPACE, 3)):
            centred[:, row] = rearrange(strip, "b c T p (w q) -> b w (c T p q)", q=SPACE) - self.mean
        return centred

    def encode(self, video: Tensor) -> Tensor:  # (b, 3, 4t - 3, H, W) -> (b, c, t, h, w)
        """Encode a whole clip; its sides must be multiples of 8 and its frames one more than a multiple of 4."""
        padded = torch.cat([repeat(video[:, :, :1], "b c 1 h w -> b c k h w", k=TIME - 1), video], 2)
        return torch.cat([self.encode_group(group) for group in torch.split(padded, TIME, 2)], 2)

    def _linear_inverse(self, latent: Tensor) -> Tensor:  # (b, c, h, w) -> (b, 3, 4, H, W)
        values = rearrange(latent, "b c h w -> b h w c") * self.scale @ self.basis + self.mean
        return rearrange(values, "b h w (c T p q) -> b c T (h p) (w q)", c=3, T=TIME, p=SPACE, q=SPACE)

    def decode_step(self, latent: Tensor, before: Tensor) -> Tensor:  # (b, c, h, w) twice -> (b, 3, 4, H, W)
        """Decode one latent frame, given the one before it (the first is its own past). Not clamped.

        The linear part is computed in the latents' own precision, the correction in the parameters'.
        """
        both = torch.cat([latent, before], 1).to(self.inward.weight.dtype)
        x = self.inward(both.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        x = self.spread(F.silu(self.norm(x)))
        x = rearrange(x, "b (T c p q) h w -> (b T) c (h p) (w q)", T=TIME, p=2, q=2)
        for block in self.tail:
            x = block(x)
        x = self.outward(F.silu(x))
        detail = rearrange(x, "(b T) (c p q) h w -> b c T (h p) (w q)", T=TIME, p=SPACE // 2, q=SPACE // 2)
        return self._linear_inverse(latent) + detail

    def decode(self, latents: Tensor) -> Tensor:  # (b, c, t, h, w) -> (b, 3, 4t - 3, H, W)
        """Decode a whole short clip at once (the engine streams instead: see `engine.decode`)."""
        before = torch.cat([latents[:, :, :1], latents[:, :, :-1]], 2)
        steps = [self.decode_step(z, past) for z, past in zip(latents.unbind(2), before.unbind(2), strict=True)]
        return torch.cat([steps[0][:, :, -1:], *steps[1:]], 2)
