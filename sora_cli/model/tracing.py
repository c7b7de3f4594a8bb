"""Where a figure of the memory stands in a picture, and that figure drawn there.

A denoiser that looks into its memory says of every latent which point of the figure it shows. Figures are moved, scaled
and mirrored, so three numbers a frame say all of this. They are fitted by least squares: hundreds of answers that are
about right together say exactly where the figure is. What is drawn is encoded as the autoencoder would encode it, so
that it can be copied.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor

from sora_cli.model.artwork import LEVELS

CERTAIN = 0.3  # latents that show less of the figure, as far as the network knows, say nothing of where it is
USUAL = 0.6  # of the picture's shorter side: the size that is believed where next to nothing says otherwise
DOUBT = 0.004  # how much that belief weighs, as a share of what a whole figure says
WHOLE = 0.9  # latents or pixels with so much of the figure show the light that falls on it
DARKEST, BRIGHTEST = 0.3, 1.5  # light on figures
UNTINTED = 2.0  # latents' worth of white light that falls on every figure, as far as is known before any is seen
BARE = 0.02  # latents with less of the figure show what is behind it
STEADY = 20.0  # how much places and sizes that change their course weigh against what is seen, at `USUAL_RATE`
LIVELY = 0.15  # the same for heights: figures hop
STEADIEST = 500.0  # what either is at most, at high rates
USUAL_RATE = 6.0  # latent frames a second
REACH = 2  # latents to each side that say what is behind a figure
FLAT = 1.0  # how much it weighs, in squares of latents, that it doesn't change
LAYERED = 0.2  # how much a row counts beside the next one
GREY = 0.5  # what figures are drawn on; 0 is black, 1 is white


@dataclass(frozen=True, slots=True)
class Area:
    """The latents of a batch by the pixels of the whole picture: centres of columns (b, w) and of rows (b, h), and the
    picture's width and height, (b,) each.
    """

    columns: Tensor
    rows: Tensor
    width: Tensor
    height: Tensor

    @property
    def side(self) -> Tensor:
        """The side of a square of the picture's area, (b, 1)."""
        return (self.width * self.height).sqrt()[:, None]


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a figure stands, (b, t) each: the centre of its square as fractions of the picture's width and height, the
    square's side as a fraction of the root of the picture's area, 1 where it is mirrored, 1 where there is one, and how
    many seconds it is into its animation.
    """

    x: Tensor
    y: Tensor
    size: Tensor
    mirrored: Tensor
    there: Tensor
    moment: Tensor

    def numbers(self) -> Tensor:
        """All of it as if it were latents, (b, 6, t, 1, 1)."""
        return torch.stack([getattr(self, name) for name in self.__slots__], 1)[..., None, None]

    @classmethod
    def of(cls, numbers: Tensor) -> "Pose":
        """The pose that `numbers` came from."""
        return cls(*numbers[..., 0, 0].unbind(1))

    @classmethod
    def nowhere(cls, frames: int) -> "Pose":
        """The pose of no figure at all, in one video of so many latent frames."""
        nothing, whole = torch.zeros(1, frames), torch.ones(1, frames)
        return cls(whole / 2, whole / 2, whole, nothing, nothing, nothing)


def fit_pose(looked: Tensor, cover: Tensor, area: Area) -> Pose:
    """The pose that explains best what latents look at.

    `looked` (b, t, h, w, 2, s, s) are shares of attention to the points of the sheet and of its mirror image; `cover`
    (b, t, h, w) is how much of each latent is figure. Mirrored is what most of a video looks at. Who is not sure looks
    near the figure's middle on the average, as if it were large; so its size is that at which its points vary as much
    as they do by all that was looked at (the law of total variance).
    """
    weight = (cover - CERTAIN).clamp(min=0)
    views = reduce(looked * weight[..., None, None, None], "b t h w views y x -> b views", "sum")
    mirrored = views[:, 1] > views[:, 0]
    sheet = torch.where(rearrange(mirrored, "b -> b 1 1 1 1 1"), looked[..., 1, :, :], looked[..., 0, :, :])
    sheet = sheet / reduce(sheet, "b t h w y x -> b t h w 1 1", "sum").clamp(min=1e-6)
    points = 2 * (torch.arange(sheet.shape[-1], device=sheet.device) + 0.5) / sheet.shape[-1] - 1
    u, v = (sheet.sum(-2) * points).sum(-1), (sheet.sum(-1) * points).sum(-1)

    unsure = ((sheet.sum(-2) + sheet.sum(-1)) * points**2).sum(-1) - u**2 - v**2
    total = reduce(weight, "b t h w -> b t", "sum")

    def mean(values: Tensor) -> Tensor:
        return reduce(values * weight, "b t h w -> b t", "sum") / total.clamp(min=1e-6)

    def variance(values: Tensor) -> Tensor:
        return mean((values - mean(values)[..., None, None]) ** 2)

    x = repeat(area.columns, "b w -> b t h w", t=u.shape[1], h=u.shape[2])
    y = repeat(area.rows, "b h -> b t h w", t=u.shape[1], w=u.shape[3])
    usual = USUAL * torch.minimum(area.width, area.height)[:, None]
    doubt = DOUBT * (usual / 2) ** 2
    between = 2 * (2 / sheet.shape[-1]) ** 2 / 6  # a point between four of the sheet's is looked for at all of them
    shown = variance(u) + variance(v) + (mean(unsure) - between).clamp(min=0)
    slope = ((shown + doubt * (2 / usual) ** 2) / (variance(x) + variance(y) + doubt)).sqrt()
    return Pose(
        x=(mean(x) - mean(u) / slope) / area.width[:, None],
        y=(mean(y) - mean(v) / slope) / area.height[:, None],
        size=2 / slope / area.side,
        mirrored=mirrored[:, None].float().expand_as(slope),
        there=total.clamp(max=1),
        moment=torch.zeros_like(slope),
    )


def steadied(pose: Pose, seconds: Tensor, rate: Tensor, doubt: Tensor) -> Pose:
    """A pose on a steady course: what is seen of it in one frame is noisy, and figures seldom turn.

    `seconds` (b, t) and `rate` (b,) are as in `moments`; frames count by 1 / `doubt` (b, t), positive, and by how far a
    figure is there. Source: Whittaker 1923, On a New Method of Graduation, with second differences of what lies at
    equal distances; they weigh the same in a second at every rate.
    """
    if seconds.shape[1] < 3:
        return pose
    weight = (pose.there / doubt).clamp(min=1e-3)
    apart = seconds.diff(dim=1) * rate[:, None]
    even = (apart - 1).abs() < 0.5
    bend = torch.eye(seconds.shape[1], device=seconds.device).diff(n=2, dim=0)
    bend = bend * (even[:, 1:] & even[:, :-1])[..., None]
    bending = bend.mT @ bend
    slowness = (rate / USUAL_RATE) ** 4

    def course(values: Tensor, strength: float) -> Tensor:
        stiff = rearrange((strength * slowness).clamp(max=STEADIEST), "b -> b 1 1")
        system = torch.diag_embed(weight) + stiff * bending
        return torch.linalg.solve_ex(system, weight * values).result  # which makes no GPU wait

    size = course(pose.size.log(), STEADY).exp()
    return replace(pose, x=course(pose.x, STEADY), y=course(pose.y, LIVELY), size=size)


@dataclass(frozen=True, slots=True)
class Traced:
    """Figures as they stand: their scaled latents by the light of each colour, and what light behind them adds to
    these, (b, c, 3, t, h, w) both; the latents of black, (c,); the figures' mean colours and coverage, (b, 3, t, h, w)
    and (b, 1, t, h, w); and 1 where there is one, (b, 1, t, 1, 1).
    """

    light: Tensor
    behind: Tensor
    black: Tensor
    colours: Tensor
    cover: Tensor
    there: Tensor

    def on(self, colour: Tensor | float, tint: Tensor | float = 1.0) -> Tensor:
        """Scaled latents of the figures, each colour times a `tint`, on a colour in [0, 1], zeros where none is:
        (b, c, t, h, w). Both are (b, 3, t, h, w) or less, or one for all.
        """
        tint, colour = (each if isinstance(each, float) else each[:, None] for each in (tint, colour))
        latents = (self.light * tint + self.behind * colour).sum(2)
        return (latents + rearrange(self.black, "c -> c 1 1 1")) * (self.there > 0)

    def tint(self, colours: Tensor) -> Tensor:
        """How the light falls on the figures where a picture has these `colours`, (b, 3, t, h, w): (b, 3, 1, 1, 1)."""
        whole = (self.cover > WHOLE).to(colours)
        seen, own = (reduce(each * whole, "b k t h w -> b k 1 1 1", "sum") for each in (colours, self.colours))
        return ((seen + UNTINTED) / (own + UNTINTED)).clamp(DARKEST, BRIGHTEST)


def moments(pose: Pose, seconds: Tensor, rate: Tensor, count: int) -> tuple[Pose, ...]:
    """The poses in each of the `count` frames of every latent frame, which follow each other at `rate` (b,) a second.

    `seconds` (b, t) are the middles of latent frames; what lies at 0 holds one frame. A figure moves as it does from
    the latent frame before to the one behind, those of them that are next to it; it grows by factors, never to nothing.
    """
    apart, step = seconds.diff(dim=1), 1 / rate[:, None]
    next_to = ((apart > 0) & (apart < 1.5 * step)).to(seconds)  # in the padding of a batch time stands still
    sides = (F.pad(next_to, (1, 0)) + F.pad(next_to, (0, 1))).clamp(min=1)

    def speed(values: Tensor) -> Tensor:
        slopes = values.diff(dim=1) / apart.clamp(min=1e-6) * next_to
        return (F.pad(slopes, (1, 0)) + F.pad(slopes, (0, 1))) / sides * (seconds > 0)

    x, y, growth, pace = speed(pose.x), speed(pose.y), speed(pose.size.log()), speed(pose.moment)
    offsets = [((frame + 0.5) / count - 0.5) * step for frame in range(count)]
    return tuple(
        replace(
            pose,
            x=pose.x + x * at,
            y=pose.y + y * at,
            size=pose.size * (growth * at).exp(),
            moment=pose.moment + pace * at,
        )
        for at in offsets
    )


Pictures = Callable[[Tensor, int], Tensor]
"""Figures that face left at moments (b,) of their animations, so many times halved: (b, 4, P, P), colours in [0, 1]
multiplied by coverage."""


class Actor(NamedTuple):
    """A figure in each of the frames of every latent frame: its poses in these, and its pictures, the largest of which
    have `side` pixels.
    """

    poses: Sequence[Pose]
    pictures: Pictures
    side: int


def traced(actors: Sequence[Actor], patches: Tensor, plain: Tensor, area: Area) -> Traced:
    """Figures as they stand, those that come later in front.

    `patches` (c, 3, T, s, s), T the number of poses of each, and `plain` (c,) make latents of pictures in [0, 1].
    """
    apart, space = rearrange(patches, "c k T p q -> T (k c) 1 p q"), patches.shape[-1]
    nothing, count = _nothing(patches, area), patches.shape[2]
    reaching = [_reaching(actor.poses, area, space) for actor in actors]
    frames = []
    for at in range(actors[0].poses[0].x.shape[1]):  # one by one: pixels are many
        here = [actor for actor, reaches in zip(actors, reaching, strict=True) if reaches[at]]
        parts = [] if here else [nothing]
        for part in range(count) if here else ():
            pixels = figure_pixels(here, part, at, space, area)
            light = F.conv2d(pixels[:, :3], apart[part], stride=space, groups=3)
            behind = F.conv2d(1 - pixels[:, 3:], apart[part], stride=space)
            parts.append(torch.cat([light, behind, F.avg_pool2d(pixels, space) / count], 1))
        frames.append(torch.stack(parts).sum(0))
    video = torch.stack(frames, 2)
    both, pooled = video[:, :-4], video[:, -4:]
    light, behind = rearrange(both, "b (two k c) t h w -> two b c k t h w", two=2, k=3)
    there = torch.stack([actor.poses[0].there for actor in actors]).amax(0)
    return Traced(light, behind, plain, pooled[:, :3], pooled[:, 3:], rearrange(there, "b t -> b 1 t 1 1"))


def _nothing(patches: Tensor, area: Area) -> Tensor:
    """What is traced of a latent frame in which no figure is: no light of its own, all that is behind."""
    behind = rearrange(patches.sum((2, 3, 4)), "c k -> (k c)")
    channels = torch.cat([torch.zeros_like(behind), behind, behind.new_zeros(4)])
    return repeat(channels, "c -> b c h w", b=len(area.rows), h=area.rows.shape[1], w=area.columns.shape[1])


def _reaching(poses: Sequence[Pose], area: Area, space: int) -> list[bool]:
    """Whether something of a figure is in the area in each latent frame: most windows of a large picture have none."""
    if area.rows.is_cuda:  # to ask would make a GPU wait
        return [True] * poses[0].x.shape[1]

    def meets(centres: Tensor, middle: Tensor, size: Tensor) -> Tensor:
        reach = size / 2 + space
        return (middle + reach > centres[:, :1]) & (middle - reach < centres[:, -1:])

    reaching = torch.zeros_like(poses[0].x, dtype=torch.bool)
    for pose in poses:
        size = pose.size * area.side
        across = meets(area.columns, pose.x * area.width[:, None], size)
        reaching |= across & meets(area.rows, pose.y * area.height[:, None], size) & (pose.there > 0)
    return reaching.any(0).tolist()


def figure_pixels(actors: Sequence[Actor], part: int, at: int, space: int, area: Area) -> Tensor:
    """Figures in pixels, as they stand in frame number `part` of latent frame number `at`, those that come later in
    front (Porter & Duff 1984, Compositing Digital Images), in all latents of an area: (b, 4, H, W).
    """
    whole: Tensor | None = None
    for actor in actors:
        drawn = _alone(actor, actor.poses[part], at, space, area)
        whole = drawn if whole is None else drawn + (1 - drawn[:, 3:]) * whole
    assert whole is not None
    return whole


def _alone(actor: Actor, pose: Pose, at: int, space: int, area: Area) -> Tensor:
    size = pose.size[:, at] * area.side[:, 0]
    u = _across(area.columns, space, pose.x[:, at] * area.width, size) * (1 - 2 * pose.mirrored[:, at, None])
    v = _across(area.rows, space, pose.y[:, at] * area.height, size)
    u, v = torch.broadcast_tensors(u[:, None, :], v[:, :, None])  # type: ignore[no-untyped-call]
    drawn = _sampled(partial(actor.pictures, pose.moment[:, at]), actor.side, torch.stack([u, v], -1), size)
    return drawn * rearrange(pose.there[:, at], "b -> b 1 1 1")


class Backdrop(NamedTuple):
    """What is behind figures, (b, 3, t, h, w) each: the colour at a latent's centre, and by how much it changes from
    one latent to the next, to the right and down.
    """

    colour: Tensor
    across: Tensor
    down: Tensor

    def sloping(self, patches: Tensor) -> Tensor:
        """Scaled latents of what isn't even in it, (b, c, t, h, w); `patches` are as in `traced`."""
        apart = (torch.arange(patches.shape[-1], device=patches.device) + 0.5) / patches.shape[-1] - 0.5
        across, down = (torch.einsum(f"c k T p q, {axis} -> c k", patches, apart) for axis in "qp")
        return torch.einsum("c k, b k t h w -> b c t h w", across, self.across) + torch.einsum(
            "c k, b k t h w -> b c t h w", down, self.down
        )


