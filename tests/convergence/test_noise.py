"""Methods for SDEs: strong order along paths that are known, weak order in exact expectation."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.convergence.measure import NOISY

import diffeq as de
from diffeq import zoo
from diffeq.brownian import Drawn, StepNoise
from diffeq.methods import METHODS
from diffeq.problems.forms import lower
from diffeq.problems.lowering import canonical

FINE, LEVELS, PATHS = 2048, (16, 32, 64, 128), 400


class Given:
    """What a form wants to know of a noise whose increments are given."""


@cache
def brownian(shape: tuple, span: float) -> tuple[np.ndarray, np.ndarray]:
    """(W, ∫W) over FINE equal steps, for PATHS paths; exact in law."""
    rng = np.random.default_rng(0)
    dt = span / FINE
    w, h = rng.standard_normal((2, FINE, PATHS, *shape))
    w, h = w * np.sqrt(dt), h * np.sqrt(dt / 12)
    return w, dt * (w / 2 + h)


def coarsened(w: np.ndarray, area: np.ndarray, span: float, steps: int) -> tuple:
    """The same paths in fewer steps, as standard numbers W/√dt and H/√dt."""
    dt = span / len(w)
    while len(w) > steps:
        area = area[::2] + area[1::2] + dt * w[::2]
        w, dt = w[::2] + w[1::2], 2 * dt
    return w / np.sqrt(dt), (area / dt - w / 2) / np.sqrt(dt)


@cache
def stepper(method, problem):
    """`(normals, n)` to the end of the first n of equal steps; compiled once for all n."""
    door = canonical(problem)
    form = lower(door.form(door.parameters, 1), method.form, repr(method))

    def path(w, h, n):
        dt = (door.t1 - door.t0) / n

        def step(i, y):
            normal = jnp.stack([w[i], h[i]])
            bound = StepNoise(Given(), (), Drawn((), normal), jnp.sqrt(dt))
            return method.step(form.with_noise(bound), door.t0 + i * dt, y, dt, ()).y

        return jax.lax.fori_loop(0, n, step, door.y0)

    return jax.jit(jax.vmap(path, (1, 1, None)))


def ends(method, problem, normals: tuple) -> np.ndarray:
    """The method's own steps along given increments."""
    steps = len(normals[0])
    room = [(0, FINE - steps), *[(0, 0)] * (normals[0].ndim - 1)]
    padded = (jnp.asarray(np.pad(x, room)) for x in normals)
    return np.asarray(stepper(method, problem)(*padded, steps))


def slope(errors: list) -> float:
    return float(np.polyfit(np.log(LEVELS), np.log(errors), 1)[0]) * -1


def strong_slope(method, problem, shape, exact) -> float:
    span = float(problem.tspan[1] - problem.tspan[0])
    w, area = brownian(shape, span)
    errors = []
    for steps in LEVELS:
        found = ends(method, problem, coarsened(w, area, span, steps))
        errors.append(np.sqrt(np.mean((found - exact(w, area)) ** 2)))
    return slope(errors)


KNOWN = ("geometric_brownian", "additive_decay", "two_noises")
CASES = {case.name: case for case in zoo.noisy_cases() if case.name in KNOWN}
# The first two are of order 1 where the noise is additive, EulerHeun where it commutes.
BETTER = {
    "EulerMaruyama": ("additive_decay",),
    "ImplicitEM": ("additive_decay",),
    "EulerHeun": tuple(CASES),
}


def takes(name: str, case: zoo.NoisyCase) -> bool:
    kind = METHODS[name]
    if issubclass(kind, de.SRA):
        return case.additive
    return case.noise != "general" or not (issubclass(kind, de.SRI) or name == "Milstein")


@pytest.mark.parametrize(
    ("name", "case"), [(n, c) for n in NOISY for c in CASES if takes(n, CASES[c])]
)
def test_strong_order_where_the_solution_is_known(name, case):
    method, known = METHODS[name](), CASES[case]
    shape = (2,) if known.noise == "general" else (1,)
    t1 = known.tspan[1]
    declared = 1.0 if case in BETTER.get(name, ()) else method.order
    if case == "additive_decay":  # the drift is linear, and W enters it by W alone
        declared = max(declared, 1.0)
    found = strong_slope(
        method, known.problem(), shape, lambda w, _: np.asarray(known.exact(t1, w.sum(0)))
    )
    assert -0.25 < found - declared < (0.25 if case != "additive_decay" else 1.25)


def drift(t, y, args):
    return jnp.stack([-y[0] + jnp.sin(y[1] + t), jnp.cos(y[0]) - y[1] / 2])


