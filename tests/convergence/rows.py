"""Problems to read rows of, all in one program, and their solutions to nearly all digits.

The solutions are polynomials of degree 16 over pieces, by collocation: they are known everywhere,
and by no code of the package.
"""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.polynomial import legendre

__all__ = ["CASES", "Case", "field", "solution"]


def oscillator(t: Array, y: Array, k: Array) -> Array:
    """Harmonic, and the integral of its position."""
    return jnp.stack([y[1], -y[0], y[0]])


def prothero_robinson(t: Array, y: Array, k: Array) -> Array:
    """Slow solutions, sin(t + i), of equations with the rates k, k/100 and k/10000."""
    s = t + jnp.arange(3.0, dtype=y.dtype)
    rates = k * jnp.asarray([1.0, 1e-2, 1e-4], y.dtype)
    return -rates * (y - jnp.sin(s)) + jnp.cos(s)


def prothero_robinson_alone(t: Array, y: Array, k: Array) -> Array:
    """The same, all with the rate k."""
    s = t + jnp.arange(3.0, dtype=y.dtype)
    return -k * (y - jnp.sin(s)) + jnp.cos(s)


def robertson(t: Array, y: Array, k: Array) -> Array:
    """Kinetics with rates from 0.04 to 3e7."""
    slow, back, fast = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
    return jnp.stack([back - slow, slow - back - fast, fast])


def van_der_pol(t: Array, y: Array, k: Array) -> Array:
    """Up to the first jump, where it is stiff."""
    return jnp.stack([y[1], k * (1 - y[0] ** 2) * y[1] - y[0], 0 * y[2]])


def smooth(t: Array, y: Array, k: Array) -> Array:
    """Non-linear and non-autonomous, with solutions of size one."""
    a, b, c = y
    force = -jnp.sin(a) * (1 + jnp.sin(t) / 2) - 0.05 * b**2
    return jnp.stack([b - 0.1 * a * b, force, jnp.cos(a * c) - 0.3 * c * b])


class Case(NamedTuple):
    """A field with its start, end and parameter; `log`: rows lie evenly in log t."""

    field: object
    y0: tuple[float, ...]
    t1: float
    k: float
    log: bool = False

    def rows(self, count: int) -> np.ndarray:
        """Times of rows, inside of steps."""
        if self.log:
            return np.geomspace(1e-6 * self.t1, self.t1, count)
        shares = (np.arange(count) + 0.5 + 0.31 * np.sin(np.arange(count))) / count
        return self.t1 * np.sort(shares)


SINES = tuple(np.sin(np.arange(3.0)).tolist())
# By whether the method is for stiff problems.
CASES = {
    stiff: {
        "oscillator": Case(oscillator, (1.0, 0.0, 0.0), 10.0, 0.0),
        "prothero_robinson": Case(prothero_robinson, SINES, 10.0, 1e4 if stiff else 30.0),
        "alone": Case(prothero_robinson_alone, SINES, 10.0, 1e6 if stiff else 10.0),
        "robertson": Case(robertson, (1.0, 0.0, 0.0), 1e4 if stiff else 0.3, 0.0, log=True),
        "van_der_pol": Case(
            van_der_pol, (2.0, 0.0, 0.0), 800.0 if stiff else 10.0, 1e3 if stiff else 2.0
        ),
        "smooth": Case(smooth, (1.0, 0.2, 0.5), 6.0, 0.0),
    }
    for stiff in (False, True)
}


def field(t: Array, y: Array, args: tuple) -> Array:
    """All of them at once, and the one whose number is given."""
    number, k = args
    every = jnp.stack([case.field(t, y, k.astype(y.dtype)) for case in CASES[True].values()])
    return jnp.sum(jnp.where(jnp.arange(len(every))[:, None] == number, every, 0), axis=0)


@cache
def solution(name: str, *, stiff: bool) -> object:
    """The solution of a case as a function of times, right to 1e-14."""
    case = CASES[stiff][name]
    if name.startswith("oscillator"):
        return lambda t: np.stack([np.cos(t), -np.sin(t), np.sin(t)], axis=-1)
    if case.field in (prothero_robinson, prothero_robinson_alone):
        return lambda t: np.sin(np.asarray(t)[..., None] + np.arange(3.0))
    return Collocated(case)


S = 16
NODES = np.sort(legendre.legroots([0.0] * (S - 1) + [-1.0, 1.0]).real)  # Radau's, in [−1, 1]
UNITS = np.eye(S + 1)
# Of a series of degree S: from its values at the start and at the nodes, and its slopes at these.
SERIES = np.linalg.inv(legendre.legvander(np.append(-1.0, NODES), S))
SLOPES = np.stack([legendre.legval(NODES, legendre.legder(unit)) for unit in UNITS], 1) @ SERIES


class Collocated:
    """Collocation at Radau's nodes, with pieces as long as the last terms of the Legendre series in
    them are rounding.
    """

    def __init__(self, case: Case) -> None:
        k = jnp.asarray(case.k)
        self.slopes = jax.jit(jax.vmap(lambda t, y: case.field(t, y, k)))
        self.jacobians = jax.jit(jax.vmap(jax.jacfwd(lambda y, t: case.field(t, y, k))))
        self.starts, self.series = [], []
        t, y, h = 0.0, np.array(case.y0), 1e-6 * case.t1
        while t < case.t1:
            series = self._piece(t, y, min(h, case.t1 - t))
            if series is None:
                h *= 0.6
                continue
            self.starts.append(t)
            self.series.append((min(h, case.t1 - t), series))
            t, y, h = t + self.series[-1][0], legendre.legval(1.0, series), 1.4 * h

    def _piece(self, t: float, y: np.ndarray, h: float) -> np.ndarray | None:
        """The coefficients of a piece; None where it is too long."""
        at, n = t + h * (NODES + 1) / 2, len(y)
        Y = np.repeat(y[None], S, axis=0)
        for _ in range(25):
            gap = SLOPES @ np.vstack([y, Y]) - h / 2 * np.asarray(self.slopes(at, Y))
            blocks = np.einsum("ij,iab->iajb", np.eye(S), h / 2 * np.asarray(self.jacobians(Y, at)))
            matrix = np.kron(SLOPES[:, 1:], np.eye(n)) - blocks.reshape(S * n, S * n)
            move = np.linalg.solve(matrix, gap.ravel()).reshape(Y.shape)
            Y = Y - move
            if not np.all(np.isfinite(Y)):
                return None
            if np.max(np.abs(move) / (1e-6 + np.abs(Y))) < 1e-13:
                break
        else:
            return None
        series = SERIES @ np.vstack([y, Y])
        last = np.max(np.abs(series[-2:]) / (1e-9 + np.abs(Y).max(axis=0)))
        return series if last < 3e-14 else None

    def __call__(self, t: np.ndarray) -> np.ndarray:
        found = np.empty((len(t), 3))
        place = np.searchsorted(self.starts, t, side="right") - 1
        for i in np.unique(place):
            (h, series), here = self.series[i], place == i
            found[here] = legendre.legval(2 * (t[here] - self.starts[i]) / h - 1, series).T
        return found
