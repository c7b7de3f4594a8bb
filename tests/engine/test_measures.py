"""Measures: closed forms, SSIM beside its plain double loop, and seams of clips whose joins are known."""

import math
import tracemalloc
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sora_cli.engine.measures import WORST, Fidelity, Seams, difference, repeats, seam, squared_error, ssim
from sora_cli.result import finite

PERIOD = 96
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
amounts = st.floats(0, 255, allow_subnormal=False)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def blurred(frame: np.ndarray) -> np.ndarray:
    return ((frame.astype(int) + np.roll(frame, 1, axis=0) + np.roll(frame, 1, axis=1)) // 3).astype(np.uint8)


def flat(value: int, height: int = 12, width: int = 15) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def panorama() -> np.ndarray:
    """A picture that goes round: its right border continues at its left one. Values from 60 to 180."""
    angle = 2 * np.pi * np.arange(PERIOD) / PERIOD
    rows = np.arange(24)[:, None]
    waves = [np.sin(k * angle + rows / 5 + k) for k in (1, 3, 4)]
    return np.stack([120 + 60 * wave for wave in waves], axis=-1).astype(np.uint8)


def view(offset: int) -> np.ndarray:
    return np.roll(panorama(), -offset, axis=1)[:, :40]


def pan(offsets: Iterable[int]) -> list[np.ndarray]:
    return [view(offset) for offset in offsets]


def seams_of(frames: Iterable[np.ndarray], joins: Iterable[int] = (), rate: float | Fraction = 24) -> Seams:
    seams = Seams(rate, joins)
    for frame in frames:
        seams.add(frame)
    return seams


def fidelity_of(*pairs: tuple[np.ndarray, np.ndarray]) -> Fidelity:
    fidelity = Fidelity()
    for original, decoded in pairs:
        fidelity.add(original, decoded)
    return fidelity


def ssim_by_definition(one: np.ndarray, other: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, window by window in float64: two-pass weighted moments in a 2-D window."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    similarities = []
    for top in range(one.shape[0] - 10):
        for left in range(one.shape[1] - 10):
            for colour in range(3):
                x = one[top : top + 11, left : left + 11, colour].astype(float)
                y = other[top : top + 11, left : left + 11, colour].astype(float)
                mean_x, mean_y = (window * x).sum(), (window * y).sum()
                variance_x, variance_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
                covariance = (window * (x - mean_x) * (y - mean_y)).sum()
                luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
                similarities.append(luminance * (2 * covariance + C2) / (variance_x + variance_y + C2))
    return float(np.mean(similarities))


@given(before=st.integers(0, 255), after=st.integers(0, 255))
def test_differences_do_not_wrap_around_at_eight_bits(before: int, after: int):
    assert difference(flat(before), flat(after)) == abs(before - after)
    assert squared_error(flat(before), flat(after)) == (before - after) ** 2 * 12 * 15 * 3


def test_differences_equal_plain_arithmetic():
    one, other = noise(19, 33, 1), noise(19, 33, 2)
    distance = one.astype(float) - other
    assert difference(one, other) == pytest.approx(np.abs(distance).mean(), rel=1e-12)
    assert squared_error(one, other) == (distance**2).sum()


@pytest.mark.parametrize("shift", [1, 5, 40, 255])
def test_a_constant_shift_has_the_psnr_of_its_square(shift: int):
    fidelity = fidelity_of(*[(flat(0), flat(shift))] * 3)
    assert fidelity.psnr == pytest.approx(20 * math.log10(255 / shift), abs=1e-12)


def test_psnr_is_pooled_over_the_clip_and_not_averaged():
    fidelity = fidelity_of((flat(100), flat(100)), (flat(100), flat(110)))
    assert fidelity.psnr == pytest.approx(10 * math.log10(255**2 / 50))


def test_identical_clips_have_infinite_psnr_which_json_carries_as_null():
    fidelity = fidelity_of((noise(16, 16), noise(16, 16)))
    assert fidelity.psnr == math.inf
    assert finite({"psnr": fidelity.psnr}) == {"psnr": None}


@pytest.mark.parametrize("frame", [flat(0), flat(255), noise(11, 11), noise(61, 40)])
def test_ssim_of_a_frame_and_itself_is_one(frame: np.ndarray):
    assert ssim(frame, frame.copy()) == 1


@pytest.mark.parametrize(("one", "other"), [(0, 255), (100, 110), (255, 254), (3, 0)])
def test_ssim_of_flat_pictures_is_its_luminance_term(one: int, other: int):
    expected = (2 * one * other + C1) / (one**2 + other**2 + C1)
    assert ssim(flat(one), flat(other)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(11, 11), (11, 14), (26, 12), (27, 13), (44, 17)])
def test_ssim_equals_its_definition(height: int, width: int):
    for one, other in [
        (noise(height, width), noise(height, width, 1)),
        (noise(height, width), blurred(noise(height, width))),
        (noise(height, width), 255 - noise(height, width)),
        (flat(250, height, width), np.maximum(flat(249, height, width), noise(height, width))),
    ]:
        assert ssim(one, other) == pytest.approx(ssim_by_definition(one, other), abs=1e-6)


def test_ssim_does_not_care_which_frame_is_the_original():
    one, other = noise(20, 30, 3), blurred(noise(20, 30, 3))
    assert ssim(one, other) == pytest.approx(ssim(other, one), abs=1e-7)


def test_ssim_of_a_clip_is_the_mean_of_its_frames():
    sharp, soft = noise(20, 30), blurred(noise(20, 30))
    similarity = ssim(sharp, soft)
    assert similarity is not None
    assert fidelity_of((sharp, sharp), (sharp, soft)).ssim == pytest.approx((1 + similarity) / 2)


@pytest.mark.parametrize(("height", "width"), [(10, 64), (64, 10), (1, 1)])
def test_pictures_smaller_than_the_window_have_psnr_but_no_ssim(height: int, width: int):
    fidelity = fidelity_of((flat(0, height, width), flat(255, height, width)))
    assert fidelity.psnr == 0
    assert fidelity.ssim is None


@pytest.mark.parametrize("measure", ["psnr", "ssim"])
def test_no_frames_have_no_fidelity(measure: str):
    with pytest.raises(ValueError, match="no frames"):
        getattr(Fidelity(), measure)


@pytest.mark.parametrize("wrong", [flat(0).astype(float), flat(0)[..., 0], flat(0)[..., :2], flat(0)[:0]])
def test_what_is_not_an_rgb_frame_is_refused(wrong: np.ndarray):
    for take in (ssim, squared_error, difference):
        with pytest.raises(ValueError, match="uint8"):
            take(wrong, wrong)
    with pytest.raises(ValueError, match="uint8"):
        Seams(24).add(wrong)


def test_frames_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="one size"):
        Fidelity().add(flat(0, 16, 16), flat(0, 16, 18))
    with pytest.raises(ValueError, match="one size"):
        seams_of([flat(0, 16, 16), flat(0, 16, 18)])


