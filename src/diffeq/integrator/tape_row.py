"""The row of an attempt on a tape: what has to be known to make the attempt again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from .state import Attempt, Integrator, Memory, State
from .take_step import is_compensated

__all__ = ["STOP_BIT", "TapeRow", "state_of_row", "tape_row_of"]

_CONTROL_BIT = 2  # of the bits of a row, where the flags of the controller begin
STOP_BIT = 8
"""Of the bits of a row, the one at which the number of the next stop begins."""


class TapeRow(NamedTuple):
    """The data that replay one attempt, as three arrays (and the held leaves): a tape is written in
    every iteration of the loop, and three writes cost less than one for each number.

    `reals` is t, dt, the compensation of t (in float32), and the controller's memory. `whole` is a
    word of bits (0: accepted, 1: ended at a stop or at the end, from 2: the controller's flags,
    from 8: the number of the next stop), the number of rows of output written before the attempt
    (the next row gives the number after it), the controller's other integers, and the number of a
    given step. Where there are events, their memory before the attempt and the events that happened
    are at the end of `whole`, and their places in the step at the end of `reals`. `memory` is the
    method's, if the integrator `records_memory` or the method `stores_memory`; `drawn` is the
    noise: to read it costs less than to draw it again. `discontinuity` is the next propagated
    discontinuity: its row of the history, and its lag. `origin` is that of the method's workspace.
    """

    reals: Float[Array, "..."]
    whole: Int[Array, "..."]
    y: Array
    held: tuple = ()
    memory: Memory = ()
    drawn: PyTree = ()
    discontinuity: tuple = ()
    origin: PyTree = ()

    @property
    def t(self) -> Array:
        """The time at which the attempt started."""
        return self.reals[..., 0]

    @property
    def dt(self) -> Array:
        """The step size of the attempt; of one that was cut to end at a stop, the proposed one."""
        return self.reals[..., 1]

    @property
    def time_error(self) -> Array:
        """The compensation of t: its rounding error, zero where none is kept."""
        kept = is_compensated(self.reals.dtype)
        return self.reals[..., 2] if kept else jnp.zeros_like(self.reals[..., 0])

    @property
    def accept(self) -> Bool[Array, "..."]:
        """True if the attempt was accepted."""
        return (self.whole[..., 0] & 1) == 1

    @property
    def landing(self) -> Bool[Array, "..."]:
        """True if the attempt ended at a stop or at the end."""
        return (self.whole[..., 0] & 2) == 2

    @property
    def stop(self) -> Array:
        """The number of the next stop."""
        return self.whole[..., 0] >> STOP_BIT

    @property
    def step(self) -> Array:
        """The number of a given step."""
        return self.whole[..., -1]

    def lo(self, channels: int) -> tuple:
        """The rows of output written before the attempt, per channel."""
        return tuple(self.whole[..., 1 + i] for i in range(channels))


def tape_row_of(integrator: Integrator, state: State, tried: Attempt) -> TapeRow:
    """The row of an attempt made from a state."""
    reals, flags, whole = _split_memory(state.control)
    word = state.stop << STOP_BIT
    for place, flag in enumerate([tried.accept, tried.landing, *flags]):
        word = word | (flag.astype(jnp.int32) << place)
    # A step that ends at a stop is cut short, and takes its length from the stop when it is
    # replayed; the next attempt goes on with the dt that was proposed. So does the attempt after a
    # round without a step, and the one after the remainder of a step that an event has cut.
    kept, events = tried.landing, integrator.events
    if events:
        kept = kept | events.is_waiting(state.events)
    if integrator.noise:
        kept = kept | integrator.noise.is_remainder(tried.drawn)
    dt = jnp.where(kept, state.dt, lax.stop_gradient(tried.dt))
    low = [state.time_error] if is_compensated(dt.dtype) else []
    reals = [*reals, tried.end.theta] if events else reals
    reals = jnp.stack([state.t, dt, *low, *(x.astype(dt.dtype) for x in reals)])
    step = [] if state.failed is None else [state.steps]
    whole = jnp.stack([word, *state.written, *(x.astype(jnp.int32) for x in whole), *step])
    if events:
        whole = jnp.concatenate([whole, *events.coded(state.events, tried.end)])
    memory = state.memory if integrator.tapes_memory else ()
    discontinuity = tuple(tried.discontinuity[1:])  # its time is a function of these
    drawn = lax.stop_gradient(tried.drawn)
    origin = state.workspace.origin if integrator.keeps_workspace else ()
    return TapeRow(reals, whole, state.y, state.held, memory, drawn, discontinuity, origin)


def _split_memory(memory: PyTree) -> tuple[list, list, list]:
    """The leaves of a controller's memory: reals, flags, and the rest."""
    leaves = jax.tree.leaves(memory)
    flags = [x for x in leaves if x.dtype == bool][: STOP_BIT - _CONTROL_BIT]
    reals = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    taken = {id(x) for x in (*flags, *reals)}
    return reals, flags, [x for x in leaves if id(x) not in taken]


def _read_memory(row: TapeRow, like: PyTree, channels: int) -> PyTree:
    """The controller's memory in a row."""
    leaves, tree = jax.tree.flatten(like)
    reals, flags, whole = _split_memory(like)
    first = 2 + is_compensated(row.reals.dtype)
    found = {id(x): row.reals[first + i] for i, x in enumerate(reals)}
    found |= {id(x): (row.whole[0] >> (_CONTROL_BIT + i)) & 1 for i, x in enumerate(flags)}
    found |= {id(x): row.whole[1 + channels + i] for i, x in enumerate(whole)}
    return jax.tree.unflatten(tree, [found[id(x)].astype(x.dtype) for x in leaves])


def state_of_row(integrator: Integrator, row: TapeRow, memory: Memory, like: State) -> State:
    """The state before the attempt of a row; `like` is a state of equal structure and shapes."""
    zero, channels = jnp.zeros((), jnp.int32), len(integrator.output.channels)
    known = integrator.events.read(row)[0] if integrator.events else ()
    given = like.failed is not None
    return State(
        t=row.t,
        time_error=row.time_error,
        y=row.y,
        held=row.held,
        dt=row.dt,
        control=_read_memory(row, like.control, channels),
        memory=memory,
        written=row.lo(channels),
        stop=row.stop,
        events=known,
        steps=row.step if given else zero,
        rejected=zero,
        floored=zero,
        last_dt=jnp.zeros_like(row.t),
        status=zero,
        evaluations=like.evaluations,
        path=row.drawn.path if integrator.noise else (),
        failed=jnp.full((), -1, jnp.int32) if given else None,
        why=like.why,
        workspace=like.workspace.at_origin(row.origin) if integrator.keeps_workspace else (),
    )
