"""The times at which a traced function of t is not smooth, read off its equations.

What jumps at times T of its own (a table that holds its values, a past) is called with `jumping(s,
…)` in place of s, which marks an equation. `jumps_of` follows t through the equations of a
function: where s is σ t + s₀, with numbers σ and s₀ that depend neither on t nor on the state, the
function jumps at (T − s₀)/σ, wherever the table came from and however it is shifted; and these
times have the derivatives that T, σ and s₀ have. What is continuous, and its derivative jumps at T,
is called with `bending(s, …)`: this is such a mark where it is differentiated by s alone. A choice
between such functions of t (where, min, max, clip, a branch) may jump where each of them does.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike

from ..core.split import split_by_sizes
from .dynamic_scan import walk_p
from .jax_internals import (
    CALLS,
    Equation,
    Jaxpr,
    Primitive,
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
    name_of,
    output_types,
    parameters,
    pruned,
    scan_of,
    user_line,
    while_of,
    zero_tangent,
)
from .while_loop import loop_p, native_function_p

__all__ = [
    "Hidden",
    "Jumps",
    "Line",
    "bending",
    "concatenate_times",
    "constant_lines",
    "join_jumps",
    "jumping",
    "jumps_of",
    "time",
    "turns_of",
]


class Line(NamedTuple):
    """σ t + s₀, arrays of one shape; `slope` is None where t is not in it."""

    slope: Any
    offset: Any


# What a variable may be, one of a few; None where nothing is known of it.
type _Lines = list[Line] | None

_MOST = 16


def time(dtype: DTypeLike) -> _Lines:
    """The time itself."""
    return [Line(jnp.ones((), dtype), jnp.zeros((), dtype))]


def constant_lines(x: ArrayLike) -> _Lines:
    """The lines of a value that depends neither on the time nor on the state."""
    return [Line(None, jnp.asarray(x))]


class Hidden(NamedTuple):
    """A jump whose argument is no line of t: its kind, and the user's line of code."""

    kind: str
    where: str


class Jumps(NamedTuple):
    """The jumps of a function: a vector of times for each place at which something is called that
    jumps, how far that is shifted, |s₀/σ|, and what is `hidden`; of an input that is, the times of
    its own are among the times. `lines`: at which (σ, s₀) the past is called.
    """

    times: list[Array]
    shifts: list[Array]
    hidden: list[Hidden]
    lines: list[tuple[Array, Array]]

    def reached(self, slope: Array, offset: Array, level: Array) -> None:
        """Adds the times at which lines reach a level: infinity where a line does not move."""
        moves = slope != 0
        per = jnp.where(moves, slope, 1)
        self.times.append(jnp.where(moves, (level - offset) / per, jnp.inf).ravel())
        self.shifts.append(jnp.max(jnp.where(moves, jnp.abs(offset / per), 0), initial=0))


def jumping(s: ArrayLike, times: Callable, *data: Array, kind: str = "input") -> Array:
    """Returns s itself, for what is called with it and jumps at `times(*data)`, a vector; that is
    computed by `jumps_of` alone.

    >>> steps = jnp.array([1.0, 2.0])
    >>> read = lambda t, lag: steps[jnp.int32(jumping(t - lag, jnp.asarray, steps) < 1.0)]
    >>> jaxpr = jax.make_jaxpr(read)(0.0, 0.5)
    >>> jumps_of(jaxpr, [time("float32"), constant_lines(0.5)]).times
    [Array([1.5, 2.5], dtype=float32)]
    """
    levels = tuple(() for _ in data)
    return jumping_p.bind(jnp.asarray(s), *data, times=times, kind=kind, levels=levels)[0]


def bending(s: ArrayLike, times: Callable, *data: Array) -> Array:
    """Returns s itself, for what is called with it and is continuous, and whose derivative by s
    jumps at `times(*data)`: only where it is differentiated by s are these found as jumps.

    >>> read = lambda t: jnp.abs(bending(t, jnp.asarray, jnp.ones(1)) - 1.0)
    >>> jumps_of(jax.make_jaxpr(read)(0.0), [time("float32")]).times
    []
    >>> jumps_of(jax.make_jaxpr(jax.grad(read))(0.0), [time("float32")]).times
    [Array([1.], dtype=float32)]
    """
    levels = tuple(() for _ in data)
    return bending_p.bind(jnp.asarray(s), *data, times=times, kind="input", levels=levels)[0]


