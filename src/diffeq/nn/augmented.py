"""More dimensions than the data have."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core.keywords import keywords
from ..core.whole_numbers import whole_number
from ..problems.base import Problem
from ..solution import Solution
from ..validation.values import shown
from .cde import NeuralCDE
from .layer import Layer

__all__ = ["Augmented"]


class Augmented(eqx.Module):
    """A layer whose state has `extra` more components than the data, which start at zero.

    The flow of an ordinary differential equation never crosses itself: no neural ODE of the plane
    maps a disk inside a ring out of it. With one more dimension there is a way around.

    Args:
        layer: any layer; its network has to take what the state is now.
        extra: how many zeros are appended to the last axis of y0 (of each array in it, where it is
            a tree, such as the pair of `SecondOrder`).
        cut: whether to leave the extra components out of `ys` and `y1`. (`last` and dense output
            keep them.)

    Raises:
        TypeError, ValueError: layer is none that starts at y0; extra is no positive whole number; a
            number in y0, which has no axis;
            cut of a layer that has `save=`.

    Reference: dupont2019.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp, diffeq as de
        >>> net = eqx.nn.MLP(3, 3, 16, 1, key=jax.random.key(0))
        >>> layer = de.nn.Augmented(de.nn.NeuralODE(net, tspan=(0.0, 1.0)), 1)
        >>> layer(jnp.ones(2)).y1.shape
        (3,)
    """

    layer: Layer
    extra: int = eqx.field(static=True)
    cut: bool = eqx.field(static=True)

    @keywords
    def __init__(self, layer: PyTree, extra: Any, *, cut: bool = False) -> None:
        _check_starts_at_y0(layer)
        if cut and layer.options.get("save") is not None:
            raise ValueError("cut=True, and the layer has save=: let save leave out what it wants.")
        self.layer, self.extra, self.cut = layer, whole_number("extra", extra), cut

    @property
    def options(self) -> dict[str, Any]:
        """The time span and what else is given to `de.solve`."""
        return self.layer.options

    def problem(self, y0: PyTree, args: PyTree = None, **call: PyTree) -> Problem:
        """The equation, from the state with its zeros."""
        return self.layer.problem(self._widened(y0), args, **call)

    def __call__(self, y0: PyTree, args: PyTree = None, **call: PyTree) -> Solution:
        """Solves for one sample; keywords as the layer's."""
        sol = self.layer(self._widened(y0), args, **call)
        if not self.cut:
            return sol
        kept = jax.tree.map(lambda x: x[..., : -self.extra], (sol.ys, sol.y1))
        return eqx.tree_at(lambda s: (s.ys, s.y1), sol, kept)

    def _widened(self, y0: PyTree) -> PyTree:
        def longer(x: PyTree) -> PyTree:
            if callable(x):
                return lambda args: self._widened(x(args))
            return self._longer(x)

        return jax.tree.map(longer, y0, is_leaf=callable)

    def _longer(self, x: PyTree) -> PyTree:
        if jnp.ndim(x) == 0:
            raise ValueError(
                f"y0 has the number {x!r} in it; zeros are appended to arrays: write "
                "jnp.array([1.0]) for 1.0."
            )
        return jnp.pad(x, [(0, 0)] * (jnp.ndim(x) - 1) + [(0, self.extra)])


def _check_starts_at_y0(layer: PyTree) -> None:
    """Refuses what is no layer, and the one whose state does not start at what a call gives."""
    if isinstance(layer, NeuralCDE):
        raise TypeError(
            "layer is a NeuralCDE, whose state starts at what its network `initial` returns: make "
            "that and net wider, and leave Augmented out."
        )
    if not isinstance(layer, (Layer, Augmented)):
        raise TypeError(
            f"layer is {shown(layer)}; a layer of diffeq.nn is wanted, with its network inside, "
            "such as NeuralODE(net, tspan=…)."
        )
