"""Weights of a folder or file: what is in them, and how they get into a network.

`open_weights` checks and lists without reading a tensor; `load_into` takes one tensor at a time from the
memory-mapped file to the device.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from sora_weights.errors import MissingFileError, WeightsError
from sora_weights.header import FLOATING, Entry, bad, read_header
from sora_weights.keymap import KeyMap, Step

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

INDEX_ENDING = ".safetensors.index.json"
PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PLAIN_STEMS = ("model", "diffusion_pytorch_model")
SMALL = 2**16  # elements
MAX_INDEX_BYTES = 64 * 2**20
SAFETENSORS_ONLY = "pickles can run code and are never opened: save them as safetensors first"


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """Checked weights: every tensor by key, and the files they lie in."""

    path: Path
    entries: Mapping[str, Entry]
    files: tuple[Path, ...]

    @contextmanager
    def reading(self) -> Iterator[Callable[[str], Tensor]]:
        """A function from key to tensor; tensors are views of the memory-mapped file, read when used.

        Raises WeightsError("bad_weights") when a file no longer is what it was.
        """
        from safetensors import SafetensorError, safe_open

        with ExitStack() as stack:
            try:
                opened = {file: stack.enter_context(safe_open(file, "pt")) for file in self.files}
            except (SafetensorError, OSError) as error:
                raise bad(self.path, f"it changed while it was read ({error})") from error
            yield lambda key: opened[self.entries[key].file].get_tensor(key)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every key and its tensor, one by one, in the order of the files."""
        with self.reading() as read:
            for key in self.entries:
                yield key, read(key)


def open_weights(path: Path | str) -> WeightFiles:
    """The weights of a safetensors file, or of a folder with one such file or an index of several.

    Raises WeightsError("bad_weights") naming the file or key for what is broken, missing or ambiguous.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if path.name.endswith(PICKLE_ENDINGS):
        raise bad(path, "it is a pickle", SAFETENSORS_ONLY)
    if path.name.endswith(INDEX_ENDING):
        return _open_index(path)
    return WeightFiles(path, read_header(path), (path,))


def load_into(
    network: nn.Module,
    files: WeightFiles,
    key_map: KeyMap,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    full: tuple[str, ...] = (),
) -> None:
    """Fill a network built on the meta device, each parameter and persistent buffer exactly once.

    Tensors go to `device` one by one; floating ones in `dtype` (the file's where None), or in float32 where their name
    holds one of `full`. On CPU in the file's own dtype all but small tensors stay views of the memory-mapped file.
    Raises WeightsError("bad_weights") naming the file and the key that is missing, extra or of another shape,
    before any tensor is read; ValueError for a network that has meta buffers which no file could fill.
    """
    steps = match(network, files, key_map)
    sizes = dict(key_map.sizes)
    with files.reading() as read:
        for step in steps:
            tensors = step.rule.apply([read(key) for key in step.sources], sizes)
            for name, tensor in zip(step.targets, tensors, strict=True):
                wanted = _precision(tensor, name, dtype, full)
                copied = tensor.numel() < SMALL  # a view of a bias would keep the whole file mapped
                _assign(network, name, tensor.to(device=device, dtype=wanted, copy=copied).contiguous())


def _precision(tensor: Tensor, name: str, dtype: torch.dtype | None, full: tuple[str, ...]) -> torch.dtype | None:
    """What a tensor is converted to; None leaves it as it is."""
    import torch

    if not tensor.is_floating_point():
        return None
    return torch.float32 if any(part in name for part in full) else dtype


def match(network: nn.Module, files: WeightFiles, key_map: KeyMap) -> tuple[Step, ...]:
    """The steps that fill `network` from `files`, with every name and shape checked and nothing read.

    Raises what `load_into` raises.
    """
    expected = network.state_dict()
    _check_fillable(network, expected)
    try:
        steps = key_map.plan(files.entries)
    except WeightsError as error:
        raise WeightsError(error.code, f"{files.path}: {error.message}", error.hint) from error
    sources: dict[str, Step] = {}
    for step in steps:
        _check_targets(files, step, expected, dict(key_map.sizes))
        for name in step.targets:
            if name in sources:
                raise bad(files.path, f"keys {sources[name].sources[0]} and {step.sources[0]} are the same weight")
            sources[name] = step
    if missing := [name for name in expected if name not in sources]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        problem = f"key {key_map.source_of(missing[0])} is missing{more}"
        raise bad(files.path, problem, "use the model's complete files")
    return steps


def _check_targets(files: WeightFiles, step: Step, expected: Mapping[str, Tensor], sizes: Mapping[str, int]) -> None:
    """Raise unless the network has every target of `step`, in the shape and kind that it would get."""
    from einops import EinopsError

    shown = ", ".join(f"{key[:200]} {files.entries[key].shape}" for key in step.sources)
    file, hint = files.entries[step.sources[0]].file, "use the model's own files"
    for name in step.targets:
        if name not in expected:
            raise bad(file, f"key {shown} is not one that this model has", hint)
    try:
        tensors = step.rule.apply([_blank(files.entries[key]) for key in step.sources], sizes)
    except (EinopsError, ValueError, RuntimeError) as error:
        raise bad(file, f"key {shown} has the wrong shape", hint) from error
    for name, tensor in zip(step.targets, tensors, strict=True):
        wanted = expected[name]
        if tensor.shape != wanted.shape:
            raise bad(file, f"key {shown} has the wrong shape: {name} is {tuple(wanted.shape)}", hint)
        if tensor.is_floating_point() != wanted.is_floating_point():
            raise bad(file, f"key {shown} has the wrong type: {name} is {wanted.dtype}", hint)


def _blank(entry: Entry) -> Tensor:
    """A tensor of the entry's shape, whole numbers or not, that holds nothing."""
    import torch

    dtype = torch.float32 if entry.dtype in FLOATING else torch.int64
    return torch.empty(entry.shape, device="meta", dtype=dtype)


def _check_fillable(network: nn.Module, expected: Mapping[str, Tensor]) -> None:
    held = (*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False))
    for name, tensor in held:
        if tensor.is_meta and name not in expected:
            raise ValueError(f"{name} is a buffer on the meta device that no file holds; compute it outside meta")


