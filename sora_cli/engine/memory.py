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
LIBRARIES = 360 * MB  # the interpreter, torch, FFmpeg and what they leave behind
TRANSFORMERS = 190 * MB  # the library of that name, which published models' text encoders come from
SIDES = (96, 64, 48, 32, 24, 16)  # sides of decoder tiles, in latents: the first that fits is taken
FLOAT = 4
WHOLES = 6  # latents of a window of the whole picture: solver, what is known, and the checkpoint's copies
# Bytes for each value of a frame, beside what reading and writing hold: while frames are encoded, while a level is
# enlarged, while frames are decoded, and what is compared and joined then where there are clips.
ENCODED = 46
ENLARGED = 58
DECODED = 36
DECODED_TWICE = 52  # where the pictures before are kept too
JOINED = 9
# While figures are drawn sharp: bytes for each pixel of a strip, for each of the picture, and their loops of pictures.
SHARPENED = 220
SHOWN = 60
LOOPS = 50 * MB
LOOKED = 110 * MB  # while it is found out which figure given frames show
STRIP = 2**18  # pixels that are drawn sharp together, about


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model takes, in bytes: libraries, its largest networks at once, its autoencoder alone, activations of a
    patch while its window is denoised, of a latent while its tile is decoded, of a latent of the whole picture while
    any tile is, and for each value of a decoded frame. In `strips`, tiles are as wide as the picture; where it
    `retouches`, figures are drawn sharp in decoded frames.
    """

    libraries: int
    networks: int
    autoencoder: int
    token: int
    tile: int
    latent: int
    value: int
    channels: int
    strips: bool = False
    retouches: bool = False


def footprint_of(model: Model) -> Footprint:
    """The footprint of a model, from the shapes of its networks and the headers of its files, in float32."""
    channels, sizes = model.specs.vae.channels, {name: _bytes_of(model.parts[name]) for name in ("dit", "vae", "text")}
    networks, published = sizes["vae"] + max(sizes["dit"], sizes["text"]), LIBRARIES + TRANSFORMERS
    match model.specs.dit, model.specs.vae:
        case WanSpec() as dit, WanVAESpec() as vae:
            token = FLOAT * (2 * dit.inner + 14 * dit.width)
            tile, latent = 8500 * vae.decoder_width, 120 * vae.decoder_width
            return Footprint(published, networks, sizes["vae"], token, tile, latent, DECODED_TWICE, channels)
        case CogVideoXSpec() as dit, CogVideoXVAESpec() as vae:
            token = FLOAT * 24 * dit.width
            tile, latent = 14_000 * vae.widths[0], 16_000 * vae.widths[0]
            return Footprint(
                published, networks, sizes["vae"], token, tile, latent, DECODED_TWICE, channels, strips=True
            )
        case DiTSpec() as dit, PatchVAESpec() as vae:
            token = FLOAT * (36 * dit.width + 16 * dit.conv_width)
            tile = FLOAT * 176 * vae.tail_width
            retouches = model.specs.retouch is not None
            return Footprint(LIBRARIES, networks, sizes["vae"], token, tile, 0, DECODED, channels, retouches=retouches)
    raise TypeError(f"no footprint is known for {type(model.specs.dit).__name__}")


def _bytes_of(path: Path) -> int:
    """What the tensors of a file or folder take, those of fractions in float32."""
    entries = open_weights(path).entries.values()
    return sum((1 if entry.dtype == "U8" else FLOAT) * _elements(entry.shape) for entry in entries)


def _elements(shape: Iterable[int]) -> int:
    return math.prod(shape)


@dataclass(frozen=True, slots=True)
class Media:
    """What reading and writing hold, in bytes: the sources, and the encoder of the output. What isn't there holds 0.

    Frames are `joined` to those of a clip or picture; and clips may be read `beside`, at the same time as frames are
    decoded. A `preview` is decoded between steps. Where a picture is `masked`, what stays of it is kept.
    """

    read: int = 0
    written: int = 0
    joined: bool = False
    beside: bool = False
    preview: bool = False
    masked: bool = False


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes by stage, their peak, bytes of latents on disk, and the side of the decoder's tiles in latents."""

    libraries: int
    networks: int
    encode: int
    denoise: int
    decode: int
    disk: int
    tile_side: int

    @property
    def peak(self) -> int:
        """Bytes of memory at the worst moment."""
        return self.libraries + self.networks + max(self.encode, self.denoise, self.decode)


def plan_memory(
    canvas: Canvas, flow: FlowSpec, footprint: Footprint, limit: int | None, media: Media, *, drawn: bool = True
) -> MemoryPlan:
    """The plan for a canvas that is denoised in the windows of `flow`, or encoded and decoded where it is not `drawn`,
    within `limit` bytes.

    Raises SoraError("memory_too_small") naming the least amount that works.
    """
    plans = [_with_tiles(canvas, flow, footprint, side, media, drawn=drawn) for side in SIDES]
    fitting = [plan for plan in plans if limit is None or plan.peak <= limit]
    if not fitting:
        least = -(-min(plan.peak for plan in plans) // MB)
        raise SoraError("memory_too_small", f"--memory {_amount(limit or 0)}", f"this job needs {least}MB or more")
    return fitting[0]


def _with_tiles(
    canvas: Canvas, flow: FlowSpec, footprint: Footprint, side: int, media: Media, *, drawn: bool
) -> MemoryPlan:
    last = canvas.levels[-1]
    rows, columns = last.latents(canvas.grid)
    frames = min(flow.window, canvas.latent_frames)
    latent = FLOAT * footprint.channels
    patches = (canvas.grid.patch // canvas.grid.space) ** 2
    seen = min(rows * columns, flow.reach[0] * flow.reach[1]) * frames // patches
    whole = rows * columns * frames * latent
    picture = last.width * last.height * 3
    outer = (min(side, rows) + 10) * (columns if footprint.strips else min(side, columns) + 10)
    sharpened = min(picture // 3, STRIP) * SHARPENED + picture // 3 * SHOWN
    looked = LOOKED * (footprint.retouches and drawn)
    pixels = max(outer * footprint.tile, sharpened * (footprint.retouches and drawn))  # one after the other
    decoded = pixels + rows * columns * footprint.latent + picture * footprint.value
    joined = picture * JOINED * media.joined + media.read * media.beside
    enlarged = picture * ENLARGED if len(canvas.levels) > 1 else 0
    denoise = max(seen * footprint.token + WHOLES * whole + decoded * media.preview, enlarged)
    return MemoryPlan(
        libraries=footprint.libraries,
        networks=footprint.networks + LOOPS * footprint.retouches if drawn else footprint.autoencoder,
        encode=max(picture * ENCODED + media.read, looked) if media.read else 0,
        denoise=denoise if drawn else 0,
        decode=decoded + joined + media.written,
        disk=(2 + media.masked) * rows * columns * canvas.latent_frames * latent,
        tile_side=side,
    )


def _amount(size: int) -> str:
    """Bytes in the largest unit that leaves a whole number of at least one."""
    return f"{size // MB}MB" if size >= MB else f"{size} bytes"
