"""Train diorama, the built-in model: `python weights/diorama/train.py --help`.

Every stage resumes from its last checkpoint, writes one line a report to a log, ends by itself after `--minutes`, and
runs the same on a CPU and on one GPU.
"""

import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.utils.data import DataLoader

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1]), str(HERE.parents[1] / "kernels")]

import checkpoint  # noqa: E402
import world  # noqa: E402
from dit_training import Examples, Mixture, caption_table, denoising_loss, latent_spread  # noqa: E402
from package import write_model  # noqa: E402
from text_encoder import prune  # noqa: E402
from vae_training import decibels, decoder_loss, fit_components, random_crop  # noqa: E402

from sora_cli.model.dit import DiT  # noqa: E402
from sora_cli.model.vae.patch import PatchVAE  # noqa: E402
from sora_weights.spec import DiTSpec, PatchVAESpec  # noqa: E402

BUILTIN = HERE.parent / "sora_weights" / "builtin"

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
AssetsOpt = Annotated[
    Path, typer.Option(help="Folder with the unpacked artwork packages (weights/README.md).")
]
RunOpt = Annotated[Path, typer.Option(help="Folder for checkpoints, logs and caches.")]
MinutesOpt = Annotated[
    float, typer.Option(help="Stop after so many minutes; the rate of learning falls towards it.")
]
ThreadsOpt = Annotated[int, typer.Option(help="CPU threads.")]


def log(run: Path, stage: str, line: str) -> None:
    """Print a report and keep it."""
    stamped = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}"
    print(stamped, flush=True)
    with open(run / f"{stage}.log", "a") as file:
        file.write(stamped + "\n")


def endless_crops(seed: int, sprites: dict[str, world.Sprites], side: int, frames: int) -> Iterator[Tensor]:
    """Random crops, for ever."""
    rng = random.Random(seed)
    while True:
        yield random_crop(rng, sprites, side, frames)


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, keep: float) -> None:
    """Move the running average of the weights towards the network."""
    for slow, fast in zip(average.parameters(), net.parameters(), strict=True):
        slow.lerp_(fast, 1 - keep)


def load_vae(path: Path) -> PatchVAE:
    """The autoencoder in a checkpoint, ready to encode."""
    tensors, _ = checkpoint.load(path)
    vae = PatchVAE(PatchVAESpec())
    vae.load_state_dict({k.removeprefix("vae."): v for k, v in tensors.items() if k.startswith("vae.")})
    return vae.eval()


@app.command()
def vae(
    assets: AssetsOpt,
    run: RunOpt,
    minutes: MinutesOpt = 15.0,
    threads: ThreadsOpt = 1,
    batch: int = 24,
    device: str = "cpu",
) -> None:
    """Train the video autoencoder: components in closed form, then the decoder."""
    torch.set_num_threads(threads)
    run.mkdir(parents=True, exist_ok=True)
    sprites = world.load_all_sprites(assets, run / "sprites")
    net, kept, steps = PatchVAE(PatchVAESpec()), run / "vae.safetensors", 0
    if kept.exists():
        net, steps = load_vae(kept), int(checkpoint.load(kept)[1]["steps"])
    else:
        fit_components(net, endless_crops(1, sprites, 64, 13), 3000)
    net.to(device, memory_format=torch.channels_last).train()
    test = torch.stack([random_crop(random.Random(10**6 + i), sprites, 96, 13) for i in range(32)]).to(device)
    log(
        run,
        "vae",
        f"start at step {steps}: {decibels(net, test):.2f} dB, first frames {decibels(net, test[:, :, :1]):.2f}",
    )
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    crops, began, reported = endless_crops(1000 + steps, sprites, 48, 9), time.monotonic(), 0.0
    while (gone := (time.monotonic() - began) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, 2 * (1 - gone)) + 1e-6
        clips = torch.stack([next(crops) for _ in range(batch)]).to(device)
        with torch.autocast(device, torch.bfloat16):
            loss = decoder_loss(net, clips, 0.03)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        steps += 1
        if time.monotonic() - reported > 60:
            reported = time.monotonic()
            log(
                run,
                "vae",
                f"step {steps} loss {loss.item():.4f} {decibels(net, test):.2f} dB, first {decibels(net, test[:, :, :1]):.2f}",
            )
            checkpoint.save(kept, {f"vae.{k}": v for k, v in net.state_dict().items()}, {"steps": steps})
    checkpoint.save(kept, {f"vae.{k}": v for k, v in net.state_dict().items()}, {"steps": steps})
    log(
        run,
        "vae",
        f"end at step {steps}: {decibels(net, test):.2f} dB, first frames {decibels(net, test[:, :, :1]):.2f}",
    )


