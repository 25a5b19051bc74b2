"""`fit`: gradient training of anything that has numbers in it."""

import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..core.closure import Closure
from ..core.lift import INSIDE
from ..core.primitive import in_a_trace
from ..refuse.words import shown
from .draws import Draw, Draws, check_loss
from .interrupts import Interrupts
from .parameters import Parameters
from .program import (
    Carry,
    Evaluation,
    LossWanted,
    Objective,
    advance,
    begin,
    evaluate,
    note,
)
from .progress import Progress
from .report import message_of
from .search import advance_by_search, left_behind

__all__ = ["Fit", "fit"]

_REFUSED = 10  # steps in a row that lead to what is not finite end a fit
_STILL = 10  # and so do evaluations in a row of the same parameters
_SYNC_SECONDS = 0.1
_SYNC_STEPS = 50


@dataclass(frozen=True)
class Fit:
    """What a fit has found.

    Attributes:
        model: the model with the best parameters; with batches or keys, where losses are noisy,
            with the last. Always finite. Of the kind that was given.
        history: the loss before each step, and after the last one.
        status: "finished"; "stopped" by the callback; "interrupted" by Ctrl-C; "converged", when
            steps no longer changed anything; "nonfinite", when step after step led to a loss or a
            gradient that is not finite.
        loss: the loss of `model` (with batches or keys: the last finite one).
        phases: where in `history` each phase starts.
        message: which steps were refused, and what was not finite in the first of them; "" if
            there were none.

    Example:
        >>> import jax.numpy as jnp, optax, diffeq as de
        >>> fit = de.fit(0.0, lambda x: (x - 2.0) ** 2, optimizer=optax.sgd(0.5), steps=3)
        >>> fit
        Fit(finished after 3 steps, loss 4 → 0)
    """

    model: Any
    history: np.ndarray
    status: str
    loss: float
    phases: tuple[int, ...] = field(default=(), repr=False)
    message: str = field(default="", repr=False)

    def __repr__(self) -> str:
        steps = max(len(self.history) - 1, 0)
        loss = f"loss {self.history[0]:.4g} → {self.loss:.4g}" if len(self.history) else "no loss"
        note = f": {self.message}" if self.message else ""
        return f"Fit({self.status} after {steps} steps, {loss}{note})"

    def plot(self, ax: Any = None) -> Any:
        """The loss over the steps, on a logarithmic axis where it is positive."""
        import matplotlib.pyplot as plt

        ax = plt.gca() if ax is None else ax
        steps = np.arange(len(self.history))
        known = np.isfinite(self.history)
        ax.plot(steps[known], self.history[known], linewidth=1.2)
        ax.plot(
            steps[~known], np.full((~known).sum(), self.loss), "x", color="tab:red", markersize=4
        )
        for start in self.phases[1:]:
            ax.axvline(start, color="0.7", linewidth=0.8, linestyle=":")
        if np.all(self.history[known] > 0):
            ax.set_yscale("log")
        ax.set(xlabel="step", ylabel="loss")
        return ax


