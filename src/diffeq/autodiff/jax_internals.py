"""The one place that uses what JAX does not document: primitives, and the equations of a jaxpr.

To every other module a jaxpr and its equations are opaque. What is asked of them falls into few
families, each with its functions here: the name, types and subprograms of an equation; the
evaluation of all equations one by one, over values of any kind (`interpret`); which outputs depend
on which inputs (`dependents`, `influences`); a jaxpr made of the equations of another one. A change
in JAX is mended here and nowhere else; `core/jax_contracts.py` lists what is used of it, and
`tests/parts/test_contract.py` holds how that behaves.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import jaxlib
from jax import lax
from jax.core import ShapedArray, Trace, Tracer, eval_jaxpr
from jax.extend import source_info_util
from jax.extend.core import Jaxpr, Literal, Primitive, Var, jaxpr_as_fun, jaxprs_in_params
from jax.extend.core import JaxprEqn as Equation
from jax.extend.core.primitives import (
    closed_call_p,
    custom_jvp_call_p,
    custom_vjp_call_p,
    jit_p,
    remat_p,
)
from jax.extend.linear_util import WrappedFun
from jax.interpreters import ad, batching, mlir, partial_eval
from jaxtyping import Array

from ..core.promotion import standard_promotion

__all__ = [
    "CALLS",
    "RULED",
    "Equation",
    "Jaxpr",
    "Primitive",
    "ShapedArray",
    "Tracer",
    "as_array",
    "bound",
    "branches_of",
    "called",
    "constants_of",
    "contains",
    "count_equations",
    "define",
    "dependents",
    "equations",
    "evaluate",
    "evaluate_equation",
    "grouped",
    "implementation_of",
    "in_a_trace",
    "influences",
    "inlinable",
    "input_types",
    "instantiate",
    "interpret",
    "is_foreign",
    "is_key",
    "is_or_contains",
    "is_trace",
    "is_unknown",
    "is_zero",
    "jaxpr_as_fun",
    "lanes_of",
    "line_of",
    "lower_jaxpr",
    "name_of",
    "operation_of",
    "output_types",
    "own_dependence",
    "parameters",
    "parts_of_rule",
    "pruned",
    "push_moving",
    "rearranged",
    "replace_primitive",
    "scan_counts",
    "scan_of",
    "shape_of",
    "split_known",
    "staged",
    "subprograms",
    "tangents_by_rule",
    "trace",
    "user_line",
    "while_of",
    "with_constants",
    "zero_like",
    "zero_tangent",
]


# --- primitives -----------------------------------------------------------------------------------

_implementations: dict[Primitive, Callable] = {}
# Which outputs depend on flagged inputs, for primitives that know better than "all on any".
_dependence: dict[Primitive, Callable] = {lax.optimization_barrier_p: lambda flags: flags}
# Flags of the inputs, from the first on, that a primitive's value is made of, if not of all.
_influence: dict[Primitive, Sequence[bool]] = {}


def define(
    name: str,
    implementation: Callable,
    abstract: Callable,
    *,
    jvp: Callable | None = None,
    transpose: Callable | None = None,
    batch: Callable | None = None,
    dependence: Callable | None = None,
    influence: Sequence[bool] | None = None,
) -> Primitive:
    """A primitive with several results, lowered by tracing its `implementation`.

    `jvp(primals, tangents, **params)`, `transpose(cotangents, *operands, **params)` and
    `batch(size, operands, axes, **params) -> (outputs, axes)` are JAX's own contracts.
    `dependence(flags, **params)` returns which outputs depend on the flagged inputs, where that is
    not each on any; `influence` flags the inputs, from the first on, that its value is made of.
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
        batching.fancy_primitive_batchers[primitive] = _batch_rule(primitive, batch)
    if dependence is not None:
        _dependence[primitive] = dependence
    if influence is not None:
        _influence[primitive] = influence
    return primitive


def _batch_rule(primitive: Primitive, batch: Callable) -> Callable:
    @standard_promotion()
    def rule(axis_data: Any, operands: Sequence, axes: Sequence, **params: Any) -> Any:
        if all(axis is None for axis in axes):
            out = primitive.bind(*operands, **params)
            return out, [None] * len(out)
        return batch(axis_data.size, operands, axes, **params)

    return rule


