"""CogVideoX's video autoencoder (Yang et al. 2024, arXiv:2408.06072): causal in time, with group norms over chunks.

A stream is coded chunk by chunk: eight frames, or two latent frames, at a time. What does not fill a chunk joins the
first one. Because group norms see a whole chunk, the chunk rule is part of what the network computes, and a chunk can't
be cut into tiles; its convolutions run in strips of rows instead (`cogvideox_layers`), which changes nothing. Between
chunks a stream keeps the last frames that each causal convolution read.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from sora_cli.model.vae.cogvideox_layers import CausalConv, Chunk, GroupNorm, Grow, GuidedNorm, Past, Residual, Shrink
from sora_weights.spec import CogVideoXVAESpec

SPACE = 8  # pixels in a latent, along each side
TIME = 4  # frames in a latent frame; of an odd number of frames the first has a latent frame of its own
CHUNK_FRAMES = 8
CHUNK_LATENTS = 2
MIDDLE_DEPTH = 2
FIXED_EPS = 1e-6  # of the decoder's norms and the encoder's last one, whatever the spec says
LOGVAR = (-30.0, 20.0)


def chunk_sizes(count: int, size: int) -> tuple[int, ...]:
    """How many of `count` frames each chunk takes: `size`, and the first also what is left over.

    Raises ValueError for no frames.
    """
    if count < 1:
        raise ValueError(f"{count} frames: at least 1")
    chunks = max(count // size, 1)
    return (count - size * (chunks - 1), *(size,) * (chunks - 1))


class Level(nn.Module):
    """Residual blocks of one width, then a step to the next level's size where there is one."""

    def __init__(self, blocks: Iterable[Residual], step: Shrink | Grow | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.step = step


def _levels(
    widths: tuple[int, ...],
    depth: int,
    block: Callable[[int, int], Residual],
    step: Callable[[int, bool], Shrink | Grow],
    time: int,
) -> nn.ModuleList:
    """Levels of `depth` blocks each; the steps between them change the picture's size and, log2(time) times, time."""
    levels = []
    for index, width in enumerate(widths):
        before = (widths[max(index - 1, 0)], *(width,) * (depth - 1))
        last = index == len(widths) - 1
        blocks = (block(inward, width) for inward in before)
        levels.append(Level(blocks, None if last else step(width, 2**index < time)))
    return nn.ModuleList(levels)


def _layers(levels: nn.ModuleList) -> Iterator[nn.Module]:
    """What a chunk passes, in order; one by one, so that whoever runs them keeps none of the tensors between."""
    for level in cast(Iterable[Level], levels):
        yield from level.blocks
        if level.step is not None:
            yield level.step


class Encoder(nn.Module):
    """A chunk of frames (1, 3, T, H, W) -> mean and logarithm of the variance, (1, 2 c, t, h, w)."""

    def __init__(self, spec: CogVideoXVAESpec) -> None:
        super().__init__()

        def block(inward: int, outward: int) -> Residual:
            norms = (GroupNorm(width, spec.groups, spec.eps) for width in (inward, outward))
            return Residual(inward, outward, *norms)

        widest = spec.widths[-1]
        self.inward = CausalConv(3, spec.widths[0])
        self.levels = _levels(spec.widths, spec.depth, block, Shrink, spec.time)
        self.middle = nn.ModuleList(block(widest, widest) for _ in range(MIDDLE_DEPTH))
        self.norm = GroupNorm(widest, spec.groups, FIXED_EPS)
        self.outward = CausalConv(widest, 2 * spec.channels)

    def forward(self, frames: Tensor, chunk: Chunk) -> Tensor:
        """Frames may be any number; their sides are multiples of a latent's."""
        x = self.inward(frames, chunk)
        for layer in chain(_layers(self.levels), self.middle):
            x = layer(x, chunk)
        return self.outward(x, chunk, self.norm(x))


class Decoder(nn.Module):
    """A chunk of latents (1, c, t, h, w) -> frames (1, 3, T, H, W), T = 4 t for even t and 4 t - 3 for odd t."""

    def __init__(self, spec: CogVideoXVAESpec) -> None:
        super().__init__()

        def norm(width: int) -> GuidedNorm:
            return GuidedNorm(width, spec.groups, FIXED_EPS, spec.channels)

        def block(inward: int, outward: int) -> Residual:
            return Residual(inward, outward, norm(inward), norm(outward))

        widest, *_, narrowest = widths = spec.widths[::-1]
        self.inward = CausalConv(spec.channels, widest)
        self.middle = nn.ModuleList(block(widest, widest) for _ in range(MIDDLE_DEPTH))
        self.levels = _levels(widths, spec.depth + 1, block, Grow, spec.time)
        self.norm = norm(narrowest)
        self.outward = CausalConv(narrowest, 3)

    def forward(self, latents: Tensor, chunk: Chunk) -> Tensor:
        """The latents are the chunk's guide too."""
        x = self.inward(latents, chunk)
        for layer in chain(self.middle, _layers(self.levels)):
            x = layer(x, chunk)
        return self.outward(x, chunk, self.norm(x, chunk.guide))


class CogVideoXVAE(nn.Module):
    """Encoder and decoder of streams of single frames; a stream's state lives in its generator, not in here."""

    def __init__(self, spec: CogVideoXVAESpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec)
        self.decoder = Decoder(spec)

    @property
    def space(self) -> int:
        """Pixels in a latent, along each side."""
        return 2 ** (len(self.spec.widths) - 1)

    @property
    def time(self) -> int:
        """Frames in a latent frame."""
        return self.spec.time

    def normalise(self, latents: Tensor) -> Tensor:
        """The encoder's latents as the denoiser sees them."""
        return latents * self.spec.scaling

    def denormalise(self, latents: Tensor) -> Tensor:
        """The denoiser's latents as the decoder takes them."""
        return 1 / self.spec.scaling * latents

    def condition(self, latents: Tensor) -> Tensor:
        """The encoder's latents as the condition channels of an image-to-video network."""
        return self.denormalise(latents) if self.spec.inverted_condition else self.normalise(latents)

    @torch.no_grad()
    def encode(self, frames: Iterable[Tensor], count: int, side: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Mean and logarithm of the variance, (1, c, h, w) each, of every latent frame in turn.

        Of `frames` (1, 3, H, W) in [-1, 1] the first `count` are read, a chunk at a time. Strips are `side` latents
        high, or the whole picture. Raises ValueError for no frames, for fewer than `count`, for sides that are no
        multiples of `space` and for a side below 1.
        """
        past: Past = {}
        for chunk in self._chunks(frames, count, CHUNK_FRAMES):
            height, width = chunk.shape[-2:]
            if height % self.space or width % self.space:
                raise ValueError(f"frames of {width}x{height}: multiples of {self.space}")
            rows = height if side is None else self._strip_rows(side)
            mean, logvar = self.encoder(chunk, Chunk(past, rows)).chunk(2, 1)
            yield from zip(mean.unbind(2), logvar.clamp(*LOGVAR).unbind(2), strict=True)

    @torch.no_grad()
    def decode(self, latents: Iterable[Tensor], count: int, side: int, scratch: Path) -> Iterator[Tensor]:
        """Frames (n, 3, H, W) in [-1, 1] chunk by chunk, float32 on the CPU; n = 4 t for even t, 4 t - 3 for odd t.

        Of `latents` (1, c, h, w), as the denoiser sees them, the first `count` are read, a chunk at a time. Strips are
        `side` latents high; `scratch` is not needed. Raises ValueError for no latents, for fewer than `count` and for
        a side below 1.
        """
        past: Past = {}
        for chunk in self._chunks(latents, count, CHUNK_LATENTS):
            guide = self.denormalise(chunk)
            frames = self.decoder(guide, Chunk(past, self._strip_rows(side), guide))
            yield rearrange(frames.clamp_(-1, 1).float().cpu(), "1 c T H W -> T c H W")

    def _chunks(self, frames: Iterable[Tensor], count: int, size: int) -> Iterator[Tensor]:
        """Chunks (1, c, n, h, w) of frames (1, c, h, w), where the weights are and in their dtype."""
        stream = iter(frames)
        weight = self.decoder.inward.conv.weight
        for length in chunk_sizes(count, size):
            taken = [frame.to(weight.device, weight.dtype) for frame in islice(stream, length)]
            if len(taken) < length:
                raise ValueError(f"fewer frames than the {count} announced")
            yield torch.stack(taken, 2)

    def _strip_rows(self, side: int) -> int:
        """Rows of a strip, the same at every level: where pictures are smaller, strips may be larger parts of them."""
        if side < 1:
            raise ValueError(f"strips of {side} latents: at least 1")
        return side * self.space