def test_a_join_in_an_even_motion_is_invisible():
    (value,) = seams_of(pan(range(48)), joins=[24]).values()
    assert value == pytest.approx(1, abs=0.05)


def test_a_jump_shows_by_how_much_it_is_larger_than_the_motion():
    (small,) = seams_of(pan([*range(24), *range(27, 51)]), joins=[24]).values()
    (large,) = seams_of(pan([*range(24), *range(63, 87)]), joins=[24]).values()
    assert small == pytest.approx(4, rel=0.1)
    assert large is not None
    assert large > 5


def test_a_frozen_join_in_moving_material_shows():
    (value,) = seams_of(pan([*range(24), *range(23, 47)]), joins=[24]).values()
    assert value == WORST


def test_a_slow_join_shows_as_much_as_a_fast_one():
    (slow,) = seams_of(pan([*range(0, 96, 4), *range(93, 189, 4)]), joins=[24]).values()
    assert slow == pytest.approx(4, rel=0.1)


def test_a_still_clip_has_no_seams_and_a_jump_in_it_has_the_worst():
    assert seams_of([view(0)] * 10, joins=[5]).values() == (1.0,)
    assert seams_of([view(0)] * 5 + [view(1)] * 5, joins=[5]).values() == (WORST,)


def test_joins_told_on_the_way_equal_joins_known_beforehand():
    pieces = [pan(range(9)), pan(range(20, 32)), pan(range(5))]
    told = Seams(24)
    for index, piece in enumerate(pieces):
        if index:
            told.join()
        for frame in piece:
            told.add(frame)
    assert told.values() == seams_of(chain(*pieces), joins=[21, 9]).values()


def test_other_joins_within_the_second_are_not_material():
    jumps = [*range(20), *range(40, 42), *range(60, 80)]
    expected = difference(view(19), view(40)) / np.median(
        [difference(view(k), view(k + 1)) for k in [*range(7, 19), 40, *range(60, 69)]]
    )
    assert seams_of(pan(jumps), joins=[20, 22]).values()[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("rate", "each_side"), [(24, 12), (Fraction(30000, 1001), 15), (2, 1), (0.5, 1)])