def _assign(network: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor in the place of the network's own, by the module that owns it."""
    owner, _, leaf = name.rpartition(".")
    network.get_submodule(owner).load_state_dict({leaf: tensor}, strict=False, assign=True)


def _open_folder(folder: Path) -> WeightFiles:
    """The folder's index, else its only safetensors file; of several, the one that is plainly named."""
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    for ending in (INDEX_ENDING, ".safetensors"):
        found = [name for name in names if name.endswith(ending)]
        plain = [name for name in found if name.removesuffix(ending) in PLAIN_STEMS]
        if len(chosen := plain or found) == 1:
            return open_weights(folder / chosen[0])
        if chosen:
            raise bad(folder, f"it holds {', '.join(chosen[:4])}", "name the one to use")
    pickles = [name for name in names if name.endswith(PICKLE_ENDINGS)]
    if pickles:
        raise bad(folder / pickles[0], "it is a pickle", SAFETENSORS_ONLY)
    raise MissingFileError("bad_weights", f"{folder}: it holds no safetensors file", "name a folder with weights")


def _open_index(path: Path) -> WeightFiles:
    """The files that an index lists; it and the files must name the same keys."""
    weight_map = _weight_map(path)
    listed = {name: _inside(path, name) for name in sorted(set(weight_map.values()))}
    entries: dict[str, Entry] = {}
    for name, file in listed.items():
        for key, entry in read_header(file).items():
            if weight_map.get(key) != name:
                raise bad(file, f"key {key[:200]} is not listed for this file in {path.name}")
            entries[key] = entry
    for key, name in weight_map.items():
        if key not in entries:
            raise bad(listed[name], f"key {key[:200]} is missing, though {path.name} lists it")
    return WeightFiles(path, entries, tuple(listed.values()))


def _weight_map(path: Path) -> dict[str, str]:
    if not path.is_file() or path.stat().st_size > MAX_INDEX_BYTES:
        raise bad(path, "it is no index file of a sensible size")
    try:
        weight_map = json.loads(path.read_bytes())["weight_map"]
    except (OSError, ValueError, RecursionError, TypeError, KeyError) as error:
        raise bad(path, "it is not a JSON index with a weight_map") from error
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise bad(path, "its weight_map does not lead from keys to file names")
    return weight_map


def _inside(index: Path, name: str) -> Path:
    """The file `name` beside an index. Raises WeightsError("bad_weights") if it would lie elsewhere."""
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor
    if absolute or ".." in parts or "\0" in name or not name.endswith(".safetensors"):
        raise bad(index, f"it names the file {name[:200]!r}", "only safetensors files in its folder are read")
    file = index.parent / name
    if not any(file.resolve().is_relative_to(root) for root in _roots(index.parent)):
        raise bad(index, f"it names {name[:200]!r}, a link out of its folder", "put the file itself there")
    return file


def _roots(folder: Path) -> list[Path]:
    """Where a folder's files may really lie: in it or, for a snapshot of the hub's cache, among its blobs."""
    folder = folder.resolve()
    caches = [parent.parent / "blobs" for parent in folder.parents if parent.name == "snapshots"]
    return [folder, *(blobs.resolve() for blobs in caches[:1])]
