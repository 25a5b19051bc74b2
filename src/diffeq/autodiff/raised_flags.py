"""Flags that are raised deep inside a function, and come out of it together with its result.

`flagged(x, bits)` is x. `with_flags(function, *args)` evaluates a function, and returns with its
value the union of the bits of every `flagged` that was reached: in a loop, in a branch that was
taken, in a nested jit, or in a Newton iteration over the function. A NaN may be lost on its path
out (NaN > 0 is False); a flag cannot.

The function is traced, and its equations are evaluated one by one: those that run other equations
(loops, branches, calls) are built again, with the bits among what they carry or return.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Int32, PyTree

from ..core.split import split_by_sizes
from .dynamic_scan import walk_p
from .jax_internals import (
    CALLS,
    Equation,
    Jaxpr,
    ShapedArray,
    as_array,
    branches_of,
    called,
    contains,
    define,
    evaluate_equation,
    input_types,
    interpret,
    is_or_contains,
    is_zero,
    jaxpr_as_fun,
    name_of,
    parameters,
    scan_of,
    shape_of,
    trace,
    user_line,
    while_of,
    zero_tangent,
)
from .while_loop import loop_p, native_function_p

__all__ = ["flagged", "with_flags"]

type _Bits = Int32[Array, "..."]
type _Found = tuple[list, _Bits]  # the outputs of an equation, and the bits raised in it


def flagged(x: Array, bits: Int[Array, ""] | int) -> Array:
    """Returns x itself; `with_flags` brings out the bits.

    >>> float(flagged(jnp.array(2.0), 1))
    2.0
    """
    return flagged_p.bind(x, jnp.asarray(bits, jnp.int32))[0]


def with_flags(function: Callable, *args: PyTree) -> tuple[PyTree, Int32[Array, ""]]:
    """`function(*args)`, and the union of the bits that were raised in it.

    >>> def root(x):
    ...     return lax.cond(x < 0, lambda: flagged(jnp.nan * x, 4), lambda: jnp.sqrt(x))
    >>> [int(with_flags(lambda x: root(x) > 1, x)[1]) for x in (4.0, -4.0)]
    [0, 4]
    """
    leaves, tree = jax.tree.flatten(args)
    avals = [shape_of(jnp.asarray(x)) for x in leaves]
    jaxpr, shape = jax.make_jaxpr(
        lambda *xs: function(*jax.tree.unflatten(tree, xs)), return_shape=True
    )(*avals)
    leaves = [jnp.asarray(x, a.dtype) for x, a in zip(leaves, avals, strict=True)]
    out, bits = _evaluate_with_bits(jaxpr, leaves)
    return jax.tree.unflatten(jax.tree.structure(shape), out), bits


# --- equation by equation -------------------------------------------------------------------------


def _evaluate_with_bits(jaxpr: Jaxpr, xs: Sequence) -> _Found:
    """The outputs of a jaxpr, and its bits."""
    bits = jnp.int32(0)

    def outputs(equation: Equation, inputs: list) -> list:
        nonlocal bits
        if name_of(equation) == flagged_p.name:
            bits = bits | _all_of(inputs[1])
        elif is_or_contains(equation, flagged_p.name):
            out, found = _rule(equation)(equation, inputs)
            bits = bits | found
            return out
        return evaluate_equation(equation, inputs)

    return interpret(jaxpr, xs, outputs, as_array), bits


def _all_of(bits: _Bits) -> Int32[Array, ""]:
    return jnp.bitwise_or.reduce(bits, axis=None)


def _called(equation: Equation, xs: Sequence) -> _Found:
    """Evaluates the equations of a jaxpr that is only called. A derivative of its own is lost with
    that, and no function that is evaluated for its flags is differentiated.
    """
    return _evaluate_with_bits(called(equation), xs)


def _branches(equation: Equation, xs: Sequence) -> _Found:
    index, *operands = xs
    branches = [lambda *xs, b=b: _evaluate_with_bits(b, xs) for b in branches_of(equation)]
    return lax.switch(index, branches, *operands)


def _scan(equation: Equation, xs: Sequence) -> _Found:
    scan = scan_of(equation)
    sizes, carried = (scan.constants, scan.carried), scan.carried
    consts, carry, rows = split_by_sizes(xs, (*sizes, len(xs) - sum(sizes)))

    def turn(state: tuple, row: list) -> tuple[tuple, list]:
        carry, bits = state
        out, found = _evaluate_with_bits(scan.step, [*consts, *carry, *row])
        return (out[:carried], bits | found), out[carried:]

    (carry, bits), rows = lax.scan(
        turn, (carry, jnp.int32(0)), rows, scan.length, scan.reverse, scan.unroll
    )
    return [*carry, *rows], bits


def _while(equation: Equation, xs: Sequence) -> _Found:
    """A loop whose condition may raise flags, too: that runs once more than the body."""
    loop = while_of(equation)
    sizes = loop.of_test, loop.of_body
    of_test, of_body, carry = split_by_sizes(xs, (*sizes, len(xs) - sum(sizes)))

    def test(carry: list) -> _Found:
        return _evaluate_with_bits(loop.test, [*of_test, *carry])

    def turn(state: tuple) -> _Found:
        carry, bits = state
        bits = bits | test(carry)[1]
        carry, found = _evaluate_with_bits(loop.body, [*of_body, *carry])
        return carry, bits | found

    carry, bits = lax.while_loop(lambda s: test(s[0])[0][0], turn, (carry, jnp.int32(0)))
    return carry, bits | test(carry)[1]


def _loop(equation: Equation, xs: Sequence) -> _Found:
    """A loop of ours: the bits are in its state, those of each lane by themselves."""
    condition, body, (consts, state, buffers) = (
        parameters(equation)[name] for name in ("condition", "body", "sizes")
    )
    assert not contains(condition, flagged_p.name)
    sizes, blank = (consts, 1, state + buffers), _no_bits(body)

    def test(*xs: Array) -> list:
        consts, _, rest = split_by_sizes(xs, sizes)
        return jaxpr_as_fun(condition)(*consts, *rest)

    def turn(active: Bool[Array, "..."], *xs: Array) -> list:
        consts, (bits,), rest = split_by_sizes(xs, sizes)
        out, found = _evaluate_with_bits(body, [active, *consts, *rest])
        return [bits | jnp.where(active, found, 0), *out]

    given, rest = split_by_sizes(xs, (consts, state + buffers))
    operands = [*given, blank, *rest]
    avals = [shape_of(x) for x in operands]
    bits, *out = loop_p.bind(
        *operands,
        condition=trace(test, *avals),
        body=trace(turn, input_types(body)[0], *avals),
        sizes=(consts, 1 + state, buffers),
    )
    return out, _all_of(bits)


def _walk(equation: Equation, xs: Sequence) -> _Found:
    """A walk: the bits are carried."""
    params = dict(parameters(equation))
    step, sizes, blank = params["step"], params["sizes"], _no_bits(params["step"])
    assert not params["linear"]
    ahead = sum(sizes[:2])  # rows and consts, before what is carried

    def turn(active: Bool[Array, "..."], *xs: Array) -> list:
        head, (bits,), rest = split_by_sizes(xs, (ahead, 1, sum(sizes[2:])))
        out, found = _evaluate_with_bits(step, [active, *head, *rest])
        return [bits | jnp.where(active, found, 0), *out]

    active, *avals = input_types(step)
    params["step"] = trace(turn, active, *avals[:ahead], shape_of(blank), *avals[ahead:])
    params["stable"] = (False, *params["stable"])
    params["sizes"] = (*sizes[:2], 1 + sizes[2], *sizes[3:])
    bounds, head, rest = split_by_sizes(xs, (2, ahead, sum(sizes[2:])))
    bits, *out = walk_p.bind(*bounds, *head, blank, *rest, **params)
    return out, _all_of(bits)


def _no_bits(turn: Jaxpr) -> _Bits:
    """No bits, for each of the lanes of a turn, whose first input says whether it is active."""
    return jnp.zeros(input_types(turn)[0].shape, jnp.int32)


_RULES: dict[str, Callable] = {
    "scan": _scan,
    "while": _while,
    "cond": _branches,
    loop_p.name: _loop,
    walk_p.name: _walk,
    native_function_p.name: _called,
    **dict.fromkeys(CALLS, _called),
}


def _rule(equation: Equation) -> Callable:
    found = _RULES.get(name_of(equation))
    if found is None:
        raise TypeError(
            f"past(s) is asked for inside of a {name_of(equation)} ({user_line(equation)}), "
            "where a step cannot see that it is: ask for it outside, and hand the value in."
        )
    return found


# --- the primitive --------------------------------------------------------------------------------


def _jvp(primals: Sequence, tangents: Sequence) -> tuple[list, list]:
    out = flagged_p.bind(*primals)
    return out, [zero_tangent(out[0]) if is_zero(tangents[0]) else tangents[0]]


flagged_p = define(
    "flagged",
    lambda x, bits: [x],
    lambda x, bits: [ShapedArray(x.shape, x.dtype)],
    jvp=_jvp,
    batch=lambda size, xs, axes: (flagged_p.bind(*xs), [axes[0]]),
    dependence=lambda flags: flags[:1],
    influence=[True, False],
)
