"""A loop by hand: what a user would write with `jax.lax.scan` for a fixed number of steps."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import jax_common

DEMO_STEPS = 3


def version():
    """The version of JAX."""
    return jax.__version__


def lacks(case, mode):
    """All but Euler's method to an end state, and `ode_demo`."""
    hand_written = case.method == "euler" and case.ts is None and case.steps is not None
    return None if hand_written or _is_demo(case) else "only fixed Euler steps to an end state"


def _is_demo(case):
    return case.name.startswith("ode_demo")


def _solve(case, y0, args, rtol, atol):
    return (_demo if _is_demo(case) else _euler)(case, y0, args)


def _euler(case, y0, args):
    dtype = y0.dtype.type

    def step(y, i):
        t = dtype(case.t0) + i * dtype(case.dt)
        return y + dtype(case.dt) * case.field(t, y, args), None

    y1, _ = jax.lax.scan(step, y0, jax.numpy.arange(case.steps))
    return y1


def _demo(case, y0, args):
    """What bounds `ode_demo`: as few Dopri5 steps as ours takes, all of one known length, with
    nothing to estimate, to decide or to look up; rows from the steps' own polynomials.
    """
    from diffeq import Dopri5

    table, dt = Dopri5().tableau, case.t1 / DEMO_STEPS
    weighted = lambda row, ks: sum(float(w) * k for w, k in zip(row, ks, strict=False) if w)
    where = np.minimum((case.ts - case.t0) / dt, DEMO_STEPS * (1 - 1e-7))
    powers = (where % 1)[:, None] ** np.arange(1, table.dense.shape[1] + 1)

    def step(y, _):
        slopes = [case.field(0.0, y, args)]
        for row in table.A[1:]:
            point = y + dt * weighted(row, slopes)
            slopes.append(case.field(0.0, point, args))
        return point, (y, jnp.stack([dt * weighted(column, slopes) for column in table.dense.T]))

    _, (starts, coefficients) = jax.lax.scan(step, y0, None, length=DEMO_STEPS)
    index = where.astype(int)
    rows = jnp.einsum("td,td...->t...", powers.astype(y0.dtype), coefficients[index])
    return starts[index] + rows


def build(case, mode):
    """`at(tolerance) -> solve(inputs)`; the tolerance is not used."""
    return jax_common.build(_solve, case, mode)
