"""The compiled parts of a fit, as functions of arrays: each is compiled once for all fits that are
alike. What tells two fits apart (their loss, model and optimiser) are closures, in their arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..core.closure import Closure
from ..core.primitive import is_key
from .draws import Draw
from .parameters import Layout

__all__ = [
    "FINITE",
    "NAN",
    "Carry",
    "Evaluation",
    "LossWanted",
    "Objective",
    "Refusals",
    "advance",
    "advance_by_search",
    "begin",
    "evaluate",
    "note",
]

FINITE, INFINITE, NAN = range(3)  # codes of what an array has in it


@partial(jax.tree_util.register_dataclass, data_fields=["closure"], meta_fields=["layout", "keyed"])
@dataclass(frozen=True)
class Objective:
    """The loss as a function of (theta, state), with the rest of the model and the bounds in it."""

    closure: Closure  # of (loss, rest)
    layout: Layout
    keyed: bool

    def __call__(self, theta: PyTree, state: tuple, draw: Draw) -> tuple[Float[Array, ""], tuple]:
        loss, rest = self.closure.value
        pieces = self.layout.pieces(theta, state, rest)
        inputs = [] if draw.data is None else [draw.batch()]
        options = {"key": draw.step_key()} if self.keyed else {}
        value = loss(self.layout.whole(pieces, rest), *inputs, **options)
        _check_scalar(value)
        return jnp.asarray(value), self.layout.written(pieces, state)


def _check_scalar(value: Any) -> None:
    if isinstance(value, (tuple, list)):
        raise TypeError(
            f"loss returned {len(value)} values; a real scalar is wanted. Of (value, others), as "
            "for has_aux=True, return the value: lambda *given: loss(*given)[0]."
        )
    if not hasattr(value, "shape") and not isinstance(value, (int, float, complex)):
        raise TypeError(f"loss returned a {type(value).__name__}; a real scalar is wanted.")
    if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise TypeError(
            f"loss returned {jnp.result_type(value)}{list(jnp.shape(value))}; a real scalar "
            "is wanted."
        )


class Evaluation(NamedTuple):
    """The loss at theta, its gradient (as optimisers take it: conjugated), and the state of the
    model's modules after it.
    """

    value: Float[Array, ""]
    gradient: PyTree
    state: tuple


@jax.jit
def evaluate(objective: Objective, theta: PyTree, state: tuple, draw: Draw) -> Evaluation:
    """The loss and its gradient."""
    (value, state), gradient = jax.value_and_grad(objective, has_aux=True)(theta, state, draw)
    return Evaluation(value, jax.tree.map(jnp.conj, gradient), state)


class Refusals(NamedTuple):
    """The steps that led to what is not finite.

    Attributes:
        total: of all steps; `row`: of the last ones, without one in between that was not refused.
        first: the first of them, −1 for none.
        codes: of what was not finite in it: the loss, each array of the gradient, and each of the
            parameters after the update; 0 for finite.
    """

    total: Int[Array, ""]
    row: Int[Array, ""]
    first: Int[Array, ""]
    codes: Int[Array, " arrays"]


class Carry(NamedTuple):
    """What goes from step to step, on the device: all that it takes to go on."""

    theta: PyTree
    state: tuple
    optimizer: Any
    best: Float[Array, ""]
    best_theta: PyTree
    best_state: tuple
    refusals: Refusals
    still: Int[Array, ""]  # steps in a row that changed nothing


@jax.jit
def begin(optimizer: Closure, theta: PyTree, state: tuple, carry: Carry | None) -> Carry:
    """The carry before the first step of a phase. Its arrays are new: a step gives them away."""
    zero = jnp.zeros((), jnp.int32)
    arrays = len(jax.tree.leaves(theta))
    if carry is None:
        codes = jnp.zeros(1 + 2 * arrays, jnp.int32)
        best = jnp.asarray(jnp.inf, jnp.result_type(float))
        refusals = Refusals(zero, zero, zero - 1, codes)
        carry = Carry(theta, state, None, best, theta, state, refusals, zero)
    start = carry._replace(
        theta=theta, state=state, optimizer=optimizer.value.init(theta), still=zero,
        refusals=carry.refusals._replace(row=zero),
    )  # fmt: skip
    return jax.tree.map(lambda x: _strong(jnp.copy(x), x), start)


@partial(jax.jit, static_argnames="noisy")
def note(carry: Carry, evaluation: Evaluation, step: Any, *, noisy: bool) -> Carry:
    """The carry that knows of an evaluation, without a step from it."""
    codes = _codes((evaluation.value, evaluation.gradient))
    fine = jnp.all(codes == FINITE)
    nothing = jnp.zeros(len(carry.refusals.codes) - len(codes), codes.dtype)
    refusals = _counted(carry.refusals, jnp.concatenate([codes, nothing]), step)
    noted = _kept(carry, evaluation, fine, noisy=noisy)._replace(refusals=refusals)
    return jax.tree.map(_strong, noted, carry)


@partial(jax.jit, static_argnames="noisy", donate_argnames="carry")
def advance(
    optimizer: Closure, carry: Carry, evaluation: Evaluation, step: Any, *, noisy: bool
) -> Carry:
    """One step of an optimiser that evaluates the loss nowhere else.

    Raises:
        LossWanted: the optimiser evaluates it elsewhere.
    """
    return _advanced(optimizer, carry, evaluation, step, _wanted, noisy=noisy)


@partial(jax.jit, static_argnames="noisy")
def advance_by_search(
    optimizer: Closure, objective: Objective, carry: Carry, evaluation: Evaluation, draw: Draw,
    *, noisy: bool,
) -> Carry:  # fmt: skip
    """One step of an optimiser that evaluates the loss at other parameters, too: a line search."""
    loss = lambda theta: objective(theta, carry.state, draw)[0]  # noqa: E731
    return _advanced(optimizer, carry, evaluation, draw.step, loss, noisy=noisy)


class LossWanted(Exception):
    """An optimiser calls `value_fn`."""


def _wanted(*given: Any) -> Any:
    del given
    raise LossWanted


def _advanced(optimizer: Closure, carry: Carry, evaluation: Evaluation, step: Any,
              loss: Callable, *, noisy: bool) -> Carry:  # fmt: skip
    """A step; where it leads to what is not finite, half of the way back to the best parameters."""
    import optax

    codes = _codes((evaluation.value, evaluation.gradient))
    fine = jnp.all(codes == FINITE)
    gradient = jax.tree.map(lambda g: jnp.where(fine, g, 0), evaluation.gradient)
    update = optax.with_extra_args_support(optimizer.value).update
    updates, state = update(
        gradient, carry.optimizer, carry.theta, value=evaluation.value, grad=gradient,
        value_fn=loss,
    )  # fmt: skip
    moved = optax.apply_updates(carry.theta, updates)
    codes_moved = _codes(moved)
    taken = fine & jnp.all(codes_moved == FINITE)
    back = jax.tree.map(lambda a, b: (a + b) / 2, carry.best_theta, carry.theta)
    theta = _where(taken, moved, _where(fine, carry.theta, back))
    same = [
        jnp.all(a == b) for a, b in zip(*map(jax.tree.leaves, (theta, carry.theta)), strict=True)
    ]
    after = _kept(carry, evaluation, fine, noisy=noisy)._replace(
        theta=theta,
        optimizer=_where(taken, state, carry.optimizer),
        refusals=_counted(carry.refusals, jnp.concatenate([codes, codes_moved]), step),
        still=jnp.where(taken & jnp.all(jnp.stack(same)), carry.still + 1, 0),
    )
    return jax.tree.map(_strong, after, carry)


def _kept(carry: Carry, evaluation: Evaluation, fine: Bool[Array, ""], *, noisy: bool) -> Carry:
    """The carry with the best parameters (the last finite ones of a noisy loss), and the state."""
    better = fine & ((evaluation.value < carry.best) | noisy)
    return carry._replace(
        state=_where(fine, evaluation.state, carry.state),
        best=jnp.where(better, evaluation.value, carry.best),
        best_theta=_where(better, carry.theta, carry.best_theta),
        best_state=_where(better, evaluation.state, carry.best_state),
    )


def _counted(refusals: Refusals, codes: Int[Array, " arrays"], step: Any) -> Refusals:
    bad = jnp.any(codes != FINITE)
    new = bad & (refusals.first < 0)
    return Refusals(
        refusals.total + bad,
        jnp.where(bad, refusals.row + 1, 0),
        jnp.where(new, step, refusals.first),
        jnp.where(new, codes, refusals.codes),
    )


def _codes(tree: PyTree) -> Int[Array, " arrays"]:
    """Of each array whether it is finite, has infinities, or has NaN."""

    def code(x: Any) -> Any:
        worst = jnp.where(jnp.isnan(x), NAN, jnp.where(jnp.isinf(x), INFINITE, FINITE))
        return jnp.max(worst, initial=FINITE).astype(jnp.int32)

    return jnp.stack([code(x) for x in jax.tree.leaves(tree)])


def _where(choice: Any, a: Any, b: Any) -> Any:
    return jax.tree.map(partial(jnp.where, choice), a, b)


def _strong(x: Any, like: Any) -> Any:
    """An array of the dtype of `like`, which is not weak: so the second step compiles nothing."""
    return x if is_key(like) else jax.lax.convert_element_type(x, like.dtype)
