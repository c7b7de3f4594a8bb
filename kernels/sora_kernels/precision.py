"""Working precision, and blocks small enough that float32 intermediates stay in a processor's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 19
"""Elements per block on CPU: 2 MiB of float32. Measured flat from 2^18 to 2^19, slower on both sides."""


def widen(x: Tensor) -> Tensor:
    """The tensor in the precision to compute in: float64 stays, everything narrower becomes float32."""
    return x if x.dtype == torch.float64 else x.float()


@cache
def multiplies_bfloat16() -> bool:
    """Whether this machine's processor has instructions for bfloat16 products."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def records_gradient(*tensors: Tensor | None) -> bool:
    """Whether autograd will want a backward pass through an operator on these tensors."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def by_blocks(compute: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """`compute(wide x, *others)` in x's dtype; where that pays, token by token of x (..., n, d) in blocks.

    `others` are (..., n or 1, d') and are cut like x. Blocks spare a CPU's cache; autograd records none.
    """
    if x.device.type != "cpu" or x.numel() <= BLOCK_ELEMENTS or x.dim() < 2 or records_gradient(x, *others):
        return compute(widen(x), *others).to(x.dtype)
    out = torch.empty_like(x)
    for target, rows, *same in _token_blocks(out, x, *others):
        target.copy_(compute(widen(rows), *same))
    return out


def _token_blocks(x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Blocks of x (..., n, d) along n, BLOCK_ELEMENTS or so each, with the same rows of (..., n or 1, d')."""
    tokens = x.shape[-2]
    size = max(1, BLOCK_ELEMENTS * tokens // x.numel())
    for start in range(0, tokens, size):
        length = min(size, tokens - start)
        yield tuple(t if t.shape[-2] == 1 != tokens else t.narrow(-2, start, length) for t in (x, *others))
