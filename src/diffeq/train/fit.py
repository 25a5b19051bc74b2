"""`fit`: gradient training of anything that has numbers in it."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..core.keywords import keywords
from ..core.notices import INSIDE
from ..core.user_functions import accepts
from ..validation.values import shown
from .batches import Draws, StepInputs, check_loss
from .checkpoint import (
    Checkpoint,
    Progressed,
    checked_checkpoint,
    marks_of_inputs,
    optimizer_mark,
)
from .compiled_step import Evaluation, Optimizer
from .interrupts import Interrupts
from .parameters import Parameters
from .progress import Pace, Progress
from .result import Ending, Fit, outcome_of, status_of
from .stepper import Stepper, check_untraced

__all__ = ["check_callback", "fit", "phases_of"]


@keywords
def fit(
    model: PyTree,
    loss: Callable,
    data: PyTree = None,
    *,
    optimizer: Any,
    steps: Any = None,
    batch_size: int | None = None,
    key: Any = None,
    trainable: PyTree = None,
    bounds: PyTree = None,
    callback: Callable | None = None,
    progress: bool = True,
    checkpoint: Any = None,
    every: Any = None,
) -> Fit:
    """Minimises a loss over the parameters of a model.

    The loss and its gradient are compiled once, for all phases, and for all fits with the same code
    and the same shapes. A step that leads to a loss (or a gradient) that is not finite is refused:
    it is halved until it leads to a finite one, so the model is always the last good one. A warning
    is given where the fit cannot go on, and where batches or keys are refused; `Fit.message`
    reports all refused steps.

    Args:
        model: an Equinox or Flax NNX module, or any pytree of numbers, such as args.
        loss: `loss(model)`; with data `loss(model, batch)`; with a key `loss(model, batch, key)`,
            if it has a parameter that is called so. A real scalar.
        data: any pytree of arrays; with `batch_size` their first axes are the samples.
        optimizer: an Optax optimiser, or a list of phases `[(optax.adam(0.05), 300),
            (optax.lbfgs(), 100)]`. Each phase starts from the best that was found before it. It
            sees the tree of the model, as `eqx.partition` has it, with None for what is not
            trained, so labels, masks and groups are those of Optax. In the place of an NNX module
            is its `nnx.State`; in that of a problem the tree of its args, or an object with all of
            its fields where others of them are trained.
        steps: a number of steps, or one for each phase where `optimizer` does not say (None where
            it does).
        batch_size: samples a step, without replacement in an epoch; what is left over in an epoch
            is not used in it. None: all of them.
        key: a random key, for batches and the loss; each step gets one of its own.
        trainable: what to train. None: arrays of floats (Python floats too, in a tree without
            modules), of an NNX module its `nnx.Param`, of a problem, wherever it stands, its args.
            A function that returns parts of the model, as `lambda m: m.net`; a prefix tree of
            bools; or a kind of `nnx.Variable`. A problem as one such part, or as one True, is its
            args: what else of it is to be trained is named, as `lambda p: (p.args, p.y0)`.
        bounds: (lower, upper), each a number or a prefix tree of the model (of a problem: of its
            args), None for no bound, in the units of the parameters. They hold throughout, by a
            smooth change of variable: the optimiser sees log(θ − lower), log(upper − θ), or the
            logit between the two, so its learning rate is a relative one for bounded parameters.
        callback: `callback(step, loss, model)`, before each step; True stops, and so does a
            `KeyboardInterrupt`.
        progress: whether to show a bar with the loss; without a terminal, a line now and then.
        checkpoint: a folder in which the fit is kept: parameters, optimiser, losses, and how far it
            is. The same call goes on from there, after Ctrl-C or a killed process, to the numbers
            of a fit that was not cut off, to the bit; of a finished fit it makes no step. The last
            phase may have more steps than before, and other phases may follow it; fewer steps than
            were made are refused.
        every: steps between two checkpoints; None: as many as take ten seconds.

    Returns:
        A `Fit`. Ctrl-C ends the fit after its step, and returns the best so far.

    Raises:
        TypeError, ValueError: an argument that does not fit; a loss that is no real scalar; a
            starting point that is not inside its bounds; a call inside jit, vmap or grad; a
            checkpoint of another fit (model, loss, data, key, optimisers), of one with more steps
            than are asked for, or one that cannot be read.

    Example:
        >>> import jax.numpy as jnp, optax, diffeq as de
        >>> ts = jnp.linspace(0.0, 1.0, 5)
        >>> problem = de.ODEProblem(lambda t, y, rate: -rate * y, 1.0, (0.0, 1.0), 1.0)
        >>> data = jnp.exp(-2.0 * ts)
        >>> def loss(rate):
        ...     return de.mse(de.solve(problem.replace(args=rate), saveat=ts).ys, data)
        >>> fit = de.fit(1.0, loss, optimizer=optax.lbfgs(), steps=20, bounds=(0.0, None))
        >>> round(fit.model, 2)
        2.0
    """
    phases = phases_of(optimizer, steps)
    keyed = check_loss(loss, data=data is not None, key=key is not None)
    check_callback(callback)
    check_untraced(model, data, key, bounds)
    parameters = Parameters(model, trainable, bounds)
    draws = Draws(data, batch_size, key, keyed=keyed)
    stepper = Stepper(loss, parameters, draws)
    kept = checked_checkpoint(checkpoint, every)
    return _FitLoop(stepper, callback, phases, kept, progress=progress).fit()


def phases_of(optimizer: Any, steps: Any) -> list[tuple[Optimizer, int]]:
    """The phases of a fit: (optimiser, number of steps) of each."""
    if _is_optimizer(optimizer):
        optimizer = [optimizer]
    if not isinstance(optimizer, (list, tuple)) or not optimizer:
        raise TypeError(
            f"optimizer is {optimizer!r}; an Optax optimiser is wanted, such as optax.adam(1e-2), "
            "or a list of (optimiser, steps)."
        )
    counts = _steps_of_phases(optimizer, steps)
    return [_phase(one, count) for one, count in zip(optimizer, counts, strict=True)]


def _steps_of_phases(optimizer: Sequence, steps: Any) -> list:
    """The steps of each phase; None for a pair, which says its own."""
    pairs = [_is_pair(one) for one in optimizer]
    listed = isinstance(steps, (list, tuple))
    if listed and len(steps) != len(pairs):
        raise TypeError(
            f"steps has {len(steps)} numbers, and optimizer {len(pairs)} phases; one number for "
            "each phase is wanted."
        )
    unused = [x for x, pair in zip(steps, pairs, strict=True) if pair] if listed else [steps]
    if (listed or all(pairs)) and any(x is not None for x in unused):
        raise TypeError(
            f"steps is {shown(steps)}, and a phase of optimizer says its own: (optimiser, steps); "
            "leave one of them out."
        )
    return list(steps) if listed else [None if pair else steps for pair in pairs]


def _phase(one: Any, count: Any) -> tuple[Optimizer, int]:
    """The optimiser of a phase and its steps."""
    if _is_pair(one):
        if len(one) != 2:
            raise TypeError(
                f"optimizer has a phase of {len(one)} parts; (optimiser, steps) is wanted."
            )
        one, count = one
    if not _is_optimizer(one):
        raise TypeError(
            f"optimizer has {one!r}; an Optax optimiser is wanted, such as optax.adam(1e-2)."
        )
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise TypeError(f"steps is {count!r}; a positive whole number is wanted, for each phase.")
    return one, int(count)


def _is_pair(x: Any) -> bool:
    return isinstance(x, (list, tuple)) and not _is_optimizer(x)


def _is_optimizer(x: PyTree) -> bool:
    return hasattr(x, "init") and hasattr(x, "update") and not isinstance(x, type)


def check_callback(callback: Any) -> None:
    """Refuses what cannot be called with a step, a loss and a model."""
    if callback is not None and not callable(callback):
        raise TypeError(
            f"callback is {shown(callback)}; a function callback(step, loss, model) is wanted."
        )
    if callback is not None:
        accepts(callback, "callback", (3,), "callback(step, loss, model) is wanted.")


class _FitLoop:
    """The loop on the host: which step is next, what is recorded, when it ends."""

    def __init__(
        self,
        stepper: Stepper,
        callback: Callable | None,
        phases: list[tuple[Optimizer, int]],
        checkpoint: Checkpoint | None,
        *,
        progress: bool,
    ) -> None:
        self.stepper, self.callback, self.phases = stepper, callback, phases
        self.checkpoint = checkpoint
        self.marks: dict[str, str] = {}  # what the checkpoint is of
        self.phase = self.done = 0  # the number of the phase, and the steps made in it
        self.steps = sum(steps for _, steps in phases)
        self.progress = Progress(self.steps, shown=progress)
        self.interrupts = Interrupts()
        self.history: list[float] = []
        self.pending: list = []  # losses that are still on the device
        self.phase_starts: list[int] = []
        self.status = "finished"
        self.pace = Pace()

    def fit(self) -> Fit:
        """All phases, and a last look at the loss."""
        resumed = self._resume()
        draws = self.stepper.draws.after(len(self.history))
        with self.progress, self.interrupts:
            for number in range(self.phase, len(self.phases)):
                if not resumed:
                    self._begin(number)
                resumed = False
                self._phase(draws)
                if self.status == "converged" and number < len(self.phases) - 1:
                    self.status = "finished"  # what no longer moves may move in the next phase
                if self.status != "finished":
                    break
            else:
                draw = next(draws)
                self._note(self.stepper.evaluation(draw), draw)
        return self._result()

    def _resume(self) -> bool:
        """True if a checkpoint was there, which is where the fit is now."""
        if self.checkpoint is None:
            return False
        stepper, written = self.stepper, self.checkpoint.read()
        stepper.prepare(next(iter(stepper.draws)))
        given = stepper.parameters
        self.marks = marks_of_inputs(given.theta, given.state, stepper.draws, stepper.objective)
        if written is None:
            return False
        found = written.progressed
        for number in range(found.phase + 1):
            self._mark(number)
        written.check(self.marks, [steps for _, steps in self.phases])
        self.phase, self.done, self.history = found.phase, found.done, list(found.history)
        self.phase_starts = list(found.starts)
        stepper.begin(self.phases[self.phase][0])
        stepper.carry, stepper.searches = written.carry(stepper.carry), found.searches
        self._check_progress()
        return True

    def _mark(self, number: int) -> None:
        """The mark of the optimiser of a phase, if the fit has that phase."""
        if self.checkpoint is not None and number < len(self.phases):
            mark = optimizer_mark(self.phases[number][0], self.stepper.parameters.theta)
            self.marks[f"the optimiser of phase {number}"] = mark

    def _begin(self, number: int) -> None:
        """The start of a phase."""
        self.phase, self.done = number, 0
        self.phase_starts.append(len(self.history))
        self._mark(number)
        self.stepper.begin(self.phases[number][0])

    def _phase(self, draws: Iterator[StepInputs]) -> None:
        """The steps of one optimiser that are still to be made."""
        for _ in range(self.done, self.phases[self.phase][1]):
            if self.status != "finished":
                break
            draw = next(draws)
            evaluation = self.stepper.evaluation(draw)
            if self.callback is not None and self._stops(evaluation):
                self._keep()
                self._note(evaluation, draw)
                return
            self.stepper.advance(evaluation, draw)
            self.done += 1
            self.pending.append(evaluation.value)
            del evaluation  # and the memory of its gradient
            if len(self.pending) >= self.pace.steps:
                self._sync()
            if self.checkpoint is not None and self.checkpoint.due(self._made()):
                self._keep()
            if self.status == "finished" and self.interrupts.asked:
                self.status = "interrupted"
        self._keep()

    def _made(self) -> int:
        """The number of steps so far."""
        return len(self.history) + len(self.pending)

    def _keep(self) -> None:
        """Fetches the losses, and writes the checkpoint."""
        self._sync()
        if self.checkpoint is None:
            return
        planned = tuple(steps for _, steps in self.phases[: self.phase])
        searches, history = self.stepper.searches, tuple(self.history)
        found = Progressed(
            self.phase, self.done, planned, tuple(self.phase_starts), searches, history
        )
        self.checkpoint.write(found, self.marks, self.stepper.carry)

    def _stops(self, evaluation: Evaluation) -> bool:
        """True if the callback ends the fit before this step."""
        step = self._made()
        assert self.callback is not None
        try:
            stops = self.callback(step, float(evaluation.value), self.stepper.model())
        except KeyboardInterrupt:
            self.status = "interrupted"
            return True
        if stops:
            self.status = "stopped"
        return bool(stops)

    def _note(self, evaluation: Evaluation, draw: StepInputs) -> None:
        """Records an evaluation from which there is no step."""
        self.stepper.note(evaluation, draw)
        self.pending.append(evaluation.value)
        self._sync()

    def _sync(self) -> None:
        """Fetches the losses, shows the last, and checks if the fit is stuck."""
        if not self.pending:
            return
        self.history += [float(x) for x in jax.device_get(self.pending)]
        self.pace.after(len(self.pending))
        self.pending = []
        self.progress.at(min(len(self.history), self.steps), self.history[-1])
        self._check_progress()

    def _check_progress(self) -> None:
        """Ends the fit where its steps no longer change anything, or lead nowhere."""
        if self.status != "finished":
            return
        carry, noisy = self.stepper.carry, self.stepper.draws.noisy
        self.status = status_of(carry.refusals, carry.best, carry.still, noisy=noisy)

    def _result(self) -> Fit:
        """The result of the fit: the best model, and how the fit ended."""
        stepper = self.stepper
        ended = Ending(self.status, tuple(self.history), tuple(self.phase_starts), self.steps)
        noisy, cause = stepper.draws.noisy, stepper.cause
        fit, warning = outcome_of(stepper.parameters, stepper.carry, ended, cause, noisy=noisy)
        if warning:
            warnings.warn(f"fit: {warning}.", RuntimeWarning, skip_file_prefixes=INSIDE)
        return fit
