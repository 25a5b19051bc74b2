"""Delay equations whose solutions are known."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from diffeq import problems
from diffeq.zoo.case import vector

__all__ = [
    "DelayCase",
    "delay_cases",
    "delayed_decay",
    "hutchinson",
    "mackey_glass",
    "neves",
    "pantograph",
]


@dataclasses.dataclass(frozen=True, eq=False)
class DelayCase:
    """A delay equation whose solution is known.

    Attributes:
        name, title: for the register, and for a table.
        field: f(t, y, past, args).
        history: a vector, or a function of (t, args) that returns one.
        tspan: the interval.
        args: the parameters, a vector, or None.
        lags: as in `DDEProblem`.
        source: a key of `docs/references.bib`.
        exact: t ↦ y(t), where there is a closed form; in numpy.
        y1: the state at the end, right to about 1e-12: from the chain of ODEs that the method of
            steps makes of the equation, solved by DOP853; or from the closed form.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.hutchinson()
        >>> sol = de.solve(case.problem(), rtol=1e-5, atol=1e-7)
        >>> bool(abs(sol.y1 - case.y1).max() < 1e-3)
        True

    """

    name: str
    title: str
    field: Callable[..., Any]
    history: Any
    tspan: tuple[float, float]
    lags: Any
    source: str
    y1: Float64[np.ndarray, " n"]
    args: Float64[np.ndarray, " k"] | None = None
    exact: Callable[[float], Float64[np.ndarray, " n"]] | None = None

    def problem(self) -> "problems.DDEProblem":
        """The problem, in the default precision of JAX."""
        known = callable(self.history)
        return problems.DDEProblem(
            self.field,
            None,
            self.tspan,
            None if self.args is None else jnp.asarray(self.args),
            history=self.history if known else jnp.asarray(self.history),
            lags=self.lags,
        )


def _decay(t, y, past, args):
    return -past(t - 1.0)


def _decay_exact(t: float) -> Float64[np.ndarray, " n"]:
    """Σ_k (−1)^k (t − k + 1)^k / k!, over the k with k ≤ t + 1."""
    last = math.floor(t) + 1
    return vector(sum((-1) ** k * (t - k + 1) ** k / math.factorial(k) for k in range(last + 1)))


def delayed_decay() -> DelayCase:
    """Y' = −y(t − 1), y = 1 before 0: a polynomial of one more degree in each unit of time.

    Reference: hairer1993, II.17.

    Example:
        >>> import diffeq as de
        >>> de.zoo.delayed_decay().exact(2.0)
        array([-0.5])
    """
    return DelayCase(
        name="delayed_decay",
        title="delayed decay, polynomials",
        field=_decay,
        history=vector(1.0),
        tspan=(0.0, 5.0),
        lags=1.0,
        source="hairer1993",
        y1=_decay_exact(5.0),
        exact=_decay_exact,
    )


def _hutchinson(t, y, past, args):
    rate, lag = args
    return rate * y * (1 - past(t - lag))


def hutchinson() -> DelayCase:
    """Hutchinson's logistic equation y' = r y (1 − y(t − τ)), beyond its Hopf point r τ = π/2.

    r = 2, τ = 1, y = 0.5 before 0, over (0, 8): spikes and long times near zero.

    Reference: hutchinson1948.

    Example:
        >>> import diffeq as de
        >>> de.zoo.hutchinson().tspan
        (0.0, 8.0)
    """
    return DelayCase(
        name="hutchinson",
        title="Hutchinson's logistic equation",
        field=_hutchinson,
        history=vector(0.5),
        tspan=(0.0, 8.0),
        args=vector(2.0, 1.0),
        lags=lambda args: args[1],
        source="hutchinson1948",
        y1=vector(0.201025492962589),
    )


def _mackey_glass(t, y, past, args):
    production, decay, power, lag = args
    delayed = past(t - lag)
    return production * delayed / (1 + delayed**power) - decay * y


def mackey_glass() -> DelayCase:
    """Mackey and Glass' blood cells, y' = β y_τ/(1 + y_τⁿ) − γ y: chaos of dimension two.

    β = 0.2, γ = 0.1, n = 10, τ = 17, y = 0.5 before 0, over (0, 102).

    Reference: mackey1977.

    Example:
        >>> import diffeq as de
        >>> de.zoo.mackey_glass().args
        array([ 0.2,  0.1, 10. , 17. ])
    """
    return DelayCase(
        name="mackey_glass",
        title="Mackey–Glass, chaotic",
        field=_mackey_glass,
        history=vector(0.5),
        tspan=(0.0, 102.0),
        args=vector(0.2, 0.1, 10.0, 17.0),
        lags=lambda args: args[3],
        source="mackey1977",
        y1=vector(0.954171538594944),
    )


def _neves(t, y, past, args):
    _, b = y
    delayed = past(jnp.exp(1 - b))[1]
    return jnp.stack([b, -delayed * b**2 * jnp.exp(1 - b)])


def _neves_exact(t: float) -> Float64[np.ndarray, " n"]:
    return vector(math.log(t), 1 / t)


def neves() -> DelayCase:
    """A lag that depends on the state, and vanishes at t = 1: y = (log t, 1/t).

    y₁' = y₂, y₂' = −y₂(s) y₂² s with s = exp(1 − y₂), known before 0.1, over (0.1, 5).

    Reference: neves1975.

    Example:
        >>> import diffeq as de
        >>> de.zoo.neves().exact(1.0)
        array([0., 1.])
    """
    return DelayCase(
        name="neves",
        title="a lag that depends on the state",
        field=_neves,
        history=lambda t, args: jnp.stack([jnp.log(t), 1 / t]),
        tspan=(0.1, 5.0),
        lags=lambda t, y, args: t - jnp.exp(1 - y[1]),
        source="neves1975",
        y1=_neves_exact(5.0),
        exact=_neves_exact,
    )


def _pantograph(t, y, past, args):
    return -past(t / 2)


def _pantograph_exact(t: float) -> Float64[np.ndarray, " n"]:
    """Σ_k (−t)^k / (k! 2^(k(k−1)/2))."""
    terms = ((-t) ** k / (math.factorial(k) * 2.0 ** (k * (k - 1) / 2)) for k in range(30))
    return vector(math.fsum(terms))


def pantograph() -> DelayCase:
    """The pantograph y' = −y(t/2): a lag that is zero at the start, where it lies within each step.

    Reference: ockendon1971.

    Example:
        >>> import diffeq as de
        >>> de.zoo.pantograph().exact(0.0)
        array([1.])
    """
    return DelayCase(
        name="pantograph",
        title="pantograph, a lag that vanishes",
        field=_pantograph,
        history=vector(1.0),
        tspan=(0.0, 6.0),
        lags=(),
        source="ockendon1971",
        y1=_pantograph_exact(6.0),
        exact=_pantograph_exact,
    )


def delay_cases() -> Iterator[DelayCase]:
    """Every delay equation there is.

    >>> import diffeq as de
    >>> [case.name for case in de.zoo.delay_cases() if case.exact is None]
    ['hutchinson', 'mackey_glass']
    """
    return (make() for make in (delayed_decay, hutchinson, mackey_glass, neves, pantograph))
