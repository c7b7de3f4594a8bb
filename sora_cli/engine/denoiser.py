"""From a network's output to predicted x0, and wrappers of one signature: guided, pinned, windowed.

A `Denoiser` maps latents x (b, c, t, h, w) at a row's level to the x0 that it expects, of the same shape.
Wrappers take denoisers and give denoisers, so that they compose and never know each other.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from types import EllipsisType
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from sora_cli.engine.schedule import Prediction, Row

Denoiser = Callable[[Tensor, Row], Tensor]
Network = Callable[[Tensor, Tensor], Tensor]
Grid = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """A box of the latent grid."""

    t: slice
    h: slice
    w: slice

    @property
    def index(self) -> tuple[EllipsisType, slice, slice, slice]:
        """Cuts the window out of (b, c, t, h, w)."""
        return (..., self.t, self.h, self.w)


WHOLE_PICTURE = Window(slice(None), slice(None), slice(None))


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Latents (b, c, t, h, w), known where the float mask (b or 1, 1, t, h, w) is 1, and how they are used.

    "pin" replaces the known part of each predicted x0. "native" does that too, and besides shows the network
    every frame that is known throughout clean and at timestep 0, which it was trained for.
    """

    latents: Tensor
    mask: Tensor
    mode: Literal["native", "pin"]

    def crop(self, window: Window) -> "Known":
        """What is known inside a window."""
        return replace(self, latents=self.latents[window.index], mask=self.mask[window.index])


def from_network(network: Network, kind: Prediction, known: Known | None = None) -> Denoiser:
    """The innermost denoiser: network(x, timesteps (b, t)) -> output (b, c, t, h, w), read as predicted x0.

    Conditioning (text, positions, extra channels) is bound into the network; known parts need `pinned` too.
    """

    def denoise(x: Tensor, row: Row) -> Tensor:
        output = network(*network_inputs(x, row, known))
        return prediction_to_x0(output.to(x.dtype), x, row, kind)

    return denoise


def network_inputs(x: Tensor, row: Row, known: Known | None) -> tuple[Tensor, Tensor]:
    """Latents and timesteps (b, t) as the network sees them: native known frames are clean, at timestep 0."""
    timesteps = torch.full((x.shape[0], x.shape[2]), float(row.t), device=x.device)
    if known is None or known.mode == "pin":
        return x, timesteps
    clean = (known.mask == 1).all(dim=(1, 3, 4))
    shown = torch.where(rearrange(clean, "b t -> b 1 t 1 1"), known.latents, x)
    return shown, timesteps.masked_fill(clean, 0.0)


def prediction_to_x0(output: Tensor, x: Tensor, row: Row, kind: Prediction) -> Tensor:
    """x0 of (b, c, t, h, w) from what the network predicts in x = alpha * x0 + sigma * noise.

    flow: noise - x0, where alpha = 1 - sigma (Liu et al. 2022, arXiv:2209.03003).
    v: alpha * noise - sigma * x0, where alpha^2 + sigma^2 = 1 (Salimans and Ho 2022, arXiv:2202.00512).
    epsilon: the noise (Ho et al. 2020, arXiv:2006.11239, eq. 15).
    Raises ValueError for epsilon at alpha 0, where x says nothing of x0.
    """
    match kind:
        case "x0":
            return output
        case "flow":
            return x - row.sigma * output
        case "v":
            return row.alpha * x - row.sigma * output
        case "epsilon":
            if row.alpha == 0:
                raise ValueError(f"an epsilon prediction has no x0 at timestep {row.t}: alpha is 0")
            return (x - row.sigma * output) / row.alpha


def settled(x0: Callable[[], Tensor]) -> Denoiser:
    """What needs no network, as there is nothing left to draw; it is read when it is asked for."""
    return lambda _x, _row: x0()


def guided(cond: Denoiser, uncond: Denoiser, scale: float) -> Denoiser:
    """Guidance uncond + scale * (cond - uncond); scale 1 never calls `uncond`.

    Guiding predicted x0 equals guiding the network's output, which is affine in it.
    Source: Ho and Salimans 2022, Classifier-Free Diffusion Guidance (arXiv:2207.12598).
    """
    if scale == 1:
        return cond

    def denoise(x: Tensor, row: Row) -> Tensor:
        away = uncond(x, row)
        return away + scale * (cond(x, row) - away)

    return denoise


