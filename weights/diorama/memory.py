"""What diorama's memory holds, and the lesson that teaches its attention where to look."""

from pathlib import Path

import torch
import torch.nn.functional as F
from dit_training import Captions
from einops import rearrange, reduce, repeat
from examples import Batch
from torch import Tensor, nn
from world import Sprites

from sora_cli.model.artwork import Drawn, write_artwork
from sora_cli.model.dit import DiT
from sora_cli.model.recall import Asking
from sora_cli.model.tracing import GREY
from sora_cli.model.vae.patch import SPACE, TIME, PatchVAE

FEWER = 5  # one caption in so many is enough for the mean of all words
PLAIN = 0.25  # a latent with less of the figure in it teaches nothing


def fill_memory(net: DiT, captions: Captions, names: Tensor, sprites: Sprites, vae: PatchVAE) -> None:
    """Put every subject's picture, facing left and in the mirror, and what its `names` (`name_table`) mean into the
    network's memory, and how the autoencoder encodes.
    """
    memory, side = net.memory, net.spec.sheet
    few = Captions(*(each[::FEWER].to(memory.centre.device) for each in captions))
    memory.centre.copy_(few.features[few.seen].float().mean(0))
    apart = (names.to(memory.centre) - memory.centre) * (names.abs().amax(-1, keepdim=True) > 0).to(memory.centre)
    memory.names.copy_(F.normalize(apart, dim=-1))
    pictures = sprites.level(side * SPACE)[sprites.first].float() / 255
    pictures = F.interpolate(pictures, (side * SPACE, side * SPACE), mode="area")
    both = torch.stack([pictures, pictures.flip(-1)], 1).flatten(0, 1)
    shown = both[:, :3] + (1 - both[:, 3:]) * GREY
    latents = vae.encode_group(repeat(shown * 2 - 1, "b c h w -> b c T h w", T=TIME))[:, :, 0]
    cover = reduce(both[:, 3:], "b c (h p) (w q) -> b c h w", "mean", p=SPACE, q=SPACE)
    sheets = torch.cat([latents / rearrange(net.spread.to(latents), "c -> c 1 1"), cover], 1)
    memory.sheets.copy_(rearrange(sheets, "(b views) c h w -> b views c h w", views=2))
    draw_pictures(net, sprites, vae)


def animate(net: DiT, sprites: Sprites) -> None:
    """Give the memory the pictures of the figures, which it does not hold itself."""
    levels = [mip for mip in sprites.mips if mip.shape[-1] <= net.spec.artwork]
    net.memory.artwork = Drawn(levels, sprites.first)


def write_figures(path: Path, sprites: Sprites) -> None:
    """Write the same pictures as a file, which ships beside the network."""
    write_artwork(path, sprites.mips[0].cpu(), sprites.count.tolist())


def draw_pictures(net: DiT, sprites: Sprites, vae: PatchVAE) -> None:
    """Put the pictures that figures are traced from into the memory, and what makes scaled latents of them."""
    memory = net.memory
    animate(net, sprites)
    spread = net.spread.to(vae.mean)
    basis = rearrange(vae.basis, "d (c T p q) -> d c T p q", c=3, T=TIME, p=SPACE)
    memory.patches.copy_(2 * basis / rearrange(vae.scale * spread, "d -> d 1 1 1 1"))
    memory.plain.copy_(-vae.basis @ (1 + vae.mean) / (vae.scale * spread))
    colours = reduce(vae.basis, "d (c rest) -> c d", "mean", c=3)
    memory.tints.copy_(colours * vae.scale * spread / 2)
    memory.tone.copy_((reduce(vae.mean, "(c rest) -> c", "mean", c=3) + 1) / 2)


class Covering:
    """The lesson: the pointer should know how much of each latent is figure.

    Once registered on a network it notes what the pointer says; `loss` compares that with the truth and forgets it.
    """

    def __init__(self, net: DiT) -> None:
        self._said: list[Tensor] = []
        self._patch = net.spec.patch
        net.pointer.cover.register_forward_hook(lambda _module, _inputs, logits: self._said.append(logits))

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy, in nats."""
        true = rearrange(batch.figure, "b t (h p) (w q) -> b (t h w) (p q)", p=self._patch, q=self._patch)
        logits = self._said.pop().float()
        return F.binary_cross_entropy_with_logits(logits, true.clamp(0, 1))


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
        q, k = (each[:, : self._patch**2] for each in asked)
        self._asked.append((q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5)

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy between where the heads look and the four entries of the right sheet around the true
        point.
        """
        order = "b t (h p) (w q) -> b (p q) (t h w)"
        share = rearrange(batch.figure, order, p=self._patch, q=self._patch)
        x, y = (
            rearrange(axis, order, p=self._patch, q=self._patch) * self._side / 2 + (self._side - 1) / 2
            for axis in batch.artwork.unbind(1)
        )
        weight = share * (share > PLAIN)
        sheet = self._side**2 * rearrange(batch.mirrored, "b -> b 1 1").long()
        corners, nearness = [], []
        for dx in (0, 1):
            for dy in (0, 1):
                column, row = x.floor() + dx, y.floor() + dy
                nearness.append((1 - (x - column).abs()) * (1 - (y - row).abs()))
                corners.append(row.clamp(0, self._side - 1) * self._side + column.clamp(0, self._side - 1))
        index, near = sheet[..., None] + torch.stack(corners, -1).long(), torch.stack(nearness, -1)
        total = torch.zeros_like(share)
        for scores in self._asked:  # the weights of the four corners add up to 1
            total = total + scores.logsumexp(-1) - (near * scores.gather(-1, index)).sum(-1)
        lessons = len(self._asked)
        self._asked.clear()
        return (total * weight).sum() / weight.sum().clamp(min=1) / max(lessons, 1)
