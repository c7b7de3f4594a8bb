"""Training of diorama's video autoencoder: principal components first, then the decoder's correction."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import checkpoint
import torch
import torch.nn.functional as F
from dit_training import mixed_noise, true_pose
from einops import rearrange
from examples import Batch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from world import Shots, Sprites, View, draw, draw_scenario, in_order, shots_of

from sora_cli.engine.devices import native_dtype
from sora_cli.model.dit import DiT, Reliance
from sora_cli.model.vae.patch import SPACE, TIME, PatchVAE
from sora_weights.families.diorama import FAMILY
from sora_weights.spec import PatchVAESpec

NOISE = 0.03  # in the latents that the decoder learns from
LEAST, MOST = 0.1, 0.45  # noise levels of the last steps of drawing, about
SHARPNESS = 0.5  # latents are scaled by the standard deviation to this power: 1 would whiten them fully


def random_crops(rng: random.Random, count: int, side: int, frames: int) -> Shots:
    """Square crops of random scenarios at random sizes and rates."""
    views, times = [], []
    for _ in range(count):
        height = rng.choice((96, 96, 128, 192, 192, 288, 384, 768))
        width = max(side, round(height * rng.choice((9 / 16, 1.0, 5 / 3, 5 / 3)) / 16) * 16)
        left, top = rng.randrange(0, width - side + 1, SPACE), rng.randrange(0, height - side + 1, SPACE)
        views.append(View(width, height, left, top, side, side))
        times.append(torch.arange(frames) / rng.choice((12, 24, 24, 24, 30, 60)) + rng.uniform(0, 2))
    scenarios = [draw_scenario(rng) for _ in views]
    return shots_of([scenarios[i] for i in in_order(scenarios)], views, torch.stack(times))


@dataclass(frozen=True, slots=True)
class Camera:
    """Draws shots as videos (b, 3, T, h, w) in [-1, 1]."""

    sprites: Sprites

    @torch.no_grad()
    def __call__(self, shots: Shots) -> Tensor:
        """The videos, where the sprites are."""
        return rearrange(draw(shots, self.sprites)[0], "b T c h w -> b c T h w") * 2 - 1


class Crops(IterableDataset[Shots]):
    """Endless batches of crops for the decoder."""

    def __init__(self, seed: int, count: int = 24, side: int = 48, frames: int = 9) -> None:
        self.seed, self.shape = seed, (count, side, frames)

    def __iter__(self) -> Iterator[Shots]:
        worker = get_worker_info()
        rng = random.Random(f"{self.seed}/{worker.id if worker else 0}")
        while True:
            yield random_crops(rng, *self.shape)


def load_vae(path: Path) -> PatchVAE:
    """The autoencoder in a checkpoint, ready to encode."""
    vae = PatchVAE(PatchVAESpec())
    vae.load_state_dict(checkpoint.part(checkpoint.load(path)[0], "vae"))
    return vae.eval()


def fit_components(vae: PatchVAE, crops: Iterable[Tensor]) -> Tensor:
    """Set the encoder from the patches of crops (3, T, h, w); returns the variances of the components that are kept."""
    total, outer, patches = torch.zeros(0), torch.zeros(0), 0
    for crop in crops:
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


def decoder_loss(vae: PatchVAE, clips: Tensor) -> Tensor:
    """Mean absolute error of decoding clips (b, 3, T, H, W) from latents with a little noise added."""
    with torch.no_grad():
        latents = vae.encode(clips)
        latents = latents + NOISE * torch.randn_like(latents)
    return F.l1_loss(vae.decode(latents).float(), clips)


def mixed_precision(device: str) -> torch.autocast:
    """Products in bfloat16 where the hardware multiplies it natively, in float32 elsewhere."""
    return torch.autocast(device, torch.bfloat16, enabled=native_dtype(device) == torch.bfloat16)


@torch.no_grad()
def drawn_latents(
    vae: PatchVAE,
    net: DiT,
    video: Tensor,
    batch: Batch,
    features: Tensor,
    seen: Tensor,
    rng: torch.Generator,
    most: float = MOST,
    beside: int | None = None,
) -> Tensor:
    """What the denoiser makes of noisy latents of videos (b, 3, T, h, w) in a step, as in the last steps of drawing, at
    noise levels of up to `most`; for half of them the true latents, with a little noise. With `beside`, what is so many
    latents away from the figure, or more, is true in all of them, and figures alone are as they were drawn.
    """
    t = batch.latents.shape[2]
    level = LEAST + (most - LEAST) * torch.rand(len(video), 1, 1, 1, 1, generator=rng, device=video.device)
    true = vae.encode(video)
    noisy = torch.lerp(batch.latents, mixed_noise(batch.latents, FAMILY.flow.shared_noise, rng), level)
    told = net.trace(true_pose(batch), features, seen, batch.place)
    timesteps = level[:, 0, :, 0, 0].expand(-1, t)
    with mixed_precision("cpu"):
        made = net(noisy, timesteps, features, seen, batch.place, None, told, Reliance(FAMILY.flow.reliance))
    if beside is not None:
        side = 2 * beside - 1
        near = F.max_pool3d(batch.figure[:, None], (1, side, side), 1, (0, beside - 1, beside - 1)) > 0
        made = torch.where(near, made, batch.latents)
    latents = torch.cat([true[:, :, :-t], made.to(true)], 2)
    clean = torch.rand(len(video), 1, 1, 1, 1, generator=rng, device=video.device) < 0.5
    noise = torch.randn(true.shape, generator=rng, device=true.device)
    return torch.where(clean, true + NOISE * noise, latents)


@torch.no_grad()
def decibels(vae: PatchVAE, clips: Tensor) -> float:
    """Peak signal-to-noise ratio over all values of clips in [-1, 1], decoded and clamped."""
    decoded = vae.decode(vae.encode(clips)).clamp(-1, 1)
    return float(10 * torch.log10(4 / F.mse_loss(decoded, clips)))
