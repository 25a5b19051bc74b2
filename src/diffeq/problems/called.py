"""How a user's functions are called, and what to say when they cannot be, or fail when they are."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jax import errors

__all__ = ["check_arguments", "described", "noted", "paired", "takes"]

_BRANCHES = (
    "{name} is compiled: Python cannot branch (if, while, and, or, max) on what is not known yet. "
    "Write jnp.where(condition, a, b) or jax.lax.cond; and if {name} jumps at a known time, give "
    "that time to solve as stops=."
)
_NUMBERS = (
    "{name} is compiled: t, y and args are no Python numbers there. Use jax.numpy for numpy and "
    "math, and leave out float(…), int(…) and .item()."
)
_ORDER = "{name} is called as {name}({arguments}), t first; here {given}."

_NOTES: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((errors.TracerBoolConversionError,), _BRANCHES),
    (
        (
            errors.ConcretizationTypeError,
            errors.TracerArrayConversionError,
            errors.TracerIntegerConversionError,
        ),
        _NUMBERS,
    ),
    ((TypeError, ValueError, LookupError, AttributeError), _ORDER),
)


def takes(f: Any, name: str, counts: tuple[int, ...], wanted: str) -> int | None:
    """The first of these numbers of arguments that f can be called with; None where f does not say.

    >>> takes(lambda t, y, args: y, "rate", (3, 1), "a number is wanted.")
    3
    """
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):
        return None
    for count in counts:
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return count
    raise TypeError(f"{name}{signature} cannot be called; {wanted}")


def check_arguments(f: Any, name: str, arguments: str) -> None:
    """Refuses an f that cannot be called with these, or whose t is not the first of them.

    >>> check_arguments(lambda y, t, args: -y, "f", "t, y, args")
    Traceback (most recent call last):
    TypeError: f(y, t, args) does not have t first, but is called as f(t, y, args). Change ...
    """
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):
        return
    wanted = f"{name}({arguments})"
    try:
        bound = signature.bind(*arguments.split(", ")).arguments
    except TypeError as error:
        raise TypeError(
            f"{name}{signature} cannot be called as {wanted}, which is how solve calls it: t "
            "first, and args last also when it is not used."
        ) from error
    if bound.get("t", "t") != "t":
        raise TypeError(
            f"{name}{signature} does not have t first, but is called as {wanted}. Change the "
            "order of its arguments; or, if its t is no time, that name."
        )


@contextmanager
def noted(name: str, arguments: str, *given: Any) -> Iterator[None]:
    """Adds to an error of what runs inside, a call of `name`, what may have been meant."""
    try:
        yield
    except Exception as error:
        note = next((text for kinds, text in _NOTES if isinstance(error, kinds)), None)
        if note is not None:
            pairs = zip(arguments.split(", "), map(described, given), strict=False)
            shown = ", ".join(f"{letter} is {value}" for letter, value in pairs)
            error.add_note(note.format(name=name, arguments=arguments, given=shown))
        raise


def paired(value: Any, like: Any) -> Iterator[tuple[str, Any, Any]]:
    """The leaves of two trees of one structure side by side, and where: " at ['x']", or "".

    >>> list(paired({"x": 1.0}, {"x": 2.0}))
    [(" at ['x']", 1.0, 2.0)]
    """
    leaves = zip(jax.tree.flatten_with_path(value)[0], jax.tree.leaves(like), strict=True)
    for (path, new), old in leaves:
        where = jax.tree_util.keystr(path)
        yield f" at {where}" if where else "", new, old


def described(tree: Any) -> str:
    """A tree by the dtypes and shapes of its leaves.

    >>> described({"x": jnp.zeros(2)})
    '{x: float32[2]}'
    """
    shapes = jax.tree.map(lambda x: f"{jnp.result_type(x)}{list(jnp.shape(x))}", tree)
    return str(shapes).replace("'", "")
