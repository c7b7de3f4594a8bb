"""Figures drawn sharp again in decoded frames: the last look into the memory, at the size of pixels.

A latent holds four frames of 8x8 pixels in a few dozen numbers, so what moves fast comes out double, and eyes come out
soft. Where the figure stands is known, and so is what it looks like: a small network compares the frame with the figure
as it should stand there, takes of that as much as it trusts, pixel by pixel, and lets the scenery go on where rags of
it hang. (Detail from a reference beside a decoder: Zhu et al. 2023, Designing a Better Asymmetric VQGAN,
arXiv:2306.04632.)
"""

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from sora_cli.model.tracing import BRIGHTEST, DARKEST, WHOLE
from sora_cli.model.vae.patch import ChannelNorm, Residual
from sora_weights.spec import RetouchSpec

CELL = 4  # pixels along a side that the network sees as one
BESIDE = 5  # cells around a figure that may be changed
CLOSE = 3  # the same where rags of them hang
ALIKE = 0.12  # by how much colours on both sides may differ, about, for the scenery between to be known
UNLIKE = 0.15  # how far from that a pixel may be, about, and not be a light, or a tree
BARE = 4  # pixels to each side that are taken together where the scenery goes on
AROUND = 3  # cells to each side of one where it is asked how far the frame is from the figure
CLOSED = -2.0  # logit of the share that is taken of the scenery as it goes on at the beginning of training
OPEN = 3.0  # logit of the share that is taken of the figure at the beginning of training, where all is as it should be
DOUBT = 6.0  # how much less that is then, for colours that are wholly apart around a cell, and the same for the figure
UNTINTED = 128.0  # pixels' worth of white light that falls on every figure, as far as is known before any is seen