def behind_figures(colours: Tensor, cover: Tensor) -> Backdrop:
    """What of latents of `colours` (b, 3, t, h, w) goes on behind figures of a `cover` (b, 1, t, h, w):
    a plane fitted to all that are near and bare (least squares; slopes that little says stay small). Scenes lie in
    layers, so those in the same row count most.
    """
    b, bare = len(colours), (cover < BARE).to(colours)
    steps = torch.arange(-REACH, REACH + 1, device=colours.device).to(colours)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    kernels = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])[:, None] * LAYERED ** y.abs()
    frames = rearrange(torch.cat([bare, colours * bare], 1), "b c t h w -> (b t c) 1 h w")
    sums = rearrange(F.conv2d(frames, kernels, padding=REACH), "(b t c) k h w -> k b c t h w", b=b, c=4)
    (count, right, low, xx, xy, yy), seen = sums[:, :, :1], sums[:3, :, 1:]
    known = count > LAYERED**REACH / 2
    x, y, mean = (each / count.clamp(min=1e-6) for each in (right, low, seen[0]))
    xx, xy, yy = xx - right * x + FLAT, xy - right * y, yy - low * y + FLAT
    with_x, with_y = seen[1] - seen[0] * x, seen[2] - seen[0] * y
    spread = (xx * yy - xy * xy).clamp(min=1e-6)
    across, down = (with_x * yy - with_y * xy) / spread * known, (with_y * xx - with_x * xy) / spread * known
    colour = torch.where(known, (mean - across * x - down * y).clamp(0, 1), colours)
    return Backdrop(colour, across, down)


def _across(centres: Tensor, space: int, middle: Tensor, size: Tensor) -> Tensor:
    """Where pixels lie on squares of a `size` around a `middle`, (b,) each, from -1 to 1: (b, pixels)."""
    inside = torch.arange(space, device=centres.device) + 0.5 - space / 2
    pixels = rearrange(centres[..., None] + inside, "b n s -> b (n s)")
    return (pixels - middle[:, None]) / (size[:, None] / 2)


def _sampled(pictures: Callable[[int], Tensor], side: int, grid: Tensor, size: Tensor) -> Tensor:
    """Pictures of so many times half of a `side`, at points (b, H, W, 2), as fine as squares of `size` pixels (b,)
    need: (b, 4, H, W). Source: Williams 1983, Pyramidal Parametrics.
    """
    fineness = (side / size).log2().clamp(0, LEVELS - 1).view(-1, 1, 1, 1)
    drawn = torch.zeros((), device=grid.device)
    for level in range(LEVELS):
        share = (1 - (fineness - level).abs()).clamp(min=0)
        if grid.is_cuda or share.any():  # to ask would make a GPU wait
            drawn = drawn + share * F.grid_sample(pictures(level), grid, align_corners=False)
    return drawn
