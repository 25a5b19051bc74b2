"""Names: what is meant by a string or a class where an instance is wanted."""

import difflib
import inspect
from types import ModuleType
from typing import Any

from .. import adjoints, controllers
from ..methods import METHODS, Method
from .values import shown

__all__ = ["check_adjoint_is_one", "check_controller", "check_method"]

_OWN = {"bdf": "BDF", "switching": "Switching"}
# Names of other packages (SciPy, DifferentialEquations.jl, torchdiffeq, diffrax, MATLAB), in lower
# case, and ours for the same method or the nearest one; "" is None, by which solve chooses.
_THEIRS = {
    "rk23": "Bosh3", "rk45": "Dopri5", "dop853": "Dopri8", "radau": "RadauIIA5", "lsoda": "",
    "vode": "BDF", "zvode": "BDF", "dopri": "Dopri5", "adams": "Tsit5",
    "dp5": "Dopri5", "dp8": "Dopri8", "bs3": "Bosh3", "autotsit5": "", "default": "", "auto": "",
    "fbdf": "BDF", "qndf": "BDF", "cvode_bdf": "BDF", "cvode_adams": "Vern7", "ida": "BDF",
    "rodas5": "Rodas5P", "rodas3": "Rodas4", "radau5": "RadauIIA5", "vcabm": "Vern7",
    "em": "EulerMaruyama", "lambaem": "SOSRI", "rkmil": "Milstein", "impliciteulerem": "ImplicitEM",
    "rk4": "RK4", "euler": "Euler", "midpoint": "Midpoint", "heun2": "Heun", "heun3": "Bosh3",
    "bosh3": "Bosh3", "fehlberg2": "Bosh3", "adaptive_heun": "Heun", "explicit_adams": "Vern7",
    "implicit_adams": "BDF", "fixed_adams": "RK4", "scipy_solver": "", "srk": "SOSRI",
    "leapfrog": "VelocityVerlet", "leapfrogmidpoint": "VelocityVerlet", "semiimpliciteuler":
    "SymplecticEuler", "verlet": "VelocityVerlet", "shark": "SRA1", "spark": "SRIW1",
    "ode23": "Bosh3", "ode45": "Dopri5", "ode15s": "BDF", "ode15i": "BDF", "ode23s": "Rosenbrock23",
    "ode23tb": "TRBDF2", "ode23t": "TRBDF2", "ode89": "Vern9", "ode78": "Vern8", "ode113": "Vern9",
    "cranknicolson": "Trapezoid", "backwardeuler": "ImplicitEuler", "rungekutta": "RK4",
    "rk": "RK4", "verner7": "Vern7", "stiff": "Rodas5P", "nonstiff": "Tsit5",
}  # fmt: skip


def check_method(method: Any) -> None:
    """Refuses what is no method, with the name of the one that is meant."""
    if method is None or isinstance(method, Method):
        return
    if isinstance(method, str):
        raise TypeError(f"method is the string {method!r}; {_meant(method)}")
    if isinstance(method, type) and issubclass(method, Method):
        _refuse_class("method", method)
    raise TypeError(f"method is {shown(method)}; a method is wanted, such as de.Tsit5().")


def _meant(text: str) -> str:
    """A sentence with the method that a string stands for."""
    bare = text.strip().partition("(")[0].removeprefix("de.")
    known = {name.lower(): name for name in METHODS} | _OWN
    key = bare.lower()
    name = known.get(key, _THEIRS.get(key))
    if name == "":
        return (
            "an instance is wanted, such as de.Tsit5(); or leave method out: solve chooses, and "
            "turns to de.Rodas5P() where an ODE is stiff."
        )
    if name is not None:
        other = (
            "" if name.lower() == key else f", which is the same here as {bare} or nearest to it"
        )
        return f"an instance is wanted: de.{name}(){other}."
    near = difflib.get_close_matches(key, known, 3, 0.5)
    if not near:
        return "an instance is wanted, such as de.Tsit5(), or where it is stiff de.Rodas5P()."
    return f"an instance is wanted; near to it are {', '.join(f'de.{known[x]}()' for x in near)}."


def check_controller(controller: Any) -> None:
    """Refuses what is no controller."""
    if controller is None or isinstance(controller, controllers.Controller):
        return
    if inspect.isclass(controller) and issubclass(controller, controllers.Controller):
        _refuse_class("controller", controller)
    numbers = isinstance(controller, (int, float)) and not isinstance(controller, bool)
    more = f" A longest step is de.PI(dtmax={controller!r})." if numbers else ""
    named = _named(controller, controllers, "PI")
    raise TypeError(
        f"controller is {shown(controller)}; an instance is wanted, such as de.{named}().{more}"
    )


def check_adjoint_is_one(adjoint: Any) -> None:
    """Refuses what is no adjoint."""
    if inspect.isclass(adjoint) and hasattr(adjoint, "run"):
        _refuse_class("adjoint", adjoint)
    if not (adjoint is None or hasattr(adjoint, "run")):
        raise TypeError(
            f"adjoint is {shown(adjoint)}; an instance is wanted, such as "
            f"de.{_named(adjoint, adjoints, 'Discrete')}()."
        )


def _refuse_class(argument: str, kind: type) -> None:
    required = [
        p.name
        for p in inspect.signature(kind).parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    made = f"de.{kind.__name__}({', '.join(f'{name}=…' for name in required)})"
    raise TypeError(f"{argument} is the class {kind.__name__}; an instance is wanted: {made}.")


def _named(x: object, module: ModuleType, default: str) -> str:
    """The name in a module that a string is, but for its case and brackets; or the default."""
    if not isinstance(x, str):
        return default
    known = {
        name.lower(): name for name in module.__all__ if inspect.isclass(getattr(module, name))
    }
    near = difflib.get_close_matches(x.partition("(")[0].removesuffix("Adjoint").lower(), known, 1)
    return known[near[0]] if near else default
