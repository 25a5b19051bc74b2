"""Two methods in one solve: an explicit one, and a Rosenbrock method while the problem is stiff."""

from functools import cache
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Real

from ..algebra import slopes
from .base import Method, Step
from .explicit_rk import ExplicitRK
from .interpolant import Chebyshev, Interpolant, Polynomial, combine
from .order import real_stability_interval
from .rosenbrock import Rosenbrock, step_from
from .tableau import Tableau

__all__ = ["Switching"]

# A step is at the limit of the explicit method's stability when dt ρ is above 0.9 of its interval;
# after 10 more of such steps than of others the problem is called stiff, and after 3 below it no
# longer. These are the figures of OrdinaryDiffEq's AutoSwitch, which asks for 10 in a row; DOPRI5
# asks for 15, and forgets them after 6 in a row of the others. There is no such row where dt swings
# about the limit, as it does with loose tolerances.
_LIMIT, _TO_STIFF, _FROM_STIFF = 0.9, 10, 3


class _Memory(NamedTuple):
    """The explicit method's memory, and how many steps spoke against it; from 10 on the stiff one
    is on, and what is above 10 speaks against that.
    """

    first: Any
    votes: Int[Array, ""]


class _Paired(Method):
    """What the pair and each of its two methods share: both estimate their error, and are counted
    step by step.
    """

    form: ClassVar[str] = "mass"
    real_view: ClassVar[bool] = True

    @property
    def adaptive(self) -> bool:
        """Both estimate their error."""
        return True

    @property
    def evaluations(self) -> None:
        """Counted step by step."""
        return


class Switching(_Paired):
    """`nonstiff`, until its steps are held down by stability; then `stiff`, until they are not.

    An explicit step tells dt ρ of the stiffest direction by the quotient of two slopes at its end,
    |f(g) − f(h)| / |g − h|; a Rosenbrock step by norms of its Jacobian, ρ ≤ min(|J|₁, |J|_∞). Ten
    more accepted steps with dt ρ above 0.9 of the explicit method's stability interval than below
    turn to the Rosenbrock method, three in a row below that turn back.

    Both methods are compiled, each in a loop of its own: a step pays for the method that makes it,
    and for a comparison. In a batch under `jax.vmap` lanes wait while those of the other kind step.
    After an event or a stop it begins with `nonstiff` again; the 64th time that it turns to `stiff`
    it stays there. It takes ODEs, chooses its own steps, and differentiates by `Discrete`. With
    Tsit5 or Vern7, and Rodas5P, it is what `method=None` means for an ODE of at most 64 numbers.

    Args:
        nonstiff: an `ExplicitRK` with an embedded pair, its own dense output and two stages at
            t + dt, such as `Tsit5()` or `Vern7()`.
        stiff: a `Rosenbrock` method with an embedded pair and dense output, such as `Rodas5P()`.

    Raises:
        TypeError: the methods are of other families, or lack what is wanted of them.

    Reference: hairer1996, IV.2; petzold1983; rackauckas2020.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> relaxing = de.ODEProblem(lambda t, y, a: -1e4 * (y - jnp.cos(t)), 0.0, (0.0, 3.0))
        >>> method = de.Switching(de.Tsit5(), de.Rodas5P())
        >>> int(de.solve(relaxing, method).stats["steps"]) < 100
        True
    """

    nonstiff: Any  # refused with a sentence where it is no ExplicitRK, and this no Rosenbrock
    stiff: Any

    def __check_init__(self) -> None:
        if not isinstance(self.nonstiff, ExplicitRK) or not isinstance(self.stiff, Rosenbrock):
            raise TypeError(
                f"Switching got {self.nonstiff!r} and {self.stiff!r}; an explicit Runge–Kutta "
                "method and a Rosenbrock method are wanted: de.Switching(de.Tsit5(), de.Rodas5P())."
            )
        for method in (self.nonstiff, self.stiff):
            if method.tableau.b_hat is None or method.tableau.dense is None:
                raise TypeError(
                    f"{method!r} has no embedded pair or no dense output of its own: choose "
                    "Tsit5(), Dopri5() or Vern7(), and Rodas4() or Rodas5P()."
                )
        if _last_two(self.nonstiff.tableau) is None:
            raise TypeError(
                f"{self.nonstiff!r} has no two stages at t + dt, which tell stiffness: choose "
                "Tsit5(), Dopri5() or Vern7()."
            )

    @property
    def order(self) -> int:
        """The smaller of both orders."""
        return min(self.nonstiff.order, self.stiff.order)

    @property
    def error_order(self) -> int:
        """That of the method a solve begins with; each step is judged by its own."""
        return self.nonstiff.error_order

    @property
    def phases(self) -> tuple[Method, ...]:
        """The explicit method and the stiff one, each with an eye on the other."""
        return _Lean(self), _Stiff(self)

    @property
    def scout(self) -> Method:
        """The explicit method alone, in one loop: it makes the same steps, and ends a solve with
        `Status.stiff` where it would hand over.
        """
        return _Scout(self)

    def phase(self, memory: _Memory) -> Any:
        """Which of both is on."""
        return jnp.where(memory.votes < _TO_STIFF, 0, 1)

    def init(self, form: Any, t: Real[Array, ""], y: Array) -> _Memory:
        """Explicit at first."""
        return _Memory(self.nonstiff.init(form, t, y), jnp.zeros((), jnp.int32))

    def __repr__(self) -> str:
        return f"Switching({self.nonstiff!r}, {self.stiff!r})"


