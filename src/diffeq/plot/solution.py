"""A solution against time: what `sol.plot()` draws."""

from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..solution import Solution

__all__ = ["plot_solution"]

_FEW = 40  # up to so many rows are shown as points on their line
_THIN = 12  # so many of an ensemble are drawn as lines; a band stands for more


def plot_solution(sol: Solution, ax: Any = None) -> Any:
    """Every component of a solution against t; returns the matplotlib axes.

    Dense solutions are drawn smooth; others through their rows, with points where there are few.
    Of an ensemble every trajectory that did not fail is a thin line; if they are many, twelve are,
    with the median of all and the band from 5 to 95 %, where their times are the same.

    Raises:
        ValueError: there is one row only, or a batch has more axes than one.

    Example:
        >>> import diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, a: -y, [1.0, 2.0], (0.0, 1.0))
        >>> ax = de.solve(problem, dense=True).plot()  # doctest: +SKIP
    """
    import matplotlib.pyplot as plt

    if isinstance(sol.ts, dict):
        raise ValueError(
            "plot() draws one set of rows; saveat was a dict: draw sol.ts[key], sol.ys[key]."
        )
    if np.ndim(sol.status) > 1:
        shape = np.shape(sol.status)
        raise ValueError(f"plot() draws one axis of solutions; this batch is {shape}: index it.")
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    (_draw_many if np.ndim(sol.status) else _draw_one)(sol, ax)
    ax.set_xlabel("t")
    ax.spines[["top", "right"]].set_visible(False)
    if 1 < len(ax.get_legend_handles_labels()[0]) <= 24:
        ax.legend(frameon=False)
    return ax


# --- one solution ---------------------------------------------------------------------------------


def _draw_one(sol: Solution, ax: Any) -> None:
    ts, ys, rows = _curves(sol)
    for label, values in _components(ys):
        (line,) = ax.plot(ts, values, lw=1.6, label=label)
        if rows is not None and len(rows) <= _FEW:
            at = np.searchsorted(ts, rows) if ts[-1] >= ts[0] else np.searchsorted(-ts, -rows)
            at = np.clip(at, 0, len(ts) - 1)
            ax.plot(ts[at], values[at], "o", ms=3.5, color=line.get_color())


def _curves(sol: Solution) -> tuple[np.ndarray, Any, np.ndarray | None]:
    """Times, values, and which times are rows to mark."""
    kept = np.asarray(sol.saved)
    rows = np.asarray(sol.ts)[kept]
    if sol.polynomial is not None:
        ends = sol.first_and_last()
        ts = np.linspace(ends[0], ends[1], 400)
        return ts, jax.tree.map(np.asarray, sol(ts)), rows if len(rows) > 1 else None
    if len(rows) < 2:
        raise ValueError("plot() has one row to draw: give saveat= or dense=True to solve.")
    return rows, jax.tree.map(lambda y: np.asarray(y)[kept], sol.ys), rows


# --- an ensemble ----------------------------------------------------------------------------------


def _draw_many(sol: Solution, ax: Any) -> None:
    good, saved = np.asarray(sol.success), np.asarray(sol.saved)
    columns = saved[good].any(0)
    if columns.sum() < 2:
        raise ValueError(
            "plot() has no trajectory of two rows to draw: give saveat= to the solve, or look at "
            "sol.failed."
        )
    kept = lambda x: np.asarray(x)[good][:, columns]  # noqa: E731
    saved, ts = kept(saved), kept(sol.ts)
    ts = np.where(saved, ts, np.nan)
    common = np.nanmax(ts, 0)
    band = len(ts) > _THIN and bool(np.all((ts == common) | ~saved))
    some = np.unique(np.linspace(0, len(ts) - 1, _THIN).round().astype(int))
    for i, (label, found) in enumerate(_components(jax.tree.map(kept, sol.ys), axes=2)):
        values, colour = np.where(saved, found, np.nan), f"C{i}"
        lines = ax.plot(ts[some].T, values[some].T, lw=0.6, alpha=0.6, color=colour)
        if band:
            low, middle, high = np.nanquantile(values, [0.05, 0.5, 0.95], axis=0)
            ax.fill_between(common, low, high, color=colour, alpha=0.2, linewidth=0)
            ax.plot(common, middle, lw=1.6, color=colour, label=label)
        else:
            lines[0].set_label(label)


def _components(ys: PyTree, axes: int = 1) -> list[tuple[str, np.ndarray]]:
    """(label, curve) of every scalar in a tree of rows; complex ones as two."""
    found = []
    for path, leaf in jax.tree.flatten_with_path(ys)[0]:
        name = jax.tree_util.keystr(path).strip(".").strip("[]'") or "y"
        flat = leaf.reshape(*leaf.shape[:axes], -1)
        for i in range(flat.shape[-1]):
            label, curve = name if flat.shape[-1] == 1 else f"{name}[{i}]", flat[..., i]
            if np.iscomplexobj(flat):
                found += [(f"Re {label}", curve.real), (f"Im {label}", curve.imag)]
            else:
                found.append((label, curve))
    return found
