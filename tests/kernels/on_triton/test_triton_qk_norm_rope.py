"""qk_norm_rope on Triton: q and k normed and turned in one pass, each head by itself or all heads together."""

from typing import Any

import pytest
import torch
from accuracy import DTYPES, randn
from device import check_triton
from torch import Tensor

from sora_kernels import qk_norm_rope, qk_norm_rope_attention, qk_norm_rope_attention_ref, qk_norm_rope_ref, rope_table

SHAPES = [(1, 1, 1, 2), (2, 3, 7, 6), (1, 5, 11, 22), (2, 2, 17, 64)]


def both(*arguments: Any, **named: Any) -> Tensor:
    return torch.stack(qk_norm_rope(*arguments, **named))


def both_ref(*arguments: Any) -> Tensor:
    return torch.stack(qk_norm_rope_ref(*arguments))


def inputs(shape: tuple[int, int, int, int], dtype: torch.dtype, weights: str) -> tuple[Any, ...]:
    b, heads, n, dim = shape
    q, k = (randn(*shape, dtype=dtype, seed=seed) for seed in range(2))
    width = {"none": None, "each": (dim,), "together": (heads, dim)}[weights]
    scales = (None, None) if width is None else tuple(1 + 0.1 * randn(*width, dtype=dtype, seed=s) for s in (3, 4))
    return q, k, *scales, *rope_table(10 * randn(b, n, 1, seed=5), (dim,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", ["none", "each", "together"])
def test_error_is_at_most_twice_that_of_plain_pytorch(
    dtype: torch.dtype, shape: tuple[int, int, int, int], weights: str
) -> None:
    check_triton(both, both_ref, *inputs(shape, dtype, weights))


def test_parts_of_one_projection_are_read_where_they_lie() -> None:
    q, k = (x.unflatten(-1, (5, 6)).transpose(1, 2) for x in randn(2, 7, 90).split(30, -1)[:2])
    _, _, *rest = inputs((2, 5, 7, 6), torch.float32, "together")
    check_triton(both, both_ref, q, k, *rest)


@pytest.mark.parametrize("weights", ["each", "together"])
def test_it_feeds_attention(weights: str) -> None:
    q, k, *rest = inputs((2, 3, 7, 6), torch.float32, weights)
    v, text_k, text_v = randn(2, 3, 7, 6, seed=7), randn(2, 3, 5, 6, seed=8), randn(2, 3, 5, 6, seed=9)
    mask = torch.arange(12).expand(2, -1) % 3 != 1
    check_triton(qk_norm_rope_attention, qk_norm_rope_attention_ref, q, k, v, *rest, text_k, text_v, mask)
