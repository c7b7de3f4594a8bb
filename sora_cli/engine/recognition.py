"""Which figure of its memory diorama sees in the frames that a clip gives, and in which scene, so that it can go on.

A denoiser that is told what a picture shows denoises it better (Li et al. 2023, Your Diffusion Model is Secretly a
Zero-Shot Classifier, arXiv:2303.16203, section 3). So the names of all figures are tried on a noisy given frame.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from sora_cli.engine.backbones import DioramaBackbone, Place, Text
from sora_cli.engine.canvas import Level
from sora_cli.engine.denoiser import WHOLE_PICTURE, Window
from sora_cli.engine.reel import Span

NOISE = 0.4  # at which names matter: with less the picture says all, with more it says nothing
NOISIER = 0.92  # the same for scenes, which colours say long before shapes are seen
LIKELIEST = 12  # names with which it is denoised best are looked at closely
TELLING = 0.97  # share of the usual error that the right name leaves at most: up to 0.94 of ours
ALIKE = 0.7  # of colours with the figure's own, at least: ours are 0.73 and more, of real footage up to 0.57
APART = 0.055  # colours from 0 to 1 on the average, at most: ours are 0.02 to 0.05, of real footage 0.10 and more
LENIENT = 0.75  # of either is enough where the words say the same
AT_ONCE = 7  # names tried together


@torch.no_grad()
def recognised(
    backbone: DioramaBackbone, frame: Tensor, level: Level, fps: float, texts: Text, told: int | None = None
) -> int | None:
    """The number of the figure that a frame of latents (1, c, 1, h, w) shows, or None where it shows none.

    `texts` are features (n, m, e) of the names of n figures. Where the words have `told` which it is, it need not look
    quite as much like it.
    """
    frame, place = frame.to(backbone.device), _picture(level, fps)
    if told is not None:
        likely = [told]
    else:
        errors = _errors(backbone, frame, place, texts, NOISE)
        likely = errors.topk(min(LIKELIEST, len(texts[0])), largest=False).indices.tolist()
        likely = [name for name in likely if errors[name] < TELLING * errors.median()]
        if not likely:
            return None
    seen = {name: backbone.likeness(frame, (texts[0][[name]], texts[1][[name]]), place) for name in likely}
    best = max(likely, key=lambda name: seen[name][0] - ALIKE / APART / 2 * seen[name][1])
    strictness = 1.0 if told is None else LENIENT
    alike, apart = seen[best]
    return best if alike > ALIKE * strictness and apart < APART / strictness else None


@torch.no_grad()
def seen_in(
    backbone: DioramaBackbone, frames: Sequence[Tensor], level: Level, fps: float, text: Text, parts: Sequence[Window]
) -> Window | None:
    """The part of the picture in which all of some frames of latents (1, c, 1, h, w) show the figure that a text is
    about, or None where none does.
    """
    alike = []
    for part in parts:
        place = replace(_picture(level, fps), window=part)
        seen = (backbone.likeness(frame[..., part.w].to(backbone.device), text, place)[0] for frame in frames)
        alike.append(min(seen))
    best = max(range(len(parts)), key=alike.__getitem__)
    return parts[best] if alike[best] > ALIKE * LENIENT else None


@torch.no_grad()
def scene_of(backbone: DioramaBackbone, frame: Tensor, level: Level, fps: float, texts: Text) -> int:
    """Which of n texts, features (n, m, e), goes best with a frame of latents (1, c, 1, h, w). They name what it shows,
    and one scene each.
    """
    return int(_errors(backbone, frame.to(backbone.device), _picture(level, fps), texts, NOISIER).argmin())


def _picture(level: Level, fps: float) -> Place:
    return Place(level, WHOLE_PICTURE, Span(0, 1, 0, 1), fps)


def _errors(backbone: DioramaBackbone, frame: Tensor, place: Place, texts: Text, level: float) -> Tensor:
    """How badly a frame that was made noisy is denoised with each of n texts, (n,)."""
    noise = torch.randn(frame.shape, generator=torch.Generator().manual_seed(0)).to(frame.device)
    x = torch.lerp(frame, noise, level)
    errors = []
    for features, seen in zip(*(torch.split(each, AT_ONCE) for each in texts), strict=True):
        noisy, timesteps = x.expand(len(features), *x.shape[1:]), x.new_full((len(features), 1), level)
        made = backbone.bind((features, seen), place, None)(noisy, timesteps)
        off = (made - frame) / rearrange(backbone.network.spread, "c -> c 1 1 1")
        errors.append((off**2).mean((1, 2, 3, 4)))
    return torch.cat(errors)
