"""What the convergence tests share: the problems, and the slope of an error by dt."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

import diffeq as de
from diffeq.controllers.tolerance import Tolerance
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


def form_of(method: Method, equation: object = None) -> tuple:
    """The equation as the method sees it, and the initial state."""
    door = canonical(equation or problem(method))
    return lower(door.form(door.parameters, 1), method.form, repr(method)), door.y0


def ends(method: Method, equation: object, dts: np.ndarray) -> np.ndarray:
    """The end of the equation by the method's own equal steps: less to compile than a solve is."""
    form, y0 = form_of(method, equation)
    t0, t1 = equation.tspan
    # Of Newton's method, whose error must not show.
    tight = method.with_tolerance(Tolerance(jnp.array(1e-14), jnp.array(1e-14)), final=True)

    @jax.jit
    def end(dt: jax.Array) -> jax.Array:
        def step(i: jax.Array, carried: tuple) -> tuple:
            y, memory, solved = carried
            made = tight.step(form, t0 + i * dt, y, dt, memory)
            return made.y, made.memory, solved & (made.solved is None or made.solved)

        steps = jnp.round((t1 - t0) / dt).astype(int)
        start = y0, tight.init(form, jnp.asarray(t0), y0), jnp.array(True)
        y, _, solved = jax.lax.fori_loop(0, steps, step, start)
        return jnp.where(solved, flat(y), jnp.nan)

    return np.stack([end(dt) for dt in dts])


def by_scipy(equation: object, ts: np.ndarray) -> np.ndarray:
    """The solution at these times, to nearly all digits: a row for each, x before v."""
    form, y0 = form_of(de.Vern9(), equation)
    field = jax.jit(lambda t, y: form.field(t, y.reshape(y0.shape)).ravel())
    found = solve_ivp(
        lambda t, y: np.asarray(field(t, y)), (equation.tspan[0], ts[-1]), np.ravel(y0), "DOP853",
        t_eval=ts, rtol=1e-13, atol=1e-15, max_step=0.05,
    )  # fmt: skip
    return found.y.T


def slope_of(errors: np.ndarray, dts: np.ndarray, floor: float) -> float:
    """The slope of log(error) by log(dt) at the last pair of steps above `floor`, where rounding
    begins; steps become shorter along `dts`.
    """
    below = np.flatnonzero(errors <= floor)
    last = below[0] - 1 if len(below) else len(errors) - 1
    assert last >= 1, f"no two steps are fine enough: {errors}"
    return float(np.log(errors[last - 1] / errors[last]) / np.log(dts[last - 1] / dts[last]))
