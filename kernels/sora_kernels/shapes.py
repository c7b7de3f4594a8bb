"""Checks at an operator's door: a shape that does not fit is named before anything is computed."""

from __future__ import annotations

import torch
from torch import Tensor


def check_width(operator: str, name: str, weight: Tensor | None, x: Tensor) -> None:
    """Raise ValueError unless weight is None or (d,) for x (..., d)."""
    if weight is not None and weight.shape != x.shape[-1:]:
        raise ValueError(f"{operator}: {name} {tuple(weight.shape)} does not fit width {x.shape[-1]}")


def check_modulation(operator: str, name: str, modulation: Tensor, x: Tensor) -> None:
    """Raise ValueError unless modulation is (b or 1, n or 1, d) for x (b, n, d)."""
    fits = modulation.dim() == x.dim() == 3 and modulation.shape[-1] == x.shape[-1]
    if not fits or any(m not in (1, full) for m, full in zip(modulation.shape, x.shape[:-1], strict=False)):
        raise ValueError(f"{operator}: {name} {tuple(modulation.shape)} does not fit x {tuple(x.shape)}")


def check_table(operator: str, x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Raise ValueError unless cos and sin are (n, dim/2) or (b, n, dim/2) for x (b, heads, n, even dim)."""
    batch, _, tokens, dim = x.shape
    fits = cos.shape == sin.shape and cos.shape in ((tokens, dim // 2), (batch, tokens, dim // 2))
    if dim % 2 or not fits:
        tables = f"cos {tuple(cos.shape)}, sin {tuple(sin.shape)}"
        raise ValueError(f"{operator}: {tables} do not fit x {tuple(x.shape)}; expected ({tokens}, {dim // 2})")


def check_keys(operator: str, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise ValueError unless k and v are alike and fit q in batch, heads and width."""
    if k.shape != v.shape or q.shape[:2] != k.shape[:2] or q.shape[-1] != k.shape[-1]:
        raise ValueError(f"{operator}: q, k and v do not fit each other: {_shapes(q, k, v)}")


def check_mask(operator: str, mask: Tensor | None, batch: int, keys: int) -> None:
    """Raise ValueError unless mask is None or boolean (batch, keys)."""
    if mask is not None and (mask.dtype != torch.bool or mask.shape != (batch, keys)):
        found = f"{mask.dtype} {tuple(mask.shape)}"
        raise ValueError(f"{operator}: mask {found}; expected torch.bool {(batch, keys)}")


def check_alike(operator: str, first: Tensor, second: Tensor) -> None:
    """Raise ValueError unless both have one shape."""
    if first.shape != second.shape:
        raise ValueError(f"{operator}: shapes must be alike: {_shapes(first, second)}")


def _shapes(*tensors: Tensor) -> str:
    return " ".join(str(tuple(tensor.shape)) for tensor in tensors)
