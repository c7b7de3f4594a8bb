"""Key rules of Wan 2.1's video autoencoder in the diffusers layout: `sora_cli.model.vae.wan`.

Norms lose their axes of size 1; causal convolutions become three 2D ones, channels last, oldest frame first.
"""

from sora_weights.keymap import KeyMap, Rule, rename

_FLAT = "c 1 1 1 -> c"
_FLAT_IN_FRAME = "c 1 1 -> c"
_BY_FRAME = "o i t h w -> t o h w i"
_ONE_FRAME = "o i 1 h w -> o i h w"

_BLOCKS = (
    ("encoder.down_blocks.{n}", "encoder.down.{n}"),
    ("{side}.mid_block.resnets.{n}", "{side}.middle.blocks.{n}"),
    ("decoder.up_blocks.{level}.resnets.{n}", "decoder.up.{level}.blocks.{n}"),
)


def _causal(source: str, target: str) -> tuple[Rule, ...]:
    return rename(f"{source}.weight", f"{target}.weight", _BY_FRAME), rename(f"{source}.bias", f"{target}.bias")


def _pointwise(source: str, target: str) -> tuple[Rule, ...]:
    return rename(f"{source}.weight", f"{target}.weight", _ONE_FRAME), rename(f"{source}.bias", f"{target}.bias")


def _block(source: str, target: str) -> tuple[Rule, ...]:
    return (
        rename(f"{source}.norm1.gamma", f"{target}.norm1.weight", _FLAT),
        *_causal(f"{source}.conv1", f"{target}.conv1"),
        rename(f"{source}.norm2.gamma", f"{target}.norm2.weight", _FLAT),
        *_causal(f"{source}.conv2", f"{target}.conv2"),
        *_pointwise(f"{source}.conv_shortcut", f"{target}.skip"),
    )


KEYS = KeyMap(
    (
        *_pointwise("quant_conv", "encoder.quant"),
        *_pointwise("post_quant_conv", "decoder.dequant"),
        *_causal("{side}.conv_in", "{side}.inward"),
        *(rule for source, target in _BLOCKS for rule in _block(source, target)),
        rename("{side}.mid_block.attentions.0.norm.gamma", "{side}.middle.attention.norm.weight", _FLAT_IN_FRAME),
        rename("{side}.mid_block.attentions.0.to_qkv.{kind}", "{side}.middle.attention.to_qkv.{kind}"),
        rename("{side}.mid_block.attentions.0.proj.{kind}", "{side}.middle.attention.proj.{kind}"),
        rename("encoder.down_blocks.{n}.resample.1.{kind}", "encoder.down.{n}.conv.{kind}"),
        *_causal("encoder.down_blocks.{n}.time_conv", "encoder.down.{n}.time"),
        rename("decoder.up_blocks.{level}.upsamplers.0.resample.1.{kind}", "decoder.up.{level}.doubling.conv.{kind}"),
        *_causal("decoder.up_blocks.{level}.upsamplers.0.time_conv", "decoder.up.{level}.doubling.time"),
        rename("{side}.norm_out.gamma", "{side}.norm.weight", _FLAT),
        *_causal("{side}.conv_out", "{side}.outward"),
    )
)
