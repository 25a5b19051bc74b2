"""The backward solve of a continuous adjoint: from t1 to t0, with a step end and an adjoint jump at
each observation time.

The adjoint equation is an `Integrator` of its own, in the time σ = −t, solved by the attempts of
the forward loop under the same controller. A node is a time at which a step has to end: an
observation time, where λ jumps by the cotangent of the observation, or a time at which y is known
or λ wanted.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from ..autodiff.row_buffers import get_row, put_row
from ..autodiff.while_loop import loop
from ..controllers import PI
from ..core.norm import mean_square
from ..core.packing import Packing
from ..core.status import Status
from ..integrator import (
    Data,
    Integrator,
    State,
    attempt,
    count_passed,
    initial_state,
    lane_status,
    right_limit_form,
)
from ..integrator.state import Held
from ..methods import METHODS, Method
from ..output import Output
from ..problems.forms import Form, Ode, lower
from .base import SolveSpec
from .forward_result import AdjointContext, ForwardResult

__all__ = [
    "DRIFTED",
    "AdjointIntegrator",
    "BackwardSolve",
    "BackwardStart",
    "ForwardStates",
    "Nodes",
]

DRIFTED = -1  # the status of a backward solve whose y differs too much from the checkpoints


type ForwardStates = tuple
"""y(t) for a backward solve: () where y is solved along, (y,) at the end, or (interpolant, start,
length) on a step of the forward solve.
"""


class Nodes(NamedTuple):
    """The times at which a step of the backward solve has to end, ascending in σ; the adjoint jump
    of λ at each; and the state of the forward solve.

    `jumps` is None when λ never jumps, `states` when y is not restored.
    """

    times: Array
    jumps: Array | None
    states: Array | None


class BackwardStart(NamedTuple):
    """The initial values of a backward solve: t is in its own time σ."""

    t: Array
    y: Array
    lam: Array


class BackwardSolve(NamedTuple):
    """The state of a backward solve: the loop's state, the number of the next node, the integral so
    far where it is no part of the loop's state, the largest drift and its time, and λ just before
    its jump at each node.
    """

    state: State
    node: Array
    total: list
    drift: Array
    place: Array
    lam_at_nodes: tuple[Array, ...]


class AdjointIntegrator:
    """The adjoint equation as an `Integrator` of the loop, and the nodes of its solve."""

    def __init__(
        self,
        setting: AdjointContext,
        kept: ForwardResult,
        origin: BackwardStart,
        nodes: Nodes,
        tolerances: tuple,
    ) -> None:
        self.setting, self.kept, self.origin, self.nodes = setting, kept, origin, nodes
        self.adjoint = setting.adjoint
        self.parts = self.adjoint.parts(origin.lam, origin.y, setting.parameters)
        self.packing = Packing(self.parts)
        self.tolerance, self.of_parameters = tolerances
        forward, data = setting.integrator, setting.data
        own = eqx.combine(data.method, forward.method)
        controller = eqx.combine(data.controller, forward.controller)
        method = self.adjoint.method or (own if _solves_odes(own) else METHODS["Tsit5"]())
        if method is not own and not controller.is_adaptive:
            controller = PI()
        method = method.without_preconditioner()
        sizes = [int(np.prod(x.shape)) for x in jax.tree.leaves(self.parts)]
        controller = eqx.tree_at(
            lambda c: c.norm,
            controller,
            _norm_of_parts(sizes, controller.norm),
            is_leaf=lambda x: x is None,
        )
        self.order = method.order
        self.method, rest = eqx.partition(method, eqx.is_array_like)
        self.controller, judge = eqx.partition(controller, eqx.is_array_like)
        form = partial(_adjoint_form, setting.spec, setting.live, self.packing, method.form)
        direction = None if forward.direction is None else -forward.direction
        self.integrator = Integrator(form, rest, judge, Output(()), forward.has_stops, direction)

    @property
    def floor(self) -> Array:
        """The end of the backward solve, in its own time."""
        return -self.setting.start.t

    def data(self, where: ForwardStates) -> Data:
        """The data of the backward solve; `where` holds the data that give y(t)."""
        data = self.setting.data
        return Data(
            parameters=(self.setting.leaves, where),
            held=(),
            events=(),
            kept=None,
            sign=() if self.integrator.direction is not None else -data.sign,
            t0=self.origin.t,
            t1=self.floor,
            stops=-data.stops[::-1] if self.integrator.has_stops else (),
            shift=data.shift,
            tolerance=self.tolerance,
            method=self.method,
            controller=self.controller,
            times=(),
            max_steps=jnp.minimum(data.max_steps, 2**26) * 16,
            goal=data.goal,
        )

    def first(self, where: ForwardStates) -> BackwardSolve:
        """The state before the first step."""
        y = self.packing.pack(self.parts)
        data = self.data(where)
        state = initial_state(self.integrator, data, self.origin.t, y, self.kept.end.dt)
        ok = jnp.all(jnp.isfinite(y))
        status = jnp.where(ok, Status.success, Status.nonfinite).astype(jnp.int32)
        zero = jnp.zeros((), state.t.dtype)
        node = jnp.sum(self.nodes.times <= state.t, dtype=jnp.int32)
        total = (
            [] if self.adjoint.augmented else [jnp.zeros_like(p) for p in self.setting.parameters]
        )
        lam = self.parts[0]
        seen = jnp.zeros((self.nodes.times.shape[0] + 1, *lam.shape), lam.dtype)
        seen = (seen,) if self.setting.integrator.has_stops else ()
        return BackwardSolve(replace(state, status=status), node, total, zero, state.t, seen)

    def solve_to(self, solve: BackwardSolve, where: ForwardStates, floor: Array) -> BackwardSolve:
        """Solves on to `floor`, with a step end at each node before it."""
        go = (solve.state.status == Status.success) & (solve.state.t < floor)
        status = jnp.where(go, Status.running, solve.state.status).astype(jnp.int32)
        solve = solve._replace(state=replace(solve.state, status=status))

        def running(consts: tuple[Data, Array, Nodes], solve: BackwardSolve, _: tuple) -> Array:
            del consts
            return solve.state.status == Status.running

        def turn(
            active: Bool[Array, ""],
            consts: tuple[Data, Array, Nodes],
            solve: BackwardSolve,
            _: tuple,
        ) -> tuple[BackwardSolve, tuple]:
            data, floor, nodes = consts
            node, time = _next_node(nodes, solve.node)
            data = replace(data, t1=jnp.minimum(time, floor))
            after, tried = attempt(self.integrator, data, solve.state)
            total = self.adjoint.accumulate(self, data, solve, tried)
            status = lane_status(after)
            landed = status == Status.success
            status = jnp.where(landed & (data.t1 < floor), Status.running, status)
            solve = solve._replace(
                state=replace(after, status=status.astype(jnp.int32)), total=total
            )
            there = active & landed & (time <= floor)
            return self._after_step(data, nodes, node, there, solve), ()

        return loop(running, turn, solve, consts=(self.data(where), floor, self.nodes))[0]

    def _after_step(
        self, data: Data, nodes: Nodes, node: Array, there: Array, solve: BackwardSolve
    ) -> BackwardSolve:
        """The backward solve after a step; where it ended at a node, after the jump of λ."""
        if not nodes.times.shape[0]:
            return solve
        state, parts = solve.state, self.packing.unpack(solve.state.y)
        at = jnp.where(there, node, nodes.times.shape[0])
        solve = solve._replace(
            node=solve.node + there,
            lam_at_nodes=tuple(put_row(x, parts[0], at) for x in solve.lam_at_nodes),
        )
        known = None if nodes.states is None else get_row(nodes.states, node)
        parts, drift = self.adjoint.at_checkpoint(parts, known, self.setting.data.tolerance)
        if nodes.jumps is not None:
            parts = (parts[0] + get_row(nodes.jumps, node), *parts[1:])
        y = jnp.where(there, self.packing.pack(parts), state.y)
        state = self._with_new_memory(data, there, replace(state, y=y))
        if drift is None:
            return solve._replace(state=state)
        return _with_drift(solve, state, there, drift, self.adjoint.drift)

    def _with_new_memory(self, data: Data, there: Array, state: State) -> State:
        """The state with the method's memory initialised again where λ has jumped."""
        if self.integrator.has_stops:
            state = replace(state, stop=count_passed(data.stops, state.t))
        if not jax.tree.leaves(state.memory):
            return state
        form, method, _ = self.integrator.parts(data)
        fresh = right_limit_form(self.integrator, data, form, state.t)
        memory = jax.lax.cond(
            there, lambda: method.init(fresh, state.t, state.y), lambda: state.memory
        )
        return replace(state, memory=memory)


