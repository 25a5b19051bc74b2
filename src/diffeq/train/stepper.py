"""What a fit does at each step, by the compiled programs of its loss, model and optimiser."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core.closure import Closure
from .draws import Draw, Draws
from .parameters import Parameters
from .program import (
    Carry,
    Evaluation,
    LossWanted,
    Objective,
    Steps,
    evaluation_of,
    note,
    steps_of,
)
from .search import advance_by_search, left_behind

__all__ = ["Stepper"]


class Stepper:
    """The carry of a fit, and the programs that make it another one.

    Attributes:
        carry: all that it takes to go on.
    """

    carry: Carry
    optimizer: Closure
    steps: Steps

    def __init__(self, loss: Callable, parameters: Parameters, draws: Draws) -> None:
        self.loss, self.parameters, self.draws = loss, parameters, draws
        self.first: Draw | None = None
        self.searching = False  # whether the optimiser evaluates the loss itself
        self._use(Closure.of)

    def _use(self, closure: Callable[[Any], Closure]) -> None:
        """Takes the loss and the rest of the model as a closure of this kind."""
        parts = closure((self.loss, self.parameters.rest))
        self.objective = Objective(parts, self.parameters.layout, self.draws.keyed)
        self.evaluate = evaluation_of(self.objective)

    def begin(self, optimizer: Any) -> None:
        """A phase starts from the best that was found before it."""
        self.optimizer, self.searching = Closure.of(optimizer), False
        self.steps = steps_of(self.optimizer)
        carry = getattr(self, "carry", None)
        if carry is None:
            theta, state = self.parameters.theta, self.parameters.state
        elif self.draws.noisy:
            theta, state = carry.theta, carry.state
        else:
            theta, state = carry.best_theta, carry.best_state
        if carry is not None:
            carry = self.carry = carry._replace(optimizer=None)  # its memory is free again
        self.carry = self.steps.begin(self.optimizer, theta, state, carry)

    def evaluation(self, draw: Draw) -> Evaluation:
        """The loss and the gradient here; those that a line search has left behind are used."""
        if self.searching and not self.draws.noisy:
            found = left_behind(self.carry)
            if found is not None:
                return found
        if self.first is None:
            self.first = draw
            return self._first_evaluation(draw)
        return self.evaluate(self.objective, self.carry.theta, self.carry.state, draw)

    def _first_evaluation(self, draw: Draw) -> Evaluation:
        """A loss may ask for the numbers of an array that it closes over, as under `jax.jit`: then
        its arrays are constants, and others compile anew.
        """
        carry = self.carry
        try:
            return self.evaluate(self.objective, carry.theta, carry.state, draw)
        except Exception:
            if not self.objective.closure.arrays:
                raise
        self._use(Closure.constant)
        return self.evaluate(self.objective, carry.theta, carry.state, draw)

    def advance(self, evaluation: Evaluation, draw: Draw) -> None:
        """Makes a step."""
        noisy = self.draws.noisy
        if not self.searching:
            try:
                self.carry = self.steps.advance(
                    self.optimizer, self.carry, evaluation, draw.step, noisy=noisy
                )
            except LossWanted:
                self.searching = True
        if self.searching:
            self.carry = advance_by_search(
                self.optimizer, self.objective, self.carry, evaluation, draw, noisy=noisy
            )

    def note(self, evaluation: Evaluation, draw: Draw) -> None:
        """Keeps what an evaluation says, and makes no step."""
        state, carry = self.carry.optimizer, self.carry._replace(optimizer=None)
        noted = note(carry, evaluation, draw.step, noisy=self.draws.noisy)
        self.carry = noted._replace(optimizer=state)

    def model(self) -> Any:
        """The model with the parameters that it has now, in arrays that no step gives away."""
        return self.parameters.result(*_copied((self.carry.theta, self.carry.state)))

    def best_model(self) -> Any:
        """The model with the best parameters; of a noisy loss with the last finite ones."""
        return self.parameters.result(self.carry.best_theta, self.carry.best_state)

    def cause(self) -> str:
        """Why the loss is not finite at the start, where a call outside of any trace says so."""
        if self.first is None:
            return ""
        self._use(Closure.constant)
        try:
            self.objective(self.parameters.theta, self.parameters.state, self.first)
        except (TypeError, ValueError):  # a wrong argument, and not a failure
            raise
        except Exception as error:
            return f" ({type(error).__name__}: {error})"
        return ""


@jax.jit
def _copied(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)
