"""Wan's diffusion transformer: self-attention over all patches, cross-attention to the text and to a picture.

Source: Wan Team 2025, Wan: Open and Advanced Large-Scale Video Generative Models (arXiv:2503.20314).
"""

from functools import lru_cache
from itertools import product

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from sora_cli.model.layers import Projector, gelu_tanh, sinusoid
from sora_kernels import (
    attention,
    gated_residual,
    layer_norm_modulate,
    qk_norm_rope_attention,
    rms_norm,
    rope_table,
)
from sora_weights.spec import WanSpec

Rotary = tuple[Tensor, Tensor]
FULL_PRECISION = ("time.", "table", "cross_norm.")
"""What stays float32 in a narrower network, by parts of parameter names: the published weights rely on it."""


class CrossAttention(nn.Module):
    """Attention from video tokens to text tokens and, where there are any, to a picture's tokens; summed."""

    def __init__(self, spec: WanSpec) -> None:
        super().__init__()
        width = spec.width
        self.heads, self.eps = spec.heads, spec.eps
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.q_norm, self.k_norm = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
        self.out = nn.Linear(width, width)
        if spec.image_width is not None:
            self.image_kv = nn.Linear(width, 2 * width)
            self.image_k_norm = nn.Parameter(torch.ones(width))

    def _keys(self, both: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
        k, v = both.chunk(2, -1)
        return _apart(rms_norm(k, norm, self.eps), self.heads), _apart(v, self.heads)

    def forward(self, x: Tensor, text: Tensor, image: Tensor | None) -> Tensor:
        """X (b, n, d), text (b, m, d), image (b, k, d) or None -> (b, n, d)."""
        q = _apart(rms_norm(self.q(x), self.q_norm, self.eps), self.heads)
        y = attention(q, *self._keys(self.kv(text), self.k_norm))
        if image is not None:
            y = y + attention(q, *self._keys(self.image_kv(image), self.image_k_norm))
        return self.out(_together(y))


class Block(nn.Module):
    """Self-attention, cross-attention and an MLP; the first and the last are modulated by the timestep."""

    def __init__(self, spec: WanSpec) -> None:
        super().__init__()
        width = spec.width
        self.heads, self.eps = spec.heads, spec.eps
        self.table = nn.Parameter(torch.zeros(6, width))
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
        self.out = nn.Linear(width, width)
        self.cross_norm = nn.LayerNorm(width, spec.eps) if spec.cross_norm else None
        self.cross = CrossAttention(spec)
        self.mlp = Projector(width, width, gelu_tanh, spec.inner)

    def _attend(self, x: Tensor, rotary: Rotary) -> Tensor:
        q, k, v = (_apart(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        q_norm, k_norm = self.q_norm.view(self.heads, -1), self.k_norm.view(self.heads, -1)
        return self.out(_together(qk_norm_rope_attention(q, k, v, q_norm, k_norm, *rotary, eps=self.eps)))

    def _cross_normed(self, x: Tensor) -> Tensor:
        norm = self.cross_norm
        return x if norm is None else F.layer_norm(x.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps)

    def forward(self, x: Tensor, time: Tensor, rotary: Rotary, text: Tensor, image: Tensor | None) -> Tensor:
        """X (b, n, d), time (b, 6, d), text (b, m, d), image (b, k, d) or None -> (b, n, d)."""
        parts = (self.table.float() + time.float()).unsqueeze(2)
        shift, scale, gate, shift2, scale2, gate2 = parts.unbind(1)
        x = gated_residual(x, self._attend(layer_norm_modulate(x, shift, scale, self.eps), rotary), gate)
        x = x + self.cross(self._cross_normed(x).to(x.dtype), text, image)
        return gated_residual(x, self.mlp(layer_norm_modulate(x, shift2, scale2, self.eps)), gate2)


class PictureProjector(nn.Module):
    """A picture's features as tokens of the network's width: norm, MLP, norm; two pictures are told apart."""

    def __init__(self, inward: int, width: int, tokens: int | None) -> None:
        super().__init__()
        self.positions = None if tokens is None else nn.Parameter(torch.zeros(tokens, inward))
        self.before, self.after = nn.LayerNorm(inward), nn.LayerNorm(width)
        self.mlp = Projector(inward, width, F.gelu, inward)

    def forward(self, features: Tensor) -> Tensor:  # (b, k, inward) -> (b, k, width)
        """Project the features of a picture's tokens, or of those of two pictures in a row."""
        if self.positions is not None:
            features = features + self.positions
        return self.after(self.mlp(self.before(features)))


class WanTransformer(nn.Module):
    """The denoiser: noisy latents, a timestep and text give the velocity noise - clean."""

    def __init__(self, spec: WanSpec) -> None:
        super().__init__()
        self.spec = spec
        width, volume = spec.width, spec.patch[0] * spec.patch[1] * spec.patch[2]
        self.patchify = nn.Linear(spec.channels * volume, width)
        self.time = Projector(spec.time_width, width)
        self.time_block = nn.Linear(width, 6 * width)
        self.text = Projector(spec.text_width, width, gelu_tanh)
        self.image = None if spec.image_width is None else PictureProjector(spec.image_width, width, spec.image_tokens)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.depth))
        self.table = nn.Parameter(torch.zeros(2, width))
        self.unpatchify = nn.Linear(width, spec.latents * volume)

    def forward(self, x: Tensor, timesteps: Tensor, text: Tensor, image: Tensor | None = None) -> Tensor:
        """Latents with their condition channels (b, c, t, h, w), timesteps (b,) in [0, 1000], features of the text
        (b, m, e) and of a picture (b, k, i) -> velocity (b, c', t, h, w). The grid is in whole patches.
        """
        p, q, r = self.spec.patch
        grid = (x.shape[2] // p, x.shape[3] // q, x.shape[4] // r)
        tokens = self.patchify(rearrange(x, "b c (t p) (h q) (w r) -> b (t h w) (c p q r)", p=p, q=q, r=r))
        rotary = tuple(table.to(x.device) for table in rotary_table(self.spec.head_width, grid))
        waves = sinusoid(timesteps, self.spec.time_width).to(self.time.inward.weight.dtype)
        time = self.time(waves).to(tokens.dtype)
        parts = rearrange(self.time_block(F.silu(time)), "b (six d) -> b six d", six=6)
        words, picture = self.text(text), None if self.image is None or image is None else self.image(image)
        for block in self.blocks:
            tokens = block(tokens, parts, rotary, words, picture)
        shift, scale = (self.table.float() + time[:, None].float()).unsqueeze(2).unbind(1)
        tokens = self.unpatchify(layer_norm_modulate(tokens, shift, scale, self.spec.eps))
        t, h, w = grid
        return rearrange(tokens, "b (t h w) (p q r c) -> b c (t p) (h q) (w r)", t=t, h=h, w=w, p=p, q=q, r=r)


@lru_cache(maxsize=2)
def rotary_table(head_width: int, grid: tuple[int, int, int]) -> Rotary:
    """Cosines and sines for patches at whole positions of a (t, h, w) grid, (n, head_width / 2) each."""
    side = 2 * (head_width // 6)
    positions = torch.tensor(list(product(*(range(length) for length in grid))), dtype=torch.float64)
    return rope_table(positions, (head_width - 2 * side, side, side))


def _apart(x: Tensor, heads: int) -> Tensor:
    return rearrange(x, "b n (heads d) -> b heads n d", heads=heads)


def _together(x: Tensor) -> Tensor:
    return rearrange(x, "b heads n d -> b n (heads d)")
