"""diorama's diffusion transformer over latent spacetime patches.

One timestep per latent frame (so known frames are simply frames at timestep 0), text as extra keys and values, rotary
positions in pixels and seconds, a convolutional stem and head per frame around the transformer, a copy of the nearest
known frame beside every frame, so that carrying content over time is easy, and a memory of figures: the network says
where in the picture its figure stands, sees it drawn there, and takes of both as much as it trusts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from sora_cli.model.artwork import RATE
from sora_cli.model.course import Course
from sora_cli.model.layers import FrameConv, FrameResidual, Projector, RMSNorm, learned, masked, sinusoid
from sora_cli.model.recall import Memory, Pointer, Recall, Sheet
from sora_cli.model.tracing import (
    BARE,
    GREY,
    Actor,
    Area,
    Pose,
    Traced,
    behind_figures,
    fit_pose,
    moments,
    steadied,
    traced,
)
from sora_kernels import gated_residual, layer_norm_modulate, linear_gelu, qk_norm_rope_attention, rope_table
from sora_weights.spec import DiTSpec

KNOWN = 0.25  # frames at most this noisy are worth copying from
ROTARY_THETA = 100.0
UNITS = 8.0  # rotary positions across a square picture, whatever its pixels
WAVES = 7  # that say where a latent lies, from a quarter of one along a picture's shorter side on, each twice as short
CAMERA = 4  # numbers of a camera in a latent frame
TURNS = 6.0  # rotary positions in a second
ENOUGH = 0.25  # a latent with so much of the figure in it may be taken as it is traced
MOSTLY = 0.5  # a latent with so much of the figure in it says what that looks like
WHOLLY = 0.5  # from this timestep on a figure may be taken as it is traced; less of it where less noise is left
SEEN = 0.25  # how much of the picture must shine through for a pose to be relied on; with less, figures stand still
RAGGED = 0.1  # of a picture's shorter side around a figure: what lies there in a drawn frame may be a rag of it
STILL = 0.15  # of a latent's deviation: what is off by less between known frames stands still
SUREST = 0.1  # what is doubted of a pose at timestep 0; at 1 it is one more
DISTRUST = -2.0  # logit of the share that is taken from what is at hand at the beginning of training
PACES = (1.0, 0.0)  # of animations: the usual one, and standing still
COARSE = 1 / 6  # seconds between the moments of an animation that are tried first
FINE = 2  # pictures of it to either side of the best of these that are tried then
STILL_RATE = 6.0  # latent frames a second that a single picture is said to have


@dataclass(frozen=True, slots=True)
class Place:
    """Where the latents of a batch lie: seconds (b, t); rows (b, h) and columns (b, w) as fractions of the picture,
    at the latents' centres; the whole picture's height and width in pixels, (b,) each; latent frames a second (b,);
    and how the `camera` sees the scene, (b, 4, t), or (b, 4, 1) if it stands still: how far to the right and down of
    its middle it looks, in shorter sides of the picture, the logarithm of how far it sees, and 1 where all that is
    known, 0 where it isn't and the rest is 0.
    """

    seconds: Tensor
    rows: Tensor
    columns: Tensor
    height: Tensor
    width: Tensor
    rate: Tensor
    camera: Tensor

    def to(self, device: torch.device | str) -> "Place":
        """The same on another device."""
        return Place(*(getattr(self, name).to(device) for name in self.__slots__))

    def times(self, count: int) -> "Place":
        """One place as that of a batch of `count`."""
        return Place(*(getattr(self, name).expand(count, *getattr(self, name).shape[1:]) for name in self.__slots__))

    @property
    def area(self) -> Area:
        """The same in pixels, without the time."""
        columns, rows = self.columns * self.width[:, None], self.rows * self.height[:, None]
        return Area(columns, rows, self.width, self.height)


@dataclass(frozen=True, slots=True)
class Reliance:
    """How much more than it learned, in logits, the network is to take of traced `figures`, and of known frames where
    they stand `still`.
    """

    figures: float = 0.0
    still: float = 0.0


LEARNED = Reliance()


@dataclass(frozen=True, slots=True, eq=False)
class Around:
    """Clean latents (b, c, t, h, w) of frames that are to be drawn in part, and where they are `known`: 1 there, 0
    where there is to be drawn, (b, 1, t, h, w).
    """

    latents: Tensor
    known: Tensor


def locate(
    seconds: Tensor,
    rate: float,
    picture: tuple[int, int],
    corner: tuple[int, int],
    grid: tuple[int, int],
    space: int,
    camera: Tensor | None = None,
) -> Place:
    """The place of one grid of latents: seconds (t,), latent frames a second, the whole picture (height, width) and
    the grid's corner (top, left) in pixels, rows and columns of latents, the pixels along a latent, and the camera, if
    it is known.
    """
    (height, width), (top, left), (rows, columns) = picture, corner, grid
    return Place(
        seconds=seconds[None],
        rows=((torch.arange(rows) + 0.5) * space + top)[None] / height,
        columns=((torch.arange(columns) + 0.5) * space + left)[None] / width,
        height=torch.tensor([float(height)]),
        width=torch.tensor([float(width)]),
        rate=torch.tensor([rate]),
        camera=torch.zeros(1, CAMERA, 1) if camera is None else camera,
    )


def seconds_of(first: int, count: int, fps: float, frames: int) -> Tensor:
    """The middle of latent frames first .. first + count - 1 in seconds: 0 holds frame 0, k holds `frames` more."""
    index = torch.arange(first, first + count)
    return torch.where(index == 0, 0.0, frames * index - (frames - 1) / 2) / fps


def _patch_centres(values: Tensor, patch: int) -> Tensor:  # (b, n * patch) -> (b, n)
    return rearrange(values, "b (n p) -> b n p", p=patch).mean(-1)


def nearest_known(x: Tensor, known: Tensor, bare: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """For each frame of x (b, c, t, h, w) the nearest frame that is `known`, (b, t).

    Returns that frame (zeros if there is none) and a nearness in [0, 1], (b, 1, t, h, w): 0 for none, 1 for the frame
    itself. Where a frame is not `bare`, (b, 1, t, h, w), it counts as unknown: what moves is not to be copied.
    """
    frames = torch.arange(x.shape[2], device=x.device)
    apart = (frames[:, None] - frames[None]).abs().float() + 1e4 * ~known[:, None, :]
    distance, index = apart.min(-1)  # (b, t) each
    found = distance < 1e4
    there = rearrange(found, "b t -> b 1 t 1 1").to(x.dtype).expand(-1, -1, -1, *x.shape[3:])
    nearest = rearrange(index, "b t -> b 1 t 1 1")
    if bare is not None:
        there = there * torch.take_along_dim(bare.to(x.dtype), nearest, 2)
    copies = torch.take_along_dim(x, nearest, 2)
    return copies * there, rearrange(torch.exp(-distance / 4), "b t -> b 1 t 1 1") * there


def standing(x: Tensor, known: Tensor, bare: Tensor | None) -> Tensor:
    """How still x (b, c, t, h, w), scaled latents, stands in all frames that are `known`, (b, t), and `bare`: from 0,
    also where fewer than two are, to 1, (b, 1, 1, h, w).
    """
    seen = rearrange(known, "b t -> b 1 t 1 1").to(x) * (torch.ones_like(x[:, :1]) if bare is None else bare)
    count = seen.sum(2, keepdim=True)
    mean = (x * seen).sum(2, keepdim=True) / count.clamp(min=1)
    off = ((x - mean).abs().mean(1, keepdim=True) * seen).sum(2, keepdim=True) / count.clamp(min=1)
    return torch.exp(-((off / STILL) ** 2)) * (count > 1)


class Block(nn.Module):
    """Self-attention that also sees the text, a look into the memory where the block `recalls`, a mix with the frames
    before and after, and an MLP, all modulated.
    """

    def __init__(self, spec: DiTSpec, *, recalls: bool) -> None:
        super().__init__()
        self.heads = spec.heads
        self.qkv = nn.Linear(spec.width, 3 * spec.width)
        self.text_kv = nn.Linear(spec.width, 2 * spec.width)
        self.q_norm = nn.Parameter(torch.ones(spec.width // spec.heads))
        self.k_norm = nn.Parameter(torch.ones(spec.width // spec.heads))
        self.text_k_norm = RMSNorm(spec.width // spec.heads)
        self.out = nn.Linear(spec.width, spec.width)
        self.recall = Recall(spec.width, spec.heads) if recalls else None
        self.before = nn.Parameter(torch.zeros(spec.width))
        self.after = nn.Parameter(torch.zeros(spec.width))
        self.up = nn.Linear(spec.width, 4 * spec.width)
        self.down = nn.Linear(4 * spec.width, spec.width)
        self.table = nn.Parameter(torch.zeros(6, spec.width))

    def _attend(self, x: Tensor, text: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)
        text_k, text_v = rearrange(self.text_kv(text), "b m (two heads d) -> two b heads m d", two=2, heads=self.heads)
        q_norm, k_norm = self.q_norm.to(q.dtype), self.k_norm.to(q.dtype)
        y = qk_norm_rope_attention(q, k, v, q_norm, k_norm, *rotary, self.text_k_norm(text_k), text_v, mask)
        return self.out(rearrange(y, "b heads n d -> b n (heads d)"))

    def _neighbours(self, x: Tensor, frames: int, mask: Tensor | None) -> Tensor:
        """What the same place holds one frame earlier and later, each by a learned share."""
        if frames == 1:
            return x
        real = x if mask is None else x * mask[:, : x.shape[1], None].to(x.dtype)
        grid = rearrange(real, "b (t n) d -> b t n d", t=frames)
        earlier = F.pad(grid[:, :-1], (0, 0, 0, 0, 1, 0)) * self.before.to(x.dtype)
        later = F.pad(grid[:, 1:], (0, 0, 0, 0, 0, 1)) * self.after.to(x.dtype)
        return rearrange(grid + earlier + later, "b t n d -> b (t n) d")

    def forward(
        self,
        x: Tensor,
        text: Tensor,
        sheet: Sheet,
        time: Tensor,
        frames: int,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor | None,
    ) -> Tensor:
        """X (b, t·h·w, d), text (b, m, d), time (b, t, 6, d), mask (b, t·h·w + m) or None -> x."""
        parts = (time + self.table.to(time.dtype)).to(x.dtype)
        x = self._neighbours(x, frames, mask)
        y = layer_norm_modulate(x, _spread(parts[:, :, 0], x), _spread(parts[:, :, 1], x))
        found = self._attend(y, text, rotary, mask)
        if self.recall is not None:
            found = found + self.recall(y, sheet)
        x = gated_residual(x, found, _spread(parts[:, :, 2], x))
        y = layer_norm_modulate(x, _spread(parts[:, :, 3], x), _spread(parts[:, :, 4], x))
        y = self.down(linear_gelu(y, self.up.weight, self.up.bias))
        return gated_residual(x, y, _spread(parts[:, :, 5], x))


def _spread(part: Tensor, x: Tensor) -> Tensor:
    """What holds for a frame, (b, t, d), for each of its tokens in x (b, t·n, d)."""
    return repeat(part, "b t d -> b (t n) d", n=x.shape[1] // part.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What the network makes of noisy latents: their level (b, 1, t, 1, 1), the scaled latents of the nearest known
    frames (b, c, t, h, w), how near these are (b, 1, t, h, w) and how still they stand (b, 1, 1, h, w), features of
    latents from the stem (b, c, t, h, w) and of where they lie (b, c, t, h, w), with t 1 under a camera that stands
    still, tokens (b, n, d), the sheet of the figure, where on it they look and how much figure they show as the pointer
    has it, and the condition (b, t, d).
    """

    level: Tensor
    copies: Tensor
    near: Tensor
    still: Tensor
    stem: Tensor
    where: Tensor
    tokens: Tensor
    sheet: Sheet
    found: Tensor
    cover: Tensor
    condition: Tensor


