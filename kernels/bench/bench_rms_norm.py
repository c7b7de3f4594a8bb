"""rms_norm against its formula and PyTorch's own."""

from harness import Candidates, Settings, main
from torch.nn import functional

from sora_kernels import rms_norm, rms_norm_ref

SHAPES = {
    "diorama 320x180 2 s": (2, 3120, 256),
    "Wan 1.3B, a quarter of 480p": (1, 8190, 1536),
    "awkward": (1, 1031, 509),
}


def candidates(settings: Settings, batch: int, tokens: int, width: int) -> Candidates:
    """The ways to norm (b, n, d)."""
    x, weight = settings.randn(batch, tokens, width), settings.randn(width)
    return {
        "plain": lambda: rms_norm_ref(x, weight, 1e-6),
        "pytorch": lambda: functional.rms_norm(x, (width,), weight, 1e-6),
        "sora_kernels": lambda: rms_norm(x, weight, 1e-6),
    }


if __name__ == "__main__":
    main("rms_norm", SHAPES, candidates)