def _lower_params(params: dict) -> dict:
    """Parameters whose jaxprs have only equations that lower: JAX's own functions of arrays may be
    written in primitives of a higher kind (`jnp.searchsorted` is, from 0.12).
    """
    return {k: lower_jaxpr(x) if isinstance(x, Jaxpr) else x for k, x in params.items()}


def lower_jaxpr(jaxpr: Jaxpr) -> Jaxpr:
    """The jaxpr without primitives of a higher kind, which JAX's own functions have from 0.12."""
    return partial_eval.lower_jaxpr2(jaxpr) if jaxpr.is_high else jaxpr


def staged(jaxpr: Jaxpr) -> Callable:
    """`jaxpr` as a function, for an implementation: lowered as it is, and not traced once more."""
    return lambda *xs: _staged_p.bind(*xs, jaxpr=jaxpr)


_staged_p = Primitive("staged")
_staged_p.multiple_results = True
_staged_p.def_impl(lambda *xs, jaxpr: evaluate(jaxpr, xs))
_staged_p.def_abstract_eval(
    lambda *_, jaxpr: [ShapedArray(a.shape, a.dtype) for a in jaxpr.out_avals]
)
mlir.register_lowering(
    _staged_p,
    lambda ctx, *xs, jaxpr: mlir.core_call_lowering(ctx, *xs, name="staged", call_jaxpr=jaxpr),
)


# --- operands of the rules of a primitive ---------------------------------------------------------

is_unknown = ad.is_undefined_primal


def in_a_trace(leaves: Sequence) -> bool:
    """True if a computation with these is traced: by them, or by the `jit` that it stands in."""
    return any(isinstance(x, Tracer) for x in leaves) or isinstance(jnp.add(0, 0), Tracer)


def lanes_of(leaves: Sequence) -> int:
    """The number of lanes of a computation with these: of the `jax.vmap`s that trace them, outside
    of which there is no `jit` that they are traced by. 1 where a release of JAX does not say it.

    >>> lanes = []
    >>> _ = jax.vmap(jax.grad(lambda x: lanes.append(lanes_of([x])) or x))(jnp.ones(3))
    >>> lanes
    [3]
    """
    sizes: dict[int, Any] = {}
    for leaf in leaves:
        trace = getattr(leaf, "_trace", None)
        while trace is not None and not hasattr(trace, "frame"):
            axis = getattr(trace, "axis_data", None)
            sizes[id(trace)] = 1 if axis is None else axis.size
            trace = getattr(trace, "parent_trace", None)
    return math.prod(size for size in sizes.values() if isinstance(size, int))


def is_key(x: Any) -> bool:
    """True if an array is one of typed random keys."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


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


def shape_of(x: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array, a tracer, an abstract value or an unknown operand."""
    aval: Any = x.aval if is_unknown(x) else x
    aval = aval if hasattr(aval, "shape") else jax.typeof(aval)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


# --- a jaxpr as a function ------------------------------------------------------------------------


def trace(function: Callable, *avals: Any) -> Jaxpr:
    """The jaxpr of `function` at these shapes; it must not close over tracers."""
    return jax.make_jaxpr(function)(*avals)


def bound(function: Callable, *avals: Any) -> tuple[Jaxpr, list]:
    """The jaxpr of `function` with what it closes over as *leading* inputs, and those values.

    This is what makes a closed-over tracer an ordinary operand, hence differentiable.
    """
    jaxpr = jax.make_jaxpr(function)(*avals)
    return with_constants(jaxpr, []), constants_of(jaxpr)


def constants_of(jaxpr: Jaxpr) -> list:
    """The arrays that a traced function closes over."""
    return list(jaxpr.consts)


def with_constants(jaxpr: Jaxpr, values: Sequence) -> Jaxpr:
    """The jaxpr with these values as its constants: of these and of its inputs, in one row, the
    constants are the first ones.

    >>> jaxpr = trace(lambda a, x: a * x, 1.0, 1.0)
    >>> evaluate(with_constants(jaxpr, [3.0]), [2.0])
    [Array(6., dtype=float32, weak_type=True)]
    """
    inputs, n = [*jaxpr.constvars, *jaxpr.invars], len(values)
    of = inputs[:n], inputs[n:], jaxpr.outvars, jaxpr.eqns, jaxpr.effects, _without_names(jaxpr)
    return Jaxpr(*of, is_high=jaxpr.is_high, consts=values)


