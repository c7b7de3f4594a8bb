"""norm_silu against a normalisation and a SiLU, on frames as a video autoencoder's levels have them."""

import torch
from harness import Candidates, Settings, compiled, main

from sora_kernels import norm_silu, norm_silu_ref

SHAPES = {
    "Wan's decoder, 60x104": (1, 384, 60, 104),
    "Wan's decoder, 240x416": (1, 192, 240, 416),
    "awkward": (1, 97, 31, 37),
}
LARGE = {"Wan's decoder, 480x832": (1, 96, 480, 832), "Wan's decoder, 240x416": (1, 192, 240, 416)}


def candidates(settings: Settings, batch: int, channels: int, height: int, width: int) -> Candidates:
    """The ways to norm and activate channels-last frames."""
    x = settings.randn(batch, channels, height, width).contiguous(memory_format=torch.channels_last)
    weight = settings.randn(channels)
    fused = compiled(norm_silu_ref)
    on_cuda = settings.on_cuda({
        "compiled": lambda: fused(x, weight, 1e-24),
        "triton": lambda: norm_silu(x, weight, 1e-24, backend="triton"),
    })  # fmt: skip
    return {
        "plain": lambda: norm_silu_ref(x, weight, 1e-24),
        "sora_kernels": lambda: norm_silu(x, weight, 1e-24),
        **on_cuda,
    }


if __name__ == "__main__":
    main("norm_silu", SHAPES, candidates, LARGE)
