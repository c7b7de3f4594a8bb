"""Courses to learn from: where the world's figures go, known in part as beside clips. Nothing is drawn, so many are
cheap.
"""

import random
from dataclasses import dataclass

import torch
from examples import OPENING, WORDINGS, combinations
from torch import Tensor
from vocabulary import TURNING
from world import View, cast_of, draw_scenario, poses, seen_by

from sora_cli.model.course import NUMBERS, Course, shape_of
from sora_cli.model.dit import seconds_of
from sora_cli.model.tracing import Pose
from sora_cli.model.vae.patch import TIME

LENGTHS = (1, 4, 7, 13, 13, 13, 19, 25, 25, 37, 49, 64)  # latent frames
RATES = (8, 12, 15, 24, 24, 24, 24, 25, 30, 48, 60, 120)  # frames a second
ASPECTS = 1.25  # logarithm to base 2 of width over height, at most
LATEST = (4.0, 4.0, 4.0, 30.0)  # seconds into the motion at most where courses are known in part
JOINED = 0.5  # share of the courses known at both ends that lead somewhere else than the motion would
UNTOLD = 0.6  # share of these in which nothing is known of the camera, as beside clips
BLURRED = 0.02  # how far off known poses are, at most, as a share of how much poses vary


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """Courses of one length: clean numbers (b, 7, n, 1, 1), seconds (b, n), shape (b, 2), which frames are known
    (b, n), and rows of the caption table (b,).
    """

    clean: Tensor
    seconds: Tensor
    shape: Tensor
    known: Tensor
    words: Tensor


