"""What the built-in model takes for the name of a figure: each of its own, and none of the words for all else."""

import sys
from pathlib import Path

import pytest
import torch

from sora_cli.engine.backbones import DioramaBackbone
from sora_cli.engine.devices import choose_precision
from sora_cli.engine.filming import split_camera
from sora_cli.engine.networks import load_backbone, load_text_encoder
from sora_cli.engine.vocabulary import LITTLE_WORDS
from sora_weights.registry import find_model

sys.path.insert(0, str(Path(__file__).parents[2] / "weights" / "diorama"))
import vocabulary

FIGURES = list(vocabulary.SUBJECTS)


@pytest.fixture(scope="module")
def named():
    """The figure that a text names, or None."""
    model = find_model("diorama")
    precision = choose_precision("float32", "cpu", model)
    backbone, encode = load_backbone(model, "cpu", precision), load_text_encoder(model, "cpu", precision)
    assert isinstance(backbone, DioramaBackbone)

    def name(texts: list[str]) -> list[str | None]:
        features, seen = encode(texts)
        numbers = [backbone.named((features[k : k + 1], seen[k : k + 1])) for k in range(len(texts))]
        return [None if number is None else FIGURES[number] for number in numbers]

    return name


@pytest.mark.parametrize(
    "sentence",
    ["a {} at sunset", "two {}s in a city", "the {} in a room, ink", "one {} jumping in the mountains", "{}"],
)
def test_every_figure_is_found_by_each_of_its_names(named, sentence: str):
    words = [(figure, word) for figure, subject in vocabulary.SUBJECTS.items() for word in dict.fromkeys(subject.words)]
    if "{}s" in sentence:
        words = [(figure, subject.words[0]) for figure, subject in vocabulary.SUBJECTS.items()]
    found = named([sentence.format(word) for _, word in words])
    assert [(figure, word, who) for (figure, word), who in zip(words, found, strict=True) if who != figure] == []


def test_no_word_for_anything_else_names_a_figure(named):
    """But for verbs, which no search for several figures takes for nouns: "running" alone may be a runner's."""
    scenes, others = (
        [phrase for tag in tags for phrase in tag.phrases if phrase]
        for tags in (vocabulary.SCENES.values(), (*vocabulary.MOTIONS.values(), *vocabulary.CAMERAS.values()))
    )
    assert {phrase: who for phrase, who in zip(scenes, named(scenes), strict=True) if who} == {}
    words = sorted({word for phrase in others for word in phrase.split() if not word.endswith("ing")} - LITTLE_WORDS)
    assert {word: who for word, who in zip(words, named(words), strict=True) if who} == {}


def test_what_a_figure_does_names_no_other(named):
    tags = (*vocabulary.MOTIONS.values(), *vocabulary.CAMERAS.values())
    phrases = [phrase for tag in tags for phrase in tag.phrases if phrase]
    assert set(named([f"a penguin {phrase}" for phrase in phrases])) == {"penguin"}


@pytest.mark.parametrize("thing", ["a house", "a table", "a mountain", "a robot", "a tall building", "a balloon"])
def test_what_is_none_of_them_is_none(named, thing: str):
    assert named([thing, f"{thing} at sunset"]) == [None, None]


def test_names_are_unit_vectors_or_nothing():
    network = load_backbone(find_model("diorama"), "cpu", choose_precision("float32", "cpu", find_model("diorama")))
    assert isinstance(network, DioramaBackbone)
    length = network.network.memory.names.norm(dim=-1)
    assert ((length - 1).abs().lt(1e-3) | (length == 0)).all()
    assert (length[:, 0] > 0).all()
    assert torch.isfinite(network.network.memory.names).all()


def test_of_the_words_of_captions_those_of_the_camera_can_be_left_out_and_no_others():
    for tag in vocabulary.CAMERAS.values():
        assert all(split_camera(f"a cat, {phrase}") == (phrase, "a cat") for phrase in tag.phrases if phrase)
    for tag in (*vocabulary.SCENES.values(), *vocabulary.MOTIONS.values()):
        assert all(split_camera(f"a cat {phrase}") == ("", f"a cat {phrase}") for phrase in tag.phrases)
