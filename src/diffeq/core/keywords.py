"""`keywords`: a function that says of an argument that it does not know which one may be meant."""

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["keywords"]

# Names that other packages use, and ours for the same: the first of them that a function has.
_MEANT: dict[str, tuple[str, ...]] = {
    "t_eval": ("saveat",), "ts": ("saveat",), "t": ("saveat", "tspan"),
    "dense_output": ("dense",), "first_step": ("dt0",), "max_step": ("controller",),
    "step_size": ("dt",), "solver": ("method",), "alg": ("method",),
    "stepsize_controller": ("controller",), "tstops": ("stops",), "reltol": ("rtol",),
    "abstol": ("atol",), "maxiters": ("max_steps",), "sensealg": ("adjoint",),
    "callback": ("events",), "seed": ("key",), "rng": ("key",), "trajectories": ("n",),
    "args": ("args", "problem"), "y0": ("y0", "problem"), "u0": ("y0", "x0", "q0", "problem"),
    "tspan": ("tspan", "problem"), "t_span": ("tspan", "problem"), "p": ("args", "problem"),
    "params": ("args", "problem"), "theta": ("args", "problem"), "terms": ("problem",),
    "fun": ("f", "drift", "problem"), "func": ("f", "drift", "problem"),
    "f": ("drift", "residual", "hamiltonian", "problem"), "rhs": ("f", "problem"),
    "vector_field": ("f", "drift", "problem"), "jacobian": ("jac",), "g": ("diffusion",),
    "mass": ("mass_matrix",), "M": ("mass_matrix",), "tau": ("lags",), "delays": ("lags",),
    "h": ("history",), "yp0": ("dy0",), "max_dt": ("dtmax",), "min_dt": ("dtmin",),
    "factormin": ("shrink",), "factormax": ("grow",),
}  # fmt: skip
# Arguments of solve that are looked for elsewhere.
_OF_SOLVE = frozenset({
    "saveat", "save", "dense", "rtol", "atol", "dt", "dt0", "controller", "events", "stops",
    "adjoint", "max_steps", "max_saves", "max_events", "method", "key", "progress", "throw",
})  # fmt: skip


def keywords[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """The same function (or `__init__` of a class), which refuses names that it does not know and
    arguments that want a name, and says which may be meant.

    >>> @keywords
    ... def solve(problem, method=None, *, saveat=None): return problem
    >>> solve(1, t_eval=2)
    Traceback (most recent call last):
    TypeError: solve got 't_eval', which it does not know; it takes problem, ... Is saveat meant?
    """
    parameters = inspect.signature(function).parameters.values()
    bound = next(iter(inspect.signature(function).parameters), "") == "self"
    known = tuple(p.name for p in parameters if p.name != "self")
    placed = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)[bound:]

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        name = type(args[0]).__name__ if bound else function.__name__
        for option in options:
            if option not in known:
                raise TypeError(_unknown(name, option, known))
        if len(args) - bound > len(placed):
            raise TypeError(_unnamed(name, args[bound + len(placed)], placed, known))
        return function(*args, **options)

    return checked


def _unknown(function: str, name: str, known: Sequence[str]) -> str:
    same = [ours for ours in _MEANT.get(name, ()) if ours in known]
    near = [*same, *difflib.get_close_matches(name, known, 1)]
    ours = [x for x in (name, *_MEANT.get(name, ())) if x in _OF_SOLVE]
    if near:
        ask = f" Is {near[0]} meant?"
    else:
        ask = f" {ours[0]} is an argument of solve." if ours and function != "solve" else ""
    return f"{function} got {name!r}, which it does not know; it takes {', '.join(known)}.{ask}"


def _unnamed(function: str, value: Any, placed: Sequence[str], known: Sequence[str]) -> str:
    shown = f"the class {value.__name__}" if inspect.isclass(value) else repr(value)
    shown = shown.replace("\n", " ")
    shown = shown if len(shown) < 80 else shown[:77] + "…"
    named = ", ".join(f"{x}=" for x in known if x not in placed)
    wanted = f"gets its other arguments by name: {named}" if named else "takes no more"
    first = f"{', '.join(placed)} in this order" if placed else "nothing without a name"
    return f"{function} got {shown} after {first}, and {wanted}."
