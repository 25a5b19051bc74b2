"""The conformance test of methods: `check_method` says whether a `Method` keeps its contract.

What a test of the package's own methods needs of it (an equation in the form that a method takes,
equal steps, the slope of an error) is here as well, so that both are one measurement.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree

from .adjoints import Adjoint, Discrete, Forward
from .controllers.tolerance import Tolerance
from .methods import METHODS, Method, Step
from .problems import ODEProblem, Problem, SecondOrderProblem, SplitODEProblem
from .problems.forms import lower
from .problems.lowering import canonical, names_of
from .solve import solve

__all__ = ["MethodReport", "check_method"]

_T1 = 2.0
_STEPS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
_FLOOR = 2e-13  # below it an error is rounding
_TIGHT = 1e-14  # to which Newton's method is solved where its error must not show
_K = 0.7

# Several starts side by side, so that no error vanishes by chance.
STARTS = np.array([[1.0, 0.4, -0.7, 0.1], [0.2, 1.1, 0.5, -0.9]])
SPEEDS = np.array([[0.1, -0.3, 0.8, 0.5], [0.9, 0.2, -0.4, 0.6]])


def field(t: Array, y: Array, args: ArrayLike | None) -> Array:
    """Non-linear and non-autonomous, with solutions of size one; args is a factor, None for 1."""
    a, b = y
    k = 1.0 if args is None else args
    return jnp.stack([k * b - 0.1 * a * b, -jnp.sin(a) * (1 + jnp.sin(t) / 2) - 0.05 * k * b**2])


def force(t: Array, x: Array, v: Array, args: ArrayLike | None) -> Array:
    """The force of the second-order test problem, x'' = f(t, x)."""
    del v
    a, b = x
    k = 1.0 if args is None else args
    return jnp.stack([jnp.cos(3 * t) * a * b - k * a**3, jnp.sin(t) - k * jnp.sin(b) - a**2])


class MethodReport(NamedTuple):
    """The report of `check_method`, if the method passed.

    Attributes:
        order: the slope of the global error by dt at fixed steps; near `Method.order`, unless the
            method changes its order.
        error_order: the slope of the error estimate of one step by dt; near `Method.error_order`.
            None where the method has no estimate, or one of changing order.
        rejected: how many attempts were rejected in the solve whose gradient was checked.
        checks: the names of all checks, in their order.

    Example:
        >>> from diffeq.testing import MethodReport
        >>> MethodReport(order=2.01, error_order=None, rejected=0, checks=("pytree",)).order
        2.01
    """

    order: float
    error_order: float | None
    rejected: int
    checks: tuple[str, ...]


def check_method(method: Method, problem: Problem | None = None) -> MethodReport:
    """Checks that a method keeps the contract of `Method`, or says what does not hold.

    The checks, in their order: the method is a pytree that survives a round trip; `step` returns a
    `Step` with shapes and dtypes of the state and a memory of the structure that `init` makes, the
    same whenever it is called, also for float32; it is compiled and batched to the same numbers;
    the memory is what `init` makes at the end of the step, unless the method `stores_memory`; the
    interpolant has the values of both ends; the error of equal steps goes to 0 as dt^order, and the
    estimate of one step as dt^error_order; the gradient by `Discrete` is that of a scan over the
    same steps (which include rejected ones, where the method is adaptive), and agrees with
    `Forward`. All is done in double precision, whatever the session's is.

    Args:
        method: of any form that an ODE, a split ODE or a second-order equation is lowered to.
        problem: the problem on which it is checked, with a float as args; default: a non-linear,
            non-autonomous one with solutions of size one, on (0, 2). A method for a special field
            brings a problem that has one.

    Returns:
        A `MethodReport`.

    Raises:
        AssertionError: with a sentence on the first thing that does not hold.
        TypeError: the method takes another kind of equation, such as one with noise.

    Example:
        >>> import diffeq as de
        >>> report = de.testing.check_method(de.Heun())
        >>> round(report.order), report.error_order is None
        (2, False)
    """
    with jax.enable_x64(True):
        probe = _Probe(method, problem or example_problem(method, _T1, _K))
        found: dict[str, Any] = {}
        for name, check in _CHECKS.items():
            found[name] = check(probe)
    return MethodReport(
        found["order"], found["error estimate"], found["gradient"] or 0, tuple(_CHECKS)
    )


# --- what is measured -----------------------------------------------------------------------------


def example_problem(method: Method, t1: float, args: ArrayLike | None = None) -> Problem:
    """A problem that the method takes."""
    forms = (method.form,) if isinstance(method.form, str) else method.form
    if "partitioned" in forms:
        return SecondOrderProblem(force, STARTS, SPEEDS, (0.0, t1), args)
    # Implicit methods solve systems as large as the state: two starts keep these small.
    starts = STARTS[:, :2] if method.real_view else STARTS
    if forms == ("split",):
        slow = lambda t, y, k: -0.3 * y  # noqa: E731
        fast = lambda t, y, k: field(t, y, k) + 0.3 * y  # noqa: E731
        return SplitODEProblem(slow, fast, starts, (0.0, t1), args)
    return ODEProblem(field, starts, (0.0, t1), args)


def form_of(method: Method, equation: Problem) -> tuple[Any, Array]:
    """The equation as the method sees it, and the initial state."""
    entry = canonical(equation)
    return lower(entry.form(entry.parameters, 1), method.form, repr(method)), entry.y0


def tightened(method: Method) -> Method:
    """The method with equations solved so well that their error does not show."""
    return method.with_tolerance(Tolerance(jnp.array(_TIGHT), jnp.array(_TIGHT)), final=True)


def ends(method: Method, equation: Problem, dts: Sequence[float] | np.ndarray) -> np.ndarray:
    """The end of the equation by the method's own equal steps: less to compile than a solve is.
    NaN where an implicit step was not solved.
    """
    form, y0 = form_of(method, equation)
    (t0, t1), tight = equation.tspan, tightened(method)

    @jax.jit
    def end(dt: Array) -> Array:
        def step(i: Array, carried: tuple) -> tuple:
            y, memory, solved = carried
            made = tight.step(form, t0 + i * dt, y, dt, memory)
            return made.y, made.memory, solved & (made.solved is None or made.solved)

        steps = jnp.round((t1 - t0) / dt).astype(int)
        start = y0, tight.init(form, jnp.asarray(t0), y0), jnp.array(True)
        y, _, solved = jax.lax.fori_loop(0, steps, step, start)
        return jnp.where(solved, jnp.ravel(y), jnp.nan)

    return np.stack([end(dt) for dt in dts])


def slope_of(errors: np.ndarray, dts: np.ndarray, floor: float) -> float:
    """The slope of log(error) by log(dt) at the last pair of steps above `floor`, where rounding
    begins; steps become shorter along `dts`.
    """
    below = np.flatnonzero(errors <= floor)
    last = below[0] - 1 if len(below) else len(errors) - 1
    assert last >= 1, f"no two steps are fine enough: {errors}"
    return float(np.log(errors[last - 1] / errors[last]) / np.log(dts[last - 1] / dts[last]))


# --- what is checked ------------------------------------------------------------------------------


class _Probe:
    """A method with the equation that it is checked on, and one step of it."""

    def __init__(self, method: Method, problem: Problem) -> None:
        self.method, self.problem, self.name = method, problem, type(method).__name__
        self.form, self.y0 = form_of(method, problem)
        self.t0, self.t1 = map(float, problem.tspan)
        self.dt = jnp.asarray((self.t1 - self.t0) / 32)
        self.t = jnp.asarray(self.t0)
        self.tight = tightened(method)

    def says(self, holds: ArrayLike, sentence: str) -> None:
        """An error with a sentence about the method, if something does not hold."""
        if not bool(holds):
            raise AssertionError(f"{self.name}: {sentence}")

    def step(self, t: Array, y: Array, dt: Array) -> Step:
        """A step from a start."""
        return self.tight.step(self.form, t, y, dt, self.tight.init(self.form, t, y))

    @property
    def changes_order(self) -> bool:
        """True if each step states its own order, of which the declared one is the highest."""
        return self.step(self.t, self.y0, self.dt).order is not None

    def arrays(self, t: Array, y: Array, dt: Array) -> tuple[Array, PyTree, PyTree]:
        """The arrays of a step that the loop reads: y, error and memory."""
        step = self.step(t, y, dt)
        return step.y, step.error, step.memory


def _far(a: PyTree, b: PyTree, tolerance: float) -> float:
    """The largest difference of two trees in units of what is allowed; NaN is far."""
    gaps = [
        np.max(np.abs(np.asarray(x) - np.asarray(y)) / (tolerance * (1 + np.abs(np.asarray(y)))))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        if np.size(x)
    ]
    worst = max(gaps, default=0.0)
    return float(np.inf if np.isnan(worst) else worst)


def _shapes(tree: PyTree) -> list:
    return [(jnp.shape(x), jnp.result_type(x)) for x in jax.tree.leaves(tree)]


def _check_pytree(probe: _Probe) -> None:
    leaves, tree = jax.tree.flatten(probe.method)
    again = jax.tree.unflatten(tree, leaves)
    same = type(again) is type(probe.method) and eqx.tree_equal(again, probe.method)
    probe.says(same, "is not the same after it was flattened to its leaves and put together again.")
    try:
        hash(tree)
    except TypeError as error:
        sentence = f"has a static field that cannot be hashed, by which programs are kept: {error}."
        raise AssertionError(f"{probe.name}: {sentence}") from error


def _check_step(probe: _Probe) -> None:
    """Checks the shapes and dtypes of a step, and that calls leave nothing behind."""
    method, state = probe.method, (probe.t, probe.y0, probe.dt)
    step = probe.step(*state)
    probe.says(isinstance(step, Step), f"step returns a {type(step).__name__}, no de.Step.")
    like = [(probe.y0.shape, probe.y0.dtype)]
    probe.says(_shapes(step.y) == like, f"Step.y is {_shapes(step.y)}; that of y is {like}.")
    if method.adaptive:
        probe.says(step.error is not None, "is adaptive, but Step.error is None.")
    first = probe.tight.init(probe.form, probe.t, probe.y0)
    same = jax.tree.structure(step.memory) == jax.tree.structure(first)
    same = same and _shapes(step.memory) == _shapes(first)
    probe.says(
        same,
        f"the memory of a step is {_shapes(step.memory)}, and that which init makes is "
        f"{_shapes(first)}; both need one structure, with the same shapes and dtypes.",
    )
    once = probe.arrays(*state)
    probe.step(probe.t + 0.3, 0.5 * probe.y0, 2 * probe.dt)
    kept = "keeps state in Python, which is neither compiled nor differentiated: pass it as memory."
    again = probe.arrays(*state)
    probe.says(
        jax.tree.structure(once) == jax.tree.structure(again) and _far(again, once, 1e-15) == 0,
        f"two calls of step with the same arguments differ: it {kept}",
    )


def _check_compiled(probe: _Probe) -> None:
    """Jit is eager, and vmap a loop."""
    state = (probe.t, probe.y0, probe.dt)
    try:
        compiled = jax.jit(probe.arrays)(*state)
    except jax.errors.ConcretizationTypeError as error:
        raise AssertionError(
            f"{probe.name}: step looks at the values of its arguments in Python (in an `if`, or by "
            "float()), so it cannot be compiled: write jnp.where, or jax.lax.cond."
        ) from error
    eager = probe.arrays(*state)
    tolerance = 1e-9 if probe.method.real_view else 1e-12
    probe.says(_far(compiled, eager, tolerance) < 1, "compiled, step gives other numbers.")
    dts = probe.dt * jnp.array([1.0, 0.25])
    ys = jnp.stack([probe.y0, 0.9 * probe.y0])
    many = jax.jit(jax.vmap(probe.arrays, (None, 0, 0)))(probe.t, ys, dts)
    alone = jax.jit(probe.arrays)
    each = [alone(probe.t, y, dt) for y, dt in zip(ys, dts, strict=True)]
    each = jax.tree.map(lambda *xs: jnp.stack(xs), *each)
    probe.says(_far(many, each, tolerance) < 1, "under jax.vmap, step gives other numbers.")


def _check_single(probe: _Probe) -> None:
    """A float32 state stays float32, with any dt."""
    single = lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x  # noqa: E731
    method, problem = jax.tree.map(single, (probe.method, probe.problem))
    problem = problem.replace(
        **{name: jnp.asarray(getattr(problem, name), jnp.float32) for name in names_of(problem)},
        args=None if problem.args is None else jax.tree.map(jnp.float32, problem.args),
    )
    other = _Probe(method, problem)
    for dt in (other.dt, other.dt / 64):
        found = jax.eval_shape(other.arrays, *jax.tree.map(jnp.float32, (probe.t, other.y0, dt)))
        wide = [str(d) for _, d in _shapes(found) if d in (jnp.float64, jnp.complex128)]
        probe.says(
            not wide,
            f"a float32 state becomes {', '.join(wide)}: an array of NumPy's or a constant of a "
            "fixed dtype is in step. Python numbers keep the dtype of the state.",
        )


def _check_memory(probe: _Probe) -> None:
    if probe.method.stores_memory:
        return
    y, _, memory = jax.jit(probe.arrays)(probe.t, probe.y0, probe.dt)
    fresh = probe.tight.init(probe.form, probe.t + probe.dt, y)
    probe.says(
        _far(memory, fresh, 1e-12) < 1,
        "the memory of a step is not what init makes at its end (t + dt, y), so it is a history "
        "that no reverse pass can make anew, as it does of a large one. Say so by stores_memory "
        "(the same up to a tolerance) or multistep (the past).",
    )


def _check_interpolant(probe: _Probe) -> None:
    @jax.jit
    def values(t: Array, y: Array, dt: Array) -> tuple:
        step = probe.step(t, y, dt)
        path = probe.tight.interpolant(probe.form, t, y, dt, step)
        return path(jnp.zeros_like(dt)), path(jnp.ones_like(dt)), step.y

    at0, at1, y1 = values(probe.t, probe.y0, probe.dt)
    for place, found, wanted in (("θ = 0", at0, probe.y0), ("θ = 1", at1, y1)):
        gap = np.max(np.abs(found - wanted))
        probe.says(
            _far(found, wanted, 1e-9) < 1,
            f"the interpolant at {place} is off the end of the step by {gap:.1e}.",
        )


def _check_order(probe: _Probe) -> float:
    dts = (probe.t1 - probe.t0) / np.array(_STEPS)
    exact = solve(probe.problem, METHODS["Vern9"](), rtol=1e-13, atol=1e-15).y1
    exact = np.ravel(jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(exact)]))
    found = ends(probe.method, probe.problem, dts)
    probe.says(np.isfinite(found[-1]).all(), "steps of equal length come to NaN or infinity.")
    slope = slope_of(np.abs(found - exact).max(axis=1), dts, _FLOOR)
    if not probe.changes_order:
        _compare(probe, "error of equal steps", slope, probe.method.order, "order")
    return slope


def _compare(probe: _Probe, what: str, slope: float, declared: int | float, name: str) -> None:
    # The leading error of a pair of high order is made so small that the next term still shows.
    above = 0.5 if declared <= 4 else 1.5
    probe.says(
        -0.4 < slope - declared < above,
        f"the {what} goes as dt^{slope:.2f}, and {name} is {declared}.",
    )


def _check_estimate(probe: _Probe) -> float | None:
    method = probe.method
    if not method.adaptive or probe.changes_order:
        return None
    unit = Tolerance(jnp.array(0.0), jnp.array(1.0))

    @jax.jit
    def size(dt: Array) -> Array:
        made = probe.step(probe.t, probe.y0, dt)
        return jnp.sqrt(unit.squared(made.error, probe.y0, made.y, None)[0])

    dts = (probe.t1 - probe.t0) / np.array(_STEPS)
    sizes = np.array([size(dt) for dt in dts])
    probe.says(np.isfinite(sizes).all() and sizes[0] > 0, "the error estimate is 0 or not finite.")
    slope = slope_of(sizes, dts, 1e-14)
    _compare(probe, "error estimate of a step", slope, method.error_order, "error_order")
    return slope


def _check_gradient(probe: _Probe) -> int:
    """`Discrete` is the derivative of the steps that were accepted, and `Forward` near to it."""
    method, span = probe.method, probe.t1 - probe.t0
    adaptive = method.adaptive
    # A first step of the whole span is rejected.
    options: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5, "dt0": span}
    options = options if adaptive else {"dt": span / 24}

    def end(scale: Array, adjoint: Adjoint) -> Array:
        sol = solve(_scaled(probe.problem, scale), method, adjoint=adjoint, **options)
        return jnp.sum(jnp.stack([jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(sol.y1)]))

    sol = solve(probe.problem, method, saveat="steps", **options)
    steps = np.asarray(sol.ts)
    one = jnp.asarray(1.0)
    found = jax.grad(end)(one, Discrete())
    wanted = jax.jvp(lambda s: _along(probe, steps, s, options), (one,), (one,))[1]
    probe.says(
        _far(found, wanted, 1e-3 if method.real_view else 1e-7) < 1,
        f"the gradient by de.Discrete is {float(found):.8g}, and that of the same steps, one after "
        f"the other, is {float(wanted):.8g}. Is all of step differentiable?",
    )
    if not (method.multistep or len(method.submethods) > 1):
        tangent = jax.jit(jax.jacfwd(lambda s: end(s, Forward())))(one)
        probe.says(
            _far(tangent, wanted, 2e-2) < 1,
            f"the tangent by de.Forward is {float(tangent):.8g}, and that of the steps is "
            f"{float(wanted):.8g}.",
        )
    return int(sol.stats["rejected"])


def _scaled(problem: Problem, scale: Array) -> Problem:
    """The problem with its state and its args times a number."""
    moved = {name: scale * jnp.asarray(getattr(problem, name)) for name in names_of(problem)}
    args = problem.args
    return problem.replace(**moved, args=None if args is None else scale * jnp.asarray(args))


def _along(probe: _Probe, ts: np.ndarray, scale: Array, options: dict) -> Array:
    """The measure of the end by the method's steps between the times, in a scan."""
    form, y0 = form_of(probe.method, _scaled(probe.problem, scale))
    rtol, atol = (jnp.asarray(options.get(name, 1e-6)) for name in ("rtol", "atol"))
    tolerance = Tolerance(rtol, atol)
    method = probe.method.with_tolerance(tolerance, final=True)

    def step(carried: tuple, span: tuple) -> tuple[tuple, None]:
        made = method.step(form, span[0], carried[0], span[1], carried[1])
        return (made.y, made.memory), None

    first = y0, method.init(form, jnp.asarray(ts[0]), y0)
    (y, _), _ = jax.lax.scan(step, first, (jnp.asarray(ts[:-1]), jnp.asarray(np.diff(ts))))
    return jnp.sum(jnp.sin(y))


_CHECKS: dict[str, Callable[[_Probe], Any]] = {
    "pytree": _check_pytree,
    "step": _check_step,
    "jit and vmap": _check_compiled,
    "float32": _check_single,
    "memory": _check_memory,
    "interpolant": _check_interpolant,
    "error estimate": _check_estimate,
    "order": _check_order,
    "gradient": _check_gradient,
}
