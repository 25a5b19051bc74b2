"""What the convergence tests share; the measurement itself is that of `diffeq.testing`."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

import diffeq as de
from diffeq import testing
from diffeq.methods import METHODS, Method
from diffeq.testing import ends, field, force, slope_of

__all__ = [
    "ALL",
    "NOISY",
    "PARTITIONED",
    "STARTS",
    "by_scipy",
    "ends",
    "example",
    "field",
    "flat",
    "force",
    "form_of",
    "problem",
    "slope_of",
]

STARTS = jnp.asarray(testing.STARTS)
NOISY = sorted(name for name in METHODS if issubclass(METHODS[name], de.Stochastic))
ALL = sorted(set(METHODS) - set(NOISY))
PARTITIONED = [name for name in ALL if METHODS[name].form == "partitioned"]


def problem(method: Method, t1: float = 4.0) -> de.ODEProblem | de.SecondOrderProblem:
    """A problem that the method takes."""
    return testing.example_problem(method, t1)


def example(method: Method) -> str:
    """One method for all that are tried on the same problem."""
    return "KahanLi8" if method.form == "partitioned" else "Rodas4" if method.real_view else "Vern9"


def flat(tree: object) -> jax.Array:
    """All leaves as one vector."""
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


def form_of(method: Method, equation: object = None) -> tuple:
    """The equation as the method sees it, and the initial state."""
    return testing.form_of(method, equation or problem(method))


def by_scipy(equation: object, ts: np.ndarray) -> np.ndarray:
    """The solution at these times, to nearly all digits: a row for each, x before v."""
    form, y0 = form_of(de.Vern9(), equation)
    field = jax.jit(lambda t, y: form.field(t, y.reshape(y0.shape)).ravel())
    found = solve_ivp(
        lambda t, y: np.asarray(field(t, y)), (equation.tspan[0], ts[-1]), np.ravel(y0), "DOP853",
        t_eval=ts, rtol=1e-13, atol=1e-15, max_step=0.05,
    )  # fmt: skip
    return found.y.T