class Retouch(nn.Module):
    """Frames and the figures as they stand in them -> frames with these figures drawn sharp."""

    def __init__(self, spec: RetouchSpec) -> None:
        super().__init__()
        self.spec = spec
        pixels = CELL * CELL
        self.inward = nn.Conv2d(11 * pixels + 2, spec.width, 3, padding=1)
        self.blocks = nn.ModuleList(Residual(spec.width) for _ in range(spec.depth))
        self.norm = ChannelNorm(spec.width)
        self.outward = nn.Conv2d(spec.width, 5 * pixels, 3, padding=1)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.outward.bias[3 * pixels :], CLOSED)  # type: ignore[index]
        nn.init.constant_(self.outward.bias[4 * pixels :], OPEN)  # type: ignore[index]
        self.doubt = nn.Parameter(torch.full((2, 1, 1), DOUBT))

    @property
    def margin(self) -> int:
        """How many pixels around figures matter: those that may change, and what the network sees around these."""
        return CELL * (BESIDE + 2 + self.spec.depth)

    def forward(
        self, frames: Tensor, figure: Tensor, swept: Tensor, off: Tensor | None = None, clearing: float = 0.0
    ) -> Tensor:
        """Frames (n, 3, H, W) in [-1, 1], figures in the light of these, (n, 4, H, W), premultiplied, in [0, 1], and
        where these are in any frame of the same latent frame, (n, 1, H, W) -> frames. Where they are parts of larger
        ones, `off` is what `apart` says of those. `clearing` is how much more than it learned the network is to take of
        the scenery as it goes on, in logits, close to figures and where that is sure.

        Sides are multiples of `CELL`; what is farther than `BESIDE` cells from what is `swept` stays as it is.
        """
        drawn, beside = (frames + 1) / 2, near(swept)
        scenery, sure = _scenery(drawn, beside, figure)
        off = apart(frames, figure) if off is None else off
        differing = _apart_around(drawn, figure, off)
        dtype = self.inward.weight.dtype
        cells = F.pixel_unshuffle(torch.cat([each.to(dtype) for each in (drawn, figure, scenery, swept)], 1), CELL)
        x = torch.cat([cells, differing.to(dtype)], 1)
        x = self.inward(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        told = F.pixel_shuffle(self.outward(F.silu(self.norm(x))), CELL).float()
        doubt = F.interpolate((self.doubt * differing).sum(1, keepdim=True), scale_factor=float(CELL), mode="bilinear")
        clearer = clearing * sure * near(swept, CLOSE)
        detail, bare, whole = told[:, :3], (told[:, 3:4] + clearer).sigmoid(), (told[:, 4:] - doubt).sigmoid()
        behind = torch.lerp(drawn, scenery, bare * beside) + detail * beside
        return torch.lerp(behind, figure[:, :3] + (1 - figure[:, 3:]) * behind, whole) * 2 - 1


def apart(frames: Tensor, figure: Tensor) -> Tensor:
    """How far frames (n, 3, H, W) in [-1, 1] are from the figures that they should show, (n, 4, H, W), where these are
    whole, on the average: (n, 1, 1, 1).
    """
    return _share(_differing((frames + 1) / 2, figure).mean((2, 3), keepdim=True))


def _apart_around(drawn: Tensor, figure: Tensor, off: Tensor) -> Tensor:
    """The same for what is around each cell, and of all: (n, 2, H / CELL, W / CELL)."""
    around = _share(F.avg_pool2d(F.avg_pool2d(_differing(drawn, figure), CELL), 2 * AROUND + 1, 1, AROUND))
    return torch.cat([around, off.expand_as(around)], 1)


def _differing(drawn: Tensor, figure: Tensor) -> Tensor:
    """By how much pixels that show a whole figure differ from it, 0 for others, and which these are: (n, 2, H, W)."""
    whole = (figure[:, 3:] > WHOLE).to(drawn)
    return torch.cat([(drawn - figure[:, :3]).abs().mean(1, keepdim=True) * whole, whole], 1)


def _share(both: Tensor) -> Tensor:
    return both[:, :1] / both[:, 1:].clamp(min=1e-3)


def _scenery(drawn: Tensor, beside: Tensor, figure: Tensor) -> tuple[Tensor, Tensor]:
    """Frames (n, 3, H, W) in which the scenery goes on where something is `beside` (n, 1, H, W): row by row, as scenes
    lie in layers, from what is to the left of it to what is to the right; and how sure that is, from 0 to 1,
    (n, 1, H, W): less where both sides differ, and where something else is than on either, as a sun, unless it is
    of the colours of the `figure` (n, 4, H, W). Rows without either stay as they are.
    """
    bare, width = 1 - beside, drawn.shape[3]
    seen = F.avg_pool2d(F.pad(torch.cat([drawn * bare, bare], 1), (BARE, BARE)), (1, 2 * BARE + 1), 1)
    soft = seen[:, :3] / seen[:, 3:].clamp(min=1e-3)  # without grain, which would become streaks
    at = torch.arange(width, device=drawn.device).expand_as(bare)
    left = torch.where(bare > 0, at, -1).cummax(3).values
    right = torch.where(bare > 0, at, width).flip(3).cummin(3).values.flip(3)
    share = ((at - left) / (right - left).clamp(min=1)).where(left >= 0, torch.ones_like(bare))
    share = share.where(right < width, torch.zeros_like(bare))
    from_left, from_right = (soft.gather(3, end.clamp(0, width - 1).expand_as(soft)) for end in (left, right))
    known = (left >= 0) | (right < width)
    scenery = torch.where((beside > 0) & known, torch.lerp(from_left, from_right, share), drawn)
    differing = (from_left - from_right).abs().amax(1, keepdim=True) / ALIKE
    unlike = (drawn - scenery).abs().mean(1, keepdim=True) / UNLIKE
    return scenery, torch.exp(-(differing**2) - unlike**2 * (1 - _rag(drawn, scenery, figure)))


def _rag(drawn: Tensor, scenery: Tensor, figure: Tensor) -> Tensor:
    """How well what is `drawn` is explained by the `figure` close by, over the `scenery` as it goes on, from 0 to 1,
    (n, 1, H, W).
    """
    around = F.avg_pool2d(F.avg_pool2d(figure, CELL), 2 * CLOSE + 1, 1, CLOSE)
    near_by = F.interpolate((around[:, 3:] > 0).to(drawn), scale_factor=float(CELL))
    colour = F.interpolate(around[:, :3] / around[:, 3:].clamp(min=1e-3), scale_factor=float(CELL), mode="bilinear")
    there, whole = drawn - scenery, colour - scenery
    share = (there * whole).sum(1, keepdim=True) / (whole**2).sum(1, keepdim=True).clamp(min=1e-3)
    off = ((there - share.clamp(0, 1) * whole) ** 2).sum(1, keepdim=True)
    return near_by * torch.exp(-off / ALIKE**2)


def near(cover: Tensor, reach: int = BESIDE) -> Tensor:
    """1 in cells that a figure covers in part, (n, 1, H, W), and in those around them, 0 in others."""
    cells = F.max_pool2d(F.max_pool2d(cover, CELL), 2 * reach + 1, 1, reach)
    return F.interpolate((cells > 0).to(cover), scale_factor=float(CELL))


def light_on(frames: Tensor, figure: Tensor) -> Tensor:
    """How the light falls on figures (b, T, 4, H, W) in frames (b, T, 3, H, W) in [-1, 1]: sums over whole pixels of
    what is seen and of what is their own, (b, 3) each. Sums of several groups of frames may be added up.
    """
    colours, cover = figure[:, :, :3], figure[:, :, 3:]
    whole = (cover > WHOLE).to(colours)
    seen, own = (reduce(each * whole, "b T k h w -> b k", "sum") for each in ((frames + 1) / 2, colours))
    return torch.stack([seen, own])


def lit(figure: Tensor, light: Tensor) -> Tensor:
    """Figures (b, T, 4, H, W) in the light that `light_on` found."""
    seen, own = light
    tint = ((seen + UNTINTED) / (own + UNTINTED)).clamp(DARKEST, BRIGHTEST)
    return torch.cat([figure[:, :, :3] * rearrange(tint, "b k -> b 1 k 1 1"), figure[:, :, 3:]], 2)
