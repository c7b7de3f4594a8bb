"""Packs trained weights as the model that the tool ships: half precision, checksums, words that were taught."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor
from vocabulary import SUBJECTS, words

EXACT = ("mean", "basis", "scale", "spread", "patches", "plain", "tints", "tone")  # statistics stay in float32
LICENCE = "Apache-2.0; artwork of its training: Microsoft Fluent emoji, MIT; text encoder: MiniLM, Apache-2.0"
ABOUT = "the small built-in model: toy figures in drawn scenes, trained by this project (weights/README.md)"


def write_model(folder: Path, dit: Mapping[str, Tensor], vae: Mapping[str, Tensor], figures: Path) -> None:
    """Write dit.safetensors, vae.safetensors, a copy of the `figures` and diorama.json beside the text encoder that is
    there already.
    """
    shutil.copyfile(figures, folder / "figures.zip")
    for name, tensors in (("dit", dit), ("vae", vae)):
        save_file({k: _packed(k, v) for k, v in tensors.items()}, folder / f"{name}.safetensors")
        (folder / f"{name}.safetensors").chmod(0o644)
    entries = len(load_file(folder / "text.safetensors")["embeddings.word_embeddings.weight"])
    files = ("dit.safetensors", "figures.zip", "text.safetensors", "tokenizer.json", "vae.safetensors")
    description = {
        "name": "diorama",
        "about": ABOUT,
        "licence": LICENCE,
        "vocabulary": sorted(words()),
        "figures": list(SUBJECTS),
        "defaults": {
            "width": 320,
            "height": 180,
            "fps": "24",
            "seconds": 2.0,
            "steps": 12,
            "guidance": 1.0,
            "min_side": 16,
        },
        "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files},
        "dit": {},
        "vae": {},
        "text": {"vocabulary": entries},
    }
    (folder / "diorama.json").write_text(json.dumps(description, indent=1) + "\n")


def read_model(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of the denoiser and of the autoencoder as `write_model` got them."""
    return load_file(folder / "dit.safetensors"), load_file(folder / "vae.safetensors")


def _packed(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value.contiguous()
    return (value.float() if name.rpartition(".")[2] in EXACT else value.half()).contiguous()
