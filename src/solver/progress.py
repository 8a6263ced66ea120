"""The progress of an epoch, as a bar on a terminal and as log lines everywhere else."""

import logging
import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
from tqdm import tqdm

from .. import distributed

logger = logging.getLogger(__name__)

GIBIBYTE = 2**30
REDRAW_SECONDS = 0.5


def peak_memory() -> int | None:
    """The most bytes that this process has held: on its GPU where it uses one, else in main memory.

    None on systems that do not tell (Windows).
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Progress:
    """Counts the steps of one epoch; the main rank alone shows them.

    On a terminal it is a bar that goes as the epoch ends, elsewhere a log line now and then. Every epoch
    leaves one log line behind.

    Args:
        total: Optimizer steps of the epoch.
        epoch: Number of the epoch, from 0.
        epochs: Epochs of the run, for the time that it will still take.
        done: Steps of it that an earlier run has done.
        seconds_between_lines: How often a line is logged where there is no terminal.
    """

    def __init__(
        self, *, total: int, epoch: int, epochs: int, done: int = 0, seconds_between_lines: float = 30.0
    ) -> None:
        self.total = total
        self.epoch = epoch
        self.epochs = epochs
        self.seconds_between_lines = seconds_between_lines
        self.steps = self._done_before = done
        self.images = 0
        self.loss: float | None = None
        self.lr: float | None = None
        self._started = self._last_shown = time.monotonic()
        self._main = distributed.is_main()
        self._terminal = self._main and sys.stderr.isatty()
        self._bar: tqdm[Any] = tqdm(
            total=total,
            initial=done,
            desc=f"epoch {epoch} ({epoch + 1} of {epochs})",
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
            mininterval=0.5,
            leave=False,
            file=sys.stderr,
            disable=not self._terminal,
        )

    def describe(self, *, loss: float, lr: float) -> None:
        """State the loss and learning rate that are shown from now on."""
        self.loss, self.lr = loss, lr

    def advance(self, *, images: int) -> None:
        """One more optimizer step is done, on `images` pictures of all ranks together."""
        self.steps += 1
        self.images += images
        if not self._main:
            return
        self._bar.update()
        interval = REDRAW_SECONDS if self._terminal else self.seconds_between_lines
        if time.monotonic() - self._last_shown < interval:
            return
        self._last_shown = time.monotonic()
        if self._terminal:
            self._bar.set_postfix_str(self.text(), refresh=False)
        else:
            logger.info("epoch %d (%d of %d), step %d/%d: %s", *self._position(), self.text())

    def text(self) -> str:
        """Loss, learning rate, pictures a second, the time left in the run without evaluations, memory."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        parts = [] if self.loss is None else [f"loss {self.loss:.4f}"]
        parts += [] if self.lr is None else [f"lr {self.lr:.3g}"]
        own_steps = self.steps - self._done_before
        if own_steps:
            left = self.total * (self.epochs - self.epoch) - self.steps
            eta = timedelta(seconds=round(elapsed / own_steps * left))
            parts += [f"{self.images / elapsed:.1f} images/s", f"ETA {eta}"]
        memory = peak_memory()
        parts += [] if memory is None else [f"memory {memory / GIBIBYTE:.2f} GiB"]
        return ", ".join(parts)

    def close(self) -> None:
        """Take the bar away and log the epoch's line; a second call does nothing."""
        if not self._main:
            return
        self._main = False
        self._bar.close()
        logger.info("epoch %d (%d of %d), step %d/%d: %s", *self._position(), self.text())

    def _position(self) -> tuple[int, int, int, int, int]:
        return self.epoch, self.epoch + 1, self.epochs, self.steps, self.total

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
