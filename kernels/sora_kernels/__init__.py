"""The operators where a video network spends its time: a public operator, its plain reference, its backends.

Every operator takes float32, bfloat16 or float16, computes in float32 where it matters, casts once at the end
and works under autograd. `NAME_ref` is the formula in plain PyTorch, in whatever precision it is given.
"""

from sora_kernels.attention import attention, attention_ref
from sora_kernels.causal_conv import causal_conv, causal_conv_ref
from sora_kernels.dispatch import BackendError
from sora_kernels.gated_residual import gated_residual, gated_residual_ref
from sora_kernels.layer_norm_modulate import layer_norm_modulate, layer_norm_modulate_ref
from sora_kernels.linear_gelu import linear_gelu, linear_gelu_ref
from sora_kernels.norm_silu import norm_silu, norm_silu_ref
from sora_kernels.qk_norm_rope import qk_norm_rope, qk_norm_rope_ref
from sora_kernels.qk_norm_rope_attention import qk_norm_rope_attention, qk_norm_rope_attention_ref
from sora_kernels.rms_norm import rms_norm, rms_norm_ref
from sora_kernels.rope import rope, rope_ref, rope_table
from sora_kernels.window_attention import window_attention, window_attention_ref

__all__ = [
    "BackendError",
    "attention",
    "attention_ref",
    "causal_conv",
    "causal_conv_ref",
    "gated_residual",
    "gated_residual_ref",
    "layer_norm_modulate",
    "layer_norm_modulate_ref",
    "linear_gelu",
    "linear_gelu_ref",
    "norm_silu",
    "norm_silu_ref",
    "qk_norm_rope",
    "qk_norm_rope_attention",
    "qk_norm_rope_attention_ref",
    "qk_norm_rope_ref",
    "rms_norm",
    "rms_norm_ref",
    "rope",
    "rope_ref",
    "rope_table",
    "window_attention",
    "window_attention_ref",
]
