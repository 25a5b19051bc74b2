"""`Forward`: the tangents are solved along with the state, with their errors in the norm.

The tangent of a solve is a solve: its state is (state, tangents), its attempt the jvp of an
attempt, its rows the jvp of the rows. So no method or output is written twice, a Newton iteration
is differentiated and not repeated, and the tangent of the tangent, a solve again, follows by
induction. Only the error control is new: an attempt whose tangents have too large an error is
rejected.

`Discrete` takes the steps chosen by the error of y alone. Where that happens to be zero and the
error of the tangent is not, they are too long: error control that ignores sensitivities, "the norm
trap" of `docs/theory/adjoints.md`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, PyTree

from ..autodiff.batch_last import lanes_last, over_lanes
from ..autodiff.jax_internals import Jaxpr, jaxpr_as_fun, shape_of, trace
from ..autodiff.nonfinite_cotangents import call_host
from ..autodiff.one_way_linear import Map, one_way_linear, with_common_lanes
from ..autodiff.while_loop import loop
from ..controllers import Controller, Verdict
from ..controllers.tolerance import Tolerance
from ..core.norm import magnitude, mean_square
from ..core.packing import TreeDef
from ..core.promotion import standard_promotion
from ..core.status import Status
from ..integrator import Attempt, Data, State, attempt, blank_buffers, rewind_failed_clock, written
from ..problems import Problem
from .base import (
    FEATURES,
    OF_STEPS,
    OneWay,
    SolveSpec,
    check_tolerance,
    flags_of,
    is_inexact,
    outputs_of,
    pick_flagged,
    raise_if,
    refusal,
    register_adjoint,
    size_of,
    solve_one_way,
)
from .empty_span import midpoint_step

__all__ = ["Forward", "Monitored"]


@register_adjoint
class Forward(OneWay):
    """Solves the tangents along with the state, with their error in the norm: forward mode.

    ẏ' = (∂f/∂y) ẏ + (∂f/∂p) ṗ, by the same method and the same steps as y' = f(t, y, p). A step is
    accepted when the error of y *and* that of each tangent are within tolerance. The scale of a
    tangent's error is rtol · |ẏ| + atol · R, where R is how large the tangent has been so far in
    units of y (the root mean square of ẏ/ȳ, with ȳ the larger of |y| and atol/rtol): so tangents
    that are a thousand times larger take the same steps.

    All directions of a `jacfwd` share one solve, which evaluates f once a stage and factors a
    Jacobian once a step for all of them; its steps suit the most demanding direction. The value is
    that of the plain solve.

    Args:
        rtol, atol: tolerances of the tangents, as numbers. None: those of the solve.

    Works for `jvp`, `jacfwd` and their compositions, as in `jacfwd(jacfwd(f))`, where second
    tangents are in the norm as well. A tangent that cannot be solved to tolerance is NaN, and
    outside a trace an error.

    Raises:
        TypeError: reverse mode, or rows at the ends of steps, were asked for.
        RuntimeError: (outside a trace) the tangents could not be solved.

    Reference: sapienza2024, hairer1993, II.6.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 1.0)
        >>> end = lambda k: de.solve(problem.replace(args=k), rtol=1e-5, adjoint=de.Forward()).y1
        >>> round(float(jax.jacfwd(end)(1.0)), 3)
        -0.368
    """

    serves: ClassVar[frozenset[str]] = frozenset(FEATURES) - OF_STEPS - {"reverse"}

    rtol: float | None = eqx.field(static=True, default=None)
    atol: float | None = eqx.field(static=True, default=None)
    callback: ClassVar[Callable | None] = (
        None  # called with the error of the tangents (see `Monitored`)
    )

    @classmethod
    def solves(cls, problem: type[Problem]) -> bool:
        """True for ODEs alone."""
        return problem.is_ode

    def __check_init__(self) -> None:
        check_tolerance("rtol", self.rtol)
        check_tolerance("atol", self.atol)

    def kept(self, spec: SolveSpec, leaves: list) -> tuple[tuple[State, list], list]:
        """The solve; the tangents start from its inputs, and must get as far as it did."""
        result = solve_one_way(spec, leaves)
        return result, [*leaves, result[0].status]

    def map(self, spec: SolveSpec, live: list[bool], tree: TreeDef) -> Map:
        """The linear map that pushes tangents forward."""
        del tree
        return _Push(_SolveProcess(spec), [*live, False], None)


class Monitored(Forward):
    """Takes the steps chosen by the error of y alone, and reports the error of the tangents in them
    by a callback.
    """

    callback: Callable = eqx.field(static=True, kw_only=True)  # pyright: ignore

    @property
    def name(self) -> str:
        """The name of `Forward`, whose features it serves."""
        return Forward.__name__


type _Process = "_SolveProcess | _TangentProcess"


class _Push(Map):
    """The tangents of a solve's outputs, by another solve."""

    def __init__(self, inner: _Process, live: Sequence[bool], directions: int | None) -> None:
        self.inner, self.live, self.directions = inner, list(live), directions
        self.refusal = refusal("Forward", ["reverse"])

    def push(self, residuals: list, tangents: list) -> list:
        """The tangents at the end and in the rows; directions, if there are several, are last."""
        return _run_process(
            _TangentProcess(self.inner, self.live, self.directions), [*residuals, *tangents]
        )

    def over(self, size: int, residual_axes: Sequence, like: Sequence) -> Map:
        """The map for a batch of tangents: batch elements that share the solve are its
        directions.
        """
        if any(axis is not None for axis in residual_axes):
            return super().over(size, residual_axes, like)
        if self.directions is None:
            return _Push(self.inner, self.live, size)
        return _Merged(self.inner, self.live, (self.directions, size))


