"""Latents to frames as a stream: tiles in space, one latent frame after another in time."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from sora_cli.engine.canvas import Canvas
from sora_cli.engine.measures import strips
from sora_cli.engine.memory import SIDES
from sora_cli.errors import is_out_of_memory
from sora_cli.machine import give_back_memory
from sora_cli.model.vae.cogvideox import CogVideoXVAE
from sora_cli.model.vae.patch import SPACE, PatchVAE
from sora_cli.model.vae.wan import WanVAE

LEAST_OUTER = 24  # latents along a side: of fewer, PyTorch's float32 convolutions sum in another order
SPREAD = (0.375, 0.125, -0.375, -0.125)  # of a jump: to the last frame before it and the one before, then behind it


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of latents to decode, and the rectangle around it that reaches into its pixels."""

    top: int
    bottom: int
    left: int
    right: int
    outer_top: int
    outer_bottom: int
    outer_left: int
    outer_right: int


def tiles(rows: int, columns: int, side: int, halo: int) -> tuple[Tile, ...]:
    """Tiles of at most `side` x `side` latents that cover the grid once, each with its halo, cut at the borders.

    A narrow tile at a border reaches further in, so that the same sums are made in it as in a larger one.

    Raises ValueError unless side is at least 1.
    """
    if side < 1:
        raise ValueError(f"tiles of {side} latents: at least 1")
    return tuple(
        Tile(top, bottom, left, right, outer_top, outer_bottom, outer_left, outer_right)
        for top, bottom, outer_top, outer_bottom in _parts(rows, side, halo)
        for left, right, outer_left, outer_right in _parts(columns, side, halo)
    )


def _parts(length: int, side: int, halo: int) -> list[tuple[int, int, int, int]]:
    """An axis in parts of at most `side`: where each starts and stops, and where what is around it does."""
    least = min(LEAST_OUTER, side + 2 * halo)
    parts = []
    for start in range(0, length, side):
        stop = min(start + side, length)
        first, last = max(start - halo, 0), min(stop + halo, length)
        first = max(min(first, last - least), 0)
        parts.append((start, stop, first, min(max(last, first + least), length)))
    return parts


@torch.no_grad()  # not a stream of them: around one, it keeps what was yielded last while the next is made
def decode_tile(vae: PatchVAE, latent: Tensor, before: Tensor, tile: Tile) -> Tensor:
    """The pixels of one tile, (b, 3, 4, H, W), as they are in the whole picture: the halo is decoded and dropped.

    Latents are (b, c, h, w). Beyond the picture's border the decoder sees the same zeros as without tiles.
    """
    outer = (..., slice(tile.outer_top, tile.outer_bottom), slice(tile.outer_left, tile.outer_right))
    pixels = vae.decode_step(latent[outer], before[outer])
    top, left = (tile.top - tile.outer_top) * SPACE, (tile.left - tile.outer_left) * SPACE
    height, width = (tile.bottom - tile.top) * SPACE, (tile.right - tile.left) * SPACE
    return pixels[..., top : top + height, left : left + width]


def decode_groups(vae: PatchVAE, latents: Iterable[Tensor], side: int) -> Iterator[Tensor]:
    """Decode latent frames (1, c, h, w) one after another: (n, 3, H, W) in [-1, 1], n = 1 first, then 4.

    A latent frame is taken when its turn comes, so that a job's file never has to be in memory as a whole.
    """
    before: Tensor | None = None
    for latent in latents:
        latent = latent.to(vae.mean.device)
        frames = torch.empty(4, 3, latent.shape[-2] * SPACE, latent.shape[-1] * SPACE)
        for tile in tiles(latent.shape[-2], latent.shape[-1], side, vae.halo):
            pixels = decode_tile(vae, latent, latent if before is None else before, tile)[0].clamp(-1, 1)
            region = (..., slice(tile.top * SPACE, tile.bottom * SPACE), slice(tile.left * SPACE, tile.right * SPACE))
            frames[region] = rearrange(pixels, "c T h w -> T c h w").float().cpu()
        yield frames[-1:] if before is None else frames
        del frames, pixels  # before the next ones are made
        give_back_memory()  # a heap in pieces grows from frame to frame
        before = latent


