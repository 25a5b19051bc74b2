"""The interpreter: one rule for each primitive, by its name; a primitive without one is traced, or
raises `NoKernel`.

An elementwise primitive is bound once for each entry. A call is opened. One of our own primitives
without a rule is replaced by its implementation. Operations on values that are known while tracing
are evaluated then.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import AbstractValue
from jax.extend.core import Literal, Var
from jax.typing import ArrayLike

from ...algebra import small_lu
from ...autodiff.jax_internals import (
    CALLS,
    Equation,
    Jaxpr,
    called,
    evaluate_equation,
    implementation_of,
    input_types,
    is_key,
    line_of,
    lower_jaxpr,
    output_types,
    user_line,
)
from .context import LaneContext, Rule
from .control_flow import LOOPS
from .elementwise import ELEMENTWISE, elementwise, fits
from .indexing import INDEXING
from .large_arrays import LazyArray, Space, WritableArray, read_only, to_memory
from .large_rules import in_memory
from .operands import Operand, Operands, all_entries, is_known
from .random_keys import KEYS, entries_of
from .scalar_values import (
    Entry,
    KeyWords,
    NoKernel,
    at_once,
    is_known_entry,
    map_entries,
    objects,
)
from .shapes import REDUCTIONS, SHAPES
from .tiles import in_tiles
from .triton import in_triton

__all__ = ["scalarised"]

_CALLS = CALLS | {"staged", "native_function", "linear_function"}


class Interpreter(LaneContext):
    """Evaluates jaxprs by the rules of their primitives."""

    def run(self, jaxpr: Jaxpr, xs: Operands) -> Operands:
        """Evaluates a jaxpr."""
        values: dict[Var, Operand] = dict(zip(jaxpr.invars, xs, strict=True))
        constants = map(_jaxpr_constant, jaxpr.consts)
        values.update(zip(jaxpr.constvars, constants, strict=True))

        def read(v: Var | Literal) -> Operand:
            return _jaxpr_constant(v.val, v.aval) if isinstance(v, Literal) else values[v]

        last = _last_uses(jaxpr)
        for number, equation in enumerate(jaxpr.eqns):
            inputs = _as_views(equation, map(read, equation.invars), last, number)
            values.update(zip(equation.outvars, self._equation(equation, inputs), strict=True))
        return list(map(read, jaxpr.outvars))

    def _equation(self, equation: Equation, xs: Operands) -> Operands:
        name = equation.primitive.name
        try:
            found = self._ruled(name, equation, xs)
        except NoKernel as reason:
            if reason.line:
                raise
            line = user_line(equation)
            raise NoKernel(reason.reason, reason.primitive or name, line) from None
        if found is None:
            raise NoKernel("there is no rule for it", name, user_line(equation))
        return found

    def _ruled(self, name: str, equation: Equation, xs: Operands) -> Operands | None:
        """The outputs of an equation; None where there is no rule."""
        if name in _CALLS:
            return self.run(called(equation), xs)
        if name == "optimization_barrier":
            return _barrier(self, *xs)
        rule, function = LOOPS.get(name) or INDEXING.get(name), implementation_of(equation)
        known = bool(xs) and all(map(is_known, xs))
        made = in_triton(name, equation) if self.space.kernel and not (known or rule) else None
        if made is not None:
            with line_of(equation):
                return self.traced(made, xs)
        for wide in (in_tiles, in_memory):
            if (found := wide(self, name, equation, xs)) is not None:
                return found
        if rule is not None:
            found = _evaluate_known(equation, xs) if known else rule(self, *xs, **equation.params)
        elif function is None or name in _OWN:
            found = self._of_entries(name, equation, [all_entries(x) for x in xs])
        return self.traced(function, xs) if found is None and function is not None else found

    def _of_entries(self, name: str, equation: Equation, xs: list[np.ndarray]) -> Operands | None:
        """The outputs of a primitive that takes no array in memory; None where there is no rule."""
        params, known = equation.params, bool(xs) and all(map(is_known, xs))
        if name in ELEMENTWISE and fits(equation):
            self.space.spend(0 if known else output_types(equation)[0].size)
            return [elementwise(equation, xs)]
        if name in SHAPES:
            return SHAPES[name](*xs, **params)
        if name in _OWN:
            return _OWN[name](self, *xs, **params)
        return self._combined(name, equation, xs, known=known)

    def _combined(
        self, name: str, equation: Equation, xs: list[np.ndarray], *, known: bool
    ) -> Operands | None:
        """The outputs of a primitive that combines entries; None where there is no rule."""
        params = equation.params
        if equation.effects:
            raise NoKernel("it has effects outside of the computation")
        if known:
            return _evaluate_known(equation, xs)
        # A sum of no entries has no first one to begin with.
        if name in REDUCTIONS and all(x.size for x in xs):
            self.space.spend(sum(x.size for x in input_types(equation)))
            return REDUCTIONS[name](*xs, **params)
        if name not in KEYS:
            return None
        dtype = input_types(equation)[0].dtype
        kind = {} if "impl" in params else {"impl": getattr(dtype, "_impl", None)}
        return KEYS[name](self, *xs, **params, **kind)


def scalarised(jaxpr: Jaxpr, inputs: Operands, lanes: int, space: Space) -> Operands:
    """The outputs of a jaxpr whose inputs are arrays of entries, or in memory, as they are.

    >>> jaxpr = jax.make_jaxpr(lambda x: x[::-1].sum() * x)(jnp.zeros(2))
    >>> x = np.empty(2, object)
    >>> x[:] = [jnp.arange(3.0), np.float32(1.0)]
    >>> [y.tolist() for y in scalarised(jaxpr, [x], 3, Space(3))[0]]
    [[0.0, 2.0, 6.0], [1.0, 2.0, 3.0]]
    """
    return Interpreter(lanes, space).run(lower_jaxpr(jaxpr), inputs)


def _jaxpr_constant(x: ArrayLike, aval: AbstractValue | None = None) -> np.ndarray:
    """A constant of a jaxpr."""
    if isinstance(x, jax.Array) and is_key(x):
        return entries_of(x)
    return np.asarray(x, getattr(aval, "dtype", None))


def _last_uses(jaxpr: Jaxpr) -> dict[Var | Literal, int]:
    """The number of the last equation that reads each variable; those that are returned are read
    after all of them.
    """
    last = {v: n for n, e in enumerate(jaxpr.eqns) for v in e.invars if isinstance(v, Var)}
    return {**last, **{v: len(jaxpr.eqns) for v in jaxpr.outvars if isinstance(v, Var)}}


def _as_views(
    equation: Equation, xs: Iterable[Operand], last: dict[Var | Literal, int], number: int
) -> list[Operand]:
    """Inputs of an equation; arrays that are read later, or twice by it, as read-only views."""
    names = equation.invars
    return [
        read_only(x)
        if isinstance(x, WritableArray) and (last[v] > number or names.count(v) > 1)
        else x
        for v, x in zip(names, xs, strict=True)
    ]


def _evaluate_known(equation: Equation, xs: Operands) -> Operands:
    """Evaluates an equation of known arrays while tracing."""
    with at_once():
        return [np.asarray(x) for x in evaluate_equation(equation, [jnp.asarray(x) for x in xs])]


# --- our own, where a rule is simpler than the implementation -------------------------------------


def _barrier(context: LaneContext, *xs: Operand) -> list[Operand]:
    """Makes values that are computed once: a lazy array is written to memory. A kernel needs no
    more; under plain XLA each entry has a barrier, too.
    """
    xs = tuple(to_memory(x, context.space, x.dtype) if isinstance(x, LazyArray) else x for x in xs)
    if not context.space.barriers:
        return list(xs)
    own = [objects(x) for x in xs if isinstance(x, np.ndarray)]
    traced = [
        e for x in own for e in x.flat if not is_known_entry(e) and not isinstance(e, KeyWords)
    ]
    behind = iter(jax.lax.optimization_barrier(traced) if traced else [])

    def passed(entry: Entry) -> Entry:
        return entry if is_known_entry(entry) or isinstance(entry, KeyWords) else next(behind)

    return [map_entries(passed, x) if isinstance(x, np.ndarray) else x for x in xs]


def _lu_factor(context: LaneContext, matrix: np.ndarray) -> Operands | None:
    """Factors a matrix by entries; larger ones are for LAPACK, which a kernel has not."""
    n = len(matrix)
    if n > small_lu.LARGEST_WITH_LANES:
        raise NoKernel(f"a system of {n} equations is too large to be solved by straight code")
    lu = lambda m: [x[..., 0] for x in small_lu.lu(m[..., None])]  # noqa: E731
    return context.traced(lu, [matrix])


def _lu_solve(
    context: LaneContext,
    matrix: np.ndarray,
    lu: np.ndarray,
    order: np.ndarray,
    b: np.ndarray,
    *,
    transposed: bool,
) -> Operands | None:
    del matrix
    if lu.ndim != 2:
        return None
    by = lambda lu, order, b: small_lu.lu_solve(  # noqa: E731
        lu[..., None], order[..., None], b[..., None], transposed=transposed
    )[..., 0]
    return context.traced(by, [lu, order, b])


_OWN: dict[str, Rule] = {
    "lu_factor": _lu_factor,
    "lu_solve": _lu_solve,
    # One lane does not end a clock that is common to all lanes.
    "alone": lambda context, flag: [np.asarray(False)],
}
