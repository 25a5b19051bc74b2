"""Ctrl-C during a fit: the current step is finished, and the best model is returned."""

import signal
import sys
import threading
from types import FrameType

__all__ = ["Interrupts"]


class Interrupts:
    """A context manager in which the first Ctrl-C sets `asked`, and the second raises.

    An exception between a compiled step and the assignment of its results would lose the arrays
    that the step was given. It changes no handler that other code has installed, and none in other
    threads, which no signal reaches.
    """

    def __init__(self) -> None:
        self.asked = False
        self.installed = False

    def __enter__(self) -> "Interrupts":
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._remember)
            self.installed = True
        return self

    def __exit__(self, *error: object) -> None:
        if self.installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            signal.default_int_handler(number, frame)
        self.asked = True
        print(
            "\nfit: ends after this step and returns the best so far; Ctrl-C again ends at once",
            file=sys.stderr,
            flush=True,
        )
