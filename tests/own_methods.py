"""Methods as users write them, which the tests of derivatives and of `diffeq.testing` share."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import diffeq as de

__all__ = [
    "ByValue",
    "ExponentialEuler",
    "History",
    "OffAtTheEnd",
    "PythonState",
    "Wide",
    "WrongEstimate",
    "WrongOrder",
]


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


class _Own(de.Method):
    """Heun's method with the difference to Euler's as its estimate; each of the others breaks one
    promise of it.
    """

    @property
    def order(self):
        return 2

    @property
    def adaptive(self):
        return True

    def step(self, form, t, y, dt, memory):
        first = form.field(t, y)
        last = form.field(t + dt, y + dt * first)
        return de.Step(y + dt / 2 * (first + last), dt / 2 * (last - first), (), ())


class WrongOrder(_Own):
    """Says 3, and is 2."""

    @property
    def order(self):
        return 3

    @property
    def error_order(self):
        return 2


class WrongEstimate(_Own):
    """Says that its estimate goes with dt³, and it goes with dt²."""

    @property
    def error_order(self):
        return 3


class History(_Own):
    """Adams and Bashforth's, whose memory is the slope before."""

    def init(self, form, t, y):
        return form.field(t, y)

    def step(self, form, t, y, dt, memory):
        first = form.field(t, y)
        return de.Step(y + dt / 2 * (3 * first - memory), dt / 2 * (first - memory), first, ())


class Calls(list):
    """A list that can be hashed."""

    def __hash__(self):
        return 0


class PythonState(_Own):
    """Counts its steps in a list."""

    calls: list = eqx.field(static=True, default_factory=Calls)

    def step(self, form, t, y, dt, memory):
        self.calls.append(1)
        step = super().step(form, t, y, dt, memory)
        return step._replace(y=step.y * (1 + 1e-8 * len(self.calls)))


class ByValue(_Own):
    """Takes a dtype by the length of its step."""

    def step(self, form, t, y, dt, memory):
        step = super().step(form, t, y, dt, memory)
        return step._replace(y=step.y.astype(jnp.float64) if float(dt) < 0.1 else step.y)


class Wide(_Own):
    """Has a coefficient of a fixed dtype."""

    def step(self, form, t, y, dt, memory):
        step = super().step(form, t, y, dt, memory)
        return step._replace(y=step.y + np.zeros(1)[0] * jnp.zeros((), jnp.float64))


class OffAtTheEnd(_Own):
    """Has a line to Euler's step for an interpolant."""

    def interpolant(self, form, t, y, dt, step):
        return de.Polynomial(y, (dt * form.field(t, y),), dt)
