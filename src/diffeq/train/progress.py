"""The progress of a fit: a bar on a terminal or in a notebook, lines now and then elsewhere."""

import sys
import time
from typing import Any

import numpy as np

__all__ = ["Pace", "Progress"]

FIRST_LINE = 10.0  # seconds; each line after it comes after half as long again, at most
LONGEST_PAUSE = 300.0
_SYNC_SECONDS = 0.1
_SYNC_STEPS = 50


class Pace:
    """The number of `steps` that are under way on the device until the host waits for their losses:
    as many as take a tenth of a second.
    """

    def __init__(self) -> None:
        self.steps, self.synced = 1, time.monotonic()

    def after(self, count: int) -> None:
        """Measures the time of so many steps, those since the last call."""
        now = time.monotonic()
        spent, self.synced = now - self.synced, now
        self.steps = int(np.clip(_SYNC_SECONDS * count / max(spent, 1e-9), 1, _SYNC_STEPS))


class Progress:
    """Shows the step and the loss.

    A batch job has a log and no terminal: there a bar would be one endless line, so it gets a line
    after 10 seconds, and others at growing intervals. A fit that is quick writes none.
    """

    def __init__(self, total: int, *, shown: bool) -> None:
        self.total, self.shown = total, shown
        self.bar: Any = None
        self.start = time.monotonic()
        self.pause = FIRST_LINE
        self.due = self.start + self.pause
        self.written = False

    def __enter__(self) -> "Progress":
        from tqdm.auto import tqdm

        if self.shown:
            self.bar = tqdm(total=self.total, disable=None, desc="fit")
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def at(self, step: int, loss: float) -> None:
        """Shows that so many steps are done."""
        if not self.shown:
            return
        if not self.bar.disable:
            self.bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
            self.bar.update(step - self.bar.n)
        elif (now := time.monotonic()) >= self.due or (self.written and step == self.total):
            self._write(step, loss, now)

    def _write(self, step: int, loss: float, now: float) -> None:
        spent = now - self.start
        left = spent * (self.total - step) / max(step, 1)
        print(
            f"fit: step {step} of {self.total}, loss {loss:.4g}, {_clock(spent)} spent, at most "
            f"{_clock(left)} left",
            file=sys.stderr,
            flush=True,
        )
        self.written = True
        self.pause = min(1.5 * self.pause, LONGEST_PAUSE)
        self.due = now + self.pause


def _clock(seconds: float) -> str:
    """A time as hours, minutes and seconds.

    >>> _clock(3725.0), _clock(59.9)
    ('1:02:05', '0:59')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
