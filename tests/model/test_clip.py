"""CLIP image features are those of the reference pipeline, from files as they are released."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from sora_cli.model.clip import clip_vision, encode_picture, pixels
from sora_weights.errors import WeightsError
from sora_weights.header import Entry
from sora_weights.reader import WeightFiles, load_into, match, open_weights
from sora_weights.rules.clip import KEYS, clip_spec

SIDE = 42
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
TINY = {**SIZES, "image_size": SIDE, "patch_size": 14, "hidden_act": "gelu"}
HUGE = {
    "model_type": "clip_vision_model",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "num_channels": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-05,
    "projection_dim": 1024,
}
SETTINGS = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}


def oracle(**changes: Any) -> nn.Module:
    """A tiny random encoder of transformers, every parameter awake."""
    torch.manual_seed(0)
    network = CLIPVisionModel(CLIPVisionConfig(**{**TINY, **changes})).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def saved(path: Path, network: nn.Module) -> tuple[Path, dict[str, Any]]:
    network.save_pretrained(path)
    return path, json.loads((path / "config.json").read_text())


def as_released(path: Path) -> None:
    """Rewrite a file with the keys that transformers 4 wrote."""
    tensors = {f"vision_model.{name}": x for name, x in load_file(path / "model.safetensors").items()}
    tensors["vision_model.embeddings.position_ids"] = torch.arange((SIDE // 14) ** 2 + 1)[None]
    save_file(tensors, path / "model.safetensors")


def loaded(path: Path, config: dict[str, Any]) -> nn.Module:
    with torch.device("meta"):
        network = clip_vision(clip_spec(config))
    load_into(network, open_weights(path), KEYS)
    return network


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(noise if bands > 1 else noise[..., 0]).convert(mode)


@pytest.mark.parametrize("released", [True, False], ids=["as released", "as transformers 5 saves"])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_features_are_those_of_wan_image_to_video(tmp_path: Path, released: bool, activation: str) -> None:
    reference = oracle(hidden_act=activation)
    path, config = saved(tmp_path, reference)
    if released:
        as_released(path)
    processor = CLIPImageProcessor(**SETTINGS)
    pipe = SimpleNamespace(image_processor=processor, image_encoder=reference, _execution_device=torch.device("cpu"))
    network = loaded(path, config)
    for size in ((64, 48), (31, 90), (SIDE, SIDE)):
        with torch.no_grad():
            theirs = WanImageToVideoPipeline.encode_image(pipe, picture(*size))
        ours = encode_picture(network, picture(*size), json.loads(processor.to_json_string()))
        assert ours.shape == theirs.shape == (1, 10, 32)
        assert (ours - theirs).norm() / theirs.norm() <= 1e-5


CHANGES: list[dict[str, Any]] = [
    {},
    {"resample": 2},
    {"resample": 0},
    {"crop_size": {"height": 31, "width": 20}},
    {"crop_size": {"height": 61, "width": 50}},
    {"crop_size": 24, "size": 30},
    {"size": {"height": 50, "width": 60}},
    {"do_resize": False},
    {"do_center_crop": False},
    {"do_rescale": False},
    {"do_normalize": False},
    {"rescale_factor": 0.01, "image_mean": [0.5, 0.4, 0.3], "image_std": [1, 2, 0.25]},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("size", [(64, 48), (47, 91), (20, 13)])
def test_pixels_are_those_of_the_image_processor_to_the_last_bit(change: dict[str, Any], size: tuple[int, int]) -> None:
    processor = CLIPImageProcessor(**{**SETTINGS, **change})
    theirs = processor(images=picture(*size), return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels(picture(*size), json.loads(processor.to_json_string())), theirs.float())


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "1", "P", "CMYK"])
def test_pictures_of_every_mode_become_the_same_pixels(mode: str) -> None:
    image = picture(64, 48, "RGBA" if mode == "LA" else "RGB").convert(mode)
    theirs = CLIPImageProcessor(**SETTINGS)(images=image, return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels(image, SETTINGS), theirs)


def test_released_settings_may_leave_out_what_is_usual() -> None:
    assert pixels(picture(300, 250), {}).shape == (1, 3, 224, 224)


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
def test_full_size_keys_match_exactly(prefix: str) -> None:
    with torch.device("meta"):
        released = CLIPVisionModel(CLIPVisionConfig(**HUGE)).state_dict()
        network = clip_vision(clip_spec(HUGE))
    path = Path("model.safetensors")
    entries = {
        key: Entry(key, "F32", tuple(tensor.shape), path, 0)
        for key, tensor in ((f"{prefix}{name}", tensor) for name, tensor in released.items())
    }
    steps = match(network, WeightFiles(path, entries, (path,)), KEYS)
    assert len(steps) == len(entries) == 519
    assert network.embeddings.position_ids.tolist() == [list(range(257))]


def test_moving_the_network_moves_its_positions(tmp_path: Path) -> None:
    path, config = saved(tmp_path, oracle())
    network = loaded(path, config).to(device="cpu", dtype=torch.bfloat16)
    assert network.embeddings.position_ids.dtype == torch.int64
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    assert encode_picture(network, picture(50, 50), SETTINGS).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "tensor", "problem"),
    [
        ("vision_model.post_layernorm.bias", None, r"key vision_model\.post_layernorm\.bias is missing"),
        ("vision_model.surplus", torch.ones(1), r"key vision_model\.surplus is not one"),
        ("visual_projection.weight", torch.ones(4, 4), r"key visual_projection\.weight is not one"),
        ("vision_model.embeddings.class_embedding", torch.ones(33), r"class_embedding \(33,\) has the wrong shape"),
    ],
)
def test_file_that_does_not_fit_is_refused_by_key(
    tmp_path: Path, name: str, tensor: torch.Tensor | None, problem: str
) -> None:
    path, config = saved(tmp_path, oracle())
    as_released(path)
    tensors = load_file(path / "model.safetensors") | {name: tensor}
    save_file({key: x for key, x in tensors.items() if x is not None}, path / "model.safetensors")
    with pytest.raises(WeightsError, match=problem):
        loaded(path, config)


WRONG = {
    "model_type": ("clip", 3),
    "hidden_size": ("x", 0, 2**40, True, 1281),
    "intermediate_size": (0, None),
    "num_hidden_layers": (0, 10**6),
    "num_attention_heads": (0, 7),
    "num_channels": (1, "3"),
    "image_size": ([224, 224], 10**9),
    "patch_size": (0, 225),
    "hidden_act": ("os.system", 7),
    "layer_norm_eps": (0, float("nan"), "x"),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_value_that_can_not_be_is_named(key: str, value: object) -> None:
    named = "num_attention_heads" if value == 1281 else key
    with pytest.raises(WeightsError, match=rf"image_encoder/config\.json: {named} is ") as refused:
        clip_spec({**HUGE, key: value})
    assert refused.value.code == "bad_weights"


WRONG_SETTINGS: dict[str, tuple[object, ...]] = {
    "size": ("x", {"shortest_edge": 0}, {"shortest_edge": 10**9}, {"longest_edge": 3}, [224], None),
    "crop_size": ({"height": 5}, {"height": "x", "width": 4}, {"shortest_edge": 224}),
    "resample": (9, "bicubic", -1),
    "do_resize": (1, "yes"),
    "rescale_factor": (0, "x"),
    "image_mean": (0.5, [1, 2], ["a", "b", "c"], [float("nan")] * 3),
    "image_std": ([0, 1, 1], [-1.0, 1, 1]),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG_SETTINGS.items() for value in values])
def test_setting_that_can_not_be_is_named(key: str, value: object) -> None:
    with pytest.raises(WeightsError, match=rf"image_processor/preprocessor_config\.json: {key}"):
        pixels(picture(50, 50), {**SETTINGS, key: value})


def test_settings_of_another_network_are_refused(tmp_path: Path) -> None:
    path, config = saved(tmp_path, oracle())
    with pytest.raises(WeightsError, match="it makes 224x224 pictures, not 42x42"):
        encode_picture(loaded(path, config), picture(50, 50), {})
