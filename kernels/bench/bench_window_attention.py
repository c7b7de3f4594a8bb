"""window_attention in PyTorch's strips, on Triton and in FlexAttention, beside attention over everything."""

import torch
from harness import Candidates, Settings, main
from torch.nn import functional
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from sora_kernels import window_attention

SHAPES = {
    "diorama 320x180 2 s": (1, 4, 13, 12, 20, 64, 2, 4, 4),
    "awkward": (1, 3, 5, 11, 19, 88, 1, 3, 2),
}
LARGE = {"Wan 1.3B 480p": (1, 12, 21, 30, 52, 128, 3, 6, 10)}


def candidates(settings: Settings, batch: int, heads: int, *numbers: int) -> Candidates:
    """The ways to attend over a grid (t, h, w) of heads `dim` wide within a window."""
    t, h, w, dim, *reach = numbers
    q, k, v = (settings.randn(batch, t * h * w, heads, dim).transpose(1, 2) for _ in range(3))
    grid, window = (t, h, w), (reach[0], reach[1], reach[2])

    def near(_b: object, _h: object, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        frames = (query // (h * w) - key // (h * w)).abs() <= window[0]
        rows = (query // w % h - key // w % h).abs() <= window[1]
        return frames & rows & ((query % w - key % w).abs() <= window[2])

    def flex() -> torch.Tensor:
        return compiled_flex(q, k, v, block_mask=blocks)

    if settings.device == "cuda":
        blocks = create_block_mask(near, None, None, t * h * w, t * h * w, device="cuda", _compile=True)
        compiled_flex = torch.compile(flex_attention)
    on_cuda = settings.on_cuda({
        "flex_attention": flex,
        "triton": lambda: window_attention(q, k, v, grid, window, backend="triton"),
    })  # fmt: skip
    return {
        "strips": lambda: window_attention(q, k, v, grid, window, backend="torch"),
        "everything": lambda: functional.scaled_dot_product_attention(q, k, v),
        "sora_kernels": lambda: window_attention(q, k, v, grid, window),
        **on_cuda,
    }


if __name__ == "__main__":
    main("window_attention", SHAPES, candidates, LARGE)
