"""Two methods in one solve: an explicit one, and a Rosenbrock method where the problem is stiff."""

from dataclasses import replace
from functools import cache
from itertools import zip_longest
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Real

from ..algebra import slopes
from ..core.walk import walk
from .base import Method, Step
from .explicit_rk import ExplicitRK
from .interpolant import Interpolant, Polynomial, combine
from .order import real_stability_interval
from .rosenbrock import Rosenbrock
from .tableau import Tableau

__all__ = ["Switching"]

# Shampine's and Hairer's ways, with the numbers of the Julia suite: the step is at the limit of the
# explicit method's stability when dt ρ is above 0.9 of it; after 10 such steps in a row the
# problem is called stiff, and after 3 below it no longer.
_LIMIT, _TO_STIFF, _FROM_STIFF = 0.9, 10, 3


class _Memory(NamedTuple):
    """The explicit method's memory; whether the next step is stiff; steps that spoke against it."""

    slope: Any
    stiff: Int[Array, ""]
    count: Int[Array, ""]


class Switching(Method):
    """`explicit`, until its steps are held down by stability; then `implicit`, until they are not.

    An explicit step tells dt ρ of the stiffest direction by the quotient of two slopes at its end,
    |f(g) − f(h)| / |g − h|; a Rosenbrock step by norms of its Jacobian, ρ ≤ min(|J|₁, |J|_∞). Ten
    accepted steps in a row with dt ρ > 0.9 of the explicit method's stability interval turn to the
    Rosenbrock method, three below that turn back. `solve(method=None)` does this for small systems.

    Both methods are compiled. At run time a step pays for the one that makes it; in a batch under
    `jax.vmap` for both, while some samples are stiff and some are not.

    Args:
        explicit: an `ExplicitRK` with an embedded pair, its own dense output and two stages at
            t + dt, such as `Tsit5()` or `Vern7()`.
        implicit: a `Rosenbrock` method with dense output.

    Raises:
        ValueError: explicit has no two stages at t + dt; one of both lacks a pair or dense output.

    Reference: hairer1996, IV.2; petzold1983.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> relaxing = de.ODEProblem(lambda t, y, a: -1e5 * (y - jnp.cos(t)), 0.0, (0.0, 3.0))
        >>> method = de.Switching(de.Tsit5(), de.Rodas5P())
        >>> int(de.solve(relaxing, method).stats["steps"]) < 100
        True
    """

    form: ClassVar[str] = "mass"
    real_view: ClassVar[bool] = True

    explicit: ExplicitRK
    implicit: Rosenbrock

    def __check_init__(self) -> None:
        if not isinstance(self.explicit, ExplicitRK) or not isinstance(self.implicit, Rosenbrock):
            raise ValueError(
                f"Switching got {self.explicit!r} and {self.implicit!r}; an explicit Runge–Kutta "
                "method and a Rosenbrock method are wanted."
            )
        for table in (self.explicit.tableau, self.implicit.tableau):
            if table.b_hat is None or table.dense is None:
                raise ValueError(f"{table.name} has no embedded pair or no dense output.")
        _last_two(self.explicit.tableau)

    @property
    def order(self) -> int:
        """The smaller of both orders."""
        return min(self.explicit.order, self.implicit.order)

    @property
    def error_order(self) -> int:
        """The smaller of both: steps change a little less than the more exact method could."""
        return min(self.explicit.error_order, self.implicit.error_order)

    @property
    def adaptive(self) -> bool:
        """Both estimate their error."""
        return True

    @property
    def remembers(self) -> bool:
        """Which method is on is a matter of history, and stands on the tape."""
        return True

    @property
    def evaluations(self) -> None:
        """Counted step by step."""
        return

    def __repr__(self) -> str:
        return f"Switching({self.explicit!r}, {self.implicit!r})"

    def init(self, form: Any, t: Real[Array, ""], y: Array) -> _Memory:
        """Explicit at first."""
        zero = jnp.zeros((), jnp.int32)
        return _Memory(self.explicit.init(form, t, y), zero, zero)

    def step(
        self, form: Any, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: Any
    ) -> Step:
        """One step of the method that is on, and which one will be on in the next.

        Where that is the Rosenbrock method the explicit one makes a step of length zero, in which
        nothing can overflow. Its own step is a walk of at most one turn, which replaces what the
        other has found. A `lax.cond` is a select under vmap: all lanes would pay for both, and what
        overflows on the side that is not theirs would spoil their gradients. A walk that no lane
        takes is not run, and lanes that sit it out have no part in its derivative.
        """
        stiff = memory.stiff == 1
        lean = self.explicit.step(_once(form), t, y, jnp.where(stiff, 0, dt), memory.slope)
        reach = dt * _rate(self.explicit.tableau, dt, lean.data)
        blank = tuple(jnp.zeros_like(y) for _ in self.implicit.tableau.dense[0])

        def implicitly(*_: Any) -> tuple:
            found = slopes(form.field, t, y, form.jac)
            step = self.implicit.step_from(form, t, y, dt, found)
            slope = self.explicit.init(form, t + dt, step.y)
            inside = self.implicit.interpolant(form, t, y, dt, step).coefficients
            return (step.y, step.error, slope, inside, dt * _bound(found.by_y)), ()

        (y1, error, slope, inside, reach), _ = walk(
            implicitly, 0, memory.stiff, carry=(lean.y, lean.error, lean.memory, blank, reach),
            length=1,
        )  # fmt: skip
        after = self._after(memory, slope, lax.stop_gradient(reach))
        return Step(y1, error, after, (memory.stiff, lean, inside), evaluations=self._spent(stiff))

    def _spent(self, stiff: Array) -> Array:
        lean = self.explicit.evaluations
        full = lean + self.implicit.evaluations + self.explicit.tableau.fsal
        return jnp.where(stiff, full, lean).astype(jnp.int32)

    def _after(self, memory: _Memory, slope: Any, reach: Array) -> _Memory:
        stiff = memory.stiff == 1
        against = (reach > _LIMIT * _interval(self.explicit.tableau)) != stiff
        count = jnp.where(against, memory.count + 1, 0)
        turns = count >= jnp.where(stiff, _FROM_STIFF, _TO_STIFF)
        return _Memory(
            slope,
            jnp.where(turns, 1 - memory.stiff, memory.stiff),
            jnp.where(turns, 0, count).astype(jnp.int32),
        )

    def interpolant(self, form: Any, t: Array, y: Array, dt: Array, step: Step) -> Interpolant:
        """The polynomial of the method that made the step."""
        was_stiff, lean, inside = step.data
        stiff = was_stiff == 1
        outside = self.explicit.interpolant(form, t, y, jnp.where(stiff, 0, dt), lean).coefficients
        pairs = zip_longest(outside, inside, fillvalue=jnp.zeros_like(y))
        return Polynomial(y, tuple(jnp.where(stiff, b, a) for a, b in pairs), dt)


