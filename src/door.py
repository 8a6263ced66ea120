"""How every door ends: one exit status, and each fault told once, however many ranks met it."""

import multiprocessing
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable

from . import distributed

FAULT = 1
USER_FAULT = 2


class Interrupted(BaseException):
    """The run was asked to stop by `signal`, and has done what it had to do before.

    No `Exception`, like KeyboardInterrupt: no library that handles errors may swallow it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


def run(main: Callable[[], None], *, waits_for_threads: bool = True) -> int:
    """Call a door's `main` and give the exit status of the process.

    A process alone lets any error but these go on, with its traceback. One of several ranks leaves at once
    after an error, whatever it is: nothing that ends a process in order may wait for the other ranks, and
    these see that it has gone.

    Args:
        main: The door's own.
        waits_for_threads: Whether a process that is told to stop ends only once its threads have.

    Returns:
        0, or 2 for a fault of the user (`ValueError`: what came, what was allowed, where, the remedy), or
        128 + the signal that stopped the run; SIGPIPE's where nobody reads the output (`| head`).
    """
    try:
        main()
        sys.stdout.flush()
    except ValueError as error:
        return _end(f"error: {error}", USER_FAULT)
    except KeyboardInterrupt:
        return _end("interrupted", 128 + signal.SIGINT, waits_for_threads)
    except Interrupted as request:
        return _end(f"stopped by {request.signal.name}", 128 + request.signal, waits_for_threads)
    except BaseException as error:
        if isinstance(error, SystemExit) or not distributed.is_distributed():
            if _nobody_reads() and isinstance(error, BrokenPipeError):
                return 128 + signal.SIGPIPE
            raise
        lost = distributed.lost_peer(error)
        gone = f"another rank has gone ({lost}), so this one stops"
        return _end(traceback.format_exc().rstrip() if lost is None else gone, FAULT)
    return 0


def _nobody_reads() -> bool:
    """Whether standard output is a pipe that has lost its reader; what is left for it is then dropped."""
    if not hasattr(select, "poll"):  # Windows
        return False
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # captured, or closed
        return False
    state = select.poll()
    state.register(output, 0)
    if not any(event & select.POLLERR for _, event in state.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, output)
    os.close(nowhere)
    return True


def _end(text: str, status: int, waits_for_threads: bool = True) -> int:
    _nobody_reads()
    sys.stdout.flush()
    if distributed.is_first_to_say(text):
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        sys.stderr.write(f"rank {os.environ['RANK']}: {text}\n" if several else f"{text}\n")
    sys.stderr.flush()
    if distributed.is_distributed():
        for child in multiprocessing.active_children():
            child.kill()
    if distributed.is_distributed() or not waits_for_threads:
        os._exit(status)
    return status