def steadied(groups: Iterable[Tensor]) -> Iterator[Tensor]:
    """Groups of frames (n, 3, H, W) in [-1, 1] whose texture doesn't jump from one group to the next.

    What a step from group to group has beyond the steps on either side of it is no movement: the network draws grain
    anew for every latent frame. It is spread over the two frames on either side, so that they make a ramp. The groups
    are changed in place. Only the last two frames of a group wait for the next one.
    """
    waiting: Tensor | None = None
    for group in groups:
        if waiting is not None:
            for rows in strips(group.shape[2]):
                _even_out(waiting[:, :, rows], group[:, :, rows])
            yield waiting.clamp_(-1, 1)
            del waiting  # before the next ones wait
        waiting = group[-2:].clone()
        if len(group) > 2:
            yield group[:-2].clamp_(-1, 1)
        del group  # before the next one is made
    if waiting is not None:
        yield waiting.clamp_(-1, 1)


def _even_out(before: Tensor, after: Tensor) -> None:
    """Make a ramp of the jump between two groups, (n, 3, H, W)."""
    steps = [part[1] - part[0] for part in (before[-2:], after[:2]) if len(part) == 2]
    usual = sum(steps) / len(steps) if steps else torch.zeros_like(after[0])
    jump = after[0] - before[-1] - usual
    for frame, share in zip((before[-1:], before[-2:-1], after[:1], after[1:2]), SPREAD, strict=True):
        frame += share * jump


def decode_frames(
    vae: PatchVAE | WanVAE | CogVideoXVAE, latents: Iterable[Tensor], count: int, side: int, scratch: Path
) -> Iterator[Tensor]:
    """Decode `count` latent frames (1, c, h, w), as the denoiser makes them, in tiles of `side` latents.

    Yields frames in [-1, 1] in order, (n, 3, H, W) float32 on the CPU. `scratch` is a folder for temporary files.
    """
    match vae:
        case PatchVAE():
            yield from decode_groups(vae, latents, side)
        case WanVAE():
            yield from vae.decode(latents, side, scratch)
        case CogVideoXVAE():
            yield from vae.decode(latents, count, side, scratch)


def in_smaller_tiles(
    decode: Callable[[int], Iterator[Tensor]], side: int, tell: Callable[[int], None]
) -> Iterator[Tensor]:
    """What `decode(side)` yields, and where memory runs out the rest of it in smaller tiles, of which `tell` is told.

    Tiles do not change what is decoded, so what was yielded stands. Raises what `decode` raises, out of memory too
    when even the smallest tiles are too large.
    """
    done = 0
    while True:
        try:
            for group in islice(decode(side), done, None):
                done += 1
                yield group
                del group  # before the next one is made
            return
        except Exception as error:
            smaller = [less for less in SIDES if less < side]
            if not is_out_of_memory(error) or not smaller:
                raise
            side = smaller[0]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        tell(side)


def frames_of(groups: Iterable[Tensor], canvas: Canvas) -> Iterator[np.ndarray]:
    """The frames of the job, exactly as many and as large as asked: uint8 (H, W, 3) RGB, one at a time."""
    top, left = canvas.margins
    count = 0
    for group in groups:
        for index in range(len(group)):
            if count == canvas.frames:
                return
            count += 1
            yield _in_bytes(group[index, :, top : top + canvas.height, left : left + canvas.width])
        del group  # before the next one is made


def _in_bytes(frame: Tensor) -> np.ndarray:
    """A frame (3, H, W) in [-1, 1] as uint8 (H, W, 3), converted a few rows at a time: copies leave a torn heap."""
    pixels = np.empty((*frame.shape[1:], len(frame)), np.uint8)
    for rows in strips(frame.shape[1]):
        pixels[rows] = rearrange((frame[:, rows] + 1).mul_(127.5).round_().byte(), "c h w -> h w c").numpy()
    return pixels
