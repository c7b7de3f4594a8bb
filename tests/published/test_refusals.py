"""Published checkpoints that can't be used: exit 2 and one line that names the file or key, before any work."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

DIT = "transformer/diffusion_pytorch_model.safetensors"


def change(path: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def truncate(model: Path) -> None:
    (model / DIT).write_bytes((model / DIT).read_bytes()[:-100])


def wrong_shape(model: Path) -> None:
    change(model / DIT, lambda t: t.update({"proj_out.bias": torch.zeros(3)}))


def missing_key(model: Path) -> None:
    change(model / DIT, lambda t: t.pop("blocks.1.attn1.to_k.weight"))


def extra_key(model: Path) -> None:
    change(model / DIT, lambda t: t.update({"blocks.0.lora.weight": torch.zeros(3)}))


def unknown_family(model: Path) -> None:
    edit_json(model / "model_index.json", _class_name="FuturePipeline")


def outside(model: Path) -> None:
    shutil.copy(model / DIT, model / "stolen.safetensors")
    keys = load_file(model / DIT)
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, "../stolen.safetensors")}
    (model / DIT).unlink()
    (model / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def pickles(model: Path) -> None:
    (model / DIT).rename(model / "transformer" / "diffusion_pytorch_model.bin")


def broken_vae(model: Path) -> None:
    change(model / "vae/diffusion_pytorch_model.safetensors", lambda t: t.pop("decoder.conv_in.bias"))


def broken_text(model: Path) -> None:
    change(model / "text_encoder/model.safetensors", lambda t: t.pop("encoder.final_layer_norm.weight"))


def no_tokenizer(model: Path) -> None:
    shutil.rmtree(model / "tokenizer")


def wan_2_2(model: Path) -> None:
    edit_json(model / "model_index.json", boundary_ratio=0.9)


def hostile_config(model: Path) -> None:
    edit_json(model / "transformer/config.json", num_layers=10**9)


def unknown_scheduler(model: Path) -> None:
    edit_json(model / "scheduler/scheduler_config.json", _class_name="DreamScheduler")


def edit_json(path: Path, **changed: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (truncate, "diffusion_pytorch_model.safetensors"),
        (wrong_shape, "proj_out.bias"),
        (missing_key, "blocks.1.attn1.to_k.weight"),
        (extra_key, "blocks.0.lora.weight"),
        (unknown_family, "FuturePipeline"),
        (outside, "stolen.safetensors"),
        (pickles, "diffusion_pytorch_model.bin"),
        (broken_vae, "decoder.conv_in.bias"),
        (broken_text, "encoder.final_layer_norm.weight"),
        (no_tokenizer, "tokenizer"),
        (wan_2_2, "boundary_ratio"),
        (hostile_config, "num_layers"),
        (unknown_scheduler, "DreamScheduler"),
    ],
)
def test_a_spoilt_folder_is_refused_in_one_line(
    published: Callable[[str], Any],
    sora: Callable[..., Any],
    folder: Path,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    named: str,
):
    model = tmp_path / "model"
    shutil.copytree(published("wan").folder, model)
    spoil(model)
    run = sora("generate", "a cat", "--model", model, "--size", "48x32", "--frames", 1, "--steps", 1, "-o", "a.png")
    assert run.code == 2
    (line,) = [line for line in run.err.splitlines() if line.startswith("error")]
    assert named in line
    assert not list(folder.iterdir())


def test_a_model_of_pictures_wants_a_picture(published: Callable[[str], Any], sora: Callable[..., Any]):
    run = sora("generate", "a cat", "--model", published("wan-i2v").folder)
    assert (run.code, "img2vid" in run.err) == (2, True)


def test_learned_positions_have_one_size(published: Callable[[str], Any], sora: Callable[..., Any], folder: Path):
    from PIL import Image

    Image.new("RGB", (64, 64)).save(folder / "a.png")
    run = sora("img2vid", "a.png", "--model", published("cogvideox-5b-i2v").folder)
    assert run.code == 2
    assert "96x64" in run.err


def test_one_picture_is_all_that_some_models_take(
    published: Callable[[str], Any], sora: Callable[..., Any], folder: Path
):
    from PIL import Image

    Image.new("RGB", (96, 64)).save(folder / "a.png")
    run = sora("img2vid", "a.png", "--last", "a.png", "--model", published("wan-i2v").folder)
    assert run.code == 2
    assert "--last" in run.err


def test_a_prompt_that_is_too_long_is_cut_with_a_note(
    published: Callable[[str], Any], sora: Callable[..., Any], folder: Path
):
    options = ("--size", "48x32", "--frames", 1, "--steps", 1, "-o", "a.png", "--json")
    run = sora("generate", "x" * 600, "--model", published("cogvideox-2b").folder, *options)
    assert run.code == 0
    assert any("226 tokens" in note for note in run.json["notes"])
