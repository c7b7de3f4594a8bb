"""Windows in time: every latent frame is made once, each window after the first knows the past."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sora_cli.engine.reel import spans


@given(st.integers(1, 2000), st.integers(2, 40), st.data())
def test_windows_make_every_frame_once_and_know_their_context(frames: int, size: int, data: st.DataObject):
    context = data.draw(st.integers(1, size - 1))
    made = [frame for span in spans(frames, size, context) for frame in range(span.start + span.known, span.stop)]
    assert made == list(range(frames))
    for index, span in enumerate(spans(frames, size, context)):
        assert span.stop - span.start <= size
        assert span.known == (context if index > 1 else index)
        assert span.new >= 1


def test_a_video_opens_with_a_picture_and_goes_on_from_it():
    opening, rest = spans(13, 13, 4)
    assert (opening.start, opening.stop, opening.known) == (0, 1, 0)
    assert (rest.start, rest.stop, rest.known) == (0, 13, 1)


def test_a_picture_has_one_window():
    (only,) = spans(1, 13, 4)
    assert (only.start, only.stop, only.known) == (0, 1, 0)


def test_without_context_there_is_one_window():
    (only,) = spans(13, 10**9, 0)
    assert (only.start, only.stop, only.known) == (0, 13, 0)


@pytest.mark.parametrize(("frames", "size", "context"), [(0, 13, 4), (5, 4, 4), (5, 4, 0)])
def test_windows_that_cannot_be_are_refused(frames: int, size: int, context: int):
    with pytest.raises(ValueError, match="latent frames"):
        spans(frames, size, context)
