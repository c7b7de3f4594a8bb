"""One denoising step of random networks: ours beside itself in plain PyTorch calls, and beside diffusers' twin.

diorama in its own size and a mid-size Wan and CogVideoX, the latter two with the weights of diffusers' networks. Prints
the ratio of medians (ours over theirs, below 1 is faster) of interleaved runs, how far apart both outputs are, and how
much of our time its products would take at the rate of a large matrix product in the same run:
    python bench/bench_step.py --threads 2
    python bench/bench_step.py --threads 2 --models diorama wan --blocks 1 --grid 3 30 52 --repeats 5    # a minute
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from sora_cli.model import cogvideox as cogvideox_network
from sora_cli.model import dit, layers, recall
from sora_cli.model import wan as wan_network
from sora_cli.model.cogvideox import CogVideoXTransformer
from sora_cli.model.wan import FULL_PRECISION, WanTransformer
from sora_kernels import gated_residual_ref, linear_gelu_ref, qk_norm_rope_ref, rms_norm_ref, rope_ref
from sora_kernels.attention import joined
from sora_weights.families import cogvideox, wan
from sora_weights.keymap import KeyMap
from sora_weights.manifest import Manifest
from sora_weights.rules.cogvideox import KEYS as COGVIDEOX_KEYS
from sora_weights.rules.wan import KEYS as WAN_KEYS
from sora_weights.spec import DiTSpec

KEPT = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")  # float32 in the reference's bfloat16 Wan
NETWORKS = (dit, layers, recall, wan_network, cogvideox_network)
SIDE = 2048
DTYPES = (torch.float32, torch.bfloat16)
Step = Callable[[], Tensor]
Steps = Mapping[str, Step]
"""Ours first."""


def _modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    return (functional.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale) + shift).to(x.dtype)


def _attended(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
    extra_k: Tensor | None = None,
    extra_v: Tensor | None = None,
) -> Tensor:
    seen = None if mask is None else mask[:, None, None]
    k, v = joined(k, extra_k), joined(v, extra_v)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)


def _prepared_and_attended(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    extra_k: Tensor | None = None,
    extra_v: Tensor | None = None,
    mask: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    q, k = (x.to(v.dtype) for x in qk_norm_rope_ref(q, k, q_weight, k_weight, cos, sin, eps))
    return _attended(q, k, v, mask, None, extra_k, extra_v)


PLAIN: Mapping[str, Callable[..., Tensor]] = {
    "attention": _attended,
    "gated_residual": gated_residual_ref,
    "layer_norm_modulate": _modulated,
    "linear_gelu": linear_gelu_ref,
    "qk_norm_rope_attention": _prepared_and_attended,
    "rms_norm": rms_norm_ref,
    "rope": rope_ref,
}
"""The operators that our networks are made of, in single calls of PyTorch."""


def in_plain_calls(step: Step) -> Step:
    """The step of one of our networks with PyTorch's calls in the place of our operators."""

    def run() -> Tensor:
        with ExitStack() as replaced:
            for module in NETWORKS:
                names = {name: plain for name, plain in PLAIN.items() if hasattr(module, name)}
                replaced.enter_context(patch.multiple(module, **names))
            return step()

    return run


def settings(oracle: Any) -> Manifest:
    """The oracle's config.json."""
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in oracle.config.items()}
    return Manifest(Path("config.json"), values)


def narrowed(network: nn.Module, dtype: torch.dtype, kept: tuple[str, ...]) -> nn.Module:
    """The network in `dtype`, but for parameters whose name holds one of `kept`."""
    for name, parameter in network.named_parameters():
        if not any(part in name for part in kept):
            parameter.data = parameter.data.to(dtype)
    return network.eval().requires_grad_(False)


def twins(oracle: nn.Module, ours: nn.Module, keys: KeyMap) -> None:
    """Random weights that wake everything, the same in both."""
    for parameter in oracle.parameters():
        parameter.data = torch.randn_like(parameter) * 0.02
    ours.load_state_dict(keys.apply(oracle.state_dict()))


def diorama_steps(dtype: torch.dtype, _blocks: int, _grid: tuple[int, int, int]) -> Steps:
    """A step of diorama at 320x180 and 2 seconds, all its blocks."""
    network = dit.DiT(DiTSpec())
    for parameter in network.parameters():
        parameter.data = torch.randn_like(parameter) * 0.02
    narrowed(network, dtype, ())
    t, h, w = 13, 24, 40
    place = dit.locate(dit.seconds_of(0, t, 24.0, 4), 6.0, (180, 320), (0, 0), (h, w), 8)
    x, timesteps = torch.randn(1, 32, t, h, w), torch.full((1, t), 0.7)
    text, seen = torch.randn(1, 24, 384), torch.ones(1, 24, dtype=torch.bool)

    def ours() -> Tensor:
        return network(x, timesteps, text, seen, place)

    return {"ours": ours, "plain": in_plain_calls(ours)}


