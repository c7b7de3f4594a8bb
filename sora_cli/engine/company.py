"""Several figures in one picture: which ones a prompt names, what each of them does, and where each has its room."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from sora_cli.engine.canvas import Level
from sora_cli.engine.denoiser import Window
from sora_cli.engine.job import LatentFile
from sora_cli.engine.vocabulary import LITTLE_WORDS, unknown_words
from sora_cli.model.tracing import Pose

JOINED = re.compile(r"\s*(,|&|\band\b|\bwith\b|\bbeside\b|\bnext to\b|\bbehind\b|\bin front of\b)\s*", re.IGNORECASE)
NONE = ("no", "not", "without")
COUNTS = {"two": 2, "2": 2, "three": 3, "3": 3}
BEHIND, BEFORE = "behind", "in front of"  # which of two figures hides the other where they meet
MEETING = 0.32  # of the width: how wide figures are, at most, that meet
WIDER = 0.2  # of a part of the picture: how much of each neighbour is looked at with it
MOST = 3  # figures in one picture
APART = 0.86  # of the picture's width: how far the middles of their rooms reach
ROOM = 0.94  # of its part of the width: how wide a figure is, at most


@dataclass(frozen=True, slots=True)
class Named:
    """The prompts of several figures, those that are in front later, the figures by their numbers, what is said of all
    of them, and whether they share one room.
    """

    prompts: tuple[str, ...] = ()
    figures: tuple[int, ...] = ()
    scenery: str = ""
    meeting: bool = False


def parts_of(prompt: str) -> list[tuple[str, str]]:
    """What a prompt joins by "and", "with", "behind" or commas: each part, and before it what joins it to the last."""
    first, *others = JOINED.split(prompt.strip())
    parts = [("", first), *((word.lower(), part) for word, part in zip(others[::2], others[1::2], strict=True))]
    return [(joint, part) for joint, part in parts if part]


def nouns_of(parts: Sequence[tuple[str, str]], taught: frozenset[str], scenes: Iterable[str]) -> list[str]:
    """The words that may name figures: those that diorama was taught, but no verbs and none that say a scene."""
    words = dict.fromkeys(word for _, part in parts for word in part.split())
    others = LITTLE_WORDS | {word for phrase in scenes for word in phrase.split()}
    return [
        word
        for word in words
        if not word.endswith("ing") and word.lower() not in others and not unknown_words(word, taught)
    ]


def count_in(words: Iterable[str]) -> int:
    """How many of something words before its name say that there are."""
    return next((COUNTS[word.lower()] for word in words if word.lower() in COUNTS), 1)


def prompts_of(parts: Sequence[tuple[str, str]], named: Mapping[str, int | None]) -> Named:
    """One prompt for each figure that the parts of a prompt name, `MOST` at most; none for fewer than two figures. "Two
    cats" are two.

    `named` says of words which figure they name. What a part says behind the name is what its figure does; a part that
    ends with the name has what the next one says, or the one before ("a cat and a dog jumping"), unless one figure is
    behind another.
    """
    heads, rests, joints, figures = list[str](), list[str](), list[str](), list[int]()
    for joint, part in parts:
        words = part.split()
        names = [named.get(word) for word in words]
        at = next((at for at, name in enumerate(names) if name is not None), None)
        if at is None or words[0].lower() in NONE:
            if rests:
                rests[-1] = f"{rests[-1]}{',' if joint == ',' else f' {joint}'} {part}".strip(" ,")
            continue
        figure = names[at]
        assert figure is not None
        if figure in figures:
            continue
        end = next((k for k in range(at, len(words)) if names[k] != figure), len(words))
        for _ in range(min(count_in(words[:at]), MOST - len(heads))):
            heads.append(" ".join(word for word in words[:end] if word.lower() not in COUNTS))
            rests.append(" ".join(words[end:]))
            joints.append(joint)
            figures.append(figure)
    if len(heads) < 2:
        return Named()
    scenery, meeting = " ".join(dict.fromkeys(rest for rest in rests if rest)), bool({BEHIND, BEFORE} & set(joints[1:]))
    if not meeting:
        said = [at for at, rest in enumerate(rests) if rest]
        rests = [rests[min(said, key=lambda k: (k < at, abs(k - at)), default=at)] for at in range(len(rests))]
    prompts = [f"{head} {rest}".strip() for head, rest in zip(heads, rests, strict=True)]
    order = -1 if BEFORE in joints[1:] else 1
    return Named(tuple(prompts[::order]), tuple(figures[::order]), scenery, meeting)


def parts_of_picture(columns: int, count: int) -> list[Window]:
    """Where each of several figures may be in a picture of so many `columns` of latents: equal parts of its width, and
    the same a little wider.
    """
    parts = []
    for wider in (0.0, WIDER):
        for at in range(count):
            ends = ((at - wider) * columns / count, (at + 1 + wider) * columns / count)
            left, right = (min(max(2 * round(end / 2), 0), columns) for end in ends)
            left = min(left, columns - 2)
            parts.append(Window(slice(None), slice(None), slice(left, max(right, left + 2))))
    return parts


def in_view(pose: Pose, camera: torch.Tensor, level: Level) -> Pose:
    """Where a `camera`, (1, 5, t) as `plan_camera` has it, sees a figure that one at rest would see in this pose."""
    shorter = min(level.width, level.height)
    (across, down, _, _, near) = camera.unbind(1)
    x, y = pose.x - 0.5 - across * shorter / level.width, pose.y - 0.5 - down * shorter / level.height
    return replace(pose, x=x / near.exp() + 0.5, y=y / near.exp() + 0.5, size=pose.size / near.exp())


def give_rooms(members: Sequence[LatentFile], level: Level, *, meeting: bool = False) -> None:
    """Give each of several figures its own part of the picture, from left to right; feet stay on their ground. Those
    that are `meeting` share all of it, and are small enough to be told apart.
    """
    count = len(members)
    side = (level.width * level.height) ** 0.5
    for at, poses in enumerate(members):
        pose = Pose.of(poses.read(0, poses.frames))
        middle = 0.5 if meeting else 0.5 + APART * ((at + 0.5) / count - 0.5)
        room = MEETING if meeting else ROOM / count
        size = pose.size * (room * level.width / side / pose.size.max()).clamp(max=1.0)
        feet = pose.y + (pose.size - size) * side / level.height / 2
        across, half = (pose.x - 0.5) * (1.0 if meeting else 1 / count), size * side / level.width / 2
        x = torch.maximum(torch.minimum(middle + across, 1 - half), half)
        poses.write(0, replace(pose, x=x, y=feet, size=size).numbers())
