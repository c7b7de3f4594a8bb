"""attention: exact, with padded keys hidden, in awkward lengths."""

import pytest
import torch
from accuracy import DTYPES, check, check_gradients, check_gradients_in_float32, randn

from sora_kernels import attention, attention_ref

LENGTHS = [(1, 1), (1, 7), (13, 1), (13, 61), (131, 257)]


def inputs(n: int, keys: int, dim: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    return (
        randn(2, 3, n, dim, dtype=dtype),
        randn(2, 3, keys, dim, dtype=dtype, seed=1),
        randn(2, 3, keys, dim, dtype=dtype, seed=2),
    )


def padding(keys: int) -> torch.Tensor:
    """All keys of the first sample, about half of the second's."""
    return torch.stack([torch.ones(keys, dtype=torch.bool), torch.arange(keys) < (keys + 1) // 2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "keys"), LENGTHS)
@pytest.mark.parametrize("dim", [1, 7, 64, 128])
@pytest.mark.parametrize("padded", [False, True])
def test_error_is_at_most_twice_that_of_plain_pytorch(
    dtype: torch.dtype, n: int, keys: int, dim: int, padded: bool
) -> None:
    check(attention, attention_ref, *inputs(n, keys, dim, dtype), padding(keys) if padded else None)


def test_padded_keys_change_nothing() -> None:
    q, k, v = inputs(5, 11, 8)
    mask = padding(11)
    cut = attention(q[1:], k[1:, :, :6], v[1:, :, :6])
    torch.testing.assert_close(attention(q, k, v, mask)[1:], cut)
    k[1, :, 6:], v[1, :, 6:] = 1e4, -1e4
    torch.testing.assert_close(attention(q, k, v, mask)[1:], cut)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sample_without_a_key_gives_zeros_and_finite_gradients(dtype: torch.dtype) -> None:
    q, k, v = (x.requires_grad_() for x in inputs(5, 7, 16, dtype))
    mask = torch.tensor([[True] * 7, [False] * 7])
    y = attention(q, k, v, mask)
    assert (y[1] == 0).all()
    torch.testing.assert_close(y.float(), attention_ref(q, k, v, mask).float(), rtol=0.02, atol=0.02)
    y.sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (q, k, v))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("extra", [0, 1, 5])
@pytest.mark.parametrize("padded", [False, True])
def test_extra_keys_are_seen_behind_the_others(dtype: torch.dtype, extra: int, padded: bool) -> None:
    _, text_k, text_v = inputs(1, extra, 16, dtype)
    mask = padding(11 + extra) if padded else None
    check(attention, attention_ref, *inputs(7, 11, 16, dtype), mask, None, text_k, text_v)


def test_scale_is_used() -> None:
    q, k, v = inputs(5, 7, 16)
    torch.testing.assert_close(attention(q, k, v, scale=0.5), attention(2 * q, k, v))


def test_gradients() -> None:
    arguments = (*inputs(5, 7, 4), padding(7))
    check_gradients(attention, *arguments)
    check_gradients_in_float32(attention, attention_ref, *arguments)


@pytest.mark.parametrize(
    ("k", "mask", "problem"),
    [
        ((2, 3, 7, 5), None, "do not fit each other"),
        ((1, 3, 7, 4), None, "do not fit each other"),
        ((2, 1, 7, 4), None, "do not fit each other"),
        ((2, 3, 7, 4), torch.ones(2, 6, dtype=torch.bool), r"expected torch.bool \(2, 7\)"),
        ((2, 3, 7, 4), torch.ones(2, 7), "mask torch.float32"),
        ((2, 3, 7, 4), torch.ones(2, 1, 1, 7, dtype=torch.bool), "expected torch.bool"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(k: tuple[int, ...], mask: torch.Tensor | None, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        attention(torch.ones(2, 3, 5, 4), torch.ones(k), torch.ones(k), mask)


@pytest.mark.parametrize(("n", "keys"), [(300, 257), (129, 700)])
@pytest.mark.parametrize("dim", [64, 96])
def test_long_sequences_in_bfloat16_are_as_exact_as_the_formula(n: int, keys: int, dim: int) -> None:
    check(attention, attention_ref, *inputs(n, keys, dim, torch.bfloat16))
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs(n, keys, dim, torch.bfloat16))
    assert torch.equal(attention(q, k, v), attention(*inputs(n, keys, dim, torch.bfloat16)))