def evaluate(jaxpr: Jaxpr, inputs: Sequence) -> list:
    """The outputs of a jaxpr; other than by `jaxpr_as_fun`, NaNs inside may be looked for."""
    return eval_jaxpr(jaxpr, jaxpr.consts, *inputs)


# --- an equation ----------------------------------------------------------------------------------


def equations(jaxpr: Jaxpr) -> Sequence[Equation]:
    """The equations of a jaxpr, without those inside of others."""
    return jaxpr.eqns


def name_of(equation: Equation) -> str:
    """The name of the primitive of an equation."""
    return equation.primitive.name


def known_inputs(equation: Equation) -> list[Any]:
    """The inputs of an equation that are numbers, and None for each other one."""
    return [v.val if isinstance(v, Literal) else None for v in equation.invars]


def parameters(equation: Equation) -> dict[str, Any]:
    """The parameters of the primitive of an equation."""
    return equation.params


def input_types(of: Jaxpr | Equation) -> list[ShapedArray]:
    """The types (shape and dtype) of the inputs of a jaxpr or of an equation."""
    return list(map(_type_of, of.invars))


def output_types(of: Jaxpr | Equation) -> list[ShapedArray]:
    """The types (shape and dtype) of the outputs of a jaxpr or of an equation."""
    return list(map(_type_of, of.outvars))


def _type_of(v: Var | Literal) -> ShapedArray:
    return cast("ShapedArray", v.aval)


def operation_of(equation: Equation) -> tuple:
    """An equation without inputs and parameters: its primitive, and the settings of JAX under which
    it is evaluated.
    """
    context = equation.ctx
    settings = context.compute_type, context.xla_metadata, context.threefry_partitionable
    return equation.primitive, *settings


def implementation_of(equation: Equation) -> Callable | None:
    """The implementation of an equation whose primitive is of `define`, as a function of its
    inputs; None of another one.
    """
    found = _implementations.get(equation.primitive)
    return None if found is None else lambda *xs: found(*xs, **equation.params)


def is_foreign(equation: Equation) -> bool:
    """True if its primitive is of a library that is neither JAX nor this package."""
    runs: Any = equation.primitive.impl
    module = getattr(getattr(runs, "func", runs), "__module__", None) or "jax"
    return module.split(".")[0] not in ("jax", "jaxlib", __name__.split(".", maxsplit=1)[0])


def user_line(equation: Equation) -> str:
    """The user's line that an equation is from, "file:number", or that of ours if there is none."""
    traceback: Any = equation.source_info.traceback
    frames = [] if traceback is None else traceback.frames
    frames = [f for f in frames if not f.file_name.startswith(_of_jax())]
    theirs = [f for f in frames if not f.file_name.startswith(_not_theirs())]
    frame = next(iter([*theirs, *frames]), None)
    return "" if frame is None else f"{frame.file_name}:{frame.line_num}"


@cache
def _of_jax() -> tuple[str, ...]:
    """The beginnings of the names of JAX's own files."""
    return (f"{Path(jax.__file__).parent}{os.sep}", f"{Path(jaxlib.__file__).parent}{os.sep}")


@cache
def _not_theirs() -> tuple[str, ...]:
    """The beginnings of the names of files that a user has not written: those of this package and
    of its dependencies, and of a context that is entered as a decorator.
    """
    specs = map(find_spec, ("equinox", "jaxtyping", "beartype"))
    folders = [Path(spec.origin).parent for spec in specs if spec and spec.origin]
    return (
        *(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], *folders)),
        contextlib.__file__,
        "<@beartype",
    )


def line_of(equation: Equation) -> AbstractContextManager:
    """Within it, what is traced is from the line that an equation is from."""
    names = source_info_util.current_name_stack() + equation.source_info.name_stack
    return source_info_util.user_context(equation.source_info.traceback, name_stack=names)


# --- the jaxprs inside of an equation -------------------------------------------------------------

