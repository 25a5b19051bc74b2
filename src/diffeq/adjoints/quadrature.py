"""Quadrature rules for dL/dp = ∫ (∂f/∂p)ᵀλ dt over one step of a backward solve."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ..autodiff.while_loop import loop
from ..core.norm import in_dtype_of, magnitude
from ..integrator import Attempt, Data, step_interpolant
from .backward_solve import AdjointIntegrator
from .forward_result import AdjointContext
from .tape_interpolants import state_at

__all__ = ["Integrand", "gauss_kronrod", "gauss_legendre"]

_SMALLEST = 2.0**-12  # of a step; a panel is not halved further

# The 7-point Gauss and 15-point Kronrod rules on (−1, 1), from the outermost node to the middle.
_NODES = (
    0.991455371120812639206854697526329, 0.949107912342758524526189684047851,
    0.864864423359769072789712788640926, 0.741531185599394439863864773280788,
    0.586087235467691130294144691693013, 0.405845151377397166906606412076961,
    0.207784955007898467600689403773245, 0.0,
)  # fmt: skip
_KRONROD = (
    0.022935322010529224963732008058970, 0.063092092629978553290700663189204,
    0.104790010322250183839876322541518, 0.140653259715525918745189590510238,
    0.169004726639267902826583426598550, 0.190350578064785409913256402421014,
    0.204432940075298892414161999234649, 0.209482141084727828012999174891714,
)  # fmt: skip
_GAUSS = (
    0.0, 0.129484966168869693270611432679082, 0.0, 0.279705391489276667901467771423780,
    0.0, 0.381830050505118944950369775488975, 0.0, 0.417959183673469387755102040816327,
)  # fmt: skip


type _Panel = tuple[Array, Array, list[Array]]  # where it starts, its length, the integral so far


class Integrand:
    """(∂f/∂p)ᵀλ on a step of the backward solve, as a function of θ."""

    def __init__(
        self, back: AdjointIntegrator, data: Data, t: Array, y: Array, tried: Attempt
    ) -> None:
        leaves, self.where = data.parameters
        self.setting = AdjointContext(back.setting.spec, leaves, back.setting.live)
        self.start, self.dt, self.tolerances = t, tried.dt, back.of_parameters
        self.polynomial = step_interpolant(back.integrator, data, t, y, tried.t1, tried.step)

    def pulled(self, thetas: Array) -> Callable[[Array], list[Array]]:
        """The map from weights w to dt Σ w_i (∂f/∂p)ᵀλ(θ_i); the fields are evaluated once."""
        y0 = self.polynomial.y0
        lam = jax.vmap(self.polynomial)(in_dtype_of(thetas, y0))
        times = -(self.start + thetas * self.dt)
        states = jax.vmap(lambda t: state_at(self.where, t))(times)

        def fields(moving: list) -> Array:
            return jax.vmap(lambda t, y: self.setting.field(moving, t, y))(times, states)

        pull = jax.vjp(fields, self.setting.parameters)[1]

        def weighted(weights: Array) -> list:
            factor = in_dtype_of(weights * self.dt, y0)
            return pull(lam * factor.reshape(-1, *(1,) * (lam.ndim - 1)))[0]

        return weighted


def gauss_legendre(integrand: Integrand, total: list, points: int) -> list:
    """The total with the integral over the step, by one Gauss–Legendre rule."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    dtype = integrand.dt.dtype
    found = integrand.pulled(jnp.asarray((nodes + 1) / 2, dtype))(jnp.asarray(weights / 2, dtype))
    return [a + b for a, b in zip(total, found, strict=True)]


def gauss_kronrod(integrand: Integrand, total: list) -> list:
    """The total with the integrals over panels of the step, each as long as its error allows; NaN
    where a panel is too short.
    """
    dtype = integrand.dt.dtype
    nodes = jnp.asarray((1 - _both_sides(_NODES, -1.0)) / 2, dtype)
    kronrod = jnp.asarray(_both_sides(_KRONROD) / 2, dtype)
    difference = kronrod - jnp.asarray(_both_sides(_GAUSS) / 2, dtype)
    one, zero = jnp.ones((), dtype), jnp.zeros((), dtype)

    def ahead(consts: tuple, panel: _Panel, _: tuple) -> Array:
        del consts
        return panel[0] < 1

    def turn(
        active: Bool[Array, ""], consts: tuple, panel: _Panel, _: tuple
    ) -> tuple[_Panel, tuple]:
        del active, consts
        place, length, total = panel
        length = jnp.minimum(length, 1 - place)
        pull = integrand.pulled(place + nodes * length)
        found, error = pull(kronrod * length), pull(difference * length)
        after = [a + b for a, b in zip(total, found, strict=True)]
        parts = zip(integrand.tolerances, error, total, after, strict=True)
        worst = jnp.max(jnp.stack([t.squared(e, a, b, None)[0] for t, e, a, b in parts]))
        good = worst <= 1
        gives_up = ~good & (length <= _SMALLEST)  # NaN is never good
        refused = jnp.where(gives_up, jnp.nan, 1.0).astype(dtype)
        after = [
            jnp.where(good, b, a * refused.astype(magnitude(a).dtype))
            for a, b in zip(total, after, strict=True)
        ]
        # The last panel ends on 1 exactly, whatever the rounding of sums.
        last = gives_up | (good & (length >= 1 - place))
        place = jnp.where(last, one, jnp.where(good, place + length, place))
        return (place, length * jnp.where(good, 2.0, 0.5), after), ()

    (_, _, total), _ = loop(ahead, turn, (zero, one, total))
    return total


def _both_sides(half: tuple, sign: float = 1.0) -> np.ndarray:
    return np.array([*half, *(sign * x for x in half[-2::-1])])
