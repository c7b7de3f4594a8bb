"""Puts the artwork of a figure where a denoiser's attention says that it is, sharp and whole.

A network that copies by attention knows early where a figure is and how large, and late what its edges look like. So
what its pointer looked at is read as correspondences, a similarity is fitted to them frame by frame, the artwork is
drawn there by a separable filter, and composed with the picture that the network has in mind: a spatial transformer
(Jaderberg et al. 2015, arXiv:1506.02025) whose localisation is attention, between layers (Wang & Adelson 1994,
Representing Moving Images with Layers).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce, repeat
from torch import Tensor, nn

from sora_cli.model.recall import Sheet
from sora_weights.spec import DiTSpec

SPACE, TIME = 8, 4  # pixels along a latent, frames in a latent frame
ENOUGH = 5.0  # latents of a figure from which its place can be told
FIT = 0.05  # squared distance from the fit, in units of half a figure, at which trust falls to 1/e
LARGEST, SMALLEST = 400.0, 2.0  # latents along a side of a figure


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where a figure is in each latent frame, (b, t) each: its centre (column and row, in latents), latents from there
    to its edge, 1 or -1 for a figure that is mirrored, and how far that can be trusted, 0 to 1.
    """

    column: Tensor
    row: Tensor
    half: Tensor
    facing: Tensor
    trust: Tensor


def fit_placement(points: Tensor, cover: Tensor) -> Placement:
    """The similarity that explains best, by least squares, which `points` of the artwork the latents show.

    points (2, b, t, h, w) from -1 to 1, weighted by `cover` (b, t, h, w), the share of a latent that is figure.
    """
    h, w = cover.shape[2:]
    column = torch.arange(w, device=cover.device) + 0.5
    row = torch.arange(h, device=cover.device)[:, None] + 0.5
    weight = cover.square()
    total = weight.sum((2, 3)).clamp(min=1e-4)

    def mean(values: Tensor) -> Tensor:
        return (weight * values).sum((2, 3)) / total

    def off(values: Tensor) -> Tensor:
        return values - mean(values)[..., None, None]

    x, y, (u, v) = off(column.expand_as(cover)), off(row.expand_as(cover)), (off(each) for each in points)
    spread, along, down = mean(x * x + y * y), mean(x * u), mean(y * v)
    facing = torch.where(along < 0, -1.0, 1.0)
    slope = ((along.abs() + down) / spread.clamp(min=1e-4)).clamp(2 / LARGEST, 2 / SMALLEST)
    apart = mean((u - (facing * slope)[..., None, None] * x) ** 2 + (v - slope[..., None, None] * y) ** 2)
    return Placement(
        column=mean(column.expand_as(cover)) - mean(points[0]) * facing / slope,
        row=mean(row.expand_as(cover)) - mean(points[1]) / slope,
        half=1 / slope,
        facing=facing,
        trust=(total / ENOUGH).clamp(max=1) * torch.exp(-apart / FIT),
    )


