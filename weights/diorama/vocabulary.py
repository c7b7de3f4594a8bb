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
    "car": Subject("1f697", ("car", "car", "automobile", "red car")),
    "fish": Subject("1f420", ("fish", "fish", "tropical fish", "little fish"), "air"),
    "rocket": Subject("1f680", ("rocket", "rocket", "spaceship", "big rocket", "starship"), "air"),
    "butterfly": Subject("1f98b", ("butterfly", "butterfly", "monarch butterfly", "orange butterfly"), "air"),
    "penguin": Subject("1f427", ("penguin", "penguin", "little penguin", "emperor penguin")),
    "turtle": Subject("1f422", ("turtle", "turtle", "tortoise", "green turtle")),
    "horse": Subject("1f40e", ("horse", "horse", "pony", "brown horse", "stallion")),
    "duck": Subject("1f986", ("duck", "duck", "mallard", "drake")),
    "tiger": Subject("1f405", ("tiger", "tiger", "striped tiger", "big tiger")),
    "elephant": Subject("1f418", ("elephant", "elephant", "grey elephant", "big elephant")),
    "rabbit": Subject("1f407", ("rabbit", "rabbit", "bunny", "hare")),
    "cow": Subject("1f404", ("cow", "cow", "spotted cow", "cattle")),
    "pig": Subject("1f416", ("pig", "pig", "pink pig", "piglet")),
    "sheep": Subject("1f411", ("sheep", "sheep", "lamb", "woolly sheep")),
    "rooster": Subject("1f413", ("rooster", "rooster", "chicken", "hen", "cockerel")),
    "bird": Subject("1f426", ("bird", "bird", "little bird", "red bird", "songbird")),
    "dolphin": Subject("1f42c", ("dolphin", "dolphin", "blue dolphin", "porpoise"), "air"),
    "whale": Subject("1f40b", ("whale", "whale", "blue whale", "big whale"), "air"),
    "shark": Subject("1f988", ("shark", "shark", "grey shark", "great white shark"), "air"),
    "octopus": Subject("1f419", ("octopus", "octopus", "orange octopus", "kraken"), "air"),
    "crab": Subject("1f980", ("crab", "crab", "red crab", "little crab")),
    "snail": Subject("1f40c", ("snail", "snail", "slug", "little snail")),
    "bee": Subject("1f41d", ("bee", "bee", "honeybee", "bumblebee"), "air"),
    "ladybug": Subject("1f41e", ("ladybug", "ladybug", "ladybird", "beetle"), "air"),
    "dragon": Subject("1f409", ("dragon", "dragon", "green dragon", "chinese dragon")),
    "dinosaur": Subject("1f996", ("dinosaur", "dinosaur", "tyrannosaurus", "green dinosaur")),
    "zebra": Subject("1f993", ("zebra", "zebra", "striped zebra", "little zebra")),
    "camel": Subject("1f42a", ("camel", "camel", "dromedary", "brown camel")),
    "kangaroo": Subject("1f998", ("kangaroo", "kangaroo", "wallaby", "brown kangaroo")),
    "monkey": Subject("1f412", ("monkey", "monkey", "ape", "chimpanzee")),
    "owl": Subject("1f989", ("owl", "owl", "brown owl", "wise owl")),
    "swan": Subject("1f9a2", ("swan", "swan", "white swan", "graceful swan")),
    "flamingo": Subject("1f9a9", ("flamingo", "flamingo", "pink flamingo", "tall flamingo")),
    "bus": Subject("1f68c", ("bus", "bus", "city bus", "coach", "minibus")),
    "truck": Subject("1f69a", ("truck", "truck", "big truck", "delivery truck", "van")),
    "train": Subject("1f682", ("train", "train", "locomotive", "steam train")),
    "airplane": Subject("2708", ("airplane", "airplane", "plane", "aircraft", "jet"), "air"),
    "helicopter": Subject("1f681", ("helicopter", "helicopter", "chopper", "orange helicopter"), "air"),
    "boat": Subject("26f5", ("boat", "sailboat", "boat", "sailing boat", "yacht")),
    "ufo": Subject("1f6f8", ("ufo", "ufo", "flying saucer", "saucer"), "air"),
    "tractor": Subject("1f69c", ("tractor", "tractor", "green tractor", "farm tractor")),
    "motorcycle": Subject("1f3cd", ("motorcycle", "motorcycle", "motorbike", "red motorcycle")),
    "snowman": Subject("26c4", ("snowman", "snowman", "big snowman", "happy snowman")),
    "teddy": Subject("1f9f8", ("teddy bear", "teddy bear", "bear", "teddy")),
    "deer": Subject("1f98c", ("deer", "deer", "stag", "reindeer")),
    "giraffe": Subject("1f992", ("giraffe", "giraffe", "tall giraffe", "spotted giraffe")),
    "mouse": Subject("1f401", ("mouse", "mouse", "little mouse", "white mouse", "rat")),
    "ox": Subject("1f402", ("ox", "bull", "bull", "brown ox", "steer")),
    "leopard": Subject("1f406", ("leopard", "leopard", "cheetah", "spotted leopard", "jaguar")),
    "crocodile": Subject("1f40a", ("crocodile", "crocodile", "alligator", "green crocodile")),
    "snake": Subject("1f40d", ("snake", "snake", "serpent", "green snake", "python")),
    "ram": Subject("1f40f", ("ram", "ram", "horned ram", "bighorn")),
    "goat": Subject("1f410", ("goat", "goat", "billy goat", "brown goat", "ibex")),
    "chick": Subject("1f425", ("chick", "chick", "baby chick", "yellow chick")),
    "poodle": Subject("1f429", ("poodle", "poodle", "grey poodle", "show poodle")),
    "squirrel": Subject("1f43f", ("squirrel", "squirrel", "chipmunk", "little squirrel")),
    "eagle": Subject("1f985", ("eagle", "eagle", "bald eagle", "hawk", "falcon"), "air"),
    "bat": Subject("1f987", ("bat", "bat", "brown bat", "vampire bat"), "air"),
    "gorilla": Subject("1f98d", ("gorilla", "gorilla", "big gorilla", "silverback")),
    "lizard": Subject("1f98e", ("lizard", "lizard", "gecko", "green lizard", "iguana")),
    "rhino": Subject("1f98f", ("rhino", "rhino", "rhinoceros", "grey rhino")),
    "shrimp": Subject("1f990", ("shrimp", "shrimp", "prawn", "pink shrimp"), "air"),
    "squid": Subject("1f991", ("squid", "squid", "giant squid", "pink squid"), "air"),
    "hedgehog": Subject("1f994", ("hedgehog", "hedgehog", "little hedgehog", "porcupine")),
    "brontosaurus": Subject("1f995", ("brontosaurus", "brontosaurus", "sauropod", "diplodocus")),
    "grasshopper": Subject("1f997", ("grasshopper", "grasshopper", "cricket", "locust")),
    "llama": Subject("1f999", ("llama", "llama", "alpaca", "white llama")),
    "peacock": Subject("1f99a", ("peacock", "peacock", "peafowl", "proud peacock")),
    "hippo": Subject("1f99b", ("hippo", "hippo", "hippopotamus", "grey hippo")),
    "parrot": Subject("1f99c", ("parrot", "parrot", "macaw", "colourful parrot")),
    "lobster": Subject("1f99e", ("lobster", "lobster", "big lobster", "red lobster")),
    "mammoth": Subject("1f9a3", ("mammoth", "mammoth", "woolly mammoth", "mastodon")),
    "dodo": Subject("1f9a4", ("dodo", "dodo", "grey dodo", "dodo")),
    "otter": Subject("1f9a6", ("otter", "otter", "brown otter", "little otter")),
    "orangutan": Subject("1f9a7", ("orangutan", "orangutan", "orange orangutan", "orangutan")),
    "skunk": Subject("1f9a8", ("skunk", "skunk", "striped skunk", "polecat")),
    "badger": Subject("1f9a1", ("badger", "badger", "striped badger", "wolverine")),
    "beaver": Subject("1f9ab", ("beaver", "beaver", "brown beaver", "beaver")),
    "bison": Subject("1f9ac", ("bison", "bison", "buffalo", "big bison")),
    "seal": Subject("1f9ad", ("seal", "seal", "grey seal", "walrus")),
    "spider": Subject("1f577", ("spider", "spider", "big spider", "tarantula")),
    "dove": Subject("1f54a", ("dove", "dove", "white dove", "pigeon"), "air"),
    "ambulance": Subject("1f691", ("ambulance", "ambulance", "white ambulance", "ambulance")),
    "firetruck": Subject("1f692", ("fire engine", "firetruck", "fire engine", "red fire engine")),
    "taxi": Subject("1f695", ("taxi", "taxi", "cab", "yellow taxi", "yellow cab")),
    "tram": Subject("1f68b", ("tram", "tram", "streetcar", "trolley")),
    "ship": Subject("1f6a2", ("ship", "ship", "ferry", "cruise ship", "steamer")),
    "ghost": Subject("1f47b", ("ghost", "ghost", "friendly ghost", "phantom"), "air"),
    "wizard": Subject("1f9d9", ("wizard", "wizard", "sorcerer", "old wizard", "magician")),
    "mermaid": Subject("1f9dc", ("mermaid", "mermaid", "beautiful mermaid", "siren"), "air"),
    "fairy": Subject("1f9da", ("fairy", "fairy", "little fairy", "pixie"), "air"),
    "runner": Subject("1f3c3", ("runner", "runner", "jogger", "fast runner", "sprinter")),
    "dancer": Subject("1f483", ("woman", "dancer", "woman", "girl", "young woman")),
    "man": Subject("1f57a", ("man", "man", "boy", "guy", "gentleman")),
    "walker": Subject("1f6b6", ("person", "pedestrian", "person", "hiker", "walker")),
    "surfer": Subject("1f3c4", ("surfer", "surfer", "young surfer", "surfer")),
    "cyclist": Subject("1f6b4", ("cyclist", "bicycle", "cyclist", "bike", "bicyclist")),
    "skier": Subject("26f7", ("skier", "skier", "fast skier", "skier")),
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
    "desert": Tag(("in a desert", "in the desert", "among sand dunes", "on the dunes", "in the hot desert sand")),
    "city": Tag(("in a city", "in the city", "on a street", "downtown", "in front of tall buildings")),
    "space": Tag(("in space", "in space", "in outer space", "on the moon", "on another planet", "in the galaxy")),
    "meadow": Tag(("in a meadow", "in a meadow", "on the grass", "in a field of flowers", "on a green hill")),
    "mountains": Tag(("in the mountains", "in front of mountains", "in the alps", "among high peaks", "on a mountain")),
    "room": Tag(("in a room", "in a living room", "indoors", "at home", "on a carpet")),
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
            "walking",
            "walking left",
            "running",
            "running to the left",
            "flying",
            "swimming",
            "driving to the left",
        )
    ),
    "right": Tag(
        (
            "moving right",
            "moving to the right",
            "going right",
            "heading to the right",
            "crossing from left to right",
            "walking to the right",
            "running right",
            "flying to the right",
            "swimming right",
            "driving to the right",
        )
    ),
    "jump": Tag(("jumping", "jumping up and down", "hopping", "bouncing")),
    "rise": Tag(("rising", "rising into the air", "floating up", "flying up", "going up")),
    "closer": Tag(("coming closer", "approaching", "coming towards the camera", "getting closer")),
    "away": Tag(("going away", "moving away", "going into the distance", "getting smaller")),
    "sink": Tag(("sinking", "coming down", "floating down", "landing", "going down")),
    "leap_left": Tag(("jumping to the left", "hopping left", "leaping to the left", "bouncing to the left")),
    "leap_right": Tag(("jumping to the right", "hopping right", "leaping to the right", "bouncing to the right")),
    "circle": Tag(("going in circles", "running in circles", "flying in circles", "swimming in circles", "circling")),
    "pace": Tag(("walking back and forth", "going to and fro", "running back and forth", "pacing up and down")),
}

