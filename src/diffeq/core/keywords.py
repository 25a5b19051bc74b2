"""`keywords`: a function that says of an argument that it does not know which one may be meant."""

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence

__all__ = ["keywords", "unknown"]

# Names that other packages use, and ours for the same: the first of them that a function has.
_MEANT: dict[str, tuple[str, ...]] = {
    "t_eval": ("saveat",), "ts": ("saveat",), "t": ("saveat", "tspan"),
    "dense_output": ("dense",), "first_step": ("dt0",), "max_step": ("controller",),
    "stages": ("method",), "linear": ("method",),
    "step_size": ("dt",), "solver": ("method", "optimizer"), "alg": ("method",),
    "stepsize_controller": ("controller",), "tstops": ("stops",), "reltol": ("rtol",),
    "abstol": ("atol",), "maxiters": ("max_steps", "steps"), "sensealg": ("adjoint",),
    "callback": ("events",), "seed": ("key",), "rng": ("key",), "trajectories": ("n",),
    "args": ("args", "problem"), "y0": ("y0", "problem"), "u0": ("y0", "x0", "q0", "problem"),
    "tspan": ("tspan", "problem"), "t_span": ("tspan", "problem"), "p": ("args", "problem"),
    "params": ("args", "problem"), "theta": ("args", "problem"), "terms": ("problem",),
    "fun": ("f", "drift", "problem"), "func": ("f", "drift", "problem"),
    "f": ("drift", "residual", "hamiltonian", "problem"), "rhs": ("f", "problem"),
    "vector_field": ("f", "drift", "problem"), "jacobian": ("jac",), "g": ("diffusion",),
    "mass": ("mass_matrix",), "M": ("mass_matrix",), "tau": ("lags",), "delays": ("lags",),
    "h": ("history",), "yp0": ("dy0",), "max_dt": ("dtmax",), "min_dt": ("dtmin",),
    "factormin": ("shrink",), "factormax": ("grow",), "optim": ("optimizer",),
    "optimiser": ("optimizer",), "opt": ("optimizer",), "lr": ("optimizer",),
    "learning_rate": ("optimizer",), "batch": ("batch_size",), "epochs": ("steps",),
    "n_steps": ("steps",), "num_steps": ("steps",), "iterations": ("steps",), "dataset": ("data",),
    "x": ("data",), "loss_fn": ("loss",), "objective": ("loss",), "verbose": ("progress",),
    "dose": ("amounts",), "amount": ("amounts",), "cmt": ("into",), "duration": ("durations",),
}  # fmt: skip
# The arguments of `solve`, once it is decorated: they are looked for elsewhere, too.
_of_solve: list[str] = []


def keywords[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Returns the function (or `__init__` of a class), which refuses names that it does not know
    and arguments that have to be named, with a suggestion of those that may be meant.

    >>> @keywords
    ... def solve(problem, method=None, *, saveat=None): return problem
    >>> solve(1, t_eval=2)
    Traceback (most recent call last):
    TypeError: solve got 't_eval', which it does not know; it takes problem, ... Is saveat meant?
    """
    parameters = tuple(inspect.signature(function).parameters.values())
    bound = parameters[:1] != () and parameters[0].name == "self"
    named = [p for p in parameters[bound:] if p.kind is not p.VAR_KEYWORD]
    known = tuple(p.name for p in named)
    others = len(named) < len(parameters[bound:])  # it takes any name
    placed = tuple(p.name for p in named if p.kind is p.POSITIONAL_OR_KEYWORD)
    needed = {p.name for p in named if p.kind is p.KEYWORD_ONLY and p.default is p.empty}

    if function.__name__ == "solve" and not _of_solve:  # there is one for torch, too
        _of_solve[:] = known

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        name = type(args[0]).__name__ if bound else function.__name__
        for option in options:
            if option not in known and not others:
                raise TypeError(unknown(name, option, known))
        if len(args) - bound > len(placed):
            raise TypeError(_unnamed(name, args[bound + len(placed)], placed, known))
        for missing in sorted(needed - options.keys()):
            raise TypeError(f"{name} needs {missing}=, by that name.")
        return function(*args, **options)

    return checked


def unknown(function: str, name: str, known: Sequence[str]) -> str:
    """A sentence on a name that a function does not know, with the one that may be meant."""
    same = [ours for ours in _MEANT.get(name, ()) if ours in known]
    near = [*same, *difflib.get_close_matches(name, known, 1)]
    ours = [x for x in (name, *_MEANT.get(name, ())) if x in _of_solve]
    if near:
        ask = f" Is {near[0]} meant?"
    else:
        ask = f" {ours[0]} is an argument of solve." if ours and function != "solve" else ""
    return f"{function} got {name!r}, which it does not know; it takes {', '.join(known)}.{ask}"


def _unnamed(function: str, value: object, placed: Sequence[str], known: Sequence[str]) -> str:
    shown = f"the class {value.__name__}" if inspect.isclass(value) else repr(value)
    shown = shown.replace("\n", " ")
    shown = shown if len(shown) < 80 else shown[:77] + "…"
    named = ", ".join(f"{x}=" for x in known if x not in placed)
    wanted = f"gets its other arguments by name: {named}" if named else "takes no more"
    first = f"{', '.join(placed)} in this order" if placed else "nothing without a name"
    return f"{function} got {shown} after {first}, and {wanted}."
