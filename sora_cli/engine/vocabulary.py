"""Which words of a prompt a model was never taught."""

import re

LITTLE_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an and are as at be being but by for from has have her his in into is it its just of off on one onto or over
        so some that the their then there this to two up very was were while who with
        """,
    )
)
ENDINGS = ("", "s", "es", "ing", "ed", "d", "ly", "'s", "y")


def unknown_words(prompt: str, vocabulary: frozenset[str] | None) -> tuple[str, ...]:
    """Words of the prompt that neither themselves nor in another form are in `vocabulary`; none if it is None."""
    if vocabulary is None:
        return ()
    known = {stem for word in vocabulary for stem in _stems(word)}
    words = dict.fromkeys(re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", prompt.lower()))
    return tuple(word for word in words if word not in LITTLE_WORDS and not _stems(word) & known)


def _stems(word: str) -> set[str]:
    return {word.removesuffix(ending) for ending in ENDINGS if len(word) - len(ending) >= 3 or not ending}
