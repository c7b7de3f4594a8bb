"""Softmax attention within a window around each token of a grid (t, h, w)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from sora_kernels.attention import joined, kernel_refusal, seen_attention_ref
from sora_kernels.dispatch import Backend, dispatch
from sora_kernels.refusals import triton_refusal
from sora_kernels.shapes import check_extra, check_keys, check_mask, check_window

Triple = tuple[int, int, int]
"""One number for each of (t, h, w)."""


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Triple,
    window: Triple,
    mask: Tensor | None = None,
    scale: float | None = None,
    extra_k: Tensor | None = None,
    extra_v: Tensor | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    """`attention` in which a token sees the tokens at most `window` away along each axis, and all extra keys.

    q, k and v (b, heads, t·h·w, dim) of a grid (t, h, w), the last axis fastest; window (t, h, w), in tokens to
    either side: 0 is the token's own frame, row or column, and at the grid's border the window is cut off. Extra
    keys, mask (b, t·h·w + m), scale and the result are those of `attention`.
    Raises ValueError for shapes that do not fit each other, or a negative window.
    """
    check_keys("window_attention", q, k, v)
    check_window("window_attention", q, k, grid, window)
    extra = check_extra("window_attention", q, extra_k, extra_v)
    check_mask("window_attention", mask, q.shape[0], k.shape[2] + extra)
    arguments = (q, k, v, grid, window, mask, scale, extra_k, extra_v)
    result: Tensor = dispatch("window_attention", BACKENDS, backend, *arguments)
    return result


def window_attention_ref(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Triple,
    window: Triple,
    mask: Tensor | None = None,
    scale: float | None = None,
    extra_k: Tensor | None = None,
    extra_v: Tensor | None = None,
) -> Tensor:
    """`window_attention` in plain PyTorch, in the precision of q: every score, most of them hidden."""
    places = torch.cartesian_prod(*(torch.arange(size, device=q.device) for size in grid)).view(-1, 3)
    apart = (places[:, None] - places[None]).abs()
    seen = (apart <= torch.tensor(window, device=q.device)).all(-1)[None, None]
    if extra_k is not None:
        seen = functional.pad(seen, (0, extra_k.shape[2]), value=True)
    if mask is not None:
        seen = seen & rearrange(mask, "b n_k -> b 1 1 n_k")
    return seen_attention_ref(q, joined(k, extra_k), joined(v, extra_v), seen, scale)


@dataclass(frozen=True, slots=True)
class Strip:
    """Rows of one frame, and the frames and rows of their keys."""

    frame: int
    rows: slice
    key_frames: slice
    key_rows: slice

    def near(self, grid: Triple, window: Triple, device: torch.device) -> Tensor:
        """Which keys lie in the window of which queries, (queries, keys), both in the grid's order."""
        rows = torch.arange(self.rows.start, self.rows.stop, device=device)
        key_rows = torch.arange(self.key_rows.start, self.key_rows.stop, device=device)
        columns = torch.arange(grid[2], device=device)
        near_rows = (rows[:, None] - key_rows).abs() <= window[1]
        near_columns = (columns[:, None] - columns).abs() <= window[2]
        near = near_rows[:, None, None, :, None] & near_columns[None, :, None, None, :]
        frames = self.key_frames.stop - self.key_frames.start
        return near.expand(-1, -1, frames, -1, -1).flatten(2).flatten(0, 1)


def _strips(grid: Triple, window: Triple) -> Iterator[Strip]:
    """The grid in strips about as high as the window, so that at most half of what a strip sees is hidden."""
    frames, height, _ = grid
    rows = 2 * window[1] + 1
    for frame, top in product(range(frames), range(0, height, rows)):
        bottom = min(top + rows, height)
        yield Strip(
            frame,
            slice(top, bottom),
            slice(max(frame - window[0], 0), min(frame + window[0] + 1, frames)),
            slice(max(top - window[1], 0), min(bottom + window[1], height)),
        )


def _torch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Triple,
    window: Triple,
    mask: Tensor | None,
    scale: float | None,
    extra_k: Tensor | None,
    extra_v: Tensor | None,
) -> Tensor:
    """Strip by strip: the scores of a whole video don't fit into memory."""
    frames, height, width = grid
    q, k, v = (rearrange(x, "b heads (t h w) d -> b heads t h w d", t=frames, h=height, w=width) for x in (q, k, v))
    text = None if mask is None else mask[:, q.shape[2] * height * width :]
    known = None if mask is None else rearrange(
        mask[:, : frames * height * width], "b (t h w) -> b t h w", t=frames, h=height
    )  # fmt: skip
    outputs = []
    for strip in _strips(grid, window):
        keys, values = (
            joined(x[:, :, strip.key_frames, strip.key_rows].flatten(2, 4), extra)
            for x, extra in ((k, extra_k), (v, extra_v))
        )
        seen = strip.near(grid, window, q.device)[None, None]
        if extra_k is not None:
            seen = functional.pad(seen, (0, extra_k.shape[2]), value=True)
        if known is not None and text is not None:
            real = torch.cat([known[:, strip.key_frames, strip.key_rows].flatten(1), text], 1)
            seen = seen & rearrange(real, "b n_k -> b 1 1 n_k")
        queries = q[:, :, strip.frame, strip.rows].flatten(2, 3)
        outputs.append(functional.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, scale=scale))
    return torch.cat(outputs, 2) if outputs else q.flatten(2, 4)


def _triton(*arguments: Any) -> Tensor:
    from sora_kernels._triton import attention as kernel

    return kernel.run_window(*arguments)


def _triton_refuses(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    _grid: Triple,
    _window: Triple,
    mask: Tensor | None,
    scale: float | None,
    extra_k: Tensor | None,
    extra_v: Tensor | None,
) -> str | None:
    return triton_refusal(q, k, v, mask, extra_k, extra_v) or kernel_refusal(q, k, v, extra_k, scale)


BACKENDS = (
    Backend("torch", _torch),
    Backend("triton", _triton, _triton_refuses),
    Backend("reference", window_attention_ref),
)
