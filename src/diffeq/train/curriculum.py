"""Growing horizons: first the beginning of the data, then more and more of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, PyTree

from ..core.keywords import keywords
from ..validation.values import is_real, shown
from .batches import data_arrays, parameters_of
from .fit import fit
from .result import Fit

__all__ = ["fit_growing"]


@keywords
def fit_growing(
    model: PyTree,
    loss: Callable,
    data: PyTree,
    ts: ArrayLike | Sequence,
    *,
    ends: ArrayLike | Sequence[ArrayLike],
    axis: int = 0,
    **fit_options: Any,
) -> Fit:
    """One `de.fit` for each of several horizons, each from where the last one ended.

    A solve over all of the data has many local minima, of which a flat line through the mean is the
    best known. One over the first few points has not, and what it finds is a good start for more.

    Args:
        model: as in `de.fit`.
        loss: `loss(model, data, ts=ts)`, with a key `loss(model, data, key, ts=ts)`: the data up to
            the horizon, and their times. A layer's call takes both: `layer(y0, tspan=(ts[0],
            ts[-1]), saveat=ts)`.
        data: a tree of arrays with an axis of time.
        ts: the times, shape (n,), rising.
        ends: the horizons, rising: each takes the times up to it, at least two.
        axis: that of time in the data; 1 for samples in front, which `batch_size=` then draws from.
        fit_options: `optimizer`, `steps`, `batch_size`, … : all that `de.fit` takes. Each horizon
            has all phases of them, and of a `checkpoint` a folder inside it.

    Returns:
        The `Fit` of the last horizon, with the history and the phases of all of them.

    Raises:
        TypeError, ValueError: as `de.fit`; horizons that do not rise, or with fewer than two times;
            data whose axis of time is not that of ts; a loss without a parameter ts.

    Example:
        >>> import jax.numpy as jnp, optax, diffeq as de
        >>> ts = jnp.linspace(0.0, 2.0, 9)
        >>> problem = de.ODEProblem(lambda t, y, rate: -rate * y, 1.0, (0.0, 2.0), 0.5)
        >>> def loss(problem, data, *, ts):
        ...     span = problem.replace(tspan=(ts[0], ts[-1]))
        ...     return de.mse(de.solve(span, saveat=ts).ys, data)
        >>> fit = de.fit_growing(problem, loss, jnp.exp(-ts), ts, ends=(1.0, 2.0),
        ...                      optimizer=optax.lbfgs(), steps=8)
        >>> round(fit.model.args, 2), len(fit.phases)
        (1.0, 2)
    """
    counts = _horizon_sizes(np.asarray(ts), ends)
    data = data_arrays(data)
    _check_time_axis(data, axis, len(np.asarray(ts)))
    _check_takes_times(loss)
    done: list[Fit] = []
    folder = fit_options.pop("checkpoint", None)
    for number, count in enumerate(counts):
        if folder is not None:
            fit_options["checkpoint"] = Path(folder) / f"horizon-{number}"
        known = jnp.asarray(ts)[:count]
        part = jax.tree.map(lambda x, n=count: jnp.take(x, np.arange(n), axis=axis), data)
        start = done[-1].model if done else model
        done.append(fit(start, partial(loss, ts=known), part, **fit_options))
        if done[-1].status in ("stopped", "interrupted", "nonfinite"):
            break
    return _join_fits(done)


def _check_time_axis(data: PyTree, axis: int, count: int) -> None:
    """Refuses data whose axis of time is not that of ts."""
    for path, x in jax.tree.leaves_with_path(data):
        name, shape = f"data{jax.tree_util.keystr(path)}", jnp.shape(x)
        if not -len(shape) <= axis < len(shape) or shape[axis] != count:
            raise ValueError(
                f"{name} has shape {shape}; its axis {axis} is that of {count} ts (axis= says "
                "which one is time)."
            )


def _check_takes_times(loss: Any) -> None:
    """Refuses a loss without a parameter ts."""
    if not callable(loss):
        raise TypeError(f"loss is {shown(loss)}; a function loss(model, data, *, ts) is wanted.")
    names = parameters_of(loss)
    if names and not {"ts", "**"} & {*names}:
        raise TypeError(
            f"loss takes ({', '.join(names)}), and no ts: each horizon has times of its own; "
            "loss(model, data, *, ts) is wanted."
        )


def _horizon_sizes(ts: np.ndarray, ends: Any) -> list[int]:
    """The number of times within each horizon."""
    if np.ndim(ends) != 1 or not is_real(np.asarray(ends)):
        raise TypeError(
            f"ends is {shown(ends)}; a sequence of times is wanted, such as ends=(1.0, 2.0)."
        )
    if ts.ndim != 1 or not np.all(np.diff(ts) > 0):
        raise ValueError("ts must be a vector of times that rise.")
    counts = [int(np.sum(ts <= end)) for end in ends]
    if not counts or counts[0] < 2 or np.any(np.diff(counts) <= 0):
        raise ValueError(
            f"ends are {list(ends)}: with ts they have {counts} points; each must have more than "
            "the one before, and the first two or more."
        )
    return counts


def _join_fits(done: list[Fit]) -> Fit:
    """All fits as one, whose model is that of the last."""
    starts = np.cumsum([0] + [len(one.history) for one in done[:-1]])
    phases = tuple(
        int(start) + phase for start, one in zip(starts, done, strict=True) for phase in one.phases
    )
    return replace(done[-1], history=np.concatenate([f.history for f in done]), phases=phases)