def jumps_of(jaxpr: Jaxpr, inputs: Sequence[_Lines]) -> Jumps:
    """Returns the jumps of the function of a jaxpr, given the lines of its inputs."""
    found = Jumps([], [], [], [])
    if contains(jaxpr, jumping_p.name):
        _follow_lines(jaxpr, inputs, _JumpSearch(found), outputs=False)
    return found


def join_jumps(each: Iterable[Jumps]) -> Jumps:
    """All jumps of several functions."""
    whole = Jumps([], [], [], [])
    for found in each:
        whole.times.extend(found.times)
        whole.shifts.extend(found.shifts)
        whole.hidden.extend(found.hidden)
        whole.lines.extend(found.lines)
    return whole


def concatenate_times(*times: Array) -> Array:
    """Times as one vector: where what is called jumps, for `jumping`."""
    return jnp.concatenate([jnp.ravel(t) for t in times])


def turns_of(function: Callable, t: ArrayLike) -> list[Array]:
    """The times at which a function of time turns from one formula to another, by a comparison of t
    (or of a line) with a number: it may jump there.

    >>> turns_of(lambda t: jnp.where(2 * t < 1.0, 0.0, 1.0), 0.0)[0].tolist()
    [0.5]
    """
    found = Jumps([], [], [], [])
    jaxpr = jax.make_jaxpr(function)(t)
    _follow_lines(
        jaxpr, [time(jnp.result_type(t))], _JumpSearch(found, _COMPARISONS), outputs=False
    )
    return found.times


_COMPARISONS = frozenset(("lt", "le", "gt", "ge", "sign"))
_FEW = 256  # comparisons at once that are looked at: more are those of a table


class _JumpSearch(NamedTuple):
    """The jumps that were found so far, and the primitives at which there may be more."""

    found: Jumps
    at: frozenset[str] = frozenset(("jumping",))

    def here(self, equation: Equation) -> bool:
        """True if there may be more in an equation."""
        return is_or_contains(equation, *self.at)


# --- equation by equation -------------------------------------------------------------------------


def _follow_lines(
    jaxpr: Jaxpr, inputs: Sequence[_Lines], search: _JumpSearch, *, outputs: bool = True
) -> list[_Lines]:
    """The lines of the outputs of a jaxpr; equations that lead to no place where something jumps
    are left out.
    """
    return interpret(
        pruned(jaxpr, search.here, outputs=outputs),
        inputs,
        lambda equation, xs: _equation(equation, xs, search),
        lambda x, aval: constant_lines(as_array(x, aval)),
    )


def _equation(equation: Equation, xs: Sequence[_Lines], search: _JumpSearch) -> list[_Lines]:
    name = name_of(equation)
    if _all_constant(xs) and not search.here(equation):
        offsets = [x[0].offset for x in xs if x]
        return list(map(constant_lines, evaluate_equation(equation, offsets)))
    if name in _RULES:
        return _RULES[name](equation, xs, search)
    if search.here(equation):
        search.found.hidden.append(Hidden("input", user_line(equation)))
    if any(x is None for x in xs) or name not in _OF_LINES:
        return [None] * len(output_types(equation))
    lines = _OF_LINES[name](equation, *xs)
    return [lines if lines is None or len(lines) <= _MOST else None]


def _is_constant(x: _Lines) -> bool:
    return x is not None and len(x) == 1 and x[0].slope is None


def _called(equation: Equation, xs: Sequence[_Lines], search: _JumpSearch) -> list[_Lines]:
    return _follow_lines(called(equation), xs, search)


def _branches(equation: Equation, xs: Sequence[_Lines], search: _JumpSearch) -> list[_Lines]:
    each = [_follow_lines(branch, xs[1:], search) for branch in branches_of(equation)]
    return [_any_of(equation, *lines) for lines in zip(*each, strict=True)]


def _selected(equation: Equation, xs: Sequence[_Lines], search: _JumpSearch) -> list[_Lines]:
    """One of several, whatever chooses it."""
    del search
    lines = _any_of(equation, *xs[1:])
    return [lines if lines is None or len(lines) <= _MOST else None]


