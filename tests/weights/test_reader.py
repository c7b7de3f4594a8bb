"""Weights go from checked files into a network, each exactly once, or are refused by name."""

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sora_weights import reader
from sora_weights.errors import WeightsError
from sora_weights.keymap import SAME_KEYS, KeyMap, drop, rename, split
from sora_weights.reader import load_into, match, open_weights


class Network(nn.Module):
    """A linear layer in a layer, a weight of its own, a buffer of numbers and one of counts."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.scale = nn.Parameter(torch.ones(4))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


def on_meta() -> Network:
    with torch.device("meta"):
        return Network()


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    filled = {name: torch.randn(x.shape, generator=draw) for name, x in Network().state_dict().items()}
    return {**filled, "count": torch.tensor(7)}


def saved(path: Path, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights() if tensors is None else tensors, path)
    return path


def index(folder: Path, weight_map: object, name: str = "model.safetensors.index.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


def test_network_on_meta_gets_every_weight(tmp_path: Path) -> None:
    network = on_meta()
    load_into(network, open_weights(saved(tmp_path / "net.safetensors")), SAME_KEYS)
    assert all(torch.equal(tensor, weights()[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_floating_weights_take_the_dtype_asked_for_and_counts_stay_whole(tmp_path: Path, dtype: torch.dtype) -> None:
    network = on_meta()
    load_into(network, open_weights(saved(tmp_path / "net.safetensors")), SAME_KEYS, dtype)
    assert {tensor.dtype for tensor in network.parameters()} == {dtype}
    assert (network.mean.dtype, network.count.dtype) == (dtype, torch.int64)


def test_weights_of_one_dtype_stay_views_of_the_mapped_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "SMALL", 0)
    network = on_meta()
    load_into(network, open_weights(saved(tmp_path / "net.safetensors")), SAME_KEYS)
    places = [tensor.data_ptr() for tensor in network.state_dict().values()]
    assert max(places) - min(places) < (tmp_path / "net.safetensors").stat().st_size


def test_training_a_loaded_network_leaves_its_file_alone(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.safetensors")
    before = path.read_bytes()
    network = on_meta()
    load_into(network, open_weights(path), SAME_KEYS)
    with torch.no_grad():
        network.scale.mul_(2)
    assert path.read_bytes() == before


def test_tensors_come_one_by_one_in_the_order_of_the_file(tmp_path: Path) -> None:
    files = open_weights(saved(tmp_path / "net.safetensors"))
    read = dict(files.tensors())
    assert list(read) == list(files.entries)
    assert all(torch.equal(tensor, weights()[name]) for name, tensor in read.items())


def test_shards_of_an_index_make_one_network(tmp_path: Path) -> None:
    held = weights()
    names = list(held)
    saved(tmp_path / "one.safetensors", {name: held[name] for name in names[:3]})
    saved(tmp_path / "deep" / "two.safetensors", {name: held[name] for name in names[3:]})
    weight_map = {name: "one.safetensors" if name in names[:3] else "deep/two.safetensors" for name in names}
    index(tmp_path, weight_map)
    network = on_meta()
    load_into(network, open_weights(tmp_path), SAME_KEYS)
    assert all(torch.equal(tensor, held[name]) for name, tensor in network.state_dict().items())


def test_fused_file_fills_a_split_network(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = nn.ModuleDict({name: nn.Linear(2, 3, bias=False) for name in "qkv"})
    fused = torch.randn(9, 2)
    rules = (split("qkv", ("q.weight", "k.weight", "v.weight")), drop("step", "of training"))
    files = open_weights(saved(tmp_path / "net.safetensors", {"qkv": fused, "step": torch.ones(1)}))
    load_into(network, files, KeyMap(rules))
    assert torch.equal(torch.cat([network[name].weight for name in "qkv"]), fused)


def without(name: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in weights().items() if key != name}


MISFITS = {
    "missing": (without("inner.0.bias"), "net.safetensors: key inner.0.bias is missing"),
    "several missing": ({"scale": torch.ones(4)}, "key mean is missing and 5 more"),
    "extra": ({**weights(), "surplus": torch.ones(1)}, r"key surplus \(1,\) is not one that this model has"),
    "wrong shape": (
        {**weights(), "scale": torch.ones(5)},
        r"key scale \(5,\) has the wrong shape: scale is \(4,\)",
    ),
    "wrong rank": ({**weights(), "scale": torch.ones(4, 1)}, r"key scale \(4, 1\) has the wrong shape"),
    "counts for weights": ({**weights(), "scale": torch.ones(4, dtype=torch.int8)}, "has the wrong type"),
    "weights for counts": ({**weights(), "count": torch.tensor(0.5)}, "key count .* has the wrong type"),
}


@pytest.mark.parametrize(("tensors", "problem"), MISFITS.values(), ids=MISFITS.keys())
def test_file_that_does_not_fit_is_refused_by_key_before_anything_is_set(
    tmp_path: Path, tensors: dict[str, torch.Tensor], problem: str
) -> None:
    network = on_meta()
    files = open_weights(saved(tmp_path / "net.safetensors", tensors))
    with pytest.raises(WeightsError, match=problem) as refused:
        load_into(network, files, SAME_KEYS)
    assert refused.value.code == "bad_weights"
    assert "net.safetensors" in refused.value.message
    assert all(tensor.is_meta for tensor in network.state_dict().values())


def test_missing_key_is_named_as_the_file_would_spell_it(tmp_path: Path) -> None:
    rules = KeyMap((rename("net.{key...}", "{key...}"),))
    tensors = {f"net.{name}": tensor for name, tensor in without("scale").items()}
    with pytest.raises(WeightsError, match=r"key net\.scale is missing"):
        match(on_meta(), open_weights(saved(tmp_path / "net.safetensors", tensors)), rules)


def test_two_keys_for_one_weight_are_refused(tmp_path: Path) -> None:
    rules = KeyMap((rename("a", "weight"), rename("b", "weight")))
    files = open_weights(saved(tmp_path / "net.safetensors", {"a": torch.ones(4), "b": torch.ones(4)}))
    with torch.device("meta"):
        network = nn.LayerNorm(4, bias=False)
    with pytest.raises(WeightsError, match="keys a and b are the same weight"):
        load_into(network, files, rules)


def test_rows_that_can_not_be_split_are_a_wrong_shape(tmp_path: Path) -> None:
    rules = KeyMap((split("qkv", ("weight", "bias")),))
    files = open_weights(saved(tmp_path / "net.safetensors", {"qkv": torch.ones(7)}))
    with torch.device("meta"):
        network = nn.LayerNorm(4)
    with pytest.raises(WeightsError, match=r"key qkv \(7,\) has the wrong shape"):
        load_into(network, files, rules)


def test_meta_buffer_that_no_file_holds_is_a_mistake_of_the_network(tmp_path: Path) -> None:
    network = on_meta()
    network.register_buffer("table", torch.zeros(3, device="meta"), persistent=False)
    with pytest.raises(ValueError, match="table is a buffer on the meta device"):
        load_into(network, open_weights(saved(tmp_path / "net.safetensors")), SAME_KEYS)


def test_file_that_was_cut_off_after_its_check_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.safetensors")
    files = open_weights(path)
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(WeightsError, match="it changed while it was read"):
        load_into(on_meta(), files, SAME_KEYS)


@pytest.mark.parametrize("name", ["model.bin", "pytorch_model.pt", "sora.ckpt", "a.pth"])
def test_pickle_is_refused_with_the_remedy_and_never_opened(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)  # opening it would wait for ever
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(WeightsError, match="it is a pickle") as refused:
            open_weights(path)
        assert name in refused.value.message
        assert "safetensors" in refused.value.hint


def test_safetensors_beside_a_pickle_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    assert open_weights(saved(tmp_path / "net.safetensors").parent).entries.keys() == weights().keys()


def test_plainly_named_file_is_chosen_among_variants(tmp_path: Path) -> None:
    saved(tmp_path / "diffusion_pytorch_model.fp16.safetensors", {"half": torch.ones(1)})
    plain = saved(tmp_path / "diffusion_pytorch_model.safetensors", {"full": torch.ones(1)})
    assert open_weights(tmp_path).files == (plain,)


@pytest.mark.parametrize("names", [[], ["a.safetensors", "b.safetensors"], ["x.txt"]])
def test_folder_without_one_clear_choice_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        saved(tmp_path / name, {"x": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"holds (no safetensors file|a\.safetensors, b\.safetensors)"):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "sub/../../secret.safetensors",
        "/secret.safetensors",
        "..\\secret.safetensors",
        "C:\\secret.safetensors",
        "C:secret.safetensors",
        "\\\\host\\share.safetensors",
        "link.safetensors",
        "linked/secret.safetensors",
        "model.bin",
        "nul\0.safetensors",
        "",
    ],
)
def test_index_may_not_name_a_file_outside_its_folder(tmp_path: Path, name: str) -> None:
    saved(tmp_path / "secret.safetensors", {"x": torch.ones(1)})
    folder = tmp_path / "model"
    index(folder, {"x": name})
    (folder / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (folder / "linked").symlink_to(tmp_path)
    with pytest.raises(WeightsError, match="it names") as refused:
        open_weights(folder)
    assert "model.safetensors.index.json" in refused.value.message


def test_index_in_a_snapshot_of_the_hub_cache_may_link_to_its_blobs(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123" / "transformer"
    blob = saved(tmp_path / "models--a--b" / "blobs" / "f00d", {"x": torch.ones(1)})
    index(snapshot, {"x": "one.safetensors"})
    (snapshot / "one.safetensors").symlink_to(blob)
    assert open_weights(snapshot).entries.keys() == {"x"}


BROKEN_INDEXES = {
    "not JSON": b"{",
    "a list": b"[]",
    "no map": b'{"metadata": {}}',
    "a map of numbers": b'{"weight_map": {"x": 1}}',
    "a map that is a list": b'{"weight_map": ["x"]}',
    "nested without end": b"[" * 100_000,
    "not UTF-8": b'{"weight_map": {"\xff": "a"}}',
}


@pytest.mark.parametrize("content", BROKEN_INDEXES.values(), ids=BROKEN_INDEXES.keys())
def test_broken_index_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json: its? "):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "problem"),
    [
        ({"x": "one.safetensors", "y": "one.safetensors"}, r"one\.safetensors: key y is missing"),
        ({"x": "absent.safetensors"}, r"absent\.safetensors: there is no such file"),
        (
            {"x": "one.safetensors", "z": "two.safetensors"},
            r"two\.safetensors: key x is not listed for this file",
        ),
    ],
)
def test_index_and_its_files_name_the_same_keys(tmp_path: Path, weight_map: dict[str, str], problem: str) -> None:
    saved(tmp_path / "one.safetensors", {"x": torch.ones(1)})
    saved(tmp_path / "two.safetensors", {"x": torch.ones(1), "z": torch.ones(1)})
    index(tmp_path, weight_map)
    with pytest.raises(WeightsError, match=problem):
        open_weights(tmp_path)


def test_truncated_shard_of_an_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.safetensors").write_bytes(struct.pack("<Q", 999))
    index(tmp_path, {"x": "one.safetensors"})
    with pytest.raises(WeightsError, match=r"one\.safetensors: it is cut off"):
        open_weights(tmp_path)
