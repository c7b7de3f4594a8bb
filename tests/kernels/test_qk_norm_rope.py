"""qk_norm_rope: its parts one after the other, over each head or over all heads of a token."""

from typing import Any

import pytest
import torch
from accuracy import DTYPES, check, check_gradients, check_gradients_in_float32, randn
from torch import Tensor

from sora_kernels import qk_norm_rope, qk_norm_rope_ref, rms_norm, rope, rope_table
from sora_kernels.precision import BLOCK_ELEMENTS

SHAPES = [(1, 1, 1, 2), (2, 3, 7, 6), (1, 5, 11, 22), (2, 1, 0, 8)]


def both(*arguments: Any) -> Tensor:
    return torch.stack(qk_norm_rope(*arguments))


def both_ref(*arguments: Any) -> Tensor:
    return torch.stack(qk_norm_rope_ref(*arguments))


def inputs(shape: tuple[int, int, int, int], dtype: torch.dtype, *, together: bool) -> tuple[Any, ...]:
    b, heads, n, dim = shape
    q, k = (randn(*shape, dtype=dtype, seed=seed) for seed in range(2))
    width = (heads, dim) if together else (dim,)
    weights = (1 + 0.1 * randn(*width, dtype=dtype, seed=seed) for seed in (3, 4))
    return q, k, *weights, *rope_table(10 * randn(b, n, 1, seed=5), (dim,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("together", [False, True])
def test_error_is_at_most_twice_that_of_plain_pytorch(
    dtype: torch.dtype, shape: tuple[int, int, int, int], together: bool
) -> None:
    check(both, both_ref, *inputs(shape, dtype, together=together))


def test_heads_together_are_normed_as_one_row() -> None:
    q, k, q_weight, k_weight, cos, sin = inputs((2, 3, 7, 6), torch.float32, together=True)
    normed = rms_norm(q.transpose(1, 2).flatten(2), q_weight.flatten()).unflatten(-1, (3, 6)).transpose(1, 2)
    torch.testing.assert_close(qk_norm_rope(q, k, q_weight, k_weight, cos, sin)[0], rope(normed, cos, sin))


def test_blocks_join_without_a_trace() -> None:
    tokens = BLOCK_ELEMENTS // 64 + 13
    q, weight = randn(1, 2, tokens, 64), randn(2, 64, seed=1)
    cos, sin = rope_table(randn(tokens, 1, seed=5), (64,))
    whole, _ = qk_norm_rope(q, q, weight, weight, cos, sin)
    tail, _ = qk_norm_rope(q[:, :, -20:], q[:, :, -20:], weight, weight, cos[-20:], sin[-20:])
    torch.testing.assert_close(whole[:, :, -20:], tail, rtol=0, atol=1e-6)


@pytest.mark.parametrize("together", [False, True])
def test_gradients(together: bool) -> None:
    check_gradients(both, *inputs((1, 2, 3, 4), torch.float32, together=together))
    check_gradients_in_float32(both, both_ref, *inputs((2, 3, 7, 6), torch.float32, together=together))


@pytest.mark.parametrize("shapes", [((3, 6), (6,)), ((3, 6), None), ((6, 3), (6, 3)), ((18,), (18,))])
def test_weights_that_do_not_fit_heads_or_each_other_are_refused(shapes: tuple[tuple[int, ...] | None, ...]) -> None:
    q, k, _, _, cos, sin = inputs((2, 3, 7, 6), torch.float32, together=False)
    weights = (None if shape is None else torch.ones(shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"does not fit heads \(2, 3, 7, 6\); expected \(6,\), or \(3, 6\) for both"):
        qk_norm_rope(q, k, *weights, cos, sin)
