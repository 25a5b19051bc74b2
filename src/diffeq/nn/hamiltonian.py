"""Hamilton's equations with a network for the energy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..core.keywords import keywords
from ..core.promotion import as_floating
from ..problems import HamiltonianProblem, Separable
from ..problems.base import TimeSpan
from ..validation.options import SolveOption
from .layer import Layer
from .second_order import pair

__all__ = ["HamiltonianNN"]


class HamiltonianNN(Layer):
    """q' = ∂H/∂p, p' = −∂H/∂q, with a network for the energy H(q, p).

    Whatever the network says, its energy is kept along a solution, up to the error of the method;
    a symplectic method keeps the error bounded over very long times. Its state is the pair (q, p).

    Args:
        net: a network of one vector, that of q joined with that of p, which returns one number. Or
            a pair of networks (kinetic, potential), of p and of q: then H = kinetic(p) +
            potential(q) is separable, which symplectic methods ask for.
        tspan: (t0, t1), or a function of args; a call may give another.
        hamiltonian: `hamiltonian(net, t, q, p, args)`, one number, where the energy is not
            net(q, p) alone. Or `de.Separable` of `kinetic(net, t, p, args)` and
            `potential(net, t, q, args)`.
        solve_options: `method`, `saveat`, `rtol`, … : all that `de.solve` takes.

    Where momenta and their rates of change were measured, `derivative` can be fitted to them
    without any solve, as Greydanus et al. do.

    Raises:
        TypeError: as `Layer`; y0 is no pair; the energy is more than one number.

    Reference: greydanus2019.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp, diffeq as de
        >>> keys = jax.random.split(jax.random.key(0))
        >>> nets = [eqx.nn.MLP(1, "scalar", 8, 1, jnp.tanh, key=key) for key in keys]
        >>> layer = de.nn.HamiltonianNN(
        ...     nets, tspan=(0.0, 10.0), method=de.VelocityVerlet(), dt=0.01
        ... )
        >>> y0 = (jnp.ones(1), jnp.zeros(1))
        >>> bool(abs(layer.energy(layer(y0).y1) - layer.energy(y0)) < 1e-4)
        True
    """

    @keywords
    def __init__(
        self,
        net: PyTree,
        *,
        tspan: TimeSpan = None,
        hamiltonian: Callable | Separable | None = None,
        **solve_options: SolveOption,
    ) -> None:
        if hamiltonian is None and isinstance(net, (tuple, list)):
            pair(net, "(kinetic, potential) of networks", "net")
            hamiltonian = Separable(
                lambda nets, t, p, args: nets[0](_flat_pair(p)),
                lambda nets, t, q, args: nets[1](_flat_pair(q)),
            )
        super().__init__(net, tspan=tspan, field=hamiltonian, **solve_options)

    def problem(
        self,
        y0: PyTree,
        args: PyTree = None,
        *,
        tspan: TimeSpan = None,
        key: PRNGKeyArray | None = None,
    ) -> HamiltonianProblem:
        """The equation, for `de.solve` and all else that takes a problem."""
        q0, p0 = pair(y0, "(q0, p0)")
        return HamiltonianProblem(self._equation(key), q0, p0, self._span(tspan), args)

    def energy(self, y: PyTree, args: PyTree = None, *, t: ArrayLike = 0.0) -> Array:
        """H at y = (q, p), a scalar."""
        q, p = pair(y, "(q, p)", "y")
        return self._equation(None)(t, q, p, args)

    def derivative(self, y: PyTree, args: PyTree = None, *, t: ArrayLike = 0.0) -> PyTree:
        """(∂H/∂p, −∂H/∂q) at y = (q, p): the field of the equation."""
        q, p = jax.tree.map(as_floating, pair(y, "(q, p)", "y"))
        of_q, of_p = jax.grad(self._equation(None), argnums=(1, 2))(t, q, p, args)
        return of_p, jax.tree.map(jnp.negative, of_q)

    def _equation(self, key: PRNGKeyArray | None) -> Callable:
        if isinstance(self.field, Separable):
            if key is not None:
                raise TypeError("key was given, but the parts of a separable energy take none.")
            net, parts = self.net, self.field
            kinetic, potential = parts.kinetic, parts.potential
            return Separable(
                lambda t, p, args: _number(kinetic(net, t, p, args)),
                lambda t, q, args: _number(potential(net, t, q, args)),
            )
        call = self._function(key)
        if self.field is None:
            return lambda t, q, p, args: _number(call(_flat_pair(q, p)))
        return lambda t, q, p, args: _number(call(t, q, p, args))


def _flat_pair(*parts: PyTree) -> PyTree:
    """All numbers of q and p as one vector."""
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(parts)])


def _number(energy: Array) -> Array:
    """An energy as a scalar: layers of many libraries return vectors, of length 1 here."""
    if jnp.size(energy) != 1:
        raise TypeError(f"the energy has shape {jnp.shape(energy)}; one number is wanted.")
    return jnp.reshape(energy, ())
