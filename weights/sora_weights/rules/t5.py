"""How a T5 or UMT5 text encoder of the diffusers layout is read: its keys and its config.json."""

from collections.abc import Mapping
from typing import Any

from sora_weights.keymap import KeyMap, drop, rename
from sora_weights.rules.values import Values
from sora_weights.spec import T5Spec

KEYS = KeyMap(
    (
        rename("shared.weight", "embed_tokens.weight"),
        drop("encoder.embed_tokens.weight", "it is shared.weight under a second name"),
        rename("encoder.block.{key...}", "block.{key...}"),
        rename("encoder.final_layer_norm.weight", "final_layer_norm.weight"),
    )
)
"""To the names of transformers' T5 and UMT5 encoder stack, which holds the token embedding once."""

KINDS = ("t5", "umt5")
ACTIVATIONS = ("relu", "gelu", "silu", "gated-relu", "gated-gelu", "gated-silu")
DEFAULT_ACTIVATIONS = {"t5": "relu", "umt5": "gated-gelu"}


def t5_spec(config: Mapping[str, Any], *, tokens: int, masked: bool, cleaned: bool) -> T5Spec:
    """The encoder that a parsed text_encoder/config.json describes; the rest is the family's own.

    What old files leave out is what transformers takes for it.
    Raises WeightsError("bad_weights") naming the value that can't be.
    """
    read = Values("text_encoder/config.json", config)
    kind = read.choice("model_type", KINDS)
    buckets = read.count("relative_attention_num_buckets", 4, 4096, default=32)
    return T5Spec(
        kind=kind,
        vocabulary=read.count("vocab_size", 4, 2**21),
        width=read.count("d_model", 1, 2**16),
        head_width=read.count("d_kv", 1, 2**13),
        inner=read.count("d_ff", 1, 2**18),
        depth=read.count("num_layers", 1, 512),
        heads=read.count("num_heads", 1, 1024),
        buckets=buckets,
        distance=read.count("relative_attention_max_distance", buckets // 4 + 1, 2**20, default=128),
        activation=_activation(read, kind),
        eps=read.share("layer_norm_epsilon", default=1e-6),
        tokens=tokens,
        masked=masked,
        cleaned=cleaned,
    )


def _activation(read: Values, kind: str) -> str:
    """`feed_forward_proj`; what transformers wrote of its own reading of it must agree."""
    activation = read.choice("feed_forward_proj", ACTIVATIONS, default=DEFAULT_ACTIVATIONS[kind])
    function = "gelu_new" if activation == "gated-gelu" else activation.removeprefix("gated-")
    for name, implied in (("dense_act_fn", function), ("is_gated_act", activation.startswith("gated-"))):
        if read.values.get(name, implied) != implied:
            raise read.bad(name)
    return activation