class Lessons:
    """Endless lessons of about `tokens` poses."""

    def __init__(self, feet: Tensor, seed: int, tokens: int = 2048) -> None:
        self._feet, self._tokens, self._rng = feet, tokens, random.Random(seed)
        self._index = {combination: i for i, combination in enumerate(combinations())}

    def __iter__(self) -> "Lessons":
        return self

    def __next__(self) -> Lesson:
        rng, length = self._rng, self._rng.choice(LENGTHS)
        count = max(8, min(96, self._tokens // length))
        scenarios = [draw_scenario(rng, turning=True) for _ in range(count)]
        views = [_view(2 ** rng.uniform(-ASPECTS, ASPECTS)) for _ in range(count)]
        rates = [rng.choice(RATES) for _ in range(count)]
        firsts, starts, knowns = zip(*(_beginning(rng, length) for _ in range(count)), strict=True)
        seconds = torch.stack(
            [seconds_of(first, length, rate, TIME) for first, rate in zip(firsts, rates, strict=True)]
        )
        cast, known = cast_of(scenarios, views), torch.tensor(knowns)
        at = seconds + torch.tensor(starts)[:, None]
        pose, camera = poses(cast, at, self._feet), seen_by(cast, at)
        untold = known.any(1, keepdim=True) & (_dice(rng, count, 0, 1) < UNTOLD)
        elsewhere = poses(cast, (at + _dice(rng, count, -4, 4)).clamp(min=0), self._feet)
        even = torch.tensor([[s.motion not in TURNING] for s in scenarios])  # who turns would face the wrong way
        joined = even & known[:, :1] & known[:, -1:] & ~known.all(1, keepdim=True)
        joined = joined & (_dice(rng, count, 0, 1) < JOINED)
        pose = _joined(pose, elsewhere, _dice(rng, count, -0.2, 0.2), known, joined)
        rows = [self._index[s.subject, s.scene, s.motion, s.camera] for s in scenarios]
        return Lesson(
            Course.numbers(pose, camera * ~untold[:, None]),
            seconds,
            torch.stack([shape_of(v.width, v.height, rate / TIME) for v, rate in zip(views, rates, strict=True)]),
            known,
            torch.tensor([row * WORDINGS + rng.randrange(WORDINGS) for row in rows]),
        )


def _view(aspect: float) -> View:
    return View(round(1000 * max(1.0, aspect)), round(1000 * max(1.0, 1 / aspect)))


def _dice(rng: random.Random, count: int, low: float, high: float) -> Tensor:
    return torch.tensor([rng.uniform(low, high) for _ in range(count)])[:, None]


def _beginning(rng: random.Random, length: int) -> tuple[int, float, list[bool]]:
    """The first latent frame, the second at which it is shown, and which of all are known."""
    kind = rng.choice(("none", "none", "none", "begin", "begin", "end", "both", "first")) if length > 3 else "none"
    if kind == "none":
        return 0, rng.uniform(0, OPENING), [False] * length
    if kind == "first":
        return 0, rng.uniform(0, 1), [index == 0 for index in range(length)]
    begin, end = (rng.randint(1, max(1, min(16, length // 3))) for _ in range(2))
    begin, end = (begin if kind != "end" else 0), (end if kind != "begin" else 0)
    known = [index < begin or index >= length - end for index in range(length)]
    return rng.randint(0, 1), rng.uniform(0, rng.choice(LATEST)), known


def _joined(pose: Pose, elsewhere: Pose, aside: Tensor, known: Tensor, chosen: Tensor) -> Pose:
    """Courses of which the `chosen` end as they do `elsewhere`, a little `aside`: what is between leads there evenly.

    Source: cubic Hermite interpolation between the places and speeds at both ends.
    """
    n = known.shape[1]
    unknown = ~known
    first = unknown.float().argmax(1, keepdim=True) - 1  # the last known frame before the gap
    last = n - unknown.flip(1).float().argmax(1, keepdim=True)  # the first known one behind it
    first, last = first.clamp(0, n - 1), last.clamp(0, n - 1)
    gap = (last - first).clamp(min=1).float()
    share = (torch.arange(n)[None] - first) / gap
    s = share.clamp(0, 1)
    h00, h10 = 2 * s**3 - 3 * s**2 + 1, s**3 - 2 * s**2 + s
    h01, h11 = -2 * s**3 + 3 * s**2, s**3 - s**2

    def led(values: Tensor, others: Tensor) -> Tensor:
        a, b = values.gather(1, first), others.gather(1, last)
        slope_a = (a - values.gather(1, (first - 1).clamp(min=0))) * gap
        slope_b = (others.gather(1, (last + 1).clamp(max=n - 1)) - b) * gap
        between = h00 * a + h10 * slope_a + h01 * b + h11 * slope_b
        course = torch.where(share <= 0, values, torch.where(share >= 1, others, between))
        return torch.where(chosen, course, values)

    return Pose(
        led(pose.x, elsewhere.x + aside),
        led(pose.y, elsewhere.y),
        led(pose.size.log(), elsewhere.size.log()).exp(),
        pose.mirrored,
        pose.there,
        pose.moment,
    )


def course_loss(net: Course, lesson: Lesson, features: Tensor, seen: Tensor, rng: torch.Generator) -> Tensor:
    """Velocity loss of the predicted clean numbers, and of how they change from frame to frame."""
    b, n = lesson.known.shape
    level = torch.sigmoid(torch.randn(b, 1, generator=rng) * 1.2 + 0.5).expand(b, n)
    level = level.masked_fill(lesson.known, 0.0)
    off = BLURRED * torch.rand(b, 1, 1, 1, 1, generator=rng) * torch.randn(lesson.clean.shape, generator=rng)
    shown = lesson.clean + off * lesson.known[:, None, :, None, None]
    spread = level[:, None, :, None, None]
    noisy = (1 - spread) * shown + spread * torch.randn(lesson.clean.shape, generator=rng)
    predicted = net(noisy, level, features, seen, lesson.seconds, lesson.shape)
    error = (predicted - lesson.clean)[..., 0, 0] / spread[..., 0, 0].clamp(min=0.05)
    learned = (~lesson.known).float()[:, None]
    loss = (error**2 * learned).sum() / (NUMBERS * learned.sum()).clamp(min=1)
    if n == 1:
        return loss
    both = learned[..., 1:] * learned[..., :-1]
    return loss + (error.diff(dim=-1) ** 2 * both).sum() / (NUMBERS * both.sum()).clamp(min=1)
