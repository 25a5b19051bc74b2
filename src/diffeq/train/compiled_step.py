"""The compiled parts of a fit, as functions of arrays: each is compiled once for all fits of equal
programs. The loss, model and optimiser are traced (`captured`), and their arrays are arguments: a
fit that differs in these arrays alone compiles nothing.

Only the last few programs are kept: they hold all that their closures hold, and a sweep makes many
of them.
"""

from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..autodiff.jax_internals import is_key
from ..closures import Captured, captured
from .batches import StepInputs
from .parameters import Layout, UntrainedParts

__all__ = [
    "FINITE",
    "KEPT",
    "NAN",
    "Evaluation",
    "FitCarry",
    "LossWanted",
    "Optimizer",
    "Refusals",
    "advance_by",
    "apply_step",
    "compiled_by_structure",
    "evaluate_loss",
    "evaluation_of",
    "initial_carry",
    "make_carry",
    "next_carry",
    "objective_of",
    "optimizer_step",
    "record_and_judge",
    "record_evaluation",
    "step_of",
    "step_with_loss",
]

KEPT = 16  # programs of each kind
FINITE, INFINITE, NAN = range(3)  # codes of the worst number in an array


def compiled_by_structure(function: Callable, **options: Any) -> Any:
    """The programs of a function by the structure of its first argument, which holds what of a
    closure is no array; the last of them are kept. The options are those of `jax.jit`.
    """

    @lru_cache(maxsize=KEPT)
    def program(tree: Hashable) -> Callable:
        del tree
        # A partial is a function of its own, forgotten with its program.
        return jax.jit(partial(function), **options)

    return program


def objective_of(loss: Callable, rest: UntrainedParts, layout: Layout, *, keyed: bool) -> Callable:
    """The loss as a function of (theta, state, draw), with the rest of the model and the bounds in
    it; it returns the next state, too.
    """

    def objective(theta: PyTree, state: tuple, draw: StepInputs) -> tuple[Float[Array, ""], tuple]:
        pieces = layout.pieces(theta, state, rest)
        inputs = [] if draw.data is None else [draw.batch()]
        options = {"key": draw.step_key()} if keyed else {}
        value = loss(layout.whole(pieces), *inputs, **options)
        _check_scalar(value)
        return jnp.asarray(value), layout.written(pieces, state)

    return objective


def _check_scalar(value: PyTree) -> None:
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


@runtime_checkable
class Optimizer(Protocol):
    """An optimiser of Optax."""

    @property
    def init(self) -> Callable: ...

    @property
    def update(self) -> Callable: ...


class Evaluation(NamedTuple):
    """The loss at theta, its gradient, and the state of the model's modules after it (None: that
    before it).
    """

    value: Float[Array, ""]
    gradient: PyTree
    state: tuple | None


def evaluation_of(objective: Captured) -> Callable[..., Evaluation]:
    """The loss and its gradient, a program `(objective, theta, state, draw)` for objectives that
    differ in their arrays alone.
    """
    return _evaluation(jax.tree.structure(objective))


def evaluate_loss(objective: Captured, theta: PyTree, state: tuple, draw: StepInputs) -> Evaluation:
    """The loss, its gradient and the next state, inside a program."""
    (value, state), gradient = jax.value_and_grad(objective, has_aux=True)(theta, state, draw)
    return Evaluation(value, gradient, state)


_evaluation = compiled_by_structure(evaluate_loss)


class Refusals(NamedTuple):
    """The steps that led to what is not finite.

    Attributes:
        total: of all steps; `row`: of the last ones, without progress in between.
        first: the first of them, −1 for none.
        codes: of what was not finite there: the loss, each array of the gradient, each array of
            the parameters.
    """

    total: Int[Array, ""]
    row: Int[Array, ""]
    first: Int[Array, ""]
    codes: Int[Array, " arrays"]


class FitCarry(NamedTuple):
    """The carry from step to step, on the device."""

    theta: PyTree
    state: tuple
    optimizer: PyTree
    best: Float[Array, ""]
    best_theta: PyTree
    best_state: tuple
    refusals: Refusals
    still: Int[Array, ""]  # evaluations in a row at the best parameters


