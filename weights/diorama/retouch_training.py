"""Training of what draws figures sharp in decoded frames."""

from dataclasses import dataclass, field, replace
from functools import partial

import torch
from dit_training import true_pose
from einops import rearrange
from examples import Batch
from torch import Tensor

from sora_cli.model.recall import Memory
from sora_cli.model.retouch import Retouch, light_on, lit, near
from sora_cli.model.tracing import Actor, Pose, figure_pixels, moments
from sora_cli.model.vae.patch import SPACE, TIME

VAGUEST = 1.0  # noise level that figures are drawn from in a step, at most: rags hang beside them then
RAGS = 3  # latents around figures that are as they were drawn
ASIDE = 0.1  # share of figures that stand a little aside from where they are told to
OFF = 0.01  # deviation of that, in sides of their squares
ELSEWHERE = 0.02  # share of figures that are told to stand where none is, or another
INSIDE = 3.0  # how much more the figure itself weighs than what is beside it


@dataclass(frozen=True, slots=True, eq=False)
class Retouching:
    """The lesson: decoded frames of videos (b, 3, T, h, w) should become the true ones, where figures are. These come
    from a `memory` of pictures of `side` x `side` pixels.
    """

    memory: Memory
    side: int
    dice: torch.Generator
    _errors: list[Tensor] = field(default_factory=list)  # squares of them before and after, since `gain` was asked

    def loss(self, net: Retouch, video: Tensor, decoded: Tensor, batch: Batch) -> Tensor:
        """Mean absolute error near figures of frames that the network draws sharp."""
        told, swept = self._told(batch)
        made, truth = (rearrange(each[:, :, -told.shape[1] :], "b c T h w -> b T c h w") for each in (decoded, video))
        made, truth, figure, swept = (
            rearrange(each, "b T c h w -> (b T) c h w")
            for each in (made, truth, lit(told, light_on(made, told)), swept)
        )
        sharp = net(made, figure, swept)
        weight = near(swept) * (1 + INSIDE * figure[:, 3:])
        total = 3 * weight.sum().clamp(min=1)
        squares = [((each.detach() - truth) ** 2 * weight).sum() / total for each in (made, sharp)]
        self._errors.append(torch.stack(squares))
        return ((sharp - truth).abs() * weight).sum() / total

    def gain(self) -> float:
        """By how many decibels frames became better near figures since this was asked last."""
        before, after = torch.stack(self._errors).mean(0)
        self._errors.clear()
        return float(10 * torch.log10(before / after))

    @torch.no_grad()
    def _told(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The figures of a batch as they are told to stand in all of its frames, (b, T, 4, H, W), most of them where
        they do, and where they are in any frame of the same latent frame, (b, T, 1, H, W).
        """
        pose, who = self._astray(true_pose(batch), batch.subject)
        seconds, rate = batch.place.seconds, batch.place.rate
        poses = moments(pose, seconds, rate, TIME) if seconds.shape[1] > 1 else (pose,)
        actor, groups = Actor(poses, partial(self.memory.picture, who), self.side), []
        for at, here in enumerate(seconds.unbind(1)):
            parts = range(len(poses)) if here.all() else (-1,)  # the first latent frame holds one frame
            groups.append(torch.stack([figure_pixels([actor], part, at, SPACE, batch.place.area) for part in parts], 1))
        swept = [each[:, :, 3:].amax(1, keepdim=True).expand(-1, each.shape[1], -1, -1, -1) for each in groups]
        return torch.cat(groups, 1), torch.cat(swept, 1)

    def _astray(self, pose: Pose, who: Tensor) -> tuple[Pose, Tensor]:
        """Some poses a little aside from the true ones, and some those of another figure of the batch."""
        dice = torch.rand(len(who), 1, generator=self.dice)
        off = torch.randn(3, len(who), 1, generator=self.dice) * OFF * (dice < ASIDE) * pose.size
        pose = replace(pose, x=pose.x + off[0], y=pose.y + off[1], size=pose.size + off[2])
        other = dice[:, 0] > 1 - ELSEWHERE
        numbers = pose.numbers()
        swapped = torch.where(rearrange(other, "b -> b 1 1 1 1"), numbers.roll(1, 0), numbers)
        return Pose.of(swapped), torch.where(other, who.roll(1, 0), who)
