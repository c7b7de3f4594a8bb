"""A backend asked for by name refuses in one clear line; left to us, Triton is for GPUs."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from accuracy import randn
from torch import Tensor

from sora_kernels import BackendError, attention, causal_conv, qk_norm_rope, refusals, rms_norm, window_attention
from sora_kernels.attention import WIDEST_HEAD
from sora_kernels.dispatch import AUTO_ON_CUDA, Backend, dispatch

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed: no other reason is given")

HEADS = randn(1, 2, 4, 8)
TABLE = torch.ones(4, 4)


@pytest.fixture
def with_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Triton could run on this device; it is not to be run."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture
def without_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.mark.usefixtures("without_interpreter")
@pytest.mark.parametrize("backend", ["triton", "int8"])
def test_no_gpu_is_said(backend: str) -> None:
    narrow = HEADS.bfloat16()
    with pytest.raises(BackendError) as refused:
        attention(narrow, narrow, narrow, backend=backend)
    assert str(refused.value) == (
        f"attention on backend '{backend}': its inputs lie on cpu, it needs a CUDA device (or TRITON_INTERPRET=1, "
        "which is for tests); use backend='auto'"
    )


@pytest.mark.usefixtures("with_interpreter")
@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: rms_norm(HEADS.double(), backend="triton"), "float64 input; it takes float32, bfloat16, float16"),
        (lambda: rms_norm(HEADS.clone().requires_grad_(), backend="triton"), "it computes no gradients"),
        (lambda: rms_norm(torch.ones(1, 40000), backend="triton"), "rows of 40000 values; it takes at most 32768"),
        (lambda: rms_norm(HEADS, torch.ones(8, device="meta"), backend="triton"), "its inputs lie on cpu and meta"),
        (lambda: attention(HEADS, HEADS, HEADS, backend="int8"), "float32 input; it takes bfloat16, float16"),
        (lambda: attention(HEADS, HEADS.half(), HEADS.half(), backend="triton"), "torch.float16, torch.float32"),
        (lambda: attention(HEADS, HEADS, HEADS, scale=-1.0, backend="triton"), "scale -1.0; it takes positive ones"),
        (
            lambda: attention(*[torch.ones(1, 1, 2, WIDEST_HEAD + 1)] * 3, backend="triton"),
            "heads of 257 values; it takes at most 256",
        ),
        (
            lambda: window_attention(*[HEADS.double()] * 3, (1, 2, 2), (0, 1, 1), backend="triton"),
            "window_attention on backend 'triton': float64 input",
        ),
        (lambda: qk_norm_rope(HEADS, HEADS.double(), None, None, TABLE, TABLE, backend="triton"), "float64 input"),
        (
            lambda: causal_conv(torch.ones(1, 1, 2, 2), (), torch.ones(4, 1, 1, 1, 1), backend="triton"),
            "a convolution over 4 frames; it takes at most 3",
        ),
    ],
)
def test_what_triton_cannot_run_is_said_in_one_line(call: Callable[[], Any], problem: str) -> None:
    with pytest.raises(BackendError) as refused:
        call()
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("with_interpreter")
def test_no_gradient_is_wanted_under_no_grad() -> None:
    x = HEADS.clone().requires_grad_()
    with torch.no_grad():
        assert refusals.triton_refusal(x) is None


class OnCuda:
    """Stands in for a tensor on a CUDA device."""

    is_cuda = True


def backend(name: str, *, refuses: bool = False) -> Backend:
    return Backend(name, lambda _x: name, lambda _x: "a reason" if refuses else None)


def test_auto_on_cuda_follows_the_table_and_passes_over_what_refuses() -> None:
    both = (backend("torch"), backend("triton"))
    assert dispatch("rope", both, "auto", OnCuda()) == "triton"
    assert dispatch("rms_norm", both, "auto", OnCuda()) == "torch"
    assert dispatch("attention", both, "auto", OnCuda()) == "torch"
    assert dispatch("rope", (backend("torch"), backend("triton", refuses=True)), "auto", OnCuda()) == "torch"


@pytest.mark.usefixtures("with_interpreter")
def test_auto_leaves_the_interpreter_alone() -> None:
    both = (backend("torch"), backend("triton"))
    x: Tensor = HEADS
    assert dispatch("rms_norm", both, "auto", x) == "torch"


def test_auto_never_takes_eight_bits() -> None:
    assert all("int8" not in names and names[-1] == "torch" for names in AUTO_ON_CUDA.values())
