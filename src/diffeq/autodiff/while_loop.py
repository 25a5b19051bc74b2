"""`loop`: a while loop whose predicate is never batched, and which copies no buffer under vmap.

JAX's own `while_loop` under `vmap` selects every carried array at every turn, so a buffer of saved
values is copied whole. Here the carry has two groups: the *state* of a lane is selected when the
lane has finished, and *buffers* are left to the body, which sees whether its lane is `active`.
A buffer that no lane influences (the number of the turn, the stride of a tape) stays common; it
must be a count that only grows.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Int, PyTree

from ..core.packing import TreeDef
from ..core.split import Sizes, split_by_sizes
from .batch_last import lanes_last, over_lanes
from .jax_internals import (
    Jaxpr,
    ShapedArray,
    bound,
    define,
    dependents,
    input_types,
    jaxpr_as_fun,
    output_types,
    rearranged,
    shape_of,
    staged,
    trace,
    zero_like,
)
from .packed import pack, unpack
from .trace_once import once_traced
from .transposed_weights import with_transposed_weights

type _Carry = tuple[list, list]  # the state of the lanes, and the buffers


def loop(
    condition: Callable, body: Callable, state: PyTree, buffers: PyTree = (), *, consts: PyTree = ()
) -> tuple[PyTree, PyTree]:
    """state, buffers = body(active, consts, state, buffers) while condition(consts, …) holds.

    Not differentiable by itself: `adjoints/` gives loops their derivative. `body` must write
    buffers only where `active`, which it sees because an idle lane runs along with the others.

    >>> state, _ = loop(lambda c, s, b: s < 5, lambda active, _, s, b: (s + 2, b), 0)
    >>> int(state)
    6
    """
    flat, trees = zip(
        *(jax.tree.flatten(jax.tree.map(jnp.asarray, g)) for g in (consts, state, buffers)),
        strict=True,
    )
    sizes = tuple(len(group) for group in flat)
    avals = [[shape_of(x) for x in group] for group in flat]

    def unflatten(xs: Sequence) -> list:
        return [
            jax.tree.unflatten(t, x) for t, x in zip(trees, split_by_sizes(xs, sizes), strict=True)
        ]

    def flat_condition(*xs: Array) -> list:
        return [condition(*unflatten(xs))]

    def flat_body(active: Bool[Array, ""], *xs: Array) -> list:
        return jax.tree.leaves(body(active, *unflatten(xs)))

    everything = [a for group in avals for a in group]
    condition_jaxpr, outer = bound(flat_condition, *everything)
    assert not outer, "a loop's condition closes over nothing"
    body_jaxpr, outer = bound(flat_body, jax.ShapeDtypeStruct((), bool), *everything)
    if outer:
        condition_jaxpr, body_jaxpr = _with_consts(
            condition_jaxpr, body_jaxpr, len(outer), everything
        )
        flat, sizes = ([*outer, *flat[0]], *flat[1:]), (len(outer) + sizes[0], *sizes[1:])
    out = loop_p.bind(
        *(x for group in flat for x in group),
        condition=condition_jaxpr,
        body=body_jaxpr,
        sizes=sizes,
    )
    state, buffers = split_by_sizes(out, sizes[1:])
    return jax.tree.unflatten(trees[1], state), jax.tree.unflatten(trees[2], buffers)


def single_iteration_loop(function: Callable, *args: PyTree) -> PyTree:
    """`function(*args)` as one turn of a loop: XLA on a CPU makes one native function of a small
    loop, where it would run each piece of straight code as a task of its own, with threads that
    wait for each other longer than the pieces take. Not differentiable.

    >>> float(single_iteration_loop(lambda x, y: x + y, 1.0, 2.0))
    3.0
    """
    leaves, run, out = _as_jaxpr(function, args)
    return jax.tree.unflatten(out, single_iteration(*leaves, jaxpr=run))


def native_function(function: Callable, *args: PyTree, in_loop: bool = True) -> PyTree:
    """`function(*args)` as a `single_iteration_loop`, or as straight code, which it is under `vmap`
    in any case: the lanes of both are in the same places. Not differentiable.

    >>> float(native_function(lambda x, y: x + y, 1.0, 2.0))
    3.0
    """
    leaves, run, out = _as_jaxpr(function, args)
    return jax.tree.unflatten(out, native_function_p.bind(*leaves, jaxpr=run, in_loop=in_loop))


def _as_jaxpr(function: Callable, args: tuple) -> tuple[list, Jaxpr, TreeDef]:
    """The leaves of the arguments, and the jaxpr of the function of them."""
    leaves, tree = jax.tree.flatten(jax.tree.map(jnp.asarray, args))
    run, out = once_traced(lambda xs: function(*jax.tree.unflatten(tree, xs)), leaves)
    return leaves, run, out


def single_iteration(*leaves: ArrayLike, jaxpr: Jaxpr) -> list:
    """The outputs of a jaxpr, by one turn of a loop, which carries them packed."""
    like = output_types(jaxpr)
    blank = pack([zero_like(a) for a in like])
    evaluate = jaxpr_as_fun(jaxpr)

    def turn(
        active: Bool[Array, ""], consts: tuple[Array, list], i: Int[Array, ""], _: list
    ) -> tuple[Array, list]:
        del active, _
        # Tied to the turn, nothing is invariant: XLA would move it out of the loop.
        i, leaves = lax.optimization_barrier((i, consts[1]))
        return i + 1, pack(evaluate(*leaves))

    # A count that XLA cannot see is 1, or it would take the loop apart.
    count = lax.optimization_barrier(jnp.int32(1))
    consts = count, list(leaves)
    _, found = loop(lambda consts, i, _: i < consts[0], turn, jnp.int32(0), blank, consts=consts)
    return unpack(found, like)


def lane_by_lane(
    jaxpr: Jaxpr, size: int, xs: Sequence, axes: Sequence
) -> tuple[list, list[int | None]]:
    """The outputs of a jaxpr over lanes, which are the last axis of each that depends on any."""
    flags = [a is not None for a in axes]
    wide = [lanes_last(x, a, size) for x, a in zip(xs, axes, strict=True)]
    out, have = over_lanes(jaxpr, size)(flags, wide)
    wanted = dependents(jaxpr, flags)
    out = _add_lanes(out, have, wanted, size)
    return out, [x.ndim - 1 if w else None for x, w in zip(out, wanted, strict=True)]


def _with_consts(condition: Jaxpr, body: Jaxpr, extra: int, avals: Sequence) -> tuple[Jaxpr, Jaxpr]:
    """Both jaxprs with what the body closes over (its first inputs) as their first consts."""
    count = len(avals)
    outer, rest = input_types(body)[:extra], range(extra + 1, extra + 1 + count)
    return (
        rearranged(condition, [*[None] * extra, *range(count)], [*outer, *avals]),
        rearranged(body, [extra, *range(extra), *rest], [input_types(body)[extra], *outer, *avals]),
    )


def _implementation(*xs: ArrayLike, condition: Jaxpr, body: Jaxpr, sizes: Sizes) -> list:
    consts, state, buffers = split_by_sizes(xs, sizes)
    body, transposes = with_transposed_weights(body, xs, range(sizes[0]))
    test, run = staged(condition), staged(body)

    def active(carry: _Carry) -> Bool[Array, "..."]:
        return test(*consts, *carry[0], *carry[1])[0]

    def turn(carry: _Carry) -> _Carry:
        on = active(carry)
        out = run(on if on.ndim else jnp.array(True), *consts, *carry[0], *carry[1], *transposes)
        state, buffers = split_by_sizes(out, sizes[1:])
        return state, buffers

    state, buffers = lax.while_loop(lambda c: jnp.any(active(c)), turn, (state, buffers))
    return [*state, *buffers]


def _abstract(*xs: ShapedArray, sizes: Sizes, **params: Jaxpr) -> list:
    del params
    return [ShapedArray(x.shape, x.dtype) for x in xs[sizes[0] :]]


def _batch(
    size: int, xs: Sequence, axes: Sequence, *, condition: Jaxpr, body: Jaxpr, sizes: Sizes
) -> tuple[list, list[int | None]]:
    """Lanes go last; what no lane influences stays common."""
    mapped = lane_dependence(condition, body, sizes, [a is not None for a in axes])
    wide = [lanes_last(x, a, size, force=m) for x, a, m in zip(xs, axes, mapped, strict=True)]
    wide_condition, wide_body = _widened(condition, body, sizes, mapped, size)
    out = loop_p.bind(*wide, condition=wide_condition, body=wide_body, sizes=sizes)
    return out, [x.ndim - 1 if m else None for x, m in zip(out, mapped[sizes[0] :], strict=True)]


def _widened(
    condition: Jaxpr, body: Jaxpr, sizes: Sizes, mapped: Sequence[bool], size: int
) -> tuple[Jaxpr, Jaxpr]:
    """Condition and body of `size` lanes side by side; the state of a finished lane is kept."""
    test_flag = dependents(condition, mapped)[0]
    grown = lambda a, m: jax.ShapeDtypeStruct((*a.shape, size) if m else a.shape, a.dtype)  # noqa: E731
    avals = [grown(a, m) for a, m in zip(input_types(condition), mapped, strict=True)]
    test, run = over_lanes(condition, size), over_lanes(body, size)

    def wide_test(*xs: Array) -> list:
        out, flags = test(mapped, xs)
        return _add_lanes(out, flags, [test_flag], size)

    def wide_body(active: Bool[Array, "..."], *xs: Array) -> list:
        out, flags = run([test_flag, *mapped], [active, *xs])
        out = _add_lanes(out, flags, mapped[sizes[0] :], size)
        state, buffers = split_by_sizes(out, sizes[1:])
        if test_flag:
            state = [
                jnp.where(active, a, b)
                for a, b in zip(state, split_by_sizes(xs, sizes)[1], strict=True)
            ]
        return [*state, *buffers]

    return trace(wide_test, *avals), trace(
        wide_body, grown(output_types(condition)[0], test_flag), *avals
    )


def _add_lanes(xs: Sequence, flags: Sequence[bool], wanted: Sequence[bool], size: int) -> list:
    """Outputs with lanes where they are wanted; where they are not, there are none."""
    return [
        lanes_last(x, None, size, force=True) if w and not f else x
        for x, f, w in zip(xs, flags, wanted, strict=True)
    ]


def lane_dependence(condition: Jaxpr, body: Jaxpr, sizes: Sizes, mapped: list[bool]) -> list[bool]:
    """Flags of the operands (consts, state, buffers) that some lane influences in the end, if it
    influences those that are flagged in `mapped`.
    """
    while True:
        test = dependents(condition, mapped)[0]
        out = dependents(body, [test, *mapped])
        forced = [*(test for _ in range(sizes[1])), *(False for _ in range(sizes[2]))]
        carried = zip(mapped[sizes[0] :], out, forced, strict=True)
        grown = [*mapped[: sizes[0]], *(m or o or f for m, o, f in carried)]
        if grown == mapped:
            return mapped
        mapped = grown


def _dependence(flags: list[bool], *, condition: Jaxpr, body: Jaxpr, sizes: Sizes) -> list[bool]:
    return lane_dependence(condition, body, sizes, flags)[sizes[0] :]


loop_p = define("loop", _implementation, _abstract, batch=_batch, dependence=_dependence)


def _native_implementation(*xs: ArrayLike, jaxpr: Jaxpr, in_loop: bool) -> list:
    return single_iteration(*xs, jaxpr=jaxpr) if in_loop else staged(jaxpr)(*xs)


native_function_p = define(
    "native_function",
    _native_implementation,
    lambda *xs, jaxpr, in_loop: output_types(jaxpr),
    batch=lambda size, xs, axes, *, jaxpr, in_loop: lane_by_lane(jaxpr, size, xs, axes),
    dependence=lambda flags, *, jaxpr, in_loop: dependents(jaxpr, flags),
)
