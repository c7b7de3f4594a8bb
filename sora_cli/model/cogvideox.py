"""CogVideoX's diffusion transformer: text and video as one sequence, with modulations of their own.

Source: Yang et al. 2024, CogVideoX (arXiv:2408.06072).
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from sora_cli.model.layers import Projector, gelu_tanh, sinusoid
from sora_kernels import attention, rope, rope_table
from sora_weights.spec import CogVideoXSpec

Rotary = tuple[Tensor, Tensor]


class Modulation(nn.Module):
    """A layer norm whose scale and shift come from the timestep, as does the gate of what follows: video, then text."""

    def __init__(self, spec: CogVideoXSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.time_width, 6 * spec.width)
        self.norm = nn.LayerNorm(spec.width, spec.eps)

    def forward(self, x: Tensor, time: Tensor, words: int) -> tuple[Tensor, Tensor]:
        """X (b, m + n, d), its first m = `words` text; time (b, e) -> x normed and shifted, gates (b, m + n, d)."""
        parts = rearrange(self.linear(F.silu(time)), "b (six d) -> six b 1 d", six=6)
        shift, scale, gate, text_shift, text_scale, text_gate = parts
        y = torch.empty_like(x)
        y[:, :words] = modulated(x[:, :words], self.norm, text_shift, text_scale)
        y[:, words:] = modulated(x[:, words:], self.norm, shift, scale)
        lengths = (words, x.shape[1] - words)
        gates = [each.expand(-1, n, -1) for each, n in zip((text_gate, gate), lengths, strict=True)]
        return y, torch.cat(gates, 1)


def modulated(x: Tensor, norm: nn.LayerNorm, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x) * (1 + scale) + shift in one pass where the batch is one sample; shift and scale (b, 1, d)."""
    if len(x) > 1:
        return torch.addcmul(shift, norm(x), 1 + scale)
    weight = norm.weight * (1 + scale.flatten())
    return F.layer_norm(
        x, norm.normalized_shape, weight, torch.addcmul(shift.flatten(), norm.bias, 1 + scale.flatten()), norm.eps
    )


class Block(nn.Module):
    """Self-attention of text and video together, then an MLP; both are modulated by the timestep."""

    def __init__(self, spec: CogVideoXSpec) -> None:
        super().__init__()
        width = spec.width
        self.heads = spec.heads
        self.before, self.between = Modulation(spec), Modulation(spec)
        self.qkv = nn.Linear(width, 3 * width, bias=spec.attention_bias)
        self.q_norm, self.k_norm = nn.LayerNorm(spec.head_width, 1e-6), nn.LayerNorm(spec.head_width, 1e-6)
        self.out = nn.Linear(width, width)
        self.mlp = Projector(width, width, gelu_tanh, 4 * width)

    def _attend(self, x: Tensor, rotary: Rotary | None, words: int) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q[:, :, words:], k[:, :, words:] = rope(q[:, :, words:], *rotary), rope(k[:, :, words:], *rotary)
        return self.out(rearrange(attention(q, k, v), "b heads n d -> b n (heads d)"))

    def forward(self, x: Tensor, time: Tensor, rotary: Rotary | None, words: int) -> Tensor:
        """X (b, m + n, d), the first m = `words` of it text; time (b, e) -> x."""
        y, gates = self.before(x, time, words)
        x = torch.addcmul(x, gates, self._attend(y, rotary, words))
        y, gates = self.between(x, time, words)
        return torch.addcmul(x, gates, self.mlp(y))


