"""`fit`: gradient training of anything that has numbers in it."""

import inspect
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .parameters import Parameters

__all__ = ["Fit", "fit"]

_REFUSED = 10  # steps in a row with a loss that is not finite end a fit
_STILL = 5  # and so do steps in a row that change nothing
_SYNC_SECONDS = 0.1
_SYNC_STEPS = 50


@dataclass(frozen=True)
class Fit:
    """What a fit has found.

    Attributes:
        model: the model with the best parameters; with batches or keys, where losses are noisy,
            with the last. Always finite. Of the kind that was given.
        history: the loss before each step, and after the last one.
        status: "finished"; "stopped" by the callback; "converged", when steps no longer changed
            anything; "nonfinite", when step after step led to a loss that is not finite.
        loss: the loss of `model` (with batches or keys: the last finite one).

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

    def __repr__(self) -> str:
        steps = max(len(self.history) - 1, 0)
        return (
            f"Fit({self.status} after {steps} steps, loss {self.history[0]:.4g} → {self.loss:.4g})"
        )

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
    parameters = Parameters(model, trainable, bounds)
    draws = _Draws(data, batch_size, key)
    objective = Objective(parameters, loss, draws)
    run = _Run(objective, draws, callback, phases, progress=progress)
    return run.finish(run.train())


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


class _Draws:
    """What each step gets: a batch, a key."""

    def __init__(self, data: Any, batch_size: int | None, key: Any) -> None:
        self.key, self.keyed = key, False
        self.data = None if data is None else jax.tree.map(jnp.asarray, data)
        self.size = batch_size
        if batch_size is None:
            return
        sizes = sorted({jnp.shape(x)[:1] for x in jax.tree.leaves(self.data)})
        if len(sizes) != 1 or sizes[0] == ():
            raise ValueError(
                f"batch_size needs data whose arrays have one first axis; theirs are {sizes}."
            )
        self.count = sizes[0][0]
        if isinstance(batch_size, bool) or not 1 <= batch_size <= self.count:
            raise ValueError(f"batch_size is {batch_size}; there are {self.count} samples.")

    @property
    def noisy(self) -> bool:
        """Whether the loss differs from step to step."""
        return self.keyed or (self.size is not None and self.size < self.count)

    def __iter__(self) -> Iterator[tuple]:
        """(indices of a batch, number of the step)."""
        step = 0
        shuffle = jax.random.key(0) if self.key is None else self.key
        for epoch in itertools.count():
            for rows in self._epoch(jax.random.fold_in(shuffle, epoch)):
                yield rows, np.int32(step)
                step += 1

    def _epoch(self, key: Any) -> Any:
        if self.size is None:
            return [None]
        batches = self.count // self.size
        order = jax.random.permutation(key, self.count)
        return order[: batches * self.size].reshape(batches, self.size)

    def inputs(self, data: Any, rows: Any, step: Any) -> tuple:
        """The arguments of the loss after the model, inside a compiled step."""
        found = []
        if data is not None:
            found.append(data if rows is None else jax.tree.map(lambda x: x[rows], data))
        if self.keyed:
            found.append(jax.random.fold_in(self.key, step))
        return tuple(found)


class Objective:
    """The loss as a function of (theta, state)."""

    def __init__(self, parameters: Parameters, loss: Callable, draws: _Draws) -> None:
        self.parameters, self.loss, self.draws = parameters, loss, draws
        given = ["model", *["batch"] * (draws.data is not None)]
        draws.keyed = draws.key is not None and _takes(loss, len(given) + 1) is None
        problem = None if draws.keyed else _takes(loss, len(given))
        if problem is not None:
            raise TypeError(f"loss must take ({', '.join(given)}): {problem}.") from problem

    def __call__(self, theta: list, state: list, inputs: tuple) -> tuple[Any, list]:
        model, after = self.parameters.watched(theta, state)
        value = self.loss(model, *inputs)
        if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            raise TypeError(
                f"loss returned {jnp.result_type(value)}{list(jnp.shape(value))}; a real scalar "
                "is wanted."
            )
        return jnp.asarray(value), after()

    def value_and_grad(
        self, optimizer_state: Any, theta: list, state: list, inputs: tuple
    ) -> tuple:
        """(value, gradient, state); what a line search has already computed is used."""
        import optax

        if self.draws.noisy or not _stores(optimizer_state):
            (value, state), grads = jax.value_and_grad(self, has_aux=True)(theta, state, inputs)
        else:
            plain = lambda theta: self(theta, state, inputs)[0]  # noqa: E731
            value, grads = optax.value_and_grad_from_state(plain)(theta, state=optimizer_state)
        return value, jax.tree.map(jnp.conj, grads), state


def _stores(optimizer_state: Any) -> bool:
    """Whether a line search has left the value and the gradient at the parameters."""
    import optax

    value, grad = (
        [x for _, x in optax.tree.get_all_with_path(optimizer_state, name)]
        for name in ("value", "grad")
    )
    return len(value) == len(grad) == 1 and grad[0] is not None


def _takes(function: Callable, count: int) -> TypeError | None:
    """What is wrong with calling a function with so many arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError as error:
        return error
    except ValueError:  # it has no signature to ask
        return None
    return None


