"""Residuals F(t, y, y') = 0: their solves, starts, derivatives, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.convergence.measure import slope_of
from tests.tiers import shortly

import diffeq as de
from diffeq import zoo
from diffeq.methods import bdf
from diffeq.problems.forms import Implicit

METHODS = [de.BDF(), de.RadauIIA5()]
NAMED = {"ids": lambda method: type(method).__name__}


# --- solves ---------------------------------------------------------------------------------------


def robertson(t, y, dy, k):
    a, b, c = y
    slow, fast = k[0] * a - k[2] * b * c, k[1] * b**2
    return jnp.stack([dy[0] + slow, dy[1] - slow + fast, a + b + c - 1])


@pytest.mark.parametrize("method", METHODS, **NAMED)
def test_robertson(method):
    """From a wrong guess to 10⁵, against the reference of its ODE."""
    case = zoo.robertson()
    problem = de.ImplicitDAEProblem(
        robertson, [1.0, 0.0, 0.7], case.tspan, case.args,
        dy0=[0.0, 0.0, 0.0], differential=[True, True, False],
    )  # fmt: skip
    sol = de.solve(problem, method, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(sol.y1, case.reference.y1, rtol=2e-5)
    assert abs(float(jnp.sum(sol.y1)) - 1) < 1e-10
    assert int(sol.stats["steps"]) < 500


def pendulum(t, y, dy, g):
    """A pendulum in the plane with the acceleration of its length as the equation for its force,
    and Baumgarte's terms, which hold the length itself: an algebraic equation with slopes in it.
    """
    (x, h, u, v, force), (dx, dh, du, dv, _) = y, dy
    length, rate = (x**2 + h**2 - 1) / 2, x * u + h * v
    acceleration = x * du + h * dv + u**2 + v**2
    return jnp.stack([
        dx - u, dh - v, du + force * x, dv + force * h + g,
        acceleration + 2 * 5.0 * rate + 5.0**2 * length,
    ])  # fmt: skip


@pytest.mark.thorough
def test_a_stabilised_pendulum():
    flags = [True, True, True, True, False]
    problem = de.ImplicitDAEProblem(
        pendulum, [1.0, 0.0, 0.0, 0.0, 9.0], (0.0, 3.0), 9.81, dy0=jnp.zeros(5), differential=flags
    )
    swing = de.ODEProblem(
        lambda t, y, g: jnp.stack([y[1], -g * jnp.sin(y[0])]), [np.pi / 2, 0.0], (0.0, 3.0), 9.81
    )
    ts = jnp.linspace(0.0, 3.0, 7)
    angle, speed = de.solve(swing, de.Vern9(), saveat=ts, rtol=1e-11, atol=1e-11).ys.T
    ys = de.solve(problem, de.RadauIIA5(), saveat=ts, rtol=1e-7, atol=1e-7).ys
    at = [jnp.sin(angle), -jnp.cos(angle), speed * jnp.cos(angle), speed * jnp.sin(angle)]
    np.testing.assert_allclose(ys[:, :4], jnp.stack(at, 1), atol=2e-5)
    np.testing.assert_allclose(ys[:, 4], speed**2 + 9.81 * jnp.cos(angle), atol=2e-4)


# --- orders ---------------------------------------------------------------------------------------


def exact(t):
    return jnp.stack([jnp.exp(jnp.sin(t)), jnp.cos(t)])


def curved(t, u, du, args):
    """Non-linear in y', solved by y = exp(sin t), z = cos t."""
    y, z = u
    known = exact(t)
    rate = y * z * (1 + known[0] * (z - known[1]))
    algebraic = z**3 + y * z - known[1] ** 3 - known[0] * known[1]
    return jnp.stack([du[0] + du[0] ** 3 / 8 - rate - rate**3 / 8, algebraic])


