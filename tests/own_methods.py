"""Methods as users write them, which the tests of derivatives and of `diffeq.testing` share."""

import jax.numpy as jnp
from jaxtyping import Array

import diffeq as de

__all__ = ["ExponentialEuler"]


class ExponentialEuler(de.Method):
    """Exponential Euler (ETD1) for y' = −rate y + N(t, y), with the step of second order (ETD2RK)
    as its estimate. φ₁(z) = (eᶻ − 1)/z is written as it is printed: at dt = 0 it is NaN.
    """

    rate: Array

    @property
    def order(self):
        return 1

    @property
    def error_order(self):
        return 2

    @property
    def adaptive(self):
        return True

    def rest(self, form, t, y):
        """N, what is left of the field without its linear part."""
        return form.field(t, y) + self.rate * y

    def init(self, form, t, y):
        return self.rest(form, t, y)

    def step(self, form, t, y, dt, memory):
        z = -self.rate * dt
        phi1 = jnp.expm1(z) / z
        phi2 = (phi1 - 1) / z
        y1 = jnp.exp(z) * y + dt * phi1 * memory
        after = self.rest(form, t + dt, y1)
        return de.Step(y1, error=dt * phi2 * (after - memory), memory=after, data=())
