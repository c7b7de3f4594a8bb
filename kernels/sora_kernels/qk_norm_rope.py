"""What queries and keys go through before attention: RMS norm, of each head or of all heads together, then RoPE."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from sora_kernels.dispatch import Backend, dispatch
from sora_kernels.precision import by_blocks, records_gradient, widen
from sora_kernels.refusals import row_refusal, triton_refusal
from sora_kernels.rms_norm import normalise, rms_norm_ref
from sora_kernels.rope import rope_ref, turned, turns
from sora_kernels.shapes import check_alike, check_head_weights, check_table


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    eps: float = 1e-6,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """rope(rms_norm(q)) and rope(rms_norm(k)), each rounded once.

    q and k (b, heads, n, dim); cos and sin (n, dim/2), or (b, n, dim/2), as `rope_table` gives them. Weights (dim,)
    or None norm every head by itself; weights (heads, dim) norm all heads of a token together, as Wan's
    transformers do. Returns q and k in their own shape and dtype.
    Raises ValueError for shapes that do not fit each other.
    """
    check_alike("qk_norm_rope", q, k)
    check_table("qk_norm_rope", q, cos, sin)
    check_head_weights("qk_norm_rope", q, q_weight, k_weight)
    both: tuple[Tensor, Tensor] = dispatch(
        "qk_norm_rope", BACKENDS, backend, q, k, q_weight, k_weight, cos, sin, eps
    )  # fmt: skip
    return both


def qk_norm_rope_ref(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """`qk_norm_rope` in plain PyTorch, in the precision of q."""
    return rope_ref(_norm_ref(q, q_weight, eps), cos, sin), rope_ref(_norm_ref(k, k_weight, eps), cos, sin)


def _norm_ref(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    if weight is None or weight.dim() == 1:
        return rms_norm_ref(x, weight, eps)
    normed = rms_norm_ref(rearrange(x, "b heads n dim -> b n (heads dim)"), weight.flatten(), eps)
    return rearrange(normed, "b n (heads dim) -> b heads n dim", heads=x.shape[1])


def _normed(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Wide x (b, heads, n, dim), normed by a wide weight (dim,), (heads, 1, dim) or None."""
    if weight is None or weight.dim() == 1:
        return normalise(x, weight, eps)
    norm = torch.linalg.vector_norm(x, dim=(1, 3), keepdim=True)
    y = x * torch.rsqrt(norm.square() / (x.shape[1] * x.shape[3]) + eps)
    return y * weight if records_gradient(y, weight) else y.mul_(weight)


def _normed_and_turned(x: Tensor, weight: Tensor | None, turn: Tensor, eps: float) -> Tensor:
    """`rope(norm(x))`, rounded once."""
    wide = None if weight is None else widen(weight)
    if wide is not None and wide.dim() == 2:
        wide = rearrange(wide, "heads dim -> heads 1 dim")
    return by_blocks(lambda rows, turn: turned(_normed(rows, wide, eps), turn), x, turn)


def _torch(
    q: Tensor, k: Tensor, q_weight: Tensor | None, k_weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    if torch.compiler.is_compiling():  # compilers fuse real arithmetic, and leave complex numbers alone
        wide_q, wide_k = qk_norm_rope_ref(widen(q), widen(k), q_weight, k_weight, cos, sin, eps)
        return wide_q.to(q.dtype), wide_k.to(k.dtype)
    turn = turns(cos, sin)
    return _normed_and_turned(q, q_weight, turn, eps), _normed_and_turned(k, k_weight, turn, eps)


def _triton(*arguments: Any) -> tuple[Tensor, Tensor]:
    from sora_kernels._triton import qk_norm_rope as kernel

    return kernel.run(*arguments)


def _triton_refuses(
    q: Tensor, k: Tensor, q_weight: Tensor | None, k_weight: Tensor | None, cos: Tensor, sin: Tensor, _eps: float
) -> str | None:
    return triton_refusal(q, k, q_weight, k_weight, cos, sin) or row_refusal(q.shape[1] * q.shape[-1])


BACKENDS = (
    Backend("torch", _torch),
    Backend("triton", _triton, _triton_refuses),
    Backend("reference", qk_norm_rope_ref),
)
