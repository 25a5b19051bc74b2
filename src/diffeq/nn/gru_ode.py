"""GRU-ODE-Bayes: a forecast that follows an ODE between observations, and changes at each."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..core.keywords import keywords
from ..core.whole_numbers import whole_number
from ..events import PresetTimes
from ..problems import ODEProblem
from ..solution import Solution
from ..solve import solve
from ..validation.options import SolveOption
from ..validation.problem_checks import check_one_key
from .latent_ode import check_series_options
from .layer import Frozen, check_options, with_method
from .observation import Gaussian, normal_log_density, positive
from .time_series import (
    Series,
    check_batch,
    check_channels,
    end_of,
    fixed_time,
    from_start,
    nan_before,
    series_of,
    start_of,
)

__all__ = ["GRUODE", "Filtered"]


class Filtered(NamedTuple):
    """The forecasts of one series at its own times, as normals (n, channels).

    Attributes:
        before: of each row, from the rows before it.
        after: of each row, when it has been observed.
        series: the series, with zeros where nothing was observed.

    Example:
        >>> import jax, jax.numpy as jnp, diffeq as de
        >>> model = de.nn.GRUODE(1, 4, width=8, key=jax.random.key(0))
        >>> model.filter(jnp.arange(3.0), jnp.ones((3, 1))).before.mean.shape
        (3, 1)
    """

    before: Gaussian
    after: Gaussian
    series: Series


class GRUODE(eqx.Module):
    """A state h that follows a continuous GRU between observations, and changes at each of them.

        h' = (1 − u) ⊙ (g − h),   u = σ(W_u p + U_u h + b_u),   r = σ(W_r p + U_r h + b_r),
                                  g = tanh(W_g p + U_g (r ⊙ h) + b_g),

    Here p = (mean, log variance) is the forecast of x at h. h stays in [−1, 1]. At an observation h
    becomes GRU(h, relu(A [x, mean, log variance, error] + a)), of the channels that were observed.
    Each series is one solve, whose steps end at its own times; under `jax.vmap` each of a batch has
    its own.

    It is trained to forecast each row from those before it, and to believe what it has seen:

        loss = −Σ log N(x; before) + mixing · Σ KL(N_bayes ‖ after),

    with sums over what was observed, and N_bayes ∝ before · N(x, noise²).

    Args:
        channels: numbers in a row of a series.
        hidden: numbers in h.
        width: of the hidden layer of the forecast.
        prepared: numbers that are made of each channel before the GRU.
        mixing: the weight of the second sum.
        noise: the standard deviation of an observation, in the second sum.
        t0: the time at which h is its (trained) initial value, not after the first time of any
            series; None: the first time of each series.
        key: for the weights.
        solve_options: `method`, `rtol`, `dt`, … of `de.solve`.

    A series is as in `LatentODE`.

    Raises:
        TypeError: an option that `de.solve` does not know, or that a call sets.
        ValueError: noise is not positive; as `LatentODE`.

    Reference: debrouwer2019.

    Example:
        >>> import jax, jax.numpy as jnp, optax, diffeq as de
        >>> ts = jnp.tile(jnp.linspace(0.0, 1.0, 6), (8, 1))
        >>> xs = jnp.sin(ts)[:, :, None]
        >>> model = de.nn.GRUODE(1, 4, width=8, key=jax.random.key(0))
        >>> fit = de.fit(
        ...     model, de.nn.GRUODE.loss, (ts, xs), optimizer=optax.adam(1e-2), steps=3,
        ...     progress=False,
        ... )
        >>> fit.model.predict(jnp.linspace(0.0, 2.0, 9), ts[0], xs[0]).mean.shape
        (9, 1)
    """

    continuous: "_ContinuousGRU"
    cell: eqx.nn.GRUCell
    forecast: eqx.nn.MLP
    prepare: Float[Array, "channels prepared four"]
    bias: Float[Array, "channels prepared"]
    start: Float[Array, " hidden"]
    options: Frozen
    mixing: float = eqx.field(static=True)
    noise: float = eqx.field(static=True)
    t0: float | None = eqx.field(static=True)

    @keywords
    def __init__(
        self,
        channels: Any,
        hidden: Any,
        *,
        width: int = 32,
        prepared: int = 8,
        mixing: Any = 1e-4,
        noise: Any = 1e-2,
        t0: Any = None,
        key: Any,
        **solve_options: SolveOption,
    ) -> None:
        check_series_options("GRUODE", solve_options)
        check_options("GRUODE", solve_options)
        check_one_key(key)
        channels, hidden = whole_number("channels", channels), whole_number("hidden", hidden)
        keys = jax.random.split(key, 4)
        self.continuous = _ContinuousGRU(2 * channels, hidden, key=keys[0])
        self.cell = eqx.nn.GRUCell(channels * prepared, hidden, key=keys[1])
        self.forecast = eqx.nn.MLP(hidden, 2 * channels, width, 1, key=keys[2])
        self.prepare = jax.random.normal(keys[3], (channels, prepared, 4)) / 2
        self.bias = jnp.full((channels, prepared), 0.1)
        self.start = jnp.zeros(hidden)
        self.options = Frozen(solve_options)
        self.mixing, self.noise = positive("mixing", mixing, zero=True), positive("noise", noise)
        self.t0 = None if t0 is None else fixed_time("t0", t0)

    def problem(self, t0: ArrayLike, t1: ArrayLike) -> ODEProblem:
        """The equation of h between observations, from its initial value, for `de.solve`."""
        field = lambda t, h, args: self.continuous(self.forecast(h), h)  # noqa: E731
        return ODEProblem(field, jnp.tanh(self.start), (t0, t1))

    def update(self, h: Array, x: PyTree, mask: PyTree) -> Array:
        """The state h after a row x was observed where mask is True; h itself if nothing was."""
        x, mask, known = jnp.asarray(x), jnp.asarray(mask), _forecast_of(self.forecast(h))
        log_variance = 2 * jnp.log(known.std)
        error = (x - known.mean) / known.std
        seen = jnp.stack([x, known.mean, log_variance, error], axis=1)
        made = jax.nn.relu(jnp.einsum("cpk,ck->cp", self.prepare, seen) + self.bias)
        made = jnp.where(mask[:, None], made, 0)
        return jnp.where(jnp.any(mask), self.cell(made.ravel(), h), h)

    def predict(self, at: PyTree, ts: PyTree, xs: PyTree, mask: PyTree = None) -> Gaussian:
        """The forecasts at sorted times, from t0 on, of one series, each from what was observed
        until then: means and standard deviations, (len(at), channels); NaN before t0.
        """
        series = self._series(ts, xs, mask)
        at = jnp.asarray(at, series.times.dtype)
        t0 = start_of(series, self.t0)
        inside = from_start(at, t0)
        hs = self._solved(series, t0, end_of(inside, t0), saveat=inside).ys
        found = self._forecasts(jnp.where(jnp.isnan(at)[:, None], 0, hs))
        return Gaussian(*(nan_before(rows, at, t0) for rows in found))

    def filter(self, ts: PyTree, xs: PyTree, mask: PyTree = None) -> Filtered:
        """The forecasts of one series at its own times, before and after each row is observed."""
        series = self._series(ts, xs, mask)
        sol = self._solved(series, start_of(series, self.t0), series.last)
        rows = sol.events[0]
        return Filtered(self._forecasts(rows.before), self._forecasts(rows.after), series)

    def log_likelihood(self, ts: PyTree, xs: PyTree, mask: PyTree = None) -> Array:
        """Σ log N(x; before) over what was observed in one series: log p of it, row by row."""
        before, _, series = self.filter(ts, xs, mask)
        each = normal_log_density(series.values, before.mean, before.std)
        return jnp.sum(jnp.where(series.mask, each, 0))

    def loss(self, batch: PyTree) -> Array:
        """The mean of the loss over a batch: `GRUODE.loss` is a loss for `de.fit`.

        Args:
            batch: (ts, xs) or (ts, xs, mask), or a dictionary with these names; arrays with the
                series along their first axes.
        """
        parts = check_batch(batch, ("ts", "xs", "mask"), self.t0)
        return jnp.mean(jax.vmap(lambda part: self._loss(*part))(parts))

    def _loss(self, ts: Array, xs: Array, mask: PyTree = None) -> Array:
        before, after, series = self.filter(ts, xs, mask)
        surprise = -normal_log_density(series.values, before.mean, before.std)
        precision = before.std**-2 + self.noise**-2
        mean = (before.mean / before.std**2 + series.values / self.noise**2) / precision
        ratio, shift = 1 / (precision * after.std**2), (mean - after.mean) / after.std
        divergence = (ratio + shift**2 - 1 - jnp.log(ratio)) / 2
        return jnp.sum(jnp.where(series.mask, surprise + self.mixing * divergence, 0))

    def _solved(self, series: Series, t0: Array, t1: Array, **rows: PyTree) -> Solution:
        """The solution of h, with an event at each row."""
        problem = self.problem(t0, t1)
        observed = PresetTimes(
            series.times, lambda t, h, args, row: self.update(h, *row), data=series[1:]
        )
        return solve(problem, events=observed, **rows, **with_method(problem, self.options.value))

    def _forecasts(self, hs: Float[Array, "m hidden"]) -> Gaussian:
        return _forecast_of(jax.vmap(self.forecast)(hs))

    def _series(self, ts: PyTree, xs: PyTree, mask: PyTree) -> Series:
        series = series_of(ts, xs, mask, self.t0)
        check_channels(series.values, len(self.prepare), "GRUODE")
        return series


class _ContinuousGRU(eqx.Module):
    """(1 − u) ⊙ (g − h), the slope of a GRU's state h at an input p."""

    of_input: eqx.nn.Linear
    of_state: eqx.nn.Linear
    of_reset: eqx.nn.Linear

    def __init__(self, inputs: int, hidden: int, *, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key, 3)
        self.of_input = eqx.nn.Linear(inputs, 3 * hidden, key=keys[0])
        self.of_state = eqx.nn.Linear(hidden, 2 * hidden, use_bias=False, key=keys[1])
        self.of_reset = eqx.nn.Linear(hidden, hidden, use_bias=False, key=keys[2])

    def __call__(self, p: Array, h: Array) -> Array:
        keep, reset, new = jnp.split(self.of_input(p), 3)
        of_keep, of_reset = jnp.split(self.of_state(h), 2)
        keep, reset = jax.nn.sigmoid(keep + of_keep), jax.nn.sigmoid(reset + of_reset)
        return (1 - keep) * (jnp.tanh(new + self.of_reset(reset * h)) - h)


def _forecast_of(forecast: Float[Array, "*rows two_channels"]) -> Gaussian:
    """Normals, of the means and the logarithms of the variances, one after the other."""
    mean, log_variance = jnp.split(forecast, 2, axis=-1)
    return Gaussian(mean, jnp.exp(log_variance / 2))
