"""Tolerances: what they are by default, and whether they fit the state and its precision."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..core.notices import INSIDE
from ..core.packing import as_state
from ..core.user_functions import described
from ..methods import ExplicitRK
from ..methods.base import Method
from .values import concrete, is_real, shown

__all__ = [
    "below_eps",
    "check_prefix",
    "eps_of",
    "notice_precision",
    "tolerance_of",
    "tolerances_of",
]


def tolerances_of(
    rtol: PyTree, atol: PyTree, *, noisy: bool, controlled: bool
) -> tuple[PyTree, PyTree]:
    """Both, or what they are by default. With steps that are given, they say how exactly an
    implicit method solves its equations.
    """
    usual = (1e-2, 1e-2) if noisy else (1e-3, 1e-6)
    relative, absolute = usual if controlled else (1e-12, 1e-14)
    return tolerance_of("rtol", rtol, relative), tolerance_of("atol", atol, absolute)


def tolerance_of(name: str, value: PyTree, default: float) -> PyTree:
    """A tolerance, or what it is by default; refused where it is none."""
    if value is None:
        return default
    if not concrete(value):
        return value
    for leaf in jax.tree.leaves(value) or [value]:
        numbers = np.asarray(leaf)
        if not (is_real(numbers) and numbers.size) or not (numbers >= 0).all():
            raise ValueError(f"{name} is {shown(value)}; positive numbers are wanted.")
        if (name == "atol" and (numbers == 0).any()) or (
            name == "rtol" and not np.isfinite(numbers).all()
        ):
            raise ValueError(
                f"{name} is {shown(value)}; it must be positive"
                + (" and finite." if name == "rtol" else ".")
            )
    return value


def check_prefix(name: str, value: PyTree, state: PyTree) -> None:
    """A tolerance is one for all of the state, or one for each of its parts."""
    single = jax.tree_util.all_leaves([state])
    try:
        jax.tree.map(_check_fits, as_state(value) if single else value, state)
    except ValueError as error:
        raise ValueError(
            f"{name} is {shown(value)}; a number is wanted, or a prefix tree of y0, which is "
            f"{described(state)}."
        ) from error


def _check_fits(value: PyTree, part: PyTree) -> None:
    for leaf in jax.tree.leaves(part):
        if np.broadcast_shapes(np.shape(value), np.shape(leaf)) != np.shape(leaf):
            raise ValueError("is larger than the part of the state that it is for")


def eps_of(state: PyTree) -> float:
    """The rounding unit of the state."""
    return float(jnp.finfo(jnp.result_type(float, *jax.tree.leaves(state))).eps)


def below_eps(rtol: PyTree, eps: float) -> bool:
    """True if rtol is, or may be, below the precision of the state."""
    if not concrete(rtol):
        return True
    return bool(min(float(np.min(np.asarray(x))) for x in jax.tree.leaves(rtol)) < 8 * eps)


_noticed: set[str] = set()
# Σ|b|: 354 for Vern6 and 96 for Vern8, at most 13 for all others.
_LARGE = 50


def notice_precision(method: Method, rtol: PyTree, state: PyTree) -> None:
    """Says once that a tolerance is below what the state's dtype can reach (the default one is of
    bfloat16 and float16); or what it can reach with this method, whose weights multiply rounding
    errors.
    """
    if rtol is None or not concrete(rtol):
        return
    given = [x for leaf in jax.tree.leaves(rtol) for x in np.ravel(leaf) if x > 0]
    if given:
        dtype = str(jnp.result_type(float, *jax.tree.leaves(state)))
        smallest = float(min(given))
        _notice_dtype(smallest, eps_of(state), dtype)
        _notice_weights(method, smallest, eps_of(state), dtype)


def _notice_dtype(smallest: float, eps: float, dtype: str) -> None:
    if dtype in _noticed or smallest >= 4 * eps:
        return
    _noticed.add(dtype)
    if eps > 1e-5:
        way = "Give y0 in float32 for more, and cast in f where a network is to compute in less."
    elif jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        way = "Give y0 in a wider dtype for more."
    else:
        way = "jax.config.update('jax_enable_x64', True) at the start of a program gives more."
    warnings.warn(
        f"rtol is {smallest:g}, and {dtype} cannot hold an error below "
        f"{4 * eps:.2g}: steps are judged at that (sol.stats['floored'] counts them). "
        + ("" if eps < 1e-15 else way),
        skip_file_prefixes=INSIDE,
    )


def _notice_weights(method: Method, smallest: float, eps: float, dtype: str) -> None:
    if not isinstance(method, ExplicitRK):
        return
    size, name = float(np.abs(method.tableau.b).sum()), f"{method!r} in {dtype}"
    if size < _LARGE or smallest >= size * eps or name in _noticed:
        return
    _noticed.add(name)
    warnings.warn(
        f"rtol is {smallest:g}; the weights of {method!r} add up to {size:.0f} in size, and make "
        f"errors of {size * eps:.1g} of the rounding of {dtype}: it takes far more steps than "
        "others. Take de.Vern7() or de.Tsit5().",
        skip_file_prefixes=INSIDE,
    )
