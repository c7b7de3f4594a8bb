"""From a model's files to networks that are ready to run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sora_cli.engine.backbones import Backbone, CogVideoXBackbone, DioramaBackbone, Text, WanBackbone
from sora_cli.engine.devices import Precision
from sora_cli.engine.tokens import open_tokenizer
from sora_cli.engine.vocabulary import read_tokenizer
from sora_cli.model import wan
from sora_cli.model.artwork import Filed
from sora_cli.model.clip import clip_vision, encode_picture
from sora_cli.model.cogvideox import CogVideoXTransformer
from sora_cli.model.dit import DiT
from sora_cli.model.retouch import Retouch
from sora_cli.model.t5 import WIDE, encode_t5, t5
from sora_cli.model.text import Bert, dequantised, encode
from sora_cli.model.vae.cogvideox import CogVideoXVAE
from sora_cli.model.vae.patch import PatchVAE
from sora_cli.model.vae.wan import WanVAE
from sora_cli.model.wan import WanTransformer
from sora_weights.errors import WeightsError
from sora_weights.families import FAMILIES
from sora_weights.manifest import read_manifest
from sora_weights.reader import load_into, match, open_weights
from sora_weights.spec import (
    ClipVisionSpec,
    CogVideoXSpec,
    CogVideoXVAESpec,
    DiTSpec,
    Model,
    PatchVAESpec,
    RetouchSpec,
    T5Spec,
    TextSpec,
    WanSpec,
    WanVAESpec,
)

NOT_WHOLE = "get the model again"
Autoencoder = PatchVAE | WanVAE | CogVideoXVAE
TextEncoder = Callable[[list[str]], Text]
PictureEncoder = Callable[..., Tensor]
BUILDERS: Mapping[type, Callable[..., nn.Module]] = {
    DiTSpec: DiT,
    WanSpec: WanTransformer,
    CogVideoXSpec: CogVideoXTransformer,
    PatchVAESpec: PatchVAE,
    RetouchSpec: Retouch,
    WanVAESpec: WanVAE,
    CogVideoXVAESpec: CogVideoXVAE,
    T5Spec: t5,
    ClipVisionSpec: clip_vision,
}


def check_parts(model: Model) -> None:
    """Compare every network's names and shapes with its files, before any tensor is read.

    Raises WeightsError("bad_weights") naming the file and the key.
    """
    for name in ("dit", "vae", "text", "image", "retouch"):
        spec = getattr(model.specs, name)
        if type(spec) in BUILDERS:
            with torch.device("meta"):
                network = BUILDERS[type(spec)](spec)
            match(network, open_weights(model.parts[name]), FAMILIES[model.family].key_rules[name])


def _loaded(model: Model, name: str, device: str, dtype: torch.dtype | None, full: tuple[str, ...] = ()) -> Any:
    """One network of the model on `device`, its parameters in `dtype` or in the files' own precision."""
    spec = getattr(model.specs, name)
    with torch.device("meta"):
        network = BUILDERS[type(spec)](spec)
    rules = FAMILIES[model.family].key_rules[name]
    load_into(network, open_weights(model.parts[name]), rules, dtype, device, full)
    return network.to(device).requires_grad_(False).eval()


def load_text_encoder(model: Model, device: str, precision: Precision) -> TextEncoder:
    """The model's text encoder: prompts -> features (b, tokens, e) and which tokens are real (b, tokens).

    Raises WeightsError("bad_weights") for files that do not fit the spec or each other.
    """
    spec = model.specs.text
    if isinstance(spec, TextSpec):
        return load_bert(model.parts["text"], model.parts["tokenizer"], spec)
    full = WIDE if precision.text == torch.float16 else ()
    network, tokenizer = _loaded(model, "text", device, precision.text, full), open_tokenizer(model.parts["tokenizer"])
    return lambda prompts: encode_t5(network, tokenizer, spec, prompts)


def load_bert(weights: Path, tokenizer: Path, spec: TextSpec, device: str = "cpu") -> TextEncoder:
    """Diorama's text encoder in float32; the tool runs it on the CPU. Raises WeightsError("bad_weights")."""
    files = open_weights(weights)
    with torch.device("meta"):
        network = Bert(spec).eval()
    with files.reading() as read:
        tensors = {name: read(name) for name in files.entries}
    try:
        network.load_state_dict(_full(tensors), assign=True)
    except (RuntimeError, KeyError) as error:
        raise WeightsError("bad_weights", f"{weights}: {str(error).splitlines()[-1].strip()}", NOT_WHOLE) from error
    reader = read_tokenizer(tokenizer)
    if reader.get_vocab_size() != spec.vocabulary:
        wrong = f"{tokenizer}: {reader.get_vocab_size()} entries, not {spec.vocabulary}"
        raise WeightsError("bad_weights", wrong, NOT_WHOLE)
    nn.Module.to(network, device)
    return lambda prompts: encode(network, reader, prompts, spec.tokens)


def _full(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Float32 weights from int8 matrices NAME with scales NAME.scale, and what else there is."""
    return {
        name: dequantised(value, tensors[f"{name}.scale"]) if value.dtype == torch.int8 else value
        for name, value in tensors.items()
        if not name.endswith(".scale")
    }


def load_backbone(model: Model, device: str, precision: Precision) -> Backbone:
    """The denoiser, ready to be bound to words and a place."""
    match model.specs.dit:
        case DiTSpec():
            network = _narrowed(_loaded(model, "dit", device, torch.float32), precision.denoiser, "course.")
            network.memory.artwork = Filed(model.parts["figures"], model.specs.dit.artwork)
            return DioramaBackbone(network, model.grid)
        case WanSpec():
            return WanBackbone(_loaded(model, "dit", device, precision.denoiser, wan.FULL_PRECISION))
        case CogVideoXSpec():
            return CogVideoXBackbone(_loaded(model, "dit", device, precision.denoiser))


def load_vae(model: Model, device: str, precision: Precision) -> Autoencoder:
    """The video autoencoder."""
    if isinstance(model.specs.vae, PatchVAESpec):
        return _narrowed(_loaded(model, "vae", device, torch.float32), precision.autoencoder)
    return _loaded(model, "vae", device, precision.autoencoder)


def load_retouch(model: Model, device: str, precision: Precision) -> tuple[Retouch, Filed]:
    """What draws diorama's figures sharp in decoded frames, and the pictures of all figures."""
    assert isinstance(model.specs.dit, DiTSpec)
    network = _narrowed(_loaded(model, "retouch", device, torch.float32), precision.autoencoder)
    return network, Filed(model.parts["figures"], model.specs.dit.artwork)


def load_picture_encoder(model: Model, device: str, precision: Precision) -> PictureEncoder:
    """The encoder of pictures that the denoiser attends to: PIL image -> features (1, n, i)."""
    network = _loaded(model, "image", device, precision.text)
    settings = read_manifest(model.parts["image_settings"]).values
    return lambda picture: encode_picture(network, picture, settings)


def _narrowed(network: Any, dtype: torch.dtype, exact: str | None = None) -> Any:
    """Parameters in `dtype`; buffers, which hold statistics, stay as they are, and so do those of an `exact` part."""
    for name, parameter in network.named_parameters():
        if exact is None or not name.startswith(exact):
            parameter.data = parameter.data.to(dtype)
    return network
