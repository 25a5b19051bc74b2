"""What a path is: a function of the key alone. And what is refused, or ends with a status."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq import zoo

KEY = jax.random.key(3)
KEYS = jax.random.split(jax.random.key(4), 5)
# A third, which is no dyadic part of the interval; one inside a step of any length; duplicates.
TS = jnp.array([0.0, 0.1, 2 / 3, 2 / 3, 1.0, 1.77, 2.0])


def drift(t, y, args):
    return jnp.stack([-args * y[0] ** 3 + jnp.sin(3 * t), 0 * y[1]])


def diffusion(t, y, args):
    return jnp.stack([0.6 * y[0] + 0.1, jnp.ones_like(y[1])])


# The second component is the Brownian motion itself; the first one makes the steps.
SEEN = de.SDEProblem(drift, diffusion, jnp.array([1.0, 0.0]), (0.0, 2.0), 1.0)
PLAIN = de.SDEProblem(lambda t, y, a: -a * y, lambda t, y, a: 0.3 * y, jnp.ones(2), (0.0, 1.0), 1.0)


def path(key=KEY, args=1.0, **options):
    return de.solve(SEEN.replace(args=args), key=key, **options)


def lanes(seed, **options):
    """W(t) of many paths. Lanes of keys, and of equations on one path, are the solves alone."""
    keys = jax.random.split(jax.random.key(seed), 4000)
    ys = jax.vmap(lambda key: path(key, **options).ys)(keys)
    each = np.stack([path(key, **options).ys for key in keys[:5]])
    np.testing.assert_allclose(ys[:5], each, rtol=1e-13)
    rates = jnp.array([0.5, 1.0, 2.0])
    shared = jax.jit(jax.vmap(lambda a: path(keys[0], a, **options).ys))(rates)
    np.testing.assert_allclose(shared, [path(keys[0], a, **options).ys for a in rates], rtol=1e-13)
    np.testing.assert_allclose(shared[:, :, 1], each[[0, 0, 0], :, 1], atol=1e-14)
    return ys[:, :, 1]


def test_the_path_does_not_depend_on_tolerance_or_rejections():
    # From a first step that is far too long: noise by itself rejects hardly any.
    found = [path(rtol=tol, atol=tol, saveat=TS, dt0=1.0) for tol in (1e-1, 1e-2, 1e-3)]
    assert len({int(sol.stats["steps"]) for sol in found}) == 3
    assert int(found[2].stats["rejected"]) > 0
    for sol in found[1:]:
        np.testing.assert_allclose(sol.ys[:, 1], found[0].ys[:, 1], atol=1e-14)
    hasty = path(saveat=TS, controller=de.PI(), dt0=1.0, rtol=1e-3, atol=1e-3)
    assert int(hasty.stats["rejected"]) > int(found[2].stats["rejected"])
    np.testing.assert_allclose(hasty.ys[:, 1], found[0].ys[:, 1], atol=1e-14)


@pytest.mark.thorough
def test_the_path_does_not_depend_on_what_is_saved():
    @jax.jit
    def dense():
        sol = path(dense=True, saveat="steps", max_saves=256)
        return sol.y1, sol.stats, sol.saved, sol.ys, sol(sol.ts), sol(TS)

    rows = path(saveat=TS)
    y1, stats, saved, ys, read, between = dense()
    np.testing.assert_allclose(y1, rows.y1, atol=0)
    assert int(stats["steps"]) == int(rows.stats["steps"])
    np.testing.assert_allclose(between, rows.ys, atol=1e-14)
    np.testing.assert_allclose(read[saved], ys[saved], atol=1e-14)
    padded = path(saveat=TS.at[4:].set(jnp.nan))
    np.testing.assert_array_equal(padded.ys[:4], rows.ys[:4])
    assert padded.saved.tolist() == [True] * 4 + [False] * 3


def test_an_input_that_jumps_is_exact_between_its_jumps():
    # SOSRI looks at its drift from t − 0.04 dt to t + 3.75 dt: past jumps on both sides.
    u = de.interp.Hold([0.0, 0.3, 0.7], [1.0, 2.0, 5.0])
    problem = de.SDEProblem(lambda t, y, u: u(t), lambda t, y, u: 0.0 * y, 0.0, (0.0, 1.0), u)
    sol = de.solve(problem, saveat=[0.25, 0.5, 1.0], key=jax.random.key(0))
    np.testing.assert_allclose(sol.ys, [0.25, 0.7, 2.6], rtol=1e-12)


@pytest.mark.thorough
def test_the_path_does_not_depend_on_stops_or_on_who_steps():
    rows = path(saveat=TS)
    stopped = path(saveat=TS, stops=TS[1:-1])
    assert int(stopped.stats["stops"]) == 4
    np.testing.assert_allclose(stopped.ys[:, 1], rows.ys[:, 1], atol=1e-13)
    assert int(stopped.stats["steps"]) <= int(rows.stats["steps"]) + 8, "a stop costs a step or two"
    state = de.init(SEEN, key=KEY)
    for t, y in zip(TS[1:], rows.ys[1:], strict=True):
        state = de.advance(state, t)
        np.testing.assert_allclose(state.y[1], y[1], atol=1e-13)
    assert state.status == de.Status.success
    state, turns = de.init(SEEN, key=KEY), 0
    while state.status == de.Status.running:
        state, turns = de.step(state), turns + 1
    assert turns == int(rows.stats["steps"])
    np.testing.assert_allclose(state.y, rows.y1, rtol=1e-12)
    moved = de.advance(de.init(SEEN, key=KEY).replace(t=1.0), 1.77)
    np.testing.assert_allclose(moved.y[1], rows.ys[5, 1] - rows.ys[4, 1], atol=1e-13)


@pytest.mark.thorough
def test_the_path_has_the_law_of_brownian_motion():
    at = np.array([0.3, 1.1, 2.0])
    w = lanes(0, rtol=0.3, atol=0.3, saveat=at)
    np.testing.assert_allclose(w.mean(0), 0.0, atol=4 * np.sqrt(2.0 / 4000))
    covariance = np.cov(np.asarray(w).T)
    np.testing.assert_allclose(covariance, np.minimum.outer(at, at), atol=0.1)
    rough = np.asarray(w[:, 1] - w[:, 0])
    assert abs(np.corrcoef(rough, w[:, 0])[0, 1]) < 4 / np.sqrt(4000)


def test_every_component_and_every_key_has_noise_of_its_own():
    ends = np.ravel([de.solve(PLAIN, key=key).y1 for key in KEYS])
    assert len(set(ends)) == 2 * len(KEYS)


def test_given_steps():
    given = {"method": de.EulerMaruyama(), "dt": 0.05}
    ts, between = np.linspace(0.0, 2.0, 41), np.linspace(0.05, 0.1, 9)
    at = np.sort([*ts, *between[1:-1]])
    steps = path(saveat="steps", **given)
    rows, dense = jax.jit(
        lambda: (path(saveat=at, **given), path(dense=True, **given)(jnp.asarray(between)))
    )()
    np.testing.assert_allclose(rows.ys[np.isin(at, ts)], steps.ys, atol=1e-15)
    assert int(rows.stats["steps"]) == 40, "rows shorten no step"
    listed = path(method=given["method"], controller=de.Fixed(ts), saveat="steps")
    np.testing.assert_allclose(listed.ys, steps.ys, rtol=1e-12)
    inside = rows.ys[1:10]
    np.testing.assert_allclose(dense, inside, atol=1e-14)
    assert np.abs(np.diff(inside[:, 1])).min() > 1e-4, "between the ends it is a path, and no line"


def test_inside_a_given_step_the_path_is_a_bridge():
    at = np.array([0.5, 1.5, 2.0])
    w = lanes(1, method=de.EulerMaruyama(), dt=2.0, saveat=at)
    np.testing.assert_allclose(np.cov(np.asarray(w).T), np.minimum.outer(at, at), atol=0.1)


@pytest.mark.thorough
def test_noise_of_each_kind_in_a_tree_of_arrays():
    y0 = {"s": 1.0, "v": jnp.array([0.5, 0.2])}
    minus = lambda t, y, a: jax.tree.map(jnp.negative, y)
    columns = lambda t, y, a: {"s": jnp.array([0.1, 0.2]), "v": 0.1 * jnp.ones((2, 2))}
    some = lambda t, y, a: jax.tree.map(lambda x: 0.1 * x, y)
    at = jnp.array([0.0, 0.4, 1.0])
    flat, matrix = jnp.array([1.0, 0.5, 0.2]), jnp.array([[0.1, 0.2], [0.1, 0.1], [0.1, 0.1]])
    for noise, g, packed in (
        ("general", columns, lambda t, y, a: matrix), ("scalar", some, lambda t, y, a: 0.1 * y),
    ):  # fmt: skip
        tree = de.SDEProblem(minus, g, y0, (0.0, 1.0), noise=noise)
        same = de.SDEProblem(lambda t, y, a: -y, packed, flat, (0.0, 1.0), noise=noise)
        one, two = (de.solve(p, de.EulerHeun(), dt=0.1, key=KEY, saveat=at) for p in (tree, same))
        assert jax.tree.structure(one.ys) == jax.tree.structure(y0)
        np.testing.assert_allclose(np.column_stack([one.ys["s"], one.ys["v"]]), two.ys, rtol=1e-12)


def test_correlated_noise_has_its_covariance():
    factor = np.linalg.cholesky(np.array([[1.0, -0.7], [-0.7, 1.0]]))
    problem = de.SDEProblem(
        lambda t, y, a: 0 * y, lambda t, y, a: jnp.asarray(factor), jnp.zeros(2), (0.0, 1.0),
        noise="general", additive=True,
    )  # fmt: skip
    keys = jax.random.split(KEY, 4000)
    y1 = np.asarray(jax.vmap(lambda key: de.solve(problem, key=key).y1)(keys))
    np.testing.assert_allclose(np.cov(y1.T), factor @ factor.T, atol=0.1)


# --- Itô and Stratonovich -------------------------------------------------------------------------

MIXED = {
    "own": ("diagonal", de.EulerHeun(), lambda t, y, a: 0.5 * jnp.sin(y) + 0.3),
    "others": (
        "diagonal", de.EulerMaruyama(),
        lambda t, y, a: 0.5 * jnp.stack([y[0] * y[1], jnp.cos(y[0])]),
    ),
    "scalar": (
        "scalar", de.EulerHeun(), lambda t, y, a: 0.5 * jnp.stack([y[1], jnp.sin(y[0])]),
    ),
    "general": (
        "general", de.EulerMaruyama(), lambda t, y, a: 0.4 * jnp.stack([y, jnp.sin(y[::-1])]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MIXED)
def test_a_drift_is_converted_by_half_of_the_sum_of_columns(kind):
    noise, method, g = MIXED[kind]
    f, y0 = lambda t, y, a: -y, jnp.array([0.7, -0.4])

    def matrix(y):
        value = g(0.0, y, None)
        return {"diagonal": jnp.diag, "scalar": lambda x: x[:, None]}.get(noise, lambda x: x)(value)

    def correction(y):
        return jnp.einsum("ijk,kj->i", jax.jacobian(matrix)(y), matrix(y)) / 2

    options = {"noise": noise, "interpretation": "stratonovich"}
    strat = de.SDEProblem(f, g, y0, (0.0, 1.0), **options)
    ito = de.SDEProblem(lambda t, y, a: -y + correction(y), g, y0, (0.0, 1.0), noise=noise)
    ends = [de.solve(p, method, dt=0.1, key=KEY).y1 for p in (strat, ito)]
    np.testing.assert_allclose(*ends, rtol=1e-12)


def test_both_interpretations_converge_to_their_own_solution():
    case = zoo.geometric_brownian()
    b = case.args[1]
    ends = {}
    for word in ("ito", "stratonovich"):
        problem = case.problem().replace(interpretation=word)
        for method in (de.Milstein(), de.SOSRI()):
            ends[word, repr(method)] = float(de.solve(problem, method, dt=1e-3, key=KEY).y1[0])
    for method in ("Milstein()", "SOSRI()"):
        ratio = ends["stratonovich", method] / ends["ito", method]
        np.testing.assert_allclose(ratio, np.exp(b**2 / 2), rtol=2e-2)


# --- single precision, failures, refusals ---------------------------------------------------------


def test_single_precision():
    with jax.enable_x64(False):
        problem = de.SDEProblem(
            lambda t, y, a: -y, lambda t, y, a: 0.1 * y, jnp.ones(2, jnp.float32), (0.0, 2.0)
        )
        at = jnp.linspace(0.0, 2.0, 9)
        loose, tight = (de.solve(problem, key=KEY, rtol=t, atol=t, saveat=at) for t in (1e-2, 1e-4))
        assert loose.ys.dtype == jnp.float32
        np.testing.assert_allclose(loose.ys, tight.ys, atol=2e-2)
        fixed = de.solve(problem, de.EulerMaruyama(), dt=0.01, key=KEY, saveat=at)
        steps = de.solve(problem, de.EulerMaruyama(), dt=0.01, key=KEY, saveat="steps")
        np.testing.assert_array_equal(fixed.ys, steps.ys[::25])


def test_a_lane_that_fails_stops_where_it_is():
    bad = lambda t, y, a: jnp.where((a > 0) & (t > 0.5), jnp.inf, -y)
    problem = de.SDEProblem(bad, lambda t, y, a: 0.1 * y, 1.0, (0.0, 1.0))
    at = jnp.linspace(0.0, 1.0, 5)

    def go(a, key):
        return de.solve(
            problem.replace(args=a), de.EulerMaruyama(), dt=0.125, key=key, saveat=at, throw=False
        )

    def early(a, key):
        sol = go(a, key)
        return jnp.sum(sol.ys[:3]), sol

    gradient, sol = jax.jit(jax.vmap(jax.grad(early, has_aux=True), (0, None)))(
        jnp.array([1.0, -1.0]), KEY
    )
    alone = go(1.0, KEY), go(-1.0, KEY)
    assert sol.status.tolist() == [de.Status.nonfinite, de.Status.success]
    for i in range(2):
        np.testing.assert_allclose(sol.ys[i], alone[i].ys, rtol=1e-13)
        assert (sol.last.t[i], sol.last.dt[i]) == (alone[i].last.t, alone[i].last.dt)
        for name in ("steps", "rejected"):
            assert sol.stats[name][i] == alone[i].stats[name]
    assert float(sol.last.t[0]) == 0.625
    assert sol.saved[0].tolist() == [True, True, True, False, False]
    assert np.isfinite(gradient).all()
    with pytest.raises(de.SolveError, match=r"0\.625"):
        de.solve(problem.replace(args=1.0), de.EulerMaruyama(), dt=0.125, key=KEY)


ODE = de.ODEProblem(lambda t, y, a: -y, 1.0, (0.0, 1.0))
GENERAL = de.SDEProblem(
    lambda t, y, a: -y, lambda t, y, a: jnp.stack([y, y]), jnp.ones(2), (0.0, 1.0), noise="general"
)
# The noise of a price depends on its volatility, which has noise of its own.
PRICE = PLAIN.replace(diffusion=lambda t, y, a: jnp.stack([y[0] * y[1], 0.3 * y[1]]))
REFUSED = {
    "components that see others, controlled": (
        lambda: de.solve(PRICE, key=KEY), ValueError, "depends on others of y.*give dt=",
    ),
    "components that see others by SRI": (
        lambda: de.solve(PRICE, de.SOSRI(), key=KEY), TypeError, "EulerMaruyama.*dt=",
    ),
    "components that see others by Milstein": (
        lambda: de.solve(PRICE, de.Milstein(), dt=0.1, key=KEY), TypeError, "order would be 1/2",
    ),
    "no key": (lambda: de.solve(PLAIN), ValueError, "key=jax.random.key"),
    "a number": (lambda: de.solve(PLAIN, key=0), TypeError, "key is 0"),
    "many keys": (lambda: de.solve(PLAIN, key=KEYS), TypeError, "5 keys.*jax.vmap"),
    "a key for an ODE": (lambda: de.solve(ODE, key=KEY), TypeError, "leave key out"),
    "an ODE's method": (lambda: de.solve(PLAIN, de.Tsit5(), key=KEY), TypeError, "SOSRI"),
    "an SDE's method": (lambda: de.solve(ODE, de.SOSRI()), TypeError, "SDEProblem"),
    "general, controlled": (lambda: de.solve(GENERAL, key=KEY), ValueError, "give dt="),
    "general by SRI": (lambda: de.solve(GENERAL, de.SOSRI(), key=KEY), TypeError, "EulerMaruyama"),
    "not additive": (lambda: de.solve(PLAIN, de.SOSRA(), key=KEY), TypeError, "SOSRI"),
    "said to be additive": (
        lambda: de.solve(PLAIN.replace(additive=True), key=KEY), TypeError, "full_like",
    ),
    "a matrix for diagonal": (
        lambda: de.solve(GENERAL.replace(noise="diagonal"), key=KEY), TypeError,
        r"diffusion returned float64\[2, 2\].*noise='general'",
    ),
    "a vector for general": (
        lambda: de.solve(PLAIN.replace(noise="general"), de.EulerMaruyama(), dt=0.1, key=KEY),
        TypeError, "one more axis at the end",
    ),
    "backwards": (
        lambda: de.solve(PLAIN.replace(tspan=(1.0, 0.0)), key=KEY), ValueError, "forwards",
    ),
    "complex and implicit": (
        lambda: de.solve(PLAIN.replace(y0=1j), de.ImplicitEM(), dt=0.1, key=KEY), TypeError, "real",
    ),
    "a word": (lambda: PLAIN.replace(noise="full"), ValueError, "'general' is wanted"),
    "steps unknown": (lambda: de.solve(PLAIN, de.EulerMaruyama(), key=KEY), ValueError, "dt="),
    "order of arguments": (
        lambda: de.solve(PLAIN.replace(diffusion=lambda y, t, a: y), key=KEY), TypeError, "t first",
    ),
    "a slope": (
        lambda: de.solve(PLAIN, de.EulerHeun(), dt=0.5, key=KEY, dense=True).derivative(0.5),
        ValueError, "no derivative",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what):
    call, error, words = REFUSED[what]
    with pytest.raises(error, match=words):
        call()


def test_a_backward_interval_that_is_traced_is_a_status():
    status = lambda t1: de.solve(PLAIN.replace(tspan=(0.0, t1)), key=KEY, throw=False).status
    found = jax.jit(jax.vmap(status))(jnp.array([-1.0, 1.0]))
    assert found.tolist() == [de.Status.bad_times, de.Status.success]


def test_the_default_method_and_tolerance():
    named = de.solve(PLAIN, de.SOSRI(), key=KEY, rtol=1e-2, atol=1e-2)
    np.testing.assert_array_equal(de.solve(PLAIN, key=KEY).y1, named.y1)
    for problem in (GENERAL, PRICE):
        found = [de.solve(problem, m, key=KEY, dt=0.1).y1 for m in (None, de.EulerMaruyama())]
        np.testing.assert_array_equal(*found)


def test_noise_that_is_additive_need_not_be_declared_to_be():
    mixed = GENERAL.replace(diffusion=lambda t, y, a: jnp.array([[1.0, 0.0], [-0.7, 0.7]]))
    declared = de.solve(mixed.replace(additive=True), key=KEY).y1
    np.testing.assert_array_equal(de.solve(mixed, key=KEY).y1, declared)


def test_controlled_steps_leave_the_mean_right():
    """The path is sinh(t + W). Rejections that see the noise once moved its mean by 2.8e-3."""
    root = lambda y: jnp.sqrt(y[0] ** 2 + 1)
    problem = de.SDEProblem(
        lambda t, y, a: jnp.stack([y[0] / 2 + root(y), 0 * y[1]]),
        lambda t, y, a: jnp.stack([root(y), jnp.ones_like(y[1])]),
        jnp.zeros(2), (0.0, 1.0), noise="scalar",
    )  # fmt: skip
    end = lambda key: de.solve(problem, key=key, rtol=1e-3, atol=1e-3).y1
    y, w = jax.jit(jax.vmap(end))(jax.random.split(jax.random.key(8), 2000)).T
    errors = np.asarray(y - jnp.sinh(1 + w))  # on its path
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(errors.size) < 4e-4
