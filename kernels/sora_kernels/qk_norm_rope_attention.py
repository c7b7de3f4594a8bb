"""A video transformer's whole attention: norm of queries and keys, rotary positions, softmax attention."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from sora_kernels.attention import BACKENDS as ATTENDING
from sora_kernels.attention import attention, attention_ref
from sora_kernels.dispatch import Backend, dispatch, refusal_of
from sora_kernels.qk_norm_rope import BACKENDS as PREPARING
from sora_kernels.qk_norm_rope import qk_norm_rope, qk_norm_rope_ref
from sora_kernels.shapes import check_alike, check_extra, check_head_weights, check_keys, check_mask, check_table


def qk_norm_rope_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    extra_k: Tensor | None = None,
    extra_v: Tensor | None = None,
    mask: Tensor | None = None,
    eps: float = 1e-6,
    *,
    backend: str = "auto",
) -> Tensor:
    """attention(rope(rms_norm(q)), [rope(rms_norm(k)), extra_k], [v, extra_v], mask).

    q, k and v (b, heads, n, dim); cos and sin (n, dim/2), or (b, n, dim/2). Weights (dim,) or None norm every head
    by itself, weights (heads, dim) all heads of a token together. extra_k and extra_v (b, heads, m, dim), text say,
    are used as they are: neither normed nor turned. mask (b, n + m), True where a key may be seen, the extra keys
    last. Returns (b, heads, n, dim) in q's dtype.

    A backend is that of both halves; "triton+torch" is `qk_norm_rope` on Triton and PyTorch's attention, "int8" is
    Triton and attention in 8 bits.
    Raises ValueError for shapes that do not fit each other, or only one of extra_k and extra_v.
    """
    name = "qk_norm_rope_attention"
    check_alike(name, q, k)
    check_keys(name, q, k, v)
    check_table(name, q, cos, sin)
    check_head_weights(name, q, q_weight, k_weight)
    extra = check_extra(name, q, extra_k, extra_v)
    check_mask(name, mask, q.shape[0], k.shape[2] + extra)
    arguments = (q, k, v, q_weight, k_weight, cos, sin, extra_k, extra_v, mask, eps)
    result: Tensor = dispatch(name, BACKENDS, backend, *arguments)
    return result


def qk_norm_rope_attention_ref(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    extra_k: Tensor | None = None,
    extra_v: Tensor | None = None,
    mask: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """`qk_norm_rope_attention` in plain PyTorch, in the precision of q."""
    q, k = qk_norm_rope_ref(q, k, q_weight, k_weight, cos, sin, eps)
    return attention_ref(q, k, v, mask, None, extra_k, extra_v)


def _run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    extra_k: Tensor | None,
    extra_v: Tensor | None,
    mask: Tensor | None,
    eps: float,
    *,
    before: str,
    then: str,
) -> Tensor:
    q, k = qk_norm_rope(q, k, q_weight, k_weight, cos, sin, eps, backend=before)
    return attention(q, k, v, mask, None, extra_k, extra_v, backend=then)


def _refuses(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    extra_k: Tensor | None,
    extra_v: Tensor | None,
    mask: Tensor | None,
    eps: float,
    *,
    before: str,
    then: str,
) -> str | None:
    refusal = refusal_of(PREPARING, before, q, k, q_weight, k_weight, cos, sin, eps)
    return refusal or refusal_of(ATTENDING, then, q, k, v, mask, None, extra_k, extra_v)


def _of_both(name: str, before: str, then: str) -> Backend:
    return Backend(name, partial(_run, before=before, then=then), partial(_refuses, before=before, then=then))


BACKENDS = (
    _of_both("torch", "torch", "torch"),
    _of_both("triton", "triton", "triton"),
    _of_both("triton+torch", "triton", "torch"),
    _of_both("int8", "triton", "int8"),
    Backend("reference", qk_norm_rope_attention_ref),
)
