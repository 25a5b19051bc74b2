"""The one place that touches private corners of JAX: primitives, jaxprs and their dependence.

`walk` and `loop` are written against the few functions of this module, so a change in JAX is
mended here and nowhere else; `tests/parts/test_contract.py` holds the behaviour that we rely on.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax._src import source_info_util
from jax._src.core import jaxprs_in_params
from jax.core import ShapedArray, Tracer, eval_jaxpr
from jax.extend.core import Jaxpr, Literal, Primitive, Var, jaxpr_as_fun, subjaxprs
from jax.interpreters import ad, batching, mlir, partial_eval
from jaxtyping import Array

from ..core.promotion import standard_promotion

__all__ = [
    "CALLS",
    "Jaxpr",
    "Literal",
    "Primitive",
    "ShapedArray",
    "Tracer",
    "bound",
    "compared",
    "contains",
    "contains_inside",
    "count_equations",
    "define",
    "dependence",
    "dependents",
    "eval_jaxpr",
    "if_unbatched",
    "implementation_of",
    "in_a_trace",
    "influence",
    "influences",
    "inner_jaxpr",
    "instantiate",
    "is_foreign",
    "is_key",
    "is_or_contains",
    "is_unknown",
    "is_zero",
    "jaxpr_as_fun",
    "jaxprs_inside",
    "key_kind",
    "lanes_last",
    "line_of",
    "literal",
    "lower_jaxpr",
    "once_traced",
    "open_jaxpr",
    "rearranged",
    "rebind",
    "remade",
    "replace_primitive",
    "scan_counts",
    "shape_of",
    "split_by_sizes",
    "staged",
    "subjaxprs",
    "trace",
    "trace_once",
    "user_line",
    "with_constants",
    "zero_like",
]

is_unknown = ad.is_undefined_primal


def in_a_trace(leaves: Sequence) -> bool:
    """True if a computation with these is traced: by them, or by the `jit` that it stands in."""
    return any(isinstance(x, Tracer) for x in leaves) or isinstance(jnp.add(0, 0), Tracer)


_implementations: dict[Primitive, Callable] = {}


def define(
    name: str,
    implementation: Callable,
    abstract: Callable,
    *,
    jvp: Callable | None = None,
    transpose: Callable | None = None,
    batch: Callable | None = None,
) -> Primitive:
    """A primitive with several results, lowered by tracing its `implementation`.

    `jvp(primals, tangents, **params)`, `transpose(cotangents, *operands, **params)` and
    `batch(size, operands, axes, **params) -> (outputs, axes)` are JAX's own contracts.
    """
    primitive = Primitive(name)
    primitive.multiple_results = True
    implementation = standard_promotion()(implementation)

    def call(operands: Sequence, params: tuple) -> list:
        # With jit disabled, and where JAX looks for a NaN (`jax_debug_nans`), it is not traced.
        run = primitive.bind if in_a_trace(operands) else implementation
        return run(*operands, **dict(params))

    compiled = jax.jit(call, static_argnums=1)
    _implementations[primitive] = implementation
    primitive.def_impl(lambda *operands, **params: compiled(operands, tuple(params.items())))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(implementation, multiple_results=True))
    primitive.to_lojax = lambda *xs, **params: primitive.bind(*xs, **_lower_params(params))
    if jvp is not None:
        ad.primitive_jvps[primitive] = standard_promotion()(jvp)
    if transpose is not None:
        ad.primitive_transposes[primitive] = standard_promotion()(transpose)
    if batch is not None:

        @standard_promotion()
        def rule(axis_data: Any, operands: Sequence, axes: Sequence, **params: Any) -> Any:
            if all(axis is None for axis in axes):
                out = primitive.bind(*operands, **params)
                return out, [None] * len(out)
            return batch(axis_data.size, operands, axes, **params)

        batching.fancy_primitive_batchers[primitive] = rule
    return primitive


def is_foreign(primitive: Primitive) -> bool:
    """True if a primitive is of a library that is neither JAX nor this package."""
    runs: Any = primitive.impl
    module = getattr(getattr(runs, "func", runs), "__module__", None) or "jax"
    return module.split(".")[0] not in ("jax", "jaxlib", __name__.split(".", maxsplit=1)[0])


def implementation_of(equation: Any) -> Callable | None:
    """Returns the implementation of an equation whose primitive was defined here, as a function of
    its inputs; of another one None.
    """
    found = _implementations.get(equation.primitive)
    return None if found is None else lambda *xs: found(*xs, **equation.params)


def _lower_params(params: dict) -> dict:
    """Parameters whose jaxprs have only equations that lower: JAX's own functions of arrays may be
    written in primitives of a higher kind (`jnp.searchsorted` is, from 0.12).
    """
    return {k: lower_jaxpr(x) if isinstance(x, Jaxpr) else x for k, x in params.items()}


def lower_jaxpr(jaxpr: Jaxpr) -> Jaxpr:
    """A closed jaxpr without primitives of a higher kind."""
    return partial_eval.lower_jaxpr2(jaxpr) if getattr(jaxpr, "is_high", False) else jaxpr


def staged(jaxpr: Jaxpr) -> Callable:
    """`jaxpr` as a function, for an implementation: lowered as it is, and not traced once more."""
    return lambda *xs: _staged_p.bind(*xs, jaxpr=jaxpr)


_staged_p = Primitive("staged")
_staged_p.multiple_results = True
_staged_p.def_impl(lambda *xs, jaxpr: eval_jaxpr(jaxpr.jaxpr, jaxpr.consts, *xs))
_staged_p.def_abstract_eval(
    lambda *_, jaxpr: [ShapedArray(a.shape, a.dtype) for a in jaxpr.out_avals]
)
mlir.register_lowering(
    _staged_p,
    lambda ctx, *xs, jaxpr: mlir.core_call_lowering(ctx, *xs, name="staged", call_jaxpr=jaxpr),
)


def is_zero(tangent: Any) -> bool:
    """True if a tangent or cotangent is a symbolic zero (never materialised)."""
    return tangent is None or isinstance(tangent, ad.Zero)


def instantiate(tangent: Any, like: Any) -> Array:
    """The tangent as an array: symbolic zeros become zeros of the shape of `like`."""
    return zero_like(like) if is_zero(tangent) else jnp.asarray(tangent)


def zero_like(like: Any) -> Array:
    """Zeros of the shape and dtype of an array, an abstract value or an unknown operand."""
    aval = shape_of(like)
    return jnp.zeros(aval.shape, aval.dtype)


def zero_tangent(like: Any) -> Any:
    """The symbolic zero in the tangent space of `like`."""
    return ad.Zero(jax.typeof(like).to_tangent_aval())


def literal(v: Any) -> Array:
    """The value of a literal, as an array."""
    return jnp.asarray(v.val, v.aval.dtype)


def shape_of(x: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array, a tracer, an abstract value, a literal or an unknown operand."""
    aval: Any = x.aval if is_unknown(x) or isinstance(x, Literal) else x
    aval = aval if hasattr(aval, "shape") else jax.typeof(aval)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def split_by_sizes(xs: Sequence, sizes: Sequence[int]) -> list[list]:
    """Consecutive pieces of `xs`, with lengths `sizes`."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(list(xs[start : start + size]))
        start += size
    return pieces


def trace(function: Callable, *avals: Any) -> Jaxpr:
    """The closed jaxpr of `function` at these shapes; it must not close over tracers."""
    return jax.make_jaxpr(function)(*avals)


def bound(function: Callable, *avals: Any) -> tuple[Jaxpr, list]:
    """The jaxpr of `function` with what it closes over as *leading* inputs, and those values.

    This is what makes a closed-over tracer an ordinary operand, hence differentiable.
    """
    closed = jax.make_jaxpr(function)(*avals)
    consts = list(closed.consts)
    return (
        _close_jaxpr(partial_eval.convert_constvars_jaxpr(closed.jaxpr)) if consts else closed
    ), consts


def _close_jaxpr(jaxpr: Any) -> Jaxpr:
    """Closed over nothing. One class serves for both kinds of jaxpr from JAX 0.12 on."""
    return jaxpr if hasattr(jaxpr, "consts") else partial_eval.close_jaxpr(jaxpr)


def rearranged(jaxpr: Jaxpr, order: Sequence[int | None], avals: Sequence) -> Jaxpr:
    """Returns the jaxpr with its inputs in another order; None is an input that is not used."""
    inner = jaxpr.jaxpr
    inputs = [
        Var(ShapedArray(a.shape, a.dtype)) if i is None else inner.invars[i]
        for i, a in zip(order, avals, strict=True)
    ]
    assert not jaxpr.consts
    debug = inner.debug_info._replace(arg_names=None)
    return _close_jaxpr(_jaxpr_like(inner, inputs, inner.outvars, inner.eqns, inner.effects, debug))


def _jaxpr_like(
    inner: Any, inputs: Sequence, outputs: Sequence, equations: Sequence, effects: Any, debug: Any
) -> Any:
    """A jaxpr of some of the equations of another one, which are of the same kind of primitives."""
    high = getattr(inner, "is_high", False)
    return type(inner)((), inputs, outputs, equations, effects, debug, is_high=high)


def inner_jaxpr(equation: Any) -> Jaxpr | None:
    """The jaxpr of an equation that only calls it (a nested jit)."""
    inner = (
        equation.params.get("jaxpr")
        if equation.primitive.name in ("jit", "pjit", "closed_call")
        else None
    )
    return inner if inner is not None and hasattr(inner, "consts") else None


# Equations that only call a jaxpr, also one with a derivative of its own; and their names for it.
CALLS = frozenset(("jit", "closed_call", "remat2", "custom_jvp_call", "custom_vjp_call"))
_CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def open_jaxpr(equation: Any) -> Jaxpr:
    """The closed jaxpr that an equation calls, also one with a derivative of its own."""
    return _close_jaxpr(next(equation.params[name] for name in _CALLED if name in equation.params))


def scan_counts(params: dict) -> tuple[int, int]:
    """The number of constants and the number of carries of a scan."""
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


@cache
def _not_theirs() -> tuple[str, ...]:
    """The beginnings of the names of files that a user has not written: those of this package, and
    of its dependencies.
    """
    specs = map(find_spec, ("equinox", "jaxtyping", "beartype"))
    folders = [Path(spec.origin).parent for spec in specs if spec and spec.origin]
    return (
        *(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], *folders)),
        "<@beartype",
    )


def user_line(equation: Any) -> str:
    """The user's line that an equation is from, "file:number", or that of ours if there is none."""
    frames = list(source_info_util.user_frames(equation.source_info.traceback))
    theirs = [f for f in frames if not f.file_name.startswith(_not_theirs())]
    frame = next(iter([*theirs, *frames]), None)
    return "" if frame is None else f"{frame.file_name}:{frame.start_line}"


