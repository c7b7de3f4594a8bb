"""One denoising step of a mid-size random Wan and CogVideoX: our network beside diffusers' with the same weights.

Prints the ratio of medians (ours over theirs, below 1 is faster) of interleaved runs, and the largest difference:
    python bench/bench_step.py --threads 2
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor, nn

from sora_cli.model.cogvideox import CogVideoXTransformer
from sora_cli.model.wan import FULL_PRECISION, WanTransformer
from sora_weights.families import cogvideox, wan
from sora_weights.keymap import KeyMap
from sora_weights.manifest import Manifest
from sora_weights.rules.cogvideox import KEYS as COGVIDEOX_KEYS
from sora_weights.rules.wan import KEYS as WAN_KEYS

KEPT = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")  # float32 in the reference's bfloat16 Wan
Step = Callable[[], Tensor]


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


def wan_steps(dtype: torch.dtype, blocks: int, grid: tuple[int, int, int]) -> tuple[Step, Step]:
    """A step of ours and of diffusers: Wan 1.3B's widths with fewer blocks."""
    oracle = WanTransformer3DModel(num_attention_heads=12, num_layers=blocks, ffn_dim=8960)
    ours = WanTransformer(wan.denoiser_spec(settings(oracle)))
    twins(oracle, ours, WAN_KEYS)
    narrow = dtype != torch.float32
    narrowed(oracle, dtype, KEPT if narrow else ())
    narrowed(ours, dtype, FULL_PRECISION if narrow else ())
    x, text = torch.randn(1, 16, *grid).to(dtype), torch.randn(1, 512, 4096).to(dtype)
    timesteps = torch.tensor([731.0])
    return lambda: ours(x, timesteps, text), lambda: oracle(x, timesteps, text, return_dict=False)[0]


def cogvideox_steps(dtype: torch.dtype, blocks: int, grid: tuple[int, int, int]) -> tuple[Step, Step]:
    """A step of ours and of diffusers: CogVideoX 2B's width with rotary positions and fewer blocks."""
    t, h, w = grid
    config = {"sample_height": h, "sample_width": w, "sample_frames": 4 * t - 3}
    oracle = CogVideoXTransformer3DModel(num_layers=blocks, use_rotary_positional_embeddings=True, **config)
    ours = CogVideoXTransformer(cogvideox.denoiser_spec(settings(oracle), 4))
    twins(oracle, ours, COGVIDEOX_KEYS)
    narrowed(oracle, dtype, ())
    narrowed(ours, dtype, ())
    x, text = torch.randn(1, 16, *grid).to(dtype), torch.randn(1, 226, 4096).to(dtype)
    timesteps, turned = torch.tensor([731]), x.transpose(1, 2).contiguous()
    rotary = get_3d_rotary_pos_embed(64, ((0, 0), (h // 2, w // 2)), (h // 2, w // 2), t)

    def reference() -> Tensor:
        made = oracle(turned, text, timesteps, image_rotary_emb=rotary, return_dict=False)[0]
        return made.transpose(1, 2)

    return lambda: ours(x, timesteps, text), reference


def timed(step: Step) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--grid", type=int, nargs=3, default=(3, 60, 104), metavar=("T", "H", "W"))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    print(f"{asked.blocks} blocks, latents {tuple(asked.grid)}, {asked.threads} threads, torch {torch.__version__}")
    for name, steps in (("wan", wan_steps), ("cogvideox", cogvideox_steps)):
        for dtype in (torch.float32, torch.bfloat16):
            ours, theirs = steps(dtype, asked.blocks, tuple(asked.grid))
            apart = (ours() - theirs()).float().norm() / theirs().float().norm()
            pairs = [(timed(ours), timed(theirs)) for _ in range(asked.repeats)]
            mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
            kind = str(dtype).removeprefix("torch.")
            print(f"{name:9} {kind:8} {mine:.3f} s, diffusers {other:.3f} s: {mine / other:.3f}, apart {apart:.1e}")


if __name__ == "__main__":
    main()
