"""The only denoising loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from sora_cli.engine.denoiser import Denoiser
from sora_cli.engine.schedule import Rows
from sora_cli.engine.solvers import Draw, Solver, State


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A completed step: `done` rows of `total`, the latents x after it, the x0 predicted in it, the new state.

    (x, state, done) and the generator's state behind `draw` are all that a checkpoint needs.
    """

    done: int
    x: Tensor
    x0: Tensor
    state: State
    total: int


def sample(
    denoise: Denoiser,
    rows: Rows,
    x: Tensor,
    solver: Solver,
    draw: Draw,
    on_step: Callable[[Step], None],
    state: State | None = None,
    start: int = 0,
) -> Tensor:
    """Denoises x (b, c, t, h, w) through rows[start:], telling `on_step` of each.

    Given a Step's x, state and done (as `start`), it goes on from there to the same latents, bit for bit.
    """
    state = state or State()
    for done, row in enumerate(rows[start:], start + 1):
        x0 = denoise(x, row)
        state, x = solver(state, row, x, x0, draw)
        on_step(Step(done, x, x0, state, len(rows)))
    return x


def mixed_noise(shape: Sequence[int], share: float, generator: torch.Generator, common: Tensor | None = None) -> Tensor:
    """Standard normal noise (b, c, t, h, w), float32 on the CPU, of which all frames have the `share` in common.

    `common` (b, c, 1, h, w) is what they have in common, drawn first where it is not given. A share of 0 draws
    nothing in common. Source: Ge et al. 2023, Preserve Your Own Correlation (arXiv:2305.10474), mixed noise.
    """
    if share == 0:
        return torch.randn(*shape, generator=generator)
    if common is None:
        common = common_noise(shape, generator)
    return torch.randn(*shape, generator=generator).mul_((1 - share) ** 0.5).add_(share**0.5 * common)


def common_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """What the frames of noise (b, c, t, h, w) have in common: (b, c, 1, h, w)."""
    return torch.randn(*shape[:2], 1, *shape[3:], generator=generator)


def normal_draws(
    generator: torch.Generator, x: Tensor, layout: str = "b c t h w", dtype: torch.dtype = torch.float32
) -> Draw:
    """Standard normal noise like x (b, c, t, h, w), drawn on the CPU in a reference's axis order and dtype.

    CogVideoX's pipeline holds its latents as "b t c h w"; the same seed gives its noise only in that order.
    """
    sizes = dict(zip("bcthw", x.shape, strict=True))
    shape, like = [sizes[axis] for axis in layout.split()], x.new_empty(0)  # not x, which would be kept

    def draw() -> Tensor:
        noise = torch.randn(shape, generator=generator, dtype=dtype)
        return rearrange(noise, f"{layout} -> b c t h w").to(like)

    return draw
