"""The published families' denoisers: one step equals the reference's, and full-size key lists fit exactly."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from torch import Tensor

from sora_cli.model.cogvideox import CogVideoXTransformer
from sora_cli.model.wan import WanTransformer
from sora_weights.families import cogvideox, wan
from sora_weights.header import Entry
from sora_weights.keymap import KeyMap
from sora_weights.manifest import Manifest
from sora_weights.reader import WeightFiles, match
from sora_weights.rules.cogvideox import KEYS as COGVIDEOX_KEYS
from sora_weights.rules.wan import KEYS as WAN_KEYS

LIMIT = 1e-5


def relative(ours: Tensor, reference: Tensor) -> float:
    return float((ours - reference).norm() / reference.norm())


def settings(oracle: Any) -> Manifest:
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in oracle.config.items()}
    return Manifest(Path("config.json"), values)


def twin(oracle: Any, network: torch.nn.Module, keys: KeyMap) -> torch.nn.Module:
    network.load_state_dict(keys.apply(oracle.state_dict()))
    return network.eval()


@pytest.mark.parametrize("name", ["wan", "wan-i2v"])
def test_one_step_of_wan(published: Callable[[str], Any], name: str):
    oracle = published(name).pipeline.transformer
    spec = wan.denoiser_spec(settings(oracle))
    ours = twin(oracle, WanTransformer(spec), WAN_KEYS)
    rng = torch.Generator().manual_seed(0)
    x, text = torch.randn(2, spec.channels, 3, 6, 10, generator=rng), torch.randn(2, 512, 32, generator=rng)
    image = None if spec.image_width is None else torch.randn(2, 17, spec.image_width, generator=rng)
    timesteps = torch.tensor([731.0, 9.0])
    with torch.no_grad():
        reference = oracle(x, timesteps, text, image, return_dict=False)[0]
        assert relative(ours(x, timesteps, text, image), reference) < LIMIT


TRAINED, LONGER, TALL, WIDE = (3, 8, 12), (5, 8, 12), (2, 12, 10), (1, 6, 16)


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        *[("cogvideox-2b", grid) for grid in (TRAINED, LONGER, TALL, WIDE)],
        *[("cogvideox-5b", grid) for grid in (TRAINED, LONGER, TALL, WIDE)],
        *[("cogvideox-5b-i2v", grid) for grid in (TRAINED, LONGER)],
    ],
)
def test_one_step_of_cogvideox(published: Callable[[str], Any], name: str, grid: tuple[int, int, int]):
    oracle = published(name).pipeline.transformer
    spec = cogvideox.denoiser_spec(settings(oracle), 4)
    ours = twin(oracle, CogVideoXTransformer(spec), COGVIDEOX_KEYS)
    rng = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, spec.channels, *grid, generator=rng), torch.randn(1, 226, 32, generator=rng)
    timesteps, rotary = torch.tensor([731]), None
    if spec.rotary:
        patches = (grid[1] // 2, grid[2] // 2)
        rotary = get_3d_rotary_pos_embed(16, get_resize_crop_region_for_grid(patches, 6, 4), patches, grid[0])
    with torch.no_grad():
        reference = oracle(x.transpose(1, 2), text, timesteps, image_rotary_emb=rotary, return_dict=False)[0]
        assert relative(ours(x, timesteps, text), reference.transpose(1, 2)) < LIMIT


WAN_1_3B = {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}
WAN_I2V = {"num_layers": 40, "in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}
COGVIDEOX_5B = {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True}
COGVIDEOX_I2V = COGVIDEOX_5B | {"in_channels": 32, "use_learned_positional_embeddings": True}


@pytest.mark.parametrize("config", [WAN_1_3B, WAN_I2V], ids=["T2V 1.3B", "I2V 14B"])
def test_every_key_of_full_size_wan(config: Mapping[str, Any]):
    with torch.device("meta"):
        oracle = WanTransformer3DModel(**config)
        ours = WanTransformer(wan.denoiser_spec(settings(oracle)))
    unused = {f"blocks.{i}.attn2.norm_added_q.weight": (5120,) for i in range(40)} if "image_dim" in config else {}
    match(ours, listed(oracle, unused), WAN_KEYS)


@pytest.mark.parametrize("config", [{}, COGVIDEOX_5B, COGVIDEOX_I2V], ids=["2B", "5B", "5B-I2V"])
def test_every_key_of_full_size_cogvideox(config: Mapping[str, Any]):
    oracle = meta_cogvideox(config)
    with torch.device("meta"):
        ours = CogVideoXTransformer(cogvideox.denoiser_spec(settings(oracle), 4))
    match(ours, listed(oracle, {}), COGVIDEOX_KEYS)


def meta_cogvideox(config: Mapping[str, Any]) -> Any:
    with torch.device("meta"):
        return CogVideoXTransformer3DModel(**config)


def listed(oracle: Any, more: Mapping[str, tuple[int, ...]]) -> WeightFiles:
    """The keys and shapes that the reference would write, as if they had been read from a file."""
    shapes = {key: tuple(value.shape) for key, value in oracle.state_dict().items()} | dict(more)
    file = Path("model.safetensors")
    return WeightFiles(file, {key: Entry(key, "F32", shape, file, 0) for key, shape in shapes.items()}, (file,))
