"""Events as a user writes them: when they happen, and how they change the state."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PyTree

from ..autodiff.jax_internals import Tracer
from ..closures import flatten_fields, unflatten_fields
from ..core.keywords import keywords

__all__ = ["AbstractEvent", "AfterStep", "Event", "Periodic", "PresetTimes", "doses"]


class AbstractEvent:
    """The base of all events: a pytree of traced `fields`, with `static` ones."""

    fields: ClassVar[tuple[str, ...]] = ()
    static: ClassVar[tuple[str, ...]] = ()
    label: str | None = None  # what messages call it, where that is not events[i]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        jax.tree_util.register_pytree_node(
            cls, cls._flatten, lambda aux, xs: cls._unflatten(aux, xs)
        )

    def _flatten(self) -> tuple[list, tuple]:
        leaves, structure = flatten_fields(self, self.fields, ("condition", "affect"))
        return leaves, (structure, tuple(getattr(self, name) for name in self.static))

    @classmethod
    def _unflatten(cls, aux: tuple, leaves: Sequence) -> PyTree:
        self = object.__new__(cls)
        self.__dict__.update(
            unflatten_fields(aux[0], leaves), **dict(zip(cls.static, aux[1], strict=True))
        )
        return self

    def __repr__(self) -> str:
        names = (getattr(f, "__name__", type(f).__name__) for f in self._functions() if f)
        return f"{type(self).__name__}({', '.join(names)})"

    def _functions(self) -> list:
        return [getattr(self, name, None) for name in ("condition", "affect")]


class Event(AbstractEvent):
    """Something that happens where `condition(t, y, args)` crosses zero.

    The crossing is looked for on the polynomial of each step, also between its ends, and located to
    rounding: of a condition that is a polynomial of degree ≤ 8 there every one, of others as far as
    they are smooth between the places that are looked at. Of several events the earliest comes
    first. There `affect(t, y, args)` replaces the
    state, and the method restarts. Without an affect the solve ends there, with success.
    The time of the event, t*(y0, args), has the derivative −(∂g/∂x · dx)/(dg/dt) of the root that
    it is, to every order.

    Args:
        condition: returns a number g, or a vector (k,) of them, that changes sign at the event; or
            a boolean, which happens when it becomes true (and at t0, if it is true there). One that
            ends in a comparison (<, <=, >, >=) of a and b is located and differentiated as a − b;
            any other is located by bisection, and has no derivative.
        affect: returns the state after the event, of the structure, shapes and dtypes of y. With a
            vector of conditions it is called with `fired`, booleans (k,), as a fourth argument.
        direction: 1 for crossings from below, −1 for those from above (along the direction of the
            solve), 0 for both; for a vector a sequence of these does, too.
        terminal: whether the solve ends; None: when there is no affect.

    What starts on a zero (at t0, or after an affect) is on the side that it moves to: that is no
    crossing. Several events at one instant are all applied, in the order of `events=` (of given
    times that coincide the first, and then the others), and so are those whose conditions an affect
    makes true; a terminal one ends the solve after them. An affect that goes on making conditions
    true without time passing ends the solve with the status `zeno`.

    In an equation with noise the crossing is looked for on the path of the key, at the eighths of
    each step (of the dyadic cell that holds it), and located to 2⁻³⁰ of the interval (of the step,
    where steps are given). There its time has no derivative: asking for it is an error, and
    `AfterStep` the way out.

    Raises:
        TypeError: condition or affect is no function; (by `solve`) condition returns something else
            than numbers or booleans, of shape () or (k,); affect changes structure, shape or dtype.
        ValueError: direction is none of −1, 0, 1.

    Reference: shampine2000, rouillier2004.

    Example:
        A ball falls from 10 m, and bounces:

        >>> import jax.numpy as jnp, diffeq as de
        >>> fall = de.ODEProblem(lambda t, y, a: [y[1], -9.81], [10.0, 0.0], (0.0, 3.0), 0.8)
        >>> bounce = de.Event(lambda t, y, a: y[0], lambda t, y, a: jnp.array([0.0, -a * y[1]]))
        >>> sol = de.solve(fall, events=bounce)
        >>> sol.events[0].ts.round(3)
        Array([1.428], dtype=float32)
        >>> down = de.solve(fall, events=de.Event(lambda t, y, a: y[0] <= 5.0))
        >>> round(float(down.t1), 3), de.Status(int(down.status)).name
        (1.01, 'terminated')
    """

    fields = ("condition", "affect")
    static = ("direction", "terminal")
    fixed = False  # a condition that holds its own time where it is when it is differentiated

    @keywords
    def __init__(
        self,
        condition: Any,
        affect: Any = None,
        *,
        direction: Any = 0,
        terminal: Any = None,
    ) -> None:
        self.condition = _check_function("condition", condition, "t, y, args")
        self.affect = _check_affect(affect)
        self.direction = _event_direction(direction)
        self.terminal = affect is None if terminal is None else _check_flag("terminal", terminal)


class PresetTimes(AbstractEvent):
    """An event at given times: steps end on them, and `affect` replaces the state there.

    Args:
        times: increasing or not, in the problem's unit of time; or a function of args. NaN is
            padding, so that schedules of different length vmap. Times outside tspan do not happen;
            those at its ends do, also where it has no length.
        affect: `affect(t, y, args)`, as in `Event`; with data `affect(t, y, args, row)`.
        data: a pytree of arrays with one row for each time; or a function of args.

    The solution differentiates by times and data, as by everything else; the path of an equation
    with noise not by times, which is refused.

    Raises:
        TypeError: affect is no function; times are no numbers.
        ValueError: times has not one axis, or data not one row for each time.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> decay = de.ODEProblem(lambda t, y, k: -k * y, 0.0, (0.0, 3.0), 0.5)
        >>> dose = lambda t, y, args, amount: y + amount
        >>> given = de.PresetTimes([0.0, 1.0], dose, data=jnp.array([2.0, 1.0]))
        >>> sol = de.solve(decay, events=given, rtol=1e-6)
        >>> bool(abs(sol.y1 - (2 * jnp.exp(-1.5) + jnp.exp(-1.0))) < 1e-5)
        True
    """

    fields = ("times", "affect", "data")
    beyond = 0  # how many of its times are there only to say that there are more

    @keywords
    def __init__(self, times: Any, affect: Any, *, data: PyTree = None) -> None:
        self.affect = _check_function(
            "affect", affect, "t, y, args" + ("" if data is None else ", row")
        )
        self.times, self.data = _check_event_times(times), data
        rows = () if callable(data) else jax.tree.leaves(data)
        for row in rows if not callable(times) else ():
            if np.shape(row)[:1] != np.shape(self.times):
                raise ValueError(
                    f"data has a leaf of shape {np.shape(row)}; one row for each of the "
                    f"{np.size(self.times)} times is wanted."
                )


class Periodic(AbstractEvent):
    """An event in every `period`: at t0 + phase + k · period, k = 0, 1, …, up to t1.

    Args:
        period: a positive number in the problem's unit of time; or a function of args.
        affect: `affect(t, y, args)`, as in `Event`.
        phase: when it happens first, after t0; None: after one period. 0.0 is at t0 itself.

    All its happenings are recorded where period, phase and tspan are numbers that are known before
    the solve; else `max_events` of them, and more are the status `too_many_events`.

    Raises:
        TypeError: affect is no function.
        ValueError: period is not positive, or phase negative.

    Example:
        A control u that is computed every second and held in between:

        >>> import diffeq as de
        >>> control = lambda t, y, args: {**y, "u": -0.5 * y["x"]}
        >>> y0 = {"x": 1.0, "u": de.hold(0.0)}
        >>> plant = de.ODEProblem(lambda t, y, args: {"x": y["u"]}, y0, (0.0, 2.5))
        >>> sol = de.solve(plant, events=de.Periodic(1.0, control, phase=0.0))
        >>> [round(float(y), 4) for y in (sol.y1["x"], sol.y1["u"])]
        [0.1875, -0.125]
    """

    fields = ("period", "phase", "affect")
    static = ("most",)

    @keywords
    def __init__(self, period: Any, affect: Any, *, phase: Any = None) -> None:
        self.affect = _check_function("affect", affect, "t, y, args")
        self.period, self.phase = period, phase
        self.most = None  # how often it happens, where that is known to be often
        if not callable(period) and not _positive(period):
            raise ValueError(f"period is {period!r}; one positive number is wanted.")
        if phase is not None and not callable(phase) and not _positive(phase, zero=True):
            raise ValueError(f"phase is {phase!r}; one number that is not negative is wanted.")


class AfterStep(AbstractEvent):
    """An event after each accepted step whose end has `condition(t, y, args)` true.

    It depends on where steps end: for what happens at a time of its own, take an `Event`. It serves
    projections and limits, and stops a solve that has settled. The first `max_events` happenings
    are recorded; `num` counts all, and the solve goes on.

    Args:
        condition: returns a boolean, or a vector (k,) of them.
        affect: as in `Event`; None: the solve ends, with success.

    Raises:
        TypeError: condition or affect is no function; (by `solve`) condition returns no boolean.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> f = lambda t, y, k: -k * (y - 1)
        >>> settled = de.AfterStep(lambda t, y, k: jnp.abs(f(t, y, k)) < 1e-3)
        >>> sol = de.solve(de.ODEProblem(f, 0.0, (0.0, 1e6), 2.0), events=settled)
        >>> round(float(sol.y1), 2), float(sol.t1) < 10
        (1.0, True)
    """

    fields = ("condition", "affect")
    static = ("terminal",)

    @keywords
    def __init__(self, condition: Any, affect: Any = None) -> None:
        self.condition = _check_function("condition", condition, "t, y, args")
        self.affect = _check_affect(affect)
        self.terminal = affect is None


@keywords
def doses(times: Any, amounts: PyTree, into: Any = None) -> PresetTimes:
    """Amounts that are added to one component of the state at given times.

    Args:
        times: as in `PresetTimes`.
        amounts: one for each time, shape (times, …), or one for all; or a function of args. NaN
            times ignore theirs.
        into: where: an index of the array y (from 0; −1 is the last), a key of the dictionary y, a
            tuple of these that leads further down (an empty one is y itself), or a function such as
            `lambda y: y.central`. NONMEM's CMT counts from 1: give `cmt - 1`.

    Raises:
        TypeError, ValueError: as `PresetTimes`; into is none of these, or y has no such component.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> drug = lambda t, y, k: {"gut": -k * y["gut"], "blood": k * y["gut"] - 0.1 * y["blood"]}
        >>> y0 = {"gut": 0.0, "blood": 0.0}
        >>> given = de.doses([0.0, 12.0], [100.0, 50.0], "gut")
        >>> sol = de.solve(de.ODEProblem(drug, y0, (0.0, 24.0), 1.0), events=given)
        >>> sol.events[0].after["gut"].round()
        Array([100.,  50.], dtype=float32)
    """
    parts = into if isinstance(into, tuple) else (into,)
    if any(isinstance(x, (bool, np.bool_, list, np.ndarray)) or x is None for x in parts):
        raise TypeError(
            f"into is {into!r}; an index, a key, a tuple of these or a function of y is wanted, "
            "and () for all of a y that is one number."
        )
    given = amounts if callable(amounts) else jax.tree.map(jnp.asarray, _list_as_array(amounts))
    if not callable(given) and not callable(times):
        count = np.size(_check_event_times(times))
        given = jax.tree.map(lambda x: jnp.broadcast_to(x, (count,)) if x.ndim == 0 else x, given)
    return PresetTimes(times, _Adding(into if callable(into) else _TreePath(into)), data=given)


class _TreePath:
    """A place in a tree, equal to another of the same path, in which 1 is not 1.0."""

    def __init__(self, path: Hashable) -> None:
        self.path = path
        parts = path if isinstance(path, tuple) else (path,)
        self.key = tuple(type(x) for x in parts), path  # in this order: types compare in any case

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _TreePath) and other.key == self.key


class _Adding:
    """The affect of a dose."""

    def __init__(self, into: Callable | _TreePath) -> None:
        self.into = into

    def __call__(self, t: ArrayLike, y: PyTree, args: PyTree, amount: PyTree) -> PyTree:
        if callable(self.into):
            return _replace_selected(self.into, y, jax.tree.map(jnp.add, self.into(y), amount))
        into = self.into.path
        return _added(y, into if isinstance(into, tuple) else (into,), amount, into)


def _replace_selected(into: Callable, y: PyTree, value: PyTree) -> PyTree:
    """The tree y with the leaf that a function selects replaced."""
    try:
        return eqx.tree_at(into, y, value)
    except (TypeError, ValueError) as error:
        shapes = jax.tree.map(jnp.shape, y)
        raise TypeError(
            "into is a function that selects no leaf of y, as lambda y: y.central does, and y has "
            f"the shapes {shapes}. A component of an array is an index: into=0."
        ) from error


def _added(y: PyTree, path: tuple, amount: PyTree, into: Hashable) -> PyTree:
    """`y` with the amount added at the end of the path."""
    try:
        if hasattr(y, "at"):
            np.broadcast_to(0, y.shape)[path]  # JAX would drop what is added out of bounds
            return y.at[path].add(amount)
        if not path:
            return jax.tree.map(jnp.add, y, amount)
        key, rest = path[0], path[1:]
        if isinstance(y, dict):
            return {**y, key: _added(y[key], rest, amount, into)}
        if isinstance(key, str):
            inner = _added(getattr(y, key), rest, amount, into)
            return eqx.tree_at(lambda tree: getattr(tree, key), y, inner)
        parts = list(y)
        parts[key] = _added(parts[key], rest, amount, into)
        return type(y)(*parts) if hasattr(y, "_fields") else type(y)(parts)
    except (LookupError, AttributeError, TypeError) as error:
        shapes = jax.tree.map(jnp.shape, y)
        count = any(isinstance(x, (int, np.integer)) for x in path)
        hint = " Indices start at 0: of NONMEM's CMT give cmt - 1." if count else ""
        raise TypeError(f"into is {into!r}; y has no such component: {shapes}.{hint}") from error


def _check_function(name: str, f: Any, arguments: str, *, optional: bool = False) -> Callable:
    if callable(f):
        return f
    wanted = f"a function {name}({arguments}) is wanted" + (", or None" if optional else "")
    raise TypeError(f"{name} is {f!r}; {wanted}.")


def _check_affect(affect: Any) -> Callable | None:
    if affect is None:
        return None
    return _check_function("affect", affect, "t, y, args", optional=True)


def _check_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; True, False or None is wanted.")
    return value


def _event_direction(direction: Any) -> int | tuple[int, ...]:
    values = (
        np.asarray(direction) if isinstance(direction, (int, tuple, list, np.ndarray)) else None
    )
    if values is None or values.ndim > 1 or not np.isin(values, (-1, 0, 1)).all():
        raise ValueError(f"direction is {direction!r}; −1, 0 or 1 is wanted.")
    return int(values) if values.ndim == 0 else tuple(int(d) for d in values)


def _list_as_array(x: PyTree) -> PyTree:
    return jnp.asarray(x) if isinstance(x, (list, tuple)) else x


def _check_event_times(times: Any) -> Any:
    if callable(times) and not hasattr(times, "shape"):
        return times
    try:
        times = _list_as_array(times)
        dtype = jnp.result_type(times)
    except (TypeError, ValueError) as error:
        raise TypeError(f"times is {times!r}; a sequence of numbers is wanted.") from error
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise TypeError(f"times has dtype {dtype}; real numbers are wanted.")
    if np.ndim(times) != 1:
        raise ValueError(f"times has shape {np.shape(times)}; a sequence of times is wanted.")
    return times


def _positive(x: Any, *, zero: bool = False) -> bool:
    """True if x is a positive number, as far as that is known."""
    if isinstance(x, Tracer):
        return x.ndim == 0
    try:
        number = np.asarray(x, float)
    except (TypeError, ValueError):
        return False
    return number.ndim == 0 and bool(np.isfinite(number) and (number > 0 or (zero and number == 0)))
