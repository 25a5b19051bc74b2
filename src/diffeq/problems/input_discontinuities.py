"""The times at which a problem's traced functions jump, by the inputs that they call."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ..autodiff.discontinuity_times import Jumps, constant_lines, jumps_of, time
from ..autodiff.jax_internals import Jaxpr, input_types

__all__ = ["jumps_of_traced"]


@runtime_checkable
class _Traced(Protocol):
    """A function that was traced (`lowering.Traced`)."""

    equations: Jaxpr


def jumps_of_traced(traced: _Traced, leaves: Sequence, seen: Sequence = ()) -> Jumps:
    """The jumps of a traced function of (t, *parts, args): of the leaves of args all is known, of
    those of the state nothing, and of what else it sees what is given.
    """
    types = input_types(traced.equations)
    count = len(types) - 1 - len(leaves) - len(seen)
    state = [None] * count
    inputs = [time(types[0].dtype), *state, *seen, *map(constant_lines, leaves)]
    return jumps_of(traced.equations, inputs)
