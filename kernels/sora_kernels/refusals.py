"""Why Triton can't run some tensors, in words; nothing here imports Triton."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

from sora_kernels.precision import records_gradient

TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LEAST_CAPABILITY = (8, 0)
WIDEST_ROW = 32768
"""Values of a row that a kernel holds at once; wider rows would spill from registers."""


def interpreted() -> bool:
    """Whether Triton interprets its kernels, on any device: TRITON_INTERPRET=1 from before its first import."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def triton_refusal(*tensors: Tensor | None, dtypes: Sequence[torch.dtype] = TRITON_DTYPES) -> str | None:
    """Why Triton can't run on these tensors (None is left out), or None if it can."""
    given = [tensor for tensor in tensors if tensor is not None]
    return _not_there() or _wrong_dtype(given, dtypes) or _wants_gradient(given) or _wrong_device(given)


def row_refusal(width: int) -> str | None:
    """Why Triton can't take rows of so many values, or None if it can."""
    return f"rows of {width} values; it takes at most {WIDEST_ROW}" if width > WIDEST_ROW else None


@lru_cache(maxsize=1)
def _not_there() -> str | None:
    return None if find_spec("triton") else "triton is not installed"


def _wrong_dtype(tensors: list[Tensor], dtypes: Sequence[torch.dtype]) -> str | None:
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.dtype not in dtypes:
            return f"{_name(tensor.dtype)} input; it takes {', '.join(map(_name, dtypes))}"
    return None


def _wants_gradient(tensors: list[Tensor]) -> str | None:
    return "it computes no gradients; call it under torch.no_grad()" if records_gradient(*tensors) else None


def _wrong_device(tensors: list[Tensor]) -> str | None:
    devices = sorted({str(tensor.device) for tensor in tensors})
    if len(devices) > 1:
        return f"its inputs lie on {' and '.join(devices)}"
    if interpreted():
        return None
    if not tensors[0].is_cuda:
        return f"its inputs lie on {devices[0]}, it needs a CUDA device (or TRITON_INTERPRET=1, which is for tests)"
    found = capability(devices[0])
    least = ".".join(map(str, LEAST_CAPABILITY))
    return f"compute capability {found[0]}.{found[1]}; it needs {least}" if found < LEAST_CAPABILITY else None


@lru_cache(maxsize=16)
def capability(device: str) -> tuple[int, int]:
    """A CUDA device's compute capability."""
    return torch.cuda.get_device_capability(device)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
