"""A loop by hand: what a user would write with `jax.lax.scan` for a fixed number of Euler steps."""

import jax

from benchmarks.peers import jax_common


def version():
    """The version of JAX."""
    return jax.__version__


def lacks(case, mode):
    """All but Euler's method to an end state."""
    hand_written = case.method == "euler" and case.ts is None and case.steps is not None
    return None if hand_written else "only fixed Euler steps to an end state"


def _solve(case, y0, args, rtol, atol):
    dtype = y0.dtype.type

    def step(y, i):
        t = dtype(case.t0) + i * dtype(case.dt)
        return y + dtype(case.dt) * case.field(t, y, args), None

    y1, _ = jax.lax.scan(step, y0, jax.numpy.arange(case.steps))
    return y1


def build(case, mode):
    """`at(tolerance) -> solve(inputs)`; the tolerance is not used."""
    return jax_common.build(_solve, case, mode)
