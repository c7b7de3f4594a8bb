"""Known pictures as the condition channels of families that take them, exactly as their references make them."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from einops import repeat
from PIL.Image import Image, Resampling
from torch import Tensor

from sora_cli.engine.backbones import Condition
from sora_cli.engine.canvas import Canvas
from sora_cli.engine.footage import fitted
from sora_cli.engine.networks import Autoencoder
from sora_cli.model.vae.cogvideox import CogVideoXVAE
from sora_cli.model.vae.wan import WanVAE

Pictures = Mapping[int, Tensor]
"""Known frames by their number in the video: (1, 3, H, W) in [-1, 1], of the canvas's last level."""


def conditions(
    vae: Autoencoder, pictures: Mapping[int, Image], canvas: Canvas, features: Tensor | None, generator: torch.Generator
) -> Condition:
    """What a family's network is shown of known pictures, by their number in the video."""
    known = {index: padded(picture, canvas) for index, picture in pictures.items()}
    match vae:
        case WanVAE():
            return wan_condition(vae, known, canvas, features)
        case CogVideoXVAE():
            return cogvideox_condition(vae, known[0], canvas, generator)
    raise TypeError(f"{type(vae).__name__} has no condition channels")


def padded(picture: Image, canvas: Canvas) -> Tensor:
    """A picture resized to the canvas as (1, 3, H, W) in [-1, 1], its border repeated out to the network's grid."""
    sized = picture.resize((canvas.width, canvas.height), Resampling.LANCZOS)
    return fitted(np.asarray(sized), canvas, canvas.levels[-1])


def wan_condition(vae: WanVAE, known: Pictures, canvas: Canvas, features: Tensor | None) -> Condition:
    """Wan's: which frames are known, four channels for a latent frame, then the latents of a video that shows those
    frames and grey between them. The posterior's mean; nothing is drawn. `features` (1, n, i) are the pictures'.
    """
    time, count = canvas.grid.time, canvas.latent_frames
    frames = 1 + time * (count - 1)
    latents = torch.stack([vae.normalise(mean) for mean, _ in vae.encode(_with_grey(known, frames, vae))], 2)
    seen = torch.tensor([float(index in known) for index in range(frames)])
    seen = torch.cat([seen[:1].expand(time - 1), seen])
    rows, columns = latents.shape[-2:]
    mask = repeat(seen, "(t k) -> 1 k t h w", k=time, h=rows, w=columns).to(latents)
    return Condition(torch.cat([mask, latents], 1).float(), features)


def _with_grey(known: Pictures, frames: int, vae: WanVAE) -> Iterator[Tensor]:
    """The known frames and, in the places of all others, zeros: the middle of [-1, 1]."""
    like = next(iter(known.values())).to(_device(vae), _dtype(vae))
    grey = torch.zeros_like(like)
    return (known[index].to(like) if index in known else grey for index in range(frames))


def cogvideox_condition(vae: CogVideoXVAE, first: Tensor, canvas: Canvas, generator: torch.Generator) -> Condition:
    """CogVideoX's: a draw from the posterior of the first frame (1, 3, H, W), then zeros for all later latent frames.

    One draw from `generator`, before the noise of the video, as in the reference.
    """
    ((mean, logvar),) = vae.encode([first.to(_device(vae), _dtype(vae))], 1)
    noise = torch.randn(mean[:, :, None].shape, generator=generator, dtype=_dtype(vae)).to(mean)
    drawn = vae.condition(mean[:, :, None] + torch.exp(0.5 * logvar[:, :, None]) * noise).float()
    channels = drawn.new_zeros(*drawn.shape[:2], canvas.latent_frames, *drawn.shape[3:])
    channels[:, :, :1] = drawn
    return Condition(channels)


def _device(network: torch.nn.Module) -> torch.device:
    return next(network.parameters()).device


def _dtype(network: torch.nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype
