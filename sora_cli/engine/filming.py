"""What a prompt says of the camera, apart from what it says of the picture."""

import re
from collections.abc import Sequence

CAMERAS = frozenset({"camera", "view", "shot"})
MOVES = frozenset({"pan", "tilt", "zoom", "dolly", "dolli", "push", "pull", "track", "mov", "driv", "follow"})
BARE_MOVES = MOVES - {"track", "mov", "driv", "follow"}  # that may stand without the camera's name: "slow zoom in"
RESTS = frozenset({"is", "stays", "stands", "remains", "keeps"})
SIDES = frozenset(re.findall(r"\w+", "left right away closer forward backward upward downward inward outward place"))
WAYS = frozenset({"in", "out", "up", "down", "back"})  # of moves, if nothing behind them makes places of them
MANNERS = frozenset(  # not all adverbs, of which nouns can't be told: butterflies, families
    re.findall(
        r"\w+",
        """
        very so slow slowly quick quickly fast rapidly gentle gently smooth smoothly steady steadily gradually slightly
        suddenly then still static fixed moving handheld
        """,
    )
)
LEADING, ARTICLES = frozenset({"and", "while", "as", "with"}), frozenset({"the", "a", "an"})
GOING_ON = frozenset({"and", "on", "at", "to", "towards"})  # what may stand behind "in" where that is a way
NONE = frozenset({"no", "not", "without"})
ENDS = frozenset(",;.!?)")


def split_camera(prompt: str) -> tuple[str, str]:
    """What a prompt says of the camera ("the camera pans slowly to the left", "slow zoom in", "static camera"), and the
    prompt without it; as it is where it says nothing else.
    """
    even = re.sub(r"\s+", " ", prompt)
    spans = [match.span() for match in re.finditer(r"\w+|[^\w\s-]", even)]
    words = [even[slice(*span)].lower() for span in spans]
    said, rest, at, kept = list[str](), "", 0, 0
    while at < len(words):
        stop = _end_of_camera(words, at)
        if stop is None:
            at += 1
            continue
        first = next(k for k in range(at, stop) if words[k] not in LEADING)
        said.append(even[spans[first][0] : spans[stop - 1][1]])
        rest += even[kept : spans[at][0]]
        at, kept = stop, spans[stop - 1][1]
    rest = _tidied(rest + even[kept:])
    return (", ".join(said), rest if re.search(r"\w", rest) else prompt) if said else ("", prompt)


def _end_of_camera(words: Sequence[str], start: int) -> int | None:
    """Where what is said of the camera ends that begins with the word at `start`; None if nothing is."""
    if start and words[start - 1] in NONE:
        return None
    opens = start == 0 or words[start - 1] in ENDS
    named = _after(words, start, LEADING | ARTICLES)
    at = _after(words, named, MANNERS)
    mannered = at > named
    if _is(words, at, CAMERAS):
        moved = _after(words, at + 1, MANNERS)
        rests = _is(words, moved, RESTS) and (_is(words, moved + 1, MANNERS) or _move(words, moved + 1))
        if _move(words, moved) or rests:
            return _where(words, moved + 1)
        return at + 1 if mannered and words[at] != "view" else None
    if not (opens or mannered):
        return None
    at += _is(words, at, SIDES)
    if not _move(words, at, BARE_MOVES):
        return None
    stop = _where(words, at + 1)
    return stop if stop > at + 1 or stop == len(words) or words[stop] in ENDS else None


def _where(words: Sequence[str], at: int) -> int:
    """Where what says how and which way the camera moves ends."""
    while at < len(words):
        word, behind, third = words[at], *([*words[at + 1 : at + 3], ",", ","][:2])
        way = word in WAYS and (behind in ENDS | GOING_ON | MANNERS or _side(behind))
        on = word in ("and", ",", "then") and (_move(words, at + 1) or behind == "then")
        if word in ("to", "towards", "in") and (behind == "place" or (behind == "the" and _side(third))):
            at += 1 if behind == "place" else 2
        elif way or on or word in MANNERS or _side(word) or _move(words, at):
            at += 1
        else:
            break
    return at


def _after(words: Sequence[str], at: int, among: frozenset[str]) -> int:
    """The first place from `at` on where a word is not one of these, commas between them apart."""
    while _is(words, at, among) or (_is(words, at, {","}) and _is(words, at - 1, among) and _is(words, at + 1, among)):
        at += 1
    return at


def _is(words: Sequence[str], at: int, among: frozenset[str] | set[str]) -> bool:
    return at < len(words) and words[at] in among


def _side(word: str) -> bool:
    return word.removesuffix("s") in SIDES


def _move(words: Sequence[str], at: int, among: frozenset[str] = MOVES) -> bool:
    """Whether a word is a form of a verb that cameras do."""
    return at < len(words) and re.sub(r"(?:ning|ying|ing|es|e|s)$", "", words[at]) in among


def _tidied(rest: str) -> str:
    """What is left of a prompt without the commas and brackets that led to what was taken out."""
    rest = re.sub(r"\(\W*\)|\"\W*\"", "", rest)
    rest = re.sub(r"\s*([,;.])(?:\s*[,;.])*", r"\1", re.sub(r"\s+", " ", rest))
    return rest.strip(" ,;.!?")
