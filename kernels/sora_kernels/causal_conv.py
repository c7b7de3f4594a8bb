"""A convolution over a video frame and the frames before it, which are kept as they are."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor
from torch.nn import functional

from sora_kernels.dispatch import Backend, dispatch
from sora_kernels.refusals import triton_refusal
from sora_kernels.shapes import check_causal


def causal_conv(
    frame: Tensor, past: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """The 3D convolution's output at `frame`; frames from before the video are zero, as is all around a frame.

    frame and each of `past` (b, c, h, w), oldest first, at most one fewer than the weight is long; weight
    (t, o, side, side, c) with an odd side, its oldest frame first; bias (o,). Returns (b, o, h, w).

    The frames are the cache: whoever streams a video keeps the last ones by reference, and nothing is joined, padded
    or copied. Frames in channels-last order are read as they are.
    Raises ValueError for shapes that do not fit each other.
    """
    check_causal("causal_conv", frame, past, weight, bias)
    result: Tensor = dispatch("causal_conv", BACKENDS, backend, frame, past, weight, bias)
    return result


def causal_conv_ref(frame: Tensor, past: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`causal_conv` as the 3D convolution that it is, in the precision of the frame."""
    blank = [frame.new_zeros(frame.shape)] * (len(weight) - 1 - len(past))
    video = rearrange([*blank, *past, frame], "t b c h w -> b c t h w")
    side = weight.shape[2] // 2
    kernel = rearrange(weight, "t o h w c -> o c t h w")
    return functional.conv3d(video, kernel, bias, padding=(0, side, side)).squeeze(2)


def _torch(frame: Tensor, past: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> Tensor:
    """2D convolutions, summed: on CPU faster than a 3D one, and frames that are zero cost nothing."""
    *older, newest = rearrange(weight, "t o h w c -> t o c h w")
    padding = weight.shape[2] // 2
    out = functional.conv2d(frame, newest, bias, padding=padding)
    for before, kernel in zip(reversed(past), reversed(older), strict=False):
        out += functional.conv2d(before, kernel, padding=padding)
    return out


def _triton(frame: Tensor, past: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> Tensor:
    from sora_kernels._triton import causal_conv as kernel

    return kernel.run(frame, past, weight, bias)


def _triton_refuses(frame: Tensor, past: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> str | None:
    if len(weight) > 3:
        return f"a convolution over {len(weight)} frames; it takes at most 3"
    if len({each.dtype for each in (frame, weight, *past)}) > 1:
        return f"frames of {frame.dtype} beside a weight of {weight.dtype}"
    return triton_refusal(frame, *past, weight, bias)


BACKENDS = (
    Backend("torch", _torch),
    Backend("triton", _triton, _triton_refuses),
    Backend("reference", causal_conv_ref),
)
