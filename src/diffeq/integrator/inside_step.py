"""The interpolant of a step, evaluated before the step is judged.

A step is accepted for its end; rows, dense output, events and delays read its interpolant. That can
be infinite or NaN where the end is not, for some interpolants evaluate the field once more; and far
off where the end is exact, as on the slow solution of an infinitely stiff equation, on which a
stiffly accurate method can step as far as it likes. So where something is read inside a step, the
interpolant is looked at together with the error at the end, and the step is shortened for it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, PyTree

from ..autodiff.dynamic_scan import walk
from ..core.norm import rounding
from ..methods import Step
from .state import Data, Integrator, State

__all__ = ["InsideStep", "evaluate_inside"]


class InsideStep(NamedTuple):
    """The interpolant of a step, where it had to be evaluated; the squared norm
    of its scaled error; and whether it is finite. None where nothing has to be known.
    """

    path: PyTree = None
    error2: Array | None = None
    finite: Array | None = None


def evaluate_inside(
    integrator: Integrator, data: Data, state: State, parts: tuple, step: Step, span: tuple
) -> InsideStep:
    """The interpolant of a step of `parts`, a form, a method and a controller, over `span`: the
    length as a number of the state, and the time at its end.
    """
    if not integrator.reads_inside:
        return InsideStep()
    (form, method, controller), (dt, end) = parts, span
    read, later = _wanted(integrator, data, state, end)
    # The error limits all steps until the last row, also those in which there is none: so what a
    # row is depends on no other row, and no step spoils the slope that the next one begins with.
    # But where the interpolant costs evaluations, it is made in those with rows alone.
    path, counts, seen = None, later, () if controller.is_adaptive else step.data
    if method.interpolant_evaluates(form):
        make = lambda: method.interpolant(form, state.t, state.y, dt, step)  # noqa: E731
        path = seen = make() if integrator.crosses else _where(read, make)
        counts = read
    finite = ~read | _finite(seen) if jax.tree.leaves(seen) else None
    error = None
    if controller.is_adaptive:
        error = method.interpolation_error(state.y, dt, step, path)
    if error is None:
        return InsideStep(path, None, finite)
    error2, _ = lax.stop_gradient(data.tolerance.squared(error, state.y, step.y, controller.norm))
    return InsideStep(path, jnp.where(counts, error2, 0), finite)


def _wanted(
    integrator: Integrator, data: Data, state: State, end: Array
) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
    """True if a step that ends at `end` is interpolated anywhere; and true if it is, or a later
    step before the end of the solve.
    """
    if integrator.crosses or integrator.rows is not None:
        return jnp.ones((), bool), jnp.ones((), bool)
    ahead = lambda t: integrator.output.ahead(data.times, state.written, t)  # noqa: E731
    end, last = lax.stop_gradient((end, data.t1))
    return ahead(end + rounding(end)), ahead(last - rounding(last))


def _where(wanted: Bool[Array, ""], make: Callable[[], PyTree]) -> PyTree:
    """The value of `make()` where it is wanted; else zeros."""
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(make))
    # A walk of at most one turn: elsewhere nothing is evaluated.
    made, _ = walk(lambda *_: (make(), ()), 0, wanted.astype(jnp.int32), carry=blank, length=1)
    return made


def _finite(tree: PyTree) -> Bool[Array, ""]:
    """True if all numbers of a tree are finite."""
    leaves = (x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact))
    return jnp.isfinite(sum(jnp.sum(jnp.abs(x)) for x in lax.stop_gradient(list(leaves))))
