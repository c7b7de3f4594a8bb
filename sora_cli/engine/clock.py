"""Seconds by stage, told to the user as they pass."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sora_cli.result import Progress


@dataclass(slots=True)
class Clock:
    """Seconds by stage, told to the user as they begin."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """Time a stage of `total` steps."""
        self.progress.stage(name, total)
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
