"""rope against its formula on halves of pairs."""

import torch
from harness import Candidates, Settings, compiled, main

from sora_kernels import rope, rope_ref, rope_table

SHAPES = {
    "diorama 320x180 2 s": (2, 4, 3120, 64),
    "Wan 1.3B, a quarter of 480p": (1, 12, 8190, 128),
    "awkward": (1, 3, 1031, 22),
}
LARGE = {"Wan 1.3B 480p": (1, 12, 32760, 128), "Open-Sora, heads of 72": (1, 16, 28800, 72)}


def candidates(settings: Settings, batch: int, heads: int, tokens: int, dim: int) -> Candidates:
    """The ways to turn heads as they come from a projection, (b, n, heads, dim) in memory."""
    x = settings.randn(batch, tokens, heads, dim).transpose(1, 2)
    cos, sin = rope_table(torch.arange(tokens, device=settings.device)[:, None], (dim,))
    fused = compiled(rope_ref)
    on_cuda = settings.on_cuda({
        "compiled": lambda: fused(x, cos, sin),
        "triton": lambda: rope(x, cos, sin, backend="triton"),
    })  # fmt: skip
    return {"plain": lambda: rope_ref(x, cos, sin), "sora_kernels": lambda: rope(x, cos, sin), **on_cuda}


if __name__ == "__main__":
    main("rope", SHAPES, candidates, LARGE)
