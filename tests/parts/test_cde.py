"""Controlled equations: by the derivative of the control, by its increments, by log-signatures."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from tests.parts.test_log_signature import signature
from tests.tiers import shortly

import diffeq as de

RNG = np.random.default_rng(0)
TS = np.array([0.0, 0.3, 0.45, 0.8, 1.0])
XS = RNG.normal(size=(5, 2))
MATRICES = jnp.asarray(RNG.normal(size=(2, 3, 3)))
Y0 = jnp.array([1.0, -0.5, 0.3])
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
SPAN = (0.0, 1.0)


def linear(t, y, matrices):
    """A column A_i y for each channel."""
    return jnp.stack([a @ y for a in matrices], -1)


def by_exponentials(xs, matrices=MATRICES):
    """Along straight lines: a product of matrix exponentials."""
    y = np.asarray(Y0)
    for dx in np.diff(np.asarray(xs), axis=0):
        y = scipy.linalg.expm(np.tensordot(dx, np.asarray(matrices), 1)) @ y
    return y


def along(control, **changes):
    return de.CDEProblem(linear, control, Y0, SPAN, MATRICES).replace(**changes)


# --- by the derivative ----------------------------------------------------------------------------


def test_lines_are_a_product_of_exponentials():
    sol = de.solve(along(de.interp.Linear(TS, XS)), de.Tsit5(), saveat=TS, **TIGHT)
    np.testing.assert_allclose(sol.ys[-1], by_exponentials(XS), rtol=1e-8)
    np.testing.assert_allclose(sol.ys[2], by_exponentials(XS[:3]), rtol=1e-8)
    assert int(sol.stats["stops"]) == 3


def test_fixed_steps_keep_their_order_over_the_knots():
    problem, want = along(de.interp.Linear(TS, XS)), by_exponentials(XS)
    coarse, fine = (
        np.abs(de.solve(problem, de.RK4(), dt=dt).y1 - want).max() for dt in (0.05, 0.025)
    )
    assert coarse / fine > 10


INTERPOLANTS = {
    "linear": de.interp.Linear,
    "hermite": de.interp.Hermite,
    "cubic": de.interp.Cubic,
    "akima": de.interp.Akima,
    "rectilinear": de.interp.Rectilinear,
}


@pytest.mark.parametrize("name", shortly(INTERPOLANTS, "hermite", "rectilinear"))
def test_the_chain_rule_holds_along_every_interpolant(name):
    """Y' = y · (c dX) is multiplied by the exponential of c times the increment of X."""
    c = jnp.array([0.7, -0.4])
    problem = de.CDEProblem(
        lambda t, y, c: y[:, None] * c, INTERPOLANTS[name](TS, XS), jnp.ones(1), SPAN, c
    )
    # A step over a knot, where the second derivative jumps, may be off by 100 tolerances and more.
    sol = de.solve(problem, de.Tsit5(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sol.y1, np.exp((XS[-1] - XS[0]) @ c), rtol=1e-8)


def test_a_rectilinear_control_goes_along_its_corners():
    """Each corner, in turn: the rates of the control do not matter."""
    path = [XS[0]]
    for a, b in itertools.pairwise(XS):
        path += [np.array([b[0], a[1]]), b]
    sol = de.solve(along(de.interp.Rectilinear(TS, XS)), de.Tsit5(), **TIGHT)
    np.testing.assert_allclose(sol.y1, by_exponentials(np.stack(path)), rtol=1e-8)
    assert int(sol.stats["stops"]) == 7


def test_a_function_of_time_is_differentiated():
    control = lambda t: jnp.stack([t, jnp.sin(3 * t)])
    plain = lambda t, y, m: linear(t, y, m) @ jnp.stack([jnp.ones_like(t), 3 * jnp.cos(3 * t)])
    want = de.solve(de.ODEProblem(plain, Y0, SPAN, MATRICES), de.Tsit5(), **TIGHT)
    found = de.solve(along(control), de.Tsit5(), **TIGHT)
    np.testing.assert_allclose(found.y1, want.y1, rtol=1e-9)


FUNCTIONS = {
    "scaled": lambda ts: lambda t: 1.0 * de.interp.Linear(ts, XS)(t),
    "two tables": lambda ts: lambda t: jnp.stack([de.interp.Linear(ts, x)(t) for x in XS.T]),
    "shifted": lambda ts: lambda t: de.interp.Linear(ts + 0.1, XS)(t + 0.1),
    "in a jit": lambda ts: jax.jit(lambda t: de.interp.Linear(ts, XS)(t)),
    "windows": lambda ts: lambda t: 1.0 * de.interp.LogSignature(ts, XS, depth=1, stride=1)(t),
}


@pytest.mark.parametrize("name", shortly(FUNCTIONS, "two tables"))
def test_steps_end_at_the_knots_of_a_function_of_tables(name):
    """As along the table itself: the derivative by forward mode jumps there, too. How fast time
    goes through the knots does not matter, so that the derivative by inner ones is zero.
    """
    make = FUNCTIONS[name]
    sol = de.solve(along(make(jnp.asarray(TS))), de.Tsit5(), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(sol.y1, by_exponentials(XS), rtol=1e-6)
    assert int(sol.stats["stops"]) == 3
    if name != "two tables":
        return

    def end(inner):
        knots = jnp.concatenate([TS[:1], inner, TS[-1:]])
        return jnp.sum(de.solve(along(make(knots)), de.Tsit5(), **TIGHT).y1)

    np.testing.assert_allclose(jax.grad(end)(jnp.asarray(TS[1:-1])), 0.0, atol=1e-7)


@pytest.mark.parametrize("name", shortly(["hermite", "akima"], "hermite"))
def test_derivatives_by_the_times_of_a_curve_with_stops_on_them(name):
    """The second derivative of the curve jumps there, and stops are between steps of one length."""

    @jax.jit
    def end(inner, dt=0.02):
        knots = jnp.concatenate([TS[:1], inner, TS[-1:]])
        problem = along(INTERPOLANTS[name](knots, XS))
        return jnp.sum(de.solve(problem, de.Tsit5(), dt=dt, stops=inner).y1)

    inner, h = jnp.asarray(TS[1:-1]), 1e-5
    found, fine = jax.grad(end)(inner), partial(end, dt=0.005)
    want = [(fine(inner + h * e) - fine(inner - h * e)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(found, want, rtol=1e-4)


def test_an_ordinary_equation_sees_the_jumps_of_a_slope_alone():
    u = de.interp.Linear(TS, XS[:, 0])
    stops = lambda f: int(de.solve(de.ODEProblem(f, 0.0, SPAN), de.Tsit5(), dt=0.1).stats["stops"])
    assert stops(lambda t, y, args: u(t) - y) == 0
    assert stops(lambda t, y, args: jax.grad(u)(t) - y) == 3


def test_a_table_that_is_read_at_no_line_of_the_time_is_told():
    control = lambda t: de.interp.Linear(TS, XS)(t**2)
    with pytest.warns(UserWarning, match=r"the slope of interp.Linear\) is called .* stops="):
        de.solve(along(control), de.Tsit5(), dt=0.25)


def test_backwards_it_comes_back():
    there = along(de.interp.Hermite(TS, XS))
    tight = {"rtol": 1e-12, "atol": 1e-12}  # for the steps over knots
    end = de.solve(there, de.Tsit5(), **tight).y1
    back = there.replace(y0=end, tspan=(1.0, 0.0))
    np.testing.assert_allclose(de.solve(back, de.Tsit5(), **tight).y1, Y0, rtol=1e-7)


def test_a_state_that_is_a_tree_and_a_field_in_lists():
    def f(t, y, m):
        whole = linear(t, jnp.concatenate([y["a"], y["b"][None]]), m)
        return {"a": whole[:2], "b": whole[2]}

    problem = along(de.interp.Linear(TS, XS), f=f, y0={"a": Y0[:2], "b": Y0[2]})
    y1 = de.solve(problem, de.Tsit5(), **TIGHT).y1
    np.testing.assert_allclose([*y1["a"], y1["b"]], by_exponentials(XS), rtol=1e-8)
    rows = lambda t, y, m: [[y[0], y[1]], [y[1], -y[0]]]
    problem = de.CDEProblem(rows, de.interp.Linear(TS, XS), [1.0, 0.0], SPAN)
    flat = problem.replace(f=lambda t, y, m: jnp.array(rows(t, y, m)))
    np.testing.assert_array_equal(de.solve(problem).y1, de.solve(flat).y1)


def test_stiff_methods_and_the_default_solve_it():
    problem, want = along(de.interp.Linear(TS, XS)), by_exponentials(XS)
    for method in (None, de.Rodas5P()):
        sol = de.solve(problem, method, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(sol.y1, want, rtol=1e-6)


# --- derivatives ----------------------------------------------------------------------------------

ADJOINTS = {
    "discrete": de.Discrete(),
    "gauss": de.Gauss(),
    "backsolve": de.Backsolve(),
}


@pytest.mark.parametrize("name", shortly(ADJOINTS, "discrete"))
def test_derivatives_by_samples_and_parameters(name):
    weights = jnp.array([1.0, 2.0, -1.0])

    def loss(xs, matrices):
        problem = along(de.interp.Linear(TS, xs), args=matrices)
        return weights @ de.solve(problem, de.Tsit5(), adjoint=ADJOINTS[name], **TIGHT).y1

    d_xs, d_matrices = jax.jit(jax.grad(loss, (0, 1)))(jnp.asarray(XS), MATRICES)
    exact = lambda xs, m: weights @ by_exponentials(xs, m)
    for i, j in itertools.product(range(5), range(2)):
        e = np.zeros_like(XS)
        e[i, j] = 1e-6
        want = (exact(XS + e, MATRICES) - exact(XS - e, MATRICES)) / 2e-6
        np.testing.assert_allclose(d_xs[i, j], want, rtol=1e-5, atol=1e-6)
    e = np.zeros(MATRICES.shape)
    e[1, 0, 2] = 1e-6
    want = (exact(XS, MATRICES + e) - exact(XS, MATRICES - e)) / 2e-6
    np.testing.assert_allclose(d_matrices[1, 0, 2], want, rtol=1e-5)


@pytest.mark.thorough
def test_forward_derivatives_and_those_by_times():
    def end(shift, adjoint=None):
        ts = jnp.asarray(TS).at[2].add(shift)
        weights = jnp.stack([ts, jnp.asarray(XS[:, 0])], 1)  # time is a channel
        problem = along(de.interp.Linear(ts, weights), f=lambda t, y, m: jnp.sin(linear(t, y, m)))
        return de.solve(problem, de.Tsit5(), adjoint=adjoint, **TIGHT).y1[0]

    want = (end(1e-5) - end(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(end)(0.0), want, rtol=1e-5)
    np.testing.assert_allclose(jax.jacfwd(end)(0.0), want, rtol=1e-5)
    by_forward = jax.jacfwd(partial(end, adjoint=de.Forward()))(0.0)
    np.testing.assert_allclose(by_forward, want, rtol=1e-5)


def test_a_control_can_be_fitted():
    target = by_exponentials(XS)
    loss = lambda xs: jnp.sum(
        (de.solve(along(de.interp.Linear(TS, xs)), de.Tsit5()).y1 - target) ** 2
    )
    fit = de.fit(0.8 * jnp.asarray(XS), loss, optimizer=optax.adam(0.05), steps=40, progress=False)
    assert fit.loss < 0.05 * fit.history[0]


def test_batches_and_ensembles():
    many = jnp.stack([XS, -XS, 2 * XS])
    end = lambda xs: de.solve(along(de.interp.Linear(TS, xs)), de.Tsit5(), **TIGHT).y1
    want = np.stack([by_exponentials(xs) for xs in many])
    np.testing.assert_allclose(jax.vmap(end)(many), want, rtol=1e-8)
    starts = jnp.stack([Y0, 2 * Y0])
    problem = along(de.interp.Linear(TS, XS))
    found = de.solve_ensemble(problem, de.Tsit5(), y0=starts, **TIGHT).y1
    np.testing.assert_allclose(found, want[0] * np.array([[1.0], [2.0]]), rtol=1e-8)


# --- log-signatures -------------------------------------------------------------------------------


def of_signatures(channels):
    """The field of the signature: dS = S ⊗ dX, in the tensor algebra up to the third order, on
    which the log-ODE method of depth 3 is exact.
    """
    sizes = [channels**n for n in range(4)]

    def f(t, y, args):
        levels = jnp.split(y, np.cumsum(sizes)[:3])
        unit = jnp.eye(channels)
        up = [jnp.zeros((1, channels))]
        for level in levels[:3]:
            up.append(jnp.einsum("i,jc->ijc", level, unit).reshape(-1, channels))
        return jnp.concatenate(up)

    y0 = jnp.zeros(sum(sizes)).at[0].set(1.0)
    return f, y0


@pytest.mark.parametrize(("channels", "depth"), [(3, 3), (2, 2), (2, 3)])
def test_one_step_of_the_log_ode_method_is_exact_on_signatures(channels, depth):
    xs = 0.5 * RNG.normal(size=(9, channels))
    f, y0 = of_signatures(channels)
    control = de.interp.LogSignature(np.linspace(0.0, 1.0, 9), xs, depth=depth, stride=8)
    end = de.solve(de.CDEProblem(f, control, y0, SPAN), de.Tsit5(), rtol=1e-9, atol=1e-9).y1
    want = np.concatenate([x.ravel() for x in signature(xs)[: depth + 1]])
    np.testing.assert_allclose(end[: len(want)], want, atol=1e-8)


def test_deeper_windows_are_closer():
    ts = np.linspace(0.0, 1.0, 65)
    xs = np.stack([np.sin(7 * ts), np.cos(11 * ts)], 1) / 2
    want = by_exponentials(xs, MATRICES / 3)
    error = []
    for depth in (1, 2, 3):
        control = de.interp.LogSignature(ts, xs, depth=depth, stride=8)
        sol = de.solve(along(control, args=MATRICES / 3), de.Tsit5(), rtol=1e-8, atol=1e-8)
        assert int(sol.stats["stops"]) == 7
        error.append(np.abs(sol.y1 - want).max())
    assert error[1] < error[0] / 3
    assert error[2] < error[1] / 3


def test_a_field_with_a_column_for_each_word():
    """Brackets that are given, as a neural rough differential equation learns them."""
    control = de.interp.LogSignature(TS, XS, depth=2, stride=2)
    a, b = MATRICES
    words = lambda t, y, m: jnp.stack([a @ y, b @ y, (b @ a - a @ b) @ y], -1)
    own = de.solve(along(control), de.Tsit5(), **TIGHT).y1
    given = de.solve(along(control, f=words), de.Tsit5(), **TIGHT).y1
    np.testing.assert_allclose(given, own, rtol=1e-8)
    there = de.solve(along(control, y0=own, tspan=(1.0, 0.0)), de.Tsit5(), **TIGHT).y1
    np.testing.assert_allclose(there, Y0, rtol=1e-7)


@pytest.mark.thorough
def test_derivatives_through_brackets():
    def loss(xs):
        control = de.interp.LogSignature(TS, xs, depth=3, stride=2)
        return jnp.sum(de.solve(along(control), de.Tsit5(), **TIGHT).y1 ** 2)

    found = jax.grad(loss)(jnp.asarray(XS))
    for i, j in ((0, 0), (1, 1), (3, 0), (4, 1)):
        e = np.zeros_like(XS)
        e[i, j] = 1e-5
        np.testing.assert_allclose(found[i, j], (loss(XS + e) - loss(XS - e)) / 2e-5, rtol=1e-5)


# --- increments -----------------------------------------------------------------------------------

WALK = jnp.asarray(np.cumsum(RNG.normal(size=(257, 2)), axis=0)) / 16


def walk(t):
    """A random walk, of which no derivative is asked."""
    return de.interp.Linear(jnp.linspace(0.0, 1.0, 257), WALK)(t)


def by_hand(f, xs, ts, y, *, heun):
    for t, s, dx in zip(ts[:-1], ts[1:], jnp.diff(xs, axis=0), strict=True):
        first = f(t, y) @ dx
        y = y + ((first + f(s, y + first) @ dx) / 2 if heun else first)
    return y


@pytest.mark.parametrize("method", [de.Euler(), de.Heun()], ids=["Euler", "Heun"])
def test_steps_see_the_increments(method):
    f = lambda t, y: jnp.sin(linear(t, y, MATRICES)) + t
    problem = along(walk, f=lambda t, y, args: f(t, y), by="increments")
    ts = jnp.linspace(0.0, 1.0, 65)
    want = by_hand(f, WALK[::4], ts, Y0, heun=method.order == 2)
    for steps in ({"dt": 1 / 64}, {"controller": de.Fixed(ts)}):
        np.testing.assert_allclose(de.solve(problem, method, **steps).y1, want, rtol=1e-11)
    rows = de.solve(problem, method, dt=1 / 64, saveat=ts[::16])
    want = by_hand(f, WALK[:65:4], ts[:17], Y0, heun=method.order == 2)
    np.testing.assert_allclose(rows.ys[1], want, rtol=1e-11)


def test_heun_solves_in_the_sense_of_stratonovich():
    """Along a path of a Brownian motion: y = exp(W), and Euler's method y = exp(W − t/2)."""
    problem = de.CDEProblem(
        lambda t, y, a: y[:, None] * jnp.array([1.0, 0.0]), walk, jnp.ones(1), SPAN, by="increments"
    )
    end, twice = float(WALK[-1, 0] - WALK[0, 0]), float(jnp.sum(jnp.diff(WALK[:, 0]) ** 2))
    np.testing.assert_allclose(de.solve(problem, dt=1 / 256).y1, np.exp(end), rtol=0.02)
    euler = de.solve(problem, de.Euler(), dt=1 / 256).y1
    np.testing.assert_allclose(euler, np.exp(end - twice / 2), rtol=0.1)


def test_many_increments_are_no_sign_of_stiffness():
    problem = along(walk, f=lambda t, y, args: linear(t, y, MATRICES), by="increments")
    assert de.solve(problem, dt=1 / 1024).stats["steps"] == 1024
    with pytest.raises(de.SolveError, match="max_steps"):
        de.solve(problem, dt=1 / 1024, max_steps=1000)


def test_increments_differentiate_and_map():
    f = lambda t, y: jnp.sin(linear(t, y, MATRICES))
    ts = jnp.linspace(0.0, 1.0, 17)

    def end(xs):
        control = de.interp.Linear(ts, xs)
        problem = along(control, f=lambda t, y, args: f(t, y), by="increments")
        return jnp.sum(de.solve(problem, dt=1 / 16).y1 ** 2)

    xs = WALK[::16]
    want = jax.grad(lambda xs: jnp.sum(by_hand(f, xs, ts, Y0, heun=True) ** 2))(xs)
    np.testing.assert_allclose(jax.grad(end)(xs), want, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(jax.vmap(end)(jnp.stack([xs, -xs])), [end(xs), end(-xs)])


# --- wrong calls ----------------------------------------------------------------------------------

LINE, HELD = de.interp.Linear(TS, XS), de.interp.Hold(TS, XS)


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        (
            {"f": lambda t, y, m: y},
            {},
            r"f returned float64\[3\]; y is .* and control has 2 channels.*wanted: \(3, 2\)",
        ),
        ({"f": lambda t, y, m: jnp.ones((3, 4))}, {}, r"wanted: \(3, 2\)"),
        ({"f": lambda t, y, m: jnp.ones((2, 3))}, {}, r"wanted: \(3, 2\)"),
        ({"f": lambda t, y, m: jnp.ones((3, 2), complex)}, {}, "wider than the state's"),
        (
            {"control": de.interp.LogSignature(TS, XS, depth=2, stride=2), "f": lambda t, y, m: y},
            {},
            r"wanted: \(3, 2\), or 3 in place of 2, one for each word",
        ),
        ({"control": XS}, {}, r"control is .*; a function control\(t\) is wanted"),
        ({"control": lambda t, y: t}, {}, r"cannot be called as control\(t\)"),
        (
            {"control": lambda t: t},
            {},
            r"control returned float64\[\]; a vector.*jnp.stack\(\[x\]\)",
        ),
        ({"control": de.interp.Linear(TS, XS[:, 0])}, {}, "a vector of real numbers is wanted"),
        ({"control": HELD}, {}, "Hold jumps and has no derivative.*Rectilinear"),
        (
            {"control": lambda t: HELD(t)},
            {},
            "control jumps, and dX of a jump means nothing",
        ),
        (
            {"tspan": (0.0, 2.0)},
            {},
            r"control has times from 0 to 1, and tspan = \(0, 2\) goes beyond",
        ),
        ({"tspan": (-0.5, 1.0)}, {}, "goes beyond"),
        ({"by": "steps"}, {}, "by is 'steps'; 'derivative' or 'increments' is wanted"),
        ({"by": "increments"}, {}, "by is 'increments', and no estimate.*give the steps, dt="),
        (
            {"by": "increments"},
            {"method": de.Tsit5(), "dt": 0.1},
            r"Tsit5\(\) takes the slope at the end.*choose de.Heun\(\)",
        ),
        (
            {"by": "increments"},
            {"method": de.Rodas5P(), "dt": 0.1},
            "does not step a control by its increments",
        ),
        (
            {"by": "increments"},
            {"dt": 0.1, "adjoint": de.Gauss()},
            "Gauss does not serve controls by their increments; those that do: Discrete",
        ),
        (
            {"by": "increments"},
            {"dt": 0.1, "events": de.Event(lambda t, y, m: y[0])},
            "events were given, and by is 'increments'",
        ),
    ],
)
def test_refusals(changes, options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        de.solve(along(LINE).replace(**changes), **options)


def test_a_control_that_is_too_short_in_a_trace_is_a_status():
    ends = jnp.array([0.5, 1.0, 1.5])
    run = lambda end: de.solve(along(LINE, tspan=(0.0, end)), de.Tsit5())
    sol = jax.vmap(run)(ends)
    assert [bool(ok) for ok in sol.success] == [True, True, False]
    assert int(sol.status[2]) == de.Status.bad_times
    assert np.isnan(sol.y1[2]).all()


@pytest.mark.parametrize("name", shortly(INTERPOLANTS, "linear"))
def test_times_that_do_not_increase_in_a_trace_are_a_status(name):
    """Equal ones, decreasing ones, padding before a time and at the start."""
    wrong = np.stack([TS] * 5)
    wrong[1, 2], wrong[2, 1:3], wrong[3, 2], wrong[4, 0] = TS[1], TS[2:0:-1], np.nan, np.nan
    run = lambda ts: de.solve(along(INTERPOLANTS[name](ts, XS)), de.Tsit5(), dt=0.25)
    sol = jax.vmap(run)(jnp.asarray(wrong))
    assert [int(s) for s in sol.status] == [0, *[int(de.Status.bad_times)] * 4]
    assert np.isnan(sol.y1[1:]).all()


def test_a_nan_among_values_that_are_not_known_is_a_status():
    run = lambda xs: de.solve(along(de.interp.Linear(TS, xs)), de.Tsit5())
    sol = jax.vmap(run)(jnp.stack([XS, jnp.asarray(XS).at[2, 1].set(jnp.nan)]))
    assert [bool(ok) for ok in sol.success] == [True, False]
    with pytest.raises(ValueError, match=r"xs has NaN at ts\[2\] = 0.45"):
        de.interp.Linear(TS, XS * np.array([1, 1, np.nan, 1, 1])[:, None])
