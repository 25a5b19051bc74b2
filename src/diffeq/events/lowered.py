"""The user's events, traced: when each happens, and what it does.

`lower_events` makes them. Each has a `place` in the user's list, where its own parameters are too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree, Real

from ..autodiff.jax_internals import shape_of
from ..autodiff.one_way_linear import undifferentiable
from ..closures import flatten
from ..core.dispatch import entry_for
from ..core.packing import as_state, released
from ..core.user_functions import check_arguments, described, paired_leaves
from ..problems import Problem
from ..problems.base import evaluated
from ..problems.lowering import Canonical, Traced
from .condition import Condition
from .event import AbstractEvent, AfterStep, Event, Periodic, PresetTimes

__all__ = [
    "LoweredAfterStep",
    "LoweredCrossing",
    "LoweredEvent",
    "LoweredPeriodic",
    "LoweredPreset",
    "Parameters",
    "lower_events",
    "same_state",
]


type Parameters = dict[str, PyTree]
"""The parameters of one event: values that its functions compute before the loop, times, data."""


@dataclass(frozen=True, eq=False)
class LoweredEvent:
    """An event. `length` is how many of its happenings are recorded."""

    kind: ClassVar[str] = ""

    place: int
    affect: Traced | None
    length: int

    @property
    def terminal(self) -> bool:
        """True if the solve ends with this event."""
        return False

    @property
    def count(self) -> int:
        """One flag for each number."""
        return 1

    @property
    def vector(self) -> bool:
        """True if the condition is a vector."""
        return False

    def extra(self, own: Parameters, k: Int[Array, ""] | None, fired: Bool[Array, " k"]) -> tuple:
        """Returns the arguments of its affect after t, y and args, when it happens for the k-th
        time.
        """
        del own, k, fired
        return ()


@dataclass(frozen=True, eq=False)
class LoweredCondition(LoweredEvent):
    """An event by a condition."""

    condition: Condition
    ends: bool

    @property
    def terminal(self) -> bool:
        """True if the solve ends with this event."""
        return self.ends

    @property
    def count(self) -> int:
        """One flag for each number."""
        return self.condition.count

    @property
    def vector(self) -> bool:
        """True if the condition is a vector."""
        return self.condition.vector

    def extra(self, own: Parameters, k: Int[Array, ""] | None, fired: Bool[Array, " k"]) -> tuple:
        """With several, which of them."""
        del own, k
        return (fired,) if self.vector else ()


@dataclass(frozen=True, eq=False)
class LoweredCrossing(LoweredCondition):
    """An event where a condition crosses zero."""

    kind = "crossing"

    fixed: bool = False  # its times are held where they are when it is differentiated


@dataclass(frozen=True, eq=False)
class LoweredAfterStep(LoweredCondition):
    """An event at the end of each step at which a condition is true."""

    kind = "after"


@dataclass(frozen=True, eq=False)
class LoweredPreset(LoweredEvent):
    """An event at the times of a list."""

    kind = "times"

    def time(self, own: Parameters, k: Int[Array, ""]) -> Real[Array, ""]:
        """The k-th time; infinite when there is none."""
        return own["times"].at[k].get(mode="fill", fill_value=jnp.inf)

    def passed(self, own: Parameters, t: Real[Array, ""]) -> Int[Array, ""]:
        """The number of times before t."""
        return jnp.sum(own["times"] < t, dtype=jnp.int32)

    def extra(self, own: Parameters, k: Int[Array, ""] | None, fired: Bool[Array, " k"]) -> tuple:
        """The row of data of this time."""
        del fired
        if own["data"] is None:
            return ()
        return (jax.tree.map(lambda x: x.at[k].get(mode="clip"), own["data"]),)


@dataclass(frozen=True, eq=False)
class LoweredPeriodic(LoweredEvent):
    """An event in each period."""

    kind = "times"

    def time(self, own: Parameters, k: Int[Array, ""]) -> Real[Array, ""]:
        """The k-th time; a product, in which no rounding errors add up."""
        return _snapped_to_ends(own["first"] + k * own["period"], own["ends"])

    def passed(self, own: Parameters, t: Real[Array, ""]) -> Int[Array, ""]:
        """The number of times before t."""
        k = jnp.ceil((t - own["first"]) / own["period"]).astype(jnp.int32)
        k = jnp.maximum(k, 0)
        return jnp.where((k > 0) & (self.time(own, k - 1) >= t), k - 1, k)


def _snapped_to_ends(times: Array, ends: tuple[Array, Array]) -> Array:
    """Times within 4 ulp of an end are that end."""
    slack = 4 * jnp.finfo(times.dtype).eps * jnp.maximum(jnp.abs(ends[0]), jnp.abs(ends[1]))
    for end in ends:
        times = jnp.where(jnp.abs(times - end) <= slack, end, times)
    return times


# --- lowering ------------------------------------------------------------------------------------


def lower_events(
    given: tuple[AbstractEvent, ...],
    problem: Problem,
    canonical: Canonical,
    ends: tuple[Array, Array],
    sign: Array | int,
    most: int,
) -> tuple[tuple[LoweredEvent, ...], tuple[Parameters, ...]]:
    """The parts and their own parameters. `ends` is (t0, t1) in the loop's time, and `most` how
    many happenings are recorded where their number is not known.
    """
    leaves, structure = flatten(problem.args)
    leaves = [jnp.asarray(x) for x in leaves]
    tree = canonical.packing.marked(canonical.y0, canonical.held)
    t = shape_of(canonical.t0)

    def trace(f: Callable | None, name: str, arguments: str, extra: tuple = ()) -> Traced | None:
        if f is None:
            return None
        check_arguments(f, name, arguments)
        return Traced(
            f, name, arguments, t, (tree,), leaves, structure, extra=extra, fits=same_state
        )

    def condition(
        event: Event | AfterStep, name: str, direction: int | tuple[int, ...], *, boolean: bool
    ) -> Condition:
        name = f"{name}.condition"
        check_arguments(event.condition, name, "t, y, args")
        return Condition(
            event.condition, name, t, tree, leaves, structure, direction, boolean=boolean
        )

    inputs = TracedInputs(
        trace, condition, problem.args, ends, sign, most, canonical.noise is not None
    )
    names = [event.label or f"events[{i}]" for i, event in enumerate(given)]
    made = [
        _rule(event, name)(event, i, name, inputs)
        for i, (event, name) in enumerate(zip(given, names, strict=True))
    ]
    return tuple(part for part, _ in made), tuple(own for _, own in made)


@dataclass(frozen=True)
class TracedInputs:
    """The inputs of the rules below: how to trace functions, and the span of the solve."""

    trace: Callable
    condition: Callable
    args: PyTree
    ends: tuple[Array, Array]
    sign: Array | int
    most: int
    noisy: bool

    def in_time(self, name: str, x: PyTree) -> Array:
        """Times of the problem in the loop's time."""
        x = self.fixed(name, jnp.asarray(evaluated(x, self.args), self.ends[0].dtype))
        return x if isinstance(self.sign, int) and self.sign == 1 else self.sign * x

    def fixed(self, name: str, x: Array) -> Array:
        """Returns x; in an equation with noise, whose path has no derivative by time,
        differentiating by it is refused.
        """
        return undifferentiable(lambda x: x, _NO_RATE.format(name=name))(x) if self.noisy else x