class _Merged(_Push):
    """Tangents whose directions lie in several axes, pushed as directions in one."""

    def __init__(self, inner: _Process, live: Sequence[bool], shape: tuple[int, ...]) -> None:
        super().__init__(inner, live, int(np.prod(shape)))
        self.shape = shape

    def push(self, residuals: list, tangents: list) -> list:
        lead = len(self.shape)
        flat = [x.reshape(*x.shape[: x.ndim - lead], self.directions) for x in tangents]
        return [x.reshape(*x.shape[:-1], *self.shape) for x in super().push(residuals, flat)]

    def over(self, size: int, residual_axes: Sequence, like: Sequence) -> Map:
        if any(axis is not None for axis in residual_axes):
            return Map.over(self, size, residual_axes, like)
        return _Merged(self.inner, self.live, (*self.shape, size))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run_process(process: "_TangentProcess", inputs: list) -> list:
    """Runs the process to its end."""
    return with_common_lanes(process.run(inputs), inputs)


@partial(_run_process.defjvp, symbolic_zeros=True)
@standard_promotion()
def _run_process_jvp(
    process: "_TangentProcess", primals: tuple[list], tangents: tuple[list]
) -> tuple[list, list]:
    (inputs,), (dots,) = primals, tangents
    live = flags_of(inputs, dots)
    out = _run_process(process, inputs)
    if not any(live):
        return out, [jnp.zeros_like(x) for x in out]
    return out, one_way_linear(_Push(process, live, None), inputs, pick_flagged(dots, live), out)


# --- processes: they begin, attempt and write -----------------------------------------------------


