"""Calls of a user's functions, and messages where they cannot be called, or fail when they are."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
from jax import errors
from jaxtyping import PyTree

__all__ = [
    "accepts",
    "annotate_errors",
    "check_arguments",
    "check_numbers",
    "described",
    "is_of_torch",
    "paired_leaves",
]

_BRANCHES = (
    "{name} is compiled: Python cannot branch (if, while, and, or, max) on what is not known yet. "
    "Write jnp.where(condition, a, b) or jax.lax.cond; and if it is a field that jumps at a known "
    "time, give that time to solve as stops=."
)
_NUMBERS = (
    "{name} is compiled: its arguments ({arguments}) are no Python numbers there. Use jax.numpy "
    "for numpy and math (jnp.sin(y) for np.sin(y) and math.sin(y)), and leave out float(…), int(…) "
    "and .item()."
)
_ORDER = "{name} is called as {name}({arguments}), t first; here {given}."
_TENSORS = (
    "{name} is called with arrays of JAX, which torch cannot take: solve by diffeq.torch, which "
    "turns functions of torch into JAX, or write it with jax.numpy."
)
_OTHERS = (TypeError, ValueError, LookupError, AttributeError)


def accepts(f: Callable, name: str, counts: tuple[int, ...], wanted: str) -> int | None:
    """The first of these numbers of arguments that f can be called with; None where f does not say.

    >>> accepts(lambda t, y, args: y, "rate", (3, 1), "a number is wanted.")
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


def check_arguments(f: Callable, name: str, arguments: str) -> None:
    """Refuses an f that cannot be called with these, or whose t is not the first of them.

    >>> check_arguments(lambda y, t, args: -y, "f", "t, y, args")
    Traceback (most recent call last):
    TypeError: f(y, t, args) does not have t first, but is called as f(t, y, args). Change ...
    """
    if inspect.isclass(f):
        raise TypeError(
            f"{name} is the class {f.__name__}; an instance is wanted, {f.__name__}(…), which is "
            f"called as {name}({arguments})."
        )
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):
        return
    wanted = f"{name}({arguments})"
    try:
        bound = signature.bind(*arguments.split(", ")).arguments
    except TypeError as error:
        raise TypeError(
            f"{name}{signature} cannot be called as {wanted}. It gets each of these, in this "
            "order, also one that it does not use."
        ) from error
    if bound.get("t", "t") != "t":
        raise TypeError(
            f"{name}{signature} does not have t first, but is called as {wanted}. Change the "
            "order of its arguments; or, if its t is no time, that name."
        )


@contextmanager
def annotate_errors(name: str, arguments: str, *given: PyTree) -> Iterator[None]:
    """Adds to an error of what runs inside, a call of `name`, what may have been meant."""
    try:
        yield
    except Exception as error:
        for note in _notes(error, dict(zip(arguments.split(", "), given, strict=False))):
            error.add_note(
                note.format(
                    name=name, arguments=arguments, given=_describe_arguments(given, arguments)
                )
            )
        raise


def _notes(error: Exception, given: dict[str, PyTree]) -> Iterator[str]:
    """Yields the likely causes of an error, in the order of how sure they are."""
    if isinstance(error, errors.TracerBoolConversionError):
        yield _BRANCHES
    elif isinstance(
        error,
        (
            errors.ConcretizationTypeError,
            errors.TracerArrayConversionError,
            errors.TracerIntegerConversionError,
        ),
    ):
        yield _NUMBERS
    elif "torch" in str(error) or is_of_torch(error):
        yield _TENSORS
    elif given and isinstance(error, _OTHERS):
        yield from _missing(error, given)
        yield _ORDER


def _missing(error: Exception, given: dict[str, PyTree]) -> Iterator[str]:
    """Yields the names that there are, where the error is that a name is not there."""
    if isinstance(error, KeyError):
        for letter, value in given.items():
            if isinstance(value, dict):
                keys = ", ".join(map(repr, value)) or "no keys"
                yield f"The keys of {letter} are {keys}.".replace("{", "{{").replace("}", "}}")
    if "args" in given and given["args"] is None and "NoneType" in str(error):
        yield "args is None, since the problem has none: give it its parameters, args=…."
    trees = [k for k, x in given.items() if k not in ("t", "args") and isinstance(x, (list, dict))]
    if trees and "operand" in str(error):
        yield (
            f"{trees[0]} is a {type(given[trees[0]]).__name__} there, a tree as y0 is, and Python "
            "has no arithmetic of these: give one array as y0, such as jnp.array(y0) where its "
            "rows are equally long, or compute each part (jax.tree.map)."
        )


def _describe_arguments(given: tuple, arguments: str) -> str:
    pairs = zip(arguments.split(", "), given, strict=False)
    return ", ".join(
        "past is called with a time" if letter == "past" else f"{letter} is {described(value)}"
        for letter, value in pairs
    )


def is_of_torch(x: PyTree) -> bool:
    """True if x is an object of torch, which need not be installed.

    >>> is_of_torch(jnp.zeros(2))
    False
    """
    return any(c.__module__.split(".")[0] == "torch" for c in type(x).__mro__)


def check_numbers(name: str, value: PyTree) -> None:
    """Refuses what is not made of numbers, in what a function returned.

    >>> check_numbers("f", "a word")
    Traceback (most recent call last):
    TypeError: f returned the string 'a word'; numbers are wanted.
    """
    if value is None:
        raise TypeError(f"{name} returned None; numbers are wanted: is its return left out?")
    for path, leaf in jax.tree.flatten_with_path(value, is_leaf=lambda x: x is None)[0]:
        keys = jax.tree_util.keystr(path)
        where = f" at {keys}" if keys else ""
        if is_of_torch(leaf):
            raise TypeError(
                f"{name} returned a torch {type(leaf).__name__}{where}; arrays of JAX are wanted: "
                "write it with jax.numpy, through which JAX can differentiate, or solve by "
                "diffeq.torch."
            )
        if isinstance(leaf, str):
            raise TypeError(f"{name} returned the string {leaf!r}{where}; numbers are wanted.")
        if callable(leaf):
            raise TypeError(
                f"{name} returned the function {getattr(leaf, '__name__', leaf)}{where}; numbers "
                "are wanted: is it to be called?"
            )
        dtype = getattr(leaf, "dtype", None)
        if isinstance(leaf, bool) or (dtype is not None and jnp.issubdtype(dtype, jnp.bool)):
            raise TypeError(
                f"{name} returned {leaf if isinstance(leaf, bool) else 'booleans'}{where}; numbers "
                "are wanted: jnp.where(condition, a, b) makes them."
            )


def paired_leaves(value: PyTree, like: PyTree) -> Iterator[tuple[str, PyTree, PyTree]]:
    """The leaves of two trees of one structure side by side, and where: " at ['x']", or "".

    >>> list(paired_leaves({"x": 1.0}, {"x": 2.0}))
    [(" at ['x']", 1.0, 2.0)]
    """
    leaves = zip(jax.tree.flatten_with_path(value)[0], jax.tree.leaves(like), strict=True)
    for (path, new), old in leaves:
        where = jax.tree_util.keystr(path)
        yield f" at {where}" if where else "", new, old


def described(tree: PyTree) -> str:
    """A tree by the dtypes and shapes of its leaves.

    >>> described({"x": jnp.zeros(2)})
    '{x: float32[2]}'
    """
    return str(jax.tree.map(_type_name, tree)).replace("'", "")


def _type_name(x: PyTree) -> str:
    try:
        return f"{jnp.result_type(x)}{list(jnp.shape(x))}"
    except TypeError:
        return type(x).__name__
