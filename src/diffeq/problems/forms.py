"""The canonical equations that methods see, over packed arrays, and how to lower one to another."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from .history import History, Seen, Shape

__all__ = ["Delayed", "Ode", "Partitioned", "Split", "lower", "rule_for"]


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


@dataclass(frozen=True)
class Delayed:
    """y' = field(t, y, seen), where `seen` is the solution so far: an Ode, bound to a past.

    Until it is told where its own past begins, at `origin`, it knows the given history alone.
    """

    field: Callable
    shape: Shape
    history: History
    origin: Any
    sign: Any

    def over(self, origin: Any, history: History | None) -> "Delayed":
        """The same with another past, if there is one yet."""
        history = self.history if history is None else history
        return replace(self, history=history, origin=origin)

    def bind(
        self, now: Any, middle: Any, ahead: list | None = None, *, future: Any = jnp.nan,
        lost: Any = jnp.nan,
    ) -> Ode:  # fmt: skip
        """The equation of a step from `now`, with the row `ahead` for what lies beyond."""
        time = self.shape.time
        numbers = [jnp.asarray(x, time) for x in (now, middle, self.origin, future, lost)]
        ahead = self.shape.filled(jnp.nan) if ahead is None else ahead
        seen = Seen(self.history, ahead, *numbers, self.sign)
        return Ode(lambda t, y: self.field(t, y, seen))


def _split_to_ode(form: Split) -> Ode:
    return Ode(lambda t, y: form.implicit(t, y) + form.explicit(t, y))


def _partitioned_to_ode(form: Partitioned) -> Ode:
    def field(t: Any, y: Any) -> Any:
        q, p = form.halves(y)
        return jnp.concatenate([form.drift(t, q, p), form.kick(t, q, p)])

    return Ode(field)


def _same(form: Any) -> Any:
    return form


def _delayed_to_ode(form: Delayed) -> Ode:
    return form.bind(jnp.inf, jnp.inf)  # what is known now is all there will be


_NAMES = {"ode": Ode, "split": Split, "partitioned": Partitioned, "delayed": Delayed}

# One table says which equation a method for another can solve, and how.
_RULES: dict[tuple[type, type], Callable] = {
    (Ode, Ode): _same,
    (Split, Split): _same,
    (Partitioned, Partitioned): _same,
    (Split, Ode): _split_to_ode,
    (Partitioned, Ode): _partitioned_to_ode,
    (Delayed, Delayed): _same,
    (Delayed, Ode): _delayed_to_ode,
}

_REASONS = {
    (Ode, Partitioned): "needs positions and momenta: give a SecondOrderProblem or a "
    "HamiltonianProblem, or choose a method for any ODE, such as de.Tsit5()",
    (Ode, Split): "needs two parts: give a SplitODEProblem",
    (Delayed, Partitioned): "cannot look into the past: choose a method for any ODE, such as "
    "de.Tsit5()",
    (Delayed, Split): "cannot look into the past: choose a method for any ODE, such as de.Tsit5()",
}


def lower(form: Any, wanted: str, method: str) -> Any:
    """`form` as the form that the method steps, or one sentence that says why not."""
    return rule_for(type(form), wanted, method)(form)


def rule_for(kind: type, wanted: str, method: str) -> Callable:
    """How a form of this kind becomes the one that the method steps."""
    target = _NAMES[wanted]
    rule = _RULES.get((kind, target))
    if rule is None:
        reason = _REASONS.get((kind, target), f"takes {wanted} equations only")
        raise TypeError(f"{method} {reason}.")
    return rule
