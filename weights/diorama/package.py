"""Packs trained weights as the model that the tool ships: half precision, checksums, words that were taught."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from torch import Tensor
from vocabulary import SCENES, SUBJECTS, words

from sora_weights.reader import open_weights
from sora_weights.registry import find_model

NETWORKS = ("dit", "vae", "retouch")
LARGEST_FILE = 15_000_000  # bytes
EXACT = ("mean", "basis", "scale", "spread", "patches", "plain", "tints", "tone")  # statistics stay in float32
LICENCE = "Apache-2.0; artwork of its training: Microsoft Fluent emoji, MIT; text encoder: MiniLM, Apache-2.0"
ABOUT = "the small built-in model: toy figures in drawn scenes, trained by this project (weights/README.md)"


def write_model(folder: Path, networks: Mapping[str, Mapping[str, Tensor]], figures: Path) -> None:
    """Write the networks, by the `NETWORKS` that they are, in files of at most `LARGEST_FILE`, a copy of the `figures`
    and diorama.json beside the text encoder that is there already.
    """
    shutil.copyfile(figures, folder / "figures.zip")
    for name, tensors in networks.items():
        packed = {k: _packed(k, v) for k, v in tensors.items()}
        pattern = f"{name}{{suffix}}.safetensors"
        save_torch_state_dict(packed, folder, filename_pattern=pattern, max_shard_size=LARGEST_FILE)
    entries = len(load_file(folder / "text.safetensors")["embeddings.word_embeddings.weight"])
    written = [file for name in networks for file in folder.glob(f"{name}*.safetensors*")]
    for file in written:
        file.chmod(0o644)
    files = sorted(["figures.zip", "text.safetensors", "tokenizer.json", *(file.name for file in written)])
    description = {
        "name": "diorama",
        "about": ABOUT,
        "licence": LICENCE,
        "vocabulary": sorted(words()),
        "figures": list(SUBJECTS),
        "scenes": [list(dict.fromkeys(scene.phrases)) for scene in SCENES.values()],
        "defaults": {
            "width": 320,
            "height": 180,
            "fps": "24",
            "seconds": 2.0,
            "steps": 6,
            "guidance": 1.0,
            "min_side": 16,
        },
        "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files},
        **{name: {} for name in networks},
        "text": {"vocabulary": entries},
    }
    (folder / "diorama.json").write_text(json.dumps(description, indent=1) + "\n")


def read_model(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The weights of the networks as `write_model` got them."""
    parts = find_model(str(folder)).parts
    return {name: dict(open_weights(parts[name]).tensors()) for name in NETWORKS if name in parts}


def _packed(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value.contiguous()
    return (value.float() if name.rpartition(".")[2] in EXACT else value.half()).contiguous()