class _SolveProcess:
    """The solve itself, as a process of flat inputs: the leaves of (data, start), and the status
    with which the solve without tangents ended.
    """

    def __init__(self, spec: SolveSpec) -> None:
        assert isinstance(spec.adjoint, Forward)
        self.spec, self.adjoint = spec, spec.adjoint
        # No tangent of a workspace, of n² numbers, is carried along.
        self.integrator = replace(spec.integrator, keeps_workspace=False)

    def data(self, inputs: list) -> Data:
        """The data of the solve, constant along it."""
        return jax.tree.unflatten(self.spec.tree, inputs[:-1])[0]

    def status(self, inputs: list) -> Array:
        """The status at the end of the solve without tangents."""
        return inputs[-1]

    def begin(self, inputs: list) -> tuple[State, list]:
        """The state and the rows before the first attempt."""
        data, start = jax.tree.unflatten(self.spec.tree, inputs[:-1])
        state = start.state(self.integrator, data)
        buffers, empty = blank_buffers(self.integrator, data, state), state.t >= data.t1
        y = midpoint_step(self.integrator, data, None, data.t1, state.t, state.y)
        y = jnp.where(empty, y, state.y)
        t = jnp.where(empty, data.t1, state.t)
        return replace(state, t=t, y=y), buffers

    def attempt(self, inputs: list, state: State) -> tuple[State, Attempt, list]:
        """The state after an attempt, the attempt, and the tuples (error, y0, y1) of which the
        controller can take a norm.
        """
        after, tried = attempt(self.integrator, self.data(inputs), state)
        known = self.integrator.controller.is_adaptive
        return after, tried, [(tried.step.error, state.y, tried.step.y)] if known else []

    def write(self, inputs: list, state: State, tried: Attempt, buffers: list) -> list:
        """The rows with those of an attempt."""
        return written(self.integrator, self.data(inputs), state, tried, buffers)

    def outputs(self, state: State, buffers: list) -> list:
        """The outputs that have tangents."""
        return outputs_of((state, buffers))

    def reached(self, state: State, buffers: list) -> list:
        """Flags for each output; True where it was reached."""
        done = state.status <= Status.terminated
        rows = []
        for channel, count, leaves in zip(
            self.integrator.output.channels, state.written, buffers, strict=True
        ):
            there = jnp.arange(channel.length) < count
            rows += [there.reshape(-1, *(1,) * (x.ndim - 1)) for x in leaves if is_inexact(x)]
        return [done, done, *rows]

    def core(self, state: State) -> State:
        """The state of the loop."""
        return state

    def with_core(self, state: State, core: State) -> State:
        """The state with another state of the loop."""
        del state
        return core

    def tried(self, tried: Attempt) -> Attempt:
        """The attempt of the loop."""
        return tried

    def masked(self, tried: Attempt, on: Array) -> Attempt:
        """The attempt, rejected and without rows to write unless `on`."""
        cursors = tuple(c._replace(n=jnp.where(on, c.n, 0)) for c in tried.cursors)
        return tried._replace(accept=tried.accept & on, cursors=cursors)


class _StateWithTangents(NamedTuple):
    """A state with its tangents (of inexact leaves, directions last), the controller's memory of
    their errors, the largest size of each so far, and the largest error.
    """

    state: PyTree  # of the process inside: a `State`, or one with tangents itself
    dots: list[Array]
    control: PyTree
    sizes: list
    worst: Array


