"""Frames that wait on the disk come back as they were, in turn, and leave nothing behind."""

from collections import deque
from pathlib import Path

import numpy as np
import pytest

from sora_cli.engine.spool import spooled


def frame(value: int) -> np.ndarray:
    return np.random.default_rng(value).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_a_queue(tmp_path: Path, seed: int):
    rng, waiting = np.random.default_rng(seed), deque[int]()
    with spooled(tmp_path, 4) as spool:
        for value in range(60):
            if len(waiting) == 4 or (waiting and rng.random() < 0.4):
                assert (spool.popleft() == frame(waiting.popleft())).all()
            spool.append(frame(value))
            waiting.append(value)
            assert len(spool) == len(waiting)
            for found in (list(spool), list(reversed(spool))[::-1]):
                assert [one.tobytes() for one in found] == [frame(k).tobytes() for k in waiting]
            assert (spool[-1] == frame(value)).all()


def test_frames_of_any_layout_are_kept(tmp_path: Path):
    with spooled(tmp_path, 1) as spool:
        spool.append(frame(1)[:, ::-1])
        assert (spool[0] == frame(1)[:, ::-1]).all()


def test_there_is_no_more_room_than_asked_for_and_no_frame_that_does_not_wait(tmp_path: Path):
    with spooled(tmp_path, 2) as spool:
        spool.append(frame(1))
        spool.append(frame(2))
        with pytest.raises(IndexError, match="2 frames"):
            spool.append(frame(3))
        spool.popleft()
        for index in (1, -2):
            with pytest.raises(IndexError):
                spool[index]


def test_nothing_is_left_behind(tmp_path: Path):
    with spooled(tmp_path, 1) as spool:
        spool.append(frame(1))
    assert not list(tmp_path.iterdir())