def _once(form: Any) -> Any:
    """The form with a field whose values XLA computes once, and not anew for each of the results of
    a step that are wanted apart.
    """
    return replace(form, field=lambda t, y: lax.optimization_barrier(form.field(t, y)))


def _last_two(table: Tableau) -> tuple[int, int]:
    """The last two stages at t + dt, which differ by little but for the stiff directions."""
    ends = [i for i, c in enumerate(table.exact.c) if c == 1]
    if len(ends) < 2:
        raise ValueError(f"{table.name} has no two stages at t + dt, which tell stiffness.")
    return ends[-2], ends[-1]


def _rate(table: Tableau, dt: Array, stages: tuple) -> Array:
    """|f(g) − f(h)| / |g − h| of two stages at t + dt."""
    i, j = _last_two(table)
    apart = dt * combine(table.A[j] - table.A[i], stages)
    below = jnp.sum(apart * apart)
    above = jnp.sum((stages[j] - stages[i]) ** 2)
    return jnp.sqrt(above / jnp.where(below > 0, below, 1)) * (below > 0)


def _bound(matrix: Array) -> Array:
    """min(|J|₁, |J|_∞), which no eigenvalue exceeds."""
    sizes = jnp.abs(matrix)
    return jnp.minimum(jnp.max(jnp.sum(sizes, axis=0)), jnp.max(jnp.sum(sizes, axis=1)))


@cache
def _interval(table: Tableau) -> float:
    return real_stability_interval(table.A, table.b)
