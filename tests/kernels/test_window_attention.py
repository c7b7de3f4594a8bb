"""window_attention: each token sees its window, and the text; a window over everything is attention."""

from typing import Any

import pytest
import torch
from accuracy import DTYPES, check, check_gradients, randn
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_kernels import attention, window_attention, window_attention_ref

Triple = tuple[int, int, int]
CASES = [((1, 1, 1), (0, 0, 0)), ((3, 5, 7), (1, 1, 2)), ((2, 9, 4), (0, 2, 0)), ((4, 2, 3), (1, 0, 5))]


def inputs(grid: Triple, dim: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    tokens = grid[0] * grid[1] * grid[2]
    return tuple(randn(2, 2, tokens, dim, dtype=dtype, seed=seed) for seed in range(3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("grid", "window"), CASES)
def test_error_is_at_most_twice_that_of_plain_pytorch(dtype: torch.dtype, grid: Triple, window: Triple) -> None:
    check(window_attention, window_attention_ref, *inputs(grid, 16, dtype), grid, window)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_grid_window_mask_and_text(data: Any) -> None:
    grid = tuple(data.draw(st.integers(1, high)) for high in (4, 7, 7))
    window = tuple(data.draw(st.integers(0, high)) for high in (2, 4, 6))
    extra = data.draw(st.integers(0, 3))
    q, k, v = inputs(grid, 5)
    shown = data.draw(st.none() | st.lists(st.booleans(), min_size=q.shape[2] + extra, max_size=q.shape[2] + extra))
    mask = None if shown is None else torch.tensor(shown).expand(2, -1)
    text = (randn(2, 2, extra, 5, seed=3), randn(2, 2, extra, 5, seed=4))
    check(window_attention, window_attention_ref, q, k, v, grid, window, mask, None, *text)


def test_window_over_everything_is_attention() -> None:
    q, k, v = inputs((3, 4, 5), 8)
    torch.testing.assert_close(window_attention(q, k, v, (3, 4, 5), (2, 3, 4)), attention(q, k, v))


def test_window_of_nothing_gives_each_token_its_own_value() -> None:
    q, k, v = inputs((3, 4, 5), 8)
    torch.testing.assert_close(window_attention(q, k, v, (3, 4, 5), (0, 0, 0)), v)


def test_token_outside_the_window_changes_nothing() -> None:
    q, k, v = inputs((1, 1, 9), 8)
    before = window_attention(q, k, v, (1, 1, 9), (0, 0, 2))
    v[:, :, 6:] = 1e3
    torch.testing.assert_close(window_attention(q, k, v, (1, 1, 9), (0, 0, 2))[:, :, :4], before[:, :, :4])


def test_gradients() -> None:
    q, k, v = (x[:1, :1] for x in inputs((2, 2, 2), 3))
    check_gradients(lambda *x: window_attention(*x, (2, 2, 2), (1, 0, 1)), q, k, v)


@pytest.mark.parametrize(
    ("grid", "window", "problem"),
    [((2, 3, 5), (1, 1, 1), r"a grid of \(2, 3, 5\) tokens does not fit"), ((2, 3, 4), (1, -1, 1), "less than 0")],
)
def test_what_does_not_fit_is_refused(grid: Triple, window: Triple, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        window_attention(*inputs((2, 3, 4), 8), grid, window)
