"""Boards: what a job draws in time, whatever the lengths."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sora_cli.engine.boards import (
    Board,
    Film,
    Made,
    Own,
    blended,
    bridged,
    drawn,
    extended,
    filled,
    groups,
    looped,
    pictured,
    reconstructed,
)
from sora_weights.spec import Grid

GRID = Grid(space=8, patch=16, time=4)
SECOND = Fraction(24)
lengths = st.integers(1, 300)
rates = st.sampled_from([Fraction(8), Fraction(24), Fraction(30000, 1001), Fraction(120)])


def check(film: Film) -> None:
    """What a board is for is not given and lies on it; something beside it is known in whole latent frames."""
    for board in film.boards:
        held = {frame for given in board.given for frame in range(given.at, given.at + given.count)}
        made = set(range(board.first, board.first + board.count))
        assert not made & held
        assert made <= set(range(board.frames))
        known = board.known(GRID)
        assert not board.given or known[0] or known[-1]
        assert all(held.issuperset(group) == there for group, there in zip(groups(len(known), 4), known, strict=True))
    for piece in film.output:
        assert piece.count == (film.boards[piece.board].count if isinstance(piece, Made) else piece.count) > 0


@given(lengths, st.integers(0, 300), st.integers(0, 300), rates)
def test_a_clip_is_extended_by_exactly_the_new_frames(clip: int, before: int, behind: int, fps: Fraction):
    film = extended(clip, before, behind, fps, GRID)
    check(film)
    assert film.frames == before + clip + behind
    assert Own(0, 0, clip) in film.output
    assert all(any(board.known(GRID)) for board in film.boards)


@given(lengths, lengths, lengths, rates)
def test_bridges_and_loops_know_both_sides(first: int, second: int, new: int, fps: Fraction):
    bridge, loop = bridged(first, second, new, fps, GRID), looped(first, new, fps, GRID)
    assert (bridge.frames, loop.frames) == (first + new + second, first + new)
    for film in (bridge, loop):
        check(film)
        (board,) = film.boards
        known = board.known(GRID)
        assert known[0]
        assert known[-1]
        assert board.frames == 1 + 4 * (len(known) - 1)


@given(lengths, st.data(), rates)
def test_a_gap_is_filled_and_the_rest_is_the_clip(clip: int, data: st.DataObject, fps: Fraction):
    first = data.draw(st.integers(0, clip - 1))
    last = data.draw(st.integers(first, clip - 1))
    film = filled(clip, first, last, fps, GRID)
    check(film)
    assert film.frames == clip
    assert [piece.count for piece in film.output if isinstance(piece, Made)] == [last - first + 1]


@given(st.integers(2, 300), st.integers(2, 300), st.data(), rates)
def test_clips_overlap_by_exactly_the_frames_asked_for(first: int, second: int, data: st.DataObject, fps: Fraction):
    overlap = data.draw(st.integers(1, min(first, second) - 1))
    film = blended(first, second, overlap, fps, GRID)
    check(film)
    assert film.frames == first + second - overlap
    (start,) = film.boards[0].start
    assert (start.at, start.count) == (0, film.boards[0].frames)


@given(lengths, st.booleans())
def test_a_video_begins_with_its_picture(frames: int, last: bool):
    film = pictured(frames, GRID, last=last)
    assert film.frames == frames
    assert film.boards[0].known(GRID)[0]
    assert film.output[0] == Own(0, 0, 1)
    if last and frames > 1:
        assert film.output[-1] == Own(1, 0, 1)
        assert film.boards[0].known(GRID)[-1]


@given(lengths)
def test_what_is_drawn_knows_nothing_and_what_is_reconstructed_all(frames: int):
    assert not any(drawn(frames).boards[0].known(GRID))
    assert all(reconstructed(frames, GRID).boards[0].known(GRID))
    assert drawn(frames).frames == reconstructed(frames, GRID).frames == frames


def test_joins_are_where_a_piece_begins():
    assert extended(10, 0, 5, SECOND, GRID).joins == (10,)
    assert extended(10, 5, 0, SECOND, GRID).joins == (5,)
    assert extended(10, 5, 3, SECOND, GRID).joins == (5, 15)
    assert bridged(10, 7, 5, SECOND, GRID).joins == (10, 15)


@pytest.mark.parametrize(("clip", "context"), [(48, 25), (25, 25), (24, 21), (1, 1)])
def test_context_is_about_a_second(clip: int, context: int):
    (board,) = extended(clip, 0, 24, SECOND, GRID).boards
    assert (board.given[0].count, board.first) == (context, context)


def test_a_board_is_for_its_own_frames():
    assert Board(9, (), 2, 5).known(GRID) == (False, False, False)
