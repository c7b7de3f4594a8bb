"""causal_conv on Triton: read from the frames themselves, whatever their number and size."""

import pytest
import torch
from accuracy import DTYPES, randn
from device import check_triton

from sora_kernels import causal_conv, causal_conv_ref

CASES = [(1, 1, 1, 1, 1), (3, 5, 7, 17, 19), (3, 4, 9, 16, 3), (1, 3, 11, 5, 17)]
"""Side, height, width, channels in and out."""


def inputs(
    case: tuple[int, ...], past: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
    side, height, width, channels, out = case
    frame, *before = (randn(1, channels, height, width, dtype=dtype, seed=seed) for seed in range(1 + past))
    weight = randn(3, out, side, side, channels, seed=8) / (3 * side * side * channels) ** 0.5
    return frame, tuple(before), weight.to(dtype), randn(out, dtype=dtype, seed=9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("past", [0, 1, 2])
def test_error_is_at_most_twice_that_of_plain_pytorch(dtype: torch.dtype, case: tuple[int, ...], past: int) -> None:
    check_triton(causal_conv, causal_conv_ref, *inputs(case, past, dtype))


def test_channels_last_frames_and_no_bias() -> None:
    frame, past, weight, _ = inputs((3, 5, 7, 17, 19), 2)
    last = [x.contiguous(memory_format=torch.channels_last) for x in (frame, *past)]
    check_triton(causal_conv, causal_conv_ref, last[0], tuple(last[1:]), weight, None)
