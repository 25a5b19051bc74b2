"""The compiled parts of `fit_starts`: those of a fit, for several starts at once. Each array has
the starts on its first axis. As those of a fit they are compiled once for all equal programs.
"""

from collections.abc import Callable, Hashable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import PyTree

from ..closures import Captured, captured
from .batches import StepInputs
from .compiled_step import (
    KEPT,
    Evaluation,
    FitCarry,
    Optimizer,
    evaluate_loss,
    make_carry,
    optimizer_step,
    record_and_judge,
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


@lru_cache(maxsize=KEPT)
def _evaluation_of_starts(tree: Hashable) -> Callable[..., Evaluation]:
    del tree
    return jax.jit(jax.vmap(evaluate_loss, in_axes=(None, 0, 0, None)))


def initial_carries(
    optimizer: Optimizer, like: PyTree, theta: PyTree, state: tuple, carry: FitCarry | None
) -> FitCarry:
    """The carry of each start before the first step of an optimiser; `like` is the theta of one."""
    init = captured(optimizer.init, like)
    return _initial_carries(jax.tree.structure(init))(init, theta, state, carry)


@lru_cache(maxsize=KEPT)
def _initial_carries(tree: Hashable) -> Callable[..., FitCarry]:
    del tree
    return jax.jit(jax.vmap(make_carry, in_axes=(None, 0, 0, 0)))


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

    def move(carry: FitCarry, evaluation: Evaluation, draw: StepInputs) -> FitCarry:
        loss = lambda theta: objective(theta, carry.state, draw)[0]  # noqa: E731
        return optimizer_step(optimizer, carry, evaluation, draw.step, loss=loss, noisy=noisy)

    one = jax.eval_shape(partial(jax.tree.map, lambda x: x[0]), (carry, evaluation))
    return captured(move, *one, draw)


def next_carries(
    step: Captured, carry: FitCarry, evaluation: Evaluation, draw: StepInputs
) -> FitCarry:
    """The carry of each start after a step. The arrays of those before are given away."""
    return _steps_of_starts(jax.tree.structure(step))(step, carry, evaluation, draw)


@lru_cache(maxsize=KEPT)
def _steps_of_starts(tree: Hashable) -> Callable[..., FitCarry]:
    del tree

    def advanced(
        step: Captured, carry: FitCarry, evaluation: Evaluation, draw: StepInputs
    ) -> FitCarry:
        return step(carry, evaluation, draw)

    return jax.jit(jax.vmap(advanced, in_axes=(None, 0, 0, None)), donate_argnums=1)


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
