"""Training of diorama's video autoencoder: principal components first, then the decoder's correction."""

import random
from collections.abc import Iterator
from pathlib import Path

import checkpoint
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from world import Sprites, View, draw_scenario, render

from sora_cli.model.vae.patch import SPACE, TIME, PatchVAE
from sora_weights.spec import PatchVAESpec

SHARPNESS = 0.5  # latents are scaled by the standard deviation to this power: 1 would whiten them fully


def random_crop(rng: random.Random, sprites: dict[str, Sprites], side: int, frames: int) -> Tensor:
    """A square crop of a random scenario at a random size and rate: (3, T, side, side) in [-1, 1]."""
    height = rng.choice((96, 96, 128, 192, 192, 288, 384, 768))
    width = max(side, round(height * rng.choice((9 / 16, 1.0, 5 / 3, 5 / 3)) / 16) * 16)
    left, top = rng.randrange(0, width - side + 1, SPACE), rng.randrange(0, height - side + 1, SPACE)
    fps = rng.choice((12, 24, 24, 24, 30, 60))
    times = torch.arange(frames) / fps + rng.uniform(0, 2)
    clip = render(draw_scenario(rng), sprites, View(width, height, left, top, side, side), times)
    return rearrange(clip, "T c h w -> c T h w") * 2 - 1


def endless_crops(seed: int, sprites: dict[str, Sprites], side: int, frames: int) -> Iterator[Tensor]:
    """Random crops, for ever."""
    rng = random.Random(seed)
    while True:
        yield random_crop(rng, sprites, side, frames)


def load_vae(path: Path) -> PatchVAE:
    """The autoencoder in a checkpoint, ready to encode."""
    vae = PatchVAE(PatchVAESpec())
    vae.load_state_dict(checkpoint.part(checkpoint.load(path)[0], "vae"))
    return vae.eval()


def fit_components(vae: PatchVAE, crops: Iterator[Tensor], count: int) -> Tensor:
    """Set the encoder from `count` crops' patches; returns the variances of the components that are kept."""
    total, outer, patches = torch.zeros(0), torch.zeros(0), 0
    for _ in range(count):
        crop = next(crops)
        groups = rearrange(crop[:, 1:], "c (t T) (h p) (w q) -> (t h w) (c T p q)", T=TIME, p=SPACE, q=SPACE)
        first = rearrange(crop[:, :1].expand(-1, TIME, -1, -1), "c T (h p) (w q) -> (h w) (c T p q)", p=SPACE, q=SPACE)
        rows = torch.cat([groups, first]).double()
        total = rows.sum(0) if patches == 0 else total + rows.sum(0)
        outer = rows.T @ rows if patches == 0 else outer + rows.T @ rows
        patches += len(rows)
    mean = total / patches
    values, vectors = torch.linalg.eigh(outer / patches - mean[:, None] * mean[None])
    values, vectors = values.flip(0)[: vae.spec.channels], vectors.flip(1)[:, : vae.spec.channels]
    vae.mean.copy_(mean)
    vae.basis.copy_(vectors.T)
    vae.scale.copy_(values.sqrt() ** SHARPNESS)
    spread = (values.sqrt() / values.sqrt() ** SHARPNESS).square().mean().sqrt()
    vae.scale.mul_(spread)  # mean variance of the latents: one
    return values


def decoder_loss(vae: PatchVAE, clips: Tensor, noise: float) -> Tensor:
    """Mean absolute error of decoding clips (b, 3, T, H, W) from latents with a little noise added."""
    with torch.no_grad():
        latents = vae.encode(clips)
        latents = latents + noise * torch.randn_like(latents)
    return F.l1_loss(vae.decode(latents).float(), clips)


@torch.no_grad()
def decibels(vae: PatchVAE, clips: Tensor) -> float:
    """Peak signal-to-noise ratio over all values of clips in [-1, 1], decoded and clamped."""
    decoded = vae.decode(vae.encode(clips)).clamp(-1, 1)
    return float(10 * torch.log10(4 / F.mse_loss(decoded, clips)))
