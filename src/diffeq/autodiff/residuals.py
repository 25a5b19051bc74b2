"""`keep_residuals`: of a step of a walk, what its tangent needs besides the operands.

The tangent of a step is linear in the tangents, with coefficients that the step itself computes on
its way: the slopes of an activation, say. A walk over a tape computes them again, as rows of the
state are all that it has memory for; one over the few stages of a step keeps them.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .jax_internals import (
    Equation,
    Jaxpr,
    constants_of,
    dependents,
    equations,
    evaluate_equation,
    influences,
    inlinable,
    input_types,
    interpret,
    jaxpr_as_fun,
    output_types,
    pruned,
    push_moving,
    shape_of,
    split_known,
    trace,
    zero_like,
)

__all__ = ["Linearized", "keep_residuals"]

_MOST = 2**22  # bytes of the residuals of all steps of a walk
_SMALL, _MOST_SMALL = 64, 16  # bytes (a cache line) of a small residual, and how many may be so


class Linearized(NamedTuple):
    """A step that returns its residuals, after its outputs; and its tangent: a function of (active,
    operands, residuals, tangents of the live operands).
    """

    step: Jaxpr
    tangent: Jaxpr
    residuals: list[jax.ShapeDtypeStruct]


def keep_residuals(
    step: Jaxpr, live: Sequence[bool], wanted: Sequence[bool], moving: Sequence[bool], length: int
) -> Linearized | None:
    """A step (active, *operands), linearized in the `live` operands: the tangents of the `wanted`
    outputs. What depends on operands that are `moving`, another value in each step, is kept;
    the rest is computed again. None where there is nothing to keep, or more than a few megabytes;
    where many are single numbers, each of which would be written to a row and read from it by a
    kernel of its own, while what is between them is evaluated by one; and where one equation
    computes values and tangents, as that of a branch does.
    """
    active, *avals = input_types(step)
    live_avals = [a for a, f in zip(avals, live, strict=True) if f]
    outputs = len(output_types(step))
    both = _with_tangents(step, live, wanted)
    known = [True] * (1 + len(avals)) + [False] * len(live_avals)
    split = split_known(both, known, lambda equation: True)
    if split is None:
        return None
    before, rest = (jaxpr_as_fun(part) for part in split)
    consts, cut = constants_of(both), output_types(split[0])
    varies = dependents(split[0], [*(False for _ in consts), False, *moving])

    def tangent(active: Array, primals: Sequence, values: Sequence, dots: Sequence) -> list[Array]:
        again = before(*consts, active, *primals)
        found = [v if f else w for v, w, f in zip(values, again, varies, strict=True)]
        return rest(*consts, *found, active, *primals, *dots)[outputs:]

    flat = trace(tangent, active, list(avals), list(map(shape_of, cut)), live_avals)
    first = 1 + len(avals)
    used = influences(flat)[first : first + len(cut)]
    kept = [u and f for u, f in zip(used, varies, strict=True)]
    residuals = [shape_of(a) for a, f in zip(cut, kept, strict=True) if f]
    sizes = [math.prod(a.shape) * a.dtype.itemsize for a in residuals]
    small = sum(size < _SMALL for size in sizes)
    if not residuals or sum(sizes) * length > _MOST or small > _MOST_SMALL:
        return None

    def results(values: Sequence, active: Array, primals: Sequence[Array]) -> list[Array]:
        zeros = list(map(zero_like, live_avals))
        return rest(*consts, *values, active, *primals, *zeros)[:outputs]

    shapes = list(map(shape_of, cut))
    if equations(_without_dead_equations(trace(results, shapes, active, list(avals)))):
        return None

    def with_residuals(active: Array, *primals: Array) -> list[Array]:
        values = before(*consts, active, *primals)
        out = results(values, active, primals)
        return [*out, *(v for v, f in zip(values, kept, strict=True) if f)]

    def from_residuals(active: Array, primals: Sequence, given: Sequence, dots: Sequence) -> list:
        found = iter(given)
        values = [next(found) if f else zero_like(a) for a, f in zip(cut, kept, strict=True)]
        return tangent(active, primals, values, dots)

    return Linearized(
        _without_dead_equations(trace(with_residuals, active, *avals)),
        _without_dead_equations(trace(from_residuals, active, list(avals), residuals, live_avals)),
        residuals,
    )


def _with_tangents(step: Jaxpr, live: Sequence[bool], wanted: Sequence[bool]) -> Jaxpr:
    """(active, operands, tangents of the live operands) → the outputs, the wanted tangents."""
    active, *avals = input_types(step)

    def joint(active: Array, primals: Sequence[Array], dots: Sequence[Array]) -> list[Array]:
        out, dot = push_moving(partial(jaxpr_as_fun(step), active), primals, live, dots)
        return [*out, *(d for d, f in zip(dot, wanted, strict=True) if f)]

    live_avals = [a for a, f in zip(avals, live, strict=True) if f]
    return _inlined(trace(joint, active, list(avals), live_avals))


def _without_dead_equations(jaxpr: Jaxpr) -> Jaxpr:
    """A jaxpr without the equations that no output needs."""
    return pruned(jaxpr, lambda equation: False, outputs=True)


def _inlined(jaxpr: Jaxpr) -> Jaxpr:
    """A jaxpr with the equations of nested jits in their place: some are of known values alone."""

    def outputs(equation: Equation, inputs: list) -> list:
        inner = inlinable(equation)
        if inner is None:
            return evaluate_equation(equation, inputs)
        return interpret(inner, inputs, outputs, lambda x, aval: jnp.asarray(x, aval.dtype))

    def run(*xs: Array) -> list[Array]:
        return interpret(jaxpr, xs, outputs, lambda x, aval: x)

    return trace(run, *map(shape_of, input_types(jaxpr)))
