"""The canonical equations that methods see, over packed arrays, and how to lower one to another."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

__all__ = ["Mass", "Ode", "Partitioned", "Split", "lower"]


@dataclass(frozen=True)
class Ode:
    """y' = field(t, y). `jac(t, y)`, if known, is ∂field/∂y of the ravelled state."""

    field: Callable
    jac: Callable | None = None


@dataclass(frozen=True)
class Split:
    """y' = implicit(t, y) + explicit(t, y); `jac` is that of the implicit part."""

    implicit: Callable
    explicit: Callable
    jac: Callable | None = None


@dataclass(frozen=True)
class Mass:
    """M y' = field(t, y) over the ravelled state.

    `mass` is M: a matrix, its diagonal as a vector, or None for 1. `free` projects on what M cannot
    reach, in the same shape: free · M = 0, and free · field = 0 are the algebraic equations.
    """

    field: Callable
    jac: Callable | None = None
    mass: Any = None
    free: Any = None


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


def _ode_to_mass(form: Ode) -> Mass:
    return Mass(form.field, form.jac)


_NAMES = {"ode": Ode, "split": Split, "partitioned": Partitioned, "mass": Mass}

# One table says which equation a method for another can solve, and how.
_RULES: dict[tuple[type, type], Callable] = {
    (Ode, Ode): _same,
    (Split, Split): _same,
    (Partitioned, Partitioned): _same,
    (Split, Ode): _split_to_ode,
    (Partitioned, Ode): _partitioned_to_ode,
    (Mass, Mass): _same,
    (Ode, Mass): _ode_to_mass,
    (Split, Mass): lambda form: _ode_to_mass(_split_to_ode(form)),
    (Partitioned, Mass): lambda form: _ode_to_mass(_partitioned_to_ode(form)),
}

_IMPLICIT = (
    "is explicit, and a mass-matrix problem needs an implicit method: Rodas5P, RadauIIA5, BDF"
)

_REASONS = {
    (Ode, Partitioned): "needs positions and momenta: give a SecondOrderProblem or a "
    "HamiltonianProblem, or choose a method for any ODE, such as de.Tsit5()",
    (Ode, Split): "needs two parts: give a SplitODEProblem",
    (Mass, Ode): _IMPLICIT,
    (Mass, Split): "needs two parts and no mass matrix: give a SplitODEProblem",
    (Mass, Partitioned): _IMPLICIT,
}


def lower(form: Any, wanted: str | tuple[str, ...], method: str) -> Any:
    """`form` as the form that the method steps, or one sentence that says why not.

    Of several that are wanted, the one that the form has already, or else the last one.
    """
    names = (wanted,) if isinstance(wanted, str) else wanted
    if type(form) in [_NAMES[name] for name in names]:
        return form
    if isinstance(form, Mass) and form.mass is None:
        form = Ode(form.field, form.jac)
    target = _NAMES[names[-1]]
    rule = _RULES.get((type(form), target))
    if rule is None:
        reason = _REASONS.get((type(form), target), f"takes {names[-1]} equations only")
        raise TypeError(f"{method} {reason}.")
    return rule(form)
