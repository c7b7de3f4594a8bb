"""Examples that are ready when training wants them: from worker processes on a CPU, from a thread on a GPU."""

import random
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from queue import Queue
from threading import Thread
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

AHEAD = 6  # batches that are made before they are wanted


class Feed:
    """Batches that `draw` makes of a dataset's plans, for ever.

    On a GPU each is shown `times` times on the average, among the last `shelf` ones and never twice in a row: to draw
    a clip there takes about as long as to learn from it.
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
            self._fresh: Iterator[Any] = _from_thread(_loaded(plans, workers), draw)
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


def _from_thread(plans: Iterator[Any], draw: Callable[[Any], Any]) -> Iterator[Any]:
    """Batches that a thread draws on a stream of its own, so that neither waits for the other's kernels."""
    ready: Queue[Any] = Queue(AHEAD)

    def make() -> None:
        stream = torch.cuda.Stream()
        try:
            with torch.cuda.stream(stream):
                for plan in plans:
                    batch = draw(plan)
                    stream.synchronize()
                    ready.put(batch)
        except BaseException as error:  # the one that waits must not wait for ever
            ready.put(error)

    Thread(target=make, daemon=True).start()
    while True:
        batch = ready.get()
        if isinstance(batch, BaseException):
            raise batch
        for tensor in _tensors(batch):  # its memory is not used again before what reads it here is done
            tensor.record_stream(torch.cuda.current_stream())
        yield batch


def _tensors(batch: Any) -> Iterator[Tensor]:
    """All tensors of a batch: itself, or those of its fields."""
    if isinstance(batch, Tensor):
        yield batch
    elif is_dataclass(batch):
        for field in fields(batch):
            yield from _tensors(getattr(batch, field.name))
