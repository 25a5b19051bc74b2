"""The compiled parts of `fit_starts`: those of a fit, for several starts at once. Each array has
the starts on its first axis. As those of a fit they are compiled once for all equal programs.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import PyTree

from ..closures import Captured, captured
from .batches import StepInputs
from .compiled_step import (
    Evaluation,
    FitCarry,
    Optimizer,
    apply_step,
    compiled_by_structure,
    evaluate_loss,
    make_carry,
    record_and_judge,
    step_with_loss,
)

__all__ = [
    "carry_of_start",
    "evaluate_starts",
    "initial_carries",
    "next_carries",
    "record_starts",
    "stack_starts",
    "step_of_starts",
]


def stack_starts(trees: list[PyTree]) -> PyTree:
    """One tree of the arrays of all starts."""
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def evaluate_starts(
    objective: Captured, theta: PyTree, state: tuple, draw: StepInputs
) -> Evaluation:
    """The loss of each start, and its gradient."""
    return _evaluation_of_starts(jax.tree.structure(objective))(objective, theta, state, draw)


_evaluation_of_starts = compiled_by_structure(jax.vmap(evaluate_loss, in_axes=(None, 0, 0, None)))


def initial_carries(
    optimizer: Optimizer, like: PyTree, theta: PyTree, state: tuple, carry: FitCarry | None
) -> FitCarry:
    """The carry of each start before the first step of an optimiser; `like` is the theta of one."""
    init = captured(optimizer.init, like)
    return _initial_carries(jax.tree.structure(init))(init, theta, state, carry)


_initial_carries = compiled_by_structure(jax.vmap(make_carry, in_axes=(None, 0, 0, 0)))


def step_of_starts(
    optimizer: Optimizer,
    objective: Captured,
    carry: FitCarry,
    evaluation: Evaluation,
    draw: StepInputs,
    *,
    noisy: bool,
) -> Captured:
    """A step of an optimiser for one start, a function of (carry, evaluation, draw); the two that
    are given here are those of all starts.
    """
    one = jax.eval_shape(partial(jax.tree.map, lambda x: x[0]), (carry, evaluation))
    return captured(step_with_loss(optimizer, objective, noisy=noisy), *one, draw)


def next_carries(
    step: Captured, carry: FitCarry, evaluation: Evaluation, draw: StepInputs
) -> FitCarry:
    """The carry of each start after a step. The arrays of those before are given away."""
    return _steps_of_starts(jax.tree.structure(step))(step, carry, evaluation, draw)


_steps_of_starts = compiled_by_structure(
    jax.vmap(apply_step, in_axes=(None, 0, 0, None)), donate_argnums=1
)


@partial(jax.jit, static_argnames="noisy")
def record_starts(
    carry: FitCarry, evaluation: Evaluation, step: ArrayLike, *, noisy: bool
) -> FitCarry:
    """The carries that know of an evaluation, without a step from it. They have no optimiser."""
    record = partial(record_and_judge, noisy=noisy)
    return jax.vmap(record, in_axes=(0, 0, None))(carry, evaluation, step)[0]


@jax.jit
def carry_of_start(carry: FitCarry, number: ArrayLike) -> FitCarry:
    """The carry of one of the starts."""
    return jax.tree.map(lambda x: x[number], carry)
