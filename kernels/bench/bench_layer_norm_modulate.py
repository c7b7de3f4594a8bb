"""layer_norm_modulate against a layer norm and two operations."""

from harness import Candidates, Settings, compiled, main
from torch import Tensor
from torch.nn import functional

from sora_kernels import layer_norm_modulate

SHAPES = {
    "diorama, shift per token": (2, 3120, 3120, 256),
    "diorama, shift per sample": (2, 3120, 1, 256),
    "Wan 1.3B, a quarter of 480p": (1, 8190, 1, 1536),
    "awkward": (1, 1031, 1031, 509),
}
LARGE = {"Wan 1.3B 480p": (1, 32760, 1, 1536), "Wan 14B 480p": (1, 32760, 1, 5120)}


def plain(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Three operations."""
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def candidates(settings: Settings, batch: int, tokens: int, shifts: int, width: int) -> Candidates:
    """The ways to modulate (b, n, d) by (b, shifts, d)."""
    x = settings.randn(batch, tokens, width)
    shift, scale = settings.randn(batch, shifts, width), settings.randn(batch, shifts, width)
    fused = compiled(plain)
    on_cuda = settings.on_cuda({
        "compiled": lambda: fused(x, shift, scale),
        "triton": lambda: layer_norm_modulate(x, shift, scale, 1e-6, backend="triton"),
    })  # fmt: skip
    return {
        "plain": lambda: plain(x, shift, scale),
        "sora_kernels": lambda: layer_norm_modulate(x, shift, scale, 1e-6),
        **on_cuda,
    }


if __name__ == "__main__":
    main("layer_norm_modulate", SHAPES, candidates, LARGE)
