"""Two methods in one solve: an explicit one, and a Rosenbrock method while the problem is stiff."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, PyTree, Real

from ..algebra import AbstractMatrix, field_derivatives
from ..problems.forms import Mass
from .base import Method, Step
from .explicit_rk import ExplicitRK
from .interpolant import ChebyshevInterpolant, Interpolant, Polynomial
from .rosenbrock import Rosenbrock, step_from
from .stiffness import Signs, last_two, no_signs, read_signs, stability_limits

__all__ = ["Switching"]

# Votes that turn to the stiff method: those of 15 attempts, and of one more for two numbers of the
# state, for a step with a Jacobian costs the more the larger that is. DOPRI5 asks for 15 steps,
# OrdinaryDiffEq's AutoSwitch for 10.
_FIRST, _EACH = 45, 1.5

# A step of the stiff method pays when the explicit one would need so many for it as half of what it
# costs: with a dense Jacobian it takes as long as ten to a hundred of them where n is between 8 and
# 64 (measured). After five in a row that are no longer than an explicit step can be the explicit
# method goes on, and after twenty that do not pay.
_PAYS, _FREE, _POOR, _GIVE_UP = 0.25, 20, 1, 100

# Each time in a row that the stiff method did not pay it takes four times as many votes to try it
# again.
_MORE, _MOST = 4, 1_000_000

# A single attempt hands over while it takes no more votes than these.
_LATEST = 1_000


class _SwitchMemory(NamedTuple):
    """The explicit method's memory, the signs of stiffness, and how many votes it takes. From there
    on the stiff method is on, and votes beyond that speak against it.
    """

    first: PyTree
    signs: Signs
    wanted: Int[Array, ""]


class _Paired(Method):
    """The base of the pair and of each of its two methods: both estimate their error, and count
    their evaluations step by step.
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

    An explicit step tells the stiffest eigenvalues z = dt λ by its last two stages, and has a sign
    of stiffness where one of them lies outside the stability region, or where the error does not
    change with modes that fast. Such an attempt, accepted or rejected, counts for the Rosenbrock
    method, an accepted one without counts against it; about fifteen more of the former turn to it.
    A Rosenbrock step has the norm of its Jacobian; five in a row that an explicit step could make
    turn back, and so do a hundred which are longer than that but cost more than explicit ones.

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
        if last_two(self.nonstiff.tableau) is None:
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
    def submethods(self) -> tuple[Method, ...]:
        """The explicit method and the stiff one, each with an eye on the other."""
        return _NonstiffPhase(self), _StiffPhase(self)

    @property
    def nonstiff_probe(self) -> Method:
        """The explicit method alone, in one loop: it makes the same steps, and ends a solve with
        `Status.stiff` where it would hand over.
        """
        return _NonstiffProbe(self)

    def submethod(self, memory: _SwitchMemory) -> Int[Array, ""] | int:
        """The number of the method that makes the next step: 0 explicit, 1 stiff."""
        return jnp.where(memory.signs.votes < memory.wanted, 0, 1)

    def init(self, form: Mass, t: Real[Array, ""], y: Array) -> _SwitchMemory:
        """Explicit at first."""
        first, votes = self.nonstiff.init(form, t, y), _first_votes(y.size)
        return _SwitchMemory(first, no_signs(y), jnp.int32(votes))

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

    def init(self, form: Mass, t: Real[Array, ""], y: Array) -> _SwitchMemory:
        """Explicit at first."""
        return self.pair.init(form, t, y)

    def interpolant_evaluates(self, form: Mass) -> bool:
        """As the method's."""
        return self.own.interpolant_evaluates(form)

    def interpolation_error(
        self, y: Array, dt: Array, step: Step, path: Interpolant | None
    ) -> Array | None:
        """That of the method."""
        return self.own.interpolation_error(y, dt, step, path)

    def interpolant(self, form: Mass, t: Array, y: Array, dt: Array, step: Step) -> Interpolant:
        """The polynomial of the method, of as many terms as the longer of both."""
        found = self.own.interpolant(form, t, y, dt, step)
        degree = max(m.tableau.dense.shape[1] for m in (self.pair.nonstiff, self.pair.stiff))
        kind = Polynomial
        if self.pair.nonstiff.tableau.dense_chebyshev is not None:
            kind, found = (
                ChebyshevInterpolant,
                found.in_chebyshev() if isinstance(found, Polynomial) else found,
            )
        blank = (jnp.zeros_like(y),) * (degree - len(found.coefficients))
        terms = (*found.coefficients, *blank)
        return kind(y, jnp.stack(terms) if self.pair.nonstiff.loops(form) else terms, dt)


