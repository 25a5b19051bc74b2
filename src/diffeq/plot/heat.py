"""A value over two parameters that were swept: a map of cells, or of points."""

from typing import Any

import numpy as np
from jaxtyping import ArrayLike

__all__ = ["heat"]

_FEW = 300  # up to so many failures are crossed; more of them are grey alone
_EVEN = 1e-3  # of a step: how evenly a grid has to be spaced to be called so
_GREY = "0.86"
_RIM = {"edgecolor": "0.5", "lw": 0.2}  # without it, points in the middle of the colours are lost


def heat(
    x: ArrayLike,
    y: ArrayLike,
    values: ArrayLike,
    *,
    failed: ArrayLike | None = None,
    xlabel: str = "",
    ylabel: str = "",
    label: str = "",
    centre: float | None = None,
    ax: Any = None,
    **options: Any,
) -> Any:
    """A heat map, or phase diagram: a value of each trajectory of an ensemble over two parameters.

    A grid is drawn in cells, each around its point: axes that are spaced evenly in their logarithms
    become logarithmic. Other points (drawn at random, say) are drawn as points. Failed trajectories
    are grey and crossed.

    Args:
        x, y: the parameters: one of each for each trajectory, in any order; or the two axes of a
            grid, with the trajectories in the order of `jnp.meshgrid(x, y, indexing="ij")`.
        values: one number for each trajectory, in any shape: NaN where there is none.
        failed: flags of the trajectories that failed, such as `~sol.success`. None: those without a
            number.
        xlabel, ylabel, label: of the axes and of the bar of colours.
        centre: a number in the middle of the colours, such as 0 where a sign changes.
        ax: matplotlib axes; new ones by default.
        options: as of matplotlib's `pcolormesh` and `scatter`: `cmap`, `norm`, `vmin`, `vmax`.

    Returns:
        The axes. `ax.collections[0]` holds the coloured cells or points.

    Raises:
        ValueError: sizes disagree, or no value is a number.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, p: p[0] * y - p[1] * y**2, 0.1, (0.0, 5.0))
        >>> rates, limits = jnp.linspace(-1.0, 1.0, 30), jnp.linspace(0.5, 2.0, 20)
        >>> rate, limit = (x.ravel() for x in jnp.meshgrid(rates, limits))
        >>> sol = de.solve_ensemble(problem, args=(rate, limit))
        >>> ax = de.plot.heat(rate, limit, sol.y1, xlabel="rate", label="y(5)")  # doctest: +SKIP
    """
    import matplotlib.pyplot as plt

    x, y, values = (np.asarray(v).ravel() for v in (x, y, values))
    if x.size * y.size == values.size and x.size != values.size:
        x, y = (v.ravel() for v in np.meshgrid(x, y, indexing="ij"))
    lost = _lost(x, y, values, failed)
    values = np.where(lost, np.nan, values)
    if ax is None:
        _, ax = plt.subplots(figsize=(5.2, 3.9), layout="constrained")
    drawn = _colours(values, centre) | options
    places, grid = _as_grid(x, y, values)
    if grid is None:
        size = np.clip(12_000 / values.size, 4, 60)
        image = ax.scatter(x[~lost], y[~lost], c=values[~lost], s=size, **_RIM, **drawn)
    else:
        scales = [_scale(points) for points in places]
        edges = [_edges(points, scale) for points, scale in zip(places, scales, strict=True)]
        image = ax.pcolormesh(*edges, grid.T, rasterized=True, **drawn)
        ax.set(xscale=scales[0], yscale=scales[1])
    _mark(ax, x[lost], y[lost], cells=grid is not None)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    beyond = np.nanmin(values) < image.norm.vmin, np.nanmax(values) > image.norm.vmax
    ax.figure.colorbar(image, ax=ax, label=label, extend=_EXTEND[beyond])
    return ax


_EXTEND = {(False, False): "neither", (True, False): "min", (False, True): "max",
           (True, True): "both"}  # fmt: skip


def _lost(x: np.ndarray, y: np.ndarray, values: np.ndarray, failed: ArrayLike | None) -> np.ndarray:
    """Flags of the trajectories that have no value to draw. Raises an error if the sizes do not
    match, or there is no value at all.
    """
    sizes = {"x": x.size, "y": y.size, "values": values.size}
    lost = ~np.isfinite(values)
    if failed is not None:
        flags = np.asarray(failed, bool).ravel()
        sizes["failed"] = flags.size
        lost = lost | flags if flags.size == values.size else lost
    if len(set(sizes.values())) > 1:
        each = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise ValueError(
            f"{each}: one x, y and value for each trajectory are wanted, or the axes x and y of a "
            "grid with x.size * y.size values."
        )
    if lost.all():
        raise ValueError(
            "no value is a number, so that there is nothing to draw: look at sol.failed."
        )
    return lost


def _colours(values: np.ndarray, centre: float | None) -> dict:
    if centre is None:
        return {"cmap": "viridis"}
    reach = np.nanmax(np.abs(values - centre)) or 1.0
    return {"cmap": "RdBu_r", "vmin": centre - reach, "vmax": centre + reach}


def _as_grid(x: np.ndarray, y: np.ndarray, values: np.ndarray) -> tuple[list, np.ndarray | None]:
    """The points of both axes, and the values on their grid; None if the points make none."""
    (xs, i), (ys, j) = (np.unique(v, return_inverse=True) for v in (x, y))
    taken = np.zeros((xs.size, ys.size), int)
    np.add.at(taken, (i, j), 1)
    if min(xs.size, ys.size) < 2 or not (taken == 1).all():
        return [xs, ys], None
    grid = np.empty(taken.shape)
    grid[i, j] = values
    return [xs, ys], grid


def _scale(points: np.ndarray) -> str:
    """The scale on which points are evenly spaced, if that is the logarithmic one."""
    if points[0] <= 0 or points.size < 3 or _even(points):
        return "linear"
    return "log" if _even(np.log(points)) else "linear"


def _even(points: np.ndarray) -> bool:
    steps = np.diff(points)
    return bool(np.ptp(steps) < _EVEN * np.abs(steps).max())


def _edges(points: np.ndarray, scale: str) -> np.ndarray:
    """The borders of the cells around these points: half way between them, on their scale."""
    p = np.log(points) if scale == "log" else points
    middles = (p[1:] + p[:-1]) / 2
    edges = np.concatenate([[2 * p[0] - middles[0]], middles, [2 * p[-1] - middles[-1]]])
    return np.exp(edges) if scale == "log" else edges


def _mark(ax: Any, x: np.ndarray, y: np.ndarray, *, cells: bool) -> None:
    """Marks the trajectories that failed: by grey cells, and by crosses unless these would hide the
    cells.
    """
    if not x.size:
        return
    if cells:
        ax.set_facecolor(_GREY)
    hidden, label = cells and x.size > _FEW, f"{x.size} failed"
    if hidden:
        ax.scatter([], [], s=40, marker="s", color=_GREY, edgecolor="0.35", label=label)
    else:
        ax.scatter(x, y, s=14, marker="x", color="0.35", lw=0.8, label=label)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, borderpad=0)