def line_of(equation: Any) -> AbstractContextManager:
    """Within it, what is traced is from the line that an equation is from."""
    names = source_info_util.current_name_stack() + equation.source_info.name_stack
    return source_info_util.user_context(equation.source_info.traceback, name_stack=names)


def is_key(x: Any) -> bool:
    """True if an array is one of typed random keys."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def key_kind(aval: Any) -> Any:
    """The functions of keys of this kind."""
    return getattr(aval.dtype, "_impl", None)


def contains(jaxpr: Any, *names: str) -> bool:
    """True if an equation of one of these primitives is somewhere in a jaxpr.

    >>> contains(jax.make_jaxpr(jax.jit(lambda x: x[::-1]))(jnp.zeros(2)).jaxpr, "rev")
    True
    """
    return any(is_or_contains(equation, *names) for equation in jaxpr.eqns)


def remade(
    jaxpr: Jaxpr, constants: Sequence, inputs: Sequence, outputs: Sequence, equations: Sequence
) -> Any:
    """A jaxpr of some of the equations of another one: those that the outputs depend on, and those
    with effects. Its constants are its first inputs.
    """
    needed, kept = set(_variables(outputs)), []
    for equation in reversed(equations):
        if equation.effects or any(v in needed for v in equation.outvars):
            kept.append(equation)
            needed.update(_variables(equation.invars))
    inner = jaxpr.jaxpr
    debug = inner.debug_info._replace(arg_names=None, result_paths=None)
    effects = frozenset().union(*(e.effects for e in kept))
    inputs = [*constants, *inputs]
    return _close_jaxpr(_jaxpr_like(inner, inputs, outputs, kept[::-1], effects, debug))


def with_constants(jaxpr: Jaxpr, values: Sequence) -> Jaxpr:
    """A jaxpr whose first inputs are constants of these values."""
    return jaxpr.with_consts(values)


def contains_inside(equation: Any, *names: str) -> bool:
    """True if an equation of one of these primitives is somewhere in the jaxprs that another
    equation runs.

    >>> nested = jax.make_jaxpr(jax.jit(lambda x: x[::-1]))(jnp.zeros(2)).eqns[0]
    >>> contains_inside(nested, "rev"), contains_inside(nested, "jit")
    (True, False)
    """
    return any(contains(inner, *names) for inner in jaxprs_inside(equation))


def jaxprs_inside(equation: Any) -> Iterator[Any]:
    """The open jaxprs that an equation runs."""
    return jaxprs_in_params(equation.params)


def is_or_contains(equation: Any, *names: str) -> bool:
    """True if an equation is of one of these primitives, or has one of them somewhere inside."""
    return equation.primitive.name in names or contains_inside(equation, *names)


def replace_primitive(jaxpr: Jaxpr, name: str, primitive: Primitive) -> Jaxpr:
    """A jaxpr in which all equations of one primitive, inside of others too, are of another one
    that has no parameters.
    """

    def new(x: Any) -> Any:
        if isinstance(x, tuple) and type(x) is tuple:
            return tuple(map(new, x))
        return replace_primitive(x, name, primitive) if isinstance(x, Jaxpr) else x

    def turned(equation: Any) -> Any:
        if equation.primitive.name == name:
            return equation.replace(primitive=primitive, params={})
        if not contains_inside(equation, name):
            return equation
        return equation.replace(params={k: new(v) for k, v in equation.params.items()})

    return jaxpr.replace(eqns=[turned(equation) for equation in jaxpr.eqns])


def count_equations(jaxpr: Any, worth: Mapping[str, int] = MappingProxyType({})) -> int:
    """The number of equations of a jaxpr, those of the jaxprs inside included; one of some
    primitives is `worth` several.

    >>> count_equations(jax.make_jaxpr(jax.jit(lambda x: x + x * x))(1.0).jaxpr)
    3
    """
    own = sum(worth.get(equation.primitive.name, 1) for equation in jaxpr.eqns)
    return own + sum(count_equations(inner, worth) for inner in subjaxprs(jaxpr))


# What an array passes through as it is, but for its shape; and comparisons, with the sign of a − b.
_SHAPES = ("broadcast_in_dim", "concatenate", "copy", "reshape", "squeeze", "stack")
_COMPARISONS = {"gt": 1, "ge": 1, "lt": -1, "le": -1}


def compared(jaxpr: Jaxpr) -> tuple[str, Callable] | None:
    """Returns the kind of the comparisons of numbers a ⋚ b that a jaxpr's boolean ends in, if it
    does: "order", and a function of (consts, *inputs) that returns a − b, positive where the
    boolean is true; or "equality", for a == b.

    >>> jaxpr = jax.make_jaxpr(lambda x: jnp.less(x, 2.0))(1.0)
    >>> float(compared(jaxpr)[1]([], 5.0))
    -3.0
    """
    consts = [shape_of(jnp.asarray(c)) for c in jaxpr.consts]
    flat = trace(lambda cs, *xs: _inlined(jaxpr, cs, xs), consts, *jaxpr.in_avals)
    made = {v: equation for equation in flat.jaxpr.eqns for v in equation.outvars}
    needed = [flat.jaxpr.outvars[0]]
    while needed:
        equation = None if isinstance(needed[-1], Literal) else made.get(needed[-1])
        needed.pop()
        name = equation.primitive.name if equation is not None else ""
        if equation is not None and name in (*_SHAPES, "not"):
            needed += equation.invars
        elif (
            equation is None
            or name not in _COMPARISONS
            or not all(map(_is_floating_variable, equation.invars))
        ):
            return ("equality", lambda *_: None) if name == "eq" else None

    def difference(consts: Sequence, *xs: Any) -> Any:
        values = _values(flat, flat.consts, (*consts, *xs))

        def number(v: Any) -> Any:
            equation = made[v]
            if equation.primitive.name in _COMPARISONS:
                a, b = (x.val if isinstance(x, Literal) else values[x] for x in equation.invars)
                return jnp.asarray(_COMPARISONS[equation.primitive.name] * (a - b))
            inner = [number(x) for x in equation.invars]
            return -inner[0] if equation.primitive.name == "not" else rebind(equation, inner)[0]

        return number(flat.jaxpr.outvars[0])

    return "order", difference


def _is_floating_variable(v: Any) -> bool:
    return jnp.issubdtype(v.aval.dtype, jnp.floating)


def _inlined(jaxpr: Jaxpr, consts: Sequence, xs: Sequence) -> list:
    """The outputs of a jaxpr, with nested calls opened."""
    values = _values(jaxpr, consts, xs)
    return [v.val if isinstance(v, Literal) else values[v] for v in jaxpr.jaxpr.outvars]


def _values(jaxpr: Jaxpr, consts: Sequence, xs: Sequence) -> dict:
    """The values of all variables of a jaxpr, with nested calls opened."""
    values = dict(zip(jaxpr.jaxpr.invars, xs, strict=True))
    values.update(zip(jaxpr.jaxpr.constvars, consts, strict=True))
    for equation in jaxpr.jaxpr.eqns:
        inputs = [v.val if isinstance(v, Literal) else values[v] for v in equation.invars]
        inner = inner_jaxpr(equation)
        out = rebind(equation, inputs) if inner is None else _inlined(inner, inner.consts, inputs)
        values.update(zip(equation.outvars, out, strict=True))
    return values


def rebind(equation: Any, xs: Sequence) -> list:
    """The outputs of an equation at other inputs; what is made of it is from the same line."""
    params = equation.primitive.get_bind_params(equation.params)
    functions, params = (
        params if isinstance(params, tuple) else ((), params)
    )  # a tuple before JAX 0.12
    with line_of(equation):
        out = equation.primitive.bind(*functions, *xs, **params)
    return list(out) if equation.primitive.multiple_results else [out]


def trace_once(cache: dict, key: Any, function: Callable, *args: Any) -> Any:
    """`function(*args)`, traced once for these shapes; later calls replay its equations.

    Replaying costs a tenth of tracing, and a step is wanted in the loop, in its taped twin, in
    their tangents and transposes. `function` must not close over tracers.
    """
    leaves, tree = jax.tree.flatten(args)
    avals = [shape_of(jnp.asarray(x)) for x in leaves]
    key = (key, tree, tuple((a.shape, a.dtype) for a in avals))
    if key not in cache:
        cache[key] = once_traced(lambda xs: function(*jax.tree.unflatten(tree, xs)), avals)
    jaxpr, out = cache[key]
    leaves = [jnp.asarray(x, a.dtype) for x, a in zip(leaves, avals, strict=True)]
    return jax.tree.unflatten(out, eval_jaxpr(jaxpr.jaxpr, jaxpr.consts, *leaves))


def once_traced(function: Callable, avals: Sequence) -> tuple[Jaxpr, Any]:
    """The jaxpr of a function of a list of arrays, and the tree of what it returns."""
    jaxpr, shape = jax.make_jaxpr(function, return_shape=True)([shape_of(a) for a in avals])
    return jaxpr, jax.tree.structure(shape)


def _variables(xs: Sequence) -> list:
    return [x for x in xs if not isinstance(x, Literal)]


# Primitives that know better which of their outputs depend on which inputs.
dependence: dict[Primitive, Callable] = {lax.optimization_barrier_p: lambda flags: flags}


# Primitives whose value is made of some of their inputs alone: flags, from the first input on.
influence: dict[Primitive, Sequence[bool]] = {}


def dependents(jaxpr: Jaxpr, inputs: Sequence[bool]) -> list[bool]:
    """Which outputs depend on the flagged inputs.

    An equation passes on what any of its inputs has, unless its primitive has a rule of its own.
    """
    marked = {v for v, flag in zip(jaxpr.jaxpr.invars, inputs, strict=True) if flag}
    for equation in jaxpr.jaxpr.eqns:
        flags = [not isinstance(v, Literal) and v in marked for v in equation.invars]
        if any(flags):
            rule = dependence.get(equation.primitive)
            out = rule(flags, **equation.params) if rule else [True] * len(equation.outvars)
            marked.update(v for v, flag in zip(equation.outvars, out, strict=True) if flag)
    return [not isinstance(v, Literal) and v in marked for v in jaxpr.jaxpr.outvars]


def influences(jaxpr: Jaxpr, outputs: Sequence[bool] | None = None) -> list[bool]:
    """Which inputs the (flagged) outputs depend on: the same relation, read backwards."""
    out = jaxpr.jaxpr.outvars
    flags = [True] * len(out) if outputs is None else outputs
    marked = set(_variables([v for v, flag in zip(out, flags, strict=True) if flag]))
    for equation in reversed(jaxpr.jaxpr.eqns):
        if any(v in marked for v in equation.outvars):
            count = len(equation.invars)
            relevant = [*influence.get(equation.primitive, [True] * count), *[False] * count][
                :count
            ]
            marked.update(
                _variables([v for v, a in zip(equation.invars, relevant, strict=True) if a])
            )
    return [v in marked for v in jaxpr.jaxpr.invars]


def lanes_last(x: Any, axis: int | None, size: int, *, force: bool = False) -> Any:
    """The batch axis moved to the end, where the lanes of one component lie side by side."""
    if axis is None:  # a number, it may be
        return jnp.broadcast_to(jnp.asarray(x)[..., None], (*jnp.shape(x), size)) if force else x
    return jnp.moveaxis(x, axis, -1)


def if_unbatched(flag: Any) -> Array:
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
)
dependence[_alone_p] = lambda flags: [False]
