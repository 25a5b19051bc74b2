"""Makes the steps of a fit, by the compiled programs of its loss, model and optimiser."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..autodiff.jax_internals import in_a_trace
from ..closures import Captured, captured
from ..core.user_functions import annotate_errors
from .batches import Draws, StepInputs
from .compiled_step import (
    Evaluation,
    FitCarry,
    LossWanted,
    Optimizer,
    evaluation_of,
    initial_carry,
    next_carry,
    objective_of,
    record_evaluation,
    step_of,
)
from .parameters import Parameters
from .search import LineSearch, left_behind

__all__ = ["Stepper", "cause_of", "check_untraced", "start_of_phase", "traced_loss"]


class Stepper:
    """The carry of a fit, and the programs that make it another one.

    Attributes:
        carry: all that it takes to go on.
    """

    carry: FitCarry
    objective: Captured

    def __init__(self, loss: Callable, parameters: Parameters, draws: Draws) -> None:
        self.parameters, self.draws = parameters, draws
        self.loss = objective_of(loss, parameters.rest, parameters.layout, keyed=draws.keyed)
        self.first: StepInputs | None = None
        self.optimizer: Any = None
        self.step: Captured | None = None
        self.search: LineSearch | None = None  # where the optimiser evaluates the loss itself
        self.searches = False  # whether it does

    def begin(self, optimizer: Optimizer) -> None:
        """A phase starts from the best that was found before it."""
        self.optimizer, self.step, self.search, self.searches = optimizer, None, None, False
        carry, given = getattr(self, "carry", None), (self.parameters.theta, self.parameters.state)
        theta, state, carry = start_of_phase(carry, given, noisy=self.draws.noisy)
        if carry is not None:
            self.carry = carry  # the memory of the last optimiser is free again
        self.carry = initial_carry(optimizer, theta, state, carry)

    def evaluation(self, draw: StepInputs) -> Evaluation:
        """The loss and the gradient here; those that a line search has left behind are used."""
        if self.searches and not self.draws.noisy:
            found = left_behind(self.carry)
            if found is not None:
                return found
        self.prepare(draw)
        theta, state = self.carry.theta, self.carry.state
        return evaluation_of(self.objective)(self.objective, theta, state, draw)

    def prepare(self, draw: StepInputs) -> None:
        """Traces the loss, if it was not."""
        if self.first is None:
            self.first = draw
            carry = getattr(self, "carry", self.parameters)
            self.objective = traced_loss(self.loss, carry.theta, carry.state, draw)

    def advance(self, evaluation: Evaluation, draw: StepInputs) -> None:
        """Makes a step."""
        noisy = self.draws.noisy
        if self.step is None and self.search is None:
            try:
                self.step = step_of(self.optimizer, self.carry, evaluation, draw.step, noisy=noisy)
            except LossWanted:
                self.search = LineSearch(
                    self.optimizer, self.objective, self.carry, evaluation, draw, noisy=noisy
                )
            self.searches = self.search is not None
        if self.search is not None:
            self.carry = self.search(self.carry, evaluation, draw)
        elif self.step is not None:
            self.carry = next_carry(self.step, self.carry, evaluation, draw.step)

    def note(self, evaluation: Evaluation, draw: StepInputs) -> None:
        """Records an evaluation, and makes no step."""
        state, carry = self.carry.optimizer, self.carry._replace(optimizer=None)
        noted = record_evaluation(carry, evaluation, draw.step, noisy=self.draws.noisy)
        self.carry = noted._replace(optimizer=state)

    def model(self) -> PyTree:
        """The model with the parameters that it has now, in arrays that no step gives away."""
        return self.parameters.result(*_copied((self.carry.theta, self.carry.state)))

    def cause(self) -> str:
        """The error that the loss raises at the start; "" if none."""
        theta, state = self.parameters.theta, self.parameters.state
        return "" if self.first is None else cause_of(self.loss, theta, state, self.first)


def traced_loss(loss: Callable, theta: PyTree, state: tuple, draw: StepInputs) -> Captured:
    """The loss as a function of (theta, state, draw), traced for arguments like these."""
    arguments = "model, batch" if draw.data is not None else "model"
    with annotate_errors("loss", arguments):
        objective = captured(loss, theta, state, draw)
    check_untraced(objective.inputs)
    return objective


def cause_of(
    loss: Callable, theta: PyTree, state: tuple, draw: StepInputs, *, strict: bool = True
) -> str:
    """The error that the loss raises here, called outside of any trace, or where the data have NaN;
    "" if neither. If `strict`, an error for a wrong argument, which is no failure of a solve, is
    raised.
    """
    try:
        loss(theta, state, draw)
    except Exception as error:
        if strict and isinstance(error, (TypeError, ValueError)):
            raise
        return f" ({type(error).__name__}: {error})"
    return _missing_in(draw.data)


def _missing_in(data: PyTree) -> str:
    """The first NaN in data, as a message ends with it; "" if there is none.

    >>> _missing_in({"x": jnp.array([0.0, jnp.nan])})
    " (data['x'] has NaN, first at [1]: de.mse leaves such numbers out)"
    """
    for path, x in jax.tree.leaves_with_path(data):
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            continue
        missing = np.argwhere(np.isnan(np.asarray(x)))
        if missing.size:
            name, first = f"data{jax.tree_util.keystr(path)}", missing[0].tolist()
            return f" ({name} has NaN, first at {first}: de.mse leaves such numbers out)"
    return ""


def start_of_phase(
    carry: FitCarry | None, given: tuple[PyTree, tuple], *, noisy: bool
) -> tuple[PyTree, tuple, FitCarry | None]:
    """The parameters and the state at which a phase starts, and the carry so far without the memory
    of its optimiser: `given`, or the best of a phase before it, of a noisy loss the last.
    """
    if carry is None:
        return *given, None
    at = (carry.theta, carry.state) if noisy else (carry.best_theta, carry.best_state)
    return *at, carry._replace(optimizer=None)


@jax.jit
def _copied(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)


def check_untraced(*given: PyTree) -> None:
    """Raises an error for tracers: the loop of a fit is on the host."""
    if in_a_trace(given):
        raise TypeError(
            "fit cannot be called inside jit, vmap or grad: its loop looks at each loss. Several "
            "starts, side by side in one program, are de.fit_starts([model, other, …], loss, …)."
        )