def initial_carry(
    optimizer: Optimizer, theta: PyTree, state: tuple, carry: FitCarry | None
) -> FitCarry:
    """The carry before the first step of an optimiser. Its arrays are new ones, since a step gives
    them away.
    """
    init = captured(optimizer.init, theta)
    return _compiled_initial_carry(jax.tree.structure(init))(init, theta, state, carry)


def make_carry(init: Captured, theta: PyTree, state: tuple, carry: FitCarry | None) -> FitCarry:
    """The carry before the first step, inside a program."""
    zero = jnp.zeros((), jnp.int32)
    arrays = len(jax.tree.leaves(theta))
    if carry is None:
        codes = jnp.zeros(1 + 2 * arrays, jnp.int32)
        best = jnp.asarray(jnp.inf, jnp.result_type(float))
        refusals = Refusals(zero, zero, zero - 1, codes)
        carry = FitCarry(theta, state, None, best, theta, state, refusals, zero)
    start = carry._replace(
        theta=theta,
        state=state,
        optimizer=init(theta),
        still=zero,
        refusals=carry.refusals._replace(row=zero),
    )
    return _with_dtypes_of(jax.tree.map(jnp.copy, start), start)


_compiled_initial_carry = compiled_by_structure(make_carry)


def step_of(
    optimizer: Optimizer, carry: FitCarry, evaluation: Evaluation, step: ArrayLike, *, noisy: bool
) -> Captured:
    """A step of an optimiser, a function of (carry, evaluation, step).

    Raises:
        LossWanted: the optimiser evaluates the loss itself.
    """

    def move(carry: FitCarry, evaluation: Evaluation, step: ArrayLike) -> FitCarry:
        return optimizer_step(
            optimizer, carry, evaluation, step, loss=_raise_loss_wanted, noisy=noisy
        )

    return captured(move, carry, evaluation, step)


def next_carry(
    step: Captured, carry: FitCarry, evaluation: Evaluation, number: ArrayLike
) -> FitCarry:
    """The carry after a step. The arrays of the one before are given away."""
    return advance_by(step)(step, carry, evaluation, number)


def advance_by(step: Captured) -> Callable:
    """The program of a step, for steps that differ in their arrays alone."""
    return _compiled_step(jax.tree.structure(step))


def apply_step(
    step: Captured, carry: FitCarry, evaluation: Evaluation, draw: ArrayLike | StepInputs
) -> FitCarry:
    """The carry after a step, inside a program."""
    return step(carry, evaluation, draw)


_compiled_step = compiled_by_structure(apply_step, donate_argnums=1)


@partial(jax.jit, static_argnames="noisy", donate_argnames="carry")
def record_evaluation(
    carry: FitCarry, evaluation: Evaluation, step: ArrayLike, *, noisy: bool
) -> FitCarry:
    """The carry that knows of an evaluation, without a step from it. The evaluation may be part of
    the optimiser's state, which the carry is to have none of.
    """
    return record_and_judge(carry, evaluation, step, noisy=noisy)[0]


def step_with_loss(optimizer: Optimizer, objective: Captured, *, noisy: bool) -> Callable:
    """A step of an optimiser that evaluates the loss itself, a function of (carry, evaluation,
    draw).
    """

    def move(carry: FitCarry, evaluation: Evaluation, draw: StepInputs) -> FitCarry:
        loss = lambda theta: objective(theta, carry.state, draw)[0]  # noqa: E731
        return optimizer_step(optimizer, carry, evaluation, draw.step, loss=loss, noisy=noisy)

    return move


class LossWanted(Exception):
    """An optimiser calls `value_fn`."""


def _raise_loss_wanted(*given: PyTree) -> Any:
    del given
    raise LossWanted


