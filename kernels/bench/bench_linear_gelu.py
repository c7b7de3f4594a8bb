"""linear_gelu against a product and an activation, in the widths of diorama's and Wan's MLPs."""

from harness import Candidates, Settings, compiled, main

from sora_kernels import linear_gelu, linear_gelu_ref

SHAPES = {
    "diorama": (1440, 384, 1536),
    "Wan 1.3B": (1560, 1536, 8960),
    "awkward": (1009, 97, 389),
}
LARGE = {"Wan 1.3B, 480p": (32760, 1536, 8960)}


def candidates(settings: Settings, tokens: int, inward: int, outward: int) -> Candidates:
    """The ways to widen and activate tokens."""
    x, weight, bias = settings.randn(1, tokens, inward), settings.randn(outward, inward), settings.randn(outward)
    fused = compiled(linear_gelu_ref)
    return {
        "plain": lambda: linear_gelu_ref(x, weight, bias),
        "sora_kernels": lambda: linear_gelu(x, weight, bias),
        **settings.on_cuda({"compiled": lambda: fused(x, weight, bias)}),
    }


if __name__ == "__main__":
    main("linear_gelu", SHAPES, candidates, LARGE)
