"""A whole denoising step of Wan's shape: the same blocks from PyTorch's operators, compiled, and from ours.

All candidates but diffusers share weights and inputs, so their outputs can be compared; diffusers' network of the
same size has weights of its own. `--depth 30` is all of Wan 1.3B.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from einops import rearrange
from harness import Candidates, Settings, compiled, main, pinned
from torch import Tensor
from torch.nn import functional

from sora_kernels import (
    attention,
    gated_residual,
    gated_residual_ref,
    layer_norm_modulate,
    qk_norm_rope_attention,
    qk_norm_rope_ref,
    rms_norm,
    rope_table,
)

SHAPES = {"Wan 1.3B, 9 frames of 128x128": (12, 128, 3, 8, 8, 512, 8960)}
LARGE = {"Wan 1.3B 480p, 81 frames": (12, 128, 21, 30, 52, 512, 8960)}
EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Block:
    """Weights of a block; `time` are shift, scale and gate of attention and of the MLP, (1, 1, d) each."""

    qkv: Tensor
    out: Tensor
    cross_q: Tensor
    cross_kv: Tensor
    cross_out: Tensor
    up: Tensor
    down: Tensor
    norms: tuple[Tensor, Tensor]
    cross_norms: tuple[Tensor, Tensor]
    time: tuple[Tensor, ...]

    @classmethod
    def random(cls, settings: Settings, heads: int, dim: int, inner: int) -> Block:
        """Weights that keep the size of what passes through."""
        width = heads * dim

        def linear(inward: int, outward: int) -> Tensor:
            return (settings.randn(outward, inward) * inward**-0.5).detach().requires_grad_(settings.train)

        return cls(
            linear(width, 3 * width), linear(width, width), linear(width, width), linear(width, 2 * width),
            linear(width, width), linear(width, inner), linear(inner, width),
            norms=(settings.randn(heads, dim), settings.randn(heads, dim)),
            cross_norms=(settings.randn(width), settings.randn(width)),
            time=tuple(0.1 * settings.randn(1, 1, width) for _ in range(6)),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operators:
    """What a block is made of, besides matrix products."""

    modulate: Callable[..., Tensor]
    gate: Callable[..., Tensor]
    norm: Callable[..., Tensor]
    attend: Callable[..., Tensor]
    cross: Callable[..., Tensor]

    @classmethod
    def ours(cls, whole: str = "auto", others: str = "auto", cross: str = "auto") -> Operators:
        """Those of sora_kernels on the backends of these names."""
        return cls(
            partial(layer_norm_modulate, eps=EPS, backend=others),
            partial(gated_residual, backend=others),
            partial(rms_norm, eps=EPS, backend=others),
            partial(qk_norm_rope_attention, eps=EPS, backend=whole),
            partial(attention, backend=cross),
        )


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:], weight, EPS)


def _attend(q: Tensor, k: Tensor, v: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    q, k = qk_norm_rope_ref(q, k, q_weight, k_weight, cos, sin, EPS)
    return functional.scaled_dot_product_attention(q, k, v)


PYTORCH = Operators(_modulate, gated_residual_ref, _norm, _attend, functional.scaled_dot_product_attention)


def step(operators: Operators, blocks: tuple[Block, ...], x: Tensor, text: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """All blocks: x (1, n, d), text (1, m, d), tables (n, dim/2)."""
    for block in blocks:
        x = _block(operators, block, x, text, cos, sin)
    return x


def _block(operators: Operators, block: Block, x: Tensor, text: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    heads = block.norms[0].shape[0]
    apart = partial(rearrange, pattern="b n (heads d) -> b heads n d", heads=heads)
    together = partial(rearrange, pattern="b heads n d -> b n (heads d)")
    shift, scale, gate, shift2, scale2, gate2 = block.time
    q, k, v = map(apart, functional.linear(operators.modulate(x, shift, scale), block.qkv).chunk(3, -1))
    found = together(operators.attend(q, k, v, *block.norms, cos, sin))
    x = operators.gate(x, functional.linear(found, block.out), gate)
    text_k, text_v = functional.linear(text, block.cross_kv).chunk(2, -1)
    q = operators.norm(functional.linear(x, block.cross_q), block.cross_norms[0])
    text_k = operators.norm(text_k, block.cross_norms[1])
    x = x + functional.linear(together(operators.cross(apart(q), apart(text_k), apart(text_v))), block.cross_out)
    y = functional.linear(operators.modulate(x, shift2, scale2), block.up)
    return operators.gate(x, functional.linear(functional.gelu(y, approximate="tanh"), block.down), gate2)


def candidates(settings: Settings, heads: int, dim: int, t: int, h: int, w: int, words: int, inner: int) -> Candidates:
    """The ways to run `settings.depth` blocks on a (t, h, w) grid of tokens and the words of a text."""
    blocks = tuple(Block.random(settings, heads, dim, inner) for _ in range(settings.depth))
    x, text = settings.randn(1, t * h * w, heads * dim), settings.randn(1, words, heads * dim)
    side = 2 * (dim // 6)
    places = torch.cartesian_prod(*(torch.arange(size, device=settings.device) for size in (t, h, w)))
    cos, sin = rope_table(places, (dim - 2 * side, side, side))

    def of(operators: Operators) -> Callable[[], Tensor]:
        return lambda: step(operators, blocks, x, text, cos, sin)

    def fused(kernel: str) -> Callable[[], Tensor]:
        run = compiled(pinned(kernel, partial(step, PYTORCH)))
        return lambda: run(blocks, x, text, cos, sin)

    on_cuda = settings.on_cuda({
        "eager cudnn": pinned("cudnn", of(PYTORCH)),
        "eager flash": pinned("flash", of(PYTORCH)),
        "compiled cudnn": fused("cudnn"),
        "compiled flash": fused("flash"),
        "triton": of(Operators.ours("triton", "triton", "triton")),
        "int8": of(Operators.ours("int8")),
    })  # fmt: skip
    ours = {"eager": of(PYTORCH), "sora_kernels": of(Operators.ours())}
    return {**ours, **on_cuda, **_diffusers(settings, heads, dim, (t, h, w), words, inner)}


def _diffusers(
    settings: Settings, heads: int, dim: int, grid: tuple[int, int, int], words: int, inner: int
) -> Candidates:
    """The network of this size in diffusers, where that is installed; nothing is downloaded."""
    if settings.train or not find_spec("diffusers"):
        return {}
    from diffusers import WanTransformer3DModel

    network = WanTransformer3DModel(
        num_attention_heads=heads, attention_head_dim=dim, num_layers=settings.depth, ffn_dim=inner
    ).to(settings.device, settings.dtype)
    latents = settings.randn(1, 16, grid[0], 2 * grid[1], 2 * grid[2])
    text, timestep = settings.randn(1, words, 4096), torch.full((1,), 500, device=settings.device)
    return {"diffusers": lambda: network(latents, timestep, text, return_dict=False)[0]}


if __name__ == "__main__":
    main("dit_step", SHAPES, candidates, LARGE)
