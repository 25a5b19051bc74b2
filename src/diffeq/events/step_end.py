"""What is known of events before a step, what is found out during it, and what follows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from .locate import ConditionSign

__all__ = ["Happened", "Memory", "OutputWindow", "Reinitialization", "StepEnd", "StepTruncation"]


class Memory(NamedTuple):
    """What is known before a step: how conditions stand, which of them wait for the next round, how
    many of each list of times have passed, for how many rounds time stood still, and whether a
    terminal event has happened.
    """

    stand: ConditionSign
    pending: Bool[Array, " k"]
    passed: Int[Array, " lists"]
    stalled: Int[Array, ""]
    ending: Bool[Array, ""]


class Reinitialization(NamedTuple):
    """How to start again from (t, y, held): the method's memory, and dy/dt; and where there are
    algebraic equations, the state next to y that obeys them, and whether it was found.
    """

    memory: Callable
    rate: Callable
    settled: Callable | None = None


class StepTruncation(NamedTuple):
    """How far a step goes: to `theta`, if it is `cut` there, or all the way, to a landing or not.

    `first` says which condition crosses there (or which of them wait for this round), `crossed`
    which others do at the same time, `stand` how all of them stand, and `scale` how large they are
    in the step, whose polynomial is `way`. `alone`: it lands on something else, and what is due at
    the same time has to wait.
    """

    dt: Array
    landing: Array
    theta: Any = ()
    cut: Any = ()
    first: Any = ()
    crossed: Any = ()
    stand: Any = ()
    scale: Any = ()
    way: Any = None
    alone: Any = False


class OutputWindow(NamedTuple):
    """Which rows of output a step has: those up to the time `until`, at which all is over if it is
    `settled`; a polynomial if it has `moved`; and for each event whether it `happened`.
    """

    until: Array
    settled: Array
    moved: Array
    happened: tuple


class Happened(NamedTuple):
    """What happened at the end of a step: the state before and after each event, their flags, and
    dy/dt after all of them.
    """

    chain: tuple
    flags: tuple
    rate: Array


class StepEnd(NamedTuple):
    """What became of the end of a step.

    `memory` is the method's, and `known` is what the events know. `held` is what is held beside y.
    `chain` has both before and after each event, in order, `rate` dy/dt after all of them, and
    `shown` which rows of output there are. `lost`: there is no state after them to go on from.
    """

    dt: Array
    landing: Array
    y: Array
    held: Any
    memory: Any
    known: Any = ()
    theta: Any = ()
    fired: Any = ()
    chain: Any = ()
    rate: Any = ()
    shown: Any = None
    path: Any = None
    lost: Any = ()

    @property
    def happened(self) -> Array:
        """Whether anything happened."""
        return jnp.any(self.fired)
