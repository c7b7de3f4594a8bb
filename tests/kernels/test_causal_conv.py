"""causal_conv: a 3D convolution, frame by frame, on frames that nobody copies."""

import pytest
import torch
from accuracy import DTYPES, check, check_gradients, randn
from einops import rearrange
from torch.nn import functional

from sora_kernels import causal_conv, causal_conv_ref

CASES = [(1, 1, 1, 1, 1), (3, 5, 7, 17, 19), (3, 4, 9, 16, 3), (1, 3, 11, 5, 17)]
"""Side, height, width, channels in and out."""


def inputs(
    case: tuple[int, ...], past: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
    side, height, width, channels, out = case
    frame, *before = (randn(2, channels, height, width, dtype=dtype, seed=seed) for seed in range(1 + past))
    weight = randn(3, out, side, side, channels, seed=8) / (3 * side * side * channels) ** 0.5
    return frame, tuple(before), weight.to(dtype), randn(out, dtype=dtype, seed=9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("past", [0, 1, 2])
def test_error_is_at_most_twice_that_of_plain_pytorch(dtype: torch.dtype, case: tuple[int, ...], past: int) -> None:
    check(causal_conv, causal_conv_ref, *inputs(case, past, dtype))


def test_a_stream_of_frames_is_a_whole_video() -> None:
    _, _, weight, bias = inputs((3, 5, 7, 4, 6), 0)
    video = randn(1, 4, 6, 5, 7)
    padded = functional.pad(video, (0, 0, 0, 0, 2, 0))
    whole = functional.conv3d(padded, rearrange(weight, "t o h w c -> o c t h w"), bias, padding=(0, 1, 1))
    past: tuple[torch.Tensor, ...] = ()
    for frame, expected in zip(video.unbind(2), whole.unbind(2), strict=True):
        torch.testing.assert_close(causal_conv(frame, past, weight, bias), expected, rtol=1e-4, atol=1e-5)
        past = (*past, frame)[-2:]


def test_gradients() -> None:
    frame, past, weight, bias = inputs((3, 2, 3, 2, 2), 2)
    check_gradients(lambda now, *rest: causal_conv(now, rest[:2], *rest[2:]), frame, *past, weight, bias)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"weight": torch.ones(3, 19, 2, 2, 17)}, "weight"),
        ({"weight": torch.ones(3, 19, 3, 3, 16)}, "weight"),
        ({"past": (torch.ones(2, 17, 5, 7),) * 3}, "can't come before"),
        ({"past": (torch.ones(2, 17, 5, 6),)}, "can't come before"),
        ({"bias": torch.ones(17)}, "bias"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, torch.Tensor], problem: str) -> None:
    frame, past, weight, bias = inputs((3, 5, 7, 17, 19), 2)
    arguments = {"frame": frame, "past": past, "weight": weight, "bias": bias} | changes
    with pytest.raises(ValueError, match=problem):
        causal_conv(**arguments)
