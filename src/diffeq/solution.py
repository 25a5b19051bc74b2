"""The result of a solve."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int, PyTree

from .autodiff.jax_internals import Tracer
from .core.addressable import here, row_places
from .core.norm import in_dtype_of
from .core.packing import Packing, TreeDef, Treelike
from .core.promotion import standard_promotion
from .core.status import Status
from .diagnosis import Last, advice

__all__ = ["EventRecord", "Failed", "Last", "Solution", "SolveError"]


@dataclass(frozen=True, eq=False)
class Failed:
    """The solves of a batch that failed: how many, and of each its index and its `Status`."""

    count: int
    indices: np.ndarray
    statuses: np.ndarray


class EventRecord(NamedTuple):
    """The record of one event: for each time that it happened, the state before and after it.

    `fired` flags the rows that are filled (for a vector of conditions: those that fired), `num` is
    their number. Further rows are NaN, and are cut off outside of traces.
    """

    ts: PyTree
    before: PyTree
    after: PyTree
    fired: PyTree
    num: PyTree


class SolveError(RuntimeError):
    """A solve that did not reach its end: where, why, and what to try.

    Attributes:
        status: the `Status`.
        t, y, dt: those of the last accepted step, in the problem's units.
        index: of the sample in a batch, else ().
        solution: what there is of it; the rows that were not reached are NaN.

    Example:
        >>> import diffeq as de
        >>> blows_up = de.ODEProblem(lambda t, y, a: y**2, 1.0, (0.0, 2.0))
        >>> try:
        ...     de.solve(blows_up)
        ... except de.SolveError as error:
        ...     print(error.status.name, round(float(error.t), 2))
        step_too_small 1.0
    """

    def __init__(
        self,
        message: str,
        *,
        status: Status,
        t: ArrayLike,
        y: PyTree,
        dt: ArrayLike,
        index: tuple,
        solution: PyTree,
    ) -> None:
        super().__init__(message)
        self.status, self.t, self.y, self.dt = status, t, y, dt
        self.index, self.solution = index, solution


class Solution(eqx.Module):
    """A numerical solution, what `solve` returns: a pytree of arrays, so `jit` may return it.

    With `dense=True`, `sol(t)` is the state at any t of the interval, and `sol.derivative(t)` its
    slope: y(t0 + θ dt) is the method's own polynomial in θ on each step.

    Attributes:
        ts: saved times, shape (rows,), in the problem's unit of time; a dict of them when `saveat`
            was one.
        ys: saved values, with the structure of y0 (or of what `save` returned), time axis first.
        saved: which rows were reached, shape (rows,). The others are NaN.
        num: how many were.
        y1: the state at the end; NaN, like its derivative, when the end was not reached.
        last: (t, y, dt) of the last accepted step, always finite.
        stats: steps, rejected, evaluations (of the field, in steps), stops, and floored (steps
            whose tolerance was below what the precision can hold): integers.
        status: a `Status`, as an integer array.
        events: for each event a record with `ts`, the states `before` and `after`, `fired` (which
            of a vector of conditions) and `num`, how many there are; rows behind them are NaN.
        weight: of a `JumpProblem` with `estimator="score"`: 1, with the derivative of the
            logarithm of the density of its jumps; else None.
        strategy: of an ensemble, how it was solved; else None.
        reduced: of an ensemble with `reduce=`, its statistics; then ys, saved, num and y1 are None.

    `sol[i]` is sample i of a batch, such as `jax.vmap` makes. Where a batch is spread over several
    processes (`solve_ensemble(mesh=…)`), message, failed, check() and what is printed are of the
    part that this process has.

    Raises:
        ValueError: `sol(t)` without dense output, or outside of the interval; `sol.trim()` of a
            batch.
        TypeError, IndexError: `sol[i]` of one solution; a sample that the batch does not have.
        SolveError: `sol.check()` of a solve that failed.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0)
        >>> sol = de.solve(problem, saveat=jnp.array([0.0, 0.5, 1.0]), dense=True)
        >>> sol
        Solution(success, steps=4, rejected=0, t1=1)
        >>> [round(float(y), 2) for y in (*sol.ys, sol(0.25))]
        [1.0, 0.37, 0.14, 0.61]
    """

    ts: PyTree
    ys: PyTree
    saved: PyTree
    num: PyTree
    y1: PyTree
    last: Last
    stats: dict[str, Any]
    status: Int[Array, "..."]
    polynomial: PyTree
    about: "SolutionInfo" = eqx.field(static=True)
    events: tuple = ()
    weight: Array | None = None
    reduced: PyTree = None
    strategy: str | None = eqx.field(static=True, default=None)

    if not TYPE_CHECKING:  # to a type checker every attribute would be known

        def __getattr__(self, name: str) -> NoReturn:
            known = {"t": "ts", "y": "ys", "x": "ys", "u": "ys", "nfev": 'stats["evaluations"]'}
            hint = f": sol.{known[name]} is what it has" if name in known else ""
            raise AttributeError(f"a Solution has no attribute {name!r}{hint}.")

    @property
    def success(self) -> Bool[Array, "..."]:
        """True if the solve reached its end; a terminal event is a success."""
        return self.status <= Status.terminated

    @property
    def t1(self) -> Array:
        """The last time reached."""
        return self.last.t

    @property
    def message(self) -> str:
        """One sentence on how the solve ended, or how many of a batch failed."""
        status = self._known_status()
        if not status.ndim:
            return Status(int(status)).reason
        failed = int((status > Status.terminated).sum())
        return f"{failed or 'none'} of {status.size} solves failed"

    @property
    def failed(self) -> Failed:
        """Those of a batch that failed: `count`, and for each of them its index and its status.

        >>> import jax.numpy as jnp, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, a: a * y**2, 1.0, (0.0, 2.0))
        >>> sol = de.solve_ensemble(problem, args=jnp.array([0.1, 1.0]), throw=False)
        >>> sol.failed.indices.tolist(), de.Status(sol.failed.statuses[0]).name
        ([1], 'step_too_small')
        """
        status = self._known_status()
        where = np.argwhere(status > Status.terminated)
        indices = row_places(self.status)[where[:, 0]] if status.ndim == 1 else where
        return Failed(len(where), indices, status[status > Status.terminated])

    def _known_status(self) -> np.ndarray:
        if isinstance(self.status, Tracer):
            raise TypeError(
                "The status is not known inside jit or vmap: look at the solution that comes out "
                "of it, at sol.status in where(…), or give throw='compiled' to solve."
            )
        return here(self.status)

    @standard_promotion()
    def __call__(self, t: Any) -> PyTree:
        """The state at t, a time or an array of times, from the dense output. A time outside of the
        interval is refused; inside `jit` and `vmap`, and after a solve that stopped short of its
        end, the state there is NaN.
        """
        return self._evaluate(t, slope=False)

    @standard_promotion()
    def derivative(self, t: Any) -> PyTree:
        """dy/dt at t from the dense output."""
        return self._evaluate(t, slope=True)

    def _evaluate(self, t: Any, *, slope: bool) -> PyTree:
        if self.polynomial is None:
            raise ValueError("sol(t) needs the solution everywhere: give dense=True to solve.")
        if self.status.ndim:
            raise ValueError(
                f"sol(t) is for one solution; this is a batch of shape {self.status.shape}: index "
                "it, sol[0](t), or give jax.vmap(lambda sol: sol(t)) all of it."
            )
        try:
            t = jnp.asarray(t)
        except (TypeError, ValueError) as error:
            raise TypeError(f"t is {t!r}; a time is wanted, or an array of times.") from error
        if not (jnp.issubdtype(t.dtype, jnp.floating) or jnp.issubdtype(t.dtype, jnp.integer)):
            raise TypeError(f"t is of {t.dtype}; a real time is wanted, or an array of times.")
        self._check_inside(t)
        return self.about.evaluate(self.polynomial, t, slope=slope)

    def _check_inside(self, t: Array) -> None:
        """Refuses times that were not solved for, where they are known; after a solve that stopped
        short of its end they are rows that were not reached, NaN.
        """
        sign, (_, ends, *_), *_ = self.polynomial
        if any(isinstance(x, Tracer) for x in (t, sign, ends, self.status)):
            return
        times, turn, (t0, t1) = np.asarray(t), np.asarray(sign), self.first_and_last()
        # As with saveat, a time within four roundings of an end is that end.
        slack = 4 * float(jnp.finfo(ends.dtype).eps) * max(abs(t0), abs(t1))
        outside = turn * times < turn * t0 - slack
        if self.status == Status.success:
            outside = outside | (turn * times > turn * t1 + slack)
        if outside.any():
            raise ValueError(
                f"t has {times[outside].flat[0]:.9g}, outside of the interval that was solved, "
                f"({t0:g}, {t1:g}): give a tspan that has it inside. (Inside jit and vmap, where "
                "nothing can raise, the state there is NaN.)"
            )

    @standard_promotion()
    def filled(self, value: ArrayLike) -> PyTree:
        """`ys` with `value`, of zero derivative, in the rows that were not reached.

        >>> import diffeq as de, jax.numpy as jnp
        >>> blows_up = de.ODEProblem(lambda t, y, a: y**2, 1.0, (0.0, 2.0))
        >>> sol = de.solve(blows_up, saveat=jnp.array([0.5, 1.5]), throw=False)
        >>> [round(float(y), 2) for y in sol.filled(0.0)]
        [2.0, 0.0]
        """

        def fill(mask: Array, tree: PyTree) -> PyTree:
            return jax.tree.map(
                lambda y: jnp.where(
                    mask.reshape(mask.shape + (1,) * (y.ndim - mask.ndim)), y, value
                ),
                tree,
            )

        if isinstance(self.saved, dict):
            return {name: fill(self.saved[name], self.ys[name]) for name in self.saved}
        return fill(self.saved, self.ys)

    @standard_promotion()
    def trim(self) -> "Solution":
        """The solution with only the rows that were reached (on the host)."""
        return self._cut(frozenset(self.saved) if isinstance(self.saved, dict) else {None})

    def _cut(self, keys: frozenset | set) -> "Solution":
        """Without the rows that were not reached, in these of its sets; a lone one has no key."""

        def cut(key: Hashable, mask: PyTree, tree: PyTree) -> PyTree:
            if key not in keys:
                return tree
            keep = np.asarray(mask)
            if keep.ndim != 1:
                raise ValueError(
                    f"trim() is for one solution; this is a batch of shape "
                    f"{keep.shape[:-1]}: index it first."
                )
            count = int(keep.sum())
            return jax.tree.map(lambda y: y[:count], tree)

        def apply(tree: PyTree) -> PyTree:
            if isinstance(self.saved, dict):
                return {k: cut(k, self.saved[k], tree[k]) for k in tree}
            return cut(None, self.saved, tree)

        return eqx.tree_at(
            lambda s: (s.ts, s.ys, s.saved),
            self,
            (apply(self.ts), apply(self.ys), apply(self.saved)),
        )

    def first_and_last(self) -> tuple[float, float]:
        """The times between which `sol(t)` is defined."""
        sign, rows, count, (t0, *_), _ = self.polynomial
        ends = (rows[0][0], rows[1][count - 1]) if count else (t0, t0)
        return float(sign * ends[0]), float(sign * ends[1])

    def plot(self, ax: Any = None) -> Any:
        """Every component against t, on matplotlib axes `ax` or new ones; returns the axes."""
        from .plot.solution import plot_solution

        return plot_solution(self, ax)

    @standard_promotion()
    def __getitem__(self, index: Any) -> "Solution":
        """Sample `index` of a batch of solutions."""
        if not self.status.ndim:
            raise TypeError(
                f"sol[{index!r}] is a sample of a batch, and this is one solution: its saved rows "
                "are sol.ys (with times sol.ts), its value at t is sol(t)."
            )
        # JAX would take the last sample for one beyond it.
        if not any(isinstance(i, Tracer) for i in jax.tree.leaves(index)):
            np.broadcast_to(np.zeros(()), self.status.shape)[index]
        return jax.tree.map(lambda x: x[index], self)

    @standard_promotion()
    def check(self, hint: Callable[[Last], str] | None = None) -> "Solution":
        """Raises on the host if the solve (or one of a batch) failed, naming index, t, dt and why.

        `hint(last)` may add a sentence.
        """
        status = self._known_status()
        bad = np.argwhere(status > Status.terminated)
        if len(bad) == 0:
            return self
        index = tuple(int(i) for i in np.atleast_1d(bad[0]))
        of = f" of the {status.size} here" if status.size < self.status.size else ""
        raise self._error(index, f"{len(bad)}{of} failed", self.status.size, hint)

    def _error(
        self, index: tuple, failed: str, count: int, hint: Callable[[Last], str] | None
    ) -> SolveError:
        known = jax.lax.stop_gradient((self.status, self.last, self.stats))  # under grad, too
        one = jax.tree.map(lambda x: here(x)[index], known)
        index = (int(row_places(self.status)[index[0]]), *index[1:]) if index else ()
        status, last, stats = Status(int(one[0])), one[1], one[2]
        t, y, dt = last
        where = f"sample {_index(index)} of {count} ({failed}): " if index else ""
        sentence = (
            f"{where}{status.reason}. It stopped at t = {float(t):.6g} with dt = {float(dt):.3g} "
            f"after {int(stats['steps'])} steps and {int(stats['rejected'])} rejected ones, "
            f"y = {_shown_state(y)}. {(hint(last) if hint else '') or advice(status)}"
        )
        return SolveError(
            sentence.strip(), status=status, t=t, y=y, dt=dt, index=index, solution=self
        )

    def __repr__(self) -> str:
        known = hasattr(self.status, "__int__") and not isinstance(self.status, Tracer)
        if known and np.ndim(self.status) and self.strategy:
            failed, part = self.failed.count or "none", self._known_status().size
            of = f" of the {part} here" if part < self.status.size else ""
            many = f"{self.status.size} trajectories"
            return f"Solution({many}, {failed}{of} failed, {self.strategy})"
        if not known or np.ndim(self.status):  # in a trace, of many, or of shapes alone
            return f"Solution(status={self.status}, ts={jax.tree.map(jnp.shape, self.ts)})"
        return (
            f"Solution({Status(int(self.status)).name}, steps={int(self.stats['steps'])}, "
            f"rejected={int(self.stats['rejected'])}, t1={float(self.t1):.6g})"
        )


def _trim_record(record: EventRecord) -> EventRecord:
    count = int(record.num)
    ts, before, after, fired = jax.tree.map(lambda x: x[:count], record[:-1])
    return EventRecord(ts, before, after, fired, record.num)


def _index(index: Sequence[int]) -> Sequence[int] | int:
    return index if len(index) > 1 else index[0]


def _shown_state(y: PyTree) -> str:
    text = str(y).replace("\n", " ")
    return text if len(text) < 80 else text[:77] + "…"


class SolutionInfo(Treelike):
    """The static origin of a solution, for messages and dense output. Equal to any other of an
    equal key (method, steps, tree), so that solutions of repeated solves have one tree structure.
    """

    def __init__(
        self,
        method: str,
        packing: Packing,
        adaptive: bool,
        tree: TreeDef | None = None,
        trims: frozenset = frozenset(),
        *,
        smooth: bool = True,
    ) -> None:
        self.method, self.packing, self.adaptive = method, packing, adaptive
        self.tree, self.trims, self.smooth = tree, trims, smooth

    def _key(self) -> tuple:
        return self.method, self.adaptive, self.tree, self.trims, self.smooth

    def __hash__(self) -> int:
        return hash((self.method, self.adaptive, self.trims))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SolutionInfo) and other._key() == self._key()

    def trimmed(self, sol: Solution) -> Solution:
        """The solution without rows that no step has filled, where their number is known."""
        if sol.status.ndim:
            return sol
        events = tuple(_trim_record(record) for record in sol.events)
        sol = eqx.tree_at(lambda s: s.events, sol, events) if events else sol
        return sol._cut(self.trims) if self.trims else sol

    def evaluate(self, polynomial: PyTree, t: Array, *, slope: bool) -> PyTree:
        """The dense output at t."""
        sign, leaves, count, (start, y0, slope0, held0), end = polynomial
        tau = sign * t

        # The time of an event is exact but for rounding, and the state after it counts there.
        ulp = 4 * jnp.finfo(leaves[1].dtype).eps
        slack = 0.0 if end is None else ulp
        first_and_last = leaves[0][0], leaves[1][count - 1]
        wide = ulp * jnp.maximum(*map(jnp.abs, first_and_last))

        def at(tau: Array) -> tuple[Array, PyTree]:
            shown = tau + slack * jnp.abs(tau)
            row = jnp.clip(jnp.searchsorted(leaves[1], shown, side="right"), 0, count - 1)
            t0, t1, interpolant, held = jax.tree.unflatten(self.tree, [x[row] for x in leaves])
            theta = jnp.where(count > 0, (tau - t0) / jnp.where(count > 0, t1 - t0, 1), 0)
            theta = theta.astype(jnp.finfo(self.packing.dtype).dtype)
            value = interpolant.slope(theta) if slope else interpolant(theta)
            inside = (tau >= first_and_last[0] - wide) & (tau <= first_and_last[1] + wide)
            # Without a step there is only the point at which the solve started.
            point = slope0 if slope else y0 + in_dtype_of(tau - start, y0) * slope0
            value = jnp.where(count > 0, value, point)
            inside = jnp.where(count > 0, inside, tau == start)
            held = jax.tree.map(lambda a, b: jnp.where(count > 0, a, b), held, held0)
            if end is not None:  # and after the last step, where an event may have been, the end
                t1, y1, held1 = end
                last = shown >= t1
                rate = interpolant.slope(theta) if self.smooth or slope else jnp.zeros_like(y1)
                extrapolated = rate if slope else y1 + in_dtype_of(tau - t1, y1) * rate
                extrapolated = jnp.where(count > 0, extrapolated, slope0 if slope else y1)
                value = jnp.where(last, extrapolated, value)
                held = jax.tree.map(lambda a, b: jnp.where(last, a, b), held1, held)
            return jnp.where(inside, sign * value if slope else value, jnp.nan), held

        flat, held = jax.vmap(at)(tau.ravel())
        shaped = lambda x: x.reshape(*t.shape, *x.shape[1:])  # noqa: E731
        held = [jnp.zeros_like(x) if slope else x for x in map(shaped, held)]
        return self.packing.unpack(shaped(flat), held)
