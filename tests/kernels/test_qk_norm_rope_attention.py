"""qk_norm_rope_attention: the same as its parts one after the other."""

from typing import Any

import pytest
import torch
from accuracy import DTYPES, check, check_gradients, check_gradients_in_float32, randn
from torch import Tensor

from sora_kernels import (
    attention,
    qk_norm_rope_attention,
    qk_norm_rope_attention_ref,
    rms_norm,
    rope,
    rope_table,
)

SHAPES = [(1, 1, 1, 2), (2, 3, 7, 6), (1, 2, 131, 64), (2, 1, 61, 128)]


def inputs(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype = torch.float32,
    *,
    extra: int = 0,
    masked: bool = False,
) -> tuple[Any, ...]:
    b, heads, n, dim = shape
    q, k, v = (randn(*shape, dtype=dtype, seed=seed) for seed in range(3))
    weights = tuple(1 + 0.1 * randn(dim, dtype=dtype, seed=seed) for seed in (3, 4))
    cos, sin = rope_table(10 * randn(b, n, 1, seed=5), (dim,))
    text = tuple(randn(b, heads, extra, dim, dtype=dtype, seed=seed) for seed in (6, 7)) if extra else (None, None)
    mask = torch.arange(n + extra).expand(b, -1) % 3 != 1 if masked else None
    return q, k, v, *weights, cos, sin, *text, mask


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("extra", "masked"), [(0, False), (0, True), (5, False), (1, True)])
def test_error_is_at_most_twice_that_of_plain_pytorch(
    dtype: torch.dtype, shape: tuple[int, int, int, int], extra: int, masked: bool
) -> None:
    arguments = inputs(shape, dtype, extra=extra, masked=masked)
    check(qk_norm_rope_attention, qk_norm_rope_attention_ref, *arguments)


def test_it_is_its_parts_one_after_the_other() -> None:
    q, k, v, q_weight, k_weight, cos, sin, text_k, text_v, mask = inputs((2, 3, 7, 6), extra=5, masked=True)
    turned_q = rope(rms_norm(q, q_weight), cos, sin)
    keys = torch.cat([rope(rms_norm(k, k_weight), cos, sin), text_k], 2)
    parts = attention(turned_q, keys, torch.cat([v, text_v], 2), mask)
    whole = qk_norm_rope_attention(q, k, v, q_weight, k_weight, cos, sin, text_k, text_v, mask)
    torch.testing.assert_close(whole, parts)


def test_weights_may_be_left_out() -> None:
    q, k, v, _, _, cos, sin, *_ = inputs((2, 3, 7, 6))
    ones = torch.ones(6)
    without = qk_norm_rope_attention(q, k, v, None, None, cos, sin)
    torch.testing.assert_close(without, qk_norm_rope_attention(q, k, v, ones, ones, cos, sin))


def test_weights_of_all_heads_norm_them_together() -> None:
    q, k, v, _, _, cos, sin, text_k, text_v, mask = inputs((2, 3, 7, 6), extra=5, masked=True)
    weights = (randn(3, 6, seed=3), randn(3, 6, seed=4))
    check(qk_norm_rope_attention, qk_norm_rope_attention_ref, q, k, v, *weights, cos, sin, text_k, text_v, mask)


def test_inputs_are_left_alone() -> None:
    arguments = inputs((2, 3, 7, 6), extra=5)
    before = [argument.clone() for argument in arguments if isinstance(argument, Tensor)]
    qk_norm_rope_attention(*arguments)
    after = [argument for argument in arguments if isinstance(argument, Tensor)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_gradients() -> None:
    arguments = inputs((2, 2, 3, 4), extra=2, masked=True)
    check_gradients(qk_norm_rope_attention, *arguments)
    arguments = inputs((2, 3, 7, 6), extra=5, masked=True)
    check_gradients_in_float32(qk_norm_rope_attention, qk_norm_rope_attention_ref, *arguments)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({1: torch.ones(2, 3, 6, 6)}, "shapes must be alike"),
        ({3: torch.ones(5)}, r"q_weight \(5,\) does not fit heads"),
        ({4: torch.ones(5)}, r"k_weight \(5,\) does not fit heads"),
        ({5: torch.ones(7, 2)}, "do not fit x"),
        ({7: None}, "extra_k and extra_v go together"),
        ({8: torch.ones(2, 3, 4, 6)}, "do not fit each other"),
        ({9: torch.ones(2, 7, dtype=torch.bool)}, r"expected torch.bool \(2, 12\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[int, Any], problem: str) -> None:
    arguments = list(inputs((2, 3, 7, 6), extra=5))
    for place, value in changes.items():
        arguments[place] = value
    with pytest.raises(ValueError, match=problem):
        qk_norm_rope_attention(*arguments)
