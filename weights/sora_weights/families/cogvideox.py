"""CogVideoX 1.0: 2B, 5B and, with condition channels, 5B-I2V."""

from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

from sora_weights.families.published import (
    config_of,
    files_of,
    licence_of,
    parts_of,
    pipeline_of,
    scheduler_of,
    unsupported,
)
from sora_weights.manifest import Manifest, amount, flag, tuple_of, up_to
from sora_weights.rules import cogvideox, cogvideox_vae, t5
from sora_weights.spec import CogVideoXSpec, CogVideoXVAESpec, Defaults, Family, FlowSpec, Grid, Model, Specs

PIPELINES = ("CogVideoXPipeline", "CogVideoXImageToVideoPipeline")
NOT_1_0 = "CogVideoX 1.0 works: 2B, 5B and 5B-I2V"
FPS = 8


def identify(folder: Path) -> bool:
    """Whether the folder holds a CogVideoX model."""
    return pipeline_of(folder) in PIPELINES


def describe(folder: Path) -> Model:
    """The CogVideoX model in `folder`, by its own settings.

    Raises WeightsError("bad_weights") naming the file and what is wrong or missing in it.
    """
    parts = parts_of(folder, ("dit", "vae", "text", "tokenizer"))
    config = config_of(parts["dit"])
    vae = autoencoder_spec(config_of(parts["vae"]))
    dit = denoiser_spec(config, vae.time)
    text = t5.t5_spec(config_of(parts["text"]).values, tokens=dit.text_tokens, masked=False, cleaned=False)
    space = 2 ** (len(vae.widths) - 1)
    frames = config.get("sample_frames", up_to(8192), 49)
    return Model(
        name=folder.resolve().name,
        family=FAMILY.name,
        folder=folder,
        files=files_of(folder, parts),
        checksums=MappingProxyType({}),
        specs=Specs(dit, vae, text),
        defaults=Defaults(dit.sample[2] * space, dit.sample[1] * space, Fraction(FPS), frames / FPS, 50, 6.0, 16),
        licence=licence_of(folder),
        about="CogVideoX, picture to video" if dit.channels > dit.latents else "CogVideoX, text to video",
        parts=MappingProxyType(parts),
        grid=Grid(space, space * dit.patch, vae.time),
        knows="channels" if dit.channels > dit.latents else "pin",
        scheduler=scheduler_of(folder),
    )


def denoiser_spec(config: Manifest, time: int) -> CogVideoXSpec:
    """The spec that a transformer's config.json states, with `time` frames in a latent frame.

    Raises WeightsError("bad_weights") naming the field.
    """
    plain: dict[str, object] = {"patch_size_t": None, "ofs_embed_dim": None, "norm_elementwise_affine": True}
    plain |= {"activation_fn": "gelu-approximate", "timestep_activation_fn": "silu"}
    plain |= {"flip_sin_to_cos": True, "freq_shift": 0, "temporal_compression_ratio": time}
    for field, known in plain.items():
        if (found := config.values.get(field, known)) != known:
            raise unsupported(config, field, found, NOT_1_0)
    rotary = config.get("use_rotary_positional_embeddings", flag, False)
    learned = config.get("use_learned_positional_embeddings", flag, False)
    head_width = config.take("attention_head_dim", up_to(512))
    if head_width % 16:
        raise unsupported(config, "attention_head_dim", head_width, "multiples of 16 work")
    if learned and not rotary:
        raise unsupported(config, "use_learned_positional_embeddings", True, NOT_1_0)
    frames = config.get("sample_frames", up_to(8192), 49)
    rows, columns = (config.take(f"sample_{side}", up_to(4096)) for side in ("height", "width"))
    return CogVideoXSpec(
        channels=config.take("in_channels", up_to(1024)),
        latents=config.take("out_channels", up_to(512)),
        patch=config.take("patch_size", up_to(8)),
        heads=config.take("num_attention_heads", up_to(256)),
        head_width=head_width,
        depth=config.take("num_layers", up_to(256)),
        text_width=config.take("text_embed_dim", up_to(65536)),
        text_tokens=config.get("max_text_seq_length", up_to(4096), 226),
        time_width=config.take("time_embed_dim", up_to(65536)),
        sample=((frames - 1) // time + 1, rows, columns),
        rotary=rotary,
        learned=learned,
        space_scale=config.get("spatial_interpolation_scale", amount, 1.875),
        time_scale=config.get("temporal_interpolation_scale", amount, 1.0),
        attention_bias=config.get("attention_bias", flag, True),
        patch_bias=config.get("patch_bias", flag, True),
        eps=config.get("norm_eps", amount, 1e-5),
    )


def autoencoder_spec(config: Manifest) -> CogVideoXVAESpec:
    """The spec that an autoencoder's config.json states. Raises WeightsError("bad_weights") naming the field."""
    plain = {"use_quant_conv": False, "use_post_quant_conv": False, "act_fn": "silu", "in_channels": 3}
    for field, known in plain.items():
        if (found := config.values.get(field, known)) != known:
            raise unsupported(config, field, found, NOT_1_0)
    time = config.get("temporal_compression_ratio", amount, 4.0)
    if time not in (1.0, 2.0, 4.0, 8.0):
        raise unsupported(config, "temporal_compression_ratio", time, "4 works")
    return CogVideoXVAESpec(
        channels=config.take("latent_channels", up_to(512)),
        widths=config.take("block_out_channels", tuple_of(up_to(8192), 8)),
        depth=config.take("layers_per_block", up_to(64)),
        groups=config.get("norm_num_groups", up_to(1024), 32),
        eps=config.get("norm_eps", amount, 1e-6),
        time=int(time),
        scaling=config.get("scaling_factor", amount, 1.15258426),
        inverted_condition=config.get("invert_scale_latents", flag, False),
    )


FAMILY = Family(
    name="cogvideox",
    identify=identify,
    describe=describe,
    key_rules=MappingProxyType({"dit": cogvideox.KEYS, "vae": cogvideox_vae.KEYS, "text": t5.KEYS}),
    flow=FlowSpec(noise_layout="b t c h w", narrow_noise=True),
)
