"""`IterationMatrix`: the matrix of simplified Newton's method and its factors, kept between steps.

A matrix that is a little old costs Newton's method some iterations, and a step no accuracy, for the
root is found to the same error. So J is evaluated again only when it is old or Newton's method was
slow with it, and M − c J is factored again only when J is evaluated, or when c = γ dt has changed
by more than a part. Those are the rules of CVODE.

The matrix is no part of what is differentiated: a step that is made again for its derivative
evaluates its own. But a window of a tape is repeated with the very matrices of the solve, as with
others it would drift away from it; so a row keeps the `MatrixOrigin`, from which they follow.

Reference: hindmarsh2005, section 2.1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Real

from ..algebra.newton import NewtonResult
from ..autodiff.batch_last import if_unbatched
from ..problems.forms import Mass, Ode, Split
from .newton_based import ImplicitMethod, LinearSystem, factors_of, inverse_of, linearised

__all__ = ["IterationMatrix", "MatrixOrigin", "MatrixReusingMethod", "NewtonOutcome"]

_FEWEST = 64  # numbers of a state: the factors of fewer cost no more than the iterations they save
_OLDEST = 50  # attempts that J is kept for
_CHANGE = 0.3  # the part by which c may differ from that of the factors
# Newton's θ/(1 − θ) with a kept matrix beyond which the next step evaluates another one.
_SLOW = 0.1


class MatrixOrigin(NamedTuple):
    """The point at which J was evaluated, and what decides how long it is kept. `clock` is t there,
    the c of the factors, the number of attempts since, and 1 where J is not to be used again.
    """

    clock: Real[Array, "4"]
    y: Array


class NewtonOutcome(NamedTuple):
    """The outcome of the equations of a step: whether they are solved, and the largest θ/(1 − θ) of
    Newton's rates θ; 0 where one update was enough.
    """

    solved: Bool[Array, ""]
    factor: Real[Array, ""]

    @staticmethod
    def of(found: NewtonResult) -> "NewtonOutcome":
        """The outcome of one equation."""
        return NewtonOutcome(found.found, jnp.where(found.turns > 1, found.factor, 0))

    def and_that_of(self, found: NewtonResult) -> "NewtonOutcome":
        """The outcome of several equations: of those before, and of one more."""
        solved, factor = NewtonOutcome.of(found)
        return NewtonOutcome(self.solved & solved, jnp.maximum(self.factor, factor))


class IterationMatrix(NamedTuple):
    """M − c J with its factors, and its origin. They are `present` but at the start of a window of
    a tape, where they are computed at the origin.
    """

    origin: MatrixOrigin
    present: Bool[Array, ""]
    jacobian: Any  # an array of all entries, or an `AbstractMatrix`
    factors: Any

    @staticmethod
    def blank(form: Ode | Mass | Split, t: Real[Array, ""], y: Array) -> "IterationMatrix":
        """Before the first attempt."""

        def made(t: Array, y: Array) -> tuple:
            linear = linearised(form, t, y)
            return linear.by_y, factors_of(linear, t, 1.0)

        shapes = jax.eval_shape(made, t, y)
        matrices = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        clock = jnp.array([0.0, 1.0, 0.0, 1.0], t.dtype)
        return IterationMatrix(MatrixOrigin(clock, y), jnp.zeros((), bool), *matrices)

    def at_origin(self, origin: MatrixOrigin) -> "IterationMatrix":
        """A matrix of this structure, which the next attempt computes."""
        blank = jax.tree.map(jnp.zeros_like, self)
        return blank._replace(origin=origin)

    def expired_where(self, flag: Bool[Array, ""]) -> "IterationMatrix":
        """The matrix, of which J is not to be used again where the flag says so."""
        clock = self.origin.clock
        clock = clock.at[3].set(jnp.where(flag, 1, clock[3]))
        return self._replace(origin=self.origin._replace(clock=clock))

    def updated(
        self,
        form: Ode | Mass | Split,
        point: tuple[Array, Array],
        dt: Real[Array, ""],
        gamma: Array | float,
    ) -> "IterationMatrix":
        """The matrix for an attempt from a `point` (t, y), with c = γ dt. Where lanes step together
        each has a new one, since one at least would.
        """
        t_old, c_old, age, stale = self.origin.clock
        c = (dt * gamma).astype(c_old.dtype)
        evaluates = (stale > 0) | (age >= _OLDEST) | ~if_unbatched(jnp.ones((), bool))
        factors_again = evaluates | ~(jnp.abs(c / c_old - 1) <= _CHANGE)
        c = jnp.where(factors_again, c, c_old)
        t, y = (
            jnp.where(evaluates, x, old)
            for x, old in zip(point, (t_old, self.origin.y), strict=True)
        )
        jacobian = lax.cond(
            evaluates | ~self.present, lambda: linearised(form, t, y).by_y, lambda: self.jacobian
        )

        def factored() -> Any:
            linear = LinearSystem(form.mass, jacobian)
            return factors_of(linear, jnp.where(dt == 0, dt, c).astype(dt.dtype), 1.0)

        factors = lax.cond(factors_again | ~self.present, factored, lambda: self.factors)
        clock = jnp.stack([t, c, jnp.where(evaluates, 0, age), jnp.zeros_like(c)])
        found = MatrixOrigin(clock, y), jnp.ones((), bool), jacobian, factors
        return lax.stop_gradient(IterationMatrix(*found))

    @property
    def is_new(self) -> Bool[Array, ""]:
        """True if J was evaluated for this attempt."""
        return self.origin.clock[2] == 0

    def inverse(self, dt: Real[Array, ""], gamma: Array | float) -> Callable[[Array], Array]:
        """The map r ↦ 2/(1 + c/c₀) (M − c₀ J)⁻¹ r. The number makes up for a c₀ that is not the c
        of the step: of both fast and slow components the error of an update is then the same part.
        """
        solve, c = inverse_of(self.factors), self.origin.clock[1]
        scale = 2 / (1 + jnp.where(dt == 0, 1, dt * gamma / c))
        return lambda r: scale.astype(r.dtype) * solve(r)

    def after(self, outcome: NewtonOutcome) -> tuple["IterationMatrix", Bool[Array, ""]]:
        """The matrix after an attempt; and whether that is to be made again with a new one, since
        its equations were not solved with one that was kept. J is not used again where they were
        not solved, or slowly with one that was kept.
        """
        t, c, age, _ = self.origin.clock
        stale = ~outcome.solved | (~self.is_new & ~(outcome.factor <= _SLOW))
        clock = jnp.stack([t, c, age + 1, stale.astype(c.dtype)])
        matrix = self._replace(origin=self.origin._replace(clock=clock))
        return lax.stop_gradient((matrix, ~outcome.solved & ~self.is_new))


class MatrixReusingMethod(ImplicitMethod):
    """The base of implicit methods whose steps have one iteration matrix M − γ dt J each, and that
    take it from the steps before where it will do.
    """

    kept: IterationMatrix | None = eqx.field(kw_only=True, default=None, repr=False)

    def keeps_workspace(self, form: Any, size: int) -> bool:
        """True if the state is large, and the matrix one of the field: not for products alone, nor
        where M changes as well.
        """
        return self.linear is None and size >= _FEWEST and form.has_constant_mass

    def workspace(self, form: Any, t: Real[Array, ""], y: Array) -> IterationMatrix:
        """The iteration matrix before the first attempt."""
        return IterationMatrix.blank(form, t, y)

    def with_workspace(self, workspace: Any) -> "MatrixReusingMethod":
        """The method with the iteration matrix of the attempt before."""
        return eqx.tree_at(lambda m: m.kept, self, workspace, is_leaf=lambda x: x is None)

    def matrix_of_step(
        self,
        form: Any,
        point: tuple[Array, Array],
        dt: Real[Array, ""],
        gamma: Array | float,
        slope: Callable[[], Array] | None = None,
    ) -> tuple[Callable[[Array], Array], IterationMatrix | None]:
        """The map r ↦ (M − γ dt J)⁻¹ r with J at about `point` (t, y), and for a residual at
        `slope()`; and the iteration matrix behind it, where it is kept.
        """
        if self.kept is None:
            linear = linearised(form, *point, slope, self.solver)
            return inverse_of(factors_of(linear, dt, gamma)), None
        matrix = self.kept.updated(form, point, dt, gamma)
        return matrix.inverse(dt, gamma), matrix
