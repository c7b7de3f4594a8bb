"""Which words of a prompt a model was never taught, and which ask for a style."""

import random
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from sora_weights.errors import WeightsError
from sora_weights.spec import Model, TextSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LITTLE_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an and are as at be being but by for from has have her his in into is it its just of off on one onto or over
        so some that the their then there this three to two up very was were while who with
        """,
    )
)
STYLES = {  # how prompts call each, and whether that may stand before a noun, as an adjective
    "black and white": (r"(?:black[ -](?:and|&)[ -]white|b ?& ?w|monochrome|gr[ea]yscale)", False),
    "watercolour": (r"(?:water[ -]?colou?rs?)", True),
    "pixel art": (r"(?:(?:8-bit )?pixel[ -]?art)", True),
    "ink": (r"(?:(?:pen and )?ink)", False),
}
MEDIA = r"(?:[ -](?:style|art|drawing|painting|sketch|photo|picture|image|video|film|movie|animation))*"
MAKING = frozenset(  # what a prompt may say beside a style that asks for nothing else
    re.findall(
        r"\w+",
        "make turn convert change transform render redraw paint draw this clip video footage film picture please",
    )
)
PLACING = frozenset(
    re.findall(r"\w+", "in into on onto at under by near inside over above through across between among against along")
)
ENDINGS = ("", "s", "es", "ing", "ed", "'s")


def unknown_words(prompt: str, vocabulary: frozenset[str] | None) -> tuple[str, ...]:
    """Words of the prompt that neither themselves nor in another form are in `vocabulary`; none if it is None.

    A prompt without any word is unknown as a whole.
    """
    if vocabulary is None:
        return ()
    known = {stem for word in vocabulary for stem in _stems(word)}
    words = dict.fromkeys(re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", prompt.lower()))
    unknown = tuple(word for word in words if word not in LITTLE_WORDS and not _stems(word) & known)
    return unknown if words else (prompt.strip(),)


def split_style(prompt: str) -> tuple[str | None, str]:
    """The name of the style that a prompt asks for, if it does, and the prompt without it; without anything, if it asks
    for nothing else.

    A style is asked for in a clause of its own ("a cat, ink"), behind "in" or "as" ("in watercolour"), before "of" ("an
    ink drawing of"), or before a noun where no thing would be called that ("a pixel art rocket").
    """
    for name, (words, adjective) in STYLES.items():
        called = rf"(?:the style of )?(?:an? |the )?{words}{MEDIA}"
        forms = [
            rf"^\W*{called}(?: of\b|:|\W*$)",
            rf"[,;(]\s*(?:in |as )?{called}\s*(?=[,;.!?)]|$)",
            rf"\b(?:in|as|into|to) (?:the style of )?{words}{MEDIA}\b",
            rf"\b(?:in|as|into|to) {called}\s*(?=[,;.!?)]|$)",
            rf"\bit {words}{MEDIA}\W*$",
            *([rf"\b{words}{MEDIA}\b"] if adjective else []),
        ]
        for form in forms:
            found = re.search(form, prompt, re.IGNORECASE)
            if found is None or re.search(r"\b(no|not|without)\s*$", prompt[: found.start()], re.IGNORECASE):
                continue
            rest = f"{prompt[: found.start()]} {prompt[found.end() :]}"
            rest = re.sub(r"\s+([,;.!?)])?", lambda gap: gap[1] or " ", rest).strip(" ,;.!?()")
            return name, rest if set(re.findall(r"\w+", rest.lower())) - LITTLE_WORDS - MAKING else ""
    return None, prompt


def says_one_of(prompt: str, phrases: Iterable[str]) -> bool:
    """Whether the prompt has the word that one of these phrases ends with, as in "at sunset"; verbs tell no place."""
    meant = {re.findall(r"\w+", phrase.lower())[-1] for phrase in phrases}
    return any(word in meant and not word.endswith("ing") for word in re.findall(r"\w+", prompt.lower()))


def scene_for(prompt: str, model: Model, seed: int) -> str | None:
    """A scene for a prompt that says none, as the `seed` has it; None where one is said, or may be in words that the
    model was never taught ("in a kitchen").
    """
    if not model.scenes or says_one_of(prompt, chain.from_iterable(model.scenes)):
        return None
    if unknown_words(prompt, model.vocabulary) and PLACING & set(re.findall(r"\w+", prompt.lower())):
        return None
    return random.Random(seed).choice(model.scenes)[0]


def _stems(word: str) -> set[str]:
    return {word.removesuffix(ending) for ending in ENDINGS if len(word) - len(ending) >= 3 or not ending}


def count_tokens(model: Model, text: str) -> int:
    """How many tokens the model's tokenizer makes of a text, its special ones included."""
    spec, path = model.specs.text, model.parts["tokenizer"]
    if isinstance(spec, TextSpec):
        return len(read_tokenizer(path).encode(text).ids)
    from sora_cli.engine.tokens import open_tokenizer
    from sora_cli.model.t5 import clean

    return open_tokenizer(path).count(clean(text) if spec.cleaned else text)


def read_tokenizer(path: Path) -> "Tokenizer":
    """The tokenizer in a file. Raises WeightsError("bad_weights") for a file that holds none."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise WeightsError("bad_weights", f"{path}: it holds no tokenizer", "get the model again") from error
