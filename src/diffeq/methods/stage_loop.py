"""`StagedMethod` and `stages_in_loop`: the stages of a step in a loop, so that the field is
compiled once and not s times.

Straight code is faster where a field is a few scalar operations. Where it is large, the compiler
takes each copy of it apart once more, and puts each together with its neighbours.
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Shaped

from ..autodiff.dynamic_scan import walk
from ..autodiff.row_buffers import put_row
from ..autodiff.tables import add_row
from ..problems.forms import Form
from .base import Method

__all__ = ["StagedMethod", "blank_stages", "stages_in_loop"]

_WAYS = ["loop", "unrolled"]  # a list, as what is asked for may have no hash


class StagedMethod(Method):
    """The base of methods that evaluate one stage after another. `stages` says how they are
    compiled: in a "loop", or "unrolled", as straight code; None: in a loop where the field is
    large. Numbers differ by rounding alone.
    """

    stages: str | None = eqx.field(static=True, default=None, kw_only=True)

    def __check_init__(self) -> None:
        if self.stages is not None and self.stages not in _WAYS:
            raise ValueError(
                f"stages is {self.stages!r}; 'loop' (compiled once) or 'unrolled' (straight code) "
                "is wanted, or None, which chooses by the size of the field."
            )

    def loops(self, form: Form) -> bool:
        """True if the stages of a step of this equation are a loop."""
        return form.large if self.stages is None else self.stages == "loop"


def stages_in_loop(
    stage: Callable, rows: tuple, tables: tuple, *, first: int = 0, carry: PyTree = ()
) -> tuple[tuple, PyTree]:
    """Fills the rows of `tables` from `first` on, which are zeros before: row i with what
    `stage(row, tables, carry)` returns, a tuple of values and the next carry.

    Each of `rows` has an entry for each stage that is computed. A stage may read of the tables what
    is filled, and multiplies the other rows by zero: so its derivative needs no record of them. Nor
    does the derivative of its transpose, as values are added to the rows: the transpose leaves the
    cotangent of a row where it is, while that of a replaced row becomes zero.

    >>> from diffeq.methods.weighted_sums import weighted
    >>> sums = lambda row, tables, carry: ((row[1] + weighted(row[0], tables[0]),), carry)
    >>> rows = (jnp.array([[0.0, 0.0], [2.0, 0.0]]), jnp.array([1.0, 1.0]))
    >>> stages_in_loop(sums, rows, (jnp.zeros(2),))[0]
    (Array([1., 3.], dtype=float32),)
    """
    count = rows[0].shape[0]

    def turn(
        active: Bool[Array, "..."], row: PyTree, consts: PyTree, state: PyTree, *_: PyTree
    ) -> tuple:
        del active, consts
        i, tables, carry = state
        values, carry = stage(row, tables, carry)
        tables = tuple(add_row(x, v, i) for x, v in zip(tables, values, strict=True))
        return (i + 1, tables, carry), ()

    state = (jnp.int32(first), tables, carry)
    stable = (False, *(True for _ in tables))
    (_, tables, carry), _ = walk(
        turn, 0, count, rows=rows, carry=state, length=count, stable=stable, keeps=True
    )
    return tables, carry


def blank_stages(count: int, like: Array, *known: Array) -> Shaped[Array, "count ..."]:
    """A table of `count` stages, of which the first are `known`."""
    table = jnp.zeros((count, *like.shape), like.dtype)
    for i, value in enumerate(known):
        table = put_row(table, value, jnp.int32(i))
    return table
