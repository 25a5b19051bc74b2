"""`trace_once`: a function that is traced once, and whose equations are replayed."""

from collections.abc import Callable, Hashable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core.packing import TreeDef
from .jax_internals import Jaxpr, evaluate, shape_of

__all__ = ["once_traced", "trace_once"]


def trace_once(cache: dict, key: Hashable, function: Callable, *args: PyTree) -> PyTree:
    """`function(*args)`, traced once for these shapes; later calls replay its equations.

    Replaying costs a tenth of tracing, and a step is wanted in the loop, in its taped twin, in
    their tangents and transposes. `function` must not close over tracers.
    """
    leaves, tree = jax.tree.flatten(args)
    avals = [shape_of(jnp.asarray(x)) for x in leaves]
    key = (key, tree, tuple((a.shape, a.dtype) for a in avals))
    if key not in cache:
        cache[key] = once_traced(lambda xs: function(*jax.tree.unflatten(tree, xs)), avals)
    jaxpr, out = cache[key]
    leaves = [jnp.asarray(x, a.dtype) for x, a in zip(leaves, avals, strict=True)]
    return jax.tree.unflatten(out, evaluate(jaxpr, leaves))


def once_traced(function: Callable, avals: Sequence) -> tuple[Jaxpr, TreeDef]:
    """The jaxpr of a function of a list of arrays, and the tree of what it returns."""
    jaxpr, shape = jax.make_jaxpr(function, return_shape=True)([shape_of(a) for a in avals])
    return jaxpr, jax.tree.structure(shape)