class _NonstiffPhase(_Phase):
    """The explicit method."""

    @property
    def own(self) -> ExplicitRK:
        """The explicit method."""
        return self.pair.nonstiff

    def step(
        self, form: Mass, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step, and the signs of stiffness in it."""
        if form.mass is not None:
            raise TypeError(
                f"{self.pair!r} begins with an explicit method, which takes no mass matrix: use "
                "Rodas5P(), RadauIIA5() or BDF()."
            )
        step = self.own.step(form, t, y, dt, memory.first)
        seen = lax.stop_gradient((step.data, step.error, dt, memory.signs))
        accepted, rejected, decisive = read_signs(self.own.tableau, *seen)
        ready = memory.wanted <= _LATEST
        full = memory._replace(signs=memory.signs._replace(votes=memory.wanted))
        enough = lambda signs: signs._replace(votes=jnp.minimum(signs.votes, memory.wanted))  # noqa: E731
        spent = jnp.int32(self.own.evaluations)
        return step._replace(
            memory=memory._replace(first=step.memory, signs=enough(accepted)),
            rejected=memory._replace(signs=enough(rejected)),
            hands_over=(
                ready & decisive[0],
                (ready & decisive[1]) | (rejected.votes >= memory.wanted),
                full,
            ),
            evaluations=spent,
        )


class _NonstiffProbe(_NonstiffPhase):
    """The explicit method, while the problem is not stiff."""

    def gives_up(self, memory: PyTree) -> Bool[Array, ""] | bool | None:
        """True once the stiff method is to make the next step."""
        return self.pair.submethod(memory) == 1

    def __repr__(self) -> str:
        return repr(self.pair)


class _StiffPhase(_Phase):
    """The Rosenbrock method."""

    @property
    def own(self) -> Rosenbrock:
        """The Rosenbrock method."""
        return self.pair.stiff

    def step(
        self, form: Mass, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step, and its count for or against the stiff method."""
        nonstiff = self.pair.nonstiff
        found = field_derivatives(form.field, t, y, form.jac)
        step = step_from(self.own.tableau, form, t, y, dt, found, rolled=True)
        first = nonstiff.init(form, t + dt, step.y)
        reach = dt * _spectral_bound(lax.stop_gradient(found.by_y))
        after = _count_votes(memory, reach / min(stability_limits(nonstiff.tableau)), y.size)
        spent = jnp.int32(self.own.evaluations + nonstiff.tableau.fsal)
        return step._replace(memory=after._replace(first=first), evaluations=spent)


def _first_votes(size: int) -> int:
    """The number of votes that it takes at first to switch a state of this size to the stiff
    method.
    """
    return int(_FIRST + _EACH * size)


def _count_votes(memory: _SwitchMemory, worth: Array, size: int) -> _SwitchMemory:
    """The memory after a step of the stiff method that is worth so many explicit ones."""
    wanted, votes = memory.wanted, memory.signs.votes
    usual, free, pays = _first_votes(size), worth < 1, worth >= max(1.0, _PAYS * size)
    against = jnp.where(free, _FREE, _POOR) + votes - wanted
    ends = ~pays & (against >= _GIVE_UP)
    wanted = jnp.where(pays | (ends & free), usual, wanted)
    wanted = jnp.where(ends & ~free, jnp.minimum(_MORE * wanted, _MOST), wanted)
    votes = jnp.where(ends, 0, jnp.where(pays, wanted, wanted + against)).astype(jnp.int32)
    return memory._replace(
        signs=memory.signs._replace(votes=votes), wanted=wanted.astype(jnp.int32)
    )


def _spectral_bound(matrix: Array | AbstractMatrix) -> Array:
    """The least of three norms of a matrix, which no eigenvalue exceeds: |J|₁, |J|_∞, and |J|_∞
    once rows and columns are balanced, without which x'' = −ω² x would have ω² and not ω.
    """
    times, rows, columns = _absolute_sums(matrix)
    blank = (rows == 0) | (columns == 0)
    scale = jnp.where(blank, 1, (rows / jnp.where(blank, 1, columns)) ** 0.25)
    balanced = times(scale) / scale
    return jnp.min(jnp.stack([jnp.max(rows), jnp.max(columns), jnp.max(balanced)]))


def _absolute_sums(matrix: Array | AbstractMatrix) -> tuple[Callable, Array, Array]:
    """The map w ↦ |A| w, and the sums of the rows and of the columns of |A|."""
    if isinstance(matrix, AbstractMatrix):
        ones = jnp.ones(len(matrix), matrix.dtype)
        return matrix.row_sums, matrix.row_sums(ones), matrix.column_sums(ones)
    sizes = jnp.abs(matrix)
    return partial(jnp.matmul, sizes), jnp.sum(sizes, axis=1), jnp.sum(sizes, axis=0)
