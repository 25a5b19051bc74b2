"""Continuous normalising flows: probability densities that a differential equation transports."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..core.keywords import keywords
from ..core.promotion import as_floating
from ..core.whole_numbers import as_whole
from ..problems import ODEProblem, Problem
from ..problems.base import TimeSpan
from ..solve import solve
from ..validation.options import SolveOption
from ..validation.problem_checks import check_one_key
from ..validation.values import shown
from .layer import Layer, with_method
from .sample import check_instance

__all__ = ["FFJORD", "Regularised"]

_NOISE = {"rademacher": jax.random.rademacher, "gaussian": jax.random.normal}


class Regularised(NamedTuple):
    """The result of `FFJORD.regularised`, each a scalar: log p(x), and two costs along the flow.

    Attributes:
        log_prob: log p(x).
        kinetic: ∫ |f|² dt, which is small where samples move straight and slowly.
        jacobian: ∫ |∂f/∂z|² dt (Frobenius), which is small where neighbours move together.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> shrink = de.nn.FFJORD({"rate": 0.5}, 1, field=lambda net, t, z, args: -net["rate"] * z)
        >>> print(round(float(shrink.regularised(jnp.zeros(1)).jacobian), 2))
        0.25
    """

    log_prob: Array
    kinetic: Array
    jacobian: Array


@runtime_checkable
class Distribution(Protocol):
    """A distribution of samples."""

    def log_prob(self, z: Array) -> Array:
        """The logarithm of the density at z."""
        ...

    def sample(self, key: PRNGKeyArray) -> Array:
        """One draw."""
        ...


class FFJORD(Layer):
    """A continuous normalising flow: z' = net(z) carries a simple density into that of the data.

    A sample of the base is z(t0), and x = z(t1) is one of the flow. Along the way log p changes by
    minus the divergence of the field,

        log p(x) = log p_base(z(t0)) − ∫ tr ∂f/∂z dt,

    so `log_prob` solves backwards from x, and `sample` forwards from the base. One sample; batches
    by `jax.vmap`.

    With a key, the trace is Hutchinson's estimate ε·(∂f/∂z)ε, which costs one product with the
    Jacobian instead of one for each dimension; its mean is the trace. ε is drawn once a solve: what
    is solved is then an ordinary differential equation, with a solution to which adaptive steps can
    converge. Without a key the trace is exact. Train with keys, and judge without.

    Args:
        net: as in `Layer`.
        shape: of one sample: a whole number for a vector, or a tuple.
        tspan: (t0, t1), from the base to the data.
        field: `field(net, t, z, args)`, for what depends on time, or on conditions in args.
        base: what z(t0) is drawn from: anything with `log_prob(z)` and `sample(key)`, such as a
            distribution of NumPyro; what `log_prob` returns is summed. None: independent standard
            normals.
        noise: of ε: "rademacher" (entries ±1, of the least variance) or "gaussian".
        solve_options: `method`, `rtol`, `atol`, … : all that `de.solve` takes.

    Raises:
        TypeError, ValueError: as `Layer`; events; a shape, a noise or a base that is none; x, or
            samples of the base, of another shape; what is no key.

    Reference: grathwohl2019, chen2018.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp, diffeq as de
        >>> net = eqx.nn.MLP(2, 2, 16, 1, jnp.tanh, key=jax.random.key(0))
        >>> flow = de.nn.FFJORD(net, 2)
        >>> samples = jax.vmap(flow.sample)(jax.random.split(jax.random.key(1), 5))
        >>> jax.vmap(flow.log_prob)(samples).shape
        (5,)
    """

    base: Distribution
    event_shape: tuple[int, ...] = eqx.field(static=True)
    noise: str = eqx.field(static=True)

    @keywords
    def __init__(
        self,
        net: PyTree,
        shape: Any,
        *,
        tspan: TimeSpan = (0.0, 1.0),
        field: Callable | None = None,
        base: Any = None,
        noise: str = "rademacher",
        **solve_options: SolveOption,
    ) -> None:
        if "events" in solve_options:
            raise TypeError(
                "FFJORD takes no events: where one ends or changes a solve, what log_prob returns "
                "is no density. Leave events out."
            )
        super().__init__(net, tspan=tspan, field=field, **solve_options)
        if noise not in _NOISE:
            raise ValueError(
                f"noise is {noise!r}; one of {', '.join(map(repr, _NOISE))} is wanted."
            )
        self.event_shape = _sample_shape(shape)
        self.base = StandardNormal(self.event_shape) if base is None else base
        _check_base(self.base, self.event_shape)
        self.noise = noise

    def log_prob(self, x: PyTree, args: PyTree = None, *, key: Any = None) -> Array:
        """The logarithm of the density at x, a scalar: exact up to the tolerance; with a key by
        Hutchinson's estimate.
        """
        return self._backwards(x, args, key, costs=False)[0]

    def regularised(self, x: PyTree, args: PyTree = None, *, key: Any = None) -> Regularised:
        """Returns log p(x) with the costs of Finlay et al. (2020), to add to a loss with a small
        weight.

        With a key, that of the Jacobian is estimated by ∫ |(∂f/∂z)ε|² dt, with the ε of log p(x).

        Reference: finlay2020.
        """
        return Regularised(*self._backwards(x, args, key, costs=True))

    def sample(self, key: Any, args: PyTree = None) -> Array:
        """A sample, an array of the flow's shape."""
        check_one_key(key)
        return self._end(self.problem(self.base.sample(key), args))

    def sample_and_log_prob(
        self,
        key: Any,
        args: PyTree = None,
        *,
        noise_key: Any = None,
    ) -> tuple:
        """(x, log p(x)) from one solve: for losses that are expectations over the flow itself."""
        check_one_key(key)
        z = as_floating(self.base.sample(key))
        start = jnp.sum(self.base.log_prob(z))
        x, change = self._solved(z, args, noise_key, costs=False, backwards=False)
        return x, start + change

    def _backwards(self, x: PyTree, args: PyTree, key: Any, *, costs: bool) -> tuple:
        x = as_floating(x)
        if x.shape != self.event_shape:
            raise ValueError(
                f"x has shape {x.shape}; a sample of this flow has {self.event_shape}. Batches are "
                "jax.vmap of a function of one sample."
            )
        z, change, *spent = self._solved(x, args, key, costs=costs, backwards=True)
        # The costs ran backwards; they are integrals of what is never negative.
        return jnp.sum(self.base.log_prob(z)) - change, *map(jnp.abs, spent)

    def _solved(self, z: Array, args: PyTree, key: Any, *, costs: bool, backwards: bool) -> tuple:
        """(z, ∫ −tr ∂f/∂z dt, costs) at the other end."""
        span = self._span(None)
        if backwards:
            span = _reverse_span(span)
        zero = jnp.zeros((), jnp.finfo(z.dtype).dtype)
        state = (z, zero, zero, zero) if costs else (z, zero)
        if key is not None:
            check_one_key(key)
        noise = None if key is None else _NOISE[self.noise](key, z.shape, z.dtype)
        field = _transport(self._equation(None), noise, costs=costs)
        return self._end(ODEProblem(field, state, span, args))

    def _end(self, problem: Problem) -> PyTree:
        """The state at the end, which alone is of interest."""
        others = ("tspan", "saveat", "save", "dense")
        options = {name: x for name, x in self.options.items() if name not in others}
        return solve(problem, **with_method(problem, options)).y1


