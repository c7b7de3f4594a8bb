"""From a model's files to networks that are ready to run."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from sora_cli.model.dit import DiT
from sora_cli.model.text import bert, dequantised, encode
from sora_cli.model.vae.patch import PatchVAE
from sora_weights.keymap import SAME_KEYS
from sora_weights.reader import load_into, open_weights
from sora_weights.spec import Model, TextSpec

N = TypeVar("N", bound=torch.nn.Module)
TextEncoder = Callable[[list[str]], tuple[Tensor, Tensor]]


def load_text_encoder(weights: Path, tokenizer: Path, spec: TextSpec) -> TextEncoder:
    """The text encoder of diorama: prompts -> features (b, tokens, e) and which tokens are real (b, tokens)."""
    from tokenizers import Tokenizer

    network = bert(spec)
    files = open_weights(weights)
    with files.reading() as read:
        tensors = {name: read(name) for name in files.entries}
        network.load_state_dict(
            {
                name: dequantised(value, tensors[f"{name}.scale"]) if f"{name}.scale" in tensors else value
                for name, value in tensors.items()
                if not name.endswith(".scale")
            }
        )
    reader = Tokenizer.from_file(str(tokenizer))
    return lambda prompts: encode(network, reader, prompts, spec.tokens)


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