def optimizer_step(
    optimizer: Optimizer,
    carry: FitCarry,
    evaluation: Evaluation,
    step: ArrayLike,
    *,
    loss: Callable,
    noisy: bool,
) -> FitCarry:
    """A step of the optimiser; after a value that is not finite, half of the distance back to the
    best parameters.

    All values that are compared are read before the best are written, and these before the
    parameters move (hence the barriers): so XLA writes a step in place, without copies.
    """
    import optax

    noted, fine = record_and_judge(carry, evaluation, step, noisy=noisy)
    noted = jax.lax.optimization_barrier(noted)

    def forwards() -> tuple[PyTree, PyTree]:
        gradient = jax.tree.map(jnp.conj, evaluation.gradient)  # which points uphill
        update = optax.with_extra_args_support(optimizer).update  # pyright: ignore[reportArgumentType]
        updates, state = update(
            gradient,
            noted.optimizer,
            noted.theta,
            value=evaluation.value,
            grad=gradient,
            value_fn=loss,
        )
        moved = optax.apply_updates(noted.theta, updates)
        return _with_dtypes_of((moved, state), (noted.theta, noted.optimizer))

    def back() -> tuple[PyTree, PyTree]:
        return jax.tree.map(_halfway, noted.theta, noted.best_theta), noted.optimizer

    theta, state = jax.lax.cond(fine, forwards, back)
    return _with_dtypes_of(noted._replace(theta=theta, optimizer=state), carry)


def _halfway(theta: Array, best: Array) -> Array:
    """The middle of the parameters and the best ones; the best where a parameter is not finite."""
    return jnp.where(jnp.isfinite(theta), (theta + best) / 2, best)


def record_and_judge(
    carry: FitCarry, evaluation: Evaluation, step: ArrayLike, *, noisy: bool
) -> tuple[FitCarry, Bool[Array, ""]]:
    """The carry with the best parameters (the last finite ones of a noisy loss) and the counts; and
    whether all is finite.
    """
    codes = _codes((evaluation.value, evaluation.gradient, carry.theta))
    fine = jnp.all(codes == FINITE)
    pairs = zip(jax.tree.leaves(carry.theta), jax.tree.leaves(carry.best_theta), strict=True)
    same = jnp.all(jnp.stack([jnp.all(a == b) for a, b in pairs]))
    carry, fine, same = jax.lax.optimization_barrier((carry, fine, same))
    better = fine & ((evaluation.value < carry.best) | noisy)
    state = carry.state if evaluation.state is None else evaluation.state
    noted = carry._replace(
        state=_select_tree(fine, state, carry.state),
        best=jnp.where(better, evaluation.value, carry.best),
        best_theta=_select_tree(better, carry.theta, carry.best_theta),
        best_state=_select_tree(better, state, carry.best_state),
        refusals=_count_refusals(carry.refusals, codes, step, same),
        still=jnp.where(fine & same, carry.still + 1, 0),
    )
    return _with_dtypes_of(noted, carry), fine


def _count_refusals(
    refusals: Refusals, codes: Int[Array, " arrays"], step: ArrayLike, same: Bool[Array, ""]
) -> Refusals:
    """The counts after an evaluation; at the best parameters it is no progress, though finite."""
    bad = jnp.any(codes != FINITE)
    new = bad & (refusals.first < 0)
    return Refusals(
        refusals.total + bad,
        jnp.where(bad, refusals.row + 1, jnp.where(same, refusals.row, 0)),
        jnp.where(new, step, refusals.first),
        jnp.where(new, codes, refusals.codes),
    )


def _codes(tree: PyTree) -> Int[Array, " arrays"]:
    """Of each array whether it is finite, has infinities, or has NaN."""

    def code(x: PyTree) -> Int[Array, ""]:
        most = jnp.max(jnp.abs(x), initial=0)  # NaN is the largest of all
        return jnp.where(jnp.isnan(most), NAN, jnp.where(jnp.isinf(most), INFINITE, FINITE))

    return jnp.stack([code(x) for x in jax.tree.leaves(tree)])


def _select_tree(choice: Bool[Array, ""], a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(partial(jnp.where, choice), a, b)


def _with_dtypes_of(tree: PyTree, like: PyTree) -> PyTree:
    """Arrays of the dtypes of `like`, none of them weak: so the second step compiles nothing."""
    convert = jax.lax.convert_element_type
    return jax.tree.map(lambda x, old: x if is_key(old) else convert(x, old.dtype), tree, like)
