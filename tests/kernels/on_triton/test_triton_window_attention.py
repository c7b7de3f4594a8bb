"""window_attention on Triton: each token sees its window, and the text."""

from typing import Any

import pytest
import torch
from accuracy import DTYPES, randn
from device import check_triton
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_kernels import window_attention, window_attention_ref

Triple = tuple[int, int, int]
CASES = [
    ((1, 1, 1), (0, 0, 0)),
    ((3, 5, 7), (1, 1, 2)),
    ((2, 9, 4), (0, 2, 0)),
    ((4, 2, 3), (1, 0, 5)),
    ((5, 7, 2), (9, 9, 9)),
    ((1, 10, 10), (0, 3, 3)),
]


def inputs(grid: Triple, dim: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    tokens = grid[0] * grid[1] * grid[2]
    return tuple(randn(1, 2, tokens, dim, dtype=dtype, seed=seed) for seed in range(3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("grid", "window"), CASES)
def test_error_is_at_most_twice_that_of_plain_pytorch(dtype: torch.dtype, grid: Triple, window: Triple) -> None:
    check_triton(window_attention, window_attention_ref, *inputs(grid, 16, dtype), grid, window)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_grid_window_mask_and_text(data: Any) -> None:
    grid = tuple(data.draw(st.integers(1, high)) for high in (3, 7, 9))
    window = tuple(data.draw(st.integers(0, high)) for high in (2, 5, 6))
    extra, dim = data.draw(st.integers(0, 5)), data.draw(st.sampled_from((1, 7, 20)))
    q, k, v = inputs(grid, dim)
    shown = data.draw(st.none() | st.lists(st.booleans(), min_size=q.shape[2] + extra, max_size=q.shape[2] + extra))
    mask = None if shown is None else torch.tensor(shown)[None]
    text = (randn(1, 2, extra, dim, seed=3), randn(1, 2, extra, dim, seed=4))
    check_triton(window_attention, window_attention_ref, q, k, v, grid, window, mask, None, *text)
