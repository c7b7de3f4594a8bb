"""qk_norm_rope_attention against its parts in PyTorch's own calls, eager and compiled."""

import torch
from harness import Candidates, Settings, compiled, main, pinned
from torch import Tensor
from torch.nn import functional

from sora_kernels import qk_norm_rope_attention, qk_norm_rope_attention_ref, qk_norm_rope_ref, rope_table
from sora_kernels.attention import joined

SHAPES = {
    "diorama 320x180 2 s": (1, 4, 3120, 24, 64, 1),
    "diorama's training": (8, 4, 144, 24, 64, 1),
    "awkward": (1, 3, 1031, 7, 88, 1),
}
LARGE = {
    "Wan 1.3B 480p": (1, 12, 32760, 0, 128, 12),
    "Wan 14B 480p": (1, 40, 32760, 0, 128, 40),
    "video and text": (1, 24, 16384, 256, 128, 1),
}
MOST_SCORES = 1 << 31
"""Scores beyond which the formula, which holds them all, is left out."""


def pytorch(
    q: Tensor, k: Tensor, v: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor,
    text_k: Tensor, text_v: Tensor,
) -> Tensor:  # fmt: skip
    """Norm and RoPE in single operations, then PyTorch's attention."""
    q, k = qk_norm_rope_ref(q, k, q_weight, k_weight, cos, sin)
    return functional.scaled_dot_product_attention(q, joined(k, text_k), joined(v, text_v))


def candidates(
    settings: Settings, batch: int, heads: int, tokens: int, text: int, dim: int, together: int
) -> Candidates:
    """The ways to attend over (b, heads, n, dim) and the text's keys; `together` heads share a norm."""
    q, k, v = settings.randn(batch, tokens, 3, heads, dim).permute(2, 0, 3, 1, 4)
    text_k, text_v = (settings.randn(batch, heads, text, dim) for _ in range(2))
    weight = settings.randn(dim) if together == 1 else settings.randn(heads, dim)
    cos, sin = rope_table(torch.arange(tokens, device=settings.device)[:, None], (dim,))
    arguments = (q, k, v, weight, weight, cos, sin, text_k, text_v)
    with_cudnn, with_flash = (compiled(pinned(kernel, pytorch)) for kernel in ("cudnn", "flash"))
    on_cuda = settings.on_cuda({
        "compiled cudnn": lambda: with_cudnn(*arguments),
        "compiled flash": lambda: with_flash(*arguments),
        "triton+torch": lambda: qk_norm_rope_attention(*arguments, backend="triton+torch"),
        "triton": lambda: qk_norm_rope_attention(*arguments, backend="triton"),
        "int8": lambda: qk_norm_rope_attention(*arguments, backend="int8"),
    })  # fmt: skip
    small = batch * heads * tokens * tokens < MOST_SCORES
    return {
        **({"plain": lambda: qk_norm_rope_attention_ref(*arguments)} if small else {}),
        "pytorch": lambda: pytorch(*arguments),
        "sora_kernels": lambda: qk_norm_rope_attention(*arguments),
        **on_cuda,
    }


if __name__ == "__main__":
    main("qk_norm_rope_attention", SHAPES, candidates, LARGE)