PROBLEMS = {
    "diagonal": lambda t, y, args: 0.6 * jnp.sqrt(1 + y**2) * jnp.cos(t),
    "scalar": lambda t, y, args: 0.5 * jnp.stack([jnp.sin(y[1]) + 1, 0.5 * y[0]]),
    "additive": lambda t, y, args: jnp.full_like(y, 0.7) * (1 + t),
    "general": lambda t, y, args: (
        0.5 * jnp.stack([jnp.stack([y[1], jnp.sin(y[0])]), 1 + jnp.cos(y)])
    ),
}
ORDERS = {  # of the declared kind: on a non-linear problem, by refinement of the same paths
    "diagonal": ("EulerMaruyama", "ImplicitEM", "EulerHeun", "Milstein", "SRIW1", "SOSRI"),
    "scalar": ("EulerHeun", "Milstein", "SRIW1", "SOSRI"),
    "additive": ("EulerMaruyama", "SRA1", "SOSRA", "SOSRI"),
    "general": ("EulerMaruyama", "EulerHeun"),
}
REFERENCE = {"diagonal": "SRIW1", "scalar": "SRIW1", "additive": "SRA1", "general": None}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_strong_order_by_refinement(kind):
    general = kind == "general"
    noise = {"diagonal": "diagonal", "additive": "diagonal"}.get(kind, kind)
    problem = de.SDEProblem(
        drift, PROBLEMS[kind], jnp.array([0.5, 1.0]), (0.0, 1.0), noise=noise,
        interpretation="stratonovich" if general else "ito",
    )  # fmt: skip
    w, area = brownian(() if kind == "scalar" else (2,), 1.0)
    fine = coarsened(w, area, 1.0, FINE)
    for name in ORDERS[kind]:
        method = METHODS[name]()
        reference = METHODS[REFERENCE[kind] or name]()
        exact = ends(reference, problem, fine)
        found = slope([
            np.sqrt(np.mean((ends(method, problem, coarsened(w, area, 1.0, n)) - exact) ** 2))
            for n in LEVELS
        ])  # fmt: skip
        better = {"additive": 1.0, "diagonal": 1.0, "scalar": 1.0}.get(kind)
        improved = {
            ("EulerHeun", "diagonal"),
            ("EulerHeun", "scalar"),
            ("EulerMaruyama", "additive"),
        }
        declared = better if (name, kind) in improved else method.order
        assert found == pytest.approx(declared, abs=0.25), name


# --- weak order, in exact expectation -----------------------------------------------------------


def moments(method, problem):
    """Mean and second moment of y1 after n steps, of a problem that is linear in y: a step is
    y ↦ A y + B, with A and B functions of two normals, whose expectations are sums (Gauss and
    Hermite).
    """
    door = canonical(problem)
    form = lower(door.form(door.parameters, 1), method.form, repr(method))
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    w, h = (x.ravel() for x in np.meshgrid(nodes, nodes / np.sqrt(12)))
    weight = jnp.asarray(np.outer(weights, weights).ravel() / weights.sum() ** 2)

    @jax.jit
    def run(n):
        dt = (door.t1 - door.t0) / n

        def step(y, t):
            normal = lambda w, h: Drawn((), jnp.stack([w, h])[:, None])
            driven = lambda w, h: form.with_noise(
                StepNoise(Given(), (), normal(w, h), jnp.sqrt(dt))
            )
            one = lambda w, h: method.step(driven(w, h), t, jnp.full(1, y), dt, ()).y[0]
            return jax.vmap(one)(w, h)

        def advance(i, m):
            b = step(0.0, door.t0 + i * dt)
            a = step(1.0, door.t0 + i * dt) - b
            mean = weight @ (a * m[0] + b)
            return jnp.stack([mean, weight @ (a**2 * m[1] + 2 * a * b * m[0] + b**2)])

        return jax.lax.fori_loop(0, n, advance, jnp.stack([door.y0[0], door.y0[0] ** 2]))

    return lambda n: np.asarray(run(n))


@pytest.mark.parametrize("name", NOISY)
def test_weak_order(name):
    method = METHODS[name]()
    case = (
        zoo.ornstein_uhlenbeck() if issubclass(METHODS[name], de.SRA) else zoo.geometric_brownian()
    )
    mean, variance = float(case.mean(1.0)[0]), float(case.variance(1.0)[0])
    exact = np.array([mean, mean**2 + variance])
    run = moments(method, case.problem())
    errors = np.array([np.abs(run(n) - exact) for n in LEVELS])
    for column in errors.T:
        assert slope(column) > method.weak_order - 0.25
    assert slope(errors[:, 1]) < method.weak_order + 0.5


def test_an_implicit_drift_is_damped():
    """Of a stiff Ornstein–Uhlenbeck process, variance and decay are those that the scheme has."""
    case = zoo.ornstein_uhlenbeck()
    r, m, s, n = 1e4, 0.5, 0.8, 10
    problem = case.problem().replace(args=jnp.array([r, m, s]))
    mean, square = moments(de.ImplicitEM(), problem)(n)
    factor, variance = 1 / (1 + r / n), s**2 / (2 * r + r**2 / n)
    wanted = m + (2.0 - m) * factor**n
    np.testing.assert_allclose(mean, wanted, rtol=1e-10)
    np.testing.assert_allclose(square, wanted**2 + variance * (1 - factor ** (2 * n)), rtol=1e-8)
    assert abs(moments(de.EulerMaruyama(), problem)(n)[0]) > 1e20


@pytest.mark.parametrize("name", ["SRIW1", "SOSRI", "SRA1", "SOSRA"])
def test_the_estimate_is_of_its_order(name):
    """Its root mean square over the noise of one step is O(dt^error_order)."""
    method = METHODS[name]()
    diffusion = PROBLEMS["additive" if issubclass(METHODS[name], de.SRA) else "diagonal"]
    door = canonical(de.SDEProblem(drift, diffusion, jnp.array([0.5, 1.0]), (0.0, 1.0)))
    form = lower(door.form(door.parameters, 1), method.form, repr(method))
    normals = jax.random.normal(jax.random.key(0), (500, 2, 2)) * jnp.array([[1.0], [12**-0.5]])

    def size(dt):
        def one(normal):
            bound = StepNoise(Given(), (), Drawn((), normal), jnp.sqrt(dt))
            return method.step(form.with_noise(bound), jnp.array(0.3), door.y0, dt, ()).error

        return jnp.sqrt(jnp.mean(jax.vmap(one)(normals) ** 2))

    errors = jax.jit(jax.vmap(size))(1 / jnp.asarray(LEVELS, float) ** 2)
    assert slope(errors) / 2 == pytest.approx(method.error_order, abs=0.2)
