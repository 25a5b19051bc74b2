"""The times at which a problem's traced functions jump, by the inputs that they call."""

from collections.abc import Sequence
from typing import Any

from ..autodiff.discontinuity_times import Jumps, constant_lines, jumps_of, time
from ..autodiff.jax_internals import input_types

__all__ = ["jumps_of_traced"]


def jumps_of_traced(traced: Any, leaves: Sequence, seen: Sequence = ()) -> Jumps:
    """Where a `Traced` function of (t, *parts, args) jumps: of the leaves of args all is known, of
    those of the state nothing, and of what else it sees what is given.
    """
    types = input_types(traced.equations)
    count = len(types) - 1 - len(leaves) - len(seen)
    state = [None] * count
    inputs = [time(types[0].dtype), *state, *seen, *map(constant_lines, leaves)]
    return jumps_of(traced.equations, inputs)
