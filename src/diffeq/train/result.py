"""`Fit`: the result of a fit, and how it is made of the carry after the last step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike, PyTree

from .compiled_step import FINITE, FitCarry, Refusals
from .parameters import Parameters
from .report import message_of

__all__ = ["Ending", "Fit", "Outcome", "outcome_of", "status_of"]

_REFUSED = 10  # steps in a row that lead to what is not finite end a fit
_STILL = 10  # and so do evaluations in a row of the same parameters


@dataclass(frozen=True)
class Fit:
    """The result of a fit.

    Attributes:
        model: the model with the best parameters; with batches or keys, where losses are noisy,
            with the last. Always finite. Of the kind that was given.
        history: the loss before each step, and after the last one.
        status: "finished"; "stopped" by the callback; "interrupted" by Ctrl-C; "converged", when
            steps no longer changed anything; "nonfinite", when step after step led to a loss or a
            gradient that is not finite.
        loss: the loss of `model` (with batches or keys: the last finite one); inf where it is not
            finite, so that of several fits the best is the one with the least loss.
        phases: where in `history` each phase starts.
        message: which steps were refused, and what was not finite in the first of them; that no
            step lowered the loss; the step in which the fit was interrupted; "" for none of these.

    Example:
        >>> import jax.numpy as jnp, optax, diffeq as de
        >>> fit = de.fit(0.0, lambda x: (x - 2.0) ** 2, optimizer=optax.sgd(0.5), steps=3)
        >>> fit
        Fit(finished after 3 steps, loss 4 → 0)
    """

    model: PyTree
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


def status_of(refusals: Refusals, best: ArrayLike, still: ArrayLike, *, noisy: bool) -> str:
    """The status of a fit after a step: "finished", unless its steps lead nowhere ("nonfinite") or
    no longer change anything ("converged"). `best` is the least loss so far, and `still` counts the
    evaluations in a row of the same parameters.
    """
    hopeless = not noisy and int(refusals.total) and np.isinf(best)
    if hopeless or int(refusals.row) >= _REFUSED:
        return "nonfinite"
    return "converged" if np.asarray(still) >= _STILL and not noisy else "finished"


class Ending(NamedTuple):
    """The end of the loop of a fit.

    Attributes:
        status: the status after the last step.
        history: the losses.
        phases: where in the history each phase starts.
        steps: the steps of all phases.
    """

    status: str
    history: tuple[float, ...]
    phases: tuple[int, ...]
    steps: int


class Outcome(NamedTuple):
    """A fit, and the sentence that the user is warned with; "" for no warning."""

    fit: Fit
    warning: str


def outcome_of(
    parameters: Parameters, carry: FitCarry, ended: Ending, cause: Callable[[], str], *, noisy: bool
) -> Outcome:
    """The result of a fit whose loop has ended.

    Args:
        parameters: how the model is made of its parameters.
        carry: the carry after the last step.
        ended: how, and after which losses.
        cause: returns why the loss was not finite; called where it was not.
        noisy: whether the loss differs from step to step.
    """
    status, history, phases, steps = ended
    best, refusals = jax.device_get((carry.best, carry.refusals))
    finite = bool(np.isfinite(best))
    if not finite and status == "finished":
        status = "nonfinite"
    message = message_of(
        refusals, parameters.names, history, finite=finite, ended=status == "nonfinite"
    )
    if message and refusals.codes[0] != FINITE:
        message += cause()
    warning = message if status == "nonfinite" or noisy else ""
    if not message and not noisy and _gained_nothing(history):
        message = "no step lowered the loss; try a smaller learning rate"
    if status == "interrupted":
        where = f"interrupted in step {len(history)} of {steps}"
        message = f"{where}; {message}" if message else where
    model = parameters.result(carry.best_theta, carry.best_state)
    first = history[0] if np.isfinite(history[0]) else np.inf
    loss = float(best) if finite else float(first)
    return Outcome(Fit(model, np.asarray(history), status, loss, phases, message), warning)


def _gained_nothing(history: tuple[float, ...]) -> bool:
    """True if all losses after the first are larger, though it is one that can be compared."""
    return len(history) > 1 and history[0] < min(history[1:])
