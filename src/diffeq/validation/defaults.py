"""The method and the controller, where none is named."""

from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import ArrayLike, PyTree

from ..adjoints import Adjoint, Discrete
from ..algebra import JacobianStructure
from ..controllers import Controller
from ..core.packing import Packing, moving_leaves
from ..methods import BDF, METHODS, Method, Stochastic
from ..problems import Problem
from ..problems.cde import by_increments
from ..problems.forms import Sde
from .values import concrete

__all__ = [
    "NoisyDefault",
    "default_method",
    "explicit_for",
    "may_switch",
    "no_control",
]

_MOST_TURNING = 64  # numbers in a state; beyond, those who know their equation choose better


def default_method(
    problem: Problem, rtol: PyTree, controller: Controller | None, dt: PyTree
) -> Method:
    """The method for a problem, where none is named."""
    if problem.stochastic:
        return _default_noisy(problem, controller, dt)
    if by_increments(problem):
        return METHODS["Heun"]()
    # Zeros are declared where the equation is stiff; of two parts they are those of one.
    if problem.algebraic or isinstance(getattr(problem, "jac", None), JacobianStructure):
        return _implicit_method(problem)
    return explicit_for(rtol)


def _implicit_method(problem: Problem) -> Method:
    """The implicit method for a kind of problem, and for equations of a higher index."""
    if getattr(problem, "index", None) is not None:
        return METHODS["RadauIIA5"]()
    return {"BDF": BDF, **METHODS}[problem.default_implicit]()


def explicit_for(rtol: PyTree, stages: str | None = None) -> Method:
    """The explicit method for these relative tolerances (None: the default), whose stages are
    compiled so.
    """
    known = [np.min(np.asarray(x)) for x in jax.tree.leaves(rtol)] if concrete(rtol) else []
    options = {} if stages is None else {"stages": stages}
    return METHODS["Vern7" if any(x < 1e-6 for x in known) else "Tsit5"](**options)


def may_switch(problem: Problem, state: PyTree, adjoint: Adjoint | None) -> bool:
    """True if the default method may switch to a stiff one, which has a dense Jacobian."""
    if isinstance(getattr(problem, "jac", None), JacobianStructure):
        return False  # the default is a stiff one
    if not problem.is_ode or not isinstance(adjoint, Discrete | None):
        return False
    return Packing(moving_leaves(state)).size <= _MOST_TURNING


def _default_noisy(problem: Any, controller: Controller | None, dt: ArrayLike | None) -> Method:
    """The method for an equation with noise: of order 3/2, where there is one."""
    if not problem.delayed:
        return NoisyDefault()
    euler = "EulerMaruyama" if problem.interpretation == "ito" else "EulerHeun"
    if dt is None and (controller is None or controller.is_adaptive):
        raise ValueError(f"{no_control(problem)} (the method is then {euler}()).")
    return METHODS[euler]()


class NoisyDefault(Stochastic):
    """The default of an SDE, until it is known what its diffusion depends on.

    >>> from diffeq.methods import METHODS
    >>> from diffeq.problems.forms import Ito
    >>> form = Ito(None, None, kind="general", additive=True, own=False)
    >>> NoisyDefault().chosen(form, controlled=True)
    SOSRA()
    """

    form: ClassVar[str] = "sde"

    @property
    def order(self) -> float:
        """That of the best."""
        return 1.5

    @property
    def adaptive(self) -> bool:
        """Steps may be controlled, where the method that is chosen can do that."""
        return True

    def chosen(self, form: Sde, *, controlled: bool) -> Method:
        """SOSRA for additive noise, SOSRI for what commutes component by component, else Euler's
        methods, by given steps.
        """
        if form.additive:
            return METHODS["SOSRA"]()
        if form.kind == "scalar" or form.own:
            return METHODS["SOSRI"]()
        euler = METHODS["EulerMaruyama" if form.interpretation == "ito" else "EulerHeun"]()
        if not controlled:
            return euler
        which = (
            "general noise"
            if form.kind == "general"
            else "diagonal noise of which one component depends on others of y (or cannot be seen "
            "not to)"
        )
        raise ValueError(
            f"no method for {which} controls its steps: give dt= (the method is then {euler!r}). "
            "Additive and scalar noise, and components that each depend on their own, have one."
        )


def no_control(problem: Problem) -> str:
    """The error where a delay equation has noise and controlled steps."""
    return f"no method for {type(problem).__name__} controls its steps: give dt="
