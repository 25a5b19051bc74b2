"""Methods for equations with noise.

A step sees its noise as standard numbers, ω = W/√dt and η = H/√dt, which `form.normal` holds, and
√dt as `form.root`, which is 0 for an idle lane and for a rejected attempt in the reverse pass: such
a step has no noise and divides by nothing.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree, Real

from ..core.norm import magnitude
from ..problems.forms import Sde
from .base import Method, Step
from .brownian_bridge import Bridge
from .interpolant import Interpolant, Polynomial
from .stage_loop import StagedMethod, blank_stages, stages_in_loop
from .stochastic_tableau import StochasticTableau
from .tableau import table_of
from .weighted_sums import combine, weighted

__all__ = ["SRA", "SRI", "EulerHeun", "EulerMaruyama", "Milstein", "Stochastic"]


class Stochastic(Method):
    """The base of methods for SDEs: strong and weak order, and the kinds of noise that they take.

    `form` is "ito", "stratonovich" or "sde" (either). A subclass gives `order` (strong, of the mean
    error of paths), `weak_order` (of the error of means), and `step`, which reads W from
    `form.increment` and multiplies by the diffusion in `form.times(g, w)`.

    Reference: kloeden1992.

    Example:
        >>> import diffeq as de
        >>> isinstance(de.EulerMaruyama(), de.Stochastic), de.Milstein().order
        (True, 1.0)
    """

    form: ClassVar[str] = "ito"
    description: ClassVar[str] = ""

    @property
    def weak_order(self) -> float:
        """Order of the means of smooth functions of the solution."""
        return 1.0

    def interpolant_evaluates(self, form: Sde) -> bool:
        """Only at the start, where the step did, too."""
        del form
        return False

    def interpolant(self, form: Sde, t: Array, y: Array, dt: Array, step: Step) -> Bridge:
        """The path from y to the end of the step, through the Brownian motion between."""
        return Bridge.of(form, (t, dt), (y, step.y), curved=self.order >= 1)

    def history_interpolant(self, y: Array, dt: Array, step: Step, path: Interpolant) -> Polynomial:
        """The line between the ends, from which the path strays by O(√dt) to either side: enough
        for methods of order 1/2, and of 1 where the diffusion does not look back.
        """
        del path
        return Polynomial(y, (step.y - y,), dt)

    def constant_step(self, t: Array, y: Array, dt: Array) -> Polynomial:
        """The line from y to y."""
        del t
        return Polynomial(y, (jnp.zeros_like(y),), dt)


class EulerMaruyama(Stochastic):
    """y1 = y + f(t, y) dt + g(t, y) W. Itô; any noise; strong order 1/2, 1 if noise is additive.

    Reference: maruyama1955.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.SDEProblem(lambda t, y, a: -y, lambda t, y, a: 0.1, 1.0, (0.0, 1.0))
        >>> de.solve(problem, de.EulerMaruyama(), dt=0.01, key=jax.random.key(0)).y1.shape
        ()
    """

    reference: ClassVar[str] = "maruyama1955"
    description: ClassVar[str] = (
        "The simplest method, for any noise, and of order 1 if that is additive."
    )

    @property
    def order(self) -> float:
        """Strong order."""
        return 0.5

    @property
    def evaluates_inside_step(self) -> bool:
        """All is evaluated at the start."""
        return False

    def step(
        self, form: Sde, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step."""
        y1 = y + dt * form.drift(t, y) + form.times(form.diffusion(t, y), form.increment)
        return Step(y1, None, (), ())


