"""Words: unknown keywords, whether numbers are known, and how values are shown."""

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.primitive import Tracer

__all__ = ["concrete", "digits_of", "is_real", "keywords", "shown"]

# What others call it.
_MEANT = {
    "t_eval": "saveat", "dense_output": "dense", "first_step": "dt0", "max_step": "controller",
    "solver": "method", "alg": "method", "stepsize_controller": "controller", "tstops": "stops",
    "reltol": "rtol", "abstol": "atol", "maxiters": "max_steps", "sensealg": "adjoint",
    "args": "problem", "y0": "problem", "t_span": "problem", "tspan": "problem", "p": "problem",
}  # fmt: skip


def keywords[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """The same function, which says of a keyword that it does not know what may be meant."""
    known = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        for name in options:
            if name not in known:
                raise TypeError(_unknown(function.__name__, name, known))
        return function(*args, **options)

    return checked


def _unknown(function: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    meant = _MEANT.get(name) or (near[0] if near else "")
    ask = f" Is {meant} meant?" if meant in known else ""
    return f"{function} got {name!r}, which it does not know; it takes {', '.join(known)}.{ask}"


def concrete(x: Any) -> bool:
    """Whether a tree's numbers are known now."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(x))


def is_real(x: Any) -> bool:
    """Whether x is a real number, or an array of them: no string, no bool, nothing complex."""
    dtype = x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def digits_of(t: float) -> str:
    """All digits that tell a time from its neighbours, and no more: 1, not 1.0."""
    return repr(float(t)).removesuffix(".0")


def shown(x: Any) -> str:
    """A value as a sentence shows it."""
    if inspect.isclass(x):
        return f"the class {x.__name__}"
    text = repr(x).replace("\n", " ")
    return text if len(text) < 80 else text[:77] + "…"
