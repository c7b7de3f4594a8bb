"""The memory plan: what a job will need at its peak, made before the first step, from the request alone.

The figures are upper bounds of what was measured on CPU; the plan chooses the side of the decoder's tiles and nothing
else, so it never changes the picture.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sora_cli.engine.canvas import Canvas
from sora_cli.errors import SoraError
from sora_weights.reader import open_weights
from sora_weights.spec import (
    CogVideoXSpec,
    CogVideoXVAESpec,
    DiTSpec,
    FlowSpec,
    Model,
    PatchVAESpec,
    WanSpec,
    WanVAESpec,
)

MB = 2**20
LIBRARIES = 310 * MB  # the interpreter, torch, FFmpeg and what they leave behind
TRANSFORMERS = 190 * MB  # the library of that name, which published models' text encoders come from
SIDES = (96, 64, 48, 32, 24, 16)  # sides of decoder tiles, in latents: the first that fits is taken
FLOAT = 4
WHOLES = 8  # latents of a window of the whole picture: solver, what is known, and the checkpoint's copies
# Bytes for each value of a frame: a latent frame's pictures in the making take 49, and an encoder's lookahead 32 (.mp4
# and .mkv) to 55 (.webm).
WRITTEN = 110
ENLARGED = 70  # bytes for each value of a frame while the level before it is enlarged to it
READ = 25  # bytes for each value of a frame of a clip: its decoder, and the frames that are compared and joined


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model takes, in bytes: libraries, its largest networks at once, activations of a patch while its window is
    denoised, of a latent while its tile is decoded, and of a latent of the whole picture while any tile is. In
    `strips`, tiles are as wide as the picture.
    """

    libraries: int
    networks: int
    token: int
    tile: int
    latent: int
    channels: int
    strips: bool = False


def footprint_of(model: Model) -> Footprint:
    """The footprint of a model, from the shapes of its networks and the headers of its files, in float32."""
    channels, sizes = model.specs.vae.channels, {name: _bytes_of(model.parts[name]) for name in ("dit", "vae", "text")}
    networks, published = sizes["vae"] + max(sizes["dit"], sizes["text"]), LIBRARIES + TRANSFORMERS
    match model.specs.dit, model.specs.vae:
        case WanSpec() as dit, WanVAESpec() as vae:
            token = FLOAT * (2 * dit.inner + 14 * dit.width)
            return Footprint(published, networks, token, 8500 * vae.decoder_width, 120 * vae.decoder_width, channels)
        case CogVideoXSpec() as dit, CogVideoXVAESpec() as vae:
            token = FLOAT * 24 * dit.width
            tile, latent = 14_000 * vae.widths[0], 16_000 * vae.widths[0]
            return Footprint(published, networks, token, tile, latent, channels, strips=True)
        case DiTSpec() as dit, PatchVAESpec() as vae:
            token = FLOAT * (36 * dit.width + 16 * dit.conv_width)
            return Footprint(LIBRARIES, networks, token, FLOAT * 144 * vae.tail_width, 0, channels)
    raise TypeError(f"no footprint is known for {type(model.specs.dit).__name__}")


def _bytes_of(path: Path) -> int:
    """What the tensors of a file or folder take in float32."""
    return FLOAT * sum(_elements(entry.shape) for entry in open_weights(path).entries.values())


def _elements(shape: Iterable[int]) -> int:
    return math.prod(shape)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes by stage, their peak, bytes of latents on disk, and the side of the decoder's tiles in latents."""

    libraries: int
    networks: int
    denoise: int
    decode: int
    disk: int
    tile_side: int

    @property
    def peak(self) -> int:
        """Bytes of memory at the worst moment."""
        return self.libraries + self.networks + max(self.denoise, self.decode)


def plan_memory(
    canvas: Canvas, flow: FlowSpec, footprint: Footprint, limit: int | None, *, reads: bool = False
) -> MemoryPlan:
    """The plan for a canvas that is denoised in the windows of `flow`, within `limit` bytes; `reads` says that there
    are clips or pictures to read too.

    Raises SoraError("memory_too_small") naming the least amount that works.
    """
    plans = [_with_tiles(canvas, flow, footprint, side, reads=reads) for side in SIDES]
    fitting = [plan for plan in plans if limit is None or plan.peak <= limit]
    if not fitting:
        least = -(-min(plan.peak for plan in plans) // MB)
        raise SoraError("memory_too_small", f"--memory {_amount(limit or 0)}", f"this job needs {least}MB or more")
    return fitting[0]


def _with_tiles(canvas: Canvas, flow: FlowSpec, footprint: Footprint, side: int, *, reads: bool) -> MemoryPlan:
    last = canvas.levels[-1]
    rows, columns = last.latents(canvas.grid)
    frames = min(flow.window + flow.anchored, canvas.latent_frames)
    latent = FLOAT * footprint.channels
    patches = (canvas.grid.patch // canvas.grid.space) ** 2
    seen = min(rows * columns, flow.reach[0] * flow.reach[1]) * frames // patches
    whole = rows * columns * frames * latent
    picture = last.width * last.height * 3
    read = picture * READ if reads else 0
    outer = (min(side, rows) + 10) * (columns if footprint.strips else min(side, columns) + 10)
    return MemoryPlan(
        libraries=footprint.libraries,
        networks=footprint.networks,
        denoise=max(seen * footprint.token + WHOLES * whole, picture * ENLARGED) + read,
        decode=outer * footprint.tile + rows * columns * footprint.latent + picture * WRITTEN + read,
        disk=2 * rows * columns * canvas.latent_frames * latent,
        tile_side=side,
    )


def _amount(size: int) -> str:
    """Bytes in the largest unit that leaves a whole number of at least one."""
    return f"{size // MB}MB" if size >= MB else f"{size} bytes"
