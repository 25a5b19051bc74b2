"""The inputs of a solve with flags of the perturbed ones, and its forward solve, which stores what
the backward solve of a continuous adjoint reads.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..autodiff.jax_internals import Jaxpr, input_types, interpret, output_types, trace
from ..core.status import Status
from ..integrator import Data, Integrator, Start, State, integrate
from ..output import Channel, Output
from ..problems.forms import lower
from .base import SolveSpec, run_with_tape
from .tape import Tape

__all__ = ["AdjointContext", "ForwardResult", "solved_with_states"]


class ForwardResult(NamedTuple):
    """The input of a backward solve: the inputs of the forward solve, its end, the states at all
    rows and at further times, and a tape where there is one.
    """

    leaves: list
    end: State
    states: list
    record: Tape | None


class AdjointContext:
    """A solve's inputs, with flags of the perturbed ones."""

    def __init__(self, spec: SolveSpec, leaves: list, live: Sequence[bool] = ()) -> None:
        self.spec, self.leaves = spec, leaves
        self.live = list(live) or [False] * len(leaves)
        self.integrator: Integrator = spec.integrator
        self.adjoint: Any = spec.adjoint  # a `ContinuousAdjoint`, whose module imports this one
        self.data, self.start = jax.tree.unflatten(spec.tree, leaves)
        self.index = jax.tree.unflatten(spec.tree, list(range(len(leaves))))
        of_data = self.index[0]
        inputs = jax.tree.leaves((of_data.parameters, of_data.save))
        self.moving = [i for i in inputs if self.live[i]]

    @property
    def parameters(self) -> list:
        """The parameters that are perturbed."""
        return [self.leaves[i] for i in self.moving]

    def with_parameters(self, moving: list) -> Data:
        """The data with other values of the perturbed parameters."""
        leaves = list(self.leaves)
        for i, x in zip(self.moving, moving, strict=True):
            leaves[i] = x
        return jax.tree.unflatten(self.spec.tree, leaves)[0]

    def field(self, moving: list, t: Array, y: Array) -> Array:
        """f(t, y, p), with p the perturbed parameters."""
        data = self.with_parameters(moving)
        return lower(self.integrator.form(data.parameters, data.sign), "ode", "an adjoint").field(
            t, y
        )

    def linear(self) -> tuple[Jaxpr, list[bool]]:
        """The field's jaxpr, and flags of the inputs by which the backward solve differentiates:
        all but t.
        """
        jaxpr = trace(self.field, self.parameters, self.start.t, self.start.y)
        count = len(self.parameters)
        return jaxpr, [*[True] * count, False, True]

    def is_state(self, channel: Channel) -> bool:
        """True if a channel's rows are the states themselves."""
        shapes = self.data, self.start.t, self.start.y
        jaxpr = trace(channel.value, *shapes)
        count = len(input_types(jaxpr))
        made = lambda equation, _: [None for _ in output_types(equation)]  # noqa: E731
        found = interpret(jaxpr, list(range(count)), made, lambda x, aval: None)
        return found == [count - 1]

    def storage_times(self) -> tuple[list[Array], list[Array]]:
        """The times at which the forward solve stores the state for the backward solve: those of
        rows that do not hold the state; and stops and checkpoint times.
        """
        channels, times = self.integrator.output.channels, self.data.times
        rows = [t for c, t in zip(channels, times, strict=True) if not self.is_state(c)]
        stops = [self.data.stops] if self.integrator.has_stops else []
        return jax.lax.stop_gradient((rows, [*stops, *self.adjoint.checkpoint_times(self)]))

    def storing_states(self) -> tuple[Integrator, Data]:
        """The integrator and the data of a solve that also writes y at all `storage_times`."""
        further = [t for times in self.storage_times() for t in times]
        raw = [Channel("times", t.shape[0], lambda data, t, y, held: [y]) for t in further]
        output = Output((*self.integrator.output.channels, *raw))
        data = replace(self.data, times=(*self.data.times, *further))
        return replace(self.integrator, output=output), data


def solved_with_states(spec: SolveSpec, leaves: list) -> tuple[tuple[State, list], ForwardResult]:
    """The solve, with the states at all nodes of the backward solve."""
    setting = AdjointContext(spec, leaves)
    integrator, data = setting.storing_states()
    recorder = setting.adjoint.recorder(integrator, spec.max_steps, setting.start.y.nbytes)

    def run(data: Data, start: Start) -> tuple:
        return integrate(integrator, data, start.state(integrator, data), recorder)

    end, buffers, record = run_with_tape(run, data, setting.start)
    if recorder is not None:  # a tape that could not hold the solve
        cut = end.status == Status.running
        end = replace(end, status=jnp.where(cut, Status.tape_overflow, end.status))
    channels = setting.integrator.output.channels
    count = len(channels)
    result = replace(end, written=end.written[:count]), buffers[:count]
    rest = iter(buffers[count:])
    states = [
        b[0] if setting.is_state(c) else next(rest)[0]
        for c, b in zip(channels, buffers, strict=False)
    ]
    return result, ForwardResult(leaves, end, [*states, *(b[0] for b in rest)], record)
