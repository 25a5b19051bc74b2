"""Latent ordinary differential equations: irregular series as noisy pictures of a hidden ODE."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core.keywords import keywords
from ..core.promotion import floating_dtype
from ..core.whole_numbers import whole_number
from ..validation.options import SolveOption
from ..validation.problem_checks import check_one_key
from .encoders import check_encoded, made_encoder
from .layer import Layer
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

__all__ = ["LatentODE", "check_series_options"]

_SET_BY_CALL = ("tspan", "saveat", "save", "dense", "events")


class LatentODE(eqx.Module):
    """A variational autoencoder of series whose latent state follows an ODE.

        z(t0) ~ N(0, 1),   z' = net(z),   x_i ~ p(· | decoder(z(t_i))).

    An encoder reads what was observed and returns a normal q(z(t0) | x), and what is trained is the
    lower bound E_q log p(x | z) − KL(q ‖ N(0, 1)) of log p(x). Series are irregular: each has times
    of its own, any of its numbers may be missing, and NaN at the end of its times is padding.
    Between the times of a series and after them, `predict` is an interpolation and an
    extrapolation.

    Args:
        channels: numbers in a row of a series.
        latent: numbers in z.
        encoder: "gru" (a GRU from the last row to the first), "ode_rnn" (it follows an ODE between
            the rows), "attention" (over the pairs (t, x)), or a module `encoder(ts, xs, mask)`
            that returns `hidden` numbers; it gets times from t0 on, and 0 where nothing was
            observed.
        net: z' as in `Layer`; None: a perceptron with two hidden layers of `width`.
        field: `field(net, t, z, args)`, as in `Layer`.
        decoder: a network from z to a row; None: a perceptron with a hidden layer of `width`.
        hidden: numbers that the encoder returns.
        width: see net and decoder.
        noise: the standard deviation of what is observed (of "laplace" its scale); None: one for
            each channel, trained, 1 at first.
        likelihood: "normal", "laplace", or `log_density(x, decoded, scale)` of arrays of one shape.
        t0: the time of the latent state, not after the first time of any series; None: the first
            time of each series.
        key: for the weights.
        solve_options: `method`, `rtol`, `dt`, … of `de.solve`.

    A series is `ts`, sorted, shape (n,), `xs`, shape (n, channels), and `mask`, of the shape of xs
    or (n,), True where something was observed; None: where xs is not NaN. Batches are `jax.vmap`,
    or `loss`.

    Raises:
        TypeError: an option that `de.solve` does not know, or that a call sets; a size that is no
            positive whole number; t0 that is no number; key that is none.
        ValueError: times that decrease; a mask of another shape; NaN where the mask is True; a
            word that is none of those above; a decoder whose rows are no rows of xs.

    Reference: chen2018; rubanova2019.

    Example:
        >>> import jax, jax.numpy as jnp, optax, diffeq as de
        >>> ts = jnp.tile(jnp.linspace(0.0, 1.0, 6), (8, 1))
        >>> xs = jnp.stack([jnp.sin(ts), jnp.cos(ts)], axis=2)
        >>> model = de.nn.LatentODE(2, 3, hidden=8, width=8, noise=0.1, key=jax.random.key(0))
        >>> fit = de.fit(
        ...     model, de.nn.LatentODE.loss, (ts, xs), key=jax.random.key(1),
        ...     optimizer=optax.adam(1e-2), steps=3, progress=False,
        ... )
        >>> fit.model.predict(jnp.linspace(0.0, 2.0, 9), ts[0], xs[0]).shape
        (9, 2)
    """

    layer: Layer
    encoder: PyTree
    head: eqx.nn.Linear
    decoder: PyTree
    observation: Observation
    t0: float | None = eqx.field(static=True)

    @keywords
    def __init__(
        self,
        channels: Any,
        latent: Any,
        *,
        encoder: PyTree = "gru",
        net: PyTree = None,
        field: Callable | None = None,
        decoder: PyTree = None,
        hidden: Any = 32,
        width: Any = 32,
        noise: Any = None,
        likelihood: Any = "normal",
        t0: Any = None,
        key: Any,
        **solve_options: SolveOption,
    ) -> None:
        check_series_options("LatentODE", solve_options)
        check_one_key(key)
        channels, latent = whole_number("channels", channels), whole_number("latent", latent)
        hidden, width = whole_number("hidden", hidden), whole_number("width", width)
        keys = jax.random.split(key, 4)
        if net is None:
            net = eqx.nn.MLP(latent, latent, width, 2, jnp.tanh, key=keys[0])
        if decoder is None:
            decoder = eqx.nn.MLP(latent, channels, width, 1, jax.nn.softplus, key=keys[1])
        self.layer = Layer(net, field=field, **solve_options)
        self.encoder = made_encoder(encoder, channels, hidden, keys[2])
        self.head = eqx.nn.Linear(hidden, 2 * latent, key=keys[3])
        self.decoder = decoder
        self.observation = Observation(channels, noise, likelihood)
        self.t0 = None if t0 is None else fixed_time("t0", t0)

    def posterior(self, ts: PyTree, xs: PyTree, mask: PyTree = None) -> Gaussian:
        """q(z(t0) | x) of one series: its mean and standard deviation, each (latent,)."""
        series = series_of(ts, xs, mask, self.t0)
        return self._posterior(series, start_of(series, self.t0))

    def decode(self, z: Float[Array, " latent"], at: PyTree, t0: ArrayLike) -> Array:
        """The rows at sorted times, shape (len(at), channels), of the latent state z at t0. Times
        before t0 are in falling order. Rows at NaN, which is padding, are those of z = 0.
        """
        at = jnp.asarray(at, floating_dtype(z))
        zs = self.layer(z, tspan=(t0, end_of(at, t0)), saveat=at).ys
        return decoded_rows(self.decoder, at, zs)

    def predict(
        self,
        at: PyTree,
        ts: PyTree,
        xs: PyTree,
        mask: PyTree = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Array:
        """The rows at other times, from t0 on, of one series: shape (len(at), channels).

        Args:
            at: sorted times; between those of the series, or behind them. Rows before t0 are NaN.
            ts, xs, mask: the series.
            key: for a draw of z(t0) from its posterior; None: its mean.
        """
        series = series_of(ts, xs, mask, self.t0)
        t0 = start_of(series, self.t0)
        posterior = self._posterior(series, t0)
        z = posterior.mean if key is None else posterior.sample(key)
        at = jnp.asarray(at, series.times.dtype)
        decoded = self.decode(z, from_start(at, t0), t0)
        check_decoded(decoded, series)
        return nan_before(decoded, at, t0)

    def sample(self, key: PRNGKeyArray, at: PyTree) -> Array:
        """The rows at sorted times of a series that is drawn from the prior, without noise. t0 is
        that of the model, or the first of the times.
        """
        at = jnp.asarray(at)
        latent = self.head.out_features // 2  # pyright: ignore[reportOperatorIssue]
        z = jax.random.normal(key, (latent,), self.head.weight.dtype)
        return self.decode(z, at, at[0] if self.t0 is None else self.t0)

    def elbo(
        self,
        ts: PyTree,
        xs: PyTree,
        mask: PyTree = None,
        given: PyTree = None,
        *,
        key: PRNGKeyArray,
    ) -> ELBO:
        """The lower bound of log p(x) of one series, with one draw of z(t0): its two parts.

        Args:
            ts, xs, mask: the series.
            given: what the encoder sees of it, in the form of a mask; None: all. The likelihood is
                that of the whole series, so a model that is given the first half learns to
                extrapolate, and one that is given some of the rows to interpolate.
            key: for the draw.
        """
        series = series_of(ts, xs, mask, self.t0)
        t0 = start_of(series, self.t0)
        posterior = self._posterior(seen_part(series, given), t0)
        decoded = self.decode(posterior.sample(key), series.times, t0)
        prior = Gaussian(jnp.zeros_like(posterior.mean), jnp.ones_like(posterior.std))
        return ELBO(self.observation.log_likelihood(series, decoded), posterior.kl(prior))

    def loss(self, batch: PyTree, key: PRNGKeyArray, *, kl_weight: ArrayLike = 1.0) -> Array:
        """The loss −log p(x | z) + kl_weight · KL, the mean over a batch: for `de.fit`,
        as `LatentODE.loss`.

        Args:
            batch: (ts, xs), (ts, xs, mask) or (ts, xs, mask, given), where None is left out, or a
                dictionary with these names; arrays with the series along their first axes.
            key: for the draws.
            kl_weight: less than 1 at the start of a training keeps the posterior from the prior.
        """
        return mean_loss(self.elbo, check_batch(batch, SERIES_PARTS, self.t0), key, kl_weight)

    def _posterior(self, series: Series, t0: Array) -> Gaussian:
        vector = self.encoder(series.times - t0, series.values, series.mask)
        check_encoded(vector, self.head.weight.shape[1:], "hidden")
        return normal_of(self.head(vector))


def check_series_options(name: str, options: dict[str, SolveOption]) -> None:
    """Refuses options of a solve that the calls of a model of series set."""
    for option in options:
        if option in _SET_BY_CALL:
            raise TypeError(f"{name} sets {option} itself, by the times of each series.")
