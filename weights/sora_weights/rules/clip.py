"""How a CLIP image encoder of the diffusers layout is read: its keys and its config.json."""

from collections.abc import Mapping
from typing import Any

from sora_weights.keymap import KeyMap, Rule, drop, rename
from sora_weights.rules.values import Values
from sora_weights.spec import ClipVisionSpec


def _rules(prefix: str) -> tuple[Rule, ...]:
    """The keys of a file that puts `prefix` before each."""
    return (
        rename(f"{prefix}embeddings.class_embedding", "embeddings.class_embedding"),
        rename(f"{prefix}embeddings.patch_embedding.weight", "embeddings.patch_embedding.weight"),
        rename(f"{prefix}embeddings.position_embedding.weight", "embeddings.position_embedding.weight"),
        drop(f"{prefix}embeddings.position_ids", "it counts from 0"),
        rename(f"{prefix}pre_layrnorm.{{kind}}", "pre_layrnorm.{kind}"),
        rename(f"{prefix}encoder.layers.{{key...}}", "encoder.layers.{key...}"),
        rename(f"{prefix}post_layernorm.{{kind}}", "post_layernorm.{kind}"),
    )


KEYS = KeyMap(_rules("vision_model.") + _rules(""))
"""Released files begin every key with `vision_model.`; transformers 5.23 writes them without."""

ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "relu", "silu")


def clip_spec(config: Mapping[str, Any]) -> ClipVisionSpec:
    """The encoder that a parsed image_encoder/config.json describes.

    Raises WeightsError("bad_weights") naming the value that can't be.
    """
    read = Values("image_encoder/config.json", config)
    read.choice("model_type", ("clip_vision_model",), default="clip_vision_model")
    read.count("num_channels", 3, 3, default=3)
    picture = read.count("image_size", 1, 8192)
    spec = ClipVisionSpec(
        width=read.count("hidden_size", 1, 2**16),
        inner=read.count("intermediate_size", 1, 2**18),
        depth=read.count("num_hidden_layers", 1, 512),
        heads=read.count("num_attention_heads", 1, 1024),
        picture=picture,
        patch=read.count("patch_size", 1, picture),
        activation=read.choice("hidden_act", ACTIVATIONS),
        eps=read.share("layer_norm_eps", default=1e-5),
    )
    if spec.width % spec.heads:
        raise read.bad("num_attention_heads")
    return spec
