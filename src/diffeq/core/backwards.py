"""Reverse mode through a `while` loop, which JAX does not have: an error that names the loop.

JAX finds such a loop when it transposes what is linear, far from the function that holds it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .primitive import Jaxpr, Literal, inside, user_line

__all__ = ["loops_named"]

_OF_JAX = "Reverse-mode differentiation does not work for"
_WAYS = (
    "Write it as jax.lax.scan, or as jax.lax.fori_loop between Python numbers (with jnp.where in "
    "turns that should change nothing); give the root that an iteration converges to by "
    "jax.lax.custom_root; or take forward mode, jax.jacfwd or jax.jvp, which goes through it."
)


@contextmanager
def loops_named(linear: Callable[[], tuple[Jaxpr, Sequence[bool]]]) -> Iterator[None]:
    """Within it a `while` loop that cannot be transposed is named by its line. `linear()` is what
    is transposed, and which of its inputs it is linear in.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(_OF_JAX):
            raise
        jaxpr, flags = linear()
        equation = _loop(jaxpr.jaxpr, flags)
        where = f" ({user_line(equation)})" if equation is not None else ""
        raise ValueError(
            "reverse mode (grad, vjp, jacrev) has come to a while loop in the field, or in another "
            f"function of the problem{where}: how often it turns is only known as it runs, and JAX "
            f"cannot go back through it. {_WAYS}"
        ) from error


def _loop(jaxpr: Any, flags: Sequence[bool]) -> Any:
    """The first `while` equation that depends on the flagged inputs of an open jaxpr, or None."""
    moving = {v for v, flag in zip(jaxpr.invars, flags, strict=True) if flag}
    for equation in jaxpr.eqns:
        moved = [not isinstance(v, Literal) and v in moving for v in equation.invars]
        if not any(moved):
            continue
        if equation.primitive.name == "while":
            return equation
        moving.update(equation.outvars)
        for inner in inside(equation):
            # What an equation runs has its last inputs, after an index or bounds. In a loop, what
            # is carried may depend on them from the second turn on.
            count = len(inner.invars)
            known = ([False] * count + moved)[-count:] if count else []
            found = _loop(inner, known) or _loop(inner, [True] * count)
            if found is not None:
                return found
    return None