def _transport(field: Callable, noise: Array | None, *, costs: bool) -> Callable:
    """The field of (z, log p), and of the two costs after them."""

    def transported(t: Array, state: PyTree, args: PyTree) -> tuple:
        z = state[0]
        if noise is None:
            dz, trace, square = _exact(lambda z: field(t, z, args), z)
        else:
            # Jε rather than εᵀJ, for the cost of the Jacobian, too: both have the mean |J|², and
            # what is differentiated in reverse is better made forwards.
            dz, push = jax.jvp(lambda z: field(t, z, args), (z,), (noise,))
            trace, square = jnp.sum(noise * push), jnp.sum(push**2)
        return (dz, -trace, jnp.sum(dz**2), square) if costs else (dz, -trace)

    return transported


def _exact(field: Callable, z: Array) -> tuple:
    """(f, tr ∂f/∂z, |∂f/∂z|²) from the whole Jacobian."""

    def flat(vector: Array) -> tuple:
        dz = jnp.asarray(field(vector.reshape(z.shape)))
        return dz.ravel(), dz

    jacobian, dz = jax.jacfwd(flat, has_aux=True)(z.ravel())
    return dz, jnp.trace(jacobian), jnp.sum(jacobian**2)


def _check_base(base: Any, shape: tuple[int, ...]) -> None:
    """Refuses what is no distribution, and one whose samples have another shape than the flow's."""
    check_instance("base", base)
    if not isinstance(base, Distribution):
        raise TypeError(
            f"base is {shown(base)}; a distribution with log_prob(z) and sample(key) is wanted."
        )
    drawn = jax.eval_shape(lambda: jnp.asarray(base.sample(jax.random.key(0)))).shape
    if drawn != shape:
        raise ValueError(
            f"base has samples of shape {drawn}, and the flow has shape {shape}: give a base of "
            "samples of that shape."
        )


def _sample_shape(shape: Any) -> tuple[int, ...]:
    """The shape of a sample as a tuple.

    >>> _sample_shape(3)
    (3,)
    """
    sizes = [as_whole(n) for n in (shape if isinstance(shape, (tuple, list)) else (shape,))]
    if not all(n is not None and n > 0 for n in sizes):
        raise TypeError(
            f"shape is {shown(shape)}; that of one sample is wanted, a positive whole number for a "
            "vector, or a tuple of them."
        )
    return tuple(n for n in sizes if n is not None)


def _reverse_span(span: TimeSpan) -> TimeSpan:
    """A time span from its end to its start."""
    if callable(span):
        return lambda args: _reverse_span(span(args))
    return span[1], span[0]


class StandardNormal(eqx.Module):
    """Independent standard normals of a shape.

    >>> round(float(StandardNormal((2,)).log_prob(jnp.zeros(2))), 4)
    -1.8379
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    def log_prob(self, z: Array) -> Array:
        """−|z|²/2 − (n/2) log 2π."""
        return -jnp.sum(z**2) / 2 - math.prod(self.shape) * math.log(2 * math.pi) / 2

    def sample(self, key: PRNGKeyArray) -> Array:
        """One draw."""
        return jax.random.normal(key, self.shape)
