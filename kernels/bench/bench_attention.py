"""attention against its formula and PyTorch's own."""

import torch
from harness import Candidates, Settings, main
from torch.nn import functional

from sora_kernels import attention, attention_ref

SHAPES = {
    "diorama 320x180 2 s": (1, 4, 3120, 3144, 64),
    "diorama's training": (8, 4, 144, 168, 64),
    "awkward": (1, 3, 1031, 257, 88),
}


def candidates(settings: Settings, batch: int, heads: int, tokens: int, keys: int, dim: int) -> Candidates:
    """The ways to attend with the last tenth of the keys hidden."""
    q, k, v = (settings.randn(batch, n, heads, dim).transpose(1, 2) for n in (tokens, keys, keys))
    mask = (torch.arange(keys, device=settings.device) < keys * 0.9).expand(batch, -1)
    spread = mask[:, None, None]
    return {
        "plain": lambda: attention_ref(q, k, v, mask),
        "pytorch": lambda: functional.scaled_dot_product_attention(q, k, v, attn_mask=spread),
        "sora_kernels": lambda: attention(q, k, v, mask),
    }


if __name__ == "__main__":
    main("attention", SHAPES, candidates)
