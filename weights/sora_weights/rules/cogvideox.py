"""Keys of CogVideoX's diffusion transformer as published in the diffusers layout."""

from sora_weights.keymap import KeyMap, fuse, rename

_BLOCK = "transformer_blocks.{i}"

KEYS = KeyMap(
    (
        rename("patch_embed.proj.weight", "patchify.weight", "o c p q -> o (c p q)"),
        rename("patch_embed.proj.bias", "patchify.bias"),
        rename("patch_embed.text_proj.{kind}", "text.{kind}"),
        rename("patch_embed.pos_embedding", "positions", "1 n d -> n d"),
        rename("time_embedding.linear_1.{kind}", "time.inward.{kind}"),
        rename("time_embedding.linear_2.{kind}", "time.outward.{kind}"),
        rename(f"{_BLOCK}.norm1.linear.{{kind}}", "blocks.{i}.before.linear.{kind}"),
        rename(f"{_BLOCK}.norm1.norm.{{kind}}", "blocks.{i}.before.norm.{kind}"),
        fuse(tuple(f"{_BLOCK}.attn1.to_{name}.{{kind}}" for name in "qkv"), "blocks.{i}.qkv.{kind}", shares=(1, 1, 1)),
        rename(f"{_BLOCK}.attn1.norm_q.{{kind}}", "blocks.{i}.q_norm.{kind}"),
        rename(f"{_BLOCK}.attn1.norm_k.{{kind}}", "blocks.{i}.k_norm.{kind}"),
        rename(f"{_BLOCK}.attn1.to_out.0.{{kind}}", "blocks.{i}.out.{kind}"),
        rename(f"{_BLOCK}.norm2.linear.{{kind}}", "blocks.{i}.between.linear.{kind}"),
        rename(f"{_BLOCK}.norm2.norm.{{kind}}", "blocks.{i}.between.norm.{kind}"),
        rename(f"{_BLOCK}.ff.net.0.proj.{{kind}}", "blocks.{i}.mlp.inward.{kind}"),
        rename(f"{_BLOCK}.ff.net.2.{{kind}}", "blocks.{i}.mlp.outward.{kind}"),
        rename("norm_final.{kind}", "norm.{kind}"),
        rename("norm_out.linear.{kind}", "last_time.{kind}"),
        rename("norm_out.norm.{kind}", "last_norm.{kind}"),
        rename("proj_out.{kind}", "unpatchify.{kind}"),
    )
)
