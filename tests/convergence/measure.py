"""What the convergence tests share: the problems, and the slope of an error by dt."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import diffeq as de
from diffeq.methods import METHODS, Method
from diffeq.problems.forms import lower
from diffeq.problems.lowering import canonical

NOISY = sorted(name for name in METHODS if issubclass(METHODS[name], de.Stochastic))
ALL = sorted(set(METHODS) - set(NOISY))
PARTITIONED = [name for name in ALL if METHODS[name].form == "partitioned"]


def field(t, y, args):
    """Non-linear and non-autonomous, with solutions of size one."""
    a, b = y
    return jnp.stack([b - 0.1 * a * b, -jnp.sin(a) * (1 + jnp.sin(t) / 2) - 0.05 * b**2])


def force(t, x, v, args):
    """The same for x'' = f(t, x)."""
    a, b = x
    return jnp.stack([jnp.cos(3 * t) * a * b - a**3, jnp.sin(t) - jnp.sin(b) - a**2])


# Several starts side by side, so that no error vanishes by chance.
STARTS = jnp.array([[1.0, 0.4, -0.7, 0.1], [0.2, 1.1, 0.5, -0.9]])
SPEEDS = jnp.array([[0.1, -0.3, 0.8, 0.5], [0.9, 0.2, -0.4, 0.6]])


def problem(method: Method, t1: float = 4.0) -> de.ODEProblem | de.SecondOrderProblem:
    """A problem that the method takes."""
    if method.form == "partitioned":
        return de.SecondOrderProblem(force, STARTS, SPEEDS, (0.0, t1))
    # Implicit methods solve systems as large as the state: two starts keep these small.
    return de.ODEProblem(field, STARTS[:, :2] if method.real_view else STARTS, (0.0, t1))


def example(method: Method) -> str:
    """One method for all that are tried on the same problem."""
    return "KahanLi8" if method.form == "partitioned" else "Rodas4" if method.real_view else "Vern9"


def flat(tree: object) -> jax.Array:
    """All leaves as one vector."""
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


def form_of(method: Method) -> tuple:
    """The equation as the method sees it, and the initial state."""
    door = canonical(problem(method))
    return lower(door.form(door.parameters, 1), method.form, repr(method)), door.y0


def slope(error: Callable, dts: np.ndarray, floor: float) -> float:
    """The slope of log(error) by log(dt) at the last pair of steps above `floor`, where
    rounding begins.
    """
    return slope_of(np.asarray(jax.jit(jax.vmap(error))(jnp.asarray(dts))), dts, floor)


def slope_of(errors: np.ndarray, dts: np.ndarray, floor: float) -> float:
    """The same of errors that are known; steps become shorter along `dts`."""
    below = np.flatnonzero(errors <= floor)
    last = below[0] - 1 if len(below) else len(errors) - 1
    assert last >= 1, f"no two steps are fine enough: {errors}"
    return float(np.log(errors[last - 1] / errors[last]) / np.log(dts[last - 1] / dts[last]))
