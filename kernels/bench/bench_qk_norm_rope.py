"""qk_norm_rope against its formula: of each head, and of all heads together as Wan has it."""

import torch
from harness import Candidates, Settings, compiled, main

from sora_kernels import qk_norm_rope, qk_norm_rope_ref, rope_table

SHAPES = {
    "diorama 320x180 2 s": (2, 4, 3120, 64, 1),
    "Wan 1.3B, a quarter of 480p": (1, 12, 8190, 128, 12),
    "awkward": (1, 3, 1031, 22, 1),
}
LARGE = {
    "Wan 1.3B 480p": (1, 12, 32760, 128, 12),
    "Wan 14B 480p": (1, 40, 32760, 128, 40),
    "heads of 128, each by itself": (1, 24, 32760, 128, 1),
}


def candidates(settings: Settings, batch: int, heads: int, tokens: int, dim: int, together: int) -> Candidates:
    """The ways to prepare q and k as they lie in one projection; `together` heads share a norm."""
    q, k, _ = settings.randn(batch, tokens, 3, heads, dim).permute(2, 0, 3, 1, 4)
    weight = settings.randn(dim) if together == 1 else settings.randn(heads, dim)
    cos, sin = rope_table(torch.arange(tokens, device=settings.device)[:, None], (dim,))
    arguments = (q, k, weight, weight, cos, sin)
    fused = compiled(qk_norm_rope_ref)
    on_cuda = settings.on_cuda({
        "compiled": lambda: fused(*arguments)[0],
        "triton": lambda: qk_norm_rope(*arguments, backend="triton")[0],
    })  # fmt: skip
    return {
        "plain": lambda: qk_norm_rope_ref(*arguments)[0],
        "sora_kernels": lambda: qk_norm_rope(*arguments)[0],
        **on_cuda,
    }


if __name__ == "__main__":
    main("qk_norm_rope", SHAPES, candidates, LARGE)
