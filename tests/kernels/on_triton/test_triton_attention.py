"""attention on Triton: exact in awkward lengths and widths, with hidden keys, with text beside the video."""

from typing import Any

import pytest
import torch
from accuracy import DTYPES, randn
from device import check_triton, there
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_kernels import attention, attention_ref

LENGTHS = [(1, 1), (31, 63), (32, 64), (33, 65), (13, 131)]
"""Around blocks of 32 queries and 64 keys, which the interpreter is given."""


def inputs(n: int, keys: int, dim: int, dtype: torch.dtype = torch.float32, heads: int = 2) -> tuple[torch.Tensor, ...]:
    return (
        randn(1, heads, n, dim, dtype=dtype),
        randn(1, heads, keys, dim, dtype=dtype, seed=1),
        randn(1, heads, keys, dim, dtype=dtype, seed=2),
    )


def text(extra: int, dim: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    return randn(1, 2, extra, dim, dtype=dtype, seed=3), randn(1, 2, extra, dim, dtype=dtype, seed=4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "keys"), LENGTHS)
@pytest.mark.parametrize("hidden", [False, True])
def test_error_is_at_most_twice_that_of_plain_pytorch(dtype: torch.dtype, n: int, keys: int, hidden: bool) -> None:
    mask = torch.arange(keys)[None] % 3 != 1 if hidden else None
    check_triton(attention, attention_ref, *inputs(n, keys, 64, dtype), mask)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 7, 16, 72, 88, 128, 256])
def test_heads_of_any_width_are_taken(dtype: torch.dtype, dim: int) -> None:
    check_triton(attention, attention_ref, *inputs(5, 67, dim, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("extra", [0, 1, 65])
@pytest.mark.parametrize("hidden", [False, True])
def test_extra_keys_are_seen_without_being_joined(dtype: torch.dtype, extra: int, hidden: bool) -> None:
    mask = torch.arange(61 + extra)[None] % 3 != 1 if hidden else None
    check_triton(attention, attention_ref, *inputs(7, 61, 16, dtype), mask, None, *text(extra, 16, dtype))


def test_text_alone_is_seen_where_there_is_no_video() -> None:
    check_triton(attention, attention_ref, *inputs(7, 0, 16), None, None, *text(5, 16))


def test_sample_without_a_key_gives_zeros() -> None:
    q, k, v = there(tuple(x.expand(2, -1, -1, -1) for x in inputs(5, 70, 16)))
    mask = there(torch.tensor([[True] * 70, [False] * 70]))
    y = attention(q, k, v, mask, backend="triton")
    assert (y[1] == 0).all()
    assert (y[0] != 0).all()


def test_no_keys_at_all_give_zeros() -> None:
    assert (attention(*there(inputs(5, 0, 16)), backend="triton") == 0).all()


def test_block_that_hides_every_key_changes_nothing() -> None:
    q, k, v = there(inputs(5, 192, 16))
    mask = there((torch.arange(192) // 64 == 1)[None])
    alone = attention(q, k[:, :, 64:128], v[:, :, 64:128], backend="triton")
    torch.testing.assert_close(attention(q, k, v, mask, backend="triton"), alone)


def test_large_scores_do_not_overflow() -> None:
    q, k, v = inputs(5, 70, 16)
    check_triton(attention, attention_ref, 300 * q, 300 * k, v)


def test_scale_is_used() -> None:
    check_triton(attention, attention_ref, *inputs(5, 7, 16), None, 0.5)


def test_parts_of_one_projection_are_read_where_they_lie() -> None:
    q, k, v = (x.unflatten(-1, (3, 8)).transpose(1, 2) for x in randn(2, 67, 72).split(24, -1))
    check_triton(attention, attention_ref, q, k, v)
    check_triton(attention, attention_ref, randn(1, 2, 8, 5).mT, randn(1, 2, 8, 9).mT, randn(1, 2, 8, 9).mT)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_lengths_and_any_mask(data: Any) -> None:
    n, keys, extra = (data.draw(st.integers(low, high)) for low, high in ((1, 40), (0, 140), (0, 70)))
    dim = data.draw(st.sampled_from((1, 7, 24, 40)))  # on a GPU each width is compiled
    shown = data.draw(st.none() | st.lists(st.booleans(), min_size=keys + extra, max_size=keys + extra))
    if keys + extra == 0:
        return
    mask = None if shown is None else torch.tensor(shown)[None]
    check_triton(attention, attention_ref, *inputs(n, keys, dim), mask, None, *text(extra, dim))
