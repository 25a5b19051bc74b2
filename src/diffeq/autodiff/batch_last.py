"""A jaxpr over lanes: every array gets one more axis, and it stays the last.

`jax.vmap` moves the batch axis to the front for concatenations, reshapes and broadcasts, so that a
field written with `jnp.array([...])` would transpose at every stage. Here the operations on shapes
leave the last axis alone, each component of a state is one contiguous vector over the
lanes, and everything else goes through `vmap` with axis −1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool

from .jax_internals import (
    Equation,
    Jaxpr,
    ShapedArray,
    as_array,
    define,
    evaluate_equation,
    inlinable,
    interpret,
    is_foreign,
    name_of,
    output_types,
    own_dependence,
    parameters,
)

__all__ = ["ELEMENTWISE", "if_unbatched", "lanes_last", "over_lanes"]


def over_lanes(jaxpr: Jaxpr, size: int) -> Callable:
    """`f(flags, operands) -> (outputs, flags)`: a jaxpr whose flagged operands have lanes."""

    def run(flags: Sequence[bool], operands: Sequence) -> tuple[list, list[bool]]:
        found = interpret(
            jaxpr,
            list(zip(operands, flags, strict=True)),
            lambda equation, inputs: _equation(equation, inputs, size),
            lambda x, aval: (x, False),
        )
        outputs = [as_array(x, a) for (x, _), a in zip(found, output_types(jaxpr), strict=True)]
        return outputs, [flag for _, flag in found]

    return run


def _equation(equation: Equation, inputs: Sequence, size: int) -> list:
    xs, flags = [x for x, _ in inputs], [flag for _, flag in inputs]
    inner = inlinable(equation)
    if inner is not None:
        return list(zip(*over_lanes(inner, size)(flags, xs), strict=True))
    if not any(flags):
        return [(x, False) for x in evaluate_equation(equation, xs)]
    rule = _RULES.get(name_of(equation))
    if name_of(equation) in ELEMENTWISE:
        return [(_elementwise(equation, xs, flags, size), True)]
    if rule is not None:
        out = rule(xs, flags, size, parameters(equation))
        if out is not None:
            return [(x, True) for x in out]
    axes = [-1 if flag else None for flag in flags]
    found = own_dependence(equation, flags)
    found = _have_lanes(equation, xs, axes, size) if found is None else found
    out_axes = [-1 if flag else None for flag in found]
    out = jax.vmap(
        lambda *xs: evaluate_equation(equation, xs),
        in_axes=axes,
        out_axes=out_axes,
        axis_size=size,
    )(*xs)
    return list(zip(out, found, strict=True))


def _have_lanes(equation: Equation, xs: Sequence, axes: Sequence, size: int) -> list[bool]:
    """Flags of the outputs that have lanes. With the rules of JAX all do. Another library may have
    a primitive whose answer is one for all lanes (equinox has, so that an error is raised by those
    lanes alone that are in error): a lane axis there would make a branch of them all.
    """
    count = len(output_types(equation))
    if not is_foreign(equation):
        return [True] * count

    def lanes_in(k: int) -> bool:
        one = jax.vmap(lambda *xs: evaluate_equation(equation, xs)[k], axes, None, axis_size=size)
        try:
            jax.eval_shape(one, *xs)
        except ValueError:  # "vmap has mapped output but out_axes is None"
            return True
        return False

    return [lanes_in(k) for k in range(count)]


# One value out for each value in, at the same place; a scalar goes with all.
ELEMENTWISE = frozenset(
    """
    abs add add_any and atan2 cbrt ceil clamp clz convert_element_type cos cosh copy div eq erf erfc
    exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg
    nextafter not one_minus_square or polynomial pow rem round rsqrt select_n shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh
    xor
    """.split()  # noqa: SIM905 - read as words
)


def _elementwise(equation: Equation, xs: Sequence, flags: Sequence[bool], size: int) -> Array:
    """Evaluates an elementwise operation on numbers with lanes and an array with lanes; JAX would
    put the lanes first.
    """
    shape = (*output_types(equation)[0].shape, size)

    def wide(x: ArrayLike, flag: bool) -> Array:
        x = jnp.asarray(x)
        if x.ndim == len(shape):
            return x
        at = (len(shape) - 1,) if flag else range(x.ndim)
        return lax.broadcast_in_dim(x, shape, at)

    return evaluate_equation(equation, list(map(wide, xs, flags)))[0]


def _all(xs: Sequence, flags: Sequence[bool], size: int) -> list:
    return [
        x if f else jnp.broadcast_to(jnp.asarray(x)[..., None], (*jnp.shape(x), size))
        for x, f in zip(xs, flags, strict=True)
    ]


def _concatenate(xs: Sequence, flags: Sequence[bool], size: int, params: dict) -> list:
    return _once(lax.concatenate(_all(xs, flags, size), params["dimension"]))


def _reshape(xs: Sequence, flags: Sequence[bool], size: int, params: dict) -> list | None:
    del flags
    return None if params["dimensions"] is not None else [xs[0].reshape(*params["new_sizes"], size)]


def _broadcast(xs: Sequence, flags: Sequence[bool], size: int, params: dict) -> list | None:
    if len(xs) != 1:
        return None
    del flags
    shape = (*params["shape"], size)
    return [lax.broadcast_in_dim(xs[0], shape, (*params["broadcast_dimensions"], len(shape) - 1))]


def _stack(xs: Sequence, flags: Sequence[bool], size: int, params: dict) -> list:
    return _once(jnp.stack(_all(xs, flags, size), axis=params["axis"]))


def _once(x: Array) -> list:
    """Behind a barrier what is put together is made once, by vector instructions. XLA on a CPU
    would compute it for each of its components where it is used, and choose among them lane
    by lane: a step of Lorenz's equations takes up to three times as long, its gradient half as
    long again. Above some thousand lanes a step without derivatives is up to a third slower.
    """
    return [lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x]


def _squeeze(xs: Sequence, flags: Sequence[bool], size: int, params: dict) -> list:
    del flags, size
    return [lax.squeeze(xs[0], params["dimensions"])]


def _dynamic_slice(xs: Sequence, flags: Sequence[bool], size: int, params: dict) -> list | None:
    operand, *starts = xs
    if any(flags[1:]):
        return None
    zero = jnp.zeros((), jnp.result_type(*starts)) if starts else 0
    return [lax.dynamic_slice(operand, [*starts, zero], (*params["slice_sizes"], size))]


# Parameters are those of JAX 0.10 to 0.12; a primitive without a rule here is still right.
_RULES: dict[str, Callable] = {
    "concatenate": _concatenate,
    "reshape": _reshape,
    "broadcast_in_dim": _broadcast,
    "squeeze": _squeeze,
    "stack": _stack,
    "dynamic_slice": _dynamic_slice,
}


def lanes_last(x: ArrayLike, axis: int | None, size: int, *, force: bool = False) -> Any:
    """The batch axis moved to the end, where the lanes of one component lie side by side."""
    if axis is None:  # a number, it may be
        return jnp.broadcast_to(jnp.asarray(x)[..., None], (*jnp.shape(x), size)) if force else x
    return jnp.moveaxis(x, axis, -1)


def if_unbatched(flag: Bool[Array, ""]) -> Array:
    """A flag where there are no lanes; False over lanes. So a loop may end for a reason of its own
    when it is the only one, and go on with the others when it is one of many.

    >>> both = jnp.array([True, False])
    >>> bool(if_unbatched(both[0])), jax.vmap(if_unbatched)(both).tolist()
    (True, [False, False])
    """
    return _alone_p.bind(flag)[0]


_alone_p = define(
    "alone",
    lambda flag: [flag],
    lambda flag: [ShapedArray(flag.shape, flag.dtype)],
    batch=lambda size, xs, axes: ([jnp.zeros((), bool)], [None]),
    dependence=lambda flags: [False],
)
