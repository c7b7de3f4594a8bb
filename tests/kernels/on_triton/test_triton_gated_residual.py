"""gated_residual on Triton: one rounding, in the residual stream's dtype."""

import pytest
import torch
from accuracy import DTYPES, randn
from device import check_triton

from sora_kernels import gated_residual, gated_residual_ref

SHAPES = [(1, 1, 1), (2, 13, 61), (3, 1, 64), (1, 3, 1025), (2, 0, 8)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("whole", [False, True])
def test_error_is_at_most_twice_that_of_plain_pytorch(
    dtype: torch.dtype, shape: tuple[int, int, int], whole: bool
) -> None:
    gate = randn(*(shape if whole else (1, 1, shape[-1])), dtype=dtype, seed=2)
    check_triton(
        gated_residual, gated_residual_ref, randn(*shape, dtype=dtype), randn(*shape, dtype=dtype, seed=1), gate
    )


def test_wide_stream_stays_wide_beside_a_narrow_branch() -> None:
    branch = randn(2, 3, 8, dtype=torch.bfloat16)
    check_triton(gated_residual, gated_residual_ref, randn(2, 3, 8), branch, branch)
