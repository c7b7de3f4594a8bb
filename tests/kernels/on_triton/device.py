"""Checks of a Triton backend: on the GPU where there is one, on CPU under interpretation."""

from collections.abc import Callable
from functools import partial
from typing import Any

from accuracy import check
from torch import Tensor

from sora_kernels.refusals import interpreted

DEVICE = "cpu" if interpreted() else "cuda"


def there(value: Any) -> Any:
    """Tensors, and those in tuples, on the device; everything else as it is."""
    if isinstance(value, tuple):
        return tuple(map(there, value))
    return value.to(DEVICE) if isinstance(value, Tensor) else value


def check_triton(operator: Callable[..., Tensor], reference: Callable[..., Tensor], *arguments: Any) -> None:
    """`accuracy.check` of the operator's Triton backend. The interpreter cuts bfloat16 where a GPU rounds it."""
    check(partial(operator, backend="triton"), reference, *map(there, arguments))
