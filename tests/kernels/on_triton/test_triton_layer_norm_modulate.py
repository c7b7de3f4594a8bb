"""layer_norm_modulate on Triton: exact for every way in which shift and scale spread over tokens."""

import pytest
import torch
from accuracy import DTYPES, randn
from device import check_triton

from sora_kernels import layer_norm_modulate, layer_norm_modulate_ref

SHAPES = [(1, 1, 1), (1, 1, 7), (2, 13, 61), (3, 1, 64), (1, 5, 1025), (2, 0, 8)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shared", ["nothing", "tokens", "both"])
def test_error_is_at_most_twice_that_of_plain_pytorch(
    dtype: torch.dtype, shape: tuple[int, int, int], shared: str
) -> None:
    b, n, d = shape
    small = (1 if shared == "both" else b, n if shared == "nothing" else 1, d)
    shift, scale = randn(*small, dtype=dtype, seed=1), randn(*small, dtype=dtype, seed=2)
    check_triton(layer_norm_modulate, layer_norm_modulate_ref, randn(*shape, dtype=dtype), shift, scale)


def test_wide_modulation_of_a_narrow_stream_is_taken() -> None:
    x, shift, scale = randn(2, 5, 16, dtype=torch.bfloat16), randn(2, 1, 16, seed=1), randn(1, 5, 16, seed=2)
    check_triton(layer_norm_modulate, layer_norm_modulate_ref, x, shift, scale)


def test_a_mean_far_from_zero_costs_no_precision() -> None:
    x = 1000 + randn(1, 7, 61)
    check_triton(layer_norm_modulate, layer_norm_modulate_ref, x, torch.zeros(1, 1, 61), torch.zeros(1, 1, 61))
