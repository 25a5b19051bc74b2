"""`fit_starts`: fits from several starts, side by side in one program."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..closures import Captured, captured
from ..core.keywords import keywords
from .batches import Draws, StepInputs, check_loss
from .compiled_step import (
    Evaluation,
    FitCarry,
    Optimizer,
    evaluate_loss,
    make_carry,
    objective_of,
    optimizer_step,
    record_and_judge,
)
from .fit import Fit, phases_of, status_of
from .interrupts import Interrupts
from .parameters import Parameters
from .progress import Progress
from .report import message_of
from .stepper import check_untraced, start_of_phase

__all__ = ["fit_starts"]

_LOOK = 20  # steps between two looks at the losses


@keywords
def fit_starts(
    models: Any,
    loss: Callable,
    data: PyTree = None,
    *,
    optimizer: Any,
    steps: Any = None,
    batch_size: int | None = None,
    key: Any = None,
    trainable: PyTree = None,
    bounds: PyTree = None,
    progress: bool = True,
) -> list[Fit]:
    """Minimises a loss from several starts: one `de.fit` for each of the models, side by side.

    A loss with several minima, or a network whose first weights are drawn, is fitted more than
    once. Here all starts take each step together, in one program under `jax.vmap`. It is compiled
    once, and costs little more than one fit where that does not fill the machine. Each start has an
    optimiser of its own, and one that ends in what is not finite does not touch the others.

    Args:
        models: models of one structure, which differ in what is trained.
        loss, data, optimizer, steps, batch_size, key, trainable, bounds: as in `de.fit`. All starts
            get the same batches and keys.
        progress: whether to show a bar with the least of the losses.

    Returns:
        A `Fit` for each start, in their order: that which `de.fit` makes of it.
        `min(fits, key=lambda fit: fit.loss)` is the best of them.

    Raises:
        TypeError, ValueError: as `de.fit`; models that differ in more than what is trained.

    Example:
        >>> import jax.numpy as jnp, optax, diffeq as de
        >>> loss = lambda x: (x**2 - 1.0) ** 2 + 0.3 * x
        >>> fits = de.fit_starts([-2.0, 0.5, 2.0], loss, optimizer=optax.adam(0.1), steps=100)
        >>> [round(fit.model, 1) for fit in fits], min(fits, key=lambda fit: fit.loss) is fits[0]
        ([-1.0, 1.0, 1.0], True)
    """
    phases = phases_of(optimizer, steps)
    keyed = check_loss(loss, data=data is not None, key=key is not None)
    check_untraced(models, data, key, bounds)
    if not isinstance(models, (list, tuple)) or not models:
        raise TypeError(f"models is a {type(models).__name__}; a list of models is wanted.")
    parts = [Parameters(model, trainable, bounds) for model in models]
    for number, part in enumerate(parts[1:], 1):
        _check_alike(parts[0], part, number)
    draws = Draws(data, batch_size, key, keyed=keyed)
    objective = objective_of(loss, parts[0].rest, parts[0].layout, keyed=keyed)
    return _Starts(parts, draws, objective, phases, progress=progress).fits()


class _Starts:
    """The loop on the host over the steps of all starts."""

    def __init__(
        self,
        parts: list[Parameters],
        draws: Draws,
        objective: Callable,
        phases: list[tuple[Optimizer, int]],
        *,
        progress: bool,
    ) -> None:
        self.parts, self.draws, self.phases = parts, draws, phases
        first = next(iter(draws))
        self.objective = captured(objective, parts[0].theta, parts[0].state, first)
        self.history: list[Array] = []
        self.starts: list[int] = []
        self.interrupts = Interrupts()
        self.progress = Progress(sum(count for _, count in phases), shown=progress)
        stacked = lambda *trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)  # noqa: E731
        self.theta = stacked(*(part.theta for part in parts))
        self.state = stacked(*(part.state for part in parts))
        self.carry: Any = None
        self.evaluated = jax.jit(jax.vmap(evaluate_loss, in_axes=(None, 0, 0, None)))

    def fits(self) -> list[Fit]:
        """All phases, and a last look at the losses."""
        draws = iter(self.draws)
        with self.progress, self.interrupts:
            for optimizer, count in self.phases:
                self._begin(optimizer)
                advance: Callable | None = None
                for _ in range(count):
                    draw = next(draws)
                    found = self._evaluate(draw)
                    if advance is None:
                        advance = self._step_of(optimizer, found, draw)
                    self.carry = advance(self.carry, found, draw)
                    if len(self.history) % _LOOK == 0 and self._ends():
                        break
                if self.interrupts.asked:
                    break
            draw = next(draws)
            note = partial(record_and_judge, noisy=self.draws.noisy)
            noted = jax.jit(jax.vmap(note, in_axes=(0, 0, None)))
            carry = self.carry._replace(optimizer=None)
            self.carry = noted(carry, self._evaluate(draw), draw.step)[0]
        return self._results()

    def _begin(self, optimizer: Optimizer) -> None:
        """A phase starts from the best that was found before it."""
        self.starts.append(len(self.history))
        given = self.theta, self.state
        theta, state, carry = start_of_phase(self.carry, given, noisy=self.draws.noisy)
        init = captured(optimizer.init, self.parts[0].theta)
        make = jax.vmap(make_carry, in_axes=(None, 0, 0, None if carry is None else 0))
        self.carry = jax.jit(make)(init, theta, state, carry)

    def _evaluate(self, draw: StepInputs) -> Evaluation:
        found = self.evaluated(self.objective, self.carry.theta, self.carry.state, draw)
        self.history.append(found.value)
        return found

    def _step_of(self, optimizer: Optimizer, found: Evaluation, draw: StepInputs) -> Callable:
        """The program of a step of all starts."""
        noisy = self.draws.noisy

        def move(
            objective: Captured, carry: FitCarry, found: Evaluation, draw: StepInputs
        ) -> FitCarry:
            loss = lambda theta: objective(theta, carry.state, draw)[0]  # noqa: E731
            return optimizer_step(optimizer, carry, found, draw.step, loss=loss, noisy=noisy)

        step = jax.jit(jax.vmap(move, in_axes=(None, 0, 0, None)), donate_argnums=1)
        return partial(step, self.objective)

    def _ends(self) -> bool:
        """True if no start gets any further, or Ctrl-C was pressed. Shows the least loss."""
        last = np.asarray(self.history[-1])
        finite = last[np.isfinite(last)]
        self.progress.at(len(self.history), float(finite.min()) if finite.size else float("nan"))
        stuck = [self._status(number) != "finished" for number in range(len(self.parts))]
        return all(stuck) or self.interrupts.asked

    def _status(self, number: int) -> str:
        """The status of the fit of a start."""
        parts = self.carry.refusals, self.carry.best, self.carry.still
        own = jax.tree.map(lambda x: np.asarray(x)[number], parts)
        return status_of(*own, noisy=self.draws.noisy)

    def _results(self) -> list[Fit]:
        carry = jax.device_get(self.carry)
        history = np.stack([np.asarray(x) for x in self.history], axis=1).astype(float)
        return [self._result(number, carry, history[number]) for number in range(len(self.parts))]

    def _result(self, number: int, carry: FitCarry, history: np.ndarray) -> Fit:
        """The fit of one start."""
        one = jax.tree.map(lambda x: x[number], carry)
        part, status, best = self.parts[number], self._status(number), float(one.best)
        if np.isinf(best):
            status = "nonfinite"
        elif self.interrupts.asked:
            status = "interrupted"
        ended = {"finite": not np.isinf(best), "ended": status == "nonfinite"}
        message = message_of(one.refusals, part.names, list(history), **ended)
        theta, state = jax.tree.map(jnp.asarray, (one.best_theta, one.best_state))
        loss = history[0] if np.isinf(best) else best
        return Fit(part.result(theta, state), history, status, loss, tuple(self.starts), message)


def _check_alike(one: Parameters, other: Parameters, number: int) -> None:
    """Refuses models that cannot go through one program."""
    shapes = [
        jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), (part.theta, part.state))
        for part in (one, other)
    ]
    if one.layout != other.layout or shapes[0] != shapes[1]:
        raise ValueError(
            f"models[{number}] has another structure than models[0], or other shapes: starts "
            "differ in the numbers that are trained."
        )
    kept = [jax.tree.leaves(part.rest) for part in (one, other)]
    if len(kept[0]) != len(kept[1]) or not all(map(_same_constant, *kept)):
        raise ValueError(
            f"models[{number}] differs from models[0] in what is not trained: starts share that."
        )


def _same_constant(one: PyTree, other: PyTree) -> bool:
    if one is other:
        return True
    if hasattr(one, "shape") and hasattr(other, "shape"):
        return np.array_equal(np.asarray(one), np.asarray(other), equal_nan=False)
    return type(one) is type(other) and one == other
