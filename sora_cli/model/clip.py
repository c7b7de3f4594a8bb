"""The CLIP image encoder: a picture becomes a sequence of patch features. The network is transformers' own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from sora_weights.errors import WeightsError
from sora_weights.rules.values import REMEDY, Values
from sora_weights.spec import ClipVisionSpec

if TYPE_CHECKING:
    from transformers import CLIPVisionModel

SETTINGS = "image_processor/preprocessor_config.json"
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
LONGEST_SIDE = 8192


def clip_vision(spec: ClipVisionSpec) -> "CLIPVisionModel":
    """An uninitialised CLIPVisionModel of the sizes in `spec`, on the current default device.

    Its table of positions, which no file holds, is on the CPU at least: `network.to(device, dtype)` moves it along.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=spec.width,
        intermediate_size=spec.inner,
        num_hidden_layers=spec.depth,
        num_attention_heads=spec.heads,
        image_size=spec.picture,
        patch_size=spec.patch,
        hidden_act=spec.activation,
        layer_norm_eps=spec.eps,
    )
    network = CLIPVisionModel(config)
    embeddings = network.embeddings
    if embeddings.position_ids.is_meta:
        table = torch.arange(embeddings.num_positions, device="cpu")[None]
        embeddings.register_buffer("position_ids", table, persistent=False)
    return network.eval().requires_grad_(False)


@torch.no_grad()
def encode_picture(network: "CLIPVisionModel", picture: Image.Image, settings: Mapping[str, Any]) -> Tensor:
    """Features of a picture's patches, before the last layer: (1, tokens, d), the first of the whole picture.

    `settings` are the checkpoint's parsed preprocessor_config.json.
    Raises WeightsError("bad_weights") for settings that can't be, or that are not this network's.
    """
    values = pixels(picture, settings)
    side = network.embeddings.image_size
    if values.shape[-2:] != (side, side):
        height, width = values.shape[-2:]
        raise WeightsError("bad_weights", f"{SETTINGS}: it makes {width}x{height} pictures, not {side}x{side}", REMEDY)
    values = values.to(next(network.parameters()).device)
    return network(pixel_values=values, output_hidden_states=True).hidden_states[-2]


def pixels(picture: Image.Image, settings: Mapping[str, Any]) -> Tensor:  # -> (1, 3, H, W) float32
    """A picture as the encoder sees it: as transformers' CLIPImageProcessor makes it with Pillow, to the last bit.

    Raises WeightsError("bad_weights") naming the setting that can't be.
    """
    read = Values(SETTINGS, settings)
    image = opaque(picture)
    if read.flag("do_resize", True):
        image = image.resize(_resized(image, _sides(read, "size")), _filter(read))
    if read.flag("do_center_crop", True):
        image = _centre(image, _sides(read, "crop_size"))
    values = np.asarray(image).astype(np.float64)
    if read.flag("do_rescale", True):
        values = values * read.share("rescale_factor", default=1 / 255)
    values = values.astype(np.float32)
    if read.flag("do_normalize", True):
        values = (values - _channels(read, "image_mean", MEAN)) / _channels(read, "image_std", STD)
    return rearrange(torch.from_numpy(values), "h w c -> 1 c h w").contiguous()


def opaque(picture: Image.Image) -> Image.Image:
    """A picture as RGB, over white where it is transparent."""
    if "A" not in picture.getbands() and picture.info.get("transparency") is None:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


@dataclass(frozen=True, slots=True)
class _Sides:
    """Width and height in pixels, or the shorter of them alone."""

    shorter: int | None
    width: int
    height: int


def _sides(read: Values, key: str) -> _Sides:
    """{"shortest_edge": n}, {"height": h, "width": w}, or a number that stands for the usual one of these."""
    value = read.values.get(key, 224)
    if type(value) is int:
        value = {"shortest_edge": value} if key == "size" else {"height": value, "width": value}
    if not isinstance(value, Mapping):
        raise read.bad(key)
    inner = Values(f"{read.name}: {key}", value)
    if "shortest_edge" in value and key == "size":
        return _Sides(inner.count("shortest_edge", 1, LONGEST_SIDE), 0, 0)
    return _Sides(None, inner.count("width", 1, LONGEST_SIDE), inner.count("height", 1, LONGEST_SIDE))


def _resized(image: Image.Image, sides: _Sides) -> tuple[int, int]:
    """Width and height to resize to; the longer side is cut off to whole pixels."""
    if sides.shorter is None:
        return sides.width, sides.height
    if image.width <= image.height:
        return sides.shorter, int(sides.shorter * image.height / image.width)
    return int(sides.shorter * image.width / image.height), sides.shorter


def _centre(image: Image.Image, sides: _Sides) -> Image.Image:
    """The middle of a picture; black where it is too small."""
    left, top = (image.width - sides.width) // 2, (image.height - sides.height) // 2
    return image.crop((left, top, left + sides.width, top + sides.height))


def _filter(read: Values) -> Image.Resampling:
    return Image.Resampling(read.count("resample", 0, max(Image.Resampling), default=int(Image.Resampling.BICUBIC)))


def _channels(read: Values, key: str, default: tuple[float, ...]) -> np.ndarray:  # -> (3,) float32
    """A number for each colour."""
    value = read.values.get(key, default)
    numbers = list(value) if isinstance(value, (list, tuple)) else []
    if len(numbers) != 3 or not all(type(number) in (int, float) and abs(number) < 1e3 for number in numbers):
        raise read.bad(key)
    if key == "image_std" and min(numbers) <= 1e-6:
        raise read.bad(key)
    return np.array(numbers, dtype=np.float32)
