"""Replaces operations that a Triton kernel lacks by others, or raises `NoKernel`."""

from collections.abc import Callable
from functools import partial, reduce

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ...autodiff.jax_internals import Equation, Primitive, input_types, output_types
from .scalar_values import NoKernel
from .special_functions import digamma, erf, erfc, lgamma

__all__ = ["in_triton"]

_MISSING = frozenset(
    """
    bessel_i0e bessel_i1e complex conj eq_to igamma igammac imag polygamma real
    regularized_incomplete_beta zeta
    """.split()  # noqa: SIM905 - read as words
)


def in_triton(name: str, equation: Equation) -> Callable[..., Array] | None:
    """The function that replaces an equation in a kernel; None if it needs no replacement."""
    dtypes = [x.dtype for x in (*input_types(equation), *output_types(equation))]
    if any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in dtypes):
        raise NoKernel("a kernel has no complex numbers")
    if name in _MISSING:
        raise NoKernel("a kernel has no such operation")
    if name == "round":
        return partial(_rounded, even=equation.params["rounding_method"])
    if name == "reduce_precision":
        return partial(_reduce_precision, **equation.params)
    if name in ("max", "min", "clamp") and not jnp.issubdtype(dtypes[-1], jnp.inexact):
        return None
    if name == "select_n" and dtypes[0] == jnp.bool_:
        return None
    if name in ("and", "or", "xor") and dtypes[-1] == jnp.uint64:
        return partial(_signed, equation.primitive)
    return _OTHERS.get(name)


def _before(x: Array, y: Array, *, equal: bool) -> Array:
    """True where x is before y, in the order in which NaN is the largest."""
    before = (x < y) | (~jnp.isnan(x) & jnp.isnan(y))
    return before | (x == y) | (jnp.isnan(x) & jnp.isnan(y)) if equal else before


def _rounded(x: Array, *, even: lax.RoundingMethod) -> Array:
    """Rounds to the nearest integer; ties to the even one, or away from zero."""
    down = jnp.floor(x)
    part = x - down
    if even == lax.RoundingMethod.TO_NEAREST_EVEN:
        up = (part > 0.5) | ((part == 0.5) & (jnp.floor(down / 2) * 2 != down))
    else:
        up = (part > 0.5) | ((part == 0.5) & (x >= 0))
    return jnp.where(up, down + 1, down)


def _reduce_precision(x: Array, *, exponent_bits: int, mantissa_bits: int) -> Array:
    """Rounds to the nearest number with so many bits after the point; ties to the even one. A carry
    goes into the exponent, as it should.

    >>> one_bit = partial(_reduce_precision, exponent_bits=8, mantissa_bits=1)
    >>> one_bit(jnp.array([1.2, 1.25, 1.26, 1.9])).tolist()
    [1.0, 1.0, 1.5, 2.0]
    """
    kind = jnp.finfo(x.dtype)
    if exponent_bits < kind.nexp:
        raise NoKernel("a kernel has no shorter exponents")
    dropped = max(kind.nmant - mantissa_bits, 0)
    whole = jnp.dtype(f"uint{kind.bits}").type
    bits = lax.bitcast_convert_type(x, whole)
    odd = (bits >> whole(dropped)) & whole(1)
    bits = bits + odd + whole(2 ** max(dropped - 1, 0) - 1)
    bits = (bits >> whole(dropped)) << whole(dropped)
    return jnp.where(jnp.isfinite(x) & (dropped > 0), lax.bitcast_convert_type(bits, x.dtype), x)


def _larger(x: Array, y: Array) -> Array:
    """The larger of two numbers; NaN if one is, which Triton's own takes for smaller than all."""
    return jnp.where((x >= y) | jnp.isnan(x), x, y)


def _smaller(x: Array, y: Array) -> Array:
    return jnp.where((x <= y) | jnp.isnan(x), x, y)


def _signed(primitive: Primitive, x: Array, y: Array) -> Array:
    """An operation on the bits of 64-bit integers, as signed ones: Triton has no constants with the
    highest bit set.
    """
    x, y = (lax.bitcast_convert_type(z, jnp.int64) for z in (x, y))
    return lax.bitcast_convert_type(primitive.bind(x, y), jnp.uint64)


def _select_case(which: Array, *cases: Array) -> Array:
    """The case whose number is `which`."""
    return reduce(
        lambda old, k: jnp.where(which == k, cases[k], old), range(1, len(cases)), cases[0]
    )


_OTHERS: dict[str, Callable[..., Array]] = {
    "clamp": lambda low, x, high: jnp.where(x < low, low, jnp.where(x > high, high, x)),
    "copy": lambda x: x,
    "digamma": digamma,
    "erf": erf,
    "erfc": erfc,
    "le_to": partial(_before, equal=True),
    "lgamma": lgamma,
    "lt_to": partial(_before, equal=False),
    "max": _larger,
    "min": _smaller,
    "select_n": _select_case,
    "polynomial": lambda x, *cs: reduce(lambda value, c: value * x + c, cs[::-1]),
}
