"""Wan 2.1's video autoencoder, as a stream of frames in either direction and exact in tiles.

The decoder's middle sees whole frames of latents; all that follows is local. So large pictures are decoded with tiles
on the outside and time on the inside: each tile runs through the whole video with only its own memory of the past,
its frames wait on disk, and the picture is put together frame by frame.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from sora_cli.model.vae.wan_layers import CausalConv, Double, Halve, Middle, NormSiLU, Pasts, Residual, UpLevel
from sora_cli.model.vae.wan_scratch import FrameFile, from_fixed, to_fixed
from sora_cli.model.vae.wan_tiles import TilePlan, plan_tile, tile_regions
from sora_weights.spec import WanVAESpec

SPACE = 8  # pixels in a latent, along each side
TIME = 4  # frames in a latent frame; the first latent frame holds one


class Encoder(nn.Module):
    """Frames to the mean and log-variance of latents."""

    def __init__(self, spec: WanVAESpec) -> None:
        super().__init__()
        widths = [spec.width * multiplier for multiplier in spec.multipliers]
        self.inward = CausalConv(3, spec.width)
        self.down = nn.ModuleList(_down_steps(spec.width, widths, spec))
        self.middle = Middle(widths[-1])
        self.norm = NormSiLU(widths[-1])
        self.outward = CausalConv(widths[-1], 2 * spec.channels)
        self.quant = nn.Conv2d(2 * spec.channels, 2 * spec.channels, 1)

    def stream(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        """Frames (1, 3, H, W) -> (1, 2 c, h, w) for the first and for every four that follow."""
        pasts: Pasts = {}
        features: Iterator[Tensor] = map(partial(self.inward, pasts=pasts), frames)
        for step in self.down:
            features = step(features, pasts) if isinstance(step, Halve) else map(partial(step, pasts=pasts), features)
        for x in features:
            yield self.quant(self.outward(self.norm(self.middle(x, pasts)), pasts))


class Decoder(nn.Module):
    """Latents to frames, in two halves: what needs the whole picture, then what a tile can do alone."""

    def __init__(self, spec: WanVAESpec) -> None:
        super().__init__()
        widths = [spec.decoder_width * multiplier for multiplier in reversed(spec.multipliers)]
        self.dequant = nn.Conv2d(spec.channels, spec.channels, 1)
        self.inward = CausalConv(spec.channels, widths[0])
        self.middle = Middle(widths[0])
        self.up = nn.ModuleList(_up_levels(widths, spec))
        self.norm = NormSiLU(widths[-1])
        self.outward = CausalConv(widths[-1], 3)

    def features(self, latents: Iterator[Tensor]) -> Iterator[Tensor]:
        """Latents (1, c, h, w), in the autoencoder's units -> (1, c', h, w)."""
        pasts: Pasts = {}
        for latent in latents:
            yield self.middle(self.inward(self.dequant(latent), pasts), pasts)

    def paint(self, features: Iterator[Tensor], tile: TilePlan) -> Iterator[Tensor]:
        """A tile's pixels (1, 3, H, W) in [-1, 1] from whole features: one frame for the first, then four for each."""
        pasts: Pasts = {}
        for level, entry, cut in zip(self.up, tile.entries, tile.cuts, strict=True):
            features = level(map(itemgetter((..., *entry)), features), pasts, cut)
        for x in map(self.norm, features):
            yield self.outward(x, pasts)[(..., *tile.exit)].clamp(-1, 1)


