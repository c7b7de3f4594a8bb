"""Checkpoints of training: safetensors only, written whole or not at all, so that a kill never loses the last one."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able dictionary beside them, replacing `path` in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, part, {"facts": json.dumps(dict(facts))})
    os.replace(part, path)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote."""
    with safe_open(path, "pt") as data:
        return {key: data.get_tensor(key) for key in list(data.keys())}, json.loads(data.metadata()["facts"])


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors whose names begin with NAME and a dot, without that."""
    return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}


def optimiser_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of an optimiser's `state_dict`, by flat names."""
    return {
        f"optimiser.{index}.{name}": value for index, entry in state["state"].items() for name, value in entry.items()
    }


def restore_optimiser(state: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """A fresh optimiser's `state_dict` with the saved tensors put back."""
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            entries.setdefault(int(index), {})[name] = value
    return {**state, "state": entries}