def _shown(figure: Traced) -> Tensor:
    """A traced figure as the network sees it: its scaled latents on grey, and its coverage, (b, c + 1, t, h, w)."""
    return torch.cat([figure.on(GREY), figure.cover], 1)


def _bare(figure: Traced, reach: int = 1) -> Tensor:
    """1 where no figure is in a latent or in those around it as far as `reach`, (b, 1, t, h, w)."""
    side = 2 * reach + 1
    return (F.max_pool3d(figure.cover, (1, side, side), 1, (0, reach, reach)) < BARE).to(figure.cover)


class DiT(nn.Module):
    """The denoiser: noisy latents, a timestep per latent frame and text give the clean latents."""

    spread: Tensor

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__()
        self.spec = spec
        patch, width, conv = spec.patch, spec.width, spec.conv_width
        self.register_buffer("spread", torch.ones(spec.channels))  # standard deviation of each latent channel
        self.stem = FrameConv(2 * spec.channels + 1, conv)
        self.told = FrameConv(spec.channels + 1, conv, zero=True)
        self.stem_where = FrameConv(4 * WAVES + 1, conv, zero=True)
        self.stem_block = FrameResidual(conv)
        self.patchify = nn.Linear(conv * patch * patch, width)
        self.place = nn.Linear(16, width)
        self.time = Projector(256, width)
        self.shape = Projector(4, width)
        self.time_block = nn.Linear(width, 6 * width)
        self.text_in = Projector(spec.text_width, width)
        self.text_pad = learned(spec.text_tokens, width)
        self.pooled = nn.Linear(width, width)
        self.memory = Memory(spec)
        self.course = Course(spec)
        self.blocks = nn.ModuleList(Block(spec, recalls=index % 2 == 1) for index in range(spec.depth))
        self.last_time = nn.Linear(width, 2 * width)
        self.unpatchify = nn.Linear(width, conv * patch * patch)
        self.pointer = Pointer(width, patch)
        self.join = FrameConv(2 * conv + spec.channels + 1, conv)
        self.join_where = FrameConv(4 * WAVES + 1, conv, zero=True)
        self.head_block = FrameResidual(conv)
        self.head = FrameConv(conv, spec.channels, zero=True)
        self.trust = FrameConv(conv, spec.channels, zero=True)
        self.carry = FrameConv(conv, spec.channels, zero=True)
        for layer in (self.time_block, self.last_time):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():  # gates start half open: a network this small should not begin as the identity
            self.time_block.bias.view(6, width)[2].fill_(0.5)
            self.time_block.bias.view(6, width)[5].fill_(0.5)
            nn.init.constant_(self.trust.conv.bias, DISTRUST)  # type: ignore[arg-type]
            nn.init.constant_(self.carry.conv.bias, DISTRUST)  # type: ignore[arg-type]

    def _rotary(self, place: Place, patch: int) -> tuple[Tensor, Tensor]:
        side = (place.height * place.width).sqrt()[:, None]
        rows = _patch_centres(place.rows, patch) * place.height[:, None] / side * UNITS
        columns = _patch_centres(place.columns, patch) * place.width[:, None] / side * UNITS
        b, t, h, w = len(rows), place.seconds.shape[1], rows.shape[1], columns.shape[1]
        axes = (
            repeat(place.seconds * TURNS, "b t -> b t h w", h=h, w=w),
            repeat(rows, "b h -> b t h w", t=t, w=w),
            repeat(columns, "b w -> b t h w", t=t, h=h),
        )
        positions = rearrange(torch.stack(axes, -1), "b t h w axes -> b (t h w) axes", b=b)
        head = self.spec.width // self.spec.heads
        temporal = head // 4 // 2 * 2
        spatial = (head - temporal) // 2
        return rope_table(positions, (temporal, spatial, spatial), ROTARY_THETA)

    def _where(self, place: Place) -> Tensor:
        """Waves over the scene, (b, k, t, h, w), from its middle on and by the picture's shorter side, as scenes are
        composed, and 1 where the camera is known; t is 1 where that stands still. Waves too short for latents are low
        there (Barron et al. 2021, Mip-NeRF, arXiv:2103.13415, section 3.1).
        """
        unit = torch.minimum(place.height, place.width)
        rates = torch.pi / 2 * 2.0 ** torch.arange(WAVES, device=unit.device)
        to_right, below, seen, known = place.camera.unbind(1)
        down, across = (
            torch.einsum("b n, b, b t -> b t n", at - 0.5, side / unit, seen.exp()) + off[..., None]
            for at, side, off in ((place.rows, place.height, below), (place.columns, place.width, to_right))
        )
        deviation = self.spec.space / unit[:, None] * seen.exp() / 12**0.5  # of points inside a latent from its middle
        height = torch.exp(-0.5 * torch.einsum("b t, k -> b k t", deviation, rates) ** 2).repeat(1, 2, 1)[..., None]
        down, across = (torch.einsum("b t n, k -> b k t n", each, rates) for each in (down, across))
        h, w = down.shape[3], across.shape[3]
        down = repeat(height * torch.cat([down.cos(), down.sin()], 1), "b k t h -> b k t h w", w=w)
        across = repeat(height * torch.cat([across.cos(), across.sin()], 1), "b k t w -> b k t h w", h=h)
        return torch.cat([down, across, repeat(known, "b t -> b 1 t h w", h=h, w=w)], 1)

    def _absolute(self, place: Place, patch: int) -> Tensor:  # -> (b, h·w, 16)
        waves = torch.tensor([0.5, 1.0, 2.0, 4.0], device=place.rows.device) * torch.pi
        rows = _patch_centres(place.rows, patch)[..., None] * waves
        columns = _patch_centres(place.columns, patch)[..., None] * waves
        h, w = rows.shape[1], columns.shape[1]
        rows = repeat(torch.cat([rows.cos(), rows.sin()], -1), "b h f -> b h w f", w=w)
        columns = repeat(torch.cat([columns.cos(), columns.sin()], -1), "b w f -> b h w f", h=h)
        return rearrange(torch.cat([rows, columns], -1), "b h w f -> b (h w) f")

    def _read(self, text: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Text (b, m, e) with real tokens where `seen` (b, m): tokens for attention and their mean."""
        tokens = torch.where(seen[..., None], self.text_in(text), self.text_pad.to(text.dtype)[: text.shape[1]])
        share = seen.to(tokens.dtype) / seen.sum(1, keepdim=True).clamp(min=1)
        return tokens, self.pooled((tokens * share[..., None]).sum(1))

    def _condition(self, timesteps: Tensor, place: Place, pooled: Tensor) -> Tensor:  # -> (b, t, d)
        side = (place.height * place.width).sqrt()
        images = torch.full_like(side, float(place.seconds.shape[1] == 1))
        facts = torch.stack(
            [(side / 128).log2(), (place.width / place.height).log2(), (place.rate / 6).log2(), images], -1
        )
        shape = self.shape(facts.to(pooled.dtype))
        return self.time(sinusoid(timesteps * 1000, 256).to(pooled.dtype)) + (shape + pooled)[:, None]

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        text: Tensor,
        seen: Tensor,
        place: Place,
        mask: Tensor | None = None,
        told: Traced | None = None,
        reliance: Reliance = LEARNED,
        around: Around | None = None,
    ) -> Tensor:
        """Predict clean latents from x = (1 - t) clean + t noise.

        x (b, c, t, h, w) with h and w multiples of the patch; timesteps (b, t) in [0, 1]; text (b, m, e) with
        `seen` (b, m) true at real tokens; mask (b, t, h, w), true inside each sample of a padded batch; the figure as
        it is to stand, where that is `told`; a `reliance` on what is at hand; and what is known `around` a part of the
        picture, where only that is to be drawn.
        Input and output are scaled so that the network's own input and target have unit variance (Karras et al. 2022,
        section 5, for the flow-matching process).
        """
        look = self._look(x, timesteps, text, seen, place, mask, told, around)
        if told is not None:
            return self._clean(look, x, told, mask, reliance)
        figure = self._figure(self._pose(look, place, mask), look.sheet.figure, look.sheet.found, place)
        sure = ((1 - look.level) / SEEN).clamp(max=1)
        return self._clean(look, x, figure, mask, reliance, sure)

    def trace(self, pose: Pose, text: Tensor, seen: Tensor, place: Place) -> Traced:
        """The figure that the text is about, as it stands in a pose; nothing where there is none."""
        return self.trace_all([(pose, text, seen)], place)

    def trace_all(self, told: Sequence[tuple[Pose, Tensor, Tensor]], place: Place) -> Traced:
        """All figures that texts are about, as each stands in its pose, those that come later in front."""
        actors = [self.actor(pose, *self.memory.find(text, seen), place) for pose, text, seen in told]
        return self._figures(actors, place)

    def pose(self, x: Tensor, timesteps: Tensor, text: Tensor, seen: Tensor, place: Place) -> Pose:
        """Where the network sees the figure that the text is about; arguments as in `forward`."""
        return self._pose(self._look(x, timesteps, text, seen, place, None), place, None)

    @torch.no_grad()
    def moment(self, x: Tensor, pose: Pose, text: Tensor, seen: Tensor, place: Place) -> Tensor:
        """How far on the animation is of the figure that the text is about, where it stands in clean latents x
        (1, c, t, h, w): seconds into its loop, (1, t), at its usual pace or standing still.
        """
        (who, found), scaled = self.memory.find(text, seen), x / self._spread
        gone = place.seconds - place.seconds[:, :1]

        def error(moment: Tensor) -> float:
            figure = self._figure(replace(pose, moment=moment), who, found, place)
            off = (self._composed(figure, scaled) - scaled) ** 2
            return ((off.mean(1, keepdim=True) * figure.cover).sum() / figure.cover.sum().clamp(min=1)).item()

        starts, paces = torch.arange(0, self.memory.loop(who), COARSE), PACES if x.shape[2] > 1 else PACES[:1]
        tried = [start + pace * gone for pace in paces for start in starts.tolist()]
        best = min(tried, key=error)
        return min((best + off for off in (torch.arange(-FINE, FINE + 1) / RATE).tolist()), key=error)

    @torch.no_grad()
    def likeness(self, x: Tensor, text: Tensor, seen: Tensor, place: Place) -> tuple[float, float]:
        """How much clean latents x (1, c, t, h, w) look like the figure that the text is about, where the network sees
        it and as it moves there: the correlation of their colours, 0 where there is none, and how far colours from 0 to
        1 are apart on the average. Other arguments as in `forward`.
        """
        pose = self.pose(x, x.new_zeros(1, x.shape[2]), text, seen, place)
        pose = replace(pose, moment=self.moment(x, pose, text, seen, place))
        figure, scaled = self.trace(pose, text, seen, place), x / self._spread
        own, traced_there = (self._colours(each) for each in (scaled, self._composed(figure, scaled)))
        inside, reached = ((figure.cover > least).float() for least in (MOSTLY, BARE))
        off = ((own - traced_there).abs() * reached).sum() / (3 * reached.sum()).clamp(min=1)
        mean = [
            (each * inside).sum((2, 3, 4), keepdim=True) / inside.sum().clamp(min=1) for each in (own, traced_there)
        ]
        one, other = (((each - m) * inside).flatten() for each, m in zip((own, traced_there), mean, strict=True))
        return F.cosine_similarity(one, other, dim=0).item(), off.item()

    def _look(
        self,
        x: Tensor,
        timesteps: Tensor,
        text: Tensor,
        seen: Tensor,
        place: Place,
        mask: Tensor | None,
        told: Traced | None = None,
        around: Around | None = None,
    ) -> "_Look":
        """All that the network makes out before it draws."""
        patch = self.spec.patch
        t = x.shape[2]
        level = rearrange(timesteps, "b t -> b 1 t 1 1").float()
        scaled, bare = x / self._spread, None if told is None else _bare(told)
        known = timesteps <= KNOWN
        copies, nearness = self._with_known(around, *nearest_known(scaled, known, bare))
        inputs = torch.cat([x / self._deviation(level), copies, nearness], 1)
        dtype = self.patchify.weight.dtype
        where = self._where(place).to(dtype)
        inside = None if mask is None else mask[:, : where.shape[2]]
        stem = self.stem(inputs.to(dtype), mask) + self.stem_where(where, inside)
        if told is not None:
            stem = stem + self.told(_shown(told).to(dtype), mask)
        stem = self.stem_block(stem, mask)

        tokens = self.patchify(rearrange(stem, "b c t (h p) (w q) -> b (t h w) (c p q)", p=patch, q=patch))
        tokens = tokens + repeat(self.place(self._absolute(place, patch).to(dtype)), "b n d -> b (t n) d", t=t)
        words, pooled = self._read(text.to(dtype), seen)
        sheet = self.memory(text, seen)
        condition = F.silu(self._condition(timesteps, place, pooled))
        time = rearrange(self.time_block(condition), "b t (six d) -> b t six d", six=6)
        rotary, keys = self._rotary(place, patch), self._keys(mask, words.shape[1])
        for block in self.blocks:
            tokens = block(tokens, words, sheet, time, t, rotary, keys)
        found, cover = self.pointer(tokens, sheet)
        known = known & (timesteps <= timesteps.amax(1, keepdim=True) / 2)  # others are as noisy as what is drawn
        if told is not None:
            shorter = torch.minimum(place.height, place.width).amin().item()
            bare = _bare(told, max(1, round(RAGGED * shorter / self.spec.space)))
        copies, nearness = self._with_known(around, *nearest_known(scaled, known, bare))
        still = standing(scaled, known, bare)
        where = self.join_where(where, inside)
        return _Look(level, copies, nearness, still, stem, where, tokens, sheet, found, cover, condition)

    def _with_known(self, around: Around | None, copies: Tensor, nearness: Tensor) -> tuple[Tensor, Tensor]:
        """What is at hand of known frames, and how near it is, with what is known of the frames themselves."""
        if around is None:
            return copies, nearness
        own = around.latents / self._spread
        return torch.lerp(copies, own, around.known), torch.maximum(nearness, around.known)

    @property
    def _spread(self) -> Tensor:
        return rearrange(self.spread, "c -> 1 c 1 1 1")

    def _deviation(self, level: Tensor) -> Tensor:
        """The standard deviation of noisy latents at a level (b, 1, t, 1, 1): (b, c, t, 1, 1)."""
        return ((self._spread * (1 - level)) ** 2 + level**2).sqrt()

    def _clean(
        self,
        look: "_Look",
        x: Tensor,
        figure: Traced,
        mask: Tensor | None,
        reliance: Reliance,
        sure: Tensor | float = 1.0,
    ) -> Tensor:
        """The clean latents of noisy ones, with as much of the nearest known frame and of the traced figure in them as
        the network trusts, and as the pose of that is `sure`.
        """
        level, tokens, patch = look.level, look.tokens, self.spec.patch
        dtype, t, h = tokens.dtype, x.shape[2], x.shape[3]
        last = self.last_time(look.condition)
        shift, scale = repeat(last, "b t (two d) -> two b (t n) d", two=2, n=tokens.shape[1] // t)
        tokens = self.unpatchify(layer_norm_modulate(tokens, shift.to(dtype), scale.to(dtype)))
        deep = rearrange(tokens, "b (t h w) (c p q) -> b c t (h p) (w q)", t=t, h=h // patch, p=patch, q=patch)
        joined = self.join(torch.cat([look.stem, deep, _shown(figure).to(dtype)], 1), mask) + look.where
        y = F.silu(self.head_block(joined, mask))
        detail, trust = self.head(y, mask).float(), (self.trust(y, mask).float() + reliance.figures).sigmoid()
        spread, total = self._spread, self._deviation(level)
        clean = x * (spread**2 * (1 - level) / total**2) + detail * (spread * level / total)
        open_to = (level / WHOLLY).clamp(max=1)
        carried = (self.carry(y, mask).float() + reliance.still * look.still).sigmoid() * (look.near > 0)
        carried = carried * torch.maximum(open_to, look.still)
        clean = torch.lerp(clean, look.copies * spread, carried)
        share = sure * trust * (figure.cover / ENOUGH).clamp(max=1) * open_to
        return masked(torch.lerp(clean, self._composed(figure, clean / spread) * spread, share), mask)

    @torch.no_grad()
    def _pose(self, look: "_Look", place: Place, mask: Tensor | None) -> Pose:
        """Where the figure stands, by where in the memory each latent looks and how much of it is figure; what is
        noisy follows what is clean.
        """
        patch, side = self.spec.patch, self.spec.sheet
        sizes = {"h": place.rows.shape[1] // patch, "w": place.columns.shape[1] // patch, "p": patch, "q": patch}
        order = "b (p q) (t h w) (views y x) -> b t (h p) (w q) views y x"
        looked = rearrange(look.found, order, y=side, x=side, **sizes)
        share = rearrange(look.cover.float().sigmoid(), "b (t h w) (p q) -> b t (h p) (w q)", **sizes)
        pose = fit_pose(looked, share if mask is None else share * mask, place.area)
        return steadied(pose, place.seconds, place.rate, rearrange(look.level, "b 1 t 1 1 -> b t") + SUREST)

    @torch.no_grad()
    def _composed(self, figure: Traced, scaled: Tensor) -> Tensor:
        """Scaled latents of the figure in the light and before the scene that the network draws, (b, c, t, h, w)."""
        colours = self._colours(scaled)
        behind = behind_figures(colours, figure.cover)
        sloping = behind.sloping(self.memory.patches) * (1 - figure.cover) * (figure.there > 0)
        return figure.on(behind.colour, figure.tint(colours)) + sloping

    def _colours(self, scaled: Tensor) -> Tensor:
        """The mean colours in [0, 1] of scaled latents, (b, 3, t, h, w)."""
        colours = torch.einsum("k c, b c t h w -> b k t h w", self.memory.tints, scaled)
        return (colours + rearrange(self.memory.tone, "k -> k 1 1 1")).clamp(0, 1)

    @torch.no_grad()
    def _figures(self, actors: Sequence[Actor], place: Place) -> Traced:
        """Figures of the memory as they move."""
        patches, plain = self.memory.patches, self.memory.plain
        if place.seconds.shape[1] == 1:
            patches = patches.sum(2, keepdim=True)
        return traced(actors, patches, plain, place.area)

    def actor(self, pose: Pose, figure: Tensor, found: Tensor, place: Place) -> Actor:
        """One of the figures (b,) of the memory as it moves; nothing where none is `found`, b values."""
        there = replace(pose, there=pose.there * found.float().view(-1, 1))
        poses = moments(there, place.seconds, place.rate, self.spec.time) if place.seconds.shape[1] > 1 else (there,)
        return Actor(poses, partial(self.memory.picture, figure), self.spec.artwork)

    def _figure(self, pose: Pose, figure: Tensor, found: Tensor, place: Place) -> Traced:
        """One figure as it moves, as in `actor`."""
        return self._figures([self.actor(pose, figure, found, place)], place)

    def _keys(self, mask: Tensor | None, words: int) -> Tensor | None:
        """Which keys of the attention are real: the patches of a padded batch, then all text tokens."""
        if mask is None:
            return None
        patch = self.spec.patch
        tokens = rearrange(mask[:, :, ::patch, ::patch], "b t h w -> b (t h w)")
        return torch.cat([tokens, tokens.new_ones(len(mask), words)], 1)
