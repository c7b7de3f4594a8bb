"""What diorama's world holds, in words: subjects, scenes, motions, camera moves, and captions for them."""

import random
import zlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """One figure: its artwork's code, where it stays, and the words people use for it."""

    code: str
    words: tuple[str, ...]
    stays: str = "ground"


@dataclass(frozen=True, slots=True)
class Tag:
    """The motion of a scenario, or its scene: the phrases that may stand for it in a caption."""

    phrases: tuple[str, ...]


SUBJECTS: dict[str, Subject] = {
    "cat": Subject("1f408", ("cat", "cat", "kitten", "kitty", "tabby cat", "orange cat")),
    "dog": Subject("1f415", ("dog", "dog", "puppy", "doggy", "hound")),
    "car": Subject("1f693", ("car", "car", "automobile", "police car", "vehicle")),
    "fish": Subject("1f420", ("fish", "fish", "tropical fish", "little fish"), "air"),
    "rocket": Subject("1f680", ("rocket", "rocket", "spaceship", "rocket ship", "spacecraft"), "air"),
    "butterfly": Subject("1f98b", ("butterfly", "butterfly", "monarch butterfly", "orange butterfly"), "air"),
    "penguin": Subject("1f427", ("penguin", "penguin", "little penguin", "emperor penguin")),
    "turtle": Subject("1f422", ("turtle", "turtle", "tortoise", "green turtle")),
    "horse": Subject("1f40e", ("horse", "horse", "pony", "brown horse", "stallion")),
    "duck": Subject("1f986", ("duck", "duck", "mallard", "drake")),
}

SCENES: dict[str, Tag] = {
    "sunset": Tag(
        (
            "at sunset",
            "at sunset",
            "at dusk",
            "in the evening sun",
            "under an orange sky",
            "in front of a sunset",
        )
    ),
    "night": Tag(
        (
            "at night",
            "at night",
            "under the stars",
            "in the moonlight",
            "under a starry sky",
            "in the dark of the night",
        )
    ),
    "beach": Tag(("on a beach", "on the beach", "by the sea", "at the seaside", "on the sand by the ocean")),
    "snow": Tag(("in the snow", "in snow", "in winter", "in a snowy field", "while snow is falling")),
    "forest": Tag(("in a forest", "in the forest", "in the woods", "among the trees", "between green trees")),
    "underwater": Tag(("underwater", "under water", "under the sea", "at the bottom of the ocean", "deep in the sea")),
}

MOTIONS: dict[str, Tag] = {
    "still": Tag(("standing still", "waiting", "resting", "staying in place")),
    "left": Tag(
        (
            "moving left",
            "moving to the left",
            "going left",
            "heading to the left",
            "crossing from right to left",
        )
    ),
    "right": Tag(
        (
            "moving right",
            "moving to the right",
            "going right",
            "heading to the right",
            "crossing from left to right",
        )
    ),
    "jump": Tag(("jumping", "jumping up and down", "hopping", "bouncing")),
    "rise": Tag(("rising", "rising into the air", "floating up", "flying up", "going up")),
    "closer": Tag(("coming closer", "approaching", "coming towards the camera", "getting closer")),
}

CAMERAS: dict[str, Tag] = {
    "static": Tag(("", "", "", "", "static camera")),
    "pan_left": Tag(("the camera pans left", "camera panning to the left", "pan left")),
    "pan_right": Tag(("the camera pans right", "camera panning to the right", "pan right")),
    "zoom_in": Tag(("the camera zooms in", "slow zoom in", "zooming in")),
    "zoom_out": Tag(("the camera zooms out", "slow zoom out", "zooming out")),
}

CAMERAS_OF_MOTION: dict[str, tuple[str, ...]] = {
    "still": tuple(CAMERAS),
    "jump": ("static", "pan_left", "pan_right"),
    "left": ("static",),
    "right": ("static",),
    "rise": ("static",),
    "closer": ("static",),
}

FRAMES = (
    "{what}",
    "{what}",
    "{what}",
    "a video of {what}",
    "{what}, cartoon style",
    "a picture of {what}",
    "3D animation of {what}",
)


def held_out(subject: str, scene: str, motion: str) -> bool:
    """Whether training never shows this combination (about one in twelve, chosen by a checksum of the words)."""
    return zlib.crc32(f"{subject}/{scene}/{motion}".encode()) % 12 == 0


def caption(subject: str, scene: str, motion: str, camera: str, rng: random.Random) -> str:
    """One of many wordings of a scenario. A motion may go unsaid, most often when the figure stands still."""
    noun = rng.choice(SUBJECTS[subject].words)
    article = rng.choice(("a", "a", "a", "one", "the", ""))
    if article == "a" and noun[0] in "aeiou":
        article = "an"
    unsaid = rng.random() < (0.6 if motion == "still" else 0.1)
    verb = "" if unsaid else rng.choice(MOTIONS[motion].phrases)
    place = rng.choice(SCENES[scene].phrases)
    order = (article, noun, verb, place) if rng.random() < 0.8 else (article, noun, place, verb)
    what = " ".join(word for word in order if word)
    move = rng.choice(CAMERAS[camera].phrases)
    return rng.choice(FRAMES).format(what=what) + (f", {move}" if move else "")


def words() -> frozenset[str]:
    """Every word that a caption may hold, in lower case: what diorama was taught."""
    tags = (*SCENES.values(), *MOTIONS.values(), *CAMERAS.values())
    phrases = [phrase for tag in tags for phrase in tag.phrases]
    phrases += [word for subject in SUBJECTS.values() for word in subject.words]
    phrases += [frame.format(what="a an one the") for frame in FRAMES]
    return frozenset(word.strip(",.").lower() for phrase in phrases for word in phrase.split() if word.strip(",."))