def test_a_join_is_compared_with_the_second_around_it(rate: float | Fraction, each_side: int):
    rising = range(10, 10 + each_side)
    differences = [60, 60, *rising, 50, *reversed(rising), 60, 60]
    levels = [100]
    for step in differences:
        levels.append(levels[-1] + (step if levels[-1] < 128 else -step))
    join = 3 + each_side
    (value,) = seams_of([flat(level) for level in levels], [join], rate).values()
    assert value == seam(50, rising)


@pytest.mark.parametrize("join", [-1, 0, 5, 6])
def test_a_join_that_is_not_between_two_frames_is_refused(join: int):
    with pytest.raises(ValueError, match=f"join at {join}"):
        seams_of(pan(range(5)), [join]).values()


@pytest.mark.parametrize("rate", [0, -24, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate: float):
    with pytest.raises(ValueError, match="frames per second"):
        Seams(rate)


def test_two_pictures_alone_have_nothing_to_compare_their_join_with():
    assert seams_of(pan([0, 1]), [1]).values() == (None,)
    assert seams_of(pan([0])).loop_values() == (None,)


def test_a_loop_of_a_periodic_clip_has_no_seam():
    (wrap,) = seams_of(pan(range(0, PERIOD, 2))).loop_values()
    assert wrap == pytest.approx(1, abs=0.05)


def test_a_loop_of_a_clip_that_does_not_return_has_a_seam():
    (wrap,) = seams_of(pan(range(0, PERIOD // 2, 2))).loop_values()
    assert wrap is not None
    assert wrap > 3


def test_a_loop_that_shows_its_first_frame_twice_has_a_seam():
    seams = seams_of(pan(range(0, PERIOD + 2, 2)))
    assert seams.loop_values() == (WORST,)
    assert repeats(seams.loop_differences) == (PERIOD // 2 + 1,)


@given(count=st.integers(2, 14), data=st.data())
def test_the_seams_of_a_loop_are_those_of_the_clip_played_over_and_over(count: int, data: st.DataObject):
    frames = [flat(level) for level in data.draw(st.lists(st.integers(0, 255), min_size=count, max_size=count))]
    joins = data.draw(st.sets(st.integers(1, count - 1)))
    everywhere = [play * count + join for play in range(9) for join in {*joins, count}][:-1]
    played = seams_of(frames * 9, {k for k in everywhere if k < 9 * count}, rate=10).values()
    every = len(joins) + 1
    assert seams_of(frames, joins, rate=10).loop_values() == played[4 * every : 5 * every]


def test_no_frames_have_no_loop():
    assert Seams(24).loop_differences == ()
    with pytest.raises(ValueError, match="join"):
        Seams(24).loop_values()


@given(offset=st.integers(-60, 75), offsets=st.lists(st.integers(0, PERIOD), min_size=4, max_size=9))
def test_seams_do_not_depend_on_brightness(offset: int, offsets: list[int]):
    plain = pan(offsets)
    brighter = [(frame.astype(int) + offset).astype(np.uint8) for frame in plain]
    assert seams_of(plain, [2]).values() == seams_of(brighter, [2]).values()


@given(join=amounts, around=st.lists(amounts, min_size=1, max_size=24))
def test_a_seam_lies_between_one_and_the_worst(join: float, around: list[float]):
    value = seam(join, around)
    assert value is not None
    assert 1 <= value <= WORST


@given(slow=amounts, fast=amounts)
def test_a_seam_is_the_same_for_a_ratio_and_its_inverse(slow: float, fast: float):
    assert seam(slow, [fast]) == seam(fast, [slow])


def test_seams_do_not_change_with_a_buffer_that_the_caller_uses_again():
    buffer, seams = flat(0), Seams(24)
    for level in (0, 7, 9):
        buffer[:] = level
        seams.add(buffer)
    assert seams.differences == (7, 2)
    assert seams.loop_differences == (7, 2, 9)


def test_repeated_frames_are_found_and_slow_ones_are_not():
    offsets = [0, 4, 8, 8, 12, 14, 18, 18, 22]
    assert repeats(seams_of(pan(offsets)).differences) == (3, 7)


def test_a_nearly_repeated_frame_counts_up_to_its_share_of_the_motion():
    differences = [10.0, 10.0, 0.9, 10.0, 1.1, 10.0]
    assert repeats(differences) == (3,)
    assert repeats(differences, share=0.2) == (3, 5)


def test_a_still_clip_is_all_repeats_and_a_picture_is_none():
    assert repeats([0.0, 0.0, 0.0]) == (1, 2, 3)
    assert repeats([]) == ()


def test_a_long_clip_takes_the_memory_of_a_few_frames():
    frame = noise(180, 320)
    fidelity, seams = Fidelity(), Seams(24)
    tracemalloc.start()
    try:
        for _ in range(40):
            seams.add(frame)
            fidelity.add(frame, frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * frame.nbytes
