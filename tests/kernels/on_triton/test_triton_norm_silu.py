"""norm_silu on Triton: over the channels of every pixel, in any order in memory."""

import pytest
import torch
from accuracy import DTYPES, randn
from device import check_triton, there

from sora_kernels import norm_silu, norm_silu_ref

SHAPES = [(1, 1), (2, 7), (1, 1, 1, 1), (2, 13, 3, 5), (1, 96, 2, 3, 5), (1, 5, 0, 4), (1, 3, 37, 41)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("last", [False, True])
def test_error_is_at_most_twice_that_of_plain_pytorch(dtype: torch.dtype, shape: tuple[int, ...], last: bool) -> None:
    x = randn(*shape, dtype=dtype)
    x = x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x
    check_triton(norm_silu, norm_silu_ref, x, randn(shape[1], dtype=dtype, seed=1))
    check_triton(norm_silu, norm_silu_ref, x, None)


def test_order_in_memory_stays() -> None:
    frame = there(randn(2, 8, 3, 5).contiguous(memory_format=torch.channels_last))
    assert norm_silu(frame, backend="triton").is_contiguous(memory_format=torch.channels_last)
    assert norm_silu(frame.contiguous(), backend="triton").is_contiguous()


def test_a_window_of_a_larger_picture_is_read_as_its_copy() -> None:
    picture = randn(1, 6, 9, 11)
    for x in (picture[..., 2:7, 3:], picture.transpose(2, 3), picture.contiguous(memory_format=torch.channels_last)):
        check_triton(norm_silu, norm_silu_ref, x[:, 1:5], None)


def test_zeros_stay_zeros_however_small_eps() -> None:
    assert (norm_silu(there(torch.zeros(1, 8, 2, 2)), eps=1e-24, backend="triton") == 0).all()
