"""A solution against time: what `sol.plot()` draws."""

from typing import Any

import jax
import numpy as np

__all__ = ["plot_solution"]

_FEW = 40  # up to so many rows are shown as points on their line


def plot_solution(sol: Any, ax: Any = None) -> Any:
    """Every component of a solution against t; returns the matplotlib axes.

    Dense solutions are drawn smooth; others through their rows, with points where there are few.

    Raises:
        ValueError: there is one row only, or a batch of solutions.

    Example:
        >>> import diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, a: -y, [1.0, 2.0], (0.0, 1.0))
        >>> ax = de.solve(problem, dense=True).plot()  # doctest: +SKIP
    """
    import matplotlib.pyplot as plt

    ts, ys, rows = _curves(sol)
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for label, values in _components(ys):
        (line,) = ax.plot(ts, values, lw=1.6, label=label)
        if rows is not None and len(rows) <= _FEW:
            at = np.searchsorted(ts, rows) if ts[-1] >= ts[0] else np.searchsorted(-ts, -rows)
            at = np.clip(at, 0, len(ts) - 1)
            ax.plot(ts[at], values[at], "o", ms=3.5, color=line.get_color())
    ax.set_xlabel("t")
    ax.spines[["top", "right"]].set_visible(False)
    if 1 < len(ax.lines) <= 24:
        ax.legend(frameon=False)
    return ax


def _curves(sol: Any) -> tuple[np.ndarray, Any, np.ndarray | None]:
    """Times, values, and which times are rows to mark."""
    if np.ndim(sol.status):
        raise ValueError("plot() draws one solution; this is a batch: index it, sol[0].plot().")
    if isinstance(sol.ts, dict):
        raise ValueError(
            "plot() draws one set of rows; saveat was a dict: draw sol.ts[key], sol.ys[key]."
        )
    kept = np.asarray(sol.saved)
    rows = np.asarray(sol.ts)[kept]
    if sol.polynomial is not None:
        ends = sol.first_and_last()
        ts = np.linspace(ends[0], ends[1], 400)
        return ts, jax.tree.map(np.asarray, sol(ts)), rows if len(rows) > 1 else None
    if len(rows) < 2:
        raise ValueError("plot() has one row to draw: give saveat= or dense=True to solve.")
    return rows, jax.tree.map(lambda y: np.asarray(y)[kept], sol.ys), rows


def _components(ys: Any) -> list[tuple[str, np.ndarray]]:
    """(label, curve) of every scalar in a tree of rows; complex ones as two."""
    found = []
    for path, leaf in jax.tree.flatten_with_path(ys)[0]:
        name = jax.tree_util.keystr(path).strip(".").strip("[]'") or "y"
        flat = leaf.reshape(len(leaf), -1)
        for i in range(flat.shape[1]):
            label = name if flat.shape[1] == 1 else f"{name}[{i}]"
            if np.iscomplexobj(flat):
                found += [(f"Re {label}", flat[:, i].real), (f"Im {label}", flat[:, i].imag)]
            else:
                found.append((label, flat[:, i]))
    return found
