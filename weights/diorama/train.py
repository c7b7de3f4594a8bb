"""Train diorama, the built-in model: `python weights/diorama/train.py --help`.

Every stage resumes from its last checkpoint (SIGTERM makes it write one), reports to a log every twenty seconds, ends
by itself after `--minutes`, and runs the same on a CPU and on one GPU.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
import typer

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1]), str(HERE.parents[1] / "kernels")]

import checkpoint  # noqa: E402
import team  # noqa: E402
import world  # noqa: E402
from dit_training import Captions, caption_table, name_table, scene_table  # noqa: E402
from examples import Examples, Mixture, Studio  # noqa: E402
from feed import Feed  # noqa: E402
from package import read_model, write_model  # noqa: E402
from runs import DenoiserRun, Timetable, polish_decoder, train_autoencoder, train_courses, train_retouch  # noqa: E402
from text_encoder import prune  # noqa: E402
from torch import Tensor  # noqa: E402
from vae_training import load_vae  # noqa: E402

from sora_cli.model.dit import DiT  # noqa: E402
from sora_weights.spec import DiTSpec  # noqa: E402

BUILTIN = HERE.parent / "sora_weights" / "builtin"

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
AssetsOpt = Annotated[Path, typer.Option(help="Folder with the unpacked artwork packages (weights/README.md).")]
RunOpt = Annotated[Path, typer.Option(help="Folder for checkpoints, logs and caches.")]
MinutesOpt = Annotated[float, typer.Option(help="Stop after so many minutes.")]
SettleOpt = Annotated[float, typer.Option(help="Last part of the time in which the learning rate falls to zero.")]
ThreadsOpt = Annotated[int, typer.Option(help="CPU threads.")]
WorkersOpt = Annotated[int, typer.Option(help="Processes that plan the examples, and on a CPU draw them.")]
DeviceOpt = Annotated[str, typer.Option(help="cpu or cuda.")]


@app.command()
def text(source: Annotated[Path, typer.Option(help="Folder with MiniLM's weights and tokenizer.json.")]) -> None:
    """Make the text encoder that ships: MiniLM with a smaller vocabulary and int8 matrices."""
    typer.echo(f"{prune(source, BUILTIN)} entries of the vocabulary kept in {BUILTIN}")


@app.command()
def vae(
    assets: AssetsOpt,
    run: RunOpt,
    minutes: MinutesOpt = 15.0,
    settle: SettleOpt = 0.5,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    count: Annotated[int, typer.Option(help="Crops in a step.")] = 24,
    threads: ThreadsOpt = 1,
    workers: WorkersOpt = 1,
    device: DeviceOpt = "cpu",
) -> None:
    """Train the video autoencoder: components in closed form, then the decoder."""
    torch.set_num_threads(threads)
    sprites = world.load_sprites(assets, os.cpu_count() or 1).to(device)
    train_autoencoder(run, sprites, Timetable(rate, minutes, settle), device, count, workers)


@app.command()
def dit(
    assets: AssetsOpt,
    run: RunOpt,
    minutes: MinutesOpt = 60.0,
    settle: SettleOpt = 0.25,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 9e-4,
    images: Annotated[float, typer.Option(help="Share of batches with whole pictures.")] = 0.35,
    closeups: Annotated[float, typer.Option(help="Share with close-ups of the figure.")] = 0.45,
    clips: Annotated[float, typer.Option(help="Share with clips; the rest are crops of large pictures.")] = 0.1,
    later_clips: Annotated[
        float | None, typer.Option(help="Share with clips from half of the time on, at the cost of the first two.")
    ] = None,
    mixed: Annotated[float, typer.Option(help="Share of batches with several shapes, padded and masked.")] = 0.4,
    tokens: Annotated[int, typer.Option(help="Patches in a batch, about; some 50,000 fill a large GPU.")] = 560,
    times: Annotated[int, typer.Option(help="How often a batch is shown, on the average.")] = 1,
    processes: Annotated[int, typer.Option(help="Processes that learn together, each with its own threads.")] = 1,
    threads: ThreadsOpt = 1,
    workers: WorkersOpt = 1,
    device: DeviceOpt = "cpu",
) -> None:
    """Train the denoiser (needs the autoencoder's checkpoint: its components, not its decoder)."""
    if processes > 1 and "RANK" not in os.environ:
        raise typer.Exit(team.start(processes))
    torch.set_num_threads(threads)
    sprites = world.load_sprites(assets, os.cpu_count() or 1).to(device)
    studio = Studio(sprites, load_vae(run / "vae.safetensors").to(device))
    captions = caption_table(run / "captions.safetensors", BUILTIN, device)
    scenery, names = scene_table(BUILTIN, device), name_table(BUILTIN, device)
    training = DenoiserRun(run, studio, captions, scenery, names, device)
    early, late = Mixture(images, closeups, clips, mixed), _later(images, closeups, clips, later_clips, mixed)
    examples = Examples(lambda gone: early.towards(late, min(1, 2 * gone)), training.seed, tokens)
    training.train(examples, Timetable(rate, minutes, settle), Feed(examples, studio, device, workers, times))


@app.command()
def polish(
    assets: AssetsOpt,
    run: RunOpt,
    minutes: MinutesOpt = 15.0,
    settle: SettleOpt = 0.8,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 3e-4,
    threads: ThreadsOpt = 1,
    workers: WorkersOpt = 1,
) -> None:
    """Train the decoder on what the denoiser draws, so that it mends its errors (needs no GPU)."""
    polish_decoder(run, *_at_hand(assets, run, threads), Timetable(rate, minutes, settle), workers)


@app.command()
def retouch(
    assets: AssetsOpt,
    run: RunOpt,
    minutes: MinutesOpt = 30.0,
    settle: SettleOpt = 0.6,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    threads: ThreadsOpt = 1,
    workers: WorkersOpt = 1,
) -> None:
    """Train what draws figures sharp in decoded frames (needs denoiser and decoder, and no GPU)."""
    train_retouch(run, *_at_hand(assets, run, threads), Timetable(rate, minutes, settle), workers)


@app.command()
def course(
    assets: AssetsOpt,
    run: RunOpt,
    minutes: MinutesOpt = 15.0,
    settle: SettleOpt = 0.5,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    threads: ThreadsOpt = 1,
) -> None:
    """Train what says where figures go; it needs nothing of the others and no GPU."""
    torch.set_num_threads(threads)
    sprites = world.load_sprites(assets, os.cpu_count() or 1)
    captions = caption_table(run / "captions.safetensors", BUILTIN, "cpu")
    train_courses(run, sprites, captions, Timetable(rate, minutes, settle))


def _at_hand(assets: Path, run: Path, threads: int) -> tuple[Studio, Captions]:
    """What draws and encodes examples on the CPU, and the captions, for training on so many threads."""
    torch.set_num_threads(threads)
    sprites = world.load_sprites(assets, os.cpu_count() or 1)
    captions = caption_table(run / "captions.safetensors", BUILTIN, "cpu")
    return Studio(sprites, load_vae(run / "vae.safetensors")), captions


def _later(images: float, closeups: float, clips: float, later_clips: float | None, mixed: float) -> Mixture:
    """The mixture of the second half of the time."""
    wanted = clips if later_clips is None else later_clips
    left = (images + closeups + clips - wanted) / max(images + closeups, 1e-9)
    return Mixture(images * left, closeups * left, wanted, mixed)


@app.command()
def begin(run: RunOpt, source: Annotated[Path, typer.Option(help="Folder of an exported model.")] = BUILTIN) -> None:
    """Begin a run from an exported model, the shipped one unless another is named, where no checkpoint is at hand."""
    networks, started = read_model(source), {"steps": 0, "views": 0, "minutes": 0.0}
    for name in ("vae", "retouch"):
        if tensors := networks.get(name):
            checkpoint.save(
                run / f"{name}.safetensors", {f"{name}.{k}": v.float() for k, v in tensors.items()}, started
            )
    dit = {k: v.float() if v.is_floating_point() else v for k, v in networks["dit"].items()}
    if courses := checkpoint.part(dit, "course"):
        checkpoint.save(run / "course.safetensors", _twice(courses), started | {"courses": 0})
    fresh = DiT(DiTSpec()).state_dict()  # what the model was made without begins as there
    checkpoint.save(run / "dit.safetensors", _twice(fresh | {k: v for k, v in dit.items() if k in fresh}), started)


def _twice(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network, and its average over time."""
    return {f"{copy}.{name}": value.clone() for copy in ("net", "average") for name, value in tensors.items()}


@app.command()
def export(
    run: RunOpt, target: Annotated[Path, typer.Option(help="Folder to write the model into.")] = BUILTIN
) -> None:
    """Write the averaged weights as float16, and diorama.json with checksums, where the tool finds them."""
    tensors, facts = checkpoint.load(run / "dit.safetensors")
    courses, _ = checkpoint.load(run / "course.safetensors")
    dit = checkpoint.part(tensors, "average")
    dit |= {f"course.{name}": value for name, value in checkpoint.part(courses, "average").items()}
    networks = {"dit": dit, "vae": load_vae(run / "vae.safetensors").state_dict()}
    if (kept := run / "retouch.safetensors").exists():
        networks["retouch"] = checkpoint.part(checkpoint.load(kept)[0], "retouch")
    write_model(target, networks, run / "figures.zip")
    typer.echo(f"{target}: {facts}")


if __name__ == "__main__":
    app()
