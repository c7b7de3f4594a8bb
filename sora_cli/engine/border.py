"""What is drawn inside a mask, joined to what is around it so that nobody sees where."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RING = 4  # pixels around a mask that say how far what is made is off there
CELL = 4  # pixels along a square in which that is averaged first
FAR = 8  # of the picture's shorter side: windows in which cells are averaged reach no further
FADE = 0.03  # share of such windows that must be known for half of what is off to be taken back
STEEP = 4.0  # how much farther away what is above or below seems than what is beside
SOFT = 2  # pixels by which what goes on into a hole is blurred, about
LOUD = 40.0  # levels by which pixels are off where another shape rather than another colour is likely


class Border:
    """Takes back, beside the border of a mask, what is off there: own - made around the mask, averaged over ever larger
    windows of which the small ones weigh more, goes on smoothly inside it and fades. Why nobody sees what is smooth:
    Perez et al. 2003, Poisson Image Editing; averages over what is known alone: Knutsson and Westin 1993, normalized
    convolution.
    """

    def __init__(self, inside: np.ndarray) -> None:
        """`inside` (H, W) is true where there was drawn."""
        rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        self._box = tuple(slice(max(0, at[0] - RING), at[-1] + 1 + RING) for at in (rows, columns))
        self._inside = torch.from_numpy(np.ascontiguousarray(inside[self._box])).float()[None, None]
        self._ring = F.max_pool2d(self._inside, 2 * RING + 1, 1, RING) - self._inside
        self._reaches = [1]
        while 4 * self._reaches[-1] * CELL <= min(inside.shape) / FAR:
            self._reaches.append(2 * self._reaches[-1])

    def joined(self, own: np.ndarray, made: np.ndarray) -> np.ndarray:
        """A frame that was `made`, as it is to be seen inside the mask; both uint8 (H, W, 3)."""
        ours, theirs = (torch.from_numpy(frame[self._box].astype(np.float32)) for frame in (made, own))
        off = (theirs - ours).permute(2, 0, 1)[None]
        sure = self._ring * torch.exp(-((off.abs().amax(1, keepdim=True) / LOUD) ** 2))
        cells = F.avg_pool2d(torch.cat([off * sure, sure], 1), CELL, ceil_mode=True, count_include_pad=False)
        near = sum((_averages(cells, reach) for reach in self._reaches), cells)
        smooth = F.interpolate(near[:, :3] / (near[:, 3:] + FADE), scale_factor=CELL, mode="bilinear")
        taken_back = smooth[..., : off.shape[2], : off.shape[3]] * self._inside
        whole = made.copy()
        whole[self._box] = (ours + taken_back[0].permute(1, 2, 0)).round_().clamp_(0, 255).byte().numpy()
        return whole


def filled(picture: Tensor, hole: Tensor) -> Tensor:
    """A picture (b, c, h, w) in which what is around a `hole`, 1 in (1, 1, h, w), goes on inside it: a mean of the
    nearest known pixels to the left, to the right, above and below, a little blurred so that none makes a streak, by
    the inverse squares of their distances. Scenes lie in layers, so what is above and below counts as further away.
    """
    known = torch.cat([picture * (1 - hole), (1 - hole).expand(len(picture), -1, -1, -1)], 1)
    seen = _averages(known, SOFT)
    soft = seen[:, :-1] / seen[:, -1:].clamp(min=1e-6)
    total, weight = torch.zeros_like(picture), torch.zeros_like(hole)
    for axis, farther in ((3, 1.0), (2, STEEP)):
        for turned in ((), (axis,)):
            nearest, apart = _before(soft.flip(turned), hole.flip(turned), axis)
            share = 1 / (farther * apart.flip(turned)) ** 2
            total, weight = total + nearest.flip(turned) * share, weight + share
    return torch.where(hole > 0, total / weight.clamp(min=1e-9), picture)


def _before(picture: Tensor, hole: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """For each pixel the last one before it along an axis that is in no `hole`, and how far away it is: infinitely far
    where there is none.
    """
    length = picture.shape[axis]
    at = torch.arange(length, device=hole.device).view([-1 if k == axis else 1 for k in range(4)])
    last = torch.where(hole > 0, -1, at).cummax(axis).values
    apart = torch.where(last < 0, torch.inf, at - last).to(picture).clamp(min=1)
    return torch.take_along_dim(picture, last.clamp(min=0), axis), apart


def _averages(values: Tensor, reach: int) -> Tensor:
    """Averages over windows that weigh less and less as far as twice `reach` to all sides; outside is nothing."""
    side = 2 * reach + 1
    for _ in range(2):
        values = F.avg_pool2d(F.avg_pool2d(values, (side, 1), 1, (reach, 0)), (1, side), 1, (0, reach))
    return values
