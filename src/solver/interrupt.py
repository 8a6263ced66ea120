"""SIGTERM and Ctrl-C: all ranks stop after the same optimizer step."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .. import distributed
from ..door import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Turns a signal that wants to end the process into a question that the training loop asks.

    Within the `with` block the first SIGTERM or Ctrl-C is only noted; a Ctrl-C after it interrupts at once.
    Outside the main thread, where Python allows no handler, nothing is noted. Once a signal has come, a
    collective that fails because another rank has gone ends in `Interrupted`: that rank was first to stop.
    Of several ranks, one that ends by an error takes signals so to its end: torchrun signals it at once.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._signal: int | None = None
        self._old: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
        self._asked: tuple[Tensor, dist.Work] | None = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or distributed.world_size() == 1:
            for number, handler in self._old.items():
                signal.signal(number, handler)
        if error is None and self._asked is not None:
            self._asked[1].wait()
        if error is not None and self._signal is not None and distributed.lost_peer(error):
            raise Interrupted(self._signal) from error

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a process that was forked here: it is not asked, and ends as usual
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self._signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        elif self._signal is None:
            self._signal = number

    def local(self) -> int | None:
        """The signal that this process itself has got; other ranks may not have got it."""
        return self._signal

    def agreed(self, *, at_once: bool = False) -> int | None:
        """The signal that some rank has got, the same answer on all ranks; None to go on.

        A collective call, once an optimizer step. It starts a question and reads the answer to the one
        before, which has long arrived: no step waits for it, and a run stops one step later than it could.

        Args:
            at_once: Wait for the answer to this question instead; for use outside the training loop.
        """
        if distributed.world_size() == 1:
            return self._signal
        before = self._read()
        flag = torch.tensor(self._signal or 0)
        self._asked = (
            flag,
            dist.all_reduce(flag, dist.ReduceOp.MAX, group=distributed.control_group(), async_op=True),
        )
        return (before or self._read()) if at_once else before

    def _read(self) -> int | None:
        if self._asked is None:
            return None
        (flag, work), self._asked = self._asked, None
        work.wait()
        return int(flag) or None
