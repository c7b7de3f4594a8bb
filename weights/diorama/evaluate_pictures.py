"""Evaluate `sora img2vid` with the built-in diorama: `python weights/diorama/evaluate_pictures.py --help`.

Of each of the first prompts of evaluate.py the first true frame is brought to life, with the prompt. Printed is whose
shape the judge sees in the last frame, beside what it sees in the given picture and in a true render's last frame.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from einops import rearrange
from evaluate import choose_prompts, contact_sheet, generated_clip, spread, true_clip
from judge import Judge, load_judge
from PIL import Image
from torch import Tensor
from vocabulary import SUBJECTS
from world import load_sprites

from sora_cli.request import Wishes, resolve
from sora_weights.registry import find_model

FRAMES = 4  # of each video on the sheet


def subject_in(judge: Judge, picture: Tensor) -> str:
    """What the judge sees in a picture (3, H, W) in [0, 1]."""
    return list(SUBJECTS)[int(judge.subject(picture[None]).argmax())]


def evaluate_pictures(
    assets: Annotated[Path, typer.Option(help="Folder with the unpacked artwork packages (weights/README.md).")],
    run: Annotated[Path, typer.Option(help="Folder for caches: sprites and the judge's heads.")],
    count: Annotated[int, typer.Option(min=1, help="Pictures.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet here (PNG).")] = None,
) -> None:
    """Bring true renders to life and judge the last frames."""
    torch.set_num_threads(threads)
    sprites, defaults = load_sprites(assets, threads), find_model("diorama").defaults
    judge = load_judge(
        run / f"judge-{defaults.width}x{defaults.height}.safetensors", sprites, defaults.width, defaults.height
    )
    right, rows = {"made": 0, "given": 0, "true": 0}, []
    with TemporaryDirectory() as folder:
        for prompt in choose_prompts(count):
            path = Path(folder) / f"{prompt.seed}.png"
            wishes = Wishes(prompt=prompt.text, seed=prompt.seed, image=str(path))
            request = resolve("img2vid", wishes, defaults)
            true = true_clip(prompt, sprites, request)
            Image.fromarray((rearrange(true[0], "c h w -> h w c") * 255).round().byte().numpy()).save(path)
            made = generated_clip(request)
            shown = {"made": made[-1], "given": true[0], "true": true[-1]}
            seen = {name: subject_in(judge, picture) for name, picture in shown.items()}
            for name, subject in seen.items():
                right[name] += subject == prompt.subject
            rows.append((f"{prompt.text} (seed {prompt.seed})", made[spread(made, FRAMES)]))
            print(f"{prompt.text}: {seen}", file=sys.stderr, flush=True)
    if sheet is not None:
        contact_sheet(rows).save(sheet)
    print(f"of {count}: " + ", ".join(f"{name} {number}" for name, number in right.items()))


if __name__ == "__main__":
    typer.run(evaluate_pictures)
