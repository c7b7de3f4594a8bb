"""What diorama's memory holds, and the lesson that teaches its attention where to look."""

import torch
import torch.nn.functional as F
from dit_training import WORDINGS, Batch, combinations
from einops import rearrange, reduce, repeat
from torch import Tensor, nn
from vocabulary import SUBJECTS
from world import Sprites

from sora_cli.model.dit import DiT
from sora_cli.model.recall import Asking, Memory
from sora_cli.model.vae.patch import SPACE, TIME, PatchVAE

BACKGROUND = 0.5  # grey, behind the figures of the memory
ROUNDS = 3  # of finding each figure's name among the words of its captions
PLAIN = 0.25  # a latent with less of the figure in it teaches nothing


def fill_memory(net: DiT, captions: tuple[Tensor, Tensor], sprites: dict[str, Sprites], vae: PatchVAE) -> None:
    """Put every subject's picture, facing left, and the meaning of its name into the network's memory."""
    memory = net.memory
    memory.centre.copy_(captions[0][captions[1]].float().mean(0))
    memory.names.copy_(_names(memory, *captions))
    spread = rearrange(net.spread, "c -> c 1 1")
    side = net.spec.sheet
    for sheet, subject in zip(memory.sheets, SUBJECTS, strict=True):
        picture = sprites[subject].level(side * SPACE)[0].float() / 255
        picture = F.interpolate(picture[None], (side * SPACE, side * SPACE), mode="area")
        shown = picture[:, :3] + (1 - picture[:, 3:]) * BACKGROUND
        still = repeat(shown * 2 - 1, "b c h w -> b c T h w", T=TIME)
        sheet[:-1].copy_(vae.encode_group(still)[0, :, 0] / spread)
        sheet[-1].copy_(reduce(picture[0, 3], "(h p) (w q) -> h w", "mean", p=SPACE, q=SPACE))


def _names(memory: Memory, features: Tensor, seen: Tensor) -> Tensor:
    """For each subject the mean of the words of its captions that say it best; unit vectors (figures, e)."""
    subjects = list(SUBJECTS)
    owner = torch.tensor([subjects.index(who[0]) for who in combinations() for _ in range(WORDINGS)])
    words = F.normalize(features.float() - memory.centre, dim=-1)
    rows = torch.arange(len(owner))
    chosen = (words * seen[..., None]).sum(1)
    for _ in range(ROUNDS):
        names = F.normalize(torch.stack([chosen[owner == k].mean(0) for k in range(len(subjects))]), dim=-1)
        alike = (words @ names.T).masked_fill(~seen[..., None], -1.0)  # (captions, m, figures)
        chosen = words[rows, alike[rows, :, owner].argmax(1)]
    return names


class Pointing:
    """The lesson: head i of each look into the memory should find the point of the artwork that latent i of a patch
    shows.

    Once registered on a network it notes what each look asks; `loss` compares that with the truth and forgets it.
    """

    def __init__(self, net: DiT) -> None:
        self._asked: list[Tensor] = []
        self._side, self._patch = net.spec.sheet, net.spec.patch
        for module in net.modules():
            if isinstance(module, Asking):
                module.register_forward_hook(self._note)

    def _note(self, _asking: nn.Module, _inputs: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor]) -> None:
        q, k = asked
        scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        self._asked.append(scores.log_softmax(-1))

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy between where the heads look and the four entries of a sheet around the true point."""
        order = "b t (h p) (w q) -> b (p q) (t h w)"
        share = rearrange(batch.figure, order, p=self._patch, q=self._patch)
        x, y = (
            rearrange(axis, order, p=self._patch, q=self._patch) * self._side / 2 + (self._side - 1) / 2
            for axis in batch.artwork.unbind(1)
        )
        weight = share * (share > PLAIN)
        total = torch.zeros_like(share)
        for dx in (0, 1):
            for dy in (0, 1):
                column, row = x.floor() + dx, y.floor() + dy
                near = (1 - (x - column).abs()) * (1 - (y - row).abs())
                index = row.clamp(0, self._side - 1) * self._side + column.clamp(0, self._side - 1)
                for looked in self._asked:
                    total = total - near * looked.gather(-1, index.long()[..., None])[..., 0]
        lessons = len(self._asked)
        self._asked.clear()
        return (total * weight).sum() / weight.sum().clamp(min=1) / max(lessons, 1)
