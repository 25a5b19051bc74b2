"""Scalarised arrays: their numbers, each of them known or a vector over lanes.

An array of shape s is a NumPy array of shape s. If all of its numbers are known while tracing it is
one of numbers, and operations on it are evaluated then. Else it is one of objects, and each entry
is

* a NumPy number, which is known;
* a traced number without axes, common to all lanes; or
* a traced vector (lanes,). (Arrays that are spread over threads, `tiles.py`, have blocks (lines,
  lanes).)

So an operation on shapes is NumPy's own, whatever the entries are, and costs nothing in the
compiled program. An entry of an array of keys is a `KeyWords`, the tuple of its words.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

__all__ = [
    "Entry",
    "Ints",
    "KeyWords",
    "NoKernel",
    "Number",
    "apply",
    "at_once",
    "broadcast_entries",
    "broadcast_entry",
    "entry_array",
    "full_array",
    "index_array",
    "is_known_entry",
    "map_entries",
    "objects",
    "select",
    "select_entry",
    "squeeze_broadcast",
]


class NoKernel(Exception):
    """The reason why a program cannot be a kernel, with the primitive and the line of user code."""

    def __init__(self, reason: str, primitive: str = "", line: str = "") -> None:
        super().__init__(reason, primitive, line)
        self.reason, self.primitive, self.line = reason, primitive, line

    def __str__(self) -> str:
        where = f" ({self.line})" if self.line else ""
        return f"{self.primitive}{where}: {self.reason}" if self.primitive else self.reason


type Ints = Sequence[int | np.integer]
"""A shape, sizes or axes among the parameters of an equation, where NumPy's integers stay."""

type Number = np.generic | Array
"""A number of every lane: known while tracing, or traced, common to all lanes or a vector."""


class KeyWords(tuple[Number, ...]):
    """The words of a key, each a number."""

    __slots__ = ()


type Entry = Number | KeyWords


def is_known_entry(entry: Entry) -> TypeGuard[np.generic]:
    """True if an entry is known while tracing."""
    return isinstance(entry, np.generic)


def objects(x: np.ndarray) -> np.ndarray:
    """The array as an array of entries (objects)."""
    if x.dtype == object:
        return x
    out = np.empty(x.shape, object)
    for i in np.ndindex(x.shape):
        out[i] = x[i]
    return out


def squeeze_broadcast(x: np.ndarray) -> np.ndarray:
    """The array, with length one along the axes that a broadcast has added or repeated."""
    return x[(*(slice(0, 1) if s == 0 else slice(None) for s in x.strides), ...)]


def entry_array(entry: Entry) -> np.ndarray:
    """An array without axes of one entry."""
    if is_known_entry(entry):
        return np.asarray(entry)
    out = np.empty((), object)
    out[()] = entry
    return out


def full_array(shape: Ints, entry: Entry) -> np.ndarray:
    """An array that repeats one entry."""
    return np.broadcast_to(entry_array(entry), tuple(map(int, shape)))


def index_array(x: np.ndarray, index: int | tuple[int | slice, ...]) -> np.ndarray:
    """`x[index]`, also where that is a single entry."""
    found: Any = x[index]
    return found if isinstance(found, np.ndarray) else entry_array(found)


def map_entries(function: Callable, *xs: np.ndarray) -> np.ndarray:
    """The function of the entries of arrays that have one shape."""
    wide = [objects(x) for x in xs]
    out = np.empty(wide[0].shape, object)
    for i in np.ndindex(out.shape):
        out[i] = function(*(x[i] for x in wide))
    return out


# --- operations on entries ------------------------------------------------------------------------

# Operations that NumPy evaluates as XLA does; others on known values are compiled by XLA.
_FOLDS: dict[str, Callable] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "abs": np.abs,
    "max": np.maximum,
    "min": np.minimum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "is_finite": np.isfinite,
    "sqrt": np.sqrt,
    "stop_gradient": lambda x: x,
    "copy": lambda x: x,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "select_n": lambda which, *cases: np.choose(which.astype(int), cases),
}

