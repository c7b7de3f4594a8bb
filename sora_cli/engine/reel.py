"""Long videos: windows in time, each of which knows what lies beside what it makes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Span:
    """A window over latent frames start .. stop - 1 that makes first .. last - 1; the others are known by then."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def new(self) -> int:
        """How many latent frames this window makes."""
        return self.last - self.first


def spans(frames: int, size: int, context: int, known: Sequence[bool] = ()) -> tuple[Span, ...]:
    """Windows over `frames` latent frames in the order of work: at most `size` long, each beside what it knows.

    `known` says which latent frames are there from the start; each of the others is made once. A gap with known frames
    before it is filled forward from them, one with known frames only behind it backward from those, so that nothing is
    made without knowing the `context` that it joins. New frames are shared out evenly, so that no window is a stub.
    Without context there is one window for all. All follows from the numbers alone.
    Raises ValueError unless 0 <= context, 2 * context < size and frames is positive, and no more than `size` without
    context.
    """
    if frames < 1 or not 0 <= 2 * context < size or (context == 0 and frames > size):
        raise ValueError(f"{frames} latent frames in windows of {size} with {context} of context")
    there = list(known) or [False] * frames
    if context == 0:
        new = [index for index, seen in enumerate(there) if not seen]
        return (Span(0, frames, new[0], new[-1] + 1),) if new else ()
    return tuple(span for gap in _gaps(there) for span in _through(*gap, size, context, there))


def _gaps(there: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """The longest stretches [first, last) of latent frames that are not there."""
    first = None
    for index, seen in enumerate([*there, True]):
        if not seen and first is None:
            first = index
        elif seen and first is not None:
            yield first, index
            first = None


def _through(first: int, last: int, size: int, context: int, there: Sequence[bool]) -> Iterator[Span]:
    """Windows that make first .. last - 1, from the side that is known."""
    left = min(context, first)
    right = next((k for k in range(context) if last + k >= len(there) or not there[last + k]), context)
    if left or not right:
        yield from _forward(first, last, left, right, size, context)
        return
    for span in _forward(-last, -first, right, left, size, context):  # the same, seen in a mirror
        yield Span(-span.stop, -span.start, -span.last, -span.first)


def _forward(first: int, last: int, left: int, right: int, size: int, context: int) -> Iterator[Span]:
    """Windows from left to right: the first knows `left` frames before it, the last also `right` behind it."""
    room, count = [size - left - right], 1
    while sum(room) < last - first:
        count += 1
        room = [size - left, *[size - context] * (count - 2), size - context - right]
    ends = [first + (last - first) * part // sum(room) for part in accumulate(room)]
    begin = first
    for index, end in enumerate(ends):
        before = left if index == 0 else context
        yield Span(begin - before, end + (right if index == count - 1 else 0), begin, end)
        begin = end
