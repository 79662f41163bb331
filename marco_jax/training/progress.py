"""How far a long copy is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from marco_jax.training.processes import say

_SECONDS = 15.0


class ByteProgress:
    """Counts bytes up to a total; also a context manager."""

    def __init__(self, name: str, total: int, initial: int = 0) -> None:
        """`name` begins every line; `initial` bytes are there from before."""
        self.name, self.total, self.initial, self.done = name, total, initial, initial
        self.start = self.said = time.perf_counter()
        self.bar = tqdm(
            total=total,
            initial=initial,
            desc=name,
            unit="B",
            unit_scale=True,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def __call__(self, nbytes: int) -> None:
        """So many more bytes are done."""
        self.done += nbytes
        self.bar.update(nbytes)
        now = time.perf_counter()
        if self.bar.disable and now - self.said > _SECONDS:
            self.said = now
            say(
                f"{self.name}: {self.done / 1e9:.1f} of {self.total / 1e9:.1f} GB, "
                f"{self.rate / 1e6:.0f} MB/s"
            )

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.start

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return (self.done - self.initial) / max(self.seconds, 1e-9)

    def __enter__(self) -> ByteProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
