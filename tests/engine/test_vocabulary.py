"""Words that a model was never taught are named; their forms, and little words, are not."""

import pytest

from sora_cli.engine.vocabulary import says_one_of, scene_for, split_style, unknown_words
from sora_weights.registry import find_model

KNOWN = frozenset({"cat", "sunset", "jumping", "moving", "puppy", "butterfly", "standing"})


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a cat at sunset", ()),
        ("Cats jump at the sunset", ()),
        ("the cat jumped, and it moves", ()),
        ("a quokka at sunset with a zeppelin", ("quokka", "zeppelin")),
        ("quokka quokka QUOKKA", ("quokka",)),
        ("a ca", ("ca",)),
        ("猫 at sunset", ("猫",)),
        ("3 cats, 2 cats!", ()),
        ("a card", ("card",)),
        ("🐈", ("🐈",)),
    ],
)
def test_unknown_words_are_named_once(prompt: str, unknown: tuple[str, ...]):
    assert unknown_words(prompt, KNOWN) == unknown


def test_a_model_without_a_vocabulary_knows_every_word():
    assert unknown_words("a quokka", None) == ()


SAYS = {"a Sunset and a cat": True, "stars": True, "a cat under a tree": False, "a cat falling": False, "": False}


@pytest.mark.parametrize("prompt", SAYS)
def test_a_prompt_says_where_with_the_last_word_of_a_phrase(prompt: str):
    assert says_one_of(prompt, ("at sunset", "under the stars", "while snow is falling")) is SAYS[prompt]


@pytest.mark.parametrize(
    ("prompt", "style", "rest"),
    [
        ("a cat at sunset", None, "a cat at sunset"),
        ("a cat at sunset, ink", "ink", "a cat at sunset"),
        ("An ink drawing of a cat", "ink", "a cat"),
        ("watercolor", "watercolour", ""),
        ("a dog, in watercolour, at night", "watercolour", "a dog, at night"),
        ("a watercolour painting of a fish", "watercolour", "a fish"),
        ("a fish in Black-and-White underwater", "black and white", "a fish underwater"),
        ("a pixel art rocket", "pixel art", "a rocket"),
        ("a cat as pixel art.", "pixel art", "a cat"),
        ("a pink pig thinks", None, "a pink pig thinks"),
        ("a pen and ink drawing of a cat", "ink", "a cat"),
        ("a cat in the style of a watercolour", "watercolour", "a cat"),
        ("the watercolour of a cat and a dog", "watercolour", "a cat and a dog"),
        ("8-bit pixel art of a cat", "pixel art", "a cat"),
        ("ink: a cat", "ink", "a cat"),
        ("a cat (ink)", "ink", "a cat"),
        ("a cat in ink!", "ink", "a cat"),
        ("a b&w film of a cat", "black and white", "a cat"),
        ("make it black and white", "black and white", ""),
        ("turn this into pixel art", "pixel art", ""),
        ("convert the clip to watercolour", "watercolour", ""),
        ("an owl at night in black & white", "black and white", "an owl at night"),
        ("a black and white cow in a meadow", None, "a black and white cow in a meadow"),
        ("a cat in a black and white room", None, "a cat in a black and white room"),
        ("a dog with black and white spots", None, "a dog with black and white spots"),
        ("an octopus squirting ink underwater", None, "an octopus squirting ink underwater"),
        ("a cat, not ink", None, "a cat, not ink"),
        ("an inky cat", None, "an inky cat"),
        ("", None, ""),
    ],
)
def test_a_style_is_taken_out_of_a_prompt(prompt: str, style: str | None, rest: str):
    assert split_style(prompt) == (style, rest)


@pytest.mark.parametrize(
    "prompt", ["a cat", "a happy cat", "a dog running in circles", "a cat and a dog", "a ghost, dolly in"]
)
def test_a_prompt_that_says_no_scene_gets_one_by_its_seed(prompt: str):
    model = find_model("diorama")
    scenes = [scene_for(prompt, model, seed) for seed in range(40)]
    assert scenes == [scene_for(prompt, model, seed) for seed in range(40)]
    assert set(scenes) <= {scene[0] for scene in model.scenes}
    assert len(set(scenes)) > 6


@pytest.mark.parametrize(
    "prompt", ["a cat at sunset", "a city", "a cat in a kitchen", "a cat indoors", "a quokka on a roof"]
)
def test_a_prompt_that_says_a_scene_keeps_it(prompt: str):
    assert scene_for(prompt, find_model("diorama"), 0) is None
