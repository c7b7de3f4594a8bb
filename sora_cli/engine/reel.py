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

    New frames are shared out evenly, so that no window is a stub. They follow from the three numbers alone.
    Raises ValueError unless 0 < context < size and frames is positive.
    """
    if frames < 1 or not 0 < context < size:
        raise ValueError(f"{frames} latent frames in windows of {size} with {context} of context")
    if frames <= size:
        return (Span(0, frames, 0),)
    count = -(-(frames - size) // (size - context))
    ends = [size + (frames - size) * k // count for k in range(count + 1)]
    first = Span(0, ends[0], 0)
    return (first, *(Span(end - context, after, context) for end, after in pairwise(ends)))
