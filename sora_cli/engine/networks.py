"""From a model's files to networks that are ready to run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from sora_cli.engine.vocabulary import read_tokenizer
from sora_cli.model.dit import DiT
from sora_cli.model.text import bert, dequantised, encode
from sora_cli.model.vae.patch import PatchVAE
from sora_weights.errors import WeightsError
from sora_weights.keymap import SAME_KEYS
from sora_weights.reader import load_into, open_weights
from sora_weights.spec import Model, TextSpec

NOT_WHOLE = "get the model again"
N = TypeVar("N", bound=torch.nn.Module)
TextEncoder = Callable[[list[str]], tuple[Tensor, Tensor]]


def load_text_encoder(weights: Path, tokenizer: Path, spec: TextSpec) -> TextEncoder:
    """The text encoder of diorama: prompts -> features (b, tokens, e) and which tokens are real (b, tokens).

    Raises WeightsError("bad_weights") for files that do not fit the spec or each other.
    """
    network, files = bert(spec), open_weights(weights)
    with files.reading() as read:
        tensors = {name: read(name) for name in files.entries}
    try:
        network.load_state_dict(_full(tensors))
    except (RuntimeError, KeyError) as error:
        raise WeightsError("bad_weights", f"{weights}: {str(error).splitlines()[-1].strip()}", NOT_WHOLE) from error
    reader = read_tokenizer(tokenizer)
    if reader.get_vocab_size() != spec.vocabulary:
        wrong = f"{tokenizer}: {reader.get_vocab_size()} entries, not {spec.vocabulary}"
        raise WeightsError("bad_weights", wrong, NOT_WHOLE)
    return lambda prompts: encode(network, reader, prompts, spec.tokens)


def _full(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Float32 weights from int8 matrices NAME with scales NAME.scale, and what else there is."""
    return {
        name: dequantised(value, tensors[f"{name}.scale"]) if value.dtype == torch.int8 else value
        for name, value in tensors.items()
        if not name.endswith(".scale")
    }


def load_denoiser(model: Model, device: str, dtype: torch.dtype) -> DiT:
    """The diffusion transformer with parameters in `dtype`; its statistics stay float32."""
    with torch.device("meta"):
        network = DiT(model.specs.dit)
    load_into(network, open_weights(model.part("dit")), SAME_KEYS, torch.float32, device)
    return _cast(network, dtype)


def load_vae(model: Model, device: str, dtype: torch.dtype) -> PatchVAE:
    """The video autoencoder with parameters in `dtype`; its components stay float32."""
    with torch.device("meta"):
        network = PatchVAE(model.specs.vae)
    load_into(network, open_weights(model.part("vae")), SAME_KEYS, torch.float32, device)
    return _cast(network, dtype)


def _cast(network: N, dtype: torch.dtype) -> N:
    for parameter in network.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(dtype)
    return network.eval()