@app.command()
def text(
    source: Annotated[Path, typer.Option(help="Folder with MiniLM's model.safetensors and tokenizer.json.")],
) -> None:
    """Make the text encoder that ships: MiniLM with a smaller vocabulary and int8 matrices."""
    typer.echo(f"{prune(source, BUILTIN)} entries of the vocabulary kept in {BUILTIN}")


@app.command()
def dit(
    assets: AssetsOpt,
    run: RunOpt,
    minutes: MinutesOpt = 60.0,
    threads: ThreadsOpt = 2,
    images: Annotated[float, typer.Option(help="Share of batches with single pictures.")] = 0.75,
    clips: Annotated[
        float, typer.Option(help="Share with clips; what is left are crops of large pictures.")
    ] = 0.15,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 6e-4,
    settle: Annotated[
        float, typer.Option(help="Last part of the time in which the learning rate falls to zero.")
    ] = 0.25,
    seed: int = 0,
    workers: int = 1,
    device: str = "cpu",
) -> None:
    """Train the denoiser (needs the autoencoder's checkpoint: its components, not its decoder)."""
    torch.set_num_threads(threads)
    sprites = world.load_all_sprites(assets, run / "sprites")
    vae_net, kept = load_vae(run / "vae.safetensors"), run / "dit.safetensors"
    features, seen = caption_table(run / "captions.safetensors", BUILTIN)
    net, average = DiT(DiTSpec()), DiT(DiTSpec())
    optimiser = torch.optim.AdamW(net.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    facts = {"steps": 0, "views": 0, "minutes": 0.0}
    if kept.exists():
        tensors, facts = checkpoint.load(kept)
        for module, prefix in ((net, "net."), (average, "average.")):
            module.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
        optimiser.load_state_dict(checkpoint.restore_optimiser(optimiser.state_dict(), tensors))
    else:
        sample = Examples(sprites, vae_net, Mixture(0.3, 0.7, 0.0), 1)
        net.spread.copy_(latent_spread(vae_net, sample, 60))
        average.load_state_dict(net.state_dict())
    net.to(device)
    average.to(device)
    log(
        run,
        "dit",
        f"start: {facts}, {sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters, images {images} clips {clips}",
    )
    examples = Examples(sprites, vae_net, Mixture(images, clips), seed + int(facts["steps"]))
    stream = iter(DataLoader(examples, batch_size=None, num_workers=workers, prefetch_factor=4))
    dice = torch.Generator().manual_seed(seed + int(facts["steps"]))
    began = reported = saved = time.monotonic()
    before, losses, stopped = float(facts["minutes"]), [], []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))

    def keep() -> None:
        tensors = {f"net.{k}": v for k, v in net.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
        checkpoint.save(kept, tensors | checkpoint.optimiser_tensors(optimiser.state_dict()), facts)

    while (gone := (time.monotonic() - began) / (60 * minutes)) < 1 and not stopped:
        warm = min(1.0, (int(facts["steps"]) + 1) / 200)
        for group in optimiser.param_groups:
            group["lr"] = rate * warm * min(1.0, (1 - gone) / settle) + 1e-7
        batch = next(stream).to(device)
        words = batch.words.cpu()
        with torch.autocast(device, torch.bfloat16):
            loss = denoising_loss(
                net, batch, features[words].to(device).float(), seen[words].to(device), dice
            )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        follow(average, net, min(0.9995, (facts["steps"] + 1) / (facts["steps"] + 100)))
        facts["steps"] += 1
        facts["views"] += len(words)
        facts["minutes"] = before + (time.monotonic() - began) / 60
        kind = "crop" if batch.crop else "image" if batch.latents.shape[2] == 1 else "clip"
        losses.append((kind, loss.item()))
        if time.monotonic() - reported > 60:
            means = {
                k: sum(x for n, x in losses if n == k) / max(1, sum(n == k for n, _ in losses))
                for k in ("image", "clip", "crop")
            }
            log(
                run,
                "dit",
                f"{facts} {len(losses) / (time.monotonic() - reported):.2f} steps/s "
                + " ".join(f"{k} {v:.4f}" for k, v in means.items()),
            )
            reported, losses = time.monotonic(), []
        if time.monotonic() - saved > 240:
            keep()
            saved = time.monotonic()
    keep()
    log(run, "dit", f"end: {facts}")


@app.command()
def export(
    run: RunOpt, target: Annotated[Path, typer.Option(help="Folder to write the model into.")] = BUILTIN
) -> None:
    """Write the averaged weights as float16, and diorama.json with checksums, where the tool finds them."""
    tensors, facts = checkpoint.load(run / "dit.safetensors")
    average = {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
    write_model(target, average, load_vae(run / "vae.safetensors").state_dict())
    typer.echo(f"{target}: {facts}")


if __name__ == "__main__":
    app()
