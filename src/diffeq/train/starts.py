"""`fit_starts`: fits from several starts, side by side in one program."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..autodiff.jax_internals import is_key
from ..closures import Captured, Static
from ..core.keywords import keywords
from ..core.notices import INSIDE
from ..validation.values import shown
from .batches import Draws, StepInputs, check_loss
from .compiled_starts import (
    carry_of_start,
    evaluate_starts,
    initial_carries,
    next_carries,
    record_starts,
    stack_starts,
    step_of_starts,
)
from .compiled_step import Evaluation, FitCarry, Optimizer, objective_of
from .fit import phases_of
from .interrupts import Interrupts
from .parameters import Parameters
from .progress import Pace, Progress
from .result import Ending, Fit, Outcome, outcome_of, status_of
from .stepper import cause_of, check_untraced, start_of_phase, traced_loss

__all__ = ["fit_starts"]

_SHOWN_STARTS = 10  # numbers in a warning


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
    optimiser of its own, and one that ends in what is not finite does not touch the others. There
    is no callback and no checkpoint: a fit that is to go on after a killed process is a `de.fit`.

    Args:
        models: models of one structure, which differ in what is trained.
        loss, data, optimizer, steps, batch_size, key, trainable, bounds: as in `de.fit`. All starts
            get the same batches and keys.
        progress: whether to show a bar with the least of the losses.

    Returns:
        A `Fit` for each start, in their order: that which `de.fit` makes of it. One warning is
        given, with the numbers of the starts that failed. Where the loss of a start is not finite
        its `loss` is inf, so `min(fits, key=lambda fit: fit.loss)` is the best of them. Ctrl-C ends
        all of them after the step.

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
    parts = _parts(models, trainable, bounds)
    draws = Draws(data, batch_size, key, keyed=keyed)
    objective = objective_of(loss, parts[0].rest, parts[0].layout, keyed=keyed)
    outcomes = _Starts(parts, draws, objective, phases, progress=progress).fits()
    _warn(outcomes)
    return [outcome.fit for outcome in outcomes]


class _Starts:
    """The loop on the host over the steps of all starts."""

    def __init__(
        self,
        parts: list[Parameters],
        draws: Draws,
        loss: Callable,
        phases: list[tuple[Optimizer, int]],
        *,
        progress: bool,
    ) -> None:
        self.parts, self.draws, self.loss, self.phases = parts, draws, loss, phases
        self.first = next(iter(draws))
        self.objective = traced_loss(loss, parts[0].theta, parts[0].state, self.first)
        self.steps = sum(count for _, count in phases)
        self.history: list[np.ndarray] = []
        self.pending: list[Array] = []  # losses that are still on the device
        self.phase_starts: list[int] = []
        self.statuses = ["finished"] * len(parts)
        self.failed: dict[int, tuple[FitCarry, int]] = {}  # and the number of its losses
        self.interrupted = False
        self.interrupts, self.pace = Interrupts(), Pace()
        self.progress = Progress(self.steps, shown=progress)
        self.given = (
            stack_starts([part.theta for part in parts]),
            stack_starts([part.state for part in parts]),
        )
        self.carry: Any = None

    def fits(self) -> list[Outcome]:
        """All phases, and a last look at the losses."""
        draws = iter(self.draws)
        with self.progress, self.interrupts:
            for optimizer, count in self.phases:
                self._begin(optimizer)
                self._phase(optimizer, count, draws)
                if self.interrupted or len(self.failed) == len(self.parts):
                    break
            if "finished" in self.statuses and not self.interrupted:
                self._note(next(draws))
        return [self._outcome(number) for number in range(len(self.parts))]

    def _begin(self, optimizer: Optimizer) -> None:
        """A phase starts from the best that was found before it."""
        self.phase_starts.append(len(self.history))
        for number in self._going():  # what no longer moves may move in this phase
            self.statuses[number] = "finished"
        theta, state, self.carry = start_of_phase(self.carry, self.given, noisy=self.draws.noisy)
        like = self.parts[0].theta
        self.carry = initial_carries(optimizer, like, theta, state, self.carry)

    def _phase(self, optimizer: Optimizer, count: int, draws: Iterator[StepInputs]) -> None:
        """The steps of one optimiser."""
        step: Captured | None = None
        for _ in range(count):
            draw = next(draws)
            found = self._evaluate(draw)
            if step is None:
                noisy = self.draws.noisy
                step = step_of_starts(
                    optimizer, self.objective, self.carry, found, draw, noisy=noisy
                )
            self.carry = next_carries(step, self.carry, found, draw)
            del found  # and the memory of its gradients
            if len(self.pending) >= self.pace.steps:
                self._sync()
            self.interrupted = self.interrupts.asked
            if self.interrupted or "finished" not in self.statuses:
                break
        self._sync()

    def _evaluate(self, draw: StepInputs) -> Evaluation:
        found = evaluate_starts(self.objective, self.carry.theta, self.carry.state, draw)
        self.pending.append(found.value)
        return found

    def _note(self, draw: StepInputs) -> None:
        """Records an evaluation from which there is no step."""
        self.carry = self.carry._replace(optimizer=None)
        found = self._evaluate(draw)
        self.carry = record_starts(self.carry, found, draw.step, noisy=self.draws.noisy)
        self._sync()

    def _sync(self) -> None:
        """Fetches the losses, shows the least, and finds the starts that get no further. One that
        failed stays as it is now, whatever becomes of its numbers.
        """
        if not self.pending:
            return
        self.history += jax.device_get(self.pending)
        self.pace.after(len(self.pending))
        self.pending = []
        counts = jax.device_get((self.carry.refusals, self.carry.best, self.carry.still))
        for number in self._going():
            own = jax.tree.map(lambda x, n=number: x[n], counts)
            self.statuses[number] = status_of(*own, noisy=self.draws.noisy)
            if self.statuses[number] == "nonfinite":
                self.failed[number] = self._carry_of(number), len(self.history)
        losses = [float(self.history[-1][number]) for number in self._going()]
        least = min((x for x in losses if np.isfinite(x)), default=float("nan"))
        self.progress.at(min(len(self.history), self.steps), least)

    def _going(self) -> list[int]:
        """The starts that have not failed."""
        return [number for number in range(len(self.parts)) if number not in self.failed]

    def _carry_of(self, number: int) -> FitCarry:
        """The carry of a start, without the memory of its optimiser."""
        return carry_of_start(self.carry._replace(optimizer=None), number)

    def _outcome(self, number: int) -> Outcome:
        """The fit of one start."""
        part, strict = self.parts[number], not self._going()
        if number in self.failed:
            (carry, count), status = self.failed[number], "nonfinite"
        else:
            carry, count = self._carry_of(number), len(self.history)
            status = self.statuses[number]
            if self.interrupted and (
                status == "finished" or len(self.phase_starts) < len(self.phases)
            ):
                status = "interrupted"
        history = tuple(float(losses[number]) for losses in self.history[:count])
        phases = tuple(start for start in self.phase_starts if start < count)
        ended = Ending(status, history, phases, self.steps)
        cause = partial(cause_of, self.loss, part.theta, part.state, self.first, strict=strict)
        return outcome_of(part, carry, ended, cause, noisy=self.draws.noisy)


def _warn(outcomes: list[Outcome]) -> None:
    """Warns once of all starts that failed, or had draws that were refused."""
    warned = [number for number, outcome in enumerate(outcomes) if outcome.warning]
    failed = [number for number in warned if outcomes[number].fit.status == "nonfinite"]
    if not warned:
        return
    numbers, what = (failed, "failed") if failed else (warned, "had steps that were refused")
    listed = ", ".join(map(str, numbers[:_SHOWN_STARTS]))
    listed += f" and {len(numbers) - _SHOWN_STARTS} others" if len(numbers) > _SHOWN_STARTS else ""
    first = numbers[0]
    warnings.warn(
        f"fit_starts: of {len(outcomes)} starts {len(numbers)} {what}: {listed}. Of start {first}: "
        f"{outcomes[first].warning}.",
        RuntimeWarning,
        skip_file_prefixes=INSIDE,
    )


# --- models that go through one program -----------------------------------------------------------


def _parts(models: Any, trainable: PyTree, bounds: PyTree) -> list[Parameters]:
    """The parameters of each model."""
    if not isinstance(models, (list, tuple)) or not models:
        iterated = hasattr(models, "__next__") or np.ndim(models) > 0
        way = ": list(models)" if iterated and not isinstance(models, (list, tuple)) else ""
        raise TypeError(f"models is {shown(models)}; a list of models is wanted{way}.")
    parts = []
    for number, model in enumerate(models):
        try:
            parts.append(Parameters(model, trainable, bounds))
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"models[{number}]: {error}") from error
        _check_alike(parts[0], parts[-1], number)
    return parts


def _check_alike(one: Parameters, other: Parameters, number: int) -> None:
    """Refuses models that cannot go through one program."""
    shapes = [
        [
            (path, x.shape, x.dtype)
            for path, x in jax.tree.leaves_with_path((part.theta, part.state))
        ]
        for part in (one, other)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"models[{number}] has another structure than models[0], or other shapes: starts "
            "differ in the numbers that are trained."
        )
    structures = [jax.tree.structure((part.theta, part.state)) for part in (one, other)]
    if one.layout != other.layout or structures[0] != structures[1]:
        raise ValueError(
            f"models[{number}] has another structure than models[0], or another static field: "
            "starts differ in the numbers that are trained. A function in a static field is to be "
            "the same one in all of them: define it once, outside of what makes a model."
        )
    if not _same_constants(one.rest, other.rest):
        pairs = enumerate(zip(one.rest.pieces, other.rest.pieces, strict=True))
        where = [one.layout.path(i) for i, pair in pairs if not _same_constants(*pair)]
        places = f" ({', '.join(where)})" if where else ""
        raise ValueError(
            f"models[{number}] differs from models[0] in what is not trained{places}: starts share "
            "that. A function that reads what differs, or an object, is to be the same one in all "
            "of them: define it once, outside of what makes a model."
        )


def _same_constants(one: PyTree, other: PyTree) -> bool:
    """True if a program cannot tell two trees apart."""
    leaves = [jax.tree.leaves(tree) for tree in (one, other)]
    return len(leaves[0]) == len(leaves[1]) and all(map(_same_constant, *leaves))


def _same_constant(one: PyTree, other: PyTree) -> bool:
    """True if a program cannot tell two leaves apart: arrays by their numbers, all else by what a
    trace would read of it.
    """
    if hasattr(one, "dtype") and hasattr(other, "dtype"):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        plain = [np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in (one, other)]
        return np.array_equal(*plain, equal_nan=jnp.issubdtype(plain[0].dtype, jnp.inexact))
    same = type(one) is type(other) and (one == other) is True
    return same or Static(one) == Static(other)
