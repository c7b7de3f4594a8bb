"""gated_residual: one rounding, in the residual stream's dtype."""

import pytest
import torch
from accuracy import DTYPES, check, check_gradients, check_gradients_in_float32, randn

from sora_kernels import gated_residual, gated_residual_ref

SHAPES = [(1, 1, 1), (1, 1, 7), (2, 13, 61), (3, 1, 64), (2, 0, 8)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("whole", [False, True])
def test_error_is_at_most_twice_that_of_plain_pytorch(
    dtype: torch.dtype, shape: tuple[int, int, int], whole: bool
) -> None:
    gate = randn(*(shape if whole else (1, 1, shape[-1])), dtype=dtype, seed=2)
    check(
        gated_residual,
        gated_residual_ref,
        randn(*shape, dtype=dtype),
        randn(*shape, dtype=dtype, seed=1),
        gate,
    )


def test_wide_stream_stays_wide_beside_a_narrow_branch() -> None:
    branch = randn(2, 3, 8, dtype=torch.bfloat16)
    assert gated_residual(randn(2, 3, 8), branch, branch).dtype == torch.float32


def test_gradients() -> None:
    arguments = (randn(2, 5, 7), randn(2, 5, 7, seed=1), randn(2, 1, 7, seed=2))
    check_gradients(gated_residual, *arguments)
    check_gradients_in_float32(gated_residual, gated_residual_ref, *arguments)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes must be alike"):
        gated_residual(torch.ones(2, 5, 7), torch.ones(2, 4, 7), torch.ones(2, 1, 7))
    with pytest.raises(ValueError, match="gate"):
        gated_residual(torch.ones(2, 5, 7), torch.ones(2, 5, 7), torch.ones(7))
