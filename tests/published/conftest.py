"""Tiny random checkpoints of the published families, written by the reference itself, and its pipelines as oracles."""

import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)

transformers.logging.set_verbosity_error()


@dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint's folder and the reference pipeline that wrote it."""

    folder: Path
    pipeline: Any

    def frames(self, seed: int, **asked: Any) -> np.ndarray:
        """The reference's frames, (T, H, W, 3) in 0..255."""
        generator = torch.Generator().manual_seed(seed)
        made = self.pipeline(**asked, generator=generator, output_type="np").frames[0]
        return np.round(made * 255).astype(int)


def awake(network: Any, amount: float = 0.05) -> Any:
    """The network with noise on every parameter, so that nothing that starts at zero hides a mistake."""
    for parameter in network.parameters():
        parameter.data += torch.randn_like(parameter) * amount
    return network.eval()


def tokenizer() -> Any:
    """A T5 tokenizer of single characters and two words."""
    characters = string.ascii_letters + string.digits + string.punctuation
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁cat", -1.0), ("▁sunset", -1.5)]
    return transformers.T5Tokenizer(vocab=[*pieces, *((character, -3.0) for character in characters)], extra_ids=0)


def text_encoder(kind: str, vocabulary: int) -> Any:
    config_class = {"t5": transformers.T5Config, "umt5": transformers.UMT5Config}[kind]
    network_class = {"t5": transformers.T5EncoderModel, "umt5": transformers.UMT5EncoderModel}[kind]
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    return awake(network_class(config_class(vocab_size=vocabulary, feed_forward_proj="gated-gelu", **sizes)))


def make_wan(folder: Path, *, pictures: bool) -> Published:
    torch.manual_seed(1)
    tokens = tokenizer()
    width = 48
    parts: dict[str, Any] = {
        "tokenizer": tokens,
        "text_encoder": text_encoder("umt5", len(tokens)),
        "vae": awake(AutoencoderKLWan(base_dim=8, num_res_blocks=1)),
        "transformer": awake(
            WanTransformer3DModel(
                num_attention_heads=2,
                attention_head_dim=width // 2,
                in_channels=36 if pictures else 16,
                out_channels=16,
                text_dim=32,
                freq_dim=64,
                ffn_dim=96,
                num_layers=2,
                image_dim=40 if pictures else None,
                added_kv_proj_dim=width if pictures else None,
            )
        ),
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0 if pictures else 5.0
        ),
    }
    if pictures:
        sizes = {"hidden_size": 40, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4}
        config = transformers.CLIPVisionConfig(image_size=32, patch_size=8, hidden_act="gelu", **sizes)
        parts["image_encoder"] = awake(transformers.CLIPVisionModel(config))
        crop = {"height": 32, "width": 32}
        parts["image_processor"] = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=crop)
    return saved((WanImageToVideoPipeline if pictures else WanPipeline)(**parts), folder)


def make_cogvideox(folder: Path, *, pictures: bool, dpm: bool, rotary: bool) -> Published:
    torch.manual_seed(2)
    tokens = tokenizer()
    scheduler_class = CogVideoXDPMScheduler if dpm else CogVideoXDDIMScheduler
    parts: dict[str, Any] = {
        "tokenizer": tokens,
        "text_encoder": text_encoder("t5", len(tokens)),
        "vae": awake(
            AutoencoderKLCogVideoX(
                block_out_channels=(8, 16, 16, 32),
                latent_channels=16,
                layers_per_block=1,
                norm_num_groups=4,
                scaling_factor=0.7,
                invert_scale_latents=pictures,
            )
        ),
        "transformer": awake(
            CogVideoXTransformer3DModel(
                num_attention_heads=2,
                attention_head_dim=16,
                in_channels=32 if pictures else 16,
                out_channels=16,
                time_embed_dim=24,
                text_embed_dim=32,
                num_layers=2,
                sample_width=12,
                sample_height=8,
                sample_frames=9,
                use_rotary_positional_embeddings=rotary,
                use_learned_positional_embeddings=pictures,
            )
        ),
        "scheduler": scheduler_class(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            snr_shift_scale=1.0 if rotary else 3.0,
            timestep_spacing="trailing",
        ),
    }
    return saved((CogVideoXImageToVideoPipeline if pictures else CogVideoXPipeline)(**parts), folder)


def saved(pipeline: Any, folder: Path) -> Published:
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return Published(folder, pipeline)


MAKERS: dict[str, Callable[[Path], Published]] = {
    "wan": lambda folder: make_wan(folder, pictures=False),
    "wan-i2v": lambda folder: make_wan(folder, pictures=True),
    "cogvideox-2b": lambda folder: make_cogvideox(folder, pictures=False, dpm=False, rotary=False),
    "cogvideox-5b": lambda folder: make_cogvideox(folder, pictures=False, dpm=True, rotary=True),
    "cogvideox-5b-i2v": lambda folder: make_cogvideox(folder, pictures=True, dpm=True, rotary=True),
}


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Published]:
    """Tiny checkpoints by name, each made once."""
    made: dict[str, Published] = {}

    def get(name: str) -> Published:
        if name not in made:
            made[name] = MAKERS[name](tmp_path_factory.mktemp("published") / name)
        return made[name]

    return get
