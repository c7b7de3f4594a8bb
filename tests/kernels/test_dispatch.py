"""A backend asked for by name runs or raises; left to us, the first that can run does."""

import pytest
import torch

from sora_kernels import (
    BackendError,
    attention,
    causal_conv,
    gated_residual,
    layer_norm_modulate,
    linear_gelu,
    norm_silu,
    qk_norm_rope,
    qk_norm_rope_attention,
    rms_norm,
    rope,
    window_attention,
)
from sora_kernels.dispatch import Backend, dispatch

X = torch.randn(2, 3, 4, 8)
TABLE = torch.ones(4, 4)
FLAT = torch.randn(2, 3, 8)
CALLS = {
    "rms_norm": lambda backend: rms_norm(X, backend=backend),
    "layer_norm_modulate": lambda backend: layer_norm_modulate(FLAT, FLAT, FLAT, backend=backend),
    "gated_residual": lambda backend: gated_residual(FLAT, FLAT, FLAT, backend=backend),
    "rope": lambda backend: rope(X, TABLE, TABLE, backend=backend),
    "qk_norm_rope": lambda backend: qk_norm_rope(X, X, None, None, TABLE, TABLE, backend=backend),
    "linear_gelu": lambda backend: linear_gelu(X, torch.ones(5, 8), backend=backend),
    "norm_silu": lambda backend: norm_silu(X, backend=backend),
    "attention": lambda backend: attention(X, X, X, backend=backend),
    "window_attention": lambda backend: window_attention(X, X, X, (1, 2, 2), (0, 1, 0), backend=backend),
    "qk_norm_rope_attention": lambda backend: qk_norm_rope_attention(
        X, X, X, None, None, TABLE, TABLE, backend=backend
    ),
    "causal_conv": lambda backend: causal_conv(X, (X, X), torch.ones(3, 5, 3, 3, 3), backend=backend),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_named_backend_computes_what_auto_computes(name: str) -> None:
    for backend in ("torch", "reference"):
        torch.testing.assert_close(CALLS[name](backend), CALLS[name]("auto"))


@pytest.mark.parametrize("name", CALLS)
def test_unknown_backend_raises_and_names_those_there_are(name: str) -> None:
    with pytest.raises(BackendError, match=f"{name} has no backend 'abacus'; use auto, .*torch.*, reference"):
        CALLS[name]("abacus")


def choosy(name: str, answer: float, refuses: bool) -> Backend:
    reason = "needs a width of 64" if refuses else None
    return Backend(name, lambda _x: torch.tensor(answer), lambda _x: reason)


def test_auto_takes_the_first_backend_that_can() -> None:
    backends = (choosy("fast", 1.0, refuses=True), choosy("plain", 2.0, refuses=False))
    assert dispatch("op", backends, "auto", X) == 2.0


def test_named_backend_that_refuses_raises_its_reason_and_never_falls_back() -> None:
    backends = (choosy("fast", 1.0, refuses=True), choosy("plain", 2.0, refuses=False))
    with pytest.raises(BackendError, match="op on backend 'fast': needs a width of 64; use backend='auto'"):
        dispatch("op", backends, "fast", X)


def test_operator_that_nothing_can_run_raises() -> None:
    with pytest.raises(BackendError, match="none of its backends"):
        dispatch("op", (choosy("fast", 1.0, refuses=True),), "auto", X)
