"""Makes the pictures of the READMEs again: `python docs/pictures.py prompts`, `rows`, `clips` and `world`.

Everything is made by the command line, nothing is picked. The clips that the last sheet begins with are rendered from
diorama's world, which needs the artwork (weights/README.md): `--assets FOLDER`.
"""

import random
import shlex
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import av
import torch
import typer
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), *(str(HERE.parent / name) for name in ("weights", "weights/diorama", "kernels"))]

import world  # noqa: E402
from vocabulary import SCENES, SUBJECTS  # noqa: E402

PROMPTS = """a cat at sunset, a dog on a beach, a car in the snow, a fish underwater, a rocket at night, a butterfly in
a forest, a penguin in the snow, a turtle on a beach, a horse in the mountains, a duck in a forest, a tiger in a
meadow, an elephant in a desert, a train in a city, an owl at night, a sailboat on a beach, a rabbit in a
meadow, a snowman in the snow, a giraffe in a desert, a dolphin underwater, a bus in a city, an airplane at
sunset, a dragon at night, a teddy bear in a room, a UFO in space"""
ROWS = {
    "pairs": (
        "a cat jumping and a dog on the beach",
        "a penguin walking right and a snowman in the snow",
        "a fish and an octopus underwater",
        "a horse running, a cow and a sheep in a meadow",
        "a rocket rising and a UFO in space",
        "a car driving to the right and a bus in a city",
    ),
    "moves": (
        "a rabbit in a room jumping to the right",
        "a dog in the mountains running back and forth",
        "a bee in a meadow flying in circles",
        "an owl at night, the camera tilts down",
        "a car driving to the left at sunset, the camera pans left",
        "a penguin on the beach, dolly in",
    ),
    "styles": (
        "a cat at sunset, ink",
        "a cat at sunset, watercolour",
        "a cat at sunset, pixel art",
        "a cat at sunset, black and white",
    ),
}
CLIPS = {  # {clip} and {fish} are rendered, {picture} is a frame of the clip, {right} and {corner} are masks
    "back": "extend {clip} --backward --seconds 2",
    "both": "extend {clip} --both --seconds 1",
    "loop": "loop {clip}",
    "bridge": "interpolate {clip} {fish}",
    "fill": "fill {clip} --frames 12-35",
    "cut": "fill {clip} --mask {right}",
    "put": "fill {clip} 'a ladybug' --mask {corner}",
    "edit": "edit {clip} 'a turtle in the snow' --strength 0.7",
    "img": "img2vid {picture} 'a penguin in the snow moving left'",
}

app = typer.Typer(add_completion=False, help=__doc__)


def sora(*arguments: str, output: Path) -> list[Image.Image]:
    """The frames that a command makes."""
    command = [str(Path(sys.executable).with_name("sora")), *arguments, "-q", "-o", str(output)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return frames(output)


def frames(path: Path) -> list[Image.Image]:
    """All frames of a video."""
    with av.open(str(path)) as video:
        return [frame.to_image() for frame in video.decode(video=0)]


def spread(pictures: list[Image.Image], count: int) -> list[Image.Image]:
    """`count` of them, evenly spread from the first to the last."""
    return [pictures[round(k * (len(pictures) - 1) / (count - 1))] for k in range(count)]


def sheet(pictures: list[Image.Image], columns: int, width: int) -> Image.Image:
    """Pictures in rows, each so wide."""
    height = round(width * pictures[0].height / pictures[0].width)
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * width, rows * height))
    for index, picture in enumerate(pictures):
        small = picture.resize((width, height), Image.Resampling.LANCZOS)
        whole.paste(small, (index % columns * width, index // columns * height))
    return whole


@app.command()
def prompts() -> None:
    """docs/cat-at-sunset.png and docs/prompts.png."""
    middles = []
    with TemporaryDirectory() as folder:
        for seed, prompt in enumerate(PROMPTS.replace("\n", " ").split(", ")):
            made = sora("generate", prompt, "--seed", str(seed), output=Path(folder) / f"{seed}.mkv")
            middles.append(made[len(made) // 2])
            if seed == 0:
                sheet(spread(made, 6), 3, 320).save(HERE / "cat-at-sunset.png")
    sheet(middles, 6, 214).save(HERE / "prompts.png")


@app.command()
def rows(names: Annotated[list[str] | None, typer.Argument(help="Some of them.")] = None) -> None:
    """docs/pairs.png, docs/moves.png and docs/styles.png."""
    for name in names or list(ROWS):
        made = []
        with TemporaryDirectory() as folder:
            for number, prompt in enumerate(ROWS[name]):
                seed = "0" if name == "styles" else str(number)
                made += spread(sora("generate", prompt, "--seed", seed, output=Path(folder) / f"{number}.mkv"), 6)
        sheet(made, 6, 214).save(HERE / f"{name}.png")


@app.command()
def clips(assets: Annotated[Path, typer.Option(help="Folder with the unpacked artwork packages.")]) -> None:
    """docs/clips.png."""
    sprites, rows = world.load_sprites(assets, 2), []
    with TemporaryDirectory() as name:
        folder = Path(name)
        places = {"clip": folder / "clip.mkv", "fish": folder / "fish.mkv", "picture": folder / "picture.png"}
        render(world.Scenario("penguin", "snow", "still", "static", _dice(1)), sprites, places["clip"])
        render(world.Scenario("fish", "underwater", "left", "static", _dice(2)), sprites, places["fish"])
        frames(places["clip"])[0].save(places["picture"])
        for mask, box in (("right", (160, 0, 320, 180)), ("corner", (10, 90, 110, 175))):
            places[mask] = folder / f"{mask}.png"
            white = Image.new("L", (320, 180))
            white.paste(255, box)
            white.save(places[mask])
        for kind, command in CLIPS.items():
            arguments = shlex.split(command.format(**places))
            rows += spread(sora(*arguments, "--seed", "1", output=folder / f"{kind}.mkv"), 8)
    sheet(rows, 8, 160).save(HERE / "clips.png")


@app.command("world")
def everyone(assets: Annotated[Path, typer.Option(help="Folder with the unpacked artwork packages.")]) -> None:
    """docs/world.png: every figure once, true renders."""
    sprites, scenes = world.load_sprites(assets, 2), list(SCENES)
    pictures = []
    for number, subject in enumerate(SUBJECTS):
        scenario = world.Scenario(subject, scenes[number % len(scenes)], "still", "static", _dice(number))
        (pixels,) = world.render(scenario, sprites, world.View(320, 180), torch.tensor([1.0]))
        pictures.append(Image.fromarray((pixels.permute(1, 2, 0) * 255).round().byte().numpy()))
    sheet(pictures, 10, 160).save(HERE / "world.png")


def _dice(seed: int) -> tuple[float, ...]:
    dice = random.Random(seed)
    return tuple(dice.random() for _ in range(16))


def render(scenario: world.Scenario, sprites: world.Sprites, path: Path, count: int = 48) -> None:
    """A clip of 320x180 from diorama's world, lossless."""
    video = world.render(scenario, sprites, world.View(320, 180), torch.arange(count) / 24)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=Fraction(24))
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for pixels in (video.permute(0, 2, 3, 1) * 255).round().byte().numpy():
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())


if __name__ == "__main__":
    app()