_PRIMITIVES = {
    "add": lax.add_p, "and": lax.and_p, "div": lax.div_p, "eq": lax.eq_p, "ge": lax.ge_p,
    "gt": lax.gt_p, "le": lax.le_p, "lt": lax.lt_p, "max": lax.max_p, "min": lax.min_p,
    "mul": lax.mul_p, "ne": lax.ne_p, "not": lax.not_p, "or": lax.or_p, "sub": lax.sub_p,
    "xor": lax.xor_p,
}  # fmt: skip


_EXTREMES = {"max": "ge", "min": "le"}


def apply(name: str, *entries: Number) -> Number:
    """Applies the operation of this name to entries of one type. The larger (smaller) of two
    numbers is NaN if one of them is, unlike Triton's own.
    """
    if name in _EXTREMES and jnp.issubdtype(entries[0].dtype, jnp.inexact):
        x, y = entries
        return select(apply("or", apply(_EXTREMES[name], x, y), apply("ne", x, x)), x, y)
    return apply_operation(name, lambda *xs: _PRIMITIVES[name].bind(*xs), entries)


def apply_operation(name: str, bind: Callable[..., Array], entries: Sequence[Number]) -> Number:
    """Evaluates `bind(*entries)`, an operation on numbers, with lanes where any of them has."""
    if all(map(is_known_entry, entries)):
        return fold_operation(name, bind, [np.asarray(x) for x in entries]).flat[0]
    short = _simplified(name, entries)
    return bind(*broadcast_entries(entries)) if short is None else short


def fold_operation(name: str, bind: Callable[..., Array], xs: Sequence[np.ndarray]) -> np.ndarray:
    """Evaluates an operation on known arrays while tracing."""
    if name in _FOLDS and len({x.dtype for x in xs[1:]}) < 2:
        with np.errstate(all="ignore"):
            return np.asarray(_FOLDS[name](*xs))
    with at_once():
        return np.asarray(bind(*map(jnp.asarray, xs)))


@contextmanager
def at_once() -> Iterator[None]:
    """A context in which operations on known values are evaluated while tracing: on the host, if
    JAX may use it.
    """
    try:
        host = jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        host = nullcontext()
    with jax.ensure_compile_time_eval(), host:
        yield


def broadcast_entries(entries: Sequence[Number]) -> list[Number]:
    """Broadcasts entries to one shape: vectors over lanes if any is one, or blocks (`tiles.py`)."""
    shape = np.broadcast_shapes(*map(np.shape, entries))
    return [x if np.shape(x) == shape else broadcast_entry(x, shape) for x in entries]


def broadcast_entry(entry: Number, shape: Sequence[int]) -> Array:
    """Broadcasts an entry to this shape."""
    return jnp.broadcast_to(np.asarray(entry) if isinstance(entry, np.generic) else entry, shape)


def _simplified(name: str, entries: Sequence[Number]) -> Number | None:
    """The result of an operation that follows from one known operand; None where there is none."""
    if name == "select_n":
        which, *cases = entries
        if is_known_entry(which):
            return cases[int(which)]
        return cases[0] if all(case is cases[0] for case in cases) else None
    if name in ("and", "or") and any(is_known_entry(x) and x.dtype == bool for x in entries):
        known, other = entries if is_known_entry(entries[0]) else entries[::-1]
        absorbs = bool(known) is (name == "or")
        return known if absorbs else other
    if name == "mul" and any(is_known_entry(x) and x == 1 for x in entries):
        return entries[1] if is_known_entry(entries[0]) and entries[0] == 1 else entries[0]
    return None


def select(which: Number, yes: Number, no: Number) -> Number:
    """`yes` where a boolean holds, else `no`."""
    return yes if yes is no else apply_operation("select_n", lax.select_n_p.bind, (which, no, yes))


def select_entry(which: Number, yes: Entry, no: Entry) -> Entry:
    """`yes` where a boolean holds, else `no`; of keys, word by word."""
    if yes is no:
        return yes
    if isinstance(yes, KeyWords) and isinstance(no, KeyWords):
        return KeyWords(select(which, a, b) for a, b in zip(yes, no, strict=True))
    assert not isinstance(yes, KeyWords)
    assert not isinstance(no, KeyWords)
    return select(which, yes, no)