def wan_steps(dtype: torch.dtype, blocks: int, grid: tuple[int, int, int]) -> Steps:
    """A step of ours, in plain calls and of diffusers: Wan 1.3B's widths with fewer blocks."""
    oracle = WanTransformer3DModel(num_attention_heads=12, num_layers=blocks, ffn_dim=8960)
    network = WanTransformer(wan.denoiser_spec(settings(oracle)))
    twins(oracle, network, WAN_KEYS)
    narrow = dtype != torch.float32
    narrowed(oracle, dtype, KEPT if narrow else ())
    narrowed(network, dtype, FULL_PRECISION if narrow else ())
    x, text = torch.randn(1, 16, *grid).to(dtype), torch.randn(1, 512, 4096).to(dtype)
    timesteps = torch.tensor([731.0])

    def ours() -> Tensor:
        return network(x, timesteps, text)

    theirs = {"diffusers": lambda: oracle(x, timesteps, text, return_dict=False)[0]}
    return {"ours": ours, "plain": in_plain_calls(ours), **theirs}


def cogvideox_steps(dtype: torch.dtype, blocks: int, grid: tuple[int, int, int]) -> Steps:
    """A step of ours, in plain calls and of diffusers: CogVideoX 2B's width with rotary positions and fewer blocks."""
    t, h, w = grid
    config = {"sample_height": h, "sample_width": w, "sample_frames": 4 * t - 3}
    oracle = CogVideoXTransformer3DModel(num_layers=blocks, use_rotary_positional_embeddings=True, **config)
    network = CogVideoXTransformer(cogvideox.denoiser_spec(settings(oracle), 4))
    twins(oracle, network, COGVIDEOX_KEYS)
    narrowed(oracle, dtype, ())
    narrowed(network, dtype, ())
    x, text = torch.randn(1, 16, *grid).to(dtype), torch.randn(1, 226, 4096).to(dtype)
    timesteps, turned = torch.tensor([731]), x.transpose(1, 2).contiguous()
    rotary = get_3d_rotary_pos_embed(64, ((0, 0), (h // 2, w // 2)), (h // 2, w // 2), t)

    def ours() -> Tensor:
        return network(x, timesteps, text)

    def reference() -> Tensor:
        made = oracle(turned, text, timesteps, image_rotary_emb=rotary, return_dict=False)[0]
        return made.transpose(1, 2)

    return {"ours": ours, "plain": in_plain_calls(ours), "diffusers": reference}


STEPS = {"diorama": diorama_steps, "wan": wan_steps, "cogvideox": cogvideox_steps}


def timed(step: Step) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def operations(step: Step) -> int:
    """Floating-point operations of the matrix products and convolutions of a step in PyTorch's own calls."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def product(dtype: torch.dtype) -> Step:
    """A square matrix product of `SIDE` rows."""
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    return lambda: a @ b


def compared(steps: Steps, dtype: torch.dtype, repeats: int) -> str:
    """Median seconds of each, for those that are not ours the ratio and how far apart the outputs are, and the share of
    our time that products take at least.
    """
    mine, *others = (step().float() for step in steps.values())
    every = [*steps.values(), product(dtype)]
    rounds = [[timed(step) for step in every] for _ in range(repeats)]
    ours, *theirs, square = (statistics.median(column) for column in zip(*rounds, strict=True))
    rate, count = 2 * SIDE**3 / square, operations(steps["plain"])
    floor = f"{count / 1e9:.0f} GFLOP, at {rate / 1e9:.0f} GFLOP/s {count / rate / ours:.2f} of it"
    cells = [
        f"{name} {seconds:.3f} s: {ours / seconds:.3f}, apart {(mine - other).norm() / other.norm():.1e}"
        for name, seconds, other in zip(list(steps)[1:], theirs, others, strict=True)
    ]
    return "; ".join([f"{ours:.3f} s", *cells, floor])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--models", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--blocks", type=int, default=2, help="of Wan and CogVideoX")
    parser.add_argument("--grid", type=int, nargs=3, default=(3, 60, 104), metavar=("T", "H", "W"), help="of the same")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    print(f"{asked.blocks} blocks, latents {tuple(asked.grid)}, {asked.threads} threads, torch {torch.__version__}")
    for name in asked.models:
        for dtype in DTYPES:
            steps = STEPS[name](dtype, asked.blocks, tuple(asked.grid))
            told = compared(steps, dtype, asked.repeats)
            print(f"{name:9} {str(dtype).removeprefix('torch.'):8} {told}", flush=True)


if __name__ == "__main__":
    main()
