"""`captured_call`: a call whose functions are programs, traced now.

The user's functions (fields, conditions, affects, what is saved) are traced when a call is made, so
that a call returns what a fresh trace would return. What is compiled evaluates what was traced, and
is compiled again where that is another program.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

from .closures import Captured, captured, code_of, is_numeric, no_writes, reading_of
from .core.packing import Packing, moving_leaves, released
from .core.promotion import given_promotion
from .core.user_functions import annotate_errors, check_arguments
from .events import AbstractEvent, AfterStep, Event, Periodic, PresetTimes
from .integrator.call import Call
from .interp.base import InputFunction
from .problems import Problem, Separable
from .problems.base import evaluated
from .problems.dde import depends_on_state
from .problems.jump import Jump, rate_varies
from .problems.lowering import initial_tree, names_of, time_dtype

__all__ = ["captured_call", "captured_problem"]


def captured_call(call: Call) -> Call:
    """The call with programs in place of functions."""
    sees = _Arguments(call.problem)
    names = [event.label or f"events[{i}]" for i, event in enumerate(call.events)]
    named = zip(call.events, names, strict=True)
    return call._replace(
        problem=_with_programs(call.problem, sees, call.key),
        events=tuple(_event(event, name, sees) for event, name in named),
        save=_saved(call.save, sees),
        code=(code_of(call.method, call.controller), given_promotion()),
    )


def captured_problem(problem: Problem) -> Problem:
    """The problem with programs in place of functions."""
    return _with_programs(problem, _Arguments(problem), None)


class _Arguments:
    """The arguments of a problem's functions, by the names in its documentation: t, y (x and v, q
    and p), dy, args.
    """

    def __init__(self, problem: Problem) -> None:
        plain = problem.without_jumps
        state, args = initial_tree(plain), plain.args
        ends = [evaluated(t, args) for t in evaluated(plain.tspan, args)]
        t0 = jax.ShapeDtypeStruct((), time_dtype(ends, Packing(state).dtype))
        tree, names = released(state), names_of(plain)
        self.named = {"t": t0, "y": tree, "dy": moving_leaves(state), "args": args}
        if len(names) == 2:
            position, velocity = tree
            self.named |= {"x": position, "v": velocity, "q": position, "p": velocity}

    def captured(self, f: Callable, name: str, arguments: str, *extra: PyTree) -> Captured:
        """A function as a program; `extra` is what it is called with behind `arguments`."""
        letters = arguments.split(", ")
        if letters[0] == "t":
            check_arguments(f, name, arguments)
        known = [self.named[letter] for letter in letters if letter in self.named]

        @contextmanager
        def guard(*args: PyTree) -> Iterator[None]:
            with ExitStack() as stack:
                stack.enter_context(no_writes(name, f, args))
                stack.enter_context(annotate_errors(name, arguments, *args))
                yield

        return captured(f, *known, *extra, guard=guard, name=name)

    def of_args(self, value: PyTree, name: str) -> PyTree:
        """A value; or where it is a function of args, that as a program."""
        if isinstance(value, (tuple, list)):
            parts = [self.of_args(x, name) for x in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        is_function = callable(value) and not hasattr(value, "shape")
        return self.captured(value, name, "args") if is_function else value


def _saved(save: Callable | dict | None, sees: _Arguments) -> Callable | dict | None:
    if isinstance(save, dict):
        return {key: _saved(f, sees) for key, f in save.items()}
    return save if save is None else sees.captured(save, "save", "t, y, args")


def _arrays(args: PyTree) -> PyTree:
    """Args without the functions in them: what those do is in the programs that saw them."""
    return jax.tree.map(lambda x: x if is_numeric(x) else None, args)


# --- problems -------------------------------------------------------------------------------------


def _with_programs(problem: Problem, sees: _Arguments, key: Array | None) -> Problem:
    changes = {name: _field(problem, name, sees, key) for name in problem.fields if name != "args"}
    return problem.replace(**changes, args=_arrays(problem.args))


# Fields that may be functions or data.
_OPTIONAL = {"jac": "t, y, args", "history": "t, args"}


def _field(problem: Problem, name: str, sees: _Arguments, key: Array | None) -> Any:
    """One field of a problem; of one that jumps, the equation and the jumps."""
    value: Any = getattr(problem, name)
    if isinstance(value, Problem):
        return _with_programs(value, sees, key)
    if name == "jumps":
        return tuple(_jump(jump, f"jumps[{j}]", sees, key) for j, jump in enumerate(value))
    arguments = problem.functions.get(name) or _OPTIONAL.get(name)
    if isinstance(value, Separable):
        parts = value.functions.items()
        return Separable(*(sees.captured(getattr(value, k), k, words) for k, words in parts))
    if name == "lags" and depends_on_state(value):
        arguments = "t, y, args"
    if name == "control" and isinstance(value, InputFunction):
        return value  # data: it knows its own derivative, and where that jumps
    if arguments is None or not callable(value):
        return sees.of_args(value, name)
    return _with_past(value) if "past" in arguments else sees.captured(value, name, arguments)


def _with_past(f: Callable) -> Callable:
    """A field that sees its past, which exists in the loop alone: the field is traced there. One
    that may read what cannot be compared is another function in each call.
    """
    return f if reading_of(f).certain else partial(f)


def _jump(jump: Jump, name: str, sees: _Arguments, key: Array | None) -> Jump:
    """A jump at random; its affect sees which channel it was, and what else is drawn."""
    if rate_varies(jump.rate):
        rate = sees.captured(jump.rate, f"{name}.rate", "t, y, args")
    else:
        rate = sees.of_args(jump.rate, f"{name}.rate")
    count = _length(rate.returned if isinstance(rate, Captured) else rate)
    arguments, extra, mark = "t, y, args", [], jump.mark
    if count is not None:
        arguments += ", fired"
        extra.append(jax.ShapeDtypeStruct((count,), bool))
    if mark is not None:
        mark = captured(mark, key)
        arguments += ", mark"
        extra.append(mark.returned)
    affect = sees.captured(jump.affect, f"{name}.affect", arguments, *extra)
    return Jump(rate, affect, mark=mark)


# --- events ---------------------------------------------------------------------------------------


def _event(event: AbstractEvent, name: str, sees: _Arguments) -> AbstractEvent:
    """An event of the user's."""
    new: Any = copy.copy(event)
    extra: list = []
    if isinstance(new, (Event, AfterStep)):
        condition = sees.captured(new.condition, f"{name}.condition", "t, y, args")
        new.condition = condition
        count = _length(condition.returned)
        extra = [] if count is None else [jax.ShapeDtypeStruct((count,), bool)]
    elif isinstance(new, PresetTimes):
        new.times = sees.of_args(new.times, f"{name}.times")
        new.data = sees.of_args(new.data, f"{name}.data")
        data = new.data.returned if isinstance(new.data, Captured) else new.data
        extra = [] if data is None else [jax.tree.map(_row_of, data)]
    elif isinstance(new, Periodic):
        new.period = sees.of_args(new.period, f"{name}.period")
        new.phase = sees.of_args(new.phase, f"{name}.phase")
    if new.affect is not None:
        words = "t, y, args" + (", fired" if isinstance(new, Event) else ", row")
        arguments = words if extra else "t, y, args"
        new.affect = sees.captured(new.affect, f"{name}.affect", arguments, *extra)
    return new


def _length(shape: PyTree) -> int | None:
    """The number of values that a condition returns, if it returns a vector."""
    if isinstance(shape, (list, tuple)):
        return len(shape)
    sizes = getattr(shape, "shape", ())
    return sizes[0] if len(sizes) == 1 else None


def _row_of(rows: ArrayLike | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(rows)[1:], jnp.result_type(rows))
