"""The canonical equations that methods see, over packed arrays, and how to lower one to another."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

__all__ = ["Ode", "Partitioned", "Split", "lower", "rate_of"]


@dataclass(frozen=True)
class Ode:
    """y' = field(t, y)."""

    field: Callable


@dataclass(frozen=True)
class Split:
    """y' = implicit(t, y) + explicit(t, y)."""

    implicit: Callable
    explicit: Callable


@dataclass(frozen=True)
class Partitioned:
    """q' = drift(t, q, p), p' = kick(t, q, p); the state is (q, p) as one vector, q first.

    `separable`: drift does not depend on q, nor kick on p. `identity`: drift is p itself, as in a
    second-order equation (−p where time runs backwards).
    """

    drift: Callable
    kick: Callable
    separable: bool
    identity: bool

    def halves(self, y: Any) -> tuple[Any, Any]:
        """(q, p)."""
        half = y.shape[-1] // 2
        return y[..., :half], y[..., half:]


def _split_to_ode(form: Split) -> Ode:
    return Ode(lambda t, y: form.implicit(t, y) + form.explicit(t, y))


def _partitioned_to_ode(form: Partitioned) -> Ode:
    def field(t: Any, y: Any) -> Any:
        q, p = form.halves(y)
        return jnp.concatenate([form.drift(t, q, p), form.kick(t, q, p)])

    return Ode(field)


def _same(form: Any) -> Any:
    return form


_NAMES = {"ode": Ode, "split": Split, "partitioned": Partitioned}

# One table says which equation a method for another can solve, and how.
_RULES: dict[tuple[type, type], Callable] = {
    (Ode, Ode): _same,
    (Split, Split): _same,
    (Partitioned, Partitioned): _same,
    (Split, Ode): _split_to_ode,
    (Partitioned, Ode): _partitioned_to_ode,
}

_REASONS = {
    (Ode, Partitioned): "needs positions and momenta: give a SecondOrderProblem or a "
    "HamiltonianProblem, or choose a method for any ODE, such as de.Tsit5()",
    (Ode, Split): "needs two parts: give a SplitODEProblem",
}


def rate_of(form: Any) -> Callable | None:
    """dy/dt as a function of (t, y), where the form has one."""
    rule = _RULES.get((type(form), Ode))
    return None if rule is None else rule(form).field


def lower(form: Any, wanted: str, method: str) -> Any:
    """`form` as the form that the method steps, or one sentence that says why not."""
    target = _NAMES[wanted]
    rule = _RULES.get((type(form), target))
    if rule is None:
        reason = _REASONS.get((type(form), target), f"takes {wanted} equations only")
        raise TypeError(f"{method} {reason}.")
    return rule(form)
