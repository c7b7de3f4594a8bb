"""Windows in time: every latent frame is made once, and knows what it joins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sora_cli.engine.reel import Span, spans

lengths = st.integers(1, 400)


@given(lengths, st.integers(3, 40), st.data())
def test_windows_make_every_unknown_frame_once_beside_known_ones(frames: int, size: int, data: st.DataObject):
    context = data.draw(st.integers(1, (size - 1) // 2))
    known = data.draw(st.lists(st.booleans(), min_size=frames, max_size=frames))
    there = list(known)
    for span in spans(frames, size, context, known):
        assert 0 <= span.start <= span.first < span.last <= span.stop <= frames
        assert span.stop - span.start <= size
        assert not any(there[span.first : span.last])
        beside = there[span.start : span.first] + there[span.last : span.stop]
        assert all(beside)
        assert beside or not any(there)
        there[span.first : span.last] = [True] * span.new
    assert all(there)


@given(lengths, st.integers(3, 40))
def test_shares_are_even(frames: int, size: int):
    context = (size - 1) // 2
    made = [span.new for span in spans(frames, size, context)]
    assert max(made) <= 2 * min(made) + 2


def test_what_fits_into_a_window_is_drawn_at_once():
    assert spans(13, 13, 4) == (Span(0, 13, 0, 13),)


def test_a_long_video_goes_on_from_what_it_has():
    assert spans(20, 13, 4) == (Span(0, 11, 0, 11), Span(7, 20, 11, 20))


def test_a_picture_has_one_window():
    assert spans(1, 13, 4) == (Span(0, 1, 0, 1),)


def test_what_is_known_behind_is_led_to_backward():
    behind = [False] * 20 + [True] * 4
    order = spans(24, 13, 4, behind)
    assert [span.last for span in order] == sorted((span.last for span in order), reverse=True)
    assert order[0].stop == 24


def test_a_bridge_knows_both_sides():
    assert spans(14, 14, 4, [True] * 4 + [False] * 6 + [True] * 4) == (Span(0, 14, 4, 10),)


def test_without_context_there_is_one_window():
    assert spans(13, 10**9, 0) == (Span(0, 13, 0, 13),)
    assert spans(13, 10**9, 0, [True] * 3 + [False] * 10) == (Span(0, 13, 3, 13),)


def test_nothing_is_left_to_do_where_all_is_known():
    assert spans(3, 13, 4, [True] * 3) == ()


@pytest.mark.parametrize(("frames", "size", "context"), [(0, 13, 4), (5, 4, 2), (5, 4, 0)])
def test_windows_that_cannot_be_are_refused(frames: int, size: int, context: int):
    with pytest.raises(ValueError, match="latent frames"):
        spans(frames, size, context)
