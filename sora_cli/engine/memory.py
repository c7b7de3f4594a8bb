"""The memory plan: what a job will need at its peak, made before the first step, from the request alone.

The figures of `FIXED` and of bytes per token are upper bounds of what was measured on CPU; the plan chooses the
side of the decoder's tiles and nothing else, so it never changes the picture.
"""

from dataclasses import dataclass

from sora_cli.engine.canvas import Canvas
from sora_cli.errors import SoraError

MB = 2**20
FIXED = 600 * MB  # the interpreter, torch, the networks and what they leave behind
TOKEN_BYTES = 40_000  # activations of a patch while its window is denoised
TILE_BYTES = 50_000  # activations of a latent while its tile is decoded
LATENT_BYTES = 4 * 32
SIDES = (96, 64, 48, 32, 24, 16)  # sides of decoder tiles, in latents: the first that fits is taken


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes by stage, their peak, bytes of latents on disk, and the side of the decoder's tiles in latents."""

    denoise: int
    decode: int
    disk: int
    tile_side: int

    @property
    def peak(self) -> int:
        """Bytes of memory at the worst moment."""
        return FIXED + max(self.denoise, self.decode)


def plan_memory(canvas: Canvas, window: int, reach: tuple[int, int], limit: int | None) -> MemoryPlan:
    """The plan for a canvas whose windows are `window` latent frames of at most `reach` latents, within `limit` bytes.

    Raises SoraError("memory_too_small") naming the least amount that works.
    """
    plans = [_with_tiles(canvas, window, reach, side) for side in SIDES]
    fitting = [plan for plan in plans if limit is None or plan.peak <= limit]
    if not fitting:
        least = -(-min(plan.peak for plan in plans) // MB)
        raise SoraError("memory_too_small", f"--memory {_amount(limit or 0)}", f"this job needs {least}MB or more")
    return fitting[0]


def _with_tiles(canvas: Canvas, window: int, reach: tuple[int, int], side: int) -> MemoryPlan:
    last = canvas.levels[-1]
    rows, columns = last.latents(canvas.grid)
    frames = min(window, canvas.latent_frames)
    patches = (canvas.grid.patch // canvas.grid.space) ** 2
    seen = min(rows * columns, reach[0] * reach[1]) * frames // patches
    whole = rows * columns * frames * LATENT_BYTES
    picture = last.width * last.height * 3
    outer = (min(side, rows) + 10) * (min(side, columns) + 10)
    return MemoryPlan(
        denoise=seen * TOKEN_BYTES + 5 * whole,
        decode=outer * TILE_BYTES + picture * (4 * 4 * 3 + 8),
        disk=2 * rows * columns * canvas.latent_frames * LATENT_BYTES,
        tile_side=side,
    )


def _amount(size: int) -> str:
    """Bytes in the largest unit that leaves a whole number of at least one."""
    return f"{size // MB}MB" if size >= MB else f"{size} bytes"
