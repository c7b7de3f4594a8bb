"""Measures on frames as they pass: how faithful a reconstruction is, and how visible the joins of a clip are.

Frames are uint8 (H, W, 3) RGB, as they are before the video encoder. At most the first and the last one are kept.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from statistics import median
from typing import Final

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
Plane = NDArray[np.float32]  # (H, W·3): one row of pixels a line, its colours side by side

PEAK: Final = 255
COLOURS: Final = 3
# The highest value of a seam: where the ratio is infinite or beyond this, as in a frozen join, this is reported.
WORST: Final = 1000.0
# SSIM's window, 2 * RADIUS + 1 pixels a side, and the constants that steady its two fractions.
RADIUS: Final = 5
DEVIATION: Final = 1.5
C1: Final = (0.01 * PEAK) ** 2
C2: Final = (0.03 * PEAK) ** 2
# Rows that are worked on at a time, so that the work stays in the processor's caches at any size.
STRIP: Final = 16


class Fidelity:
    """How close decoded frames are to their originals, over a clip that is added pair by pair."""

    def __init__(self) -> None:
        self._values = 0
        self._squared_error = 0
        self._similarities: list[float | None] = []

    def add(self, original: Frame, decoded: Frame) -> None:
        """Takes the next frame of both clips. Raises ValueError unless both are RGB frames of one size."""
        self._squared_error += squared_error(original, decoded)
        self._values += original.size
        self._similarities.append(ssim(original, decoded))

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio in dB, from one mean squared error over all frames; inf for identical clips.

        JSON has no infinity: `sora_cli.result.finite` makes it null. Raises ValueError before the first frame.
        """
        if not self._values:
            raise ValueError("PSNR of no frames: add some first")
        if self._squared_error == 0:
            return math.inf
        return 10 * math.log10(PEAK**2 * self._values / self._squared_error)

    @property
    def ssim(self) -> float | None:
        """Mean over the frames of `ssim`; None where a picture is too small for it, or null in JSON.

        Raises ValueError before the first frame.
        """
        if not self._values:
            raise ValueError("SSIM of no frames: add some first")
        known = [similarity for similarity in self._similarities if similarity is not None]
        return math.fsum(known) / len(known) if len(known) == len(self._similarities) else None


class Seams:
    """How visible the joins of a clip are, frame by frame. A join at k lies between frame k - 1 and frame k.

    `rate` is in frames per second. Joins are given beforehand (`joins`) or on the way (`join`).
    Kept are one number a frame and two frames, the first and the last so far.
    Raises ValueError unless the rate is positive and finite.
    """

    def __init__(self, rate: Fraction | float, joins: Iterable[int] = ()) -> None:
        if not 0 < rate < math.inf:
            raise ValueError(f"{rate} frames per second: more than 0")
        self._reach = max(1, math.floor(rate / 2 + 0.5))
        self._joins = set(joins)
        self._first: Frame | None = None
        self._last: Frame | None = None
        self._differences: list[float] = []

    def add(self, frame: Frame) -> None:
        """Takes a copy of the next frame. Raises ValueError unless it is an RGB frame of the others' size."""
        _require_rgb(frame)
        if self._last is not None:
            self._differences.append(difference(self._last, frame))
        self._last = frame.copy()
        if self._first is None:
            self._first = self._last

    def join(self) -> None:
        """Says that a join lies between the last frame added and the next one."""
        self._joins.add(0 if self._last is None else len(self._differences) + 1)

    @property
    def differences(self) -> tuple[float, ...]:
        """The `difference` of each frame from the one before: entry k - 1 is that of frame k."""
        return tuple(self._differences)

    @property
    def loop_differences(self) -> tuple[float, ...]:
        """`differences` of the clip in a loop: the last entry is that of its first frame from its last."""
        if self._first is None or self._last is None:
            return ()
        return (*self._differences, difference(self._last, self._first))

    def values(self) -> tuple[float | None, ...]:
        """The `seam` of each join, in order: within half a second to both sides, to the nearest frame, at least one.

        What lies beyond an end of the clip and other joins aren't counted.
        Raises ValueError for a join that isn't between two frames.
        """
        differences, reach = self.differences, self._reach
        count = len(differences)
        joins = _between_frames(self._joins, count)
        return tuple(
            _seam_at(join, range(max(join - reach, 1), min(join + reach, count) + 1), joins, differences)
            for join in joins
        )

    def loop_values(self) -> tuple[float | None, ...]:
        """`values` of the clip as it plays in a loop; the last one is the join of its last frame with its first.

        The half seconds go on across the ends of the clip. Raises ValueError for a join that isn't between two frames.
        """
        differences, reach = self.loop_differences, self._reach
        count = len(differences)
        joins = _between_frames({*self._joins, count}, count)
        return tuple(
            _seam_at(join, ((k - 1) % count + 1 for k in range(join - reach, join + reach + 1)), joins, differences)
            for join in joins
        )


def seam(join: float, around: Sequence[float]) -> float | None:
    """How far a join's difference is from the median of those `around` it: max(r, 1 / r) with r = join / median.

    1 is invisible; a jump and a frozen join are both above it, and nothing is above `WORST`.
    Where neither the join nor its surroundings move, it is 1; where only one of them moves, `WORST`.
    One difference around is its own median; with none there is nothing to compare with, and the seam is None.
    """
    if not around:
        return None
    low, high = sorted((join, median(around)))
    if low == high:
        return 1.0
    return min(high / low, WORST) if low else WORST