class Carry(NamedTuple):
    """What goes from step to step, on the device."""

    theta: list
    state: list
    optimizer: Any
    kept: list  # the last parameters with a finite loss
    best: Any
    best_theta: list
    best_state: list
    refused: Any  # steps in a row
    still: Any


def _advance(
    optimizer: Any, objective: Objective, carry: Carry, data: Any, rows: Any, step: Any
) -> tuple[Carry, Any]:
    """One step, and the loss before it."""
    import optax

    inputs = objective.draws.inputs(data, rows, step)
    value, grads, state = objective.value_and_grad(
        carry.optimizer, carry.theta, carry.state, inputs
    )
    fine = jnp.isfinite(value) & _all_finite(grads)
    grads = _where(fine, grads, jax.tree.map(jnp.zeros_like, grads))
    updates, optimizer_state = optimizer.update(
        grads, carry.optimizer, carry.theta, value=value, grad=grads,
        value_fn=lambda theta: objective(theta, carry.state, inputs)[0],
    )  # fmt: skip
    moved = optax.apply_updates(carry.theta, updates)
    taken = fine & _all_finite(moved)
    back = jax.tree.map(lambda a, b: (a + b) / 2, carry.kept, carry.theta)
    theta = _where(taken, moved, _where(fine, carry.theta, back))
    same = taken & jax.tree.reduce(
        jnp.logical_and, jax.tree.map(lambda a, b: jnp.all(a == b), theta, carry.theta)
    )
    better = fine & ((value < carry.best) | objective.draws.noisy)
    after = Carry(
        theta,
        _where(fine, state, carry.state),
        _where(taken, optimizer_state, carry.optimizer),
        _where(fine, carry.theta, carry.kept),
        jnp.where(better, value, carry.best),
        _where(better, carry.theta, carry.best_theta),
        _where(better, state, carry.best_state),
        jnp.where(taken, 0, carry.refused + 1),
        jnp.where(same, carry.still + 1, 0),
    )
    return _strong(after, carry), value


def _strong(tree: Any, like: Any) -> Any:
    """Arrays of the dtypes of `like`, none of them weak: so the second step compiles nothing."""

    def cast(x: Any, old: Any) -> Any:
        is_key = jnp.issubdtype(old.dtype, jax.dtypes.prng_key)
        return x if is_key else jax.lax.convert_element_type(x, old.dtype)

    return jax.tree.map(cast, tree, like)


def _all_finite(tree: Any) -> Any:
    return jax.tree.reduce(
        jnp.logical_and, jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), tree), jnp.array(True)
    )


def _where(choice: Any, a: Any, b: Any) -> Any:
    return jax.tree.map(partial(jnp.where, choice), a, b)


