"""Stochastic differential equations: dy = drift(t, y, args) dt + diffusion(t, y, args) dW."""

from collections.abc import Callable, Hashable
from typing import ClassVar, TypeVar

from jaxtyping import PyTree

from ..core.packing import as_state
from .base import Problem, TimeSpan

__all__ = ["Noisy", "SDEProblem"]

_NOISES = ("diagonal", "scalar", "general")
_INTERPRETATIONS = ("ito", "stratonovich")
N = TypeVar("N", bound="Noisy")


class Noisy(Problem):
    """The base of problems with noise: words for its kind and for its integral, which are checked,
    and a flag.
    """

    stochastic: ClassVar[bool] = True
    additive: bool

    def replace(self: N, **changes: PyTree) -> N:
        """Returns the problem with other fields; unknown names and words are refused."""
        other = super().replace(**changes)
        other._check_words()
        return other

    def _flatten(self) -> tuple[list, Hashable]:
        # A flag among its fields would be traced like a number: a word takes its place.
        return Problem._flatten(self.replace(additive="yes" if self.additive else ""))

    def _check_words(self) -> None:
        for name, words in (("noise", _NOISES), ("interpretation", _INTERPRETATIONS)):
            word = getattr(self, name)
            if word not in words:
                known = ", ".join(map(repr, words))
                raise ValueError(f"{name} is {word!r}; one of {known} is wanted.")


class SDEProblem(Noisy):
    """dy = drift(t, y, args) dt + diffusion(t, y, args) dW on tspan, y(tspan[0]) = y0.

    W are independent Brownian motions. `solve` draws them from its `key=`: one key is one path.

    | `noise` | `diffusion` returns | W |
    |---|---|---|
    | "diagonal" | the tree and the shapes of y | one for each number in y |
    | "scalar" | the tree and the shapes of y | one for all |
    | "general" | each leaf of y with one more axis at the end, of length m | m |

    Correlated noise is general: the columns of a Cholesky factor of its covariance. Methods of
    order above 1/2 take diagonal noise whose every component depends on its own component of y
    (and on t and args), and refuse other.

    Args:
        drift: `drift(t, y, args)`, as the field of an `ODEProblem`; in units of y over units of t.
        diffusion: `diffusion(t, y, args)`; in units of y over the root of the unit of t.
        y0: the initial state: any pytree of arrays and numbers; or a function of args.
        tspan: (t0, t1) with t0 < t1; or a function of args, or a pair with one.
        args: parameters, any pytree; networks are fine, in args or inside the functions.
        noise: "diagonal", "scalar" or "general".
        additive: declares that the diffusion depends on t and args only, and has that checked.
            Methods for additive noise find it out by themselves.
        interpretation: "ito" or "stratonovich". A method of the other kind solves the equation
            with its drift converted by ½ Σ_j (∂g_j/∂y) g_j.

    Raises:
        ValueError: noise or interpretation is another word.
        TypeError: (by `solve`) drift does not fit y; diffusion does not fit y and `noise`, or uses
            y though it was declared additive.

    Reference: kloeden1992.

    Example:
        Geometric Brownian motion, and the mean over 1,000 paths:

        >>> import jax, jax.numpy as jnp, diffeq as de
        >>> growth = de.SDEProblem(
        ...     lambda t, y, a: 0.5 * y, lambda t, y, a: 0.2 * y, 1.0, (0.0, 1.0)
        ... )
        >>> end = lambda key: de.solve(growth, de.EulerMaruyama(), dt=0.01, key=key).y1
        >>> ends = jax.vmap(end)(jax.random.split(jax.random.key(0), 1000))
        >>> bool(abs(jnp.mean(ends) - jnp.exp(0.5)) < 0.05)
        True
    """

    explicit_function: ClassVar[str] = "drift"
    fields = (
        "drift",
        "diffusion",
        "y0",
        "tspan",
        "args",
        "noise",
        "additive",
        "interpretation",
    )
    functions: ClassVar[dict[str, str]] = {"drift": "t, y, args", "diffusion": "t, y, args"}

    def __init__(
        self,
        drift: Callable,
        diffusion: Callable,
        y0: PyTree,
        tspan: TimeSpan,
        args: PyTree = None,
        *,
        noise: str = "diagonal",
        additive: bool = False,
        interpretation: str = "ito",
    ) -> None:
        self.drift, self.diffusion = drift, diffusion
        self.y0, self.tspan, self.args = as_state(y0), tspan, args
        self.noise, self.additive, self.interpretation = noise, bool(additive), interpretation
        self._check_words()