def drawn(pictures: Tensor, column: Tensor, row: Tensor, half: Tensor, facing: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures (b, c, s, s) with their middles at (column, row), `half` of them reaching to either side, in pixels,
    (b, n) each: (b, n, c, H, W). A tent filter as wide as a pixel of the coarser side; zeros outside.
    """
    side = pictures.shape[-1]

    def weights(count: int, centre: Tensor, scale: Tensor) -> Tensor:  # -> (b, n, count, s)
        at = torch.arange(count, device=centre.device) + 0.5 - centre[..., None]
        position = (at * scale[..., None] + 1) * side / 2 - 0.5
        width = (scale.abs() * side / 2).clamp(min=1)[..., None, None]
        entries = torch.arange(side, device=centre.device)
        return (1 - (position[..., None] - entries).abs() / width).clamp(min=0) / width

    across = weights(size[1], column, facing / half)
    down = weights(size[0], row, 1 / half)
    wide = einsum(pictures, across, "b c y x, b n w x -> b n c y w")
    return einsum(down, wide, "b n h y, b n c y w -> b n c h w")


def entries(side: int, device: torch.device) -> Tensor:
    """Which points of the artwork the entries of both sheets show, (2 * side * side, 2): x and y from -1 to 1."""
    centres = (torch.arange(side, device=device) + 0.5) * 2 / side - 1
    x, y = repeat(centres, "x -> (y x)", y=side), repeat(centres, "y -> (y x)", x=side)
    return torch.stack([torch.cat([x, -x]), torch.cat([y, y])], -1)  # in the mirror x runs backwards


class Placing(nn.Module):
    """What composing the artwork with a picture adds to its latents."""

    pictures: Tensor
    basis: Tensor
    scale: Tensor
    mean: Tensor

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__()
        values, self.side = 3 * TIME * SPACE * SPACE, spec.sheet
        self.register_buffer("pictures", torch.zeros(spec.figures, 4, spec.picture, spec.picture))
        self.register_buffer("basis", torch.zeros(spec.channels, values))  # of the autoencoder's linear part
        self.register_buffer("scale", torch.ones(spec.channels))
        self.register_buffer("mean", torch.zeros(values))
        self.cover = nn.Linear(spec.width, spec.patch**2)
        self.nudge = nn.Linear(spec.width, 4)  # of column, row and size, and whether to compose
        self.tint = nn.Linear(spec.width, 3)
        for layer in (self.nudge, self.tint):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        tokens: Tensor,
        looked: Tensor,
        sheet: Sheet,
        words: Tensor,
        seconds: Tensor,
        rate: Tensor,
        clean: Tensor,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """What to add to the clean latents (b, c, t, h, w) that the network has in mind, and logits of the share of
        each latent that is figure, (b, t, h, w).

        tokens (b, n, d); looked (b, p·q, n, m), where each latent of a patch looks; words (b, d), what the text is
        about; seconds (b, t) and latent frames a second (b,); mask (b, t, h, w) or None.
        """
        t, h, w = clean.shape[2:]
        patch = math.isqrt(looked.shape[1])
        grid = {"t": t, "h": h // patch, "p": patch, "q": patch}
        tokens, words = tokens.to(self.cover.weight.dtype), words.to(self.cover.weight.dtype)
        logits = rearrange(self.cover(tokens).float(), "b (t h w) (p q) -> b t (h p) (w q)", **grid)
        points = rearrange(
            looked.float() @ entries(self.side, looked.device), "b (p q) (t h w) two -> two b t (h p) (w q)", **grid
        )
        cover = logits.sigmoid() if mask is None else logits.sigmoid() * mask
        place = fit_placement(points, cover)
        heavy = reduce(cover, "b t (h p) (w q) -> b t (h w)", "mean", p=patch, q=patch)
        heavy = heavy / heavy.sum(-1, keepdim=True).clamp(min=1e-3)
        seen = einsum(rearrange(tokens.float(), "b (t n) d -> b t n d", t=t), heavy, "b t n d, b t n -> b t d")
        nudge = self.nudge(seen.to(tokens.dtype)).float()
        figure = self._figure(sheet.figure, place, nudge, seconds, rate, (h * SPACE, w * SPACE))
        tint = rearrange(1 + self.tint(words).float(), "b c -> b 1 1 c 1 1")
        added = self._composed(figure, tint, clean)
        share = place.trust * nudge[..., 3].sigmoid() * sheet.found[:, :, 0].float()
        return added * rearrange(share, "b t -> b 1 t 1 1"), logits

    def _figure(
        self, figure: Tensor, place: Placement, nudge: Tensor, seconds: Tensor, rate: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """The artwork in every frame of every latent frame: premultiplied RGBA (b, t, T, 4, H, W)."""
        half = place.half * torch.exp(nudge[..., 2])
        column, row = place.column + nudge[..., 0] * half, place.row + nudge[..., 1] * half
        frames = (torch.arange(TIME, device=seconds.device) - (TIME - 1) / 2) / TIME / rate[:, None, None]
        later = frames * (seconds > 0)[..., None]  # the first latent frame of a clip holds one frame
        across, down, reach = (_moving(SPACE * each, seconds, later) for each in (column, row, half))
        facing = repeat(place.facing, "b t -> b (t T)", T=TIME)
        picture = drawn(self.pictures[figure].float(), across, down, reach, facing, size)
        return rearrange(picture, "b (t T) c h w -> b t T c h w", T=TIME)

    def _composed(self, figure: Tensor, tint: Tensor, clean: Tensor) -> Tensor:
        """The change of latents when the artwork (b, t, T, 4, H, W) lies before what they show."""
        split = "b t h w (c T p q) -> b t T c (h p) (w q)"
        sizes = {"c": 3, "T": TIME, "p": SPACE, "q": SPACE}
        values = rearrange(clean, "b c t h w -> b t h w c") * self.scale @ self.basis + self.mean
        behind = rearrange(values, split, **sizes)
        colour, alpha = figure[:, :, :, :3] * tint, figure[:, :, :, 3:]
        change = rearrange(2 * colour - alpha - alpha * behind, "b t T c (h p) (w q) -> b t h w (c T p q)", **sizes)
        return rearrange(change @ (self.basis / self.scale[:, None]).T, "b t h w c -> b c t h w")


def _moving(values: Tensor, seconds: Tensor, later: Tensor) -> Tensor:
    """Values (b, t) at `seconds` (b, t), a little `later` (b, t, T) at the speed that they have there: (b, t·T)."""
    apart, change = seconds.diff(dim=1), values.diff(dim=1)
    known = (apart > 1e-4).to(values)  # frames that fill up a batch repeat the last one's time
    speeds = F.pad(known * change / apart.clamp(min=1e-4), (1, 1))
    sides = F.pad(known, (1, 1))
    speed = (speeds[:, 1:] + speeds[:, :-1]) / (sides[:, 1:] + sides[:, :-1]).clamp(min=1)
    return rearrange(values[..., None] + speed[..., None] * later, "b t T -> b (t T)")
