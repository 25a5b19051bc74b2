"""Inputs that jump."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree, Real

from ..autodiff.discontinuity_times import jumping
from ..autodiff.jax_internals import Tracer
from ..core.keywords import keywords
from ..core.promotion import floating_dtype, standard_promotion
from .base import InputFunction, Table, tree_row

__all__ = ["Hold", "infusions"]


class Hold(Table):
    """The zero-order hold: u(t) = x_i for t_i ≤ t < t_{i+1}.

    Where a field or a condition calls it at t, at t − s or at another line σ t + s₀ (σ and s₀ may
    depend on args, not on y), a solve ends a step at each of its jumps, and restarts the method
    there, so that no method loses its order. The solution differentiates by ts, s₀ and σ as well as
    by xs. At other functions of t (t % 24), or where the time depends on y, its jumps are left to
    the control of errors, and a warning says so, unless they are given to `solve` as `stops=`.

    Args:
        ts: increasing times; NaN at the end is padding.
        xs: a tree of arrays of any dtype, one row for each time. Before the first time it is the
            first row, after the last time the last.

    Raises:
        TypeError, ValueError: ts does not increase; xs has another first axis.

    Example:
        >>> import diffeq as de
        >>> u = de.interp.Hold([0.0, 1.0, 2.0], [1.0, -1.0, 0.0])
        >>> sol = de.solve(de.ODEProblem(lambda t, y, u: u(t), 0.0, (0.0, 1.5), u))
        >>> round(float(sol.y1), 5), int(sol.stats["stops"])
        (0.5, 1)
    """

    @standard_promotion()
    def __init__(self, ts: ArrayLike | Sequence, xs: PyTree) -> None:
        super().__init__(ts, xs, padded=True)

    def at(self, t: Real[Array, ""]) -> PyTree:
        """The value at one time."""
        return tree_row(self.xs, self.place(jumping(t, _changes, self.ts)))


def _changes(ts: Real[Array, " n"]) -> Real[Array, " n-1"]:
    """The times at which a table that is held jumps: all but the first."""
    return jnp.where(jnp.isfinite(ts), ts, jnp.nan)[1:]


class Infusions(InputFunction):
    """Rates that are on for a while; `infusions` makes it."""

    starts: Array
    rates: Array
    durations: Array

    def at(self, t: Real[Array, ""]) -> PyTree:
        """The sum of the rates that are on."""
        t = jumping(t, _switches, self.starts, self.durations)
        on = (t >= self.starts) & (t < self.starts + self.durations)
        rates = self.rates
        on = on.reshape(on.shape + (1,) * (rates.ndim - 1))
        return jnp.sum(jnp.where(on, rates, 0), axis=0)


def _switches(starts: Real[Array, " n"], durations: Real[Array, " n"]) -> Real[Array, " 2*n"]:
    """The times at which infusions start and end."""
    return jnp.concatenate([starts, starts + durations])


@keywords
@standard_promotion()
def infusions(
    starts: ArrayLike | Sequence, rates: ArrayLike | Sequence, durations: Any
) -> Infusions:
    """Σ rates_i over those i with starts_i ≤ t < starts_i + durations_i: an input, called with t.

    A solve ends a step where one starts or ends, as with `interp.Hold`. A dose that is given in no
    time is no input but an event: `doses`.

    Args:
        starts: times, in any order; NaN is padding.
        rates: amounts per unit of time, shape (starts, …).
        durations: of each, or one for all.

    Raises:
        TypeError, ValueError: their first axes differ; a duration is negative, or NaN.

    Example:
        >>> import diffeq as de
        >>> drip = de.infusions([0.0, 12.0], [5.0, 2.5], 2.0)
        >>> f = lambda t, y, drip: drip(t) - 0.1 * y
        >>> sol = de.solve(de.ODEProblem(f, 0.0, (0.0, 24.0), drip), rtol=1e-6)
        >>> float(drip(1.0)), int(sol.stats["stops"])
        (5.0, 3)
    """
    starts, rates, durations = (
        _as_array(name, x)
        for name, x in (("starts", starts), ("rates", rates), ("durations", durations))
    )
    if starts.ndim != 1:
        raise ValueError(f"starts has shape {starts.shape}; a sequence of times is wanted.")
    starts = starts.astype(floating_dtype(starts))
    if rates.shape[:1] != starts.shape:
        raise ValueError(
            f"rates has shape {rates.shape}; one for each of the {starts.shape[0]} starts is "
            "wanted."
        )
    if durations.shape not in ((), (1,), starts.shape):
        raise ValueError(
            f"durations has shape {durations.shape}; one for each of the {starts.shape[0]} starts, "
            "or one for all, is wanted."
        )
    durations = jnp.broadcast_to(durations.astype(starts.dtype), starts.shape)
    _check_lengths(starts, durations)
    return Infusions(starts, rates, durations)


def _as_array(name: str, x: Any) -> Array:
    """An argument of `infusions` as an array of real numbers."""
    try:
        found = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is {x!r}; numbers are wanted.") from error
    if x is None or jnp.iscomplexobj(found):
        raise TypeError(f"{name} is {x!r}; real numbers are wanted.")
    return found


def _check_lengths(starts: Array, durations: Array) -> None:
    """Refuses durations that are negative, or NaN beside a start that is there."""
    if isinstance(durations, Tracer) or isinstance(starts, Tracer):
        return
    lengths = np.asarray(durations)
    if (lengths < 0).any():
        raise ValueError("durations has a negative number; lengths of time are wanted.")
    missing = np.isnan(lengths) & ~np.isnan(np.asarray(starts))
    if missing.any():
        i = int(np.argmax(missing))
        raise ValueError(
            f"durations is NaN for starts[{i}] = {starts[i]:g}; lengths of time are wanted, and "
            "NaN in starts for padding."
        )
