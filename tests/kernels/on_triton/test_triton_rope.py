"""rope on Triton: every pair is turned by its angle, wherever heads lie in memory."""

import pytest
import torch
from accuracy import DTYPES, randn
from device import check_triton

from sora_kernels import rope, rope_ref, rope_table

SHAPES = [(1, 1, 1, 2), (1, 3, 7, 6), (2, 2, 31, 64), (1, 1, 33, 22), (2, 1, 0, 8)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batched", [False, True])
def test_error_is_at_most_twice_that_of_plain_pytorch(
    dtype: torch.dtype, shape: tuple[int, int, int, int], batched: bool
) -> None:
    b, _, n, dim = shape
    positions = 10 * randn(*((b, n, 1) if batched else (n, 1)), seed=5)
    check_triton(rope, rope_ref, randn(*shape, dtype=dtype), *rope_table(positions, (dim,)))


def test_strided_and_misaligned_heads_are_turned_where_they_lie() -> None:
    tables = rope_table(10 * randn(7, 1, seed=5), (6,))
    projected = randn(2, 7, 3 * 5 * 6).view(2, 7, 3, 5, 6)
    for x in (projected[:, :, 1].transpose(1, 2), randn(2, 5, 7, 7)[..., 1:], randn(2, 5, 6, 7).mT):
        check_triton(rope, rope_ref, x, *tables)
