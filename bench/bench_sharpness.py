"""How sharp diorama's large pictures are: the energy of fine detail, octave by octave, beside that of a true render.

    python bench/bench_sharpness.py --assets FOLDER [--size 1920x1080] [--frames 9]

For each of some prompts the tool's video is compared with the world's own one of the same words, and with that made as
small as a draft and enlarged again. Printed are ratios to the true render, which is 1: below 1 is softer, above 1 is
noisier. Octave 1 is what pixels have that half of the size hasn't, octave 2 what that has and a quarter hasn't, and so
on. The artwork is needed (weights/README.md).
"""

import random
import sys
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / name) for name in ("weights", "weights/diorama", "kernels"))]

import evaluate  # noqa: E402
import world  # noqa: E402

from sora_cli.request import Wishes, resolve  # noqa: E402
from sora_weights.registry import find_model  # noqa: E402

PROMPTS = (("cat", "sunset"), ("penguin", "snow"), ("owl", "night"), ("car", "city"))
OCTAVES = 5
DRAFT = (160, 90)


def main(
    assets: Annotated[Path, typer.Option(help="Folder with the unpacked artwork packages.")],
    size: Annotated[str, typer.Option(help="Of the videos.")] = "1920x1080",
    frames: Annotated[int, typer.Option(help="Of each video.")] = 9,
) -> None:
    """Print a table of ratios."""
    sprites = world.load_sprites(assets)
    print("| prompt | " + " | ".join(f"octave {k + 1}" for k in range(OCTAVES)) + " |\n|" + " --- |" * (OCTAVES + 1))
    totals = torch.zeros(2, OCTAVES)
    for seed, (subject, scene) in enumerate(PROMPTS):
        words = f"{'an' if subject[0] in 'aeiou' else 'a'} {subject} {world.SCENES[scene].phrases[0]}"
        wishes = Wishes(prompt=words, seed=seed, size=size, frames=frames)
        request = resolve("generate", wishes, find_model("diorama").defaults)
        made, true = energies(evaluate.generated_clip(request)), true_frames(subject, scene, seed, sprites, request)
        small = F.interpolate(true, (DRAFT[1], DRAFT[0]), mode="bicubic", antialias=True)
        soft = energies(F.interpolate(small, true.shape[2:], mode="bicubic"))
        ratios = torch.stack([made, soft]) / energies(true)
        totals += ratios / len(PROMPTS)
        _print(words, ratios[0])
        _print(f"{words}: an enlarged {DRAFT[0]}x{DRAFT[1]}", ratios[1])
    _print("all", totals[0])
    _print(f"all: an enlarged {DRAFT[0]}x{DRAFT[1]}", totals[1])


def true_frames(subject: str, scene: str, seed: int, sprites: world.Sprites, request: evaluate.Request) -> Tensor:
    """The world's own video of a request, (T, 3, H, W) in [0, 1]."""
    dice = random.Random(seed)
    scenario = world.Scenario(subject, scene, "still", "static", tuple(dice.random() for _ in range(16)))
    return world.render(scenario, sprites, world.View(request.width, request.height), evaluate.frame_times(request))


def energies(video: Tensor) -> Tensor:
    """The mean square of what each octave of a video (T, 3, H, W) has and the next doesn't, (octaves,).

    Source: Burt and Adelson 1983, The Laplacian Pyramid as a Compact Image Code.
    """
    found = []
    for _ in range(OCTAVES):
        small = F.avg_pool2d(video, 2, ceil_mode=True)
        found.append((video - F.interpolate(small, video.shape[2:], mode="bilinear")).square().mean())
        video = small
    return torch.stack(found)


def _print(name: str, ratios: Tensor) -> None:
    print(f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios.tolist()) + " |", flush=True)


if __name__ == "__main__":
    typer.run(main)