def pinned(denoise: Denoiser, known: Known | None) -> Denoiser:
    """Puts what is known into every predicted x0; the solver then carries it to the right noise level.

    A mask between 0 and 1 mixes. Source: the replacement of RePaint (Lugmayr et al. 2022, arXiv:2201.09865),
    on x0 instead of x and without its resampling.
    """
    if known is None:
        return denoise
    return lambda x, row: torch.lerp(denoise(x, row), known.latents, known.mask)


def windowed(
    denoiser_of: Callable[[Window], Denoiser], windows: Sequence[Window], weights: Sequence[Tensor]
) -> Denoiser:
    """Denoises window by window and blends the predicted x0 by `blend_weights`: one (t, h, w) per window.

    `denoiser_of` binds what a window's denoiser has to know: its global positions, `known.crop(window)`.
    Raises ValueError for latents of another grid than the windows'.
    Source: Bar-Tal et al. 2023, MultiDiffusion (arXiv:2302.08113), on x0.
    """
    parts = [(window, weight, denoiser_of(window)) for window, weight in zip(windows, weights, strict=True)]
    grid = tuple(max(stops) for stops in zip(*((w.t.stop, w.h.stop, w.w.stop) for w in windows), strict=True))

    def denoise(x: Tensor, row: Row) -> Tensor:
        if x.shape[2:] != grid:
            raise ValueError(f"latents {tuple(x.shape[2:])}, windows for {grid}")
        blended = torch.zeros_like(x)
        for window, weight, inner in parts:
            blended[window.index] += weight.to(x) * inner(x[window.index], row)
        return blended

    return denoise


def windows(grid: Grid, size: Grid, overlap: Grid, patch: Grid = (1, 1, 1)) -> tuple[Window, ...]:
    """Windows of `size` over the whole (t, h, w) grid, spread evenly, neighbours sharing `overlap` or more.

    Windows begin on whole patches. Along an axis no longer than `size` there is one window, the whole axis.
    Raises ValueError unless 0 <= overlap < size and all are multiples of the patch.
    """
    axes = [_spans(*axis) for axis in zip(grid, size, overlap, patch, strict=True)]
    return tuple(Window(*box) for box in product(*axes))


def blend_weights(windows: Sequence[Window]) -> tuple[Tensor, ...]:
    """One weight (t, h, w) per window: positive, a raised cosine over each overlap, 1 in sum everywhere."""
    axes = [_ramps([getattr(window, axis) for window in windows]) for axis in "thw"]
    return tuple(torch.einsum("t,h,w->thw", *ramps).float() for ramps in zip(*axes, strict=True))


def _spans(length: int, size: int, overlap: int, patch: int) -> tuple[slice, ...]:
    if not 0 <= overlap < size or any(value % patch for value in (length, size, overlap)):
        raise ValueError(f"windows of {size} sharing {overlap} in {length}: need whole patches of {patch}")
    slack = (length - size) // patch
    if slack <= 0:
        return (slice(0, length),)
    hops = math.ceil(slack * patch / (size - overlap))
    starts = (patch * (hop * slack // hops) for hop in range(hops + 1))
    return tuple(slice(start, start + size) for start in starts)


def _ramps(spans: Sequence[slice]) -> list[Tensor]:
    """The weights of each span along one axis, float64; those of the distinct spans sum to 1 everywhere."""
    distinct = sorted({(span.start, span.stop) for span in spans})
    shapes = {span: torch.ones(span[1] - span[0], dtype=torch.float64) for span in distinct}
    for before, after in pairwise(distinct):
        rise = _rise(before[1] - after[0])
        shapes[after][: len(rise)] *= rise
        shapes[before][len(shapes[before]) - len(rise) :] *= rise.flip(0)
    total = torch.zeros(max(stop for _, stop in distinct), dtype=torch.float64)
    for (start, stop), shape in shapes.items():
        total[start:stop] += shape
    return [shapes[span.start, span.stop] / total[span.start : span.stop] for span in spans]


def _rise(length: int) -> Tensor:
    """A raised cosine from above 0 to below 1 whose mirror image completes it to 1."""
    return torch.sin(torch.pi / 2 * (torch.arange(length, dtype=torch.float64) + 0.5) / max(length, 1)) ** 2