# Equations that only call a jaxpr, also one with a derivative of its own; and their names for it.
_INLINABLE = frozenset((jit_p.name, closed_call_p.name))
CALLS = _INLINABLE | {remat_p.name, custom_jvp_call_p.name, custom_vjp_call_p.name}
# Of these, the one whose forward derivative is a rule of its own. (A `custom_vjp` has none.)
RULED = custom_jvp_call_p.name
_CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def subprograms(equation: Equation) -> Iterator[Jaxpr]:
    """The jaxprs that an equation runs."""
    return jaxprs_in_params(equation.params)


def called(equation: Equation) -> Jaxpr:
    """The jaxpr that an equation of `CALLS` calls."""
    return next(equation.params[name] for name in _CALLED if name in equation.params)


def tangents_by_rule(equation: Equation, moving: Sequence[bool]) -> Jaxpr:
    """The tangents of the outputs of an equation that have any, by the rule of its derivative: a
    function of all inputs, and then of the tangents of those that are moving.

    >>> (equation,) = equations(trace(jax.nn.relu, 1.0))
    >>> evaluate(tangents_by_rule(equation, [True]), [-1.0, 3.0])
    [Array(0., dtype=float32, weak_type=True)]
    """
    types = input_types(equation)
    smooth = [jnp.issubdtype(a.dtype, jnp.inexact) for a in output_types(equation)]

    def tangents(*inputs: Any) -> list:
        def outputs(*xs: Any) -> list:
            found = evaluate_equation(equation, xs)
            return [x for x, on in zip(found, smooth, strict=True) if on]

        at, dots = inputs[: len(types)], inputs[len(types) :]
        return push_moving(outputs, at, moving, dots)[1]

    return trace(tangents, *types, *(a for a, on in zip(types, moving, strict=True) if on))


def push_moving(
    function: Callable, primals: Sequence, moving: Sequence[bool], tangents: Sequence
) -> tuple[Any, Any]:
    """`jax.jvp` of `function(*primals)` by those primals that are moving, whose tangents these are.

    >>> out, dot = push_moving(lambda x, y: [x * y], [2.0, 3.0], [False, True], [1.0])
    >>> float(dot[0])
    2.0
    """

    def of_moving(*xs: Any) -> Any:
        found = iter(xs)
        return function(*(next(found) if on else x for x, on in zip(primals, moving, strict=True)))

    at = [x for x, on in zip(primals, moving, strict=True) if on]
    return jax.jvp(of_moving, at, list(tangents))


def inlinable(equation: Equation) -> Jaxpr | None:
    """The jaxpr of a call that may be replaced by its equations (a nested jit); None of another
    equation.
    """
    return called(equation) if equation.primitive.name in _INLINABLE else None


def branches_of(equation: Equation) -> Sequence[Jaxpr]:
    """The branches of a `cond`: functions of its inputs after the first, which chooses."""
    return equation.params["branches"]


class Scan(NamedTuple):
    """A `scan`: its step takes `constants`, then what is `carried`, then rows."""

    step: Jaxpr
    constants: int
    carried: int
    length: int
    reverse: bool
    unroll: int


def scan_of(equation: Equation) -> Scan:
    """The parts of an equation that is a `scan`."""
    params = equation.params
    options = (params[name] for name in ("length", "reverse", "unroll"))
    return Scan(params["jaxpr"], *scan_counts(params), *options)


def scan_counts(params: dict) -> tuple[int, int]:
    """The number of constants and the number of carries of a scan with these parameters."""
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


class While(NamedTuple):
    """A `while`: the inputs are `of_test` constants, `of_body` constants, and the carry."""

    test: Jaxpr
    body: Jaxpr
    of_test: int
    of_body: int


def while_of(equation: Equation) -> While:
    """The parts of an equation that is a `while`."""
    names = ("cond_jaxpr", "body_jaxpr", "cond_nconsts", "body_nconsts")
    return While(*(equation.params[name] for name in names))


def contains(jaxpr: Jaxpr, *names: str) -> bool:
    """True if an equation of one of these primitives is somewhere in a jaxpr.

    >>> contains(jax.make_jaxpr(jax.jit(lambda x: x[::-1]))(jnp.zeros(2)), "rev")
    True
    """
    return any(is_or_contains(equation, *names) for equation in jaxpr.eqns)


def is_or_contains(equation: Equation, *names: str) -> bool:
    """True if an equation is of one of these primitives, or has one of them somewhere inside."""
    inside = (contains(inner, *names) for inner in subprograms(equation))
    return equation.primitive.name in names or any(inside)