class _TangentProcess:
    """A process with its tangents."""

    def __init__(self, inner: _Process, live: Sequence[bool], directions: int | None) -> None:
        self.inner, self.live, self.directions = inner, list(live), directions
        self.integrator, self.adjoint = inner.integrator, inner.adjoint
        self.traces: dict = {}

    def _parts(self, inputs: list) -> tuple[list, list]:
        return inputs[: len(self.live)], inputs[len(self.live) :]

    def _push_inner(self, name: str, inputs: list, trees: Sequence, dots: Sequence) -> tuple:
        """`inner.name(inputs, *trees)` and the tangents of what is inexact in it."""
        inputs, moving = self._parts(inputs)
        flat, tree = jax.tree.flatten(trees)
        flags = [*self.live, *map(is_inexact, flat)]

        def function(xs: list) -> PyTree:
            kept, rest = xs[: len(inputs)], xs[len(inputs) :]
            return getattr(self.inner, name)(kept, *jax.tree.unflatten(tree, rest))

        operands = [jnp.asarray(x) for x in (*inputs, *flat)]
        tangents = [*moving, *(d for group in dots for d in group)]
        return push_through(
            function, operands, flags, tangents, self.directions, (self.traces, name)
        )

    def data(self, inputs: list) -> Data:
        return self.inner.data(self._parts(inputs)[0])

    def status(self, inputs: list) -> Array:
        return self.inner.status(self._parts(inputs)[0])

    def begin(self, inputs: list) -> tuple[_StateWithTangents, tuple]:
        """The state and the rows before the first attempt, with tangents."""
        (state, buffers), dots = self._push_inner("begin", inputs, [], [])
        count = sum(map(is_inexact, jax.tree.leaves(state)))
        controller, core = self._controller(inputs), self.inner.core(state)
        zero = jnp.zeros((), core.t.dtype)
        sizes = self._sizes(inputs, state)
        along = _StateWithTangents(state, dots[:count], controller.init(core.t.dtype), sizes, zero)
        return along, (buffers, dots[count:])

    def _controller(self, inputs: list) -> Controller:
        return self.integrator.parts(self.data(inputs))[2]

    def _sizes(self, inputs: list, state: "State | _StateWithTangents") -> list:
        """A size of almost zero for each tangent that will be measured."""
        kept, _ = self._parts(inputs)
        shapes = jax.eval_shape(self.inner.attempt, kept, state)[2]
        real = lambda y: jnp.finfo(y.dtype)  # noqa: E731
        count = lambda y0, y: int(np.prod(y.shape[y0.ndim :])) * (self.directions or 1)  # noqa: E731
        plain = shapes[0][1] if shapes else None
        return [jnp.full(count(plain, y), real(y).tiny ** 0.5, real(y).dtype) for _, y, _ in shapes]

    def attempt(
        self, inputs: list, along: _StateWithTangents
    ) -> tuple[_StateWithTangents, tuple, list]:
        """An attempt with its tangents, rejected where their error is too large."""
        (after, tried, measured), dots = self._push_inner(
            "attempt", inputs, [along.state], [along.dots]
        )
        counts = [sum(map(is_inexact, jax.tree.leaves(x))) for x in (after, tried)]
        after_dots, tried_dots = dots[: counts[0]], dots[counts[0] : sum(counts)]
        errors = jax.tree.unflatten(jax.tree.structure(measured), dots[sum(counts) :])
        moved = along._replace(state=after, dots=after_dots)
        if measured:
            moved, on = self._judged(inputs, along, moved, tried, (measured, errors))
            tried = self.inner.masked(tried, on)
        return moved, (tried, tried_dots), [*measured, *errors]

    def _judged(
        self,
        inputs: list,
        before: _StateWithTangents,
        after: _StateWithTangents,
        tried: PyTree,
        measured: tuple,
    ) -> tuple[_StateWithTangents, Array]:
        """The state after the error control of the tangents, and False where that rejects
        the step.
        """
        known, errors = lax.stop_gradient(measured)
        data, base = self.data(inputs), self.inner.tried(tried)
        _, method, controller = self.integrator.parts(data)
        error2, sizes = self._measured(data, controller, known[0], errors, before.sizes)
        dt = lax.stop_gradient(base.dt)
        verdict = controller.judge(error2.astype(dt.dtype), dt, before.control, method.error_order)
        if self.adjoint.callback is not None:  # the error is reported, and controls no step
            worst = jnp.where(base.accept, jnp.maximum(before.worst, error2), before.worst)
            return after._replace(worst=worst.astype(dt.dtype)), jnp.ones((), bool)
        refused = base.accept & ~verdict.accept
        on = base.accept & verdict.accept
        keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(refused, b, a), new, old)  # noqa: E731
        core = self._core(data, before, after, base, verdict, refused)
        state = self.inner.with_core(keep(after.state, before.state), core)
        dots = keep(after.dots, before.dots)
        sizes = jax.tree.map(lambda a, b: jnp.where(on, a, b), sizes, before.sizes)
        control = jax.tree.map(
            lambda a, b: jnp.where(base.accept, a, b), verdict.state, before.control
        )
        return _StateWithTangents(state, dots, control, sizes, before.worst), ~refused

    def _core(
        self,
        data: Data,
        before: _StateWithTangents,
        after: _StateWithTangents,
        base: Attempt,
        verdict: Verdict,
        refused: Array,
    ) -> State:
        """The loop's own state: the shorter of two steps is the next one."""
        old, new = self.inner.core(before.state), self.inner.core(after.state)
        _, _, controller = self.integrator.parts(data)
        cut = base.landing & ~refused & ((verdict.dt < old.dt) | (not controller.is_adaptive))
        dt = jnp.minimum(new.dt, jnp.where(base.accept & ~cut, verdict.dt, new.dt))
        eps = jnp.finfo(old.t.dtype)
        lost = refused & (dt <= jnp.maximum(2 * eps.eps * jnp.abs(old.t), eps.tiny))
        lost = lost | (refused & controller.stuck(old.t, base.dt))
        back = jax.tree.map(lambda a, b: jnp.where(refused, b, a), new, old)
        status = jnp.where(lost, Status.step_too_small, back.status)
        spent = refused & (new.status == Status.max_steps)
        status = jnp.where(spent, Status.max_steps, status)
        return eqx.tree_at(
            lambda s: (s.dt, s.status, s.rejected),
            back,
            (dt, status.astype(jnp.int32), back.rejected + refused),
        )

    def _measured(
        self, data: Data, controller: Controller, primal: tuple, errors: list, sizes: list
    ) -> tuple[Array, list]:
        """The largest squared error of all tangents, and the largest size of each so far."""
        _, y0, y1 = primal
        tolerance, given = data.tolerance, self.adjoint
        rtol = tolerance.rtol if given.rtol is None else jnp.asarray(given.rtol, y0.real.dtype)
        atol = tolerance.atol if given.atol is None else jnp.asarray(given.atol, y0.real.dtype)
        unit = size_of(tolerance, jnp.maximum(magnitude(y0), magnitude(y1)))
        found, new = [], []
        for error, size in zip(errors, sizes, strict=True):
            flat = jax.tree.map(lambda x: x.reshape(*y0.shape, -1), error)

            def one(error: tuple, size: Array) -> tuple[Array, Array]:
                e, dot0, dot1 = error
                reach = jnp.maximum(size, jnp.sqrt(mean_square(dot1 / unit)))
                scale = Tolerance(rtol, jnp.where(jnp.isinf(atol), atol, atol * reach), True)
                return scale.squared(e, dot0, dot1, controller.norm)[0], reach

            error2, reach = jax.vmap(one, in_axes=(-1, 0))(flat, size)
            found.append(jnp.max(error2))
            new.append(reach)
        return jnp.max(jnp.stack(found)), new

    def write(self, inputs: list, along: _StateWithTangents, tried: tuple, buffers: tuple) -> tuple:
        """The rows and their tangents."""
        rows, moving = buffers
        rows, dots = self._push_inner(
            "write", inputs, [along.state, tried[0], rows], [along.dots, tried[1], moving]
        )
        return rows, dots

    def outputs(self, along: _StateWithTangents, buffers: tuple) -> list:
        """The tangents of the inner outputs."""
        dots = self.inner.outputs(
            _replace_by_tangents(along.state, along.dots), _replace_by_tangents(*buffers)
        )
        reached = self.reached(along, buffers)
        lead = lambda r, d: r.reshape(r.shape + (1,) * (d.ndim - r.ndim))  # noqa: E731
        return [jnp.where(lead(r, d), d, jnp.nan) for r, d in zip(reached, dots, strict=True)]

    def reached(self, along: _StateWithTangents, buffers: tuple) -> list:
        return self.inner.reached(along.state, buffers[0])

    def core(self, along: _StateWithTangents) -> State:
        return self.inner.core(along.state)

    def with_core(self, along: _StateWithTangents, core: State) -> _StateWithTangents:
        return along._replace(state=self.inner.with_core(along.state, core))

    def tried(self, tried: tuple) -> Attempt:
        return self.inner.tried(tried[0])

    def masked(self, tried: tuple, on: Array) -> tuple:
        return self.inner.masked(tried[0], on), tried[1]

    def run(self, inputs: list) -> list:
        """The tangents of the inner process's outputs."""

        def running(inputs: list, along: _StateWithTangents, _: tuple) -> Array:
            del inputs
            return self.core(along).status == Status.running

        def turn(
            active: Bool[Array, ""], inputs: list, along: _StateWithTangents, buffers: tuple
        ) -> tuple:
            after, tried, _ = self.attempt(inputs, along)
            return after, self.write(inputs, along, self.masked(tried, active), buffers)

        first, rows = self.begin(inputs)
        along, buffers = loop(running, turn, first, rows, consts=inputs)
        end = rewind_failed_clock(
            self.integrator, self.data(inputs), self.core(first), self.core(along)
        )
        along = self.with_core(along, end)
        self._report(inputs, along)
        return self.outputs(along, buffers)

    def _report(self, inputs: list, along: _StateWithTangents) -> None:
        """Raises an error where the tangents stopped before the solve; and reports their error to
        the callback of `Monitored`.
        """
        data, core = self.data(inputs), self.core(along)
        if self.adjoint.callback is not None:
            call_host(self.adjoint.callback, jnp.sqrt(along.worst))
        sign = self.integrator.direction or data.sign
        bad = (core.status > Status.terminated) & (self.status(inputs) <= Status.terminated)
        raise_if(self.integrator, bad, _tangent_failure_message, sign * core.t, core.status)


