"""Checks at an operator's door: a shape that does not fit is named before anything is computed."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_width(operator: str, name: str, weight: Tensor | None, x: Tensor) -> None:
    """Raise ValueError unless weight is None or (d,) for x (..., d)."""
    if weight is not None and weight.shape != x.shape[-1:]:
        raise ValueError(f"{operator}: {name} {tuple(weight.shape)} does not fit width {x.shape[-1]}")


def check_channels(operator: str, name: str, weight: Tensor | None, x: Tensor) -> None:
    """Raise ValueError unless weight is None or (c,) for x (b, c, ...)."""
    if x.dim() < 2 or (weight is not None and weight.shape != x.shape[1:2]):
        found = "" if weight is None else f"{name} {tuple(weight.shape)} for "
        raise ValueError(f"{operator}: {found}x {tuple(x.shape)}; expected (c,) for (b, c, ...)")


def check_linear(operator: str, weight: Tensor, bias: Tensor | None, x: Tensor) -> None:
    """Raise ValueError unless weight is (n, k) for x (..., k), and bias None or (n,)."""
    if weight.dim() != 2 or weight.shape[1:] != x.shape[-1:] or (bias is not None and bias.shape != weight.shape[:1]):
        found = "" if bias is None else f" and bias {tuple(bias.shape)}"
        raise ValueError(f"{operator}: weight {tuple(weight.shape)}{found} do not fit x {tuple(x.shape)}")


def check_causal(operator: str, frame: Tensor, past: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> None:
    """Raise ValueError unless weight (t, o, side, side, c) fits up to t frames (b, c, h, w) and bias (o,)."""
    side = weight.shape[2] if weight.dim() == 5 else 0
    if side % 2 == 0 or weight.shape[3] != side or frame.dim() != 4 or weight.shape[4] != frame.shape[1]:
        raise ValueError(f"{operator}: weight {tuple(weight.shape)} does not fit frames {tuple(frame.shape)}")
    if len(past) >= len(weight) or any(before.shape != frame.shape for before in past):
        raise ValueError(f"{operator}: {_shapes(*past)} can't come before {_shapes(frame)} in {len(weight)} frames")
    if bias is not None and bias.shape != weight.shape[1:2]:
        raise ValueError(f"{operator}: bias {tuple(bias.shape)} does not fit weight {tuple(weight.shape)}")


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


def check_extra(operator: str, q: Tensor, extra_k: Tensor | None, extra_v: Tensor | None) -> int:
    """How many extra keys there are; raise ValueError unless keys and values are both there and fit q."""
    if extra_k is None and extra_v is None:
        return 0
    if extra_k is None or extra_v is None:
        raise ValueError(f"{operator}: extra_k and extra_v go together; one of them is missing")
    check_keys(operator, q, extra_k, extra_v)
    return extra_k.shape[2]


def check_head_weights(operator: str, x: Tensor, q_weight: Tensor | None, k_weight: Tensor | None) -> None:
    """Raise ValueError unless both are (dim,) or None, or both (heads, dim), for x (b, heads, n, dim)."""
    each, together = x.shape[-1:], (x.shape[1], x.shape[-1])
    if q_weight is not None and k_weight is not None and q_weight.shape == k_weight.shape == together:
        return
    for name, weight in (("q_weight", q_weight), ("k_weight", k_weight)):
        if weight is not None and weight.shape != each:
            raise ValueError(
                f"{operator}: {name} {tuple(weight.shape)} does not fit heads {tuple(x.shape)}; expected "
                f"{tuple(each)}, or {together} for both weights"
            )


def check_window(operator: str, q: Tensor, k: Tensor, grid: tuple[int, int, int], window: tuple[int, int, int]) -> None:
    """Raise ValueError unless the grid (t, h, w) holds all tokens of q and k and the window reaches 0 or further."""
    if q.shape != k.shape or math.prod(grid) != q.shape[2]:
        raise ValueError(f"{operator}: a grid of {grid} tokens does not fit {_shapes(q, k)}")
    if min(window) < 0:
        raise ValueError(f"{operator}: window {window} reaches less than 0 tokens")


def check_alike(operator: str, first: Tensor, second: Tensor) -> None:
    """Raise ValueError unless both have one shape."""
    if first.shape != second.shape:
        raise ValueError(f"{operator}: shapes must be alike: {_shapes(first, second)}")


def _shapes(*tensors: Tensor) -> str:
    return " ".join(str(tuple(tensor.shape)) for tensor in tensors)