def count_equations(jaxpr: Jaxpr, worth: Mapping[str, int] = MappingProxyType({})) -> int:
    """The number of equations of a jaxpr, those of the jaxprs inside included; one of some
    primitives is `worth` several.

    >>> count_equations(jax.make_jaxpr(jax.jit(lambda x: x + x * x))(1.0))
    3
    """
    return sum(
        worth.get(equation.primitive.name, 1)
        + sum(count_equations(inner, worth) for inner in subprograms(equation))
        for equation in jaxpr.eqns
    )


# --- evaluation, equation by equation -------------------------------------------------------------


def evaluate_equation(equation: Equation, inputs: Sequence) -> list:
    """The outputs of an equation at other inputs; what is made of it is from the same line."""
    primitive = equation.primitive
    with line_of(equation):
        out = primitive.bind(*inputs, **primitive.get_bind_params(equation.params))
    return list(out) if primitive.multiple_results else [out]


def as_array(x: Any, aval: ShapedArray) -> Array:
    """A constant of a jaxpr as an array."""
    return x if isinstance(x, jax.Array) else jnp.asarray(x, aval.dtype)


def interpret[T](
    jaxpr: Jaxpr,
    inputs: Sequence[T],
    rule: Callable[[Equation, list[T]], Sequence[T]],
    constant: Callable[[Any, ShapedArray], T],
) -> list[T]:
    """The outputs of a jaxpr over values of any kind: arrays with a flag, labels, flags alone, what
    is known of an array before it is there.

    `rule(equation, inputs)` returns the outputs of an equation, and `constant(x, aval)` the
    value of a number x that is written in the jaxpr, or that it closes over.

    >>> jaxpr = trace(lambda x, y: (x + 1.0) * y, 1.0, 1.0)
    >>> interpret(jaxpr, ["x", "y"], lambda e, xs: [f"{name_of(e)}({', '.join(xs)})"],
    ...     lambda x, aval: str(x))
    ['mul(add(x, 1.0), y)']
    """
    values = dict(zip(jaxpr.invars, inputs, strict=True))
    constants = dict(zip(jaxpr.constvars, jaxpr.consts, strict=True))

    def read(v: Var | Literal) -> T:
        if isinstance(v, Literal):
            return constant(v.val, _type_of(v))
        return constant(constants[v], _type_of(v)) if v in constants else values[v]

    for equation in jaxpr.eqns:
        out = rule(equation, list(map(read, equation.invars)))
        values.update(zip(equation.outvars, out, strict=True))
    return list(map(read, jaxpr.outvars))


# --- dependence -----------------------------------------------------------------------------------


def own_dependence(equation: Equation, inputs: Sequence[bool]) -> list[bool] | None:
    """Which outputs of an equation depend on the flagged inputs, by a rule of its primitive; None
    if it has none, so that each depends on any.
    """
    rule = _dependence.get(equation.primitive)
    return rule(inputs, **equation.params) if rule else None


def dependents(jaxpr: Jaxpr, inputs: Sequence[bool]) -> list[bool]:
    """Which outputs depend on the flagged inputs.

    An equation passes on what any of its inputs has, unless its primitive has a rule of its own.
    """

    def passed_on(equation: Equation, flags: list[bool]) -> list[bool]:
        found = own_dependence(equation, flags) if any(flags) else None
        return [any(flags)] * len(equation.outvars) if found is None else found

    return interpret(jaxpr, inputs, passed_on, lambda x, aval: False)


def influences(
    jaxpr: Jaxpr, outputs: Sequence[bool] | None = None, *, derivatives: bool = False
) -> list[bool]:
    """Which inputs the (flagged) outputs depend on: the same relation, read backwards. Values alone
    count, or the `derivatives` of the outputs as well.
    """
    out = jaxpr.outvars
    flags = [True] * len(out) if outputs is None else outputs
    flagged = [v for v, flag in zip(out, flags, strict=True) if flag]
    reads = (lambda equation: equation.invars) if derivatives else _influential
    _, needed = _needed(jaxpr.eqns, flagged, reads=reads)
    return [v in needed for v in jaxpr.invars]


def _influential(equation: Equation) -> list:
    """The inputs that the value of an equation is made of."""
    flags = _influence.get(equation.primitive)
    pairs = zip(equation.invars, flags or (), strict=False)
    return equation.invars if flags is None else [v for v, flag in pairs if flag]