class _Phase(_Paired):
    """One of the two, with the memory and the polynomials of both."""

    pair: Switching

    @property
    def own(self) -> Any:
        """The method that makes the steps."""
        raise NotImplementedError

    @property
    def order(self) -> int:
        """Its order."""
        return self.own.order

    @property
    def error_order(self) -> int:
        """The power of dt of its estimate."""
        return self.own.error_order

    def init(self, form: Any, t: Real[Array, ""], y: Array) -> _Memory:
        """Explicit at first."""
        return self.pair.init(form, t, y)

    def interpolant_evaluates(self, form: Any) -> bool:
        """As the method's."""
        return self.own.interpolant_evaluates(form)

    def interpolation_error(self, y: Array, dt: Array, step: Step, path: Any) -> Any:
        """That of the method."""
        return self.own.interpolation_error(y, dt, step, path)

    def interpolant(self, form: Any, t: Array, y: Array, dt: Array, step: Step) -> Interpolant:
        """The polynomial of the method, of as many terms as the longer of both."""
        found = self.own.interpolant(form, t, y, dt, step)
        degree = max(m.tableau.dense.shape[1] for m in (self.pair.nonstiff, self.pair.stiff))
        kind = Polynomial
        if self.pair.nonstiff.tableau.dense_chebyshev is not None:
            kind, found = (
                Chebyshev,
                found.in_chebyshev() if isinstance(found, Polynomial) else found,
            )
        blank = (jnp.zeros_like(y),) * (degree - len(found.coefficients))
        return kind(y, (*found.coefficients, *blank), dt)


class _Lean(_Phase):
    """The explicit method."""

    @property
    def own(self) -> ExplicitRK:
        """The explicit method."""
        return self.pair.nonstiff

    def step(
        self, form: Any, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: Any
    ) -> Step:
        """One step, and whether it was at the limit."""
        if form.mass is not None:
            raise TypeError(
                f"{self.pair!r} begins with an explicit method, which takes no mass matrix: use "
                "Rodas5P(), RadauIIA5() or BDF()."
            )
        step = self.own.step(form, t, y, dt, memory.first)
        limited = _at_limit(self.own.tableau, lax.stop_gradient(step.data))
        votes = jnp.where(limited, memory.votes + 1, jnp.maximum(memory.votes - 1, 0))
        spent = jnp.int32(self.own.evaluations)
        return step._replace(memory=_Memory(step.memory, votes), evaluations=spent)


class _Scout(_Lean):
    """The explicit method, while the problem is not stiff."""

    def tired(self, step: Step) -> Any:
        """Whether the stiff one is to go on."""
        return self.pair.phase(step.memory) == 1

    def __repr__(self) -> str:
        return repr(self.pair)


class _Stiff(_Phase):
    """The Rosenbrock method."""

    @property
    def own(self) -> Rosenbrock:
        """The Rosenbrock method."""
        return self.pair.stiff

    def step(
        self, form: Any, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: Any
    ) -> Step:
        """One step, and whether an explicit one could be as long."""
        lean = self.pair.nonstiff
        found = slopes(form.field, t, y, form.jac)
        step = step_from(self.own.tableau, form, t, y, dt, found, rolled=True)
        first = lean.init(form, t + dt, step.y)
        reach = dt * _bound(lax.stop_gradient(found.by_y))
        free = reach < _LIMIT * _interval(lean.tableau)
        votes = jnp.where(free, memory.votes + 1, _TO_STIFF)
        votes = jnp.where(votes >= _TO_STIFF + _FROM_STIFF, 0, votes).astype(jnp.int32)
        spent = jnp.int32(self.own.evaluations + lean.tableau.fsal)
        return step._replace(memory=_Memory(first, votes), evaluations=spent)


def _last_two(table: Tableau) -> tuple[int, int] | None:
    """The last two stages at t + dt, which differ by little but in the stiff directions."""
    ends = [i for i, c in enumerate(table.exact.c) if c == 1]
    return (ends[-2], ends[-1]) if len(ends) > 1 else None


def _at_limit(table: Tableau, stages: tuple) -> Array:
    """Whether dt |f(g) − f(h)| / |g − h| is above 0.9 of the interval, for two stages at t + dt;
    both are squared, so that nothing is divided and no root is taken.
    """
    i, j = _last_two(table) or (0, 0)
    apart = combine((table.A[j] - table.A[i])[: len(stages)], stages)  # |g − h| / dt
    below, above = (jnp.sum(x * x) for x in (apart, stages[j] - stages[i]))
    return above > (_LIMIT * _interval(table)) ** 2 * below


def _bound(matrix: Array) -> Array:
    """min(|J|₁, |J|_∞), which no eigenvalue exceeds."""
    sizes = jnp.abs(matrix)
    return jnp.minimum(jnp.max(jnp.sum(sizes, axis=0)), jnp.max(jnp.sum(sizes, axis=1)))


@cache
def _interval(table: Tableau) -> float:
    return real_stability_interval(table.A, table.b)
