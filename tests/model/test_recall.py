"""The memory: found by meaning, copied from, and without any say where nothing was found."""

import zipfile
from functools import cache
from pathlib import Path

import pytest
import torch

from sora_cli.engine.devices import Precision
from sora_cli.engine.networks import load_backbone, load_bert
from sora_cli.model.artwork import RATE, Drawn, Filed, halved, name_of, write_artwork
from sora_cli.model.recall import Memory, Pointer, Recall
from sora_weights.errors import WeightsError
from sora_weights.registry import find_model
from sora_weights.spec import DiTSpec

SPEC = DiTSpec(channels=4, width=32, heads=4, text_width=6, figures=3, sheet=2, artwork=16)


def memory() -> Memory:
    """Three figures, under the first three axes of the text's space."""
    torch.manual_seed(0)
    made = Memory(SPEC)
    made.names[:, 0] = torch.eye(3, 6)
    made.sheets.normal_()
    return made


def test_a_prompt_finds_the_figure_that_one_of_its_words_means():
    text = torch.tensor([[[0.1, 0, 0, 2, 0, 0], [0, 3, 0, 0.2, 0, 0]], [[0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]]])
    figure, found = memory().find(text.float(), torch.ones(2, 2, dtype=torch.bool))
    assert (int(figure[0]), found.tolist()) == (1, [True, False])


def test_words_that_are_not_there_find_nothing():
    text = torch.tensor([[[1.0, 0, 0, 0, 0, 0]]])
    assert memory().find(text, torch.ones(1, 1, dtype=torch.bool))[1].item()
    assert not memory().find(text, torch.zeros(1, 1, dtype=torch.bool))[1].item()


def test_nothing_found_adds_nothing():
    made, x = memory(), torch.randn(1, 5, 32)
    recall = Recall(32, 4)
    torch.nn.init.normal_(recall.out.weight)
    for word, silent in ((0, False), (5, True)):
        sheet = made(torch.eye(6)[word].view(1, 1, 6), torch.ones(1, 1, dtype=torch.bool))
        assert (recall(x, sheet).abs().max().item() == 0) == silent


def test_figures_move_through_their_pictures_and_round_again():
    made = memory()
    shades = torch.tensor([9, 0, 10, 20, 30, 50, 60], dtype=torch.uint8)  # of each figure, one after another
    made.artwork = Drawn([shades.view(7, 1, 1, 1).expand(7, 4, 16, 16)], torch.tensor([0, 1, 5]))
    for figure, pictures, shade in (
        (0, 17, 9),
        (1, 0, 0),
        (1, 1, 10),
        (1, 1.4, 10),  # the nearest one
        (1, 3.6, 0),  # between the last and the first
        (1, 5, 10),
        (1, -1, 30),
        (2, 3, 60),
    ):
        picture = made.picture(torch.tensor([figure]), torch.tensor([pictures / RATE]), 0)
        assert torch.allclose(picture * 255, torch.tensor(float(shade))), (figure, pictures)
    assert made.loop(torch.tensor([1])) == 4 / RATE


@pytest.fixture
def coarse() -> torch.Tensor:
    """Three pictures that compression does little to, (3, 4, 16, 16) uint8."""
    torch.manual_seed(0)
    made = torch.nn.functional.interpolate(torch.rand(3, 4, 4, 4), (16, 16), mode="bilinear")
    made[:, :3] *= made[:, 3:]
    return (made * 255).round().byte()


def test_pictures_in_a_file_are_read_as_they_are_in_memory(tmp_path: Path, coarse):
    path = write_artwork(tmp_path / "figures.zip", coarse, [2, 1], quality=4)
    filed, held = Filed(path, 16), Drawn(halved(coarse), torch.tensor([0, 2]))
    wanted = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
    assert filed.counts(wanted[0]).tolist() == held.counts(wanted[0]).tolist() == [2, 2, 1]
    for level in (0, 2):
        off = filed.pictures(level, *wanted).float() - held.pictures(level, *wanted).float()
        assert off.abs().mean() < 3


