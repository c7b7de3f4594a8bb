"""Compiles every kernel for a GPU that need not be there: python compiling.py 90, the compute capability times ten.

Prints one line of JSON for each kernel: its name, whether it multiplies in tensor cores, bytes of shared memory.
Arguments go through the kernels' own launchers; only the launch itself is left out.
"""

import json
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from sora_kernels._triton import (
    attention,
    attention_int8,
    causal_conv,
    gated_residual,
    layer_norm_modulate,
    norm_silu,
    qk_norm_rope,
    rms_norm,
    rope,
)

compile_or_run = JITFunction.run


class Absent:
    """A driver for a GPU of which only the kind is known."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self.target


def compile_only(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **constants: Any) -> None:
    compiled = compile_or_run(kernel, *arguments, grid=grid, warmup=True, **constants)
    products = any(instruction in compiled.asm["ptx"] for instruction in ("wgmma", "mma.sync"))
    print(json.dumps({"kernel": kernel.fn.__name__, "tensor_cores": products, "shared": compiled.metadata.shared}))


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.bfloat16)


def compile_all(heads: int = 2, dim: int = 128, tokens: int = 64) -> None:
    width = heads * dim
    x, one = randn(1, tokens, width), torch.randn(1, 1, width)
    q, k, v = (part.unflatten(-1, (heads, dim)).transpose(1, 2) for part in randn(1, tokens, 3 * width).chunk(3, -1))
    tables = torch.randn(2, tokens, dim // 2)
    text, mask = randn(1, heads, 16, dim), torch.ones(1, tokens + 16, dtype=torch.bool)
    frame = randn(1, 64, 8, 8).contiguous(memory_format=torch.channels_last)
    rms_norm.run(x, one.flatten(), 1e-6)
    layer_norm_modulate.run(x, one, one, 1e-6)
    gated_residual.run(x, x, one)
    rope.run(q, *tables)
    qk_norm_rope.run(q, k, randn(dim), randn(dim), *tables, 1e-6)
    qk_norm_rope.run(q, k, randn(heads, dim), randn(heads, dim), *tables, 1e-6)
    norm_silu.run(frame, randn(64), 1e-6)
    causal_conv.run(frame, (frame, frame), randn(3, 64, 3, 3, 64), randn(64))
    attention.run(q, k, v, None, None, None, None)
    attention.run(q, k, v, mask, None, text, text)
    attention_int8.run(q, k, v, None, None, None, None)
    attention_int8.run(q, k, v, mask, None, text, text)
    attention.run_window(q, k, v, (4, 4, 4), (1, 1, 1), None, None, None, None)


if __name__ == "__main__":
    triton.runtime.driver.set_active(Absent(int(sys.argv[1])))
    JITFunction.run = compile_only
    compile_all()
