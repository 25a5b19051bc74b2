"""Elementwise operations: bound once for each entry, evaluated while tracing where all inputs are
known.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ...autodiff.batch_last import ELEMENTWISE as COMMON
from ...autodiff.jax_internals import Equation, evaluate_equation, input_types, output_types
from .operands import is_known
from .scalar_values import Number, apply_operation, fold_operation, is_known_entry, map_entries

__all__ = ["ELEMENTWISE", "elementwise", "fits", "on_entries"]

ELEMENTWISE = COMMON | frozenset(
    """
    acos acosh asin asinh atan atanh bessel_i0e bessel_i1e bitcast_convert_type complex conj
    digamma eq_to erf_inv igamma igammac imag le_to lgamma log2 lt_to population_count polygamma
    real reduce_precision regularized_incomplete_beta zeta
    """.split()  # noqa: SIM905 - read as words
)


def fits(equation: Equation) -> bool:
    """True if each entry of the output is computed from one entry of each input; axes of length one
    are broadcast.
    """
    shape = output_types(equation)[0].shape
    own = [x.shape for x in input_types(equation) if x.shape]
    return all(
        len(s) == len(shape) and all(a in (1, b) for a, b in zip(s, shape, strict=True))
        for s in own
    )


def elementwise(equation: Equation, xs: Sequence[np.ndarray]) -> np.ndarray:
    """Evaluates an elementwise equation."""
    if all(map(is_known, xs)):
        return _fold_equation(equation, xs)
    shape = output_types(equation)[0].shape
    return map_entries(on_entries(equation), *(np.broadcast_to(x, shape) for x in xs))


def on_entries(equation: Equation) -> Callable[..., Number]:
    """An elementwise equation, as a function of entries."""
    name = equation.primitive.name
    bind = lambda *entries: evaluate_equation(equation, entries)[0]  # noqa: E731

    def one(*entries: Number) -> Number:
        if all(map(is_known_entry, entries)):
            return _fold_equation(equation, [np.asarray(x) for x in entries]).flat[0]
        return apply_operation(name, bind, entries)

    return one


def _fold_equation(equation: Equation, xs: Sequence[np.ndarray]) -> np.ndarray:
    """Evaluates an elementwise operation on known arrays."""
    name, dtype = equation.primitive.name, output_types(equation)[0].dtype
    if name == "convert_element_type" and not _to_whole(xs[0].dtype, dtype):
        return xs[0].astype(dtype)
    wide = list(np.broadcast_arrays(*xs)) if len({x.shape for x in xs}) > 1 else list(xs)
    each = lambda *ys: evaluate_equation(equation, ys)[0]  # noqa: E731
    return np.asarray(fold_operation(name, each, wide), dtype)


def _to_whole(old: np.dtype, new: np.dtype) -> bool:
    """True for conversions to integers or booleans, on which NumPy and XLA do not agree."""
    return old.kind not in "biu" and new.kind in "biu"
