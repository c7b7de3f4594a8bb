"""Keys of Wan's diffusion transformer as published in the diffusers layout."""

from sora_weights.keymap import KeyMap, drop, fuse, rename

_SELF, _CROSS = "blocks.{i}.attn1", "blocks.{i}.attn2"
_WORDS = "condition_embedder"

KEYS = KeyMap(
    (
        rename("patch_embedding.weight", "patchify.weight", "o c p q r -> o (c p q r)"),
        rename("patch_embedding.bias", "patchify.bias"),
        rename(f"{_WORDS}.time_embedder.linear_1.{{kind}}", "time.inward.{kind}"),
        rename(f"{_WORDS}.time_embedder.linear_2.{{kind}}", "time.outward.{kind}"),
        rename(f"{_WORDS}.time_proj.{{kind}}", "time_block.{kind}"),
        rename(f"{_WORDS}.text_embedder.linear_1.{{kind}}", "text.inward.{kind}"),
        rename(f"{_WORDS}.text_embedder.linear_2.{{kind}}", "text.outward.{kind}"),
        rename(f"{_WORDS}.image_embedder.norm1.{{kind}}", "image.before.{kind}"),
        rename(f"{_WORDS}.image_embedder.ff.net.0.proj.{{kind}}", "image.mlp.inward.{kind}"),
        rename(f"{_WORDS}.image_embedder.ff.net.2.{{kind}}", "image.mlp.outward.{kind}"),
        rename(f"{_WORDS}.image_embedder.norm2.{{kind}}", "image.after.{kind}"),
        rename(f"{_WORDS}.image_embedder.pos_embed", "image.positions", "1 k i -> k i"),
        rename("blocks.{i}.scale_shift_table", "blocks.{i}.table", "1 six d -> six d"),
        fuse(tuple(f"{_SELF}.to_{name}.{{kind}}" for name in "qkv"), "blocks.{i}.qkv.{kind}", shares=(1, 1, 1)),
        rename(f"{_SELF}.norm_{{side}}.weight", "blocks.{i}.{side}_norm"),
        rename(f"{_SELF}.to_out.0.{{kind}}", "blocks.{i}.out.{kind}"),
        rename("blocks.{i}.norm2.{kind}", "blocks.{i}.cross_norm.{kind}"),
        rename(f"{_CROSS}.to_q.{{kind}}", "blocks.{i}.cross.q.{kind}"),
        fuse(tuple(f"{_CROSS}.to_{name}.{{kind}}" for name in "kv"), "blocks.{i}.cross.kv.{kind}", shares=(1, 1)),
        rename(f"{_CROSS}.norm_q.weight", "blocks.{i}.cross.q_norm"),
        rename(f"{_CROSS}.norm_k.weight", "blocks.{i}.cross.k_norm"),
        fuse(
            tuple(f"{_CROSS}.add_{name}_proj.{{kind}}" for name in "kv"),
            "blocks.{i}.cross.image_kv.{kind}",
            shares=(1, 1),
        ),
        rename(f"{_CROSS}.norm_added_k.weight", "blocks.{i}.cross.image_k_norm"),
        drop(f"{_CROSS}.norm_added_q.weight", "queries have one norm; the published files carry a second, unused one"),
        rename(f"{_CROSS}.to_out.0.{{kind}}", "blocks.{i}.cross.out.{kind}"),
        rename("blocks.{i}.ffn.net.0.proj.{kind}", "blocks.{i}.mlp.inward.{kind}"),
        rename("blocks.{i}.ffn.net.2.{kind}", "blocks.{i}.mlp.outward.{kind}"),
        rename("scale_shift_table", "table", "1 two d -> two d"),
        rename("proj_out.{kind}", "unpatchify.{kind}"),
    )
)
