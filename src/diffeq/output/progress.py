"""A bar that shows how far a solve is, also inside jit and under vmap (the slowest lane)."""

from collections.abc import Callable, Sequence
from typing import Any, SupportsInt

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from ..autodiff.jax_internals import ShapedArray, define

__all__ = ["Meter"]


class Meter:
    """Draws a tqdm bar; called on the host with a percentage whenever that has grown."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.at = 0

    def __call__(self, percent: SupportsInt) -> None:
        """Moves the bar; a smaller percentage begins another solve."""
        from tqdm.auto import tqdm

        percent = int(percent)
        if self.bar is None or percent < self.at:
            self.close()
            self.bar = tqdm(total=100, desc="solve", unit="%", leave=True)
            self.at = 0
        self.bar.update(percent - self.at)
        self.at = percent
        if percent >= 100:
            self.close()

    def close(self) -> None:
        """Ends the bar."""
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def report(self, percent: Int[Array, ""], shown: Int[Array, ""]) -> Array:
        """Shows `percent` if it is more than was `shown`; returns what is shown now."""
        return report_p.bind(percent, shown, tell=self)[0]


def _implementation(percent: Int[Array, ""], shown: Int[Array, ""], *, tell: Callable) -> list:
    lax.cond(percent > shown, lambda: jax.debug.callback(tell, percent), lambda: None)
    return [jnp.maximum(percent, shown)]


def _abstract(percent: ShapedArray, shown: ShapedArray, *, tell: Callable) -> list:
    del percent, tell
    return [ShapedArray(shown.shape, shown.dtype)]


def _batch(size: int, xs: Sequence, axes: Sequence, *, tell: Callable) -> tuple[list, list]:
    del size
    slowest = xs[0] if axes[0] is None else jnp.min(xs[0], axis=axes[0])
    return report_p.bind(slowest, xs[1], tell=tell), [None]


report_p = define(
    "report",
    _implementation,
    _abstract,
    batch=_batch,
    dependence=lambda flags, tell: [False],  # all lanes share one bar
)
