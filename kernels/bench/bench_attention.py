"""attention against its formula and PyTorch's own, pinned to cuDNN and to flash."""

import torch
from harness import Candidates, Settings, main, pinned
from torch.nn import functional

from sora_kernels import attention, attention_ref

SHAPES = {
    "diorama 320x180 2 s": (1, 4, 3120, 3144, 64, 1),
    "diorama's training": (8, 4, 144, 168, 64, 1),
    "awkward": (1, 3, 1031, 257, 88, 1),
}
LARGE = {
    "Wan 1.3B 480p": (1, 12, 32760, 32760, 128, 0),
    "Wan 1.3B 480p, text": (1, 12, 32760, 512, 128, 0),
    "Wan 14B 480p": (1, 40, 32760, 32760, 128, 0),
    "heads of 64": (1, 24, 16384, 16384, 64, 0),
    "heads of 256": (1, 8, 16384, 16384, 256, 0),
    "padded keys": (2, 12, 8190, 8190, 128, 1),
}
MOST_SCORES = 1 << 31
"""Scores beyond which the formula, which holds them all, is left out."""


def candidates(settings: Settings, batch: int, heads: int, tokens: int, keys: int, dim: int, padded: int) -> Candidates:
    """The ways to attend, with the last tenth of the keys hidden where `padded` is 1."""
    q, k, v = (settings.randn(batch, n, heads, dim).transpose(1, 2) for n in (tokens, keys, keys))
    mask = (torch.arange(keys, device=settings.device) < keys * 0.9).expand(batch, -1) if padded else None
    spread = None if mask is None else mask[:, None, None]

    def pytorch() -> torch.Tensor:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=spread)

    on_cuda = settings.on_cuda({
        "cudnn": pinned("cudnn", pytorch),
        "flash": pinned("flash", pytorch),
        "triton": lambda: attention(q, k, v, mask, backend="triton"),
        "int8": lambda: attention(q, k, v, mask, backend="int8"),
    })  # fmt: skip
    plain = {"plain": lambda: attention_ref(q, k, v, mask)} if batch * heads * tokens * keys < MOST_SCORES else {}
    return {**plain, "pytorch": pytorch, "sora_kernels": lambda: attention(q, k, v, mask), **on_cuda}


if __name__ == "__main__":
    main("attention", SHAPES, candidates, LARGE)
