"""How much there may be of something at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .schema import problem


class Places:
    """So many places, taken and given back by any thread."""

    def __init__(self, most: int, reason: str) -> None:
        """All are free.

        Args:
            most: How many there are.
            reason: What the client is told when there are too few; `{}` stands for how many are taken.
        """
        self._most = most
        self._reason = reason
        self._lock = threading.Lock()
        self.taken = 0

    def check(self, count: int) -> None:
        """Take nothing.

        Raises:
            HTTPException: 503, there are not as many places left.
        """
        if self.taken + count > self._most:
            raise problem(503, f"{self._reason.format(self.taken)}; try again later")

    def take(self, count: int) -> None:
        """Take places; errors as of `check`."""
        with self._lock:
            self.check(count)
            self.taken += count

    def give_back(self, count: int) -> None:
        """What was taken."""
        with self._lock:
            self.taken -= count

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Take places for a while; errors as of `check`."""
        self.take(count)
        try:
            yield
        finally:
            self.give_back(count)