def _tangent_failure_message(t: ArrayLike, status: ArrayLike) -> str:
    at, why = np.ravel(t)[0], Status(int(np.ravel(status)[0])).reason
    return (
        f"Forward solved y, but not its tangents beyond t = {float(at):.6g}: {why}. They may grow "
        "without bound there; or give their tolerances, de.Forward(rtol=…, atol=…)."
    )


def _replace_by_tangents(tree: PyTree, dots: list) -> PyTree:
    """The tree with its inexact leaves replaced by their tangents."""
    leaves, structure = jax.tree.flatten(tree)
    found = iter(dots)
    return jax.tree.unflatten(structure, [next(found) if is_inexact(x) else x for x in leaves])


def push_through(
    function: Callable,
    operands: list,
    flags: list,
    tangents: list,
    directions: int | None,
    cache: tuple,
) -> tuple[PyTree, list]:
    """`function(operands)`, and the tangents of its inexact leaves; directions, if any, are last.

    Traced once for one direction; several are a batch of the same equations, so a value that does
    not depend on a direction is computed once.
    """
    traces, name = cache
    lead = lambda x: x.shape[:-1] if directions else x.shape  # noqa: E731
    one = [jax.ShapeDtypeStruct(lead(t), t.dtype) for t in tangents]
    key = (name, tuple((x.shape, x.dtype) for x in (*operands, *one)))
    if key not in traces:
        traces[key] = _trace_with_tangents(function, operands, flags, one)
    jaxpr, tree, inexact = traces[key]
    xs = [*operands, *tangents]
    if directions is None:
        out = jaxpr_as_fun(jaxpr)(*xs)
    else:
        known = [False] * len(operands) + [True] * len(tangents)
        out = _batch_directions(jaxpr, directions, known, xs, len(inexact))
    values, dots = out[: len(inexact)], out[len(inexact) :]
    return jax.tree.unflatten(tree, values), dots


