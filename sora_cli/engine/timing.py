"""Clips at another rate: which of their frames is shown when. Never slow motion: every frame keeps its time."""

import math
from fractions import Fraction

from sora_cli.media.probe import Probe


def retimed_count(clip: Probe, fps: Fraction) -> int:
    """Frames of a clip at `fps` frames a second: as long as the clip, to the nearest frame."""
    if clip.fps in (None, fps):
        return clip.frames
    assert clip.fps is not None
    return max(1, math.floor(clip.frames / clip.fps * fps + Fraction(1, 2)))


def retimed_index(clip: Probe, fps: Fraction, index: int) -> int:
    """The clip's own frame that is shown when frame `index` begins at `fps` frames a second."""
    if clip.fps in (None, fps):
        return index
    assert clip.fps is not None
    return min(clip.frames - 1, math.floor(index / fps * clip.fps))
