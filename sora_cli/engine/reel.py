"""Long videos: windows in time that hand their end on as the next one's known beginning."""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Span:
    """Latent frames start .. stop - 1, of which the first `known` were made by the window before."""

    start: int
    stop: int
    known: int

    @property
    def new(self) -> int:
        """How many latent frames this window makes."""
        return self.stop - self.start - self.known


def spans(frames: int, size: int, context: int) -> tuple[Span, ...]:
    """Windows over `frames` latent frames: at most `size` long, each after the first knowing `context` of the past.

    The first window is one latent frame: a video opens with a picture, which a small network draws best, and goes on
    from there. New frames are shared out evenly, so that no window is a stub. They follow from the numbers alone.
    Without context there is one window for all of them.
    Raises ValueError unless 0 <= context < size and frames is positive, and no more than `size` without context.
    """
    if frames < 1 or not 0 <= context < size or (context == 0 and frames > size):
        raise ValueError(f"{frames} latent frames in windows of {size} with {context} of context")
    if context == 0:
        return (Span(0, frames, 0),)
    opening = Span(0, 1, 0)
    if frames == 1:
        return (opening,)
    reach = min(size, frames)
    count = -(-(frames - reach) // (size - context))
    ends = [reach + (frames - reach) * k // max(count, 1) for k in range(count + 1)]
    later = (Span(end - context, after, context) for end, after in pairwise(ends))
    return (opening, Span(0, reach, 1), *later)