def test_the_same_pictures_make_the_same_file(tmp_path: Path, coarse):
    one, other = (write_artwork(tmp_path / name, coarse, [3]).read_bytes() for name in ("a.zip", "b.zip"))
    assert one == other


def test_films_that_are_none_are_refused(tmp_path: Path, coarse):
    path = write_artwork(tmp_path / "figures.zip", coarse, [3])
    with pytest.raises(WeightsError, match=r"no H\.264 film of 32x64"):
        Filed(path, 32).counts(torch.tensor([0]))
    with pytest.raises(WeightsError, match=r"001\.mkv"):
        Filed(path, 16).counts(torch.tensor([1]))
    film = zipfile.ZipFile(path).read(name_of(0))
    for bad in (
        b"no film at all",
        film[: len(film) // 3],
        bytes(16**3),
        film.replace(b"V_MPEG4/ISO/AVC", b"V_NOTHING/AT/ALL"),
    ):
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
            file.writestr(name_of(0), bad)
        with pytest.raises(WeightsError, match=r"000\.mkv"):
            Filed(tmp_path / "bad.zip", 16).pictures(0, torch.tensor([0]), torch.tensor([1]))


def test_each_film_is_read_once_while_figures_take_turns(tmp_path: Path, coarse, monkeypatch):
    filed = Filed(write_artwork(tmp_path / "figures.zip", coarse, [1, 1, 1]), 16)
    read, checked = list[int](), filed._checked
    monkeypatch.setattr(filed, "_checked", lambda figure, how: (read.append(figure), checked(figure, how))[1])
    figures = torch.arange(3)
    for _ in range(4):
        filed.pictures(1, figures, torch.arange(3) * 0 % filed.counts(figures))
    assert sorted(read) == [0, 0, 1, 1, 2, 2]  # to count the pictures, and for these


def test_a_pointer_that_is_sure_looks_where_it_should():
    made, pointer = memory(), Pointer(32, 2)
    sheet = made(torch.eye(6)[2].view(1, 1, 6), torch.ones(1, 1, dtype=torch.bool))
    for asked in (pointer.asking.q, pointer.asking.k):
        torch.nn.init.eye_(asked.weight)
        torch.nn.init.zeros_(asked.bias)
    pointer.asking.q_norm.weight.data.fill_(1000.0)
    looked, _ = pointer(sheet.tokens, sheet)  # each entry of the sheet asks for itself
    assert torch.allclose(looked, torch.eye(looked.shape[-1]).expand_as(looked), atol=1e-4)


@cache
def builtin() -> tuple[Memory, object]:
    model = find_model("diorama")
    network = load_backbone(model, "cpu", Precision(torch.float32, torch.float32, None)).network
    return network.memory, load_bert(model.parts["text"], model.parts["tokenizer"], model.specs.text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a cat at sunset", "two kittens playing"),
        ("a car on a beach", "an automobile on a road"),
        ("a fish underwater", "a goldfish"),
        ("a dog jumping in the snow", "the puppy runs"),
    ],
)
def test_different_words_for_one_thing_find_one_figure(one: str, other: str):
    found, encode = builtin()
    figures, there = found.find(*encode([one, other]))
    assert there.all()
    assert figures[0] == figures[1]


def test_snow_is_no_snowman_and_white_no_swan():
    found, encode = builtin()
    prompts = ["a kitten in the snow", "a kitten at sunset", "a white horse", "a horse", "a snowman", "a swan"]
    figures = found.find(*encode(prompts))[0].tolist()
    assert figures[0] == figures[1]
    assert figures[2] == figures[3]
    assert len(set(figures)) == 4


def test_each_figure_is_found_by_its_own_name_and_a_place_finds_none():
    found, encode = builtin()
    names = ("cat", "dog", "car", "fish", "rocket", "butterfly", "penguin", "turtle", "horse", "duck")
    names += ("tiger", "elephant", "rabbit", "cow", "pig", "sheep", "bird", "whale", "bee", "bus", "train", "boat")
    figures, there = found.find(*encode([f"a {name} at sunset" for name in names]))
    assert there.all()
    assert len(set(figures.tolist())) == len(names)
    assert not found.find(*encode(["a beach", "a mountain", "a house", ""]))[1].any()
