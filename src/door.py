"""How every door ends: the user's faults become one paragraph on stderr and exit status 2."""

import sys
from collections.abc import Callable

USER_FAULT = 2
INTERRUPTED = 130


def run(main: Callable[[], None]) -> int:
    """Call a door's `main` and give the exit status of the process.

    Only `ValueError` (what came, what was allowed, where, the remedy) and Ctrl-C are caught: any other error
    is a fault of the program and keeps its traceback.

    Returns:
        0, or 2 for a fault of the user, or 130 (128 + SIGINT) for Ctrl-C.
    """
    try:
        main()
    except ValueError as error:
        sys.stdout.flush()
        sys.stderr.write(f"error: {error}\n")
        return USER_FAULT
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    return 0
