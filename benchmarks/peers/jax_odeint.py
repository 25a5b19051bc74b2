"""`jax.experimental.ode.odeint`: Dopri5 with the continuous (backsolve) adjoint."""

import jax

from benchmarks.peers import jax_common

COMPILES_EACH = True


def version():
    """The version of JAX."""
    return jax.__version__


def lacks(case, mode):
    """Fixed steps: there are none. Its one method is Dopri5, which stands in for Tsit5."""
    return None if case.steps is None else "no fixed steps"


def _solve(case, y0, args, rtol, atol):
    from jax.experimental.ode import odeint

    ts = jax.numpy.array([case.t0, case.t1] if case.ts is None else case.ts, y0.dtype)
    ys = odeint(lambda y, t, args: case.field(t, y, args), y0, ts, args, rtol=rtol, atol=atol)
    return ys[-1] if case.ts is None else ys


def build(case, mode):
    """`at(tolerance) -> solve(inputs)`; its tolerances are static, so one compilation for each."""
    return jax_common.build_static(_solve, case, mode)
