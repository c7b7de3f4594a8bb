"""Which figure of its memory diorama sees in the frames that a clip gives, so that it can go on with it.

A denoiser that is told what a picture shows denoises it better (Li et al. 2023, Your Diffusion Model is Secretly a
Zero-Shot Classifier, arXiv:2303.16203, section 3). So the names of all figures are tried on a noisy given frame.
"""

import math

import torch
from einops import rearrange
from torch import Tensor

from sora_cli.engine.backbones import DioramaBackbone, Place, Text
from sora_cli.engine.canvas import Level
from sora_cli.engine.denoiser import Window
from sora_cli.engine.reel import Span

NOISE = 0.4  # at which names matter: with less the picture says all, with more it says nothing
BETTER = 1.03  # of the error without words is left with a figure's name, at most; wrong names add to it
CLEARLY = 0.96  # of the error with the next best name, at most, unless the words say the same
ALIKE = 0.4  # of colours with the figure's own, at least: some pictures are empty, and any name is a help there
AT_ONCE = 7  # names tried together


@torch.no_grad()
def recognised(
    backbone: DioramaBackbone, frame: Tensor, level: Level, fps: float, texts: Text, told: int | None = None
) -> int | None:
    """The number of the figure that a frame of latents (1, c, 1, h, w) shows, or None where it shows none clearly.

    `texts` are features (n + 1, m, e) of the names of n figures and, last, of no words. Where the words have `told`
    which it is, it only needs to be the likeliest.
    """
    frame = frame.to(backbone.device)
    noise = torch.randn(frame.shape, generator=torch.Generator().manual_seed(0)).to(frame.device)
    x = torch.lerp(frame, noise, NOISE)
    whole = Window(slice(None), slice(None), slice(None))
    place = Place(level, whole, Span(0, 1, 0, 1), fps)
    errors = []
    for features, seen in zip(*(torch.split(each, AT_ONCE) for each in texts), strict=True):
        noisy, timesteps = x.expand(len(features), *x.shape[1:]), x.new_full((len(features), 1), NOISE)
        made = backbone.bind((features, seen), place, None)(noisy, timesteps)
        off = (made - frame) / rearrange(backbone.network.spread, "c -> c 1 1 1")
        errors.append((off**2).mean((1, 2, 3, 4)))
    *named, unnamed = torch.cat(errors).tolist()
    best, *others = sorted(range(len(named)), key=named.__getitem__)
    next_best = named[others[0]] if others else math.inf
    if named[best] > BETTER * unnamed or (best != told and named[best] > CLEARLY * next_best):
        return None
    own = texts[0][best : best + 1], texts[1][best : best + 1]
    return best if backbone.likeness(frame, own, place) > ALIKE else None
