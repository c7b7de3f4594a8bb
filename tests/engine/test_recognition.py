"""The built-in model recognises the figures of its memory in given frames, and nothing in anything else."""

import importlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from diorama import evaluate  # noqa: F401 - puts the recipe's own folder on the path
from sora_cli.engine.backbones import DioramaBackbone, Text
from sora_cli.engine.canvas import Level
from sora_cli.engine.devices import choose_precision
from sora_cli.engine.networks import load_backbone, load_vae
from sora_cli.engine.pipeline import encode_texts
from sora_cli.engine.recognition import recognised, scene_of
from sora_weights.registry import find_model

scenes = importlib.import_module("scenes")
MODEL = find_model("diorama")
SIZE = (96, 160)
FIGURES = ("cat", "penguin", "rocket", "fish", "owl")


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> tuple[DioramaBackbone, Text]:
    precision = choose_precision("auto", "cpu", MODEL)
    names = [f"a {name}" for name in MODEL.figures]
    texts = encode_texts(MODEL, names, tmp_path_factory.mktemp("cache"), "cpu", precision)
    backbone = load_backbone(MODEL, "cpu", precision)
    assert isinstance(backbone, DioramaBackbone)
    return backbone, texts


def ground(top: float, bottom: float) -> torch.Tensor:
    """A sky over the ground, (3, H, W) in [0, 1]."""
    rows = torch.linspace(0, 1, SIZE[0])[None, :, None]
    return torch.where(rows < 0.7, top + 0.1 * rows, torch.full_like(rows, bottom)).expand(3, *SIZE)


def seen(eyes: tuple[DioramaBackbone, Text], picture: torch.Tensor) -> str | None:
    backbone, texts = eyes
    vae = load_vae(MODEL, "cpu", choose_precision("auto", "cpu", MODEL))
    latents = vae.encode((picture * 2 - 1)[None, :, None])
    number = recognised(backbone, latents, Level(SIZE[1], SIZE[0]), 24.0, texts)
    return None if number is None else MODEL.figures[number]


def place_figure(eyes: tuple[DioramaBackbone, Text], picture: torch.Tensor, name: str) -> None:
    number = torch.tensor([MODEL.figures.index(name)])
    figure = eyes[0].network.memory.picture(number, torch.zeros(1), 0)
    small = F.interpolate(figure, (64, 64), mode="bilinear", antialias=True)[0]
    part = picture[:, 16:80, 40:104]
    part.copy_(small[:3] + part * (1 - small[3:]))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_of_the_memory_is_recognised(eyes: tuple[DioramaBackbone, Text], name: str):
    picture = ground(0.6, 0.9).clone()
    place_figure(eyes, picture, name)
    assert seen(eyes, picture) == name


@pytest.mark.parametrize("name", ["nothing", "noise", "blob"])
def test_nothing_is_seen_in_what_shows_no_figure(eyes: tuple[DioramaBackbone, Text], name: str):
    noise = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))
    blob = torch.exp(-((torch.arange(160) - 80) ** 2 + (torch.arange(96)[:, None] - 50) ** 2) / 400)
    pictures = {"nothing": ground(0.6, 0.9), "noise": noise, "blob": ground(0.2, 0.3) * (1 - blob) + 0.9 * blob}
    assert seen(eyes, pictures[name]) is None


def test_texts_are_read_from_the_cache_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    precision = choose_precision("auto", "cpu", MODEL)
    first = encode_texts(MODEL, ["a cat", "a dog", ""], tmp_path, "cpu", precision)
    monkeypatch.setattr("sora_cli.engine.pipeline.load_text_encoder", None)
    again = encode_texts(MODEL, ["a cat", "a dog", ""], tmp_path, "cpu", precision)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("scene", ["at sunset", "at night", "in the snow", "underwater", "in a meadow", "in space"])
def test_the_scene_is_seen_behind_a_figure(eyes: tuple[DioramaBackbone, Text], tmp_path: Path, scene: str):
    phrases = [phrases[0] for phrases in MODEL.scenes]
    painter = list(scenes.PAINTERS.values())[phrases.index(scene)]
    rows, columns = ((torch.arange(side) + 0.5 - side / 2) / min(SIZE) for side in SIZE)
    dice = [torch.full((1, 1, 1, 1), share) for share in torch.linspace(0.05, 0.95, 16).tolist()]
    y, x = (axis[None, None] for axis in torch.meshgrid(rows, columns, indexing="ij"))
    picture = painter(x, y, torch.zeros(1, 1, 1, 1), dice, torch.full((1, 1, 1, 1), 1 / min(SIZE)))[0].clamp(0, 1)
    place_figure(eyes, picture, "cat")
    precision = choose_precision("auto", "cpu", MODEL)
    texts = encode_texts(MODEL, [f"a cat {phrase}" for phrase in phrases], tmp_path, "cpu", precision)
    latents = load_vae(MODEL, "cpu", precision).encode((picture * 2 - 1)[None, :, None])
    assert phrases[scene_of(eyes[0], latents, Level(SIZE[1], SIZE[0]), 24.0, texts)] == scene
