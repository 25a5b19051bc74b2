"""The density of what is observed, given the values that a decoder returns, and what is lost by it:
the parts of a lower bound.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, Real

from ..validation.values import concrete, is_real, shown
from .time_series import Series

__all__ = [
    "ELBO",
    "Gaussian",
    "Observation",
    "check_decoded",
    "decoded_rows",
    "mean_loss",
    "normal_log_density",
    "normal_of",
    "positive",
]


class ELBO(NamedTuple):
    """A lower bound of log p(x) of one series, as its two parts.

    Attributes:
        log_likelihood: log p(x | z) of the observed numbers, at a z that was drawn.
        kl: the Kullback–Leibler divergence of the posterior of z to its prior, or an estimate.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> de.nn.ELBO(jnp.array(-3.0), jnp.array(0.5)).value
        Array(-3.5, dtype=float32, weak_type=True)
    """

    log_likelihood: Array
    kl: Array

    @property
    def value(self) -> Array:
        """The bound, log_likelihood − kl."""
        return self.log_likelihood - self.kl


class Gaussian(NamedTuple):
    """Independent normals, by their means and standard deviations.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> one, other = (de.nn.Gaussian(jnp.array([m]), jnp.array([1.0])) for m in (0.0, 2.0))
        >>> float(one.kl(other))
        2.0
    """

    mean: Array
    std: Array

    def sample(self, key: PRNGKeyArray) -> Array:
        """One draw."""
        return self.mean + self.std * jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def kl(self, other: "Gaussian") -> Array:
        """The divergence KL(self ‖ other), the sum over all components."""
        ratio, shift = self.std / other.std, (self.mean - other.mean) / other.std
        return jnp.sum(ratio**2 + shift**2 - 1 - 2 * jnp.log(ratio)) / 2


def normal_of(numbers: Float[Array, " two_latent"]) -> Gaussian:
    """A normal, of its means and the logarithms of its standard deviations, one after the other."""
    mean, log_std = jnp.split(numbers, 2)
    return Gaussian(mean, jnp.exp(log_std))


def normal_log_density(x: Array, mean: Array, scale: Array) -> Array:
    """The density: log N(x; mean, scale²), of each number."""
    return -(((x - mean) / scale) ** 2) / 2 - jnp.log(scale) - math.log(2 * math.pi) / 2


def _laplace_log_density(x: Array, mean: Array, scale: Array) -> Array:
    """The logarithm of exp(−|x − mean| / scale) / (2 scale), of each number."""
    return -jnp.abs(x - mean) / scale - jnp.log(2 * scale)


_DENSITIES: dict[str, Callable] = {"normal": normal_log_density, "laplace": _laplace_log_density}


def positive(name: str, x: Any, other: str = "", *, zero: bool = False) -> float:
    """A finite positive number, or, with `zero`, one that is not negative; `other` is what else is
    wanted in its place.

    >>> positive("noise", jnp.inf)
    Traceback (most recent call last):
    ValueError: noise is inf; a positive number is wanted.
    """
    number = concrete(x) and is_real(x) and jnp.ndim(x) == 0
    if not number or not (0 <= float(x) < math.inf) or (x == 0 and not zero):
        sort = "number that is not negative" if zero else "positive number"
        raise ValueError(f"{name} is {shown(x)}; a {sort} is wanted{other}.")
    return float(x)


class Observation(eqx.Module):
    """Independent noise on each number that is observed.

    Args:
        channels: numbers in a row.
        noise: the scale of the noise, a positive number; None: one for each channel, trained.
        likelihood: "normal", "laplace", or a function `log_density(x, decoded, scale)` of arrays of
            one shape, (n, channels), which are 1 where nothing was observed.

    Raises:
        ValueError: noise is not positive; likelihood is another word.
    """

    log_noise: Float[Array, " channels"] | None
    noise: float | None = eqx.field(static=True)
    log_density: Callable = eqx.field(static=True)

    def __init__(self, channels: int, noise: Any, likelihood: Any) -> None:
        if noise is not None:
            noise = positive("noise", noise, ", or None for one that is trained")
        if not callable(likelihood) and likelihood not in _DENSITIES:
            raise ValueError(
                f'likelihood is {likelihood!r}; "normal", "laplace" or a function '
                "log_density(x, decoded, scale) is wanted."
            )
        self.noise = noise
        self.log_noise = jnp.zeros(channels) if noise is None else None
        self.log_density = likelihood if callable(likelihood) else _DENSITIES[likelihood]

    @property
    def scale(self) -> Real[Array, "..."]:
        """The scale of the noise, of each channel or of all."""
        return jnp.asarray(self.noise) if self.log_noise is None else jnp.exp(self.log_noise)

    def log_likelihood(self, series: Series, decoded: Float[Array, "n ..."]) -> Array:
        """The sum of log p over the numbers that were observed. Elsewhere the density is that of
        1, 1 and 1 (of positive numbers and of counts it has one there), which does not enter, and
        has no derivative.
        """
        check_decoded(decoded, series)
        scale = jnp.broadcast_to(self.scale.astype(decoded.dtype), decoded.shape)
        x, decoded, scale = (
            jnp.where(series.mask, part, 1) for part in (series.values, decoded, scale)
        )
        each = self.log_density(x, decoded, scale)
        return jnp.sum(jnp.where(series.mask, each, 0))


def decoded_rows(
    decoder: Callable, at: Float[Array, " m"], zs: Float[Array, "m latent"]
) -> Float[Array, "m ..."]:
    """A decoder's value of each row of latent states; at NaN, which is padding, that of 0: a row of
    NaN would make the derivatives of its weights NaN, too.
    """
    return jax.vmap(decoder)(jnp.where(jnp.isnan(at)[:, None], 0, zs))


def check_decoded(decoded: Array, series: Series) -> None:
    """Refuses rows of a decoder that have another shape than those of the series."""
    if decoded.shape[1:] != series.values.shape[1:]:
        raise ValueError(
            f"the decoder makes rows of shape {decoded.shape}, and xs has shape "
            f"{series.values.shape}; one number for each channel is wanted."
        )


def mean_loss(elbo: Callable, parts: tuple, key: PRNGKeyArray, kl_weight: ArrayLike) -> Array:
    """The mean of kl_weight · KL − log p(x | z) over a batch, with `elbo(*part, key=key)` of each
    series.
    """
    keys = jax.random.split(key, len(parts[0]))
    bound = jax.vmap(lambda part, key: elbo(*part, key=key))(parts, keys)
    return jnp.mean(kl_weight * bound.kl - bound.log_likelihood)
