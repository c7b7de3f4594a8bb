"""qk_norm_rope_attention against its parts in PyTorch's own calls."""

import torch
from harness import Candidates, Settings, main
from torch.nn import functional

from sora_kernels import qk_norm_rope_attention, qk_norm_rope_attention_ref, rope_ref, rope_table

SHAPES = {
    "diorama 320x180 2 s": (1, 4, 3120, 24, 64),
    "diorama's training": (8, 4, 144, 24, 64),
    "awkward": (1, 3, 1031, 7, 88),
}


def candidates(settings: Settings, batch: int, heads: int, tokens: int, text: int, dim: int) -> Candidates:
    """The ways to attend over (b, heads, n, dim) and the text's keys."""
    q, k, v = (settings.randn(batch, tokens, heads, dim).transpose(1, 2) for _ in range(3))
    text_k, text_v = (settings.randn(batch, heads, text, dim) for _ in range(2))
    weight = settings.randn(dim)
    cos, sin = rope_table(torch.arange(tokens, device=settings.device)[:, None], (dim,))

    def pytorch() -> torch.Tensor:
        turned_q, turned_k = (rope_ref(functional.rms_norm(x, (dim,), weight, 1e-6), cos, sin) for x in (q, k))
        keys, values = torch.cat([turned_k, text_k], 2), torch.cat([v, text_v], 2)
        return functional.scaled_dot_product_attention(turned_q, keys, values)

    arguments = (q, k, v, weight, weight, cos, sin, text_k, text_v)
    return {
        "plain": lambda: qk_norm_rope_attention_ref(*arguments),
        "pytorch": pytorch,
        "sora_kernels": lambda: qk_norm_rope_attention(*arguments),
    }


if __name__ == "__main__":
    main("qk_norm_rope_attention", SHAPES, candidates)