def _scan(equation: Equation, xs: Sequence[_Lines], search: _JumpSearch) -> list[_Lines]:
    """Of a loop what goes from turn to turn is not followed."""
    scan = scan_of(equation)
    inside = [*xs[: scan.constants], *(None for _ in xs[scan.constants :])]
    _follow_lines(scan.step, inside, search, outputs=False)
    return [None] * len(output_types(equation))


def _while(equation: Equation, xs: Sequence[_Lines], search: _JumpSearch) -> list[_Lines]:
    loop = while_of(equation)
    sizes = loop.of_test, loop.of_body
    of_test, of_body, carry = split_by_sizes(xs, (*sizes, len(xs) - sum(sizes)))
    carry = [None for _ in carry]
    for consts, part in ((of_test, loop.test), (of_body, loop.body)):
        _follow_lines(part, [*consts, *carry], search, outputs=False)
    return [None] * len(output_types(equation))


def _jumping_call(equation: Equation, xs: Sequence[_Lines], search: _JumpSearch) -> list[_Lines]:
    """A place where something is called that jumps."""
    s, *data = xs
    kind, found = parameters(equation)["kind"], search.found
    if kind == "past":
        lines = [(x.slope.ravel(), x.offset.ravel()) for x in s or () if x.slope is not None]
        found.lines.extend(lines)
    known = _all_constant(data)
    if s is None or not known:
        found.hidden.append(Hidden(kind, user_line(equation)))
    if kind == "past" or not known:
        return [s]
    times = _jump_times(equation, [x[0].offset for x in data if x])
    if s is None:
        found.times.append(times.ravel())
    for slope, offset in s or ():
        if slope is not None:
            found.reached(slope[..., None], offset[..., None], times)
    return [s]


def _comparison(equation: Equation, xs: Sequence[_Lines], search: _JumpSearch) -> list[_Lines]:
    """A comparison, whose outcome is no line."""
    if not search.here(equation):
        return [None]
    out = output_types(equation)[0]
    a, *rest = xs
    b = rest[0] if rest else constant_lines(jnp.zeros(out.shape, out.dtype))
    if a is None or b is None or out.size > _FEW:
        return [None]
    slopes = lambda line: jnp.zeros_like(line.offset) if line.slope is None else line.slope  # noqa: E731
    for x in a:
        for y in b:
            if x.slope is not None or y.slope is not None:
                search.found.reached(slopes(x) - slopes(y), x.offset, y.offset)
    return [None]


def _all_constant(xs: Sequence[_Lines]) -> bool:
    return all(_is_constant(x) for x in xs)


def _jump_times(equation: Equation, data: Sequence[Array]) -> Array:
    """The times of its own, for each query."""
    s, params = input_types(equation)[0], parameters(equation)
    of, levels = params["times"], params["levels"]
    for i in reversed(range(s.ndim)):
        axes = [0 if level[i] else None for level in levels]
        of = jax.vmap(of, axes) if any(level[i] for level in levels) else of
    times = of(*data).astype(s.dtype)
    shape = [n if any(level[i] for level in levels) else 1 for i, n in enumerate(s.shape)]
    return times.reshape(*shape, -1)


def _lines_of_first(equation: Equation, xs: Sequence[_Lines], search: _JumpSearch) -> list[_Lines]:
    del equation, search
    return [xs[0]]


def _inside_of_a_solve(equation: Equation, xs: Sequence, search: _JumpSearch) -> list[_Lines]:
    """A solve within a field has steps and a time of its own."""
    del xs, search
    return [None] * len(output_types(equation))


_RULES: dict[str, Callable] = {
    **dict.fromkeys(CALLS, _called),
    "cond": _branches,
    "select_n": _selected,
    "scan": _scan,
    "while": _while,
    "jumping": _jumping_call,
    **dict.fromkeys(_COMPARISONS, _comparison),
    "bending": _lines_of_first,
    "flagged": _lines_of_first,
    loop_p.name: _inside_of_a_solve,
    walk_p.name: _inside_of_a_solve,
    native_function_p.name: _inside_of_a_solve,
}


# --- what becomes of lines ------------------------------------------------------------------------


