"""Wan 2.1: text to video, and pictures to video by condition channels and a picture encoder."""

from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

from sora_weights.families.published import (
    PICTURE_SETTINGS,
    config_of,
    files_of,
    licence_of,
    parts_of,
    pipeline_of,
    scheduler_of,
    unsupported,
)
from sora_weights.manifest import Manifest, amount, flag, number, positive, tuple_of, up_to
from sora_weights.rules import clip, t5, wan, wan_vae
from sora_weights.spec import Defaults, Family, FlowSpec, Grid, Model, Specs, WanSpec, WanVAESpec

PIPELINES = ("WanPipeline", "WanImageToVideoPipeline")
TOKENS = 512
NOT_WAN_2_1 = "Wan 2.1 works, text to video and picture to video"


def identify(folder: Path) -> bool:
    """Whether the folder holds a Wan model."""
    return pipeline_of(folder) in PIPELINES


def describe(folder: Path) -> Model:
    """The Wan model in `folder`, by its own settings.

    Raises WeightsError("bad_weights") naming the file and what is wrong or missing in it.
    """
    index = config_of(folder, "model_index.json")
    _check_generation(index)
    dit = denoiser_spec(config_of(folder / "transformer"))
    names = ("dit", "vae", "text", "tokenizer") + (("image",) if dit.image_width is not None else ())
    parts = parts_of(folder, names)
    vae = autoencoder_spec(config_of(parts["vae"]))
    text = t5.t5_spec(config_of(parts["text"]).values, tokens=TOKENS, masked=True, cleaned=True)
    image = clip.clip_spec(config_of(parts["image"]).values) if "image" in parts else None
    files = files_of(folder, parts)
    if image is not None:
        parts["image_settings"] = folder / PICTURE_SETTINGS
    space = 2 ** (len(vae.multipliers) - 1)
    return Model(
        name=folder.resolve().name,
        family=FAMILY.name,
        folder=folder,
        files=files,
        checksums=MappingProxyType({}),
        specs=Specs(dit, vae, text, image),
        defaults=Defaults(832, 480, Fraction(16), 81 / 16, 50, 5.0, 16),
        licence=licence_of(folder),
        about="Wan 2.1, picture to video" if dit.channels > dit.latents else "Wan 2.1, text to video",
        parts=MappingProxyType(parts),
        grid=Grid(space, space * dit.patch[1], 2 ** sum(vae.halves_time)),
        knows="channels" if dit.channels > dit.latents else "pin",
        scheduler=scheduler_of(folder),
    )


def _check_generation(index: Manifest) -> None:
    """Raise for Wan 2.2, which has two networks or a timestep for each token."""
    if index.values.get("expand_timesteps"):
        raise unsupported(index, "expand_timesteps", True, NOT_WAN_2_1)
    if index.values.get("boundary_ratio") is not None:
        raise unsupported(index, "boundary_ratio", index.values["boundary_ratio"], NOT_WAN_2_1)


def denoiser_spec(config: Manifest) -> WanSpec:
    """The spec that a transformer's config.json states. Raises WeightsError("bad_weights") naming the field."""
    patch = config.take("patch_size", tuple_of(up_to(8), 3))
    if len(patch) != 3 or patch[0] != 1 or patch[1] != patch[2]:
        raise unsupported(config, "patch_size", list(patch), "patches of [1, 2, 2] work")
    norm = config.values.get("qk_norm", "rms_norm_across_heads")
    if norm != "rms_norm_across_heads":
        raise unsupported(config, "qk_norm", norm, NOT_WAN_2_1)
    head_width = config.take("attention_head_dim", up_to(512))
    if head_width % 2:
        raise unsupported(config, "attention_head_dim", head_width, "even widths work")
    latents = config.take("out_channels", up_to(512))
    return WanSpec(
        channels=config.take("in_channels", up_to(1024)),
        latents=latents,
        patch=(patch[0], patch[1], patch[2]),
        heads=config.take("num_attention_heads", up_to(256)),
        head_width=head_width,
        depth=config.take("num_layers", up_to(256)),
        inner=config.take("ffn_dim", up_to(65536)),
        text_width=config.take("text_dim", up_to(65536)),
        time_width=config.take("freq_dim", up_to(8192)),
        image_width=config.get("image_dim", up_to(65536), None),
        image_tokens=config.get("pos_embed_seq_len", up_to(8192), None),
        cross_norm=config.get("cross_attn_norm", flag, True),
        eps=config.get("eps", amount, 1e-6),
    )


def autoencoder_spec(config: Manifest) -> WanVAESpec:
    """The spec that an autoencoder's config.json states. Raises WeightsError("bad_weights") naming the field."""
    for field, plain in (("is_residual", False), ("patch_size", None), ("attn_scales", [])):
        if (found := config.values.get(field, plain)) != plain:
            raise unsupported(config, field, found, NOT_WAN_2_1)
    width = config.take("base_dim", up_to(2048))
    multipliers = config.take("dim_mult", tuple_of(up_to(64), 8))
    halves = config.take("temperal_downsample", tuple_of(flag, 8))
    channels = config.take("z_dim", up_to(512))
    mean, std = (config.take(f"latents_{name}", tuple_of(number, 512)) for name in ("mean", "std"))
    if len(halves) != len(multipliers) - 1:
        raise unsupported(config, "temperal_downsample", list(halves), f"{len(multipliers) - 1} values work")
    for field, values in (("latents_mean", mean), ("latents_std", std)):
        if len(values) != channels:
            raise unsupported(config, field, f"of {len(values)} values", f"one for each of {channels} channels works")
    if not all(value > 0 for value in std):
        raise unsupported(config, "latents_std", min(std), "values above 0 work")
    decoder_width = config.get("decoder_base_dim", up_to(2048), width)
    depth = config.take("num_res_blocks", positive)
    return WanVAESpec(channels, width, decoder_width, multipliers, depth, halves, mean, std)


FAMILY = Family(
    name="wan",
    identify=identify,
    describe=describe,
    key_rules=MappingProxyType({"dit": wan.KEYS, "vae": wan_vae.KEYS, "text": t5.KEYS, "image": clip.KEYS}),
    flow=FlowSpec(),
)
