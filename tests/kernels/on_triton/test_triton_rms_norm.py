"""rms_norm on Triton: exact in awkward shapes, with rows wherever they lie."""

import pytest
import torch
from accuracy import DTYPES, randn
from device import check_triton

from sora_kernels import rms_norm, rms_norm_ref

SHAPES = [(1,), (7,), (3, 5), (2, 13, 61), (2, 0, 8), (5, 1023), (3, 1025), (2, 4096)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_error_is_at_most_twice_that_of_plain_pytorch(
    dtype: torch.dtype, shape: tuple[int, ...], weighted: bool
) -> None:
    weight = randn(shape[-1], dtype=dtype, seed=1) if weighted else None
    check_triton(rms_norm, rms_norm_ref, randn(*shape, dtype=dtype), weight)


def test_rows_of_a_wider_tensor_and_strided_heads_are_normed_where_they_lie() -> None:
    check_triton(rms_norm, rms_norm_ref, randn(2, 5, 48)[..., 16:32], randn(16, seed=1))
    check_triton(rms_norm, rms_norm_ref, randn(2, 11, 3, 16).transpose(1, 2), randn(16, seed=1))
    check_triton(rms_norm, rms_norm_ref, randn(16, 7).T, None)


def test_large_halves_do_not_overflow() -> None:
    check_triton(rms_norm, rms_norm_ref, torch.full((2, 64), 60000.0, dtype=torch.float16).float(), None)