def fit(
    model: Any,
    loss: Callable,
    data: Any = None,
    *,
    optimizer: Any,
    steps: Any = None,
    batch_size: int | None = None,
    key: Any = None,
    trainable: Any = None,
    bounds: Any = None,
    callback: Callable | None = None,
    progress: bool = True,
) -> Fit:
    """Minimises a loss over the parameters of a model.

    `loss` is compiled once for each phase. A step that leads to a loss (or a gradient) that is not
    finite is refused: it is halved until it leads to a finite one, so the result is always finite.

    Args:
        model: an Equinox or Flax NNX module, or any pytree of numbers, such as args.
        loss: `loss(model)`; with data `loss(model, batch)`; with key, if it takes one,
            `loss(model, batch, key)`.
        data: any pytree of arrays; with `batch_size` their first axes are the samples.
        optimizer: an Optax optimiser, or a list of phases `[(optax.adam(0.05), 300),
            (optax.lbfgs(), 100)]`. Each phase starts from the best that was found before it.
        steps: a number of steps, or one for each phase where `optimizer` does not say.
        batch_size: samples a step, without replacement in an epoch; what is left over in an epoch
            is not used in it. None: all of them.
        key: a random key, for batches and the loss; each step gets one of its own.
        trainable: what to train. None: arrays of floats (Python floats too, in a tree without
            modules), of an NNX module its `nnx.Param`, of a problem its args. A function that
            returns parts of the model, as `lambda m: m.net`; a prefix tree of bools; or a kind of
            `nnx.Variable`.
        bounds: (lower, upper), each a number or a prefix tree of the model, None for no bound, in
            the units of the parameters. They hold throughout, by a smooth change of variable: the
            optimiser sees log(θ − lower), log(upper − θ), or the logit between the two, so its
            learning rate is a relative one for bounded parameters.
        callback: `callback(step, loss, model)`, before each step; True stops.
        progress: whether to show a bar with the loss (on a terminal).

    Returns:
        A `Fit`.

    Raises:
        TypeError, ValueError: an argument that does not fit; a loss that is no real scalar; a
            starting point that is not inside its bounds.

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
    phases = _phases(optimizer, steps)
    keyed = check_loss(loss, data=data is not None, key=key is not None)
    check_callback(callback)
    check_untraced(model, loss, data, key, bounds)
    parameters = Parameters(model, trainable, bounds)
    draws = Draws(data, batch_size, key, keyed=keyed)
    return _Run(loss, parameters, draws, callback, phases, progress=progress).fit()


def _phases(optimizer: Any, steps: Any) -> list[tuple[Any, int]]:
    if hasattr(optimizer, "update"):
        optimizer = [optimizer]
    if not isinstance(optimizer, (list, tuple)) or not optimizer:
        raise TypeError(
            f"optimizer is {optimizer!r}; an Optax optimiser is wanted, or a list of "
            "(optimiser, steps)."
        )
    if not isinstance(steps, (list, tuple)):
        steps = [steps] * len(optimizer)
    phases = []
    for one, count in itertools.zip_longest(optimizer, steps):
        if isinstance(one, (list, tuple)) and not hasattr(one, "update"):
            one, count = one  # noqa: PLW2901 - a pair says its own steps
        if not hasattr(one, "update") or isinstance(one, type):
            raise TypeError(
                f"optimizer has {one!r}; an Optax optimiser is wanted, such as optax.adam(1e-2)."
            )
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise TypeError(
                f"steps is {count!r}; a positive whole number is wanted, for each phase."
            )
        phases.append((one, int(count)))
    return phases


def check_callback(callback: Any) -> None:
    if callback is not None and not callable(callback):
        raise TypeError(
            f"callback is {shown(callback)}; a function callback(step, loss, model) is wanted."
        )


def check_untraced(*given: Any) -> None:
    """Refuses tracers: the loop of a fit is on the host."""
    if in_a_trace(Closure.of(given).arrays):
        raise TypeError(
            "fit cannot be called inside jit, vmap or grad: its loop looks at each loss. Several "
            "starts are one fit of a stacked model: de.fit(models, lambda models: "
            "jnp.sum(jax.vmap(loss)(models)), optimizer=optax.adam(0.01), …)."
        )


class _Run:
    """The loop on the host."""

    def __init__(
        self, loss: Callable, parameters: Parameters, draws: Draws, callback: Any,
        phases: list[tuple[Any, int]], *, progress: bool,
    ) -> None:  # fmt: skip
        self.loss, self.parameters, self.draws = loss, parameters, draws
        self.callback, self.phases = callback, phases
        self.progress = Progress(sum(steps for _, steps in phases), shown=progress)
        self.interrupts = Interrupts()
        self.objective = self._objective(Closure.of)
        self.carry: Any = None
        self.searching = False  # whether the optimiser evaluates the loss itself
        self.first: Any = None  # the first draw
        self.history: list[float] = []
        self.pending: list = []
        self.starts: list[int] = []
        self.status = "finished"
        self.synced, self.most = time.monotonic(), 1

    def fit(self) -> Fit:
        """All phases, and a last look at the loss."""
        draws = iter(self.draws)
        with self.progress, self.interrupts:
            for number, (optimizer, steps) in enumerate(self.phases):
                self.starts.append(len(self.history))
                self._phase(Closure.of(optimizer), draws, steps)
                if self.status == "converged" and number < len(self.phases) - 1:
                    self.status = "finished"  # what no longer moves may move in the next phase
                if self.status != "finished":
                    break
            else:
                draw = next(draws)
                self._note(self._evaluation(draw), draw)
                self._sync()
        return self._result()

    def _objective(self, closure: Callable[[Any], Closure]) -> Objective:
        parts = closure((self.loss, self.parameters.rest))
        return Objective(parts, self.parameters.layout, self.draws.keyed)

    def _phase(self, optimizer: Closure, draws: Iterator[Draw], steps: int) -> None:
        """The steps of one optimiser."""
        self._begin(optimizer)
        for _ in range(steps):
            draw = next(draws)
            evaluation = self._evaluation(draw)
            if self.callback is not None and self._stops(evaluation, draw):
                return
            self._advance(optimizer, evaluation, draw)
            self.pending.append(evaluation.value)
            del evaluation  # and the memory of its gradient
            if self._due():
                self._sync()
            if self.status == "finished" and self.interrupts.asked:
                self.status = "interrupted"
            if self.status != "finished":
                break
        self._sync()

    def _begin(self, optimizer: Closure) -> None:
        """A phase starts from the best that was found before it."""
        carry = self.carry
        if carry is None:
            theta, state = self.parameters.theta, self.parameters.state
        elif self.draws.noisy:
            theta, state = carry.theta, carry.state
        else:
            theta, state = carry.best_theta, carry.best_state
        if carry is not None:
            carry = self.carry = carry._replace(optimizer=None)  # its memory is free again
        self.carry, self.searching = begin(optimizer, theta, state, carry), False

    def _evaluation(self, draw: Draw) -> Evaluation:
        """The loss and the gradient here; those that a line search has left behind are used."""
        carry: Carry = self.carry
        found = left_behind(carry) if self.searching and not self.draws.noisy else None
        if found is not None:
            return found
        if self.first is not None:
            return evaluate(self.objective, carry.theta, carry.state, draw)
        self.first = draw
        try:
            return evaluate(self.objective, carry.theta, carry.state, draw)
        except Exception:
            if not self.objective.closure.arrays:
                raise
        # A loss may ask for the numbers of an array that it closes over, as under jax.jit: then
        # its arrays are constants, and others compile anew.
        self.objective = self._objective(Closure.constant)
        return evaluate(self.objective, carry.theta, carry.state, draw)

    def _advance(self, optimizer: Closure, evaluation: Evaluation, draw: Draw) -> None:
        """Makes a step."""
        noisy = self.draws.noisy
        if not self.searching:
            try:
                self.carry = advance(optimizer, self.carry, evaluation, draw.step, noisy=noisy)
            except LossWanted:
                self.searching = True
        if self.searching:
            self.carry = advance_by_search(
                optimizer, self.objective, self.carry, evaluation, draw, noisy=noisy
            )

    def _stops(self, evaluation: Evaluation, draw: Draw) -> bool:
        """Whether the callback ends the fit before this step."""
        value = float(evaluation.value)
        model = self.parameters.result(*_copied((self.carry.theta, self.carry.state)))
        try:
            stops = self.callback(len(self.history) + len(self.pending), value, model)
        except KeyboardInterrupt:
            stops, self.status = True, "interrupted"
        if not stops:
            return False
        self.status = "stopped" if self.status == "finished" else self.status
        self._note(evaluation, draw)
        self._sync()
        return True

    def _note(self, evaluation: Evaluation, draw: Draw) -> None:
        state, carry = self.carry.optimizer, self.carry._replace(optimizer=None)
        carry = note(carry, evaluation, draw.step, noisy=self.draws.noisy)
        self.carry = carry._replace(optimizer=state)
        self.pending.append(evaluation.value)

    def _due(self) -> bool:
        """Whether enough steps are under way: as many as take a tenth of a second."""
        return len(self.pending) >= self.most

    def _sync(self) -> None:
        """Fetches the losses, shows the last, and sees whether the fit is stuck."""
        if not self.pending:
            return
        self.history += [float(x) for x in jax.device_get(self.pending)]
        spent, count = time.monotonic() - self.synced, len(self.pending)
        self.most = int(np.clip(_SYNC_SECONDS * count / max(spent, 1e-9), 1, _SYNC_STEPS))
        self.pending, self.synced = [], time.monotonic()
        self.progress.at(min(len(self.history), self.progress.total), self.history[-1])
        if self.status != "finished":
            return
        carry: Carry = self.carry
        hopeless = not self.draws.noisy and int(carry.refusals.total) and np.isinf(carry.best)
        if hopeless or int(carry.refusals.row) >= _REFUSED:
            self.status = "nonfinite"
        elif int(carry.still) >= _STILL and not self.draws.noisy:
            self.status = "converged"

    def _result(self) -> Fit:
        """The best model, and what there is to say about it."""
        carry: Carry = self.carry
        refusals = jax.device_get(carry.refusals)
        finite = bool(np.isfinite(carry.best))
        if not finite and self.status == "finished":
            self.status = "nonfinite"
        ended = self.status == "nonfinite"
        message = message_of(
            refusals, self.parameters.names, self.history, finite=finite, ended=ended
        )
        if ended and not finite and refusals.codes[0]:
            message += self._cause()
        if ended or (message and self.draws.noisy):
            warnings.warn(f"fit: {message}.", RuntimeWarning, skip_file_prefixes=INSIDE)
        if self.status == "interrupted":
            total = sum(steps for _, steps in self.phases)
            message = "; ".join([f"interrupted in step {len(self.history)} of {total}", message])
        return Fit(
            self.parameters.result(carry.best_theta, carry.best_state), np.asarray(self.history),
            self.status, float(carry.best) if finite else self.history[0], tuple(self.starts),
            message.strip("; "),
        )  # fmt: skip

    def _cause(self) -> str:
        """Why the loss is not finite at the start, where a call outside of any trace says so."""
        objective = self._objective(Closure.constant)
        try:
            objective(self.parameters.theta, self.parameters.state, self.first)
        except (TypeError, ValueError):  # a wrong argument, and not a failure
            raise
        except Exception as error:
            return f" ({type(error).__name__}: {error})"
        return ""


@jax.jit
def _copied(tree: PyTree) -> PyTree:
    """The same values in arrays of their own, which no step gives away."""
    return jax.tree.map(jnp.copy, tree)
