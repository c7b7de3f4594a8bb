"""What all models in the layout of diffusers' save_pretrained have in common: a folder for each network."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sora_weights import manifest
from sora_weights.errors import WeightsError
from sora_weights.manifest import Manifest, read_manifest
from sora_weights.reader import open_weights

INDEX = "model_index.json"
FOLDERS: Mapping[str, str] = {
    "dit": "transformer",
    "vae": "vae",
    "text": "text_encoder",
    "tokenizer": "tokenizer",
    "image": "image_encoder",
}
SCHEDULER = "scheduler/scheduler_config.json"
PICTURE_SETTINGS = "image_processor/preprocessor_config.json"
WEIGHTED = ("dit", "vae", "text", "image")


def pipeline_of(folder: Path) -> str:
    """The name of the reference's pipeline in a folder's index, or "" where there is none to read."""
    path = folder / INDEX
    if not os.path.isfile(path):
        return ""
    try:
        return read_manifest(path).take("_class_name", manifest.text)
    except WeightsError:
        return ""


def parts_of(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """The folders of a model's parts. Raises WeightsError("bad_weights") for one that is missing."""
    parts = {name: folder / FOLDERS[name] for name in names}
    for path in parts.values():
        if not path.is_dir():
            raise WeightsError("bad_weights", f"{path}: it is missing", "use the model's complete folder")
    return parts


def files_of(folder: Path, parts: Mapping[str, Path]) -> tuple[Path, ...]:
    """Every file that the picture follows from: weights that are checked to be safetensors, settings, tokenizers."""
    settings = (folder / SCHEDULER, folder / PICTURE_SETTINGS)
    found = [path for path in settings if path.is_file()]
    for name, path in parts.items():
        weights = set(open_weights(path).files) if name in WEIGHTED else set()
        small = (file for file in sorted(path.iterdir()) if file.is_file() and file.suffix in (".json", ".model"))
        found += [*sorted(weights), *small]
    return tuple(found)


def config_of(part: Path, name: str = "config.json") -> Manifest:
    """The settings of one part. Raises WeightsError("bad_weights")."""
    return read_manifest(part / name)


def scheduler_of(folder: Path) -> Mapping[str, Any]:
    """scheduler_config.json as it is; what it asks for is checked where it is read."""
    return read_manifest(folder / SCHEDULER).values


def unsupported(described: Manifest, field: str, value: object, remedy: str) -> WeightsError:
    """The error for a variant of a known family that sora can't run."""
    return WeightsError("bad_weights", f"{described.path}: {field} {value!r} is not supported", remedy)


def licence_of(folder: Path) -> str:
    """What is known of the licence of a folder that came from elsewhere."""
    return f"see {folder / 'README.md'}" if (folder / "README.md").is_file() else "see where it was published"