_NO_RATE = (
    "{name} cannot be differentiated in an equation with noise: its path has no derivative by time."
)


def _lower_crossing(
    event: Event, place: int, name: str, inputs: TracedInputs
) -> tuple[LoweredEvent, Parameters]:
    condition = inputs.condition(event, name, event.direction, boolean=False)
    affect = _affect(event, name, condition, inputs)
    length = 1 if event.terminal else inputs.most
    part = LoweredCrossing(place, affect, length, condition, event.terminal, event.fixed)
    return part, _hoisted(condition=condition.traced, affect=affect)


def _lower_after_step(
    event: AfterStep, place: int, name: str, inputs: TracedInputs
) -> tuple[LoweredEvent, Parameters]:
    condition = inputs.condition(event, name, 0, boolean=True)
    affect = _affect(event, name, condition, inputs)
    part = LoweredAfterStep(
        place, affect, 1 if event.terminal else inputs.most, condition, event.terminal
    )
    return part, _hoisted(condition=condition.traced, affect=affect)


def _affect(
    event: Event | AfterStep, name: str, condition: Condition, inputs: TracedInputs
) -> Traced | None:
    flags = jax.ShapeDtypeStruct((condition.count,), bool)
    extra = (flags,) if condition.vector else ()
    arguments = "t, y, args, fired" if condition.vector else "t, y, args"
    return inputs.trace(event.affect, f"{name}.affect", arguments, extra)