def _next_node(nodes: Nodes, node: Array) -> tuple[Array, Array]:
    """The number of the next node (the last one, when there is none), and its time."""
    count = nodes.times.shape[0]
    if not count:
        return node, jnp.asarray(jnp.inf, nodes.times.dtype)
    at = jnp.minimum(node, count - 1)
    return at, jnp.where(node < count, get_row(nodes.times, at), jnp.inf)


def _with_drift(
    solve: BackwardSolve,
    state: State,
    there: Array,
    drift: Array,
    allowed: float,
) -> BackwardSolve:
    """The backward solve with the drift at a node; stopped where more than is allowed."""
    drift = jnp.where(there, drift, 0).astype(solve.drift.dtype)
    worse = ~(drift <= solve.drift)
    status = jnp.where(drift <= allowed, state.status, DRIFTED).astype(jnp.int32)
    return solve._replace(
        state=replace(state, status=status),
        drift=jnp.where(worse, drift, solve.drift),
        place=jnp.where(worse, state.t, solve.place),
    )


def _solves_odes(method: Method) -> bool:
    """True if a method can step an ODE."""
    try:
        lower(Ode(lambda t, y: y), method.form, repr(method))
    except TypeError:
        return False
    return True


def _adjoint_form(
    spec: SolveSpec,
    live: list[bool],
    packing: Packing,
    wanted: str | tuple[str, ...],
    parameters: tuple[list, ForwardStates],
    sign: PyTree,
    held: Held = (),
) -> Form:
    """The adjoint equation, lowered to the form that its method steps."""
    del sign, held
    leaves, where = parameters
    setting = AdjointContext(spec, leaves, live)

    def field(sigma: Array, packed: Array) -> Array:
        return packing.pack(setting.adjoint.slopes(setting, where, -sigma, packing.unpack(packed)))

    return lower(Ode(field), wanted, "an adjoint")


def _norm_of_parts(sizes: list[int], given: Callable | None) -> Callable | None:
    """Returns the norm that is the largest of the norms of the parts: many weights must not hide
    the error of a few states.
    """
    if len(sizes) == 1:
        return given
    cuts = np.cumsum(sizes)[:-1].tolist()

    def norm(scaled: Array) -> Array:
        square = lambda x: mean_square(x) if given is None else given(x) ** 2  # noqa: E731
        return jnp.sqrt(jnp.max(jnp.stack([square(x) for x in jnp.split(scaled, cuts)])))

    return norm
