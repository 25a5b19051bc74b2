"""Latent stochastic differential equations: irregular series as noisy pictures of a hidden path."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..autodiff.tables import pick_row
from ..core.keywords import keywords
from ..core.whole_numbers import whole_number
from ..interp.base import index_not_after, position
from ..problems import SDEProblem
from ..solution import Solution
from ..solve import solve
from ..validation.options import SolveOption
from ..validation.problem_checks import check_one_key
from ..validation.values import concrete, shown
from .encoders import GRUEncoder, check_encoded
from .latent_ode import check_series_options
from .layer import Frozen, check_options
from .observation import (
    ELBO,
    Gaussian,
    Observation,
    check_decoded,
    decoded_rows,
    mean_loss,
    normal_of,
)
from .time_series import (
    SERIES_PARTS,
    Series,
    check_batch,
    end_of,
    fixed_time,
    from_start,
    nan_before,
    seen_part,
    series_of,
    start_of,
)

__all__ = ["LatentSDE"]


class LatentSDE(eqx.Module):
    """A variational autoencoder of series whose latent state follows an SDE.

        prior:      dz = prior(t, z) dt + diffusion(t, z) dW,          z(t0) ~ p₀,
        posterior:  dz = posterior(t, z, c(t)) dt + diffusion(t, z) dW, z(t0) ~ q₀,

    with rows x_i ~ p(· | decoder(z(t_i))). They share the diffusion, which is diagonal, so that
    their divergence is finite (Girsanov):

        KL = KL(q₀ ‖ p₀) + E_q ∫ ½ |u|² dt,   u = (posterior − prior) / diffusion.

    The integral is one more component of the state, solved with the path. c(t) is the context at
    t: an encoder reads the series from its end, and c is its state there, linear
    between the rows, so that the posterior sees what is still to come.

    Args:
        channels: numbers in a row of a series.
        latent: numbers in z.
        prior: a network or function of (t, z); None: a perceptron of z.
        posterior: of (t, z, c); None: a perceptron of z and c. Without an encoder c is None.
        diffusion: of (t, z), positive, (latent,) numbers; None: for each component a perceptron of
            its own, with values in (0, 1).
        encoder: "gru", or a module `encoder(ts, xs, mask)` that returns a row of `context` numbers
            for each row of the series; it gets times from t0 on, and 0 where nothing was observed.
            None: one series alone is learnt, and q₀ is a normal that is trained itself.
        decoder: a network from z to a row; None: a linear map.
        initial: (mean, standard deviation) of p₀, constants, each a number or (latent,) of them;
            None: trained, N(0, 1) at first.
        context: numbers in c.
        width: of the hidden layers of the perceptrons.
        noise, likelihood: as in `LatentODE`.
        tspan: (t0, t1), between which the divergence is integrated, and in which the times of all
            series are; None: from the first to the last time of each series.
        key: for the weights.
        solve_options: `dt`, `method`, `rtol`, … of `de.solve`. Without `dt` steps are controlled,
            which needs a diffusion whose components each depend on their own component of z.

    A series is as in `LatentODE`.

    Raises:
        TypeError: an option that `de.solve` does not know, or that a call sets.
        ValueError: as `LatentODE`.

    Reference: li2020.

    Example:
        >>> import jax, jax.numpy as jnp, optax, diffeq as de
        >>> ts = jnp.tile(jnp.linspace(0.0, 1.0, 6), (8, 1))
        >>> xs = jnp.sin(ts)[:, :, None]
        >>> model = de.nn.LatentSDE(
        ...     1, 2, context=4, width=8, noise=0.1, dt=0.1, key=jax.random.key(0)
        ... )
        >>> fit = de.fit(
        ...     model, de.nn.LatentSDE.loss, (ts, xs), key=jax.random.key(1),
        ...     optimizer=optax.adam(1e-2), steps=3, progress=False,
        ... )
        >>> key = jax.random.key(2)
        >>> fit.model.predict(jnp.linspace(0.0, 2.0, 9), ts[0], xs[0], key=key).shape
        (9, 1)
    """

    prior: PyTree
    posterior: PyTree
    diffusion: PyTree
    encoder: PyTree
    decoder: PyTree
    head: PyTree  # of q₀: a linear map of a context, or a mean and the logarithm of a deviation
    initial: PyTree
    observation: Observation
    options: Frozen
    tspan: tuple[float, float] | None = eqx.field(static=True)

    @keywords
    def __init__(
        self,
        channels: Any,
        latent: Any,
        *,
        prior: PyTree = None,
        posterior: PyTree = None,
        diffusion: PyTree = None,
        encoder: PyTree = "gru",
        decoder: PyTree = None,
        initial: PyTree = None,
        context: Any = 32,
        width: Any = 32,
        noise: Any = None,
        likelihood: Any = "normal",
        tspan: Any = None,
        key: Any,
        **solve_options: SolveOption,
    ) -> None:
        check_series_options("LatentSDE", solve_options)
        check_options("LatentSDE", solve_options)
        check_one_key(key)
        channels, latent = whole_number("channels", channels), whole_number("latent", latent)
        context, width = whole_number("context", context), whole_number("width", width)
        keys = jax.random.split(key, 6)
        if isinstance(encoder, str) and encoder == "gru":
            encoder = GRUEncoder(channels, context, key=keys[0]).states
        if encoder is not None and not callable(encoder):
            raise ValueError(
                f'encoder is {encoder!r}; "gru", None, or a module encoder(ts, xs, mask) is wanted.'
            )
        seen = 0 if encoder is None else context
        self.prior = _OfState(latent, 0, width, keys[1]) if prior is None else prior
        self.posterior = _OfState(latent, seen, width, keys[2]) if posterior is None else posterior
        self.diffusion = _OfOwnComponent(latent, width, keys[3]) if diffusion is None else diffusion
        self.decoder = eqx.nn.Linear(latent, channels, key=keys[4]) if decoder is None else decoder
        self.encoder = encoder
        self.head = (
            jnp.zeros(2 * latent)
            if encoder is None
            else eqx.nn.Linear(context, 2 * latent, key=keys[5])
        )
        self.initial = (
            jnp.zeros(2 * latent) if initial is None else _checked_initial(initial, latent)
        )
        self.observation = Observation(channels, noise, likelihood)
        self.options = Frozen(solve_options)
        self.tspan = None if tspan is None else _fixed_span(tspan)

    def prior_problem(self, z0: PyTree, tspan: tuple) -> SDEProblem:
        """The prior equation, for `de.solve`."""
        drift = lambda t, z, args: self.prior(t, z)  # noqa: E731
        return SDEProblem(drift, lambda t, z, args: self.diffusion(t, z), z0, tspan)

    def sample(self, key: PRNGKeyArray, at: PyTree) -> Array:
        """The rows at sorted times of a series that is drawn from the prior, without noise. It
        starts at tspan[0], before which rows are NaN, or at the first of the times.
        """
        of_start, of_path = jax.random.split(key)
        at = jnp.asarray(at, jnp.result_type(float))
        t0 = at[0] if self.tspan is None else jnp.asarray(self.tspan[0], at.dtype)
        inside = from_start(at, t0)
        problem = self.prior_problem(self._initial().sample(of_start), (t0, end_of(inside, t0)))
        zs = solve(problem, saveat=inside, key=of_path, **self.options.value).ys
        return nan_before(decoded_rows(self.decoder, at, zs), at, t0)

    def predict(
        self, at: PyTree, ts: PyTree, xs: PyTree, mask: PyTree = None, *, key: PRNGKeyArray
    ) -> Array:
        """The rows at other times, shape (len(at), channels), of a path that is drawn from the
        posterior of one series; behind its end the path follows the prior.

        Args:
            at: sorted times, from t0 on. Rows before it are NaN.
            ts, xs, mask: the series.
            key: that of the path. The mean over many keys is that of the posterior.
        """
        series, (t0, t1) = self._series(ts, xs, mask)
        at = jnp.asarray(at, series.times.dtype)
        inside = from_start(at, t0)
        of_start, of_path = jax.random.split(key)
        context, start = self._read(series, t0)

        def drift(t: Array, z: Array, context: PyTree) -> Array:
            given = self.posterior(t, z, None if context is None else context(t))
            return jnp.where(t < t1, given, self.prior(t, z))

        problem = SDEProblem(
            drift,
            lambda t, z, context: self.diffusion(t, z),
            start.sample(of_start),
            (t0, end_of(inside, t0)),
            context,
        )
        options = {"saveat": inside, "stops": t1[None], **self.options.value}
        decoded = decoded_rows(self.decoder, at, solve(problem, key=of_path, **options).ys)
        check_decoded(decoded, series)
        return nan_before(decoded, at, t0)

    def elbo(
        self,
        ts: PyTree,
        xs: PyTree,
        mask: PyTree = None,
        given: PyTree = None,
        *,
        key: PRNGKeyArray,
    ) -> ELBO:
        """The lower bound of log p(x) of one series, with one path: its two parts.

        Args:
            ts, xs, mask: the series.
            given: what the encoder sees of it, in the form of a mask; None: all.
            key: that of the path. The bound is the mean over keys.
        """
        series, (t0, t1) = self._series(ts, xs, mask)
        of_start, of_path = jax.random.split(key)
        context, start = self._read(seen_part(series, given), t0)
        sol = self._path(start.sample(of_start), (t0, t1), series.times, context, of_path)
        decoded = jax.vmap(self.decoder)(sol.ys)
        divergence = start.kl(self._initial()) + sol.y1["kl"]
        return ELBO(self.observation.log_likelihood(series, decoded), divergence)

    def loss(self, batch: PyTree, key: PRNGKeyArray, *, kl_weight: ArrayLike = 1.0) -> Array:
        """The loss −log p(x | z) + kl_weight · KL, the mean over a batch: for `de.fit`,
        as `LatentSDE.loss`. Its arguments are those of `LatentODE.loss`.
        """
        batch = check_batch(batch, SERIES_PARTS, *(self.tspan or ()))
        return mean_loss(self.elbo, batch, key, kl_weight)

    def _path(
        self, z0: Array, tspan: tuple, saveat: Array, context: PyTree, key: PRNGKeyArray
    ) -> Solution:
        """A path of the posterior; at its end, `kl` is ∫ ½ |u|² dt."""

        def drift(t: Array, state: dict, context: PyTree) -> dict:
            z = state["z"]
            slope = self.posterior(t, z, None if context is None else context(t))
            u = (slope - self.prior(t, z)) / self.diffusion(t, z)
            return {"kl": jnp.sum(u**2) / 2, "z": slope}

        def diffusion(t: Array, state: dict, context: PyTree) -> dict:
            del context
            return {"kl": jnp.zeros_like(state["kl"]), "z": self.diffusion(t, state["z"])}

        start = {"kl": jnp.zeros((), z0.dtype), "z": z0}
        problem = SDEProblem(drift, diffusion, start, tspan, context)
        rows = {"saveat": saveat, "save": lambda t, state, context: state["z"]}
        return solve(problem, key=key, **rows, **self.options.value)

    def _read(self, series: Series, t0: Array) -> tuple[PyTree, Gaussian]:
        """The context as a function of t (or None), and q₀."""
        if self.encoder is None:
            return None, normal_of(self.head)
        states = self.encoder(series.times - t0, series.values, series.mask)
        check_encoded(states, (len(series.times), *self.head.weight.shape[1:]), "context")
        return _Context(series.times, states), normal_of(self.head(states[0]))

    def _initial(self) -> Gaussian:
        """p₀."""
        if isinstance(self.initial, Frozen):
            return Gaussian(*map(jnp.asarray, self.initial.value))
        return normal_of(self.initial)

    def _series(self, ts: PyTree, xs: PyTree, mask: PyTree) -> tuple[Series, tuple[Array, Array]]:
        """A series, and the interval of the divergence."""
        t0, t1 = self.tspan or (None, None)
        series = series_of(ts, xs, mask, t0, t1)
        last = series.last if t1 is None else jnp.asarray(t1, series.times.dtype)
        return series, (start_of(series, t0), last)


def _fixed_span(tspan: PyTree) -> tuple[float, float]:
    """The interval of the divergence."""
    try:
        t0, t1 = tspan
    except (TypeError, ValueError) as error:
        raise TypeError(f"tspan is {shown(tspan)}; (t0, t1) is wanted, or None.") from error
    return fixed_time("tspan[0]", t0), fixed_time("tspan[1]", t1)


def _checked_initial(initial: PyTree, latent: int) -> Frozen:
    """The mean and the standard deviation of p₀, of each component."""
    wanted = f"a mean and a positive standard deviation, numbers or ({latent},) of them, are wanted"
    try:
        mean, std = initial
    except (TypeError, ValueError) as error:
        raise TypeError(f"initial is {shown(initial)}; {wanted}.") from error
    known = concrete((mean, std))
    mean, std = ((np if known else jnp).asarray(x, float) for x in (mean, std))
    if any(x.shape not in ((), (1,), (latent,)) for x in (mean, std)):
        raise ValueError(f"initial has parts of shape {mean.shape} and {std.shape}; {wanted}.")
    if known and not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ValueError(f"initial is {shown(initial)}; {wanted}.")
    dtype = jnp.result_type(float)
    return Frozen(tuple(jnp.broadcast_to(jnp.asarray(x, dtype), (latent,)) for x in (mean, std)))


class _Context(eqx.Module):
    """The states of an encoder as a function of t: linear between the rows, constant outside."""

    times: Float[Array, " n"]
    states: Float[Array, "n context"]

    def __call__(self, t: Array) -> Array:
        i = index_not_after(self.times, t)
        j = jnp.minimum(i + 1, len(self.times) - 1)
        start, end = self.times[i], self.times[j]
        share = position(t, start, jnp.where(end > start, end, start + 1))
        here, there = pick_row(self.states, i), pick_row(self.states, j)
        return here + share * (there - here)


class _OfState(eqx.Module):
    """A perceptron of the state and the context."""

    net: eqx.nn.MLP

    def __init__(self, latent: int, context: int, width: int, key: PRNGKeyArray) -> None:
        self.net = eqx.nn.MLP(latent + context, latent, width, 2, jax.nn.softplus, key=key)

    def __call__(self, t: Array, z: Array, c: Array | None = None) -> Array:
        return self.net(z if c is None else jnp.concatenate([z, c]))


class _OfOwnComponent(eqx.Module):
    """For each component a perceptron of its own, with a hidden layer and values in (0, 1)."""

    scales: Float[Array, "latent width"]
    shifts: Float[Array, "latent width"]
    weights: Float[Array, "latent width"]
    biases: Float[Array, " latent"]

    def __init__(self, latent: int, width: int, key: PRNGKeyArray) -> None:
        of_scales, of_shifts, of_weights = jax.random.split(key, 3)
        draw = lambda key, bound: jax.random.uniform(key, (latent, width), float, -bound, bound)  # noqa: E731
        self.scales, self.shifts = draw(of_scales, 1.0), draw(of_shifts, 1.0)
        self.weights = draw(of_weights, 1 / math.sqrt(width))
        self.biases = jnp.zeros(latent)

    def __call__(self, t: Array, z: Array) -> Array:
        inner = jax.nn.softplus(self.scales * z[:, None] + self.shifts)
        return jax.nn.sigmoid(jnp.sum(self.weights * inner, axis=1) + self.biases)
