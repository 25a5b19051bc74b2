"""Words: whether numbers are known, and how values are shown."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..autodiff.jax_internals import Tracer

__all__ = ["axes_of", "concrete", "is_real", "shown"]


def concrete(x: PyTree) -> bool:
    """True if the numbers of a tree are known now."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(x))


def is_real(x: Any) -> bool:
    """True if x is a real number, or an array of them: no string, no bool, nothing complex."""
    dtype = x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def axes_of(x: Any) -> int | None:
    """The number of axes of a number, an array or a list; None of a list whose rows differ in
    length, which is no array.
    """
    try:
        return np.ndim(x)
    except ValueError:
        return None


def shown(x: PyTree) -> str:
    """A value as a sentence shows it."""
    if inspect.isclass(x):
        return f"the class {x.__name__}"
    text = repr(x).replace("\n", " ")
    return text if len(text) < 80 else text[:77] + "…"
