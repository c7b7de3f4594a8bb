"""Examples for training: planned by worker processes, which on a CPU draw them too; on a GPU drawn when wanted."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset


class Feed:
    """Batches that `draw` makes of a dataset's plans, for ever.

    Each is shown `times` times on the average, among the last `shelf` ones and never twice in a row: on a GPU to draw a
    clip takes about as long as to learn from it. It is drawn between two steps, not by a thread beside them: small
    networks wait for their kernels to be launched, and two threads that launch hold each other up.
    """

    def __init__(
        self,
        plans: IterableDataset[Any],
        draw: Callable[[Any], Any],
        device: str,
        workers: int = 0,
        times: int = 1,
        shelf: int = 48,
    ) -> None:
        self._times, self._size, self._shelf = times, shelf, []
        self._dice = random.Random(0)
        if device == "cuda":
            self._fresh: Iterator[Any] = map(draw, _loaded(plans, workers))
        else:
            self._fresh = _loaded(_Drawn(plans, draw), workers)

    def __iter__(self) -> "Feed":
        return self

    def __next__(self) -> Any:
        if self._times == 1:
            return next(self._fresh)
        if len(self._shelf) < self._size or self._dice.random() < 1 / self._times:
            self._shelf.append(next(self._fresh))
            self._shelf = self._shelf[-self._size :]
            return self._shelf[-1]
        return self._shelf[self._dice.randrange(len(self._shelf) - 1)]


class _Drawn(IterableDataset[Any]):
    """A dataset of which each element is drawn where it is planned."""

    def __init__(self, plans: IterableDataset[Any], draw: Callable[[Any], Any]) -> None:
        self.plans, self.draw = plans, draw

    def __iter__(self) -> Iterator[Any]:
        return map(self.draw, self.plans)


def _loaded(dataset: IterableDataset[Any], workers: int) -> Iterator[Any]:
    yield from DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)
