"""`Unthinned`: `Discrete` with a tape that is never thinned, for use where another strategy takes
over a solve that is too long for it.

A tape that may be thinned is walked in windows, each repeated into a second buffer. In a kernel
(`ensemble/gpu_kernel/launch.py`), whose tape is in memory and whose program should be short, it is
better to keep all attempts, and to leave those few solves that make more of them to another
strategy.
"""

from dataclasses import replace

from ..integrator import System
from .discrete import Discrete
from .tape import Recorder

__all__ = ["Unthinned"]

_MOST_GIVEN = 4096  # rows of steps that are given, and so all used


class Unthinned(Discrete):
    """The derivative of `Discrete`; a solve of more attempts than there are rows ends with the
    status `tape_overflow`.
    """

    def recorder(self, system: System, max_steps: int, size: int = 0) -> Recorder:
        """The tape for a solve of at most this many attempts, with a state of `size` bytes."""
        usual = super().recorder(system, max_steps, size)
        return replace(usual, thins=False)

    def _kept(self, max_steps: int, size: int = 0, *, is_adaptive: bool) -> int:
        given = not is_adaptive and max_steps <= _MOST_GIVEN and self.rows is None
        return max_steps if given else super()._kept(max_steps, size, is_adaptive=is_adaptive)

    def serves_all(self, max_steps: int, *, is_adaptive: bool) -> bool:
        """True if the tape can hold every solve of at most `max_steps` attempts."""
        return max_steps <= self._kept(max_steps, is_adaptive=is_adaptive)

    def may_serve(self, max_steps: int, *, is_adaptive: bool) -> bool:
        """True if this adjoint is worth a try: most solves fit in its tape, and a tape of
        `Discrete` holds the others.
        """
        if self.serves_all(max_steps, is_adaptive=is_adaptive):
            return True
        return is_adaptive and self.holds(max_steps, is_adaptive=is_adaptive)