def test_order_of_radau():
    problem = de.ImplicitDAEProblem(
        curved, exact(0.0), (0.0, 2.0), dy0=[1.0, 0.0], differential=[True, False]
    )
    steps = np.array([8, 12, 18, 24, 36, 48])

    def error(dt):
        sol = de.solve(problem, de.RadauIIA5(), dt=dt, rtol=1e-14, atol=1e-14, max_steps=50)
        return jnp.abs(sol.y1 - exact(2.0))

    errors = np.asarray(jax.jit(jax.vmap(error))(2.0 / steps))
    for component in (0, 1):
        assert slope_of(errors[:, component], 2.0 / steps, 2e-12) == pytest.approx(5, abs=0.25)


def test_order_of_bdf():
    """From exact values the error of a step of order k is O(dt^(k+1)), in both components."""
    form = Implicit(
        lambda t, y, dy: curved(t, y, dy, None),
        jnp.array([True, False]),
        jnp.array([1.0, 0.0]),
        jnp.array(2.0),
    )

    def error(k, dt, t=0.4):
        rows, differences = jax.vmap(exact)(t - dt * jnp.arange(bdf.ORDERS + 3)), []
        for _ in range(bdf.ORDERS + 2):
            rows = rows[:-1] - rows[1:]
            differences.append(rows[0])
        past = bdf._Differences(jnp.stack(differences), jnp.stack([dt, k, 0.0, 1.0]))
        step = de.BDF().step(form, jnp.array(t), exact(t), dt, past)
        return jnp.where(step.solved, jnp.abs(step.y - exact(t + dt)), jnp.nan)

    ks, dts = jnp.arange(1.0, 6.0), jnp.array([2.0**-5, 2.0**-6])
    found = jax.jit(jax.vmap(jax.vmap(error, (None, 0)), (0, None)))(ks, dts)
    orders = np.log2(found[:, 0] / found[:, 1])
    np.testing.assert_allclose(orders, np.asarray(ks + 1)[:, None] * np.ones(2), atol=0.25)


# --- derivatives ----------------------------------------------------------------------------------


def driven(t, u, du, args):
    y, z = u
    return jnp.stack([
        du[0] * (1 + 0.2 * du[0] ** 2) + args["a"] * y - jnp.sin(t) * z,
        z**3 + z - args["b"] * y,
    ])  # fmt: skip


DRIVEN = de.ImplicitDAEProblem(
    driven, lambda args: jnp.stack([args["y"], 0.3]), lambda args: (0.0, args["end"]),
    {"a": 0.7, "b": 1.3, "y": 1.0, "end": 2.0},
    dy0=lambda args: jnp.stack([-args["a"], 0.0]), differential=[True, False],
)  # fmt: skip


@pytest.mark.parametrize("method", shortly(METHODS, de.BDF()), **NAMED)
def test_gradients(method):
    """By args, by y0 and by the end of tspan, which the last step follows; the others are held."""
    before = 1.9 * jnp.linspace(0.0, 1.0, 41) ** 1.5

    @jax.jit
    def value_and_slope(x):
        def loss(x):
            names = dict(zip(("a", "b", "y", "end"), x, strict=True))
            sol = de.solve(
                DRIVEN.replace(args=names), method, saveat=jnp.array([0.0, 1.3]),
                controller=de.Fixed(jnp.append(before, x[3])), rtol=1e-13, atol=1e-13, max_steps=64,
            )  # fmt: skip
            return jnp.sum(sol.ys**2) + sol.y1 @ jnp.array([1.0, 2.0])

        return jax.value_and_grad(loss)(x)

    x, h = jnp.array([0.7, 1.3, 1.0, 2.0]), 1e-5
    found = value_and_slope(x)[1]
    moved = jnp.concatenate([x + h * jnp.eye(4), x - h * jnp.eye(4)])
    values = jnp.stack([value_and_slope(z)[0] for z in moved])
    np.testing.assert_allclose(found, (values[:4] - values[4:]) / (2 * h), rtol=1e-6, atol=1e-8)


# --- starts ---------------------------------------------------------------------------------------


