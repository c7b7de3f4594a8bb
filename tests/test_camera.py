"""The built-in model's camera: it stands still unless words move it, and goes where they say."""

from collections.abc import Callable

import pytest
import torch

from sora_cli.engine.canvas import Level
from sora_cli.engine.courses import plan_camera
from sora_cli.engine.devices import choose_precision
from sora_cli.engine.job import LatentFile
from sora_cli.engine.networks import load_backbone, load_text_encoder
from sora_cli.engine.pipeline import Conditioning, Sampler
from sora_weights.families.diorama import FAMILY
from sora_weights.registry import find_model

FRAMES = 13
Planned = Callable[..., torch.Tensor]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """The camera of a prompt and a seed: how far it looks across and down and sees, (3, t)."""
    model = find_model("diorama")
    precision = choose_precision("float32", "cpu", model)
    backbone, encode = load_backbone(model, "cpu", precision), load_text_encoder(model, "cpu", precision)
    folder = tmp_path_factory.mktemp("cameras")

    def plan(prompt: str, seed: int) -> torch.Tensor:
        features, seen = encode([prompt])
        words = Conditioning((features, seen), (features, seen))
        sampler = Sampler(backbone, words, model.grid, 24.0, FAMILY.flow, torch.Generator())
        camera = LatentFile(folder / f"{abs(hash(prompt))}-{seed}", FRAMES, (4, 1, 1))
        plan_camera(sampler, Level(160, 96), camera, seed)
        return camera.read(0, FRAMES)[0, :3, :, 0, 0]

    return plan


@pytest.mark.parametrize(
    "prompt", ["a cat at sunset", "a dog jumping on the beach", "an owl at night", "a man in a room"]
)
def test_without_a_word_it_stands_still(planned: Planned, prompt: str):
    assert [planned(prompt, seed).abs().max().item() for seed in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("words", "row", "sign"),
    [
        ("the camera pans right", 0, 1),
        ("the camera pans left", 0, -1),
        ("the camera tilts down", 1, 1),
        ("the camera tilts up", 1, -1),
        ("the camera zooms in", 2, -1),
        ("the camera zooms out", 2, 1),
        ("dolly in", 2, -1),
        ("the camera pulls back", 2, 1),
    ],
)
def test_it_goes_where_words_say(planned: Planned, words: str, row: int, sign: int):
    for seed in range(3):
        camera = planned(f"a penguin in the snow, {words}", seed)
        gone = (camera[:, -1] - camera[:, 0]) * sign
        assert gone[row] > 0.04
        assert gone[row] > 2 * (gone * (torch.arange(3) != row)).abs().max()
