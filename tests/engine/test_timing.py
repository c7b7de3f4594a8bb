"""Re-timing: a clip at another rate lasts as long and shows every moment at its time."""

from dataclasses import dataclass
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from sora_cli.engine.timing import retimed_count, retimed_index


@dataclass(frozen=True, slots=True)
class Clip:
    """All that timing looks at of a probe."""

    frames: int
    fps: Fraction | None


CLIP = Clip(10, Fraction(10))
rates = st.sampled_from([Fraction(8), Fraction(24), Fraction(30000, 1001), Fraction(60), Fraction(120)])


@given(st.integers(1, 500), rates, rates)
def test_every_frame_keeps_its_time(frames: int, own: Fraction, fps: Fraction):
    clip = Clip(frames, own)
    count = retimed_count(clip, fps)
    assert abs(count / fps - frames / own) <= max(Fraction(1, 2) / fps, 1 / fps if count == 1 else 0)
    shown = [retimed_index(clip, fps, k) for k in range(count)]
    assert shown == sorted(shown)
    assert 0 <= shown[0] <= shown[-1] < frames
    assert all(abs(Fraction(index) / own - Fraction(k) / fps) <= 1 / own + 1 / fps for k, index in enumerate(shown))


def test_half_the_rate_shows_every_second_frame_from_the_first_on():
    assert [retimed_index(CLIP, Fraction(5), k) for k in range(5)] == [0, 2, 4, 6, 8]


def test_the_same_rate_changes_nothing():
    assert [retimed_index(CLIP, Fraction(10), k) for k in range(10)] == list(range(10))


def test_twice_the_rate_shows_each_frame_twice():
    assert retimed_count(CLIP, Fraction(20)) == 20
    assert [retimed_index(CLIP, Fraction(20), k) for k in range(6)] == [0, 0, 1, 1, 2, 2]


def test_a_picture_has_no_rate():
    still = Clip(1, None)
    assert (retimed_count(still, Fraction(24)), retimed_index(still, Fraction(24), 0)) == (1, 0)
