"""One step of an optimiser that evaluates the loss at other parameters, too: a line search.

The step is traced with marks where it evaluates the loss, and runs on the host, so that the loss
and its gradient are one compiled program, that of all other optimisers. Written into the step they
would be compiled three times over, in loops and conditions: for a neural ODE 41 s, in place of 12.
"""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, PyTree

from ..autodiff.host_segments import Segments, outside
from ..closures import Captured, CapturedProgram, captured
from .batches import StepInputs
from .compiled_step import (
    KEPT,
    Evaluation,
    FitCarry,
    Optimizer,
    apply_step,
    compiled_by_structure,
    evaluation_of,
    optimizer_step,
    step_with_loss,
)

__all__ = ["LineSearch", "left_behind"]


class LineSearch:
    """The steps of an optimiser that evaluates the loss, as functions of (carry, evaluation, draw).

    They are whole programs with the loss in them where an optimiser evaluates it in a way (under
    `vmap`, say) for which there are no marks.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        objective: Captured,
        carry: FitCarry,
        evaluation: Evaluation,
        draw: StepInputs,
        *,
        noisy: bool,
    ) -> None:
        self.objective = objective
        given = (carry, _with_state(evaluation, carry))

        def step(carry: FitCarry, evaluation: Evaluation, number: ArrayLike) -> FitCarry:
            loss = _marked_loss(evaluation)
            return optimizer_step(optimizer, carry, evaluation, number, loss=loss, noisy=noisy)

        try:
            self.step = captured(step, *given, draw.step)
            self.segments = _segments(self.step.program)
        except NotImplementedError:
            whole = step_with_loss(optimizer, objective, noisy=noisy)
            self.step, self.segments = captured(whole, *given, draw), None

    def __call__(self, carry: FitCarry, evaluation: Evaluation, draw: StepInputs) -> FitCarry:
        step, objective = self.step, self.objective
        evaluation = _with_state(evaluation, carry)
        if self.segments is None:
            return _whole(jax.tree.structure(step))(step, carry, evaluation, draw)
        theta, evaluate = jax.tree.structure(carry.theta), evaluation_of(objective)

        def call(*arrays: Array) -> list:
            found = evaluate(objective, theta.unflatten(arrays), carry.state, draw)
            return [found.value, *jax.tree.leaves(found.gradient)]

        return step.result(self.segments(call, *step.operands(carry, evaluation, draw.step)))


def _with_state(evaluation: Evaluation, carry: FitCarry) -> Evaluation:
    """An evaluation that has a state: so the first step and those after it are one program."""
    if evaluation.state is None:
        return evaluation._replace(state=carry.state)
    return evaluation


@lru_cache(maxsize=KEPT)
def _segments(program: CapturedProgram) -> Segments:
    return Segments(program.equations)


def _marked_loss(evaluation: Evaluation) -> Callable[[PyTree], Array]:
    """The loss as a mark, whose derivative is the gradient that comes with its value."""
    like = [evaluation.value, *jax.tree.leaves(evaluation.gradient)]

    @jax.custom_jvp
    def loss(theta: PyTree) -> Array:
        return outside(*jax.tree.leaves(theta), like=like)[0]

    @loss.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
        value, *gradient = outside(*jax.tree.leaves(primals), like=like)
        pairs = zip(gradient, jax.tree.leaves(tangents), strict=True)
        slopes = [jnp.real(jnp.sum(g * t)) for g, t in pairs]
        return value, jnp.sum(jnp.stack(slopes)).astype(value.dtype)

    return loss


_whole = compiled_by_structure(apply_step)


def left_behind(carry: FitCarry) -> Evaluation | None:
    """The loss and the gradient here, if a line search has computed them for where it ended."""
    import optax

    value, gradient = (
        [x for _, x in optax.tree.get_all_with_path(carry.optimizer, name)]
        for name in ("value", "grad")
    )
    if len(value) != 1 or len(gradient) != 1 or not jnp.isfinite(value[0]):
        return None
    if jax.tree.structure(gradient[0]) != jax.tree.structure(carry.theta):
        return None
    return Evaluation(value[0], gradient[0], None)