class WanVAE(nn.Module):
    """The autoencoder; videos have 4k + 1 frames of 8h x 8w pixels and k + 1 latent frames of h x w latents.

    Raises ValueError for a specification with other factors.
    """

    def __init__(self, spec: WanVAESpec) -> None:
        super().__init__()
        if (2 ** (len(spec.multipliers) - 1), 2 ** sum(spec.halves_time)) != (SPACE, TIME):
            raise ValueError(f"a Wan autoencoder that isn't {SPACE}x{SPACE}x{TIME}: {spec}")
        self.spec = spec
        self.encoder = Encoder(spec)
        self.decoder = Decoder(spec)

    @torch.no_grad()
    def encode(self, frames: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Mean and log-variance of each latent frame, (1, c, h, w) both, from frames (1, 3, H, W) in [-1, 1].

        A frame is taken when its turn comes. Raises ValueError at the end unless there were 4k + 1.
        """
        for moments in self.encoder.stream(map(self._placed, _counted(frames))):
            mean, log_variance = moments.chunk(2, 1)
            yield mean, log_variance.clamp(-30, 20)

    @torch.no_grad()
    def decode(self, latents: Iterable[Tensor], side: int, scratch: Path) -> Iterator[Tensor]:
        """Frames (n, 3, H, W) in [-1, 1], float32 on the CPU, from latents (1, c, h, w) as the denoiser sees them.

        n is 1 for the first latent frame, then 4. Tiles have at most `side` x `side` latents; if there are several,
        features and pixels wait in a folder of their own in `scratch`, which is gone when the frames are, or when
        the caller stops. Raises ValueError unless side is at least 1.
        """
        coming = iter(latents)
        if (first := next(coming, None)) is None:
            return
        tiles = self._plan(first.shape[-2], first.shape[-1], side)
        features = self.decoder.features(map(self._placed, map(self.denormalise, chain([first], coming))))
        if len(tiles) == 1:
            yield from grouped(frame.float().cpu() for frame in self.decoder.paint(features, tiles[0]))
        else:
            yield from grouped(self._painted(features, tiles, scratch))

    def normalise(self, latents: Tensor) -> Tensor:
        """Latents (1, c, ..., h, w) in the autoencoder's units as the denoiser sees them: (latents - mean) / std."""
        return (latents - self._per_channel(self.spec.mean, latents)) / self._per_channel(self.spec.std, latents)

    def denormalise(self, latents: Tensor) -> Tensor:
        """What the denoiser sees, (1, c, ..., h, w), in the autoencoder's units: latents * std + mean."""
        return latents * self._per_channel(self.spec.std, latents) + self._per_channel(self.spec.mean, latents)

    def _plan(self, rows: int, columns: int, side: int) -> list[TilePlan]:
        levels, convolutions = len(self.spec.multipliers), 2 * (self.spec.depth + 1)
        return [plan_tile(tile, levels, convolutions) for tile in tile_regions(rows, columns, side)]

    def _painted(self, features: Iterator[Tensor], tiles: list[TilePlan], scratch: Path) -> Iterator[Tensor]:
        """Whole frames (1, 3, H, W) from tiles that were decoded one by one."""
        with TemporaryDirectory(prefix="wan-decode-", dir=scratch) as folder:
            waiting = FrameFile.holding(Path(folder) / "features", features)
            painted = [self._painted_tile(waiting, tile, Path(folder) / str(index)) for index, tile in enumerate(tiles)]
            waiting.remove()
            for parts in zip(*painted, strict=True):
                yield _joined(tiles, parts)

    def _painted_tile(self, waiting: FrameFile, tile: TilePlan, path: Path) -> FrameFile:
        pixels = self.decoder.paint(map(self._placed, waiting), tile)
        return FrameFile.holding(path, map(to_fixed, pixels))

    def _placed(self, x: Tensor) -> Tensor:
        """`x` where the weights are, in their precision, channels last."""
        like = self.decoder.outward.bias
        return x.to(like.device, like.dtype).contiguous(memory_format=torch.channels_last)

    def _per_channel(self, values: tuple[float, ...], latents: Tensor) -> Tensor:
        spread = torch.tensor(values, device=latents.device, dtype=latents.dtype)
        return spread.view(-1, *[1] * (latents.ndim - 2))


def grouped(frames: Iterator[Tensor]) -> Iterator[Tensor]:
    """Frames (1, 3, H, W) by latent frame: the first alone, then fours."""
    for first in frames:
        yield first.contiguous()
        while group := list(islice(frames, TIME)):
            yield torch.cat(group).contiguous()


def _joined(tiles: list[TilePlan], parts: tuple[Tensor, ...]) -> Tensor:
    """A frame (1, 3, H, W) from its tiles in fixed point."""
    rows, columns = tiles[0].pixels.rows.size, tiles[0].pixels.columns.size
    frame = torch.empty(1, 3, rows, columns)
    for tile, part in zip(tiles, parts, strict=True):
        frame[(..., *tile.pixels.place)] = from_fixed(part)
    return frame


def _counted(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """The frames, then ValueError unless they were 4k + 1."""
    count = 0
    for frame in frames:
        count += 1
        yield frame
    if count % TIME != 1:
        raise ValueError(f"{count} frames to encode: one more than a multiple of {TIME}")


def _down_steps(width: int, widths: list[int], spec: WanVAESpec) -> Iterator[Residual | Halve]:
    for level, wider in enumerate(widths):
        for _ in range(spec.depth):
            yield Residual(width, wider)
            width = wider
        if level < len(spec.halves_time):
            yield Halve(width, in_time=spec.halves_time[level])


def _up_levels(widths: list[int], spec: WanVAESpec) -> Iterator[UpLevel]:
    inward = widths[0]
    for width, in_time in zip(widths, (*reversed(spec.halves_time), None), strict=True):
        doubling = None if in_time is None else Double(width, in_time=in_time)
        yield UpLevel(inward, width, spec.depth + 1, doubling)
        inward = width // 2
