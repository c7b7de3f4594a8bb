"""layer_norm_modulate: exact for every way in which shift and scale spread over tokens."""

import pytest
import torch
from accuracy import DTYPES, check, check_gradients, check_gradients_in_float32, randn

from sora_kernels import layer_norm_modulate, layer_norm_modulate_ref
from sora_kernels.precision import BLOCK_ELEMENTS

SHAPES = [(1, 1, 1), (1, 1, 7), (2, 13, 61), (3, 1, 64), (1, 257, 31), (2, 0, 8)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shared", ["nothing", "tokens", "batch", "both"])
def test_error_is_at_most_twice_that_of_plain_pytorch(
    dtype: torch.dtype, shape: tuple[int, int, int], shared: str
) -> None:
    b, n, d = shape
    small = (1 if shared in ("batch", "both") else b, 1 if shared in ("tokens", "both") else n, d)
    shift, scale = randn(*small, dtype=dtype, seed=1), randn(*small, dtype=dtype, seed=2)
    check(layer_norm_modulate, layer_norm_modulate_ref, randn(*shape, dtype=dtype), shift, scale)


def test_blocks_join_without_a_trace() -> None:
    tokens = 2 * BLOCK_ELEMENTS // 64 + 13
    x, shift, scale = (randn(1, tokens, 64, seed=seed) for seed in range(3))
    whole = layer_norm_modulate(x, shift, scale)
    tail = layer_norm_modulate(x[:, -20:], shift[:, -20:], scale[:, -20:])
    torch.testing.assert_close(whole[:, -20:], tail, rtol=0, atol=1e-6)


def test_wide_modulation_of_a_narrow_stream_is_taken() -> None:
    x, shift, scale = randn(2, 5, 16, dtype=torch.bfloat16), randn(2, 1, 16, seed=1), randn(2, 1, 16, seed=2)
    truth = layer_norm_modulate_ref(x.double(), shift.double(), scale.double())
    assert ((layer_norm_modulate(x, shift, scale).double() - truth).abs() <= truth.abs() * 2**-8 + 1e-5).all()


@pytest.mark.parametrize("small", [(2, 5, 7), (2, 1, 7), (1, 1, 7)])
def test_gradients(small: tuple[int, ...]) -> None:
    arguments = (randn(2, 5, 7), randn(*small, seed=1), randn(*small, seed=2))
    check_gradients(layer_norm_modulate, *arguments)
    check_gradients_in_float32(layer_norm_modulate, layer_norm_modulate_ref, *arguments)


@pytest.mark.parametrize("small", [(7,), (5, 7), (3, 1, 7), (2, 4, 7), (2, 5, 1)])
def test_modulation_that_does_not_fit_is_refused(small: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"layer_norm_modulate: scale .* does not fit x \(2, 5, 7\)"):
        layer_norm_modulate(torch.ones(2, 5, 7), torch.ones(2, 5, 7), torch.ones(small))