def _needed(
    equations: Sequence[Equation],
    outputs: Sequence,
    wanted: Callable[[Equation], bool] = lambda equation: False,
    reads: Callable[[Equation], Sequence] = lambda equation: equation.invars,
) -> tuple[list[Equation], set[Var]]:
    """The equations that are wanted, and those that they or the outputs depend on; and the
    variables that are read by them or are outputs.
    """
    needed, kept = set(_variables(outputs)), []
    for equation in reversed(equations):
        if any(v in needed for v in equation.outvars) or wanted(equation):
            kept.append(equation)
            needed.update(_variables(reads(equation)))
    return kept[::-1], needed


def _variables(xs: Sequence) -> list[Var]:
    return [x for x in xs if not isinstance(x, Literal)]


# --- rules of derivatives, among the parameters of an equation -----------------------------------


def parts_of_rule(x: Any) -> tuple | None:
    """The function of a user that JAX has wrapped for a rule of a derivative, and what it has
    wrapped around it; None of another object.
    """
    return (x.f, x.transforms, x.params) if isinstance(x, WrappedFun) else None


def is_trace(x: Any) -> bool:
    """True if x is what a tracer belongs to."""
    return isinstance(x, Trace)


# --- a jaxpr made of another one ------------------------------------------------------------------


def rearranged(jaxpr: Jaxpr, order: Sequence[int | None], avals: Sequence) -> Jaxpr:
    """The jaxpr with its inputs in another order; None is an input that is not used."""
    inputs = [
        Var(ShapedArray(a.shape, a.dtype)) if i is None else jaxpr.invars[i]
        for i, a in zip(order, avals, strict=True)
    ]
    assert not jaxpr.consts
    return _part_of(jaxpr, inputs, jaxpr.outvars, jaxpr.eqns)


def replace_primitive(jaxpr: Jaxpr, name: str, primitive: Primitive) -> Jaxpr:
    """The jaxpr in which all equations of one primitive, inside of others too, are of another one
    that has no parameters.
    """

    def new(x: Any) -> Any:
        if isinstance(x, tuple) and type(x) is tuple:
            return tuple(map(new, x))
        return replace_primitive(x, name, primitive) if isinstance(x, Jaxpr) else x

    def turned(equation: Equation) -> Equation:
        if equation.primitive.name == name:
            return equation.replace(primitive=primitive, params={})
        if not is_or_contains(equation, name):
            return equation
        return equation.replace(params={k: new(v) for k, v in equation.params.items()})

    return jaxpr.replace(eqns=[turned(equation) for equation in jaxpr.eqns])


def carry_filled(
    jaxpr: Jaxpr, filled: Callable[[Equation], Sequence[tuple[int, int]]]
) -> tuple[Jaxpr, list[ShapedArray]]:
    """The jaxpr with arrays that it fills as further inputs, and filled as further outputs; and the
    types of these. `filled` tells of an equation the inputs that it fills, reading nothing of them
    before, each with its output; those that nothing in the jaxpr reads, and those that it returns,
    stay as they are.
    """
    read = {v for equation in jaxpr.eqns for v in _variables(equation.invars)}
    read -= {*_variables(jaxpr.outvars)}
    equations, tables, results = [], [], []
    for equation in jaxpr.eqns:
        inputs = list(equation.invars)
        for i, o in filled(equation):
            result = equation.outvars[o]
            if result in read:
                tables.append(Var(result.aval))
                results.append(result)
                inputs[i] = tables[-1]
        equations.append(equation.replace(invars=inputs))
    if not tables:
        return jaxpr, []
    inputs, outputs = [*jaxpr.constvars, *jaxpr.invars, *tables], [*jaxpr.outvars, *results]
    kept, _ = _needed(equations, outputs, wanted=lambda equation: bool(equation.effects))
    whole = with_constants(_part_of(jaxpr, inputs, outputs, kept), jaxpr.consts)
    return whole, [v.aval for v in tables]