class EulerHeun(Stochastic):
    """The trapezoidal rule for both parts, with Euler inside. Stratonovich; any noise; strong order
    1/2, and 1 if the noise commutes: scalar, additive, or diagonal with components of their own.

    Reference: kloeden1992.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.SDEProblem(
        ...     lambda t, y, a: -y, lambda t, y, a: 0.1 * y, 1.0, (0.0, 1.0),
        ...     interpretation="stratonovich",
        ... )
        >>> de.solve(problem, de.EulerHeun(), dt=0.01, key=jax.random.key(0)).y1.shape
        ()
    """

    reference: ClassVar[str] = "kloeden1992"
    description: ClassVar[str] = (
        "The simplest method for Stratonovich equations, and of order 1 if the noise commutes."
    )
    form: ClassVar[str] = "stratonovich"

    @property
    def order(self) -> float:
        """Strong order."""
        return 0.5

    @property
    def evaluations(self) -> int:
        """Evaluations of the drift in a step."""
        return 2

    def step(
        self, form: Sde, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step."""
        w = form.increment
        f, g = form.drift(t, y), form.diffusion(t, y)
        ahead = y + dt * f + form.times(g, w)
        f = (f + form.drift(t + dt, ahead)) / 2
        g = (g + form.diffusion(t + dt, ahead)) / 2
        return Step(y + dt * f + form.times(g, w), None, (), ())


class Milstein(Stochastic):
    """y1 = y + f dt + g W + ½ g ∂g/∂y (W² − dt), and without − dt for Stratonovich.

    Itô and Stratonovich; diagonal (each component on its own) and scalar noise; strong order 1. The
    derivative is exact, by forward mode.

    Reference: milstein1974.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.SDEProblem(lambda t, y, a: -y, lambda t, y, a: 0.1 * y, 1.0, (0.0, 1.0))
        >>> de.solve(problem, de.Milstein(), dt=0.01, key=jax.random.key(0)).y1.shape
        ()
    """

    reference: ClassVar[str] = "milstein1974"
    description: ClassVar[str] = (
        "Order 1 by the exact derivative of the diffusion; Itô and Stratonovich."
    )
    form: ClassVar[str] = "sde"

    @property
    def order(self) -> float:
        """Strong order."""
        return 1.0

    @property
    def evaluates_inside_step(self) -> bool:
        """All is evaluated at the start."""
        return False

    def init(self, form: Sde, t: Real[Array, ""], y: Array) -> PyTree:
        """Refuses noise of other kinds; there is no memory."""
        other = "de.EulerMaruyama() or de.EulerHeun()"
        form.must_be(self, ("diagonal", "scalar"), other)
        form.must_be_own(self)
        form.must_not_recall(self, other)
        return ()

    def step(
        self, form: Sde, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step."""
        w = form.increment
        square = form.square(w, dt)
        y1 = y + dt * form.drift(t, y) + form.diffusion(t, y) * w
        if not form.additive:
            y1 = y1 + form.milstein_term(t, y) * square / 2
        return Step(y1, None, (), ())


class _Tabled(StagedMethod, Stochastic):
    """A table, and the estimate by the method of order 1 inside, which SRI and SRA share.

    Of what the noise adds late the estimate has the root mean square over the noise of the step,
    and no sample of it: the third power of a normal number has a long tail, and where a step is
    rejected because of that, what is accepted has noise of another law, and means are wrong.
    """

    tableau: StochasticTableau = eqx.field(static=True, converter=table_of(StochasticTableau))

    @property
    def area(self) -> bool:
        """True: the tables have rows for H."""
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tableau.name})"

    @property
    def order(self) -> float:
        """Strong order."""
        return self.tableau.strong

    @property
    def weak_order(self) -> float:
        """Order of the means of smooth functions of the solution."""
        return self.tableau.weak

    @property
    def error_order(self) -> float:
        """The estimate, of a method of strong order 1, is O(dt^3/2)."""
        return 1.5

    @property
    def adaptive(self) -> bool:
        """Its steps can be controlled."""
        return True

    @property
    def evaluations(self) -> int:
        """Evaluations of the drift in a step."""
        return len({self._stage(i) for i in range(self.tableau.stages)} - {None})

    @staticmethod
    def _error(flow: Array, late2: Array) -> Array:
        """The estimate, from the difference of the drifts and the mean square of the noise."""
        square = magnitude(flow) ** 2 + late2
        none = square == 0  # where a root has no slope
        return jnp.where(none, 0, jnp.sqrt(jnp.where(none, 1, square)))

    def _stage(self, i: int) -> tuple | None:
        """The arguments of drift i, as rows of the table; None where no stage uses it."""
        table = self.tableau
        used = [table.alpha[i], *table.A0[:, i], *([] if table.additive else table.A1[:, i])]
        return (table.c0[i], *table.A0[i], *table.B0[i]) if any(used) else None


