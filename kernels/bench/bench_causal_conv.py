"""causal_conv against the 3D convolution of a joined and padded video, at one frame of a stream."""

import torch
from harness import Candidates, Settings, main

from sora_kernels import causal_conv, causal_conv_ref

SHAPES = {
    "Wan's decoder, 60x104": (1, 384, 384, 60, 104),
    "Wan's decoder, 120x208": (1, 192, 192, 120, 208),
    "awkward": (1, 37, 61, 31, 29),
}
LARGE = {"Wan's decoder, 480x832": (1, 96, 96, 480, 832), "Wan's decoder, 120x208": (1, 384, 384, 120, 208)}


def candidates(settings: Settings, batch: int, channels: int, out: int, height: int, width: int) -> Candidates:
    """The ways to convolve a frame and the two before it, all channels last."""
    frames = settings.randn(3, batch, height, width, channels).permute(0, 1, 4, 2, 3).unbind(0)
    weight, bias = settings.randn(3, out, 3, 3, channels) / channels, settings.randn(out)
    arguments = (frames[2], frames[:2], weight.detach().requires_grad_(settings.train), bias)
    with_cudnn = settings.on_cuda({"triton": lambda: causal_conv(*arguments, backend="triton")})
    torch.backends.cudnn.benchmark = True
    return {
        "plain": lambda: causal_conv_ref(*arguments),
        "sora_kernels": lambda: causal_conv(*arguments),
        **with_cudnn,
    }


if __name__ == "__main__":
    main("causal_conv", SHAPES, candidates, LARGE)
