"""gated_residual against a product and a sum."""

from harness import Candidates, Settings, compiled, main

from sora_kernels import gated_residual, gated_residual_ref

SHAPES = {
    "diorama, gate per token": (2, 3120, 3120, 256),
    "Wan 1.3B, a quarter of 480p": (1, 8190, 1, 1536),
    "awkward": (1, 1031, 1, 509),
}
LARGE = {"Wan 1.3B 480p": (1, 32760, 1, 1536), "Wan 14B 480p": (1, 32760, 1, 5120)}


def candidates(settings: Settings, batch: int, tokens: int, gates: int, width: int) -> Candidates:
    """The ways to add a gated (b, n, d)."""
    x, y = settings.randn(batch, tokens, width), settings.randn(batch, tokens, width)
    gate = settings.randn(batch, gates, width)
    fused = compiled(gated_residual_ref)
    on_cuda = settings.on_cuda({
        "compiled": lambda: fused(x, y, gate),
        "triton": lambda: gated_residual(x, y, gate, backend="triton"),
    })  # fmt: skip
    return {
        "plain": lambda: gated_residual_ref(x, y, gate),
        "sora_kernels": lambda: gated_residual(x, y, gate),
        **on_cuda,
    }


if __name__ == "__main__":
    main("gated_residual", SHAPES, candidates, LARGE)