def pruned(jaxpr: Jaxpr, wanted: Callable[[Equation], bool], *, outputs: bool) -> Jaxpr:
    """The jaxpr, with its outputs or without any, of the equations that are wanted and those that
    are needed for them or for the outputs.
    """
    returned = jaxpr.outvars if outputs else []
    kept, _ = _needed(jaxpr.eqns, returned, wanted)
    inputs = [*jaxpr.constvars, *jaxpr.invars]
    return with_constants(_part_of(jaxpr, inputs, returned, kept), jaxpr.consts)


def split_known(
    jaxpr: Jaxpr, known: Sequence[bool], early: Callable[[Equation], bool]
) -> tuple[Jaxpr, Jaxpr] | None:
    """(before, rest) of a jaxpr: `before` is a function of the constants and of the inputs that are
    known, and computes all equations of these alone that are to be evaluated `early`; `rest` is a
    function of the constants, of what `before` returns, and of all inputs. None if there are none.
    """
    inputs = [v for v, flag in zip(jaxpr.invars, known, strict=True) if flag]
    found, first = {*jaxpr.constvars, *inputs}, []
    for equation in jaxpr.eqns:
        if not equation.effects and found.issuperset(_variables(equation.invars)):
            found.update(equation.outvars)
            first += [equation] if early(equation) else []
    if not first:
        return None
    rest = [e for e in jaxpr.eqns if not any(e is f for f in first)]
    used = {*_variables([v for e in rest for v in e.invars]), *_variables(jaxpr.outvars)}
    cut = [v for e in first for v in e.outvars if v in used]
    before, _ = _needed(jaxpr.eqns, cut)
    rest, _ = _needed(rest, jaxpr.outvars, wanted=lambda equation: bool(equation.effects))
    consts = jaxpr.constvars
    return (
        _part_of(jaxpr, [*consts, *inputs], cut, before),
        _part_of(jaxpr, [*consts, *cut, *jaxpr.invars], jaxpr.outvars, rest),
    )


def grouped(jaxpr: Jaxpr, apart: Callable[[Equation], bool]) -> Jaxpr:
    """A jaxpr of the same function, in which all equations between those that stand `apart` are
    inside of one nested jit.

    >>> jaxpr = trace(lambda x: jnp.sin(x + 1.0) * 2.0 - 1.0, 1.0)
    >>> list(map(name_of, equations(grouped(jaxpr, lambda e: name_of(e) == "sin"))))
    ['jit', 'sin', 'jit']
    """
    steps: list[tuple[Callable, list, list]] = []  # functions of variables, the last one first
    read_later = set(_variables(jaxpr.outvars))
    for alone, run in reversed([(k, list(run)) for k, run in groupby(jaxpr.eqns, apart)]):
        reads = [v for e in run for v in e.invars]
        if alone:
            steps += [(_function_of(e), e.invars, e.outvars) for e in reversed(run)]
        else:
            made = dict.fromkeys(v for e in run for v in e.outvars)
            given = [v for v in dict.fromkeys(_variables(reads)) if v not in made]
            returned = [v for v in made if v in read_later]
            part = _part_of(jaxpr, given, returned, run)
            steps.append((jax.jit(jaxpr_as_fun(part)), given, returned))
        read_later.update(_variables(reads))

    def evaluated(*inputs: Any) -> list:
        values = dict(zip(jaxpr.invars, inputs, strict=True))
        values.update(zip(jaxpr.constvars, jaxpr.consts, strict=True))
        read = lambda v: v.val if isinstance(v, Literal) else values[v]  # noqa: E731
        for function, given, returned in reversed(steps):
            values.update(zip(returned, function(*map(read, given)), strict=True))
        return list(map(read, jaxpr.outvars))

    return trace(evaluated, *jaxpr.in_avals)


def _function_of(equation: Equation) -> Callable[..., list]:
    return lambda *inputs: evaluate_equation(equation, inputs)


def _part_of(
    jaxpr: Jaxpr, inputs: Sequence, outputs: Sequence, equations: Sequence[Equation]
) -> Jaxpr:
    """A jaxpr of some of the equations of another one, without constants."""
    effects = frozenset().union(*(e.effects for e in equations))
    of = (), inputs, outputs, equations, effects, _without_names(jaxpr)
    return Jaxpr(*of, is_high=jaxpr.is_high)


def _without_names(jaxpr: Jaxpr) -> Any:
    """The origin of a jaxpr for messages, but for the names of its inputs and outputs."""
    return jaxpr.debug_info._replace(arg_names=None, result_paths=None)