CAMERAS: dict[str, Tag] = {
    "static": Tag(("", "", "", "", "static camera")),
    "pan_left": Tag(("the camera pans left", "camera panning to the left", "pan left")),
    "pan_right": Tag(("the camera pans right", "camera panning to the right", "pan right")),
    "zoom_in": Tag(("the camera zooms in", "slow zoom in", "zooming in")),
    "zoom_out": Tag(("the camera zooms out", "slow zoom out", "zooming out")),
    "tilt_up": Tag(("the camera tilts up", "camera tilting upwards", "tilt up")),
    "tilt_down": Tag(("the camera tilts down", "camera tilting downwards", "tilt down")),
    "dolly_in": Tag(("the camera moves in", "dolly in", "slow dolly in", "the camera pushes in")),
    "dolly_out": Tag(("the camera pulls back", "dolly out", "slow dolly out", "the camera moves back")),
}

CAMERAS_OF_MOTION: dict[str, tuple[str, ...]] = {
    "still": tuple(CAMERAS),
    "jump": ("static", "pan_left", "pan_right"),
    "left": ("static",),
    "right": ("static",),
    "rise": ("static",),
    "closer": ("static",),
    "away": ("static",),
    "sink": ("static",),
    "leap_left": ("static",),
    "leap_right": ("static",),
    "circle": ("static",),
    "pace": ("static",),
}

TO_THE_RIGHT = ("right", "leap_right")  # motions of figures that are mirrored, as artwork looks left
TURNING = ("circle", "pace")  # motions in which figures turn; the denoiser needs none of them, as it is told all poses

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
