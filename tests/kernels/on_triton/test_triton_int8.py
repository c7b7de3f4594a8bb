"""attention in 8 bits: near enough to the exact one, and only for those who ask for it."""

import pytest
import torch
from accuracy import in_double, randn
from device import there
from torch import Tensor
from torch.nn import functional

from sora_kernels import BackendError, attention, attention_ref, qk_norm_rope_attention, rope_table

COSINE = 0.999
NARROW = (torch.bfloat16, torch.float16)


def inputs(n: int, keys: int, dim: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Queries and keys whose scores differ; keys share a large part, as those of trained networks do."""
    q, k, v = (there(randn(2, 2, length, dim, seed=s)) for s, length in enumerate((n, keys, keys)))
    return tuple(x.to(dtype) for x in (q, k + 6 * there(randn(1, 2, 1, dim, seed=3)), v))


def cosine(found: Tensor, truth: Tensor) -> float:
    return functional.cosine_similarity(found.double().flatten(), truth.flatten(), 0).item()


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(("n", "keys"), [(1, 2), (31, 63), (33, 64), (13, 131)])
@pytest.mark.parametrize("dim", [16, 64, 72, 128])
def test_output_points_where_the_exact_one_does(dtype: torch.dtype, n: int, keys: int, dim: int) -> None:
    arguments = inputs(n, keys, dim, dtype)
    assert cosine(attention(*arguments, backend="int8"), attention_ref(*map(in_double, arguments))) >= COSINE


@pytest.mark.parametrize("dtype", NARROW)
def test_masks_and_extra_keys_are_kept(dtype: torch.dtype) -> None:
    q, k, v = inputs(7, 70, 32, dtype)
    text_k, text_v = (x[:, :, :5] for x in inputs(5, 5, 32, dtype)[1:])
    mask = there((torch.arange(75) % 3 != 1).expand(2, -1))
    arguments = (q, k, v, mask, None, text_k, text_v)
    assert cosine(attention(*arguments, backend="int8"), attention_ref(*map(in_double, arguments))) >= COSINE


def test_hidden_keys_cost_the_others_no_precision() -> None:
    q, k, v = inputs(5, 70, 32, torch.bfloat16)
    mask = there((torch.arange(70) < 40).expand(2, -1))
    wild = k.clone()
    wild[:, :, 40:] = 1e4
    arguments = (q, wild, v, mask)
    assert cosine(attention(*arguments, backend="int8"), attention_ref(*map(in_double, arguments))) >= COSINE


def test_constant_keys_weigh_all_values_alike() -> None:
    q, _, v = inputs(5, 70, 32, torch.float16)
    y = attention(q, torch.ones_like(v), v, backend="int8")
    torch.testing.assert_close(y, v.float().mean(2, keepdim=True).half().expand_as(y), rtol=0.01, atol=0.01)


def test_no_key_or_only_hidden_ones_give_zeros() -> None:
    q, k, v = inputs(5, 7, 32, torch.float16)
    assert (attention(q, k[:, :, :0], v[:, :, :0], backend="int8") == 0).all()
    assert (attention(q, k, v, there(torch.zeros(2, 7, dtype=torch.bool)), backend="int8") == 0).all()


def test_whole_attention_takes_it_by_name() -> None:
    q, k, v = inputs(33, 33, 32, torch.bfloat16)
    weight, tables = there(torch.ones(32, dtype=torch.bfloat16)), there(rope_table(torch.arange(33)[:, None], (32,)))
    arguments = (q, k, v, weight, weight, *tables)
    exact = qk_norm_rope_attention(*map(in_double, arguments), backend="reference")
    assert cosine(qk_norm_rope_attention(*arguments, backend="int8"), exact) >= COSINE


def test_float32_is_refused() -> None:
    q, k, v = inputs(5, 7, 32, torch.float32)
    with pytest.raises(BackendError, match="attention on backend 'int8': float32 input; it takes bfloat16, float16"):
        attention(q, k, v, backend="int8")