def repeats(differences: Sequence[float], share: float = 0.1) -> tuple[int, ...]:
    """The frames that show the frame before them again: stalls of the motion, or a frame's echo at a join.

    `differences` are as in `Seams`: entry k - 1 is that of frame k. A repeat is at most `share` of their median away,
    so that an exact copy always counts, also in a still clip. Frame n of a loop of n frames is its first one again.
    """
    if not differences:
        return ()
    least = share * median(differences)
    return tuple(frame for frame, each in enumerate(differences, start=1) if each <= least)


def difference(before: Frame, after: Frame) -> float:
    """Mean absolute difference of two frames, 0 to 255. Raises ValueError unless both are RGB frames of one size."""
    _require_pair(before, after)
    sums = (int(_distances(before[rows], after[rows]).sum(dtype=np.uint64)) for rows in strips(len(before)))
    return sum(sums) / before.size


def squared_error(original: Frame, decoded: Frame) -> int:
    """Sum of squared differences over all values. Raises ValueError unless both are RGB frames of one size."""
    _require_pair(original, decoded)
    squares = (np.square(_distances(original[r], decoded[r]), dtype=np.uint16) for r in strips(len(original)))
    return sum(int(square.sum(dtype=np.uint64)) for square in squares)


def ssim(original: Frame, decoded: Frame) -> float | None:
    """Structural similarity, at most 1: the mean of its map over R, G, B and all windows that lie in the picture.

    None for a picture with a side below the window's 11 pixels. Raises ValueError unless both are RGB frames of one
    size. Source: Wang et al. 2004, Image Quality Assessment: From Error Visibility to Structural Similarity
    (IEEE Transactions on Image Processing 13), with its Gaussian window, sigma 1.5, and K1 0.01, K2 0.03.
    """
    _require_pair(original, decoded)
    rows, columns = original.shape[0] - 2 * RADIUS, original.shape[1] - 2 * RADIUS
    if min(rows, columns) < 1:
        return None
    around = (slice(strip.start, strip.stop + 2 * RADIUS) for strip in strips(rows))
    sums = (_similarity(original[strip], decoded[strip]).sum(dtype=np.float64) for strip in around)
    return math.fsum(sums) / (rows * columns * COLOURS)


def _similarity(original: Frame, decoded: Frame) -> Plane:
    """SSIM's map, smaller than the frames by the window's radius on each side."""
    # Variances are the same around any centre; in float32 they lose least around one that is near the values.
    centre = round(float(original.mean()))
    x, y = (rearrange(frame, "H W c -> H (W c)").astype(np.float32) - centre for frame in (original, decoded))
    mean_x, mean_y, mean_squares, mean_product = map(_smooth, (x, y, x * x + y * y, x * y))
    variances = mean_squares - (mean_x * mean_x + mean_y * mean_y)
    covariance = mean_product - mean_x * mean_y
    mean_x, mean_y = mean_x + centre, mean_y + centre
    luminance = (2 * mean_x * mean_y + C1) / (mean_x * mean_x + mean_y * mean_y + C1)
    return luminance * (2 * covariance + C2) / (variances + C2)


def _gaussian() -> tuple[float, ...]:
    """SSIM's window along one axis, from its middle outwards: both sides together sum to 1."""
    weights = [math.exp(-((pixels / DEVIATION) ** 2) / 2) for pixels in range(RADIUS + 1)]
    return tuple(weight / (2 * math.fsum(weights) - 1) for weight in weights)


GAUSSIAN: Final = _gaussian()


def _smooth(plane: Plane) -> Plane:
    """The Gaussian mean of every whole window, down and then across."""
    return _smooth_rows(_smooth_rows(plane, 1).T, COLOURS).T


def _smooth_rows(plane: Plane, stride: int) -> Plane:
    """Gaussian mean along the first axis, over rows that lie `stride` apart, where the window is whole."""
    middle, count = RADIUS * stride, len(plane) - 2 * RADIUS * stride
    smooth = GAUSSIAN[0] * plane[middle : middle + count]
    for pixels, weight in enumerate(GAUSSIAN[1:], start=1):
        above, below = middle - pixels * stride, middle + pixels * stride
        smooth += weight * (plane[above : above + count] + plane[below : below + count])
    return smooth


def strips(rows: int) -> Iterator[slice]:
    """Rows 0 .. rows - 1 of a picture, `STRIP` at a time."""
    return (slice(top, min(top + STRIP, rows)) for top in range(0, rows, STRIP))


def _distances(before: Frame, after: Frame) -> Frame:
    return np.maximum(before, after) - np.minimum(before, after)


def _require_rgb(frame: Frame) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != COLOURS or not frame.size:
        raise ValueError(f"a frame of {frame.dtype} {frame.shape}: uint8 (H, W, 3) is needed")


def _require_pair(one: Frame, other: Frame) -> None:
    _require_rgb(one)
    _require_rgb(other)
    if one.shape != other.shape:
        raise ValueError(f"frames of {one.shape} and {other.shape}: one size is needed")


def _between_frames(joins: Iterable[int], last: int) -> list[int]:
    for join in joins:
        if not 1 <= join <= last:
            raise ValueError(f"join at {join}: from 1 to {last} it lies between two frames")
    return sorted(joins)


def _seam_at(join: int, second: Iterable[int], joins: Sequence[int], differences: Sequence[float]) -> float | None:
    around = [differences[k - 1] for k in second if k not in joins]
    return seam(differences[join - 1], around)