def test_consistent_values_and_their_derivatives():
    """Those of `driven`: z³ + z = b y, y' (1 + y'²/5) = −a y at t = 0, and z' from both."""

    def start(x):
        args = {"a": x[0], "b": x[1], "y": x[2], "end": 2.0}
        found = de.consistent(DRIVEN.replace(args=args))
        return jnp.concatenate([found.y0, found.dy0])

    def by_hand(x):
        a, b, y = x
        z, rate = jnp.array(0.7), -jnp.array(0.6)
        for _ in range(20):
            z = z - (z**3 + z - b * y) / (3 * z**2 + 1)
            rate = rate - (rate * (1 + 0.2 * rate**2) + a * y) / (1 + 0.6 * rate**2)
        return jnp.stack([y, z, rate, b * rate / (3 * z**2 + 1)])

    x = jnp.array([0.7, 1.3, 1.0])
    weights = jnp.array([1.0, 2.0, 3.0, 4.0])

    def derivatives(f):
        slope = jax.grad(lambda x: f(x) @ weights)
        return f(x), *jax.jvp(slope, (x,), (jnp.array([1.0, -1.0, 0.5]),))

    for one, other in zip(
        *(jax.jit(lambda f=f: derivatives(f))() for f in (start, by_hand)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-10)


def squared(t, y, dy, args):
    """(x')² = x has two slopes, and so has z' with 0 = z − x²."""
    return jnp.stack([dy[0] ** 2 - y[0], y[1] - y[0] ** 2])


SQUARED = de.ImplicitDAEProblem(
    squared,
    jnp.array([1.0, 0.2]),
    (0.0, 1.0),
    dy0=jnp.array([0.4, 0.0]),
    differential=[True, False],
)


def test_dy0_chooses_between_slopes():
    for sign in (1.0, -1.0):
        start = de.consistent(SQUARED.replace(dy0=jnp.array([0.4 * sign, 0.0])))
        np.testing.assert_allclose(start.y0, [1.0, 1.0])
        np.testing.assert_allclose(start.dy0, [sign, 2 * sign])
    up, down = (de.solve(SQUARED.replace(dy0=jnp.array([x, 0.0]))).y1 for x in (0.4, -0.4))
    np.testing.assert_allclose(up, [2.25, 2.25**2], rtol=1e-2)
    np.testing.assert_allclose(down, [0.25, 0.25**2], rtol=1e-2)


def test_init():
    good = de.consistent(SQUARED)
    assert de.solve(good, init="check").stats["steps"] == de.solve(SQUARED).stats["steps"]
    for bad in ({"y0": jnp.array([1.0, 1.1])}, {"dy0": jnp.array([1.1, 2.0])}):
        with pytest.raises(de.SolveError, match=r"They miss by \[.*0\.[12]"):
            de.solve(good.replace(**bad), init="check")
    trusted = de.init(SQUARED, init="given")
    assert trusted.y[1] == 0.2
    assert trusted.status == de.Status.running


def test_without_consistent_values():
    none = SQUARED.replace(y0=jnp.array([-1.0, 0.2]))
    for call in (de.solve, de.consistent):
        with pytest.raises(de.SolveError, match=r"They miss by \[ *1\.16, -0\.8 *\]") as caught:
            call(none)
        assert caught.value.status == de.Status.inconsistent
    inside = jax.jit(jax.vmap(lambda x: de.consistent(SQUARED.replace(y0=[x, 0.2])).dy0))
    np.testing.assert_allclose(inside(jnp.array([1.0, -1.0])), [[1.0, 2.0], [np.nan, np.nan]])


@pytest.mark.parametrize(
    ("residual", "differential", "message"),
    [
        (lambda t, y, dy, a: [dy[0] + dy[1], y[1] - y[0]], [True, False], "dy of component 1,"),
        (lambda t, y, dy, a: [dy[0] + y[1], y[0] - t], [True, False], "do not determine them"),
        (lambda t, y, dy, a: [dy[0] + y[1], y[1] - y[0]], [True, True], "do not determine them"),
    ],
    ids=["a slope that is not to be there", "index 2", "no slope"],
)  # fmt: skip
def test_what_is_said_to_be_differential_must_be_that(residual, differential, message):
    problem = de.ImplicitDAEProblem(
        residual, [1.0, 1.0], (0.0, 1.0), dy0=[0.0, 0.0], differential=differential
    )
    with pytest.raises(de.SolveError, match=message):
        de.consistent(problem)


# --- trees, complex numbers, events, and time backwards -------------------------------------------


def following(t, y, dy, k):
    """A decay of x, and 0 = z − x² follows it."""
    return {"x": dy["x"] * (2 + y["z"]) + k * y["x"] * (2 + y["z"]), "z": y["z"] - y["x"] ** 2}


@pytest.mark.thorough
def test_a_tree_backwards_with_an_event():
    problem = de.ImplicitDAEProblem(
        following, {"x": 1.0, "z": 0.3, "count": de.hold(0)}, (0.0, -1.0), 1.0,
        dy0={"x": 0.0, "z": 0.0}, differential={"x": True, "z": False},
    )  # fmt: skip
    halved = de.PresetTimes([-0.5], lambda t, y, k: {**y, "x": y["x"] / 2, "count": y["count"] + 1})
    sol = de.solve(problem, events=halved, saveat=[0.0, -0.5, -1.0], rtol=1e-7, atol=1e-9)
    x = np.array([1.0, np.exp(0.5) / 2, np.exp(1.0) / 2])
    np.testing.assert_allclose(sol.ys["x"], x, rtol=1e-5)
    np.testing.assert_allclose(sol.ys["z"], x**2, rtol=1e-5)
    assert sol.ys["count"].tolist() == [0, 1, 1]
    assert "BDF" in sol.about.method


def spiral(t, y, dy, w):
    """For a complex z, z' = (i w − 1) z; and its size, a real algebraic component."""
    return {"z": dy["z"] - (1j * w - 1) * y["z"], "size": y["size"] - jnp.abs(y["z"]) ** 2}


@pytest.mark.thorough
def test_complex_and_real_parts():
    problem = de.ImplicitDAEProblem(
        spiral, {"z": 1.0 + 0j, "size": 0.3}, (0.0, 1.0), 2.0,
        dy0={"z": 0j, "size": 0.0}, differential={"z": True, "size": False},
    )  # fmt: skip
    y1 = de.solve(problem, de.RadauIIA5(), rtol=1e-7, atol=1e-9).y1
    np.testing.assert_allclose(y1["z"], np.exp(2j - 1), rtol=1e-6)
    np.testing.assert_allclose(y1["size"], np.exp(-2), rtol=1e-6)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dy0": [0.0]}, r"dy0 is float64\[1\]; numbers with the structure and shapes of y0"),
        ({"dy0": "zero"}, "dy0 is 'zero'"),
        ({"dy0": [0.0, 1j]}, r"dy0 is complex128\[2\]"),
        ({"dy0": [0.0, np.nan]}, "dy0 has NaN"),
        ({"differential": [True]}, r"differential is bool\[1\]"),
        ({"differential": None}, "differential is None"),
        ({"residual": lambda t, y, dy, a: y[:1]}, r"shape \(1,\); .* one equation for each"),
        ({"residual": lambda t, y, a: y}, r"residual\(t, y, dy, args\)"),
        ({"residual": 3.0}, "residual is 3.0"),
    ],
    ids=lambda x: str(x)[:30],
)  # fmt: skip
def test_bad_problems(changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        de.solve(SQUARED.replace(**changes))


@pytest.mark.parametrize(
    "method", [de.Tsit5(), de.Rodas5P(), de.KenCarp4(), de.VelocityVerlet()], **NAMED
)
def test_other_methods_are_refused_with_those_that_do(method):
    with pytest.raises(TypeError, match=r"F\(t, y, y'\) = 0: .* de\.BDF\(\) or de\.RadauIIA5\(\)"):
        de.solve(SQUARED, method, dt=0.1)


def test_other_adjoints_are_refused():
    with pytest.raises(TypeError, match=r"does not serve an ImplicitDAEProblem.*: Discrete"):
        de.solve(SQUARED, adjoint=de.Gauss())
    with pytest.raises(TypeError, match="a DAEProblem is wanted, or an ImplicitDAEProblem"):
        de.consistent(de.ODEProblem(lambda t, y, a: -y, 1.0, (0.0, 1.0)))
