"""rope: every pair is turned by its angle, and angles add up over axes."""

import math

import pytest
import torch
from accuracy import DTYPES, check, check_gradients, check_gradients_in_float32, randn

from sora_kernels import rope, rope_ref, rope_table
from sora_kernels.precision import BLOCK_ELEMENTS

SHAPES = [(1, 1, 1, 2), (1, 3, 7, 6), (2, 2, 13, 64), (1, 5, 257, 22), (2, 1, 0, 8)]


def table(tokens: int, dim: int, *, batch: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (tokens, 1) if batch is None else (batch, tokens, 1)
    return rope_table(10 * randn(*shape, seed=5), (dim,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batched", [False, True])
def test_error_is_at_most_twice_that_of_plain_pytorch(
    dtype: torch.dtype, shape: tuple[int, int, int, int], batched: bool
) -> None:
    b, _, n, dim = shape
    check(rope, rope_ref, randn(*shape, dtype=dtype), *table(n, dim, batch=b if batched else None))


def test_quarter_turn_leads_the_first_of_a_pair_to_the_second() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    turned = rope(x, torch.zeros(1, 2), torch.ones(1, 2))
    torch.testing.assert_close(turned.flatten(), torch.tensor([-2.0, 1.0, -4.0, 3.0]))


def test_lengths_stay() -> None:
    x = randn(2, 3, 11, 16)
    torch.testing.assert_close(rope(x, *table(11, 16)).norm(dim=-1), x.norm(dim=-1))


def test_scores_depend_on_the_distance_between_positions_only() -> None:
    q, k = randn(1, 1, 1, 12), randn(1, 1, 1, 12, seed=1)
    scores = []
    for start in (0.0, 17.25):
        places = torch.tensor([[start, start, start], [start + 1.5, start + 2, start - 3]])
        cos, sin = rope_table(places, (4, 4, 4))
        scores.append((rope(q, cos[:1], sin[:1]) * rope(k, cos[1:], sin[1:])).sum())
    torch.testing.assert_close(scores[0], scores[1])


def test_table_turns_each_axis_by_its_own_frequencies() -> None:
    cos, sin = rope_table(torch.tensor([[2.0, 3.0]]), (4, 2), theta=100.0)
    angles = [2.0, 2.0 / math.sqrt(100.0), 3.0]
    torch.testing.assert_close(cos[0], torch.tensor(angles).cos())
    torch.testing.assert_close(sin[0], torch.tensor(angles).sin())
    assert (cos.dtype, cos.shape) == (torch.float32, (1, 3))


def test_table_is_exact_far_from_the_origin() -> None:
    cos, _ = rope_table(torch.tensor([[1_000_003.0]]), (2,))
    assert abs(cos.item() - math.cos(1_000_003.0)) < 1e-7


def test_strided_and_misaligned_heads_are_turned_as_their_copy() -> None:
    cos, sin = table(7, 6)
    projected = randn(2, 7, 3 * 5 * 6)
    heads = projected.view(2, 7, 3, 5, 6)[:, :, 1].transpose(1, 2)
    misaligned = randn(2, 5, 7, 7)[..., 1:]
    for x in (heads, misaligned, misaligned.double()):
        torch.testing.assert_close(rope(x, cos, sin), rope(x.contiguous(), cos, sin))


def test_blocks_join_without_a_trace() -> None:
    tokens = 2 * BLOCK_ELEMENTS // 64 + 13
    x, (cos, sin) = randn(1, 1, tokens, 64), table(tokens, 64)
    tail = rope(x[:, :, -20:], cos[-20:], sin[-20:])
    torch.testing.assert_close(rope(x, cos, sin)[:, :, -20:], tail, rtol=0, atol=1e-6)


def test_gradients() -> None:
    cos, sin = table(5, 6)
    check_gradients(rope, randn(2, 3, 5, 6), cos, sin)
    check_gradients_in_float32(rope, rope_ref, randn(2, 3, 5, 6), cos, sin)


@pytest.mark.parametrize("shape", [(7, 4), (6, 3), (3, 7, 3), (7, 3, 1)])
def test_table_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"rope: cos .* do not fit x \(2, 1, 7, 6\); expected \(7, 3\)"):
        rope(torch.ones(2, 1, 7, 6), torch.ones(shape), torch.ones(shape))


@pytest.mark.parametrize("dims", [(3, 3), (4,), (2, 2, 2)])
def test_table_for_odd_dims_or_other_axes_is_refused(dims: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rope_table: dims"):
        rope_table(torch.zeros(5, 2), dims)
