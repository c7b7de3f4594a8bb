"""norm_silu: over the channels of every pixel, whatever lies around them."""

import pytest
import torch
from accuracy import DTYPES, check, check_gradients, check_gradients_in_float32, randn
from torch.nn import functional

from sora_kernels import norm_silu, norm_silu_ref
from sora_kernels.precision import BLOCK_ELEMENTS

SHAPES = [(1, 1), (2, 7), (1, 1, 1, 1), (2, 13, 3, 5), (1, 96, 2, 3, 5), (1, 5, 0, 4)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("last", [False, True])
def test_error_is_at_most_twice_that_of_plain_pytorch(dtype: torch.dtype, shape: tuple[int, ...], last: bool) -> None:
    x = randn(*shape, dtype=dtype)
    x = x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x
    check(norm_silu, norm_silu_ref, x, randn(shape[1], dtype=dtype, seed=1))
    check(norm_silu, norm_silu_ref, x, None)


def test_blocks_join_without_a_trace() -> None:
    rows = 2 * BLOCK_ELEMENTS // 64 + 13
    x = randn(1, rows, 64).mT
    torch.testing.assert_close(norm_silu(x)[..., -20:], norm_silu(x[..., -20:]), rtol=0, atol=1e-6)


def test_channels_last_stay_last() -> None:
    frame = randn(2, 8, 3, 5).contiguous(memory_format=torch.channels_last)
    assert norm_silu(frame).is_contiguous(memory_format=torch.channels_last)


def test_next_to_no_eps_is_division_by_the_length() -> None:
    x, weight = randn(2, 8, 3, 5), randn(8, seed=1)
    whole = functional.silu(functional.normalize(x, dim=1) * 8**0.5 * weight.view(-1, 1, 1))
    torch.testing.assert_close(norm_silu(x, weight, 1e-24), whole)
    assert (norm_silu(torch.zeros(1, 8, 2, 2), eps=1e-24) == 0).all()


def test_gradients() -> None:
    check_gradients(norm_silu, randn(2, 3, 2, 2), randn(3, seed=1))
    check_gradients_in_float32(norm_silu, norm_silu_ref, randn(2, 13, 3, 5), randn(13, seed=1))


@pytest.mark.parametrize(("shape", "weight"), [((2, 7, 3), 6), ((7,), 7)])
def test_weight_of_another_width_is_refused(shape: tuple[int, ...], weight: int) -> None:
    with pytest.raises(ValueError, match=r"norm_silu: weight .* expected \(c,\) for \(b, c, ...\)"):
        norm_silu(torch.ones(shape), torch.ones(weight))