class SRI(_Tabled):
    """Rößler's stochastic Runge–Kutta methods for diagonal and scalar noise; Itô. The formulas are
    those of `StochasticTableau`. Each component of diagonal noise has to depend on its own
    component of y alone.

    The error is estimated by the method of strong order 1 that the first drift, β1 and β2 make:
    dt (Σ α_i f_i − f_1) + Σ (β3_i I10/dt + β4_i I111/dt) g_i.

    Args:
        tableau: a `StochasticTableau`; the named methods, such as `SOSRI()`, bring theirs.

    Reference: rossler2010, rackauckas2017.

    Example:
        >>> import diffeq as de
        >>> de.SRI(de.SOSRI().tableau).order
        1.5
    """

    def init(self, form: Sde, t: Real[Array, ""], y: Array) -> PyTree:
        """Refuses noise of other kinds; there is no memory."""
        form.must_be(
            self, ("diagonal", "scalar"), "de.EulerMaruyama(), or de.SOSRA() if it is additive"
        )
        form.must_be_own(self)
        return ()

    def step(
        self, form: Sde, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step."""
        table = self.tableau
        w, h = form.normal
        i11, i10 = form.root * (w * w - 1) / 2, form.root * (w / 2 + h)
        i111 = form.root * (w * w - 3) * w / 6
        find = self._in_a_loop if self.loops(form) else self._unrolled
        fs, gs = find(form, t, y, dt, i10)
        spread = _sum_terms((form.increment, table.beta1, gs), (i11, table.beta2, gs))
        late = _sum_terms((i10, table.beta3, gs), (i111, table.beta4, gs))
        flow = dt * combine(table.alpha, fs)
        thirds, sixths = combine(table.beta3, gs), combine(table.beta4, gs)
        late2 = form.root**2 * (magnitude(thirds) ** 2 / 3 + magnitude(sixths) ** 2 / 6)
        return Step(y + flow + spread + late, self._error(flow - dt * fs[0], late2), (), ())

    def _unrolled(self, form: Sde, t: Array, y: Array, dt: Array, i10: Array) -> tuple:
        """Drifts and diffusions at all stages; equal ones are evaluated once."""
        table, drifts = self.tableau, {}
        fs, gs = [], []
        for i in range(table.stages):
            at = self._stage(i)
            if at not in drifts:
                point = _add_sums(y, (dt, table.A0[i], fs), (i10, table.B0[i], gs))
                drifts[at] = 0 if at is None else form.drift(t + float(table.c0[i]) * dt, point)
            point = _add_sums(y, (dt, table.A1[i], fs), (form.root, table.B1[i], gs))
            gs.append(form.diffusion(t + float(table.c1[i]) * dt, point))
            fs.append(drifts[at])
        return fs, gs

    def _in_a_loop(self, form: Sde, t: Array, y: Array, dt: Array, i10: Array) -> tuple:
        table, step = self.tableau, dt.astype(t.dtype)

        def stage(row: tuple, tables: tuple, carry: PyTree) -> tuple:
            (a0, b0, a1, b1, c0, c1), (fs, gs) = row, tables
            point = y + dt * weighted(a0, fs) + i10 * weighted(b0, gs)
            f = form.drift(t + c0 * step, point)
            point = y + dt * weighted(a1, fs) + form.root * weighted(b1, gs)
            return (f, form.diffusion(t + c1 * step, point)), carry

        matrices = (table.A0, table.B0, table.A1, table.B1)
        rows = (
            *(jnp.asarray(x, dt.dtype) for x in matrices),
            *(jnp.asarray(c, t.dtype) for c in (table.c0, table.c1)),
        )
        blank = blank_stages(table.stages, y)
        (fs, gs), _ = stages_in_loop(stage, rows, (blank, blank))
        return fs, gs


class SRA(_Tabled):
    """Rößler's stochastic Runge–Kutta methods for additive noise of any kind. `StochasticTableau`
    has the formulas.

    The error is estimated by the method of strong order 1 that the first drift and β1 make:
    dt (Σ α_i f_i − f_1) + Σ β2_i I10/dt g_i.

    Args:
        tableau: a `StochasticTableau`; the named methods, such as `SOSRA()`, bring theirs.

    Reference: rossler2010, rackauckas2017.

    Example:
        >>> import diffeq as de
        >>> de.SRA(de.SRA1().tableau).evaluations
        2
    """

    form: ClassVar[str] = "sde"

    def init(self, form: Sde, t: Real[Array, ""], y: Array) -> PyTree:
        """Refuses noise that is not additive; there is no memory."""
        if not form.additive:
            raise TypeError(
                f"{self!r} takes additive noise, and here the diffusion depends on y: choose "
                "de.SOSRI() for diagonal and scalar noise, or de.EulerMaruyama()."
            )
        return ()

    def step(
        self, form: Sde, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step."""
        table = self.tableau
        w, h = form.normal
        i10 = form.root * (w / 2 + h)
        gs = [form.diffusion(t + float(c) * dt, y) for c in table.c1]
        pushes = [_noise_term(form, combine(row, gs), i10, y) for row in table.B0]
        find = self._in_a_loop if self.loops(form) else self._unrolled
        fs = find(form, t, y, dt, pushes)
        late = combine(table.beta2, gs)
        spread = form.times(combine(table.beta1, gs), form.increment) + form.times(late, i10)
        flow = dt * combine(table.alpha, fs)
        late2 = form.root**2 / 3 * form.square_of(late)
        return Step(y + flow + spread, self._error(flow - dt * fs[0], late2), (), ())

    def _unrolled(self, form: Sde, t: Array, y: Array, dt: Array, pushes: list) -> list:
        """The drifts at all stages, which the noise has pushed so far."""
        table, fs = self.tableau, []
        for i, pushed in enumerate(pushes):
            point = _add_sums(y, (dt, table.A0[i], fs))
            point = point if pushed is None else point + pushed
            fs.append(form.drift(t + float(table.c0[i]) * dt, point))
        return fs

    def _in_a_loop(self, form: Sde, t: Array, y: Array, dt: Array, pushes: list) -> Array:
        table = self.tableau

        def stage(row: tuple, tables: tuple, carry: PyTree) -> tuple:
            (a0, c0, pushed), (fs,) = row, tables
            point = y + dt * weighted(a0, fs) + pushed
            return (form.drift(t + c0 * dt.astype(t.dtype), point),), carry

        pushed = jnp.stack([jnp.zeros_like(y) if p is None else p for p in pushes])
        rows = (jnp.asarray(table.A0, dt.dtype), jnp.asarray(table.c0, t.dtype), pushed)
        (fs,), _ = stages_in_loop(stage, rows, (blank_stages(table.stages, y),))
        return fs


def _noise_term(form: Sde, g: Array | None, w: Array, y: Array) -> Array | None:
    """The change of a state by the noise, of y's shape; None where g is None."""
    return None if g is None else jnp.broadcast_to(form.times(g, w), y.shape)


def _add_sums(y: Array, *sums: tuple) -> Array:
    """Y and weighted sums of what is there, each times a factor."""
    for factor, weights, terms in sums:
        total = combine(weights[: len(terms)], terms)
        y = y if total is None else y + factor * total
    return y


def _sum_terms(*sums: tuple) -> Array | int:
    return sum(factor * combine(weights, terms) for factor, weights, terms in sums)