class CogVideoXTransformer(nn.Module):
    """The denoiser: noisy latents, a timestep and text give the velocity alpha * noise - sigma * clean."""

    def __init__(self, spec: CogVideoXSpec) -> None:
        super().__init__()
        self.spec = spec
        width, area = spec.width, spec.patch**2
        self.patchify = nn.Linear(spec.channels * area, width, bias=spec.patch_bias)
        self.text = nn.Linear(spec.text_width, width)
        self.time = Projector(width, spec.time_width)
        if spec.learned:
            frames, rows, columns = spec.sample
            patches = frames * (rows // spec.patch) * (columns // spec.patch)
            self.register_buffer("positions", torch.zeros(spec.text_tokens + patches, width))
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(width, spec.eps)
        self.last_norm = nn.LayerNorm(width, spec.eps)
        self.last_time = nn.Linear(spec.time_width, 2 * width)
        self.unpatchify = nn.Linear(width, spec.latents * area)

    def _placed(self, tokens: Tensor, words: int, latents: tuple[int, int, int]) -> Tensor:
        """Add what says where a token is; nothing where positions are rotary alone."""
        if self.spec.learned and latents == self.spec.sample:
            return tokens + self.get_buffer("positions").to(tokens.dtype)
        if self.spec.rotary and not self.spec.learned:
            return tokens
        frames, rows, columns = latents
        grid = (frames, rows // self.spec.patch, columns // self.spec.patch)
        table = sincos_table(self.spec.width, grid, self.spec.space_scale, self.spec.time_scale)
        return torch.cat([tokens[:, :words], tokens[:, words:] + table.to(tokens)], 1)

    def _rotary(self, latents: tuple[int, int, int]) -> Rotary | None:
        if not self.spec.rotary:
            return None
        patch, sample = self.spec.patch, self.spec.sample
        grid = (latents[0], latents[1] // patch, latents[2] // patch)
        return rotary_table(self.spec.head_width, grid, (sample[1] // patch, sample[2] // patch))

    def forward(self, x: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """Latents with their condition channels (b, c, t, h, w), timesteps (b,) in [0, 1000), features of the text
        (b, m, e) -> velocity (b, c', t, h, w). Sides are in whole patches.
        """
        spec, words, latents = self.spec, text.shape[1], (x.shape[2], x.shape[3], x.shape[4])
        p = spec.patch
        video = self.patchify(rearrange(x, "b c t (h p) (w q) -> b (t h w) (c p q)", p=p, q=p))
        tokens = self._placed(torch.cat([self.text(text), video], 1), words, latents)
        time = self.time(sinusoid(timesteps, spec.width).to(tokens.dtype))
        rotary = self._rotary(latents)
        if rotary is not None:
            rotary = (rotary[0].to(x.device), rotary[1].to(x.device))
        for block in self.blocks:
            tokens = block(tokens, time, rotary, words)
        shift, scale = rearrange(self.last_time(F.silu(time)), "b (two d) -> two b 1 d", two=2)
        tokens = self.unpatchify(modulated(self.norm(tokens[:, words:]), self.last_norm, shift, scale))
        t, h, w = latents[0], latents[1] // p, latents[2] // p
        return rearrange(tokens, "b (t h w) (c p q) -> b c t (h p) (w q)", t=t, h=h, w=w, p=p, q=p)


def _positions(frames: Tensor, rows: Tensor, columns: Tensor) -> Tensor:  # -> (t·h·w, 3)
    return torch.cartesian_prod(frames, rows, columns)


@lru_cache(maxsize=2)
def rotary_table(head_width: int, grid: tuple[int, int, int], base: tuple[int, int]) -> Rotary:
    """Cosines and sines for the patches of a (t, h, w) grid, (n, head_width / 2) each.

    A grid of another size than `base` (h, w) is fitted into it, centred, with its aspect ratio kept, so that
    coordinates stay among those that were trained.
    """
    frames, rows, columns = grid
    top, left, height, width = fitted((rows, columns), base)
    positions = _positions(
        torch.arange(frames, dtype=torch.float32),
        torch.linspace(top, (top + height) * (rows - 1) / rows, rows),
        torch.linspace(left, (left + width) * (columns - 1) / columns, columns),
    )
    side = head_width // 8 * 3
    return rope_table(positions, (head_width // 4, side, side))


def fitted(grid: tuple[int, int], base: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box (top, left, height, width) of a grid (rows, columns) that is resized to fit `base`, centred."""
    rows, columns = grid
    if rows / columns > base[0] / base[1]:
        height, width = base[0], round(base[0] / rows * columns)
    else:
        height, width = round(base[1] / columns * rows), base[1]
    return round((base[0] - height) / 2), round((base[1] - width) / 2), height, width


@lru_cache(maxsize=2)
def sincos_table(width: int, grid: tuple[int, int, int], space_scale: float, time_scale: float) -> Tensor:
    """Sines and cosines (n, width) of the patches of a (t, h, w) grid: a quarter for time, then columns, then rows."""
    frames, rows, columns = grid
    along = [_waves(columns, 3 * width // 8, space_scale), _waves(rows, 3 * width // 8, space_scale)]
    parts = (
        repeat(_waves(frames, width // 4, time_scale), "t d -> (t h w) d", h=rows, w=columns),
        repeat(along[0], "w d -> (t h w) d", t=frames, h=rows),
        repeat(along[1], "h d -> (t h w) d", t=frames, w=columns),
    )
    return torch.cat(parts, -1).float()


def _waves(length: int, width: int, scale: float) -> Tensor:  # -> (length, width), float64
    rates = 10_000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = (torch.arange(length, dtype=torch.float32) / scale).double()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)