def _mapped(equation: Equation, *xs: list[Line]) -> _Lines:
    """A linear function of all its inputs, of shapes that it may change."""
    if any(len(x) > 1 for x in xs[1:]) or not _is_floating(equation):
        return None
    lines = []
    for first in xs[0]:
        each = [first, *(x[0] for x in xs[1:])]
        slopes = [jnp.zeros_like(x.offset) if x.slope is None else x.slope for x in each]
        offset = evaluate_equation(equation, [x.offset for x in each])[0]
        moves = any(x.slope is not None for x in each)
        lines.append(Line(evaluate_equation(equation, slopes)[0] if moves else None, offset))
    return lines


def _is_floating(equation: Equation) -> bool:
    return jnp.issubdtype(output_types(equation)[0].dtype, jnp.floating)


def _sum_of_lines(equation: Equation, a: list[Line], b: list[Line]) -> _Lines:
    found: list[Line] = []
    for x in a:
        for y in b:
            found += _mapped(equation, [x], [y]) or []
    return found


def _product_of_lines(equation: Equation, a: list[Line], b: list[Line]) -> _Lines:
    """A product of which at most one factor moves, or a quotient whose denominator does not."""
    quotient = name_of(equation) == "div"
    found = []
    for x in a:
        for y in b:
            if y.slope is not None and (quotient or x.slope is not None):
                return None
            by = lambda p, q: evaluate_equation(equation, [p, q])[0]  # noqa: E731
            slope = None if x.slope is None else by(x.slope, y.offset)
            slope = slope if y.slope is None else by(x.offset, y.slope)
            found.append(Line(slope, by(x.offset, y.offset)))
    return found


def _any_of(equation: Equation, *xs: _Lines) -> _Lines:
    """One of several."""
    shape = output_types(equation)[0].shape
    found: list[Line] = []
    for x in xs:
        if x is None:
            return None
        found += [
            Line(*(v if v is None else jnp.broadcast_to(v, shape) for v in line)) for line in x
        ]
    return found


_OF_LINES: dict[str, Callable] = {
    **dict.fromkeys(
        (
            "neg",
            "convert_element_type",
            "reshape",
            "squeeze",
            "broadcast_in_dim",
            "slice",
            "transpose",
            "copy",
            "stop_gradient",
            "concatenate",
            "stack",
        ),
        _mapped,
    ),
    **dict.fromkeys(("add", "add_any", "sub"), _sum_of_lines),
    **dict.fromkeys(("mul", "div"), _product_of_lines),
    **dict.fromkeys(("max", "min", "clamp"), _any_of),
    "abs": lambda equation, x: [*x, *(Line(s if s is None else -s, -o) for s, o in x)],
}


# --- the primitives -------------------------------------------------------------------------------


def _marking(name: str) -> Primitive:
    """A primitive that returns its first input, and whose name is the mark: where that input moves
    in a derivative, `jumping`.
    """

    def jvp(primals: Sequence, tangents: Sequence, **params: object) -> tuple[list, list]:
        moves = not is_zero(tangents[0])
        out = (jumping_p if moves else primitive).bind(*primals, **params)
        return out, [tangents[0] if moves else zero_tangent(out[0])]

    def batch(
        size: int,
        xs: Sequence,
        axes: Sequence,
        *,
        levels: tuple[tuple[bool, ...], ...],
        **params: object,
    ) -> tuple[list, list[int]]:
        """Axes of queries come first; `levels` says of each of the data which of these it has."""
        s = jnp.broadcast_to(xs[0], (size, *xs[0].shape)) if axes[0] is None else xs[0]
        first = [
            x if axis is None else jnp.moveaxis(x, axis, 0)
            for x, axis in zip((s, *xs[1:]), (axes[0] or 0, *axes[1:]), strict=True)
        ]
        levels = tuple((a is not None, *level) for a, level in zip(axes[1:], levels, strict=True))
        return primitive.bind(*first, levels=levels, **params), [0]

    primitive = define(
        name,
        lambda s, *data, **params: [s],
        lambda s, *data, **params: [ShapedArray(s.shape, s.dtype)],
        jvp=jvp,
        batch=batch,
        dependence=lambda flags, **params: [any(flags)],  # lanes of the data are of s too
        influence=[True],
    )
    return primitive


jumping_p = _marking("jumping")
bending_p = _marking("bending")
