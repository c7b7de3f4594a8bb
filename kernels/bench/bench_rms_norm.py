"""rms_norm against its formula and PyTorch's own."""

from harness import Candidates, Settings, compiled, main
from torch.nn import functional

from sora_kernels import rms_norm, rms_norm_ref

SHAPES = {
    "diorama 320x180 2 s": (2, 3120, 256),
    "Wan 1.3B, a quarter of 480p": (1, 8190, 1536),
    "awkward": (1, 1031, 509),
}
LARGE = {"Wan 1.3B 480p": (1, 32760, 1536), "Wan 14B 480p": (1, 32760, 5120)}


def candidates(settings: Settings, batch: int, tokens: int, width: int) -> Candidates:
    """The ways to norm (b, n, d)."""
    x, weight = settings.randn(batch, tokens, width), settings.randn(width)
    fused = compiled(rms_norm_ref)
    on_cuda = settings.on_cuda({
        "compiled": lambda: fused(x, weight, 1e-6),
        "triton": lambda: rms_norm(x, weight, 1e-6, backend="triton"),
    })  # fmt: skip
    return {
        "plain": lambda: rms_norm_ref(x, weight, 1e-6),
        "pytorch": lambda: functional.rms_norm(x, (width,), weight, 1e-6),
        "sora_kernels": lambda: rms_norm(x, weight, 1e-6),
        **on_cuda,
    }


if __name__ == "__main__":
    main("rms_norm", SHAPES, candidates, LARGE)
