"""Denoisers as the engine knows them: a family's network, bound to words, to a place and to what it is shown."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from sora_cli.engine.canvas import Level
from sora_cli.engine.denoiser import Known, Network, Window
from sora_cli.engine.reel import Span
from sora_cli.model.cogvideox import CogVideoXTransformer
from sora_cli.model.dit import LEARNED, STILL_RATE, Around, DiT, Reliance, locate, seconds_of
from sora_cli.model.dit import Place as Where
from sora_cli.model.tracing import Pose, Traced
from sora_cli.model.wan import WanTransformer
from sora_weights.spec import Grid

KEPT_TRACES = 1200  # latents of a picture whose traced figure is kept for all steps; in larger ones it is traced anew
SMOOTH = 6  # diorama's latents begin with so many that smooth pictures have too: colours and slopes

Text = tuple[Tensor, Tensor]
"""Features of a prompt (1, m, e) and which of its tokens are real (1, m)."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Who is where: the text that tells the figure, and its pose in some latent frames."""

    text: Text
    pose: Pose


@dataclass(frozen=True, slots=True)
class Place:
    """What a network is to denoise: a window in space of one level, in one window in time of the video; the figures in
    these frames, where they are known, those that come later in front; how much more than it learned the network is to
    take of what is at hand; what is known around the part of the picture that is to be drawn, where that is not all of
    it; and how the camera sees these frames, (1, 4, t, 1, 1), where a family can be told.
    """

    level: Level
    window: Window
    span: Span
    fps: float
    figures: tuple[Figure, ...] = ()
    reliance: Reliance = LEARNED
    around: Known | None = None
    camera: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """What networks with condition channels are shown of known frames: channels (1, k, t, h, w) beside the latents,
    and features (1, n, i) of the known pictures where the network reads those.
    """

    channels: Tensor
    picture: Tensor | None = None


class Backbone(Protocol):
    """A denoiser of one family on one device."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    @property
    def dtype(self) -> torch.dtype:
        """The precision that it computes in."""

    def bind(self, text: Text, place: Place, condition: Condition | None) -> Network:
        """The network(x, timesteps) for one place and one prompt."""

    def detail(self, x0: Tensor) -> float:
        """How much clean latents (1, c, t, h, w) show, at the place that shows most, that is not smooth."""


class _Held:
    """What all backbones share: a network, and where and how precise it is by its patch embedding."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def detail(self, x0: Tensor) -> float:
        """More than anything may be called smooth: whose latents say nothing of it."""
        return math.inf

    @property
    def device(self) -> torch.device:
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self._weight.dtype


