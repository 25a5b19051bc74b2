"""Neural stochastic differential equations."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..core.keywords import keywords
from ..core.whole_numbers import as_whole
from ..problems import SDEProblem
from ..problems.base import TimeSpan
from ..solution import Solution
from ..solve import solve
from ..validation.options import SaveTimes, SolveOption
from ..validation.values import shown
from .layer import Layer
from .sample import check_instance, for_one_sample

__all__ = ["NeuralSDE"]


class NeuralSDE(Layer):
    """dy = drift(y) dt + diffusion(y) dW with networks in it: both are trained.

    Args:
        drift: a network, or anything callable; or, with `field`, any pytree of parameters.
        diffusion: the same for the noise; a function without parameters is a diffusion that is
            known.
        tspan: (t0, t1), or a function of args; a call may give another.
        field: `field(drift, t, y, args) -> dy`; by default `drift(y)`.
        diffusion_field: `diffusion_field(diffusion, t, y, args)`; by default `diffusion(y)`.
        noise: "diagonal", "scalar" or "general", with what `diffusion` returns as in
            `de.SDEProblem`; or a number m: m Brownian motions, with the network's values as the
            rows of a matrix (…, m), for a network whose output is one vector.
        interpretation: "ito" or "stratonovich".
        solve_options: `method`, `saveat`, `dt`, … : all that `de.solve` takes. A network whose
            every value depends on all of y makes noise for which steps have to be given, by `dt`.

    A call draws one path by its key; batches and ensembles of paths by `jax.vmap`.

    Raises:
        TypeError: an option that `de.solve` does not know; a noise that is no word and no number of
            motions, or for which the network gives more or fewer numbers; no key.

    Reference: rackauckas2019.

    Example:
        Ten paths of a diagonal one, and their mean:

        >>> import equinox as eqx, jax, jax.numpy as jnp, diffeq as de
        >>> key = jax.random.key(0)
        >>> layer = de.nn.NeuralSDE(
        ...     eqx.nn.MLP(2, 2, 16, 1, jnp.tanh, key=key), eqx.nn.Linear(2, 2, key=key),
        ...     tspan=(0.0, 1.0), saveat=jnp.linspace(0.0, 1.0, 5), dt=0.05,
        ... )
        >>> paths = jax.vmap(lambda key: layer(jnp.ones(2), key=key).ys)(jax.random.split(key, 10))
        >>> paths.mean(0).shape
        (5, 2)
    """

    diffusion: PyTree
    diffusion_field: PyTree
    noise: Any = eqx.field(static=True)
    interpretation: str = eqx.field(static=True)

    @keywords
    def __init__(
        self,
        drift: PyTree,
        diffusion: PyTree,
        *,
        tspan: TimeSpan = None,
        field: Callable | None = None,
        diffusion_field: Callable | None = None,
        noise: Any = "diagonal",
        interpretation: str = "ito",
        **solve_options: SolveOption,
    ) -> None:
        super().__init__(drift, tspan=tspan, field=field, **solve_options)
        check_instance("diffusion", diffusion)
        if diffusion_field is None and not callable(diffusion):
            raise TypeError(
                f"diffusion is a {type(diffusion).__name__}, which is not callable: say how it "
                "enters the equation with diffusion_field=lambda diffusion, t, y, args: …"
            )
        self.diffusion, self.diffusion_field = diffusion, diffusion_field
        self.noise = noise if isinstance(noise, str) else _count_motions(noise)
        self.interpretation = interpretation

    def problem(
        self,
        y0: PyTree,
        args: PyTree = None,
        *,
        tspan: TimeSpan = None,
        key: PRNGKeyArray | None = None,
    ) -> SDEProblem:
        """The equation, for `de.solve` and all else that takes a problem."""
        del key
        drift: Any = super().problem(y0, args, tspan=tspan)
        noise = "general" if isinstance(self.noise, int) else self.noise
        return SDEProblem(
            drift.f,
            self._diffusion(),
            y0,
            drift.tspan,
            args,
            noise=noise,
            interpretation=self.interpretation,
        )

    def _diffusion(self) -> Callable:
        net, field, count = self.diffusion, self.diffusion_field, self.noise
        one = for_one_sample(net if field is None else partial(field, net), type(self).__name__)
        value = one if field is not None else lambda t, y, args: one(y)
        if not isinstance(count, int):
            return value
        columns = partial(_as_columns, count=count)
        return lambda t, y, args: jax.tree.map(columns, value(t, y, args), y)

    def __call__(
        self,
        y0: PyTree,
        args: PyTree = None,
        *,
        tspan: TimeSpan = None,
        saveat: SaveTimes = None,
        key: PRNGKeyArray | None = None,
    ) -> Solution:
        """Solves for one path.

        Args:
            y0: the initial state.
            args: what the fields get as args.
            tspan: another time span than the layer's.
            saveat: other save times.
            key: that of the path. One key is one path.
        """
        options = self.options
        del options["tspan"]
        if saveat is not None:
            options["saveat"] = saveat
        return solve(self.problem(y0, args, tspan=tspan), key=key, **options)


def _count_motions(noise: Any) -> int:
    """A number of Brownian motions."""
    count = as_whole(noise)
    if count is None or count < 1:
        raise TypeError(
            f"noise is {shown(noise)}; 'diagonal', 'scalar', 'general', or a positive whole number "
            "of Brownian motions is wanted."
        )
    return count


def _as_columns(g: PyTree, y: PyTree, count: int) -> Array:
    """The numbers of a network as the columns of so many Brownian motions."""
    if jnp.size(g) != jnp.size(y) * count:
        raise TypeError(
            f"diffusion returned shape {jnp.shape(g)} for a state of shape {jnp.shape(y)}; with "
            f"noise={count} it is to return {jnp.size(y) * count} numbers, {count} for each of the "
            "state's."
        )
    return jnp.reshape(g, (*jnp.shape(y), count))