class _Run:
    """The loop on the host."""

    def __init__(
        self, objective: Objective, draws: _Draws, callback: Any, phases: list, *, progress: bool
    ) -> None:
        self.objective, self.draws, self.callback, self.phases = objective, draws, callback, phases
        self.progress = progress
        self.history: list[float] = []
        self.pending: list = []
        self.starts: list[int] = []
        self.status = "finished"
        self.synced = time.monotonic()

    def train(self) -> Carry:
        """All phases, and a last look at the loss."""
        from tqdm.auto import tqdm

        carry, draws = self._begin(), iter(self.draws)
        advance: Callable = _advance
        total = sum(steps for _, steps in self.phases)
        with tqdm(total=total, disable=None if self.progress else True, desc="fit") as bar:
            for number, (optimizer, steps) in enumerate(self.phases):
                self.starts.append(len(self.history))
                carry, advance = self._phase(carry, optimizer)
                carry = self._steps(carry, advance, draws, steps, bar)
                last = number == len(self.phases) - 1
                if self._over(last=last):
                    return carry
            # One more step, whose update is not used: its loss is that of the last parameters.
            carry, value = advance(carry, self.draws.data, *next(draws))
            self.pending.append(value)
            self._sync(carry, bar)
        return carry

    def _over(self, *, last: bool) -> bool:
        """Whether to end here. What no longer moves may move in the next phase."""
        if self.status == "converged" and not last:
            self.status = "finished"
        return self.status != "finished"

    def _steps(
        self, carry: Carry, advance: Callable, draws: Iterator, steps: int, bar: Any
    ) -> Carry:
        """One phase."""
        for _ in range(steps):
            before = carry
            carry, value = advance(carry, self.draws.data, *next(draws))
            self.pending.append(value)
            bar.update()
            if self.callback is not None or self._due():
                self._sync(carry, bar)
            if self.callback is not None and self._called(before):
                self.status = "stopped"
            if self.status != "finished":
                return carry
        self._sync(carry, bar)
        return carry

    def _called(self, carry: Carry) -> bool:
        """What the callback says of the last loss and the model that it belongs to."""
        model = self.objective.parameters.result(carry.theta, carry.state)
        return bool(self.callback(len(self.history) - 1, self.history[-1], model))

    def _begin(self) -> Carry:
        parameters = self.objective.parameters
        theta, state = parameters.theta, parameters.state
        best = jnp.asarray(jnp.inf, jnp.result_type(float))
        return Carry(theta, state, None, theta, best, theta, state, jnp.int32(0), jnp.int32(0))

    def _phase(self, carry: Carry, optimizer: Any) -> tuple[Carry, Callable]:
        import optax

        optimizer = optax.with_extra_args_support(optimizer)
        if not self.draws.noisy:
            carry = carry._replace(
                theta=carry.best_theta, state=carry.best_state, kept=carry.best_theta
            )
        carry = carry._replace(
            optimizer=jax.jit(optimizer.init)(carry.theta), still=jnp.int32(0), refused=jnp.int32(0)
        )
        carry = jax.tree.map(jnp.asarray, carry)
        return _strong(carry, carry), jax.jit(partial(_advance, optimizer, self.objective))

    def _due(self) -> bool:
        return len(self.pending) >= _SYNC_STEPS or time.monotonic() - self.synced > _SYNC_SECONDS

    def _sync(self, carry: Carry, bar: Any) -> None:
        """Fetches the losses, shows the last, and sees whether the fit is stuck."""
        if not self.pending:
            return
        self.history += [float(x) for x in jax.device_get(self.pending)]
        self.pending, self.synced = [], time.monotonic()
        bar.set_postfix_str(f"loss {self.history[-1]:.4g}", refresh=False)
        if int(carry.refused) >= _REFUSED:
            self.status = "nonfinite"
        elif int(carry.still) >= _STILL and not self.draws.noisy:
            self.status = "converged"

    def finish(self, carry: Carry) -> Fit:
        """The result, from the last carry."""
        model = self.objective.parameters.result(carry.best_theta, carry.best_state)
        return Fit(
            model, np.asarray(self.history), self.status, float(carry.best), tuple(self.starts)
        )
