"""The table of which form a method for another can step, and how."""

from collections.abc import Callable
from typing import Any

from .base import Form
from .dde import Delayed
from .higher_index import HigherIndex
from .implicit import Implicit
from .mass import Mass
from .ode import Increments, Ode
from .partitioned import Partitioned
from .sde import Ito, Sde, Stratonovich
from .split_ode import Split

__all__ = ["lower"]


def _other(kind: type, sign: int) -> Callable:
    def converted(form: Sde) -> Sde:
        drift = lambda t, y: form.drift(t, y) + sign * form.drift_correction(t, y)  # noqa: E731
        drift = form.drift if form.additive else drift
        return kind(**{**vars(form), "drift": drift})

    return converted


def _same(form: Form) -> Any:
    return form


def _to_ode(form: Split | Partitioned) -> Ode:
    return Ode(form.field, large=form.large)


def _ode_to_mass(form: Ode) -> Mass:
    return Mass(form.field, form.jac, large=form.large)


def _to_mass(form: Split | Partitioned) -> Mass:
    return Mass(form.field, large=form.large)


_NAMES = {
    "delayed": Delayed,
    "ode": Ode,
    "split": Split,
    "partitioned": Partitioned,
    "mass": Mass,
    "implicit": Implicit,
    "sde": Sde,
    "ito": Ito,
    "stratonovich": Stratonovich,
}

# One table says which equation a method for another can solve, and how.
_RULES: dict[tuple[type, type], Callable] = {
    (Ode, Ode): _same,
    (Increments, Ode): _same,
    (Split, Split): _same,
    (Partitioned, Partitioned): _same,
    (Split, Ode): _to_ode,
    (Partitioned, Ode): _to_ode,
    (Mass, Mass): _same,
    (HigherIndex, Mass): _same,
    (Implicit, Implicit): _same,
    (Delayed, Delayed): _same,
    (Ode, Mass): _ode_to_mass,
    (Split, Mass): _to_mass,
    (Partitioned, Mass): _to_mass,
    (Ito, Ito): _same,
    (Ito, Sde): _same,
    (Stratonovich, Sde): _same,
    (Stratonovich, Stratonovich): _same,
    (Ito, Stratonovich): _other(Stratonovich, -1),
    (Stratonovich, Ito): _other(Ito, 1),
}

_IMPLICIT = (
    "is explicit, and a mass-matrix problem needs an implicit method: Rodas5P, RadauIIA5, BDF"
)
_RESIDUAL = (
    "does not solve equations F(t, y, y') = 0: choose a method that does, de.BDF() or "
    "de.RadauIIA5(); or, where y' enters as M y', write a DAEProblem"
)
_NOISY = "solves equations without noise: choose a method for SDEs, such as de.SOSRI()"
_GIVEN = (
    "does not step a control by its increments: choose de.Heun() or de.Euler(), or "
    "by='derivative' where the control has one"
)
_QUIET = "solves equations with noise: give an SDEProblem, or choose a method such as de.Tsit5()"

_REASONS = {
    **{
        (kind, target): _NOISY
        for kind in (Ito, Stratonovich)
        for target in (Ode, Split, Partitioned, Mass)
    },
    **{
        (kind, target): _QUIET
        for kind in (Ode, Split, Partitioned, Mass, HigherIndex, Implicit)
        for target in (Sde, Ito, Stratonovich)
    },
    **{(Implicit, target): _RESIDUAL for target in (Ode, Split, Partitioned, Mass)},
    **{(Increments, target): _GIVEN for target in (Split, Partitioned, Mass, Implicit)},
    **{(Increments, target): _QUIET for target in (Sde, Ito, Stratonovich)},
    (Ode, Partitioned): "needs positions and momenta: give a SecondOrderProblem or a "
    "HamiltonianProblem, or choose a method for any ODE, such as de.Tsit5()",
    (Ode, Split): "needs two parts: give a SplitODEProblem",
    **{(kind, target): _IMPLICIT for kind in (Mass, HigherIndex) for target in (Ode, Partitioned)},
    **{
        (kind, Split): "needs two parts and no mass matrix: give a SplitODEProblem"
        for kind in (Mass, HigherIndex)
    },
}


def lower(form: Form, wanted: str | tuple[str, ...], method: str) -> Any:
    """`form` as the form that the method steps, or one sentence that says why not.

    Of several that are wanted, the one that the form has already, or else the last one.
    """
    names = (wanted,) if isinstance(wanted, str) else wanted
    if type(form) in [_NAMES[name] for name in names]:
        return form
    if isinstance(form, Mass) and form.mass is None:
        form = Ode(form.field, form.jac, large=form.large)
    target = _NAMES[names[-1]]
    rule = _RULES.get((type(form), target))
    if rule is None:
        reason = _REASONS.get((type(form), target), f"takes {names[-1]} equations only")
        raise TypeError(f"{method} {reason}.")
    return rule(form)
