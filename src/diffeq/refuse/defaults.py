"""The method and the controller, where none is named."""

from typing import Any

import jax
import numpy as np

from ..adjoint import ODES, Discrete
from ..control import Controller, MeanSquare
from ..core.packing import Packing, moving
from ..methods import BDF, METHODS, Method
from ..problems import DAEProblem, ImplicitDAEProblem, Problem
from .words import concrete

__all__ = ["default_method", "explicit_for", "may_turn", "no_control", "noisy_controller"]

_MOST_TURNING = 64  # numbers in a state; beyond, those who know their equation choose better


def default_method(problem: Problem, rtol: Any, controller: Any, dt: Any) -> Method:
    """The method for a problem, where none is named."""
    if problem.stochastic:
        return _default_noisy(problem, controller, dt)
    if isinstance(problem, DAEProblem):
        return METHODS["Rodas5P"]()
    if isinstance(problem, ImplicitDAEProblem):
        return BDF()
    return explicit_for(rtol)


def explicit_for(rtol: Any) -> Method:
    """The explicit method for these relative tolerances (None: the default)."""
    known = [np.min(np.asarray(x)) for x in jax.tree.leaves(rtol)] if concrete(rtol) else []
    return METHODS["Vern7" if any(x < 1e-6 for x in known) else "Tsit5"]()


def may_turn(problem: Problem, state: Any, adjoint: Any) -> bool:
    """Whether the default method may turn to one for stiff problems, which has a dense Jacobian."""
    if type(problem).__name__ not in ODES or not isinstance(adjoint, Discrete | None):
        return False
    return Packing(moving(state)).size <= _MOST_TURNING


def _default_noisy(problem: Any, controller: Any, dt: Any) -> Method:
    """The method for an SDE; those of order 3/2 take diagonal, scalar or additive noise."""
    name = "EulerMaruyama" if problem.interpretation == "ito" else "EulerHeun"
    controlled = dt is None and (controller is None or controller.decides)
    if problem.delayed:
        if controlled:
            raise ValueError(f"{no_control(problem)} (the method is then {name}()).")
        return METHODS[name]()
    if problem.noise != "general":
        return METHODS["SOSRA" if problem.additive else "SOSRI"]()
    if problem.additive:
        return METHODS["SOSRA"]()
    if controlled:
        raise ValueError(
            "no method for general noise controls its steps: give dt= (the method is then "
            f"{name}()), or declare additive=True if the diffusion does not depend on y."
        )
    return METHODS[name]()


def no_control(problem: Problem) -> str:
    """What to do where a past and noise meet."""
    return f"no method for {type(problem).__name__} controls its steps: give dt="


def noisy_controller() -> Controller:
    """The controller for noise, whose errors are random."""
    return MeanSquare()