class DioramaBackbone(_Held):
    """diorama's network knows where in picture and time a window lies, and takes a timestep for each frame."""

    def __init__(self, network: DiT, grid: Grid) -> None:
        super().__init__(network.patchify.weight)
        self.network, self.grid = network, grid

    def bind(self, text: Text, place: Place, condition: Condition | None) -> Network:
        """The network for one window, for as many videos as there are texts. Conditions are shown by timesteps, not by
        channels.
        """
        features, seen = self._moved(text)
        where = self._where(place).times(len(features))
        trace: Callable[[], Traced | None] = partial(self._traced, place.figures, where)
        if math.prod(place.level.latents(self.grid)) <= KEPT_TRACES:
            trace = cache(trace)

        known = place.around
        around = None if known is None else Around(known.latents, known.mask)

        def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
            return self.network(
                x, timesteps, features, seen, where, told=trace(), reliance=place.reliance, around=around
            )

        return denoise

    def cover(self, place: Place) -> Tensor:
        """How much of each latent of a place its figures cover, as they are to stand there: (t, h, w)."""
        traced = self._traced(place.figures, self._where(place))
        assert traced is not None
        return traced.cover[0, 0]

    def _traced(self, figures: Sequence[Figure], where: Where) -> Traced | None:
        """Figures as they are to stand."""
        if not figures:
            return None
        return self.network.trace_all([(each.pose, *self._moved(each.text)) for each in figures], where)

    def pose(self, x: Tensor, timesteps: Tensor, text: Text, place: Place) -> Pose:
        """Where the figure that a text is about stands in latents x (1, c, t, h, w) at timesteps (1, t)."""
        return self.network.pose(x, timesteps, *self._moved(text), self._where(place))

    def moment(self, x: Tensor, pose: Pose, text: Text, place: Place) -> Tensor:
        """How far on the animation of that figure is in clean latents, where it stands: seconds, (1, t)."""
        return self.network.moment(x, pose, *self._moved(text), self._where(place))

    def named(self, text: Text) -> int | None:
        """The number of the figure that a text is about, if it is about one."""
        figure, found = self.network.memory.find(*self._moved(text))
        return int(figure) if found else None

    def loop(self, text: Text) -> float:
        """How many seconds the animation of the figure that comes nearest to a text takes."""
        memory = self.network.memory
        return memory.loop(memory.find(*self._moved(text))[0])

    def detail(self, x0: Tensor) -> float:
        """The energy of what is neither colour nor slope: of all but the first principal components of patches."""
        scaled = x0[0, SMOOTH:] / rearrange(self.network.spread[SMOOTH:], "c -> c 1 1 1")
        energy = (scaled**2).mean(0)
        return F.avg_pool2d(energy[:, None], 2).max().item()

    def likeness(self, x: Tensor, text: Text, place: Place) -> tuple[float, float]:
        """How much latents x (1, c, t, h, w) look like the figure that a text is about: the correlation of colours, and
        how far they are apart.
        """
        return self.network.likeness(x, *self._moved(text), self._where(place))

    def _moved(self, text: Text) -> Text:
        return text[0].to(self.device), text[1].to(self.device)

    def _where(self, place: Place) -> Where:
        level, window, span, space = place.level, place.window, place.span, self.grid.space
        rows, columns = level.latents(self.grid)
        count = len(range(*window.t.indices(span.stop - span.start)))
        seconds = seconds_of(min(span.start, 1), count, place.fps, self.grid.time)  # from 0, or from mid-stream
        rate = place.fps / self.grid.time if count > 1 else STILL_RATE
        grid = (len(range(*window.h.indices(rows))), len(range(*window.w.indices(columns))))
        corner = ((window.h.start or 0) * space, (window.w.start or 0) * space)
        camera = None if place.camera is None else place.camera[:, :, window.t, 0, 0]
        if camera is not None and bool((camera == camera[..., :1]).all()):
            camera = camera[..., :1]  # it stands still
        return locate(seconds, rate, (level.height, level.width), corner, grid, space, camera).to(self.device)


class WanBackbone(_Held):
    """Wan's network has one timestep; what is known comes as condition channels and as the features of a picture."""

    def __init__(self, network: WanTransformer) -> None:
        super().__init__(network.patchify.weight)
        self.network = network

    def bind(self, text: Text, place: Place, condition: Condition | None) -> Network:
        """The network with its text; every frame is at the same timestep."""
        features = text[0].to(self.device, self.dtype)
        picture = None
        if condition is not None and condition.picture is not None:
            picture = condition.picture.to(self.device, self.dtype)

        def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
            return self.network(_shown(x, condition).to(self.dtype), timesteps[:, 0], features, picture).float()

        return denoise


class CogVideoXBackbone(_Held):
    """CogVideoX's network has one timestep; what is known comes as condition channels."""

    def __init__(self, network: CogVideoXTransformer) -> None:
        super().__init__(network.patchify.weight)
        self.network = network

    def bind(self, text: Text, place: Place, condition: Condition | None) -> Network:
        """The network with its text; every frame is at the same timestep."""
        features = text[0].to(self.device, self.dtype)
        return lambda x, timesteps: self.network(_shown(x, condition).to(self.dtype), timesteps[:, 0], features).float()


def _shown(x: Tensor, condition: Condition | None) -> Tensor:
    return x if condition is None else torch.cat([x, condition.channels.to(x)], 1)
