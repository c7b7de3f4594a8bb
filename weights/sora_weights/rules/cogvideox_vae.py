"""Keys of CogVideoX's video autoencoder as published in the diffusers layout."""

from collections.abc import Iterator

from sora_weights.keymap import KeyMap, Rule, fuse, rename

BLOCKS = (
    ("encoder.down_blocks.{i}.resnets.{j}", "encoder.levels.{i}.blocks.{j}"),
    ("encoder.mid_block.resnets.{j}", "encoder.middle.{j}"),
    ("decoder.mid_block.resnets.{j}", "decoder.middle.{j}"),
    ("decoder.up_blocks.{i}.resnets.{j}", "decoder.levels.{i}.blocks.{j}"),
)
CONVOLUTIONS = (("conv1.conv", "first.conv"), ("conv2.conv", "second.conv"), ("conv_shortcut", "shortcut"))
NORMS = (("norm1", "first_norm"), ("norm2", "second_norm"))
ENDS = (("conv_in.conv", "inward.conv"), ("conv_out.conv", "outward.conv"))
STEPS = (
    ("encoder.down_blocks.{i}.downsamplers.0.conv", "encoder.levels.{i}.step.conv"),
    ("decoder.up_blocks.{i}.upsamplers.0.conv", "decoder.levels.{i}.step.conv"),
)


def _layer(source: str, target: str) -> Rule:
    return rename(f"{source}.{{kind}}", f"{target}.{{kind}}")


def _norm(source: str, target: str) -> Iterator[Rule]:
    """The encoder's norms are plain; the decoder's take scale and shift from the latents, which we compute as one."""
    if source.startswith("encoder."):
        yield _layer(source, target)
        return
    yield _layer(f"{source}.norm_layer", f"{target}.norm")
    guides = (f"{source}.conv_y.conv.{{kind}}", f"{source}.conv_b.conv.{{kind}}")
    yield fuse(guides, f"{target}.guide.{{kind}}", shares=(1, 1))


def _rules() -> Iterator[Rule]:
    for source, target in BLOCKS:
        yield from (_layer(f"{source}.{theirs}", f"{target}.{ours}") for theirs, ours in CONVOLUTIONS)
        for theirs, ours in NORMS:
            yield from _norm(f"{source}.{theirs}", f"{target}.{ours}")
    for side in ("encoder", "decoder"):
        yield from (_layer(f"{side}.{theirs}", f"{side}.{ours}") for theirs, ours in ENDS)
        yield from _norm(f"{side}.norm_out", f"{side}.norm")
    yield from (_layer(source, target) for source, target in STEPS)


KEYS = KeyMap(tuple(_rules()))