def _lower_preset(
    event: PresetTimes, place: int, name: str, inputs: TracedInputs
) -> tuple[LoweredEvent, Parameters]:
    times = inputs.in_time(f"{name}.times", event.times)
    if times.ndim != 1:
        raise ValueError(f"{name}.times has shape {times.shape}; a sequence of times is wanted.")
    times = jnp.where(jnp.isnan(times), jnp.inf, _snapped_to_ends(times, inputs.ends))
    order = jnp.argsort(times, stable=True)
    data = jax.tree.map(jnp.asarray, evaluated(event.data, inputs.args))
    for row in jax.tree.leaves(data):
        if row.shape[:1] != times.shape:
            raise ValueError(
                f"{name}.data has a leaf of shape {row.shape}; one row for each of the "
                f"{times.shape[0]} times is wanted."
            )
    data = jax.tree.map(lambda x: x[order], data)
    rows = () if data is None else (jax.tree.map(lambda x: shape_of(x[0]), data),)
    arguments = "t, y, args, row" if rows else "t, y, args"
    affect = inputs.trace(event.affect, f"{name}.affect", arguments, rows)
    own = {**_hoisted(affect=affect), "times": times[order], "data": data}
    return LoweredPreset(place, affect, max(times.shape[0] - event.beyond, 1)), own


def _lower_periodic(
    event: Periodic, place: int, name: str, inputs: TracedInputs
) -> tuple[LoweredEvent, Parameters]:
    dtype = inputs.ends[0].dtype
    period = jnp.asarray(evaluated(event.period, inputs.args), dtype)
    phase = (
        period if event.phase is None else jnp.asarray(evaluated(event.phase, inputs.args), dtype)
    )
    for key, value in (("period", period), ("phase", phase)):
        if value.shape != ():
            raise ValueError(f"{name}.{key} has shape {value.shape}; one number is wanted.")
    period, phase = inputs.fixed(f"{name}.period", period), inputs.fixed(f"{name}.phase", phase)
    affect = inputs.trace(event.affect, f"{name}.affect", "t, y, args")
    own = {"first": inputs.ends[0] + phase, "period": period, "ends": inputs.ends}
    return LoweredPeriodic(place, affect, event.most or inputs.most), {
        **_hoisted(affect=affect),
        **own,
    }


_RULES: dict[type[AbstractEvent], Callable] = {
    Event: _lower_crossing,
    AfterStep: _lower_after_step,
    PresetTimes: _lower_preset,
    Periodic: _lower_periodic,
}


def _rule(event: AbstractEvent, name: str) -> Callable:
    rule = entry_for(_RULES, type(event))
    if rule is None:
        known = ", ".join(f"de.{kind.__name__}" for kind in _RULES)
        raise TypeError(
            f"{name} is a {type(event).__name__}, of which it is not known when it happens; a "
            f"subclass of one of {known} is wanted."
        )
    return rule


def _hoisted(**traced: Traced | None) -> Parameters:
    return {name: f.hoisted for name, f in traced.items() if f is not None}


def same_state(name: str, value: PyTree, parts: tuple) -> PyTree:
    """Returns the result of an affect, if it is a state like the one that it got; else raises."""
    value, like = released(value), released(parts[0])
    fits = jax.tree.structure(value) == jax.tree.structure(like)
    value = value if fits else as_state(value)
    if jax.tree.structure(value) != jax.tree.structure(like):
        raise TypeError(
            f"{name} returned {described(value)}; y is {described(like)}, and what an event makes "
            "of it must match it."
        )
    for where, new, old in paired_leaves(value, like):
        if jnp.shape(new) != jnp.shape(old):
            raise TypeError(
                f"{name} returned shape {jnp.shape(new)}{where}; y has shape {jnp.shape(old)} "
                "there, and an event may not change it."
            )
        got, kept = jnp.result_type(new), jnp.result_type(old)
        if jnp.result_type(new, jnp.zeros((), kept)) != kept:
            raise TypeError(
                f"{name} returned dtype {got}{where}; y has dtype {kept} there, and an event may "
                f"not change it: write .astype({kept}) in the affect, or give y0 as {got}."
            )
    return value
