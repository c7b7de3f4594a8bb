"""linear_gelu: the activation costs no accuracy, whatever the widths."""

import pytest
import torch
from accuracy import DTYPES, check, check_gradients, check_gradients_in_float32, randn
from torch import nn

from sora_kernels import BackendError, linear_gelu, linear_gelu_ref
from sora_kernels.linear_gelu import BACKENDS

SHAPES = [((1, 1), 1), ((3, 7), 5), ((2, 13, 31), 67), ((1, 257, 96), 130), ((2, 0, 4), 3)]
ONEDNN = BACKENDS[0].refusal(torch.ones(2, 2), torch.ones(2, 2), None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "width"), SHAPES)
def test_error_is_at_most_twice_that_of_plain_pytorch(dtype: torch.dtype, shape: tuple[int, ...], width: int) -> None:
    x, weight = randn(*shape, dtype=dtype), randn(width, shape[-1], dtype=dtype, seed=1)
    check(linear_gelu, linear_gelu_ref, x, weight, randn(width, dtype=dtype, seed=2))
    check(linear_gelu, linear_gelu_ref, x, weight, None)


def test_rows_in_another_order_in_memory() -> None:
    x, weight = randn(2, 6, 9).mT, randn(5, 6, seed=1)
    torch.testing.assert_close(linear_gelu(x, weight), linear_gelu_ref(x, weight))


@pytest.mark.skipif(ONEDNN is not None, reason=f"oneDNN: {ONEDNN}")
def test_a_cpu_takes_onednn_where_no_gradient_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = randn(3, 4), randn(5, 4, seed=1)
    fused = linear_gelu(x, weight, backend="onednn")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(BackendError, match="without oneDNN"):
        linear_gelu(x, weight, backend="onednn")
    torch.testing.assert_close(linear_gelu(x, weight), fused)


@pytest.mark.parametrize("x", [torch.ones(2, 4, dtype=torch.float64), torch.ones(2, 4, dtype=torch.float16)])
def test_onednn_refuses_other_precisions_by_name(x: torch.Tensor) -> None:
    with pytest.raises(BackendError, match=r"onednn.*float32 or bfloat16|without oneDNN"):
        linear_gelu(x, torch.ones(3, 4, dtype=x.dtype), backend="onednn")


def test_gradients_and_autocast() -> None:
    check_gradients(linear_gelu, randn(2, 3, 4), randn(5, 4, seed=1), randn(5, seed=2))
    check_gradients_in_float32(linear_gelu, linear_gelu_ref, randn(2, 3, 4), randn(5, 4, seed=1), randn(5, seed=2))
    layer = nn.Linear(4, 5)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert linear_gelu(randn(3, 4), layer.weight, layer.bias).dtype == torch.bfloat16


@pytest.mark.parametrize(("weight", "bias"), [((5, 3), 5), ((5,), 5), ((5, 4), 4)])
def test_weights_of_another_width_are_refused(weight: tuple[int, ...], bias: int) -> None:
    with pytest.raises(ValueError, match=r"linear_gelu: weight .* do not fit x \(2, 4\)"):
        linear_gelu(torch.ones(2, 4), torch.ones(weight), torch.ones(bias))
