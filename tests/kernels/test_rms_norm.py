"""rms_norm: exact, in awkward shapes, with and without weight and autograd."""

import pytest
import torch
from accuracy import DTYPES, check, check_gradients, check_gradients_in_float32, randn

from sora_kernels import rms_norm, rms_norm_ref
from sora_kernels.precision import BLOCK_ELEMENTS

SHAPES = [(1,), (7,), (1, 1), (3, 5), (2, 13, 61), (1, 3, 17, 64), (2, 0, 8), (1031, 513)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_error_is_at_most_twice_that_of_plain_pytorch(
    dtype: torch.dtype, shape: tuple[int, ...], weighted: bool
) -> None:
    weight = randn(shape[-1], dtype=dtype, seed=1) if weighted else None
    check(rms_norm, rms_norm_ref, randn(*shape, dtype=dtype), weight)


def test_wide_weight_beside_narrow_input_is_exact_to_one_rounding() -> None:
    x, weight = randn(31, 64, dtype=torch.bfloat16), randn(64, seed=1)
    truth = rms_norm_ref(x.double(), weight.double())
    assert ((rms_norm(x, weight).double() - truth).abs() <= truth.abs() * 2**-8).all()


def test_blocks_join_without_a_trace() -> None:
    rows = 2 * BLOCK_ELEMENTS // 64 + 13
    x = randn(rows, 64)
    torch.testing.assert_close(rms_norm(x)[-20:], rms_norm(x[-20:]), rtol=0, atol=1e-6)


def test_weight_alone_gets_its_gradient_over_blocks() -> None:
    x, weight = randn(2 * BLOCK_ELEMENTS // 64 + 13, 64), torch.ones(64, requires_grad=True)
    rms_norm(x, weight).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, rms_norm_ref(x).sum(0), rtol=1e-4, atol=0.02)


def test_strided_heads_are_normed_as_their_copy() -> None:
    heads = randn(2, 11, 3, 16).transpose(1, 2)
    torch.testing.assert_close(rms_norm(heads), rms_norm(heads.contiguous()))


def test_large_halves_do_not_overflow() -> None:
    assert torch.allclose(rms_norm(torch.full((2, 64), 60000.0, dtype=torch.float16)).float(), torch.ones(2, 64))


def test_zeros_stay_zeros_with_finite_gradients() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    rms_norm(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_result_is_the_same_with_and_without_autograd() -> None:
    x = randn(5, 33)
    torch.testing.assert_close(rms_norm(x.clone().requires_grad_()).detach(), rms_norm(x))


def test_gradients() -> None:
    check_gradients(rms_norm, randn(3, 7), randn(7, seed=1))
    check_gradients_in_float32(rms_norm, rms_norm_ref, randn(2, 13, 61), randn(61, seed=1))


def test_weight_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rms_norm: weight \(4,\) does not fit width 8"):
        rms_norm(torch.ones(2, 8), torch.ones(4))