def _trace_with_tangents(function: Callable, operands: list, flags: list, dots: list) -> tuple:
    """The jaxpr of all leaves and of the tangents of the inexact ones; the tree; and flags of the
    inexact ones.
    """
    found: dict = {}

    def single(*xs: Array) -> list:
        values, moving = xs[: len(operands)], xs[len(operands) :]

        def restricted(*live: Array) -> tuple[list, list]:
            rest = iter(live)
            full = [next(rest) if f else x for x, f in zip(values, flags, strict=True)]
            leaves, found["tree"] = jax.tree.flatten(function(full))
            leaves = [jnp.asarray(x) for x in leaves]
            found["inexact"] = [is_inexact(x) for x in leaves]
            return pick_flagged(leaves, found["inexact"]), leaves

        _, moved, leaves = jax.jvp(
            restricted, tuple(pick_flagged(values, flags)), moving, has_aux=True
        )
        return [*leaves, *moved]

    jaxpr = trace(single, *map(shape_of, operands), *dots)
    return jaxpr, found["tree"], found["inexact"]


def _batch_directions(jaxpr: Jaxpr, size: int, flags: list, xs: list, count: int) -> list:
    """Evaluates a jaxpr for a batch of directions: `count` values without the axis of directions,
    then tangents with it.
    """
    out, found = over_lanes(jaxpr, size)(flags, xs)
    values = [x[..., 0] if f else x for x, f in zip(out[:count], found[:count], strict=True)]
    pairs = zip(out[count:], found[count:], strict=True)
    return [*values, *(lanes_last(x, None, size, force=True) if not f else x for x, f in pairs)]
