"""Pictures of many requests in one call of the detector."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from ..deploy.predictor import Found, Prepared

Detect: TypeAlias = Callable[[Sequence[Prepared]], list[Found]]
_Entry: TypeAlias = tuple[Prepared, "Future[Found]"]


class Batcher:
    """One thread that takes the pictures that wait, some at a time, first come first served."""

    def __init__(
        self,
        detect: Detect,
        batch_size: int,
        max_wait_s: float,
        observe: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Start with nothing to do.

        Args:
            detect: All detections of each of up to `batch_size` pictures.
            batch_size: Most pictures of one call.
            max_wait_s: How long a call waits for more pictures than there are.
            observe: Is told the number of pictures of each call.
        """
        self._detect = detect
        self._batch_size = batch_size
        self._max_wait_s = max_wait_s
        self._observe = observe
        self._waiting: deque[_Entry] = deque()
        self._more = threading.Condition()
        self._thread = ThreadPoolExecutor(1, "detector")

    def find(self, pictures: Sequence[Prepared]) -> list["Future[Found]"]:
        """What will be found in each picture; one that is cancelled in time is never looked at."""
        entries = [(picture, Future[Found]()) for picture in pictures]
        with self._more:
            self._waiting.extend(entries)
            self._more.notify()
        for _ in entries:  # one of these calls takes several pictures, and another then finds none left
            self._thread.submit(self._run)
        return [future for _, future in entries]

    def close(self) -> None:
        """End the thread; what still waits is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        batch = [entry for entry in self._take() if entry[1].set_running_or_notify_cancel()]
        if batch:
            self._look_at(batch)

    def _look_at(self, batch: list[_Entry]) -> None:
        try:
            self._observe(len(batch))
            found = self._detect([picture for picture, _ in batch])
            pairs = list(zip(batch, found, strict=True))
        except BaseException as error:  # noqa: BLE001 - it is told to whom it concerns
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for entry in batch:  # the fault of one picture, perhaps: the others are of other clients
                self._look_at([entry])
        else:
            for (_, future), one in pairs:
                future.set_result(one)

    def _take(self) -> list[_Entry]:
        with self._more:
            if self._waiting:
                self._more.wait_for(lambda: len(self._waiting) >= self._batch_size, self._max_wait_s)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._batch_size))]
