"""Straight lines between the values of a table."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Real

from .base import Table, row

__all__ = ["Linear"]


class Linear(Table):
    """u(t) = x_i + (t − t_i)/(t_{i+1} − t_i) · (x_{i+1} − x_i) for t_i ≤ t ≤ t_{i+1}.

    Its slope jumps at every time of the table. Steps are not cut there, unless these times are
    given to `solve` as `stops=` too.

    Args:
        ts: increasing times; NaN at the end is padding.
        xs: a tree of arrays, one row for each time. Outside of ts its ends are held.

    Raises:
        TypeError, ValueError: ts does not increase; xs has another first axis.

    Example:
        >>> import diffeq as de
        >>> float(de.interp.Linear([0.0, 1.0, 3.0], [0.0, 2.0, 4.0])(2.0))
        3.0
    """

    def __init__(self, ts: Any, xs: Any) -> None:
        super().__init__(ts, xs, padded=True)

    def at(self, t: Real[Array, ""]) -> Any:
        """The value at one time."""
        i = self.place(t)
        t0, t1 = (self.ts.at[j].get(mode="clip") for j in (i, i + 1))
        inside = jnp.isfinite(t1) & (t1 > t0)
        width = jnp.where(inside, t1 - t0, 1)
        theta = jnp.where(inside, jnp.clip((t - t0) / width, 0, 1), 0)
        left, right = row(self.xs, i), row(self.xs, jnp.where(inside, i + 1, i))
        return jax.tree.map(lambda a, b: a + theta.astype(_real(a)) * (b - a), left, right)


def _real(x: Array) -> Any:
    return jnp.finfo(jnp.result_type(x, jnp.float32)).dtype
