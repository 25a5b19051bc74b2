"""The index of algebraic equations: recognised at the start, and solved where it is stated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.algebra import is_singular, least_condition
from diffeq.problems.structural_index import pencil_index, structure_of

G = 9.81
MASS = [1.0, 1.0, 1.0, 1.0, 0.0]
INDEX = {1: None, 2: [1, 1, 1, 1, 2], 3: [1, 1, 2, 2, 3]}
START = [0.6, -0.8, 0.0, 0.0, 0.8 * G]
FIXED = {"dt": 1 / 8}


def constraint(level, y, g):
    """That a pendulum has length 1, and its derivatives, by index."""
    x, z, u, w, force = y
    if level == 3:
        return x**2 + z**2 - 1
    return x * u + z * w if level == 2 else u**2 + w**2 - force * (x**2 + z**2) - g * z


def pendulum(level, *, stated=True, y0=START, g=G, **changes):
    def f(t, y, g):
        x, z, u, w, force = y
        return jnp.stack([u, w, -force * x, -force * z - g, constraint(level, y, g)])

    index = INDEX[level] if stated else None
    problem = de.DAEProblem(f, y0, (0.0, 1.0), g, mass_matrix=MASS, index=index)
    return problem.replace(**changes)


def exact(g, t=1.0):
    """By its angle: an ODE."""
    field = lambda t, y, g: jnp.stack([y[1], -g * jnp.sin(y[0])])
    problem = de.ODEProblem(field, [jnp.arctan2(0.6, 0.8), 0.0], (0.0, t), g)
    angle, w = de.solve(problem, de.Vern9(), rtol=1e-13, atol=1e-14).y1
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    return jnp.stack([sine, -cosine, w * cosine, w * sine, w * w + g * cosine])


@pytest.fixture(scope="module")
def end():
    return np.asarray(exact(G))


# --- what is recognised ---------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "times"), [(2, "once"), (3, "twice")])
def test_a_higher_index_is_refused_and_named(level, times):
    words = f"The index is {level}: .* y\\[4\\], .* f\\[4\\] is differentiated {times}. .*RadauIIA5"
    with pytest.raises(de.SolveError, match=words) as caught:
        de.solve(pendulum(level, stated=False), de.Rosenbrock23())
    assert caught.value.status == de.Status.wrong_index
    assert f"index={INDEX[level]}" in str(caught.value)


def test_it_is_refused_whatever_finds_the_start():
    problem = pendulum(3, stated=False)
    with pytest.raises(de.SolveError, match="The index is 3"):
        de.consistent(problem)
    for init in ("check", "given"):
        sol = de.solve(problem, de.Rosenbrock23(), init=init, throw=False)
        assert sol.status == de.Status.wrong_index
        assert sol.stats["steps"] == 0


def test_a_residual_of_index_2_is_refused():
    def residual(t, y, dy, args):
        return {"force": dy["q"] - y["force"], "q": y["q"] - jnp.sin(t)}

    problem = de.ImplicitDAEProblem(
        residual, {"force": 1.0, "q": 0.0}, (0.0, 1.0), dy0={"force": 0.0, "q": 1.0},
        differential={"force": False, "q": True},
    )  # fmt: skip
    with pytest.raises(de.SolveError, match=r"index is 2: .*y\['force'\].*Write a DAEProblem"):
        de.solve(problem)


def test_equations_that_depend_on_each_other_are_named():
    twice = lambda t, y, a: jnp.stack([-y[0], y[1] + y[2] - 1, 2 * (y[1] + y[2]) - 2])
    problem = de.DAEProblem(twice, [1.0, 0.5, 0.5], (0.0, 1.0), mass_matrix=[1.0, 0.0, 0.0])
    with pytest.raises(de.SolveError, match=r"depend on each other, f\[1\], f\[2\]"):
        de.solve(problem, de.Rosenbrock23())


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_a_start_on_a_fold_and_scales_are_no_higher_index(scale):
    # ∂g/∂z = 2 z is 0 at the start alone, which z leaves as √t.
    fold = lambda t, y, s: jnp.stack([1.0, s * (y[1] ** 2 - y[0])])
    problem = de.DAEProblem(fold, [0.0, 0.0], (0.0, 1.0), scale, mass_matrix=[1.0, 0.0])
    sol = de.solve(problem, de.Rosenbrock23(), throw=False, max_steps=4)
    assert sol.status != de.Status.wrong_index
    sol = de.solve(problem.replace(y0=[1.0, 1.0]), de.Rosenbrock23(), max_steps=64)
    np.testing.assert_allclose(sol.y1, [2, np.sqrt(2)], rtol=1e-2)


def test_a_stated_index_that_is_another_is_refused():
    for stated in (2, 3):
        problem = pendulum(1, index=INDEX[stated])
        with pytest.raises(de.SolveError, match=r"The index is 1: leave index= out\."):
            de.solve(problem, **FIXED)
    with pytest.raises(de.SolveError, match=r"The index is 3: .* index=\[1, 1, 2, 2, 3\]"):
        de.solve(pendulum(3, index=INDEX[2]), **FIXED)


def test_a_failure_of_algebraic_equations_is_said_as_one():
    # Velocities and forces of index 1 are held to a tolerance that no step attains.
    with pytest.raises(de.SolveError) as caught:
        de.solve(pendulum(3, index=[1, 1, 1, 1, 3]))
    assert caught.value.status in (de.Status.step_too_small, de.Status.newton_failed)


# --- what is solved -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "orders"), [(2, [5, 5, 5, 5, 3]), (3, [5, 5, 3, 3, 2])], ids=["2", "3"]
)
def test_the_orders_of_radau(level, orders, end):
    # Hairer & Wanner, table VII.4.1 and theorem VII.4.
    run = lambda n: np.abs(np.asarray(de.solve(pendulum(level), dt=1 / n).y1) - end)
    slopes = np.log2(run(16) / run(32))
    np.testing.assert_allclose(slopes[:4], orders[:4], atol=0.1)
    assert orders[4] - 0.1 < slopes[4] < orders[4] + 0.5


@pytest.mark.parametrize("level", [pytest.param(2, marks=pytest.mark.thorough), 3])
def test_controlled_steps(level, end):
    sol = de.solve(pendulum(level), rtol=1e-10, atol=1e-10)
    assert "RadauIIA5" in sol.about.method
    assert sol.stats["rejected"] < 0.1 * sol.stats["steps"]
    error = np.abs(np.asarray(sol.y1) - end)
    assert (error < ([1e-10] * 4 + [1e-7] if level == 2 else [1e-9, 1e-9, 1e-7, 1e-7, 1e-4])).all()


@pytest.mark.parametrize("level", [pytest.param(2, marks=pytest.mark.thorough), 3])
def test_gradients(level):
    # The multiplier of y0 is a guess: it is found, and moves with g.
    run = lambda g: de.solve(pendulum(level, y0=[*START[:4], 7.0], g=g), **FIXED).y1
    reverse, h = jax.jacrev(run)(G), 1e-4
    np.testing.assert_allclose(reverse, (run(G + h) - run(G - h)) / (2 * h), rtol=1e-6, atol=1e-7)


@pytest.mark.thorough
def test_inside_transformations_and_as_data():
    problem = pendulum(3, index=jnp.array(INDEX[3]))
    run = lambda problem: de.solve(problem, **FIXED).y1
    plain = run(problem)
    np.testing.assert_allclose(jax.jit(run)(problem), plain, rtol=1e-12, atol=1e-12)
    forward = jax.jacfwd(lambda g: run(problem.replace(args=g)))(G)
    backward = jax.jacrev(lambda g: run(problem.replace(args=g)))(G)
    np.testing.assert_allclose(forward, backward, rtol=1e-9, atol=1e-9)
    many = jax.vmap(lambda g: run(problem.replace(args=g)))(jnp.array([9.0, G]))
    np.testing.assert_allclose(many[1], plain, rtol=1e-9, atol=1e-9)
    with pytest.raises(TypeError, match="index is traced; whole numbers are wanted"):
        jax.jit(lambda index: run(problem.replace(index=index)))(jnp.array(INDEX[3]))


@pytest.mark.thorough
def test_a_tree_has_its_index_by_leaves(end):
    def f(t, y, g):
        q, v, force = y["q"], y["v"], y["force"]
        return {"q": v, "v": -force * q - jnp.array([0, g]), "force": q @ q - 1}

    y0 = {"q": jnp.array(START[:2]), "v": jnp.zeros(2), "force": 7.0}
    mass = {"q": np.ones(2), "v": np.ones(2), "force": 0.0}
    problem = de.DAEProblem(f, y0, (0.0, 1.0), G, mass_matrix=mass)
    with pytest.raises(de.SolveError) as caught:
        de.solve(problem)
    assert "index={'force': 3, 'q': [1, 1], 'v': [2, 2]}" in str(caught.value)
    sol = de.solve(problem.replace(index={"force": 3, "q": 1, "v": 2}), **FIXED)
    np.testing.assert_allclose(sol.y1["q"], end[:2], atol=1e-4)


# --- initial values -------------------------------------------------------------------------------


def test_hidden_constraints_of_the_start():
    off = pendulum(3, y0=[0.6, -0.8, 0.3, 0.0, 7.0])
    for init, words in (("consistent", r"f\[4\] differentiated"), ("check", r"f\[4\] diff")):
        with pytest.raises(de.SolveError, match=words):
            de.solve(off, init=init, **FIXED)
    near = de.consistent(pendulum(3, y0=[0.6001, -0.8, 0.0, 0.0, 7.0])).y0
    assert abs(near[0] ** 2 + near[1] ** 2 - 1) < 1e-14
    np.testing.assert_allclose(near[4], -G * near[1], rtol=1e-12)
    kept = off.replace(
        y0=[0.6, -1.0, 0.3, 0.0, 0.0], differential=[True, False, True, False, False]
    )
    x, z, u, w, force = de.consistent(kept).y0
    np.testing.assert_allclose([x, z, u, w], [0.6, -0.8, 0.3, 0.225], rtol=1e-12)
    np.testing.assert_allclose(force, u**2 + w**2 - G * z, rtol=1e-12)


# --- what is refused before anything runs ---------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": 2}, "index is 2; whole numbers from 1 to 3"),
        ({"index": [1, 1, 2, 2]}, "index is .*; whole numbers from 1 to 3"),
        ({"index": [1, 1, 2, 2, 4]}, "index is .*; whole numbers from 1 to 3"),
        ({"index": [1.0, 1.0, 2.0, 2.0, 3.0]}, "index is .*; whole numbers from 1 to 3"),
        ({"index": [2, 2, 1, 1, 1]}, "none has one above 1; leave index out"),
        ({"differential": [True, False, False, False, True]}, "differential is True for"),
        ({"mass_matrix": np.ones((5, 5))}, "algebraic equations are zero rows"),
    ],
)
def test_bad_statements(changes, message):
    with pytest.raises(ValueError, match=message):
        de.solve(pendulum(3, **changes))


@pytest.mark.parametrize("method", [de.Rodas5P(), de.BDF(), de.KenCarp4(), de.Tsit5()])
def test_other_methods_are_refused(method):
    with pytest.raises(TypeError, match=r"index has a 3: choose de\.RadauIIA5\(\)"):
        de.solve(pendulum(3), method)


# --- the parts ------------------------------------------------------------------------------------


def test_a_matrix_is_singular_whatever_its_scale():
    rng = np.random.default_rng(5)
    matrix = jnp.array(rng.normal(size=(6, 6)))
    rows, columns = 10.0 ** rng.uniform(-9, 9, size=(2, 6))
    scaled = rows[:, None] * matrix * columns
    exact = np.max(np.abs(np.linalg.eigvals(np.abs(np.linalg.inv(matrix)) @ np.abs(matrix))))
    for found in (least_condition(matrix), least_condition(scaled)):
        assert exact <= found * (1 + 1e-12) < 2 * exact
    assert not is_singular(scaled)
    matrix = matrix.at[5].set(matrix[0] - 3 * matrix[1])
    assert is_singular(rows[:, None] * matrix * columns)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_laplacian_is_singular_where_it_is_periodic(kind):
    cells = 400
    matrix = 2 * np.eye(cells) - np.eye(cells, k=1) - np.eye(cells, k=-1)
    assert not is_singular(jnp.asarray(matrix, kind))
    matrix[0, -1] = matrix[-1, 0] = -1
    assert is_singular(jnp.asarray(matrix, kind))


def test_the_structure_of_a_chain_of_integrators():
    # y1' = y2, …, y_{n−1}' = y_n, 0 = y1 − s(t): index n.
    n = 5
    slopes, states = np.zeros((2, n, n), bool)
    for i in range(n - 1):
        slopes[i, i], states[i, i + 1] = True, True
    states[n - 1, 0] = True
    found = structure_of(slopes, states)
    assert found.indices.tolist() == [1, 2, 3, 4, 5]
    assert found.times.tolist() == [3, 2, 1, 0, 4]
    assert pencil_index(slopes.astype(float), states.astype(float)) == n
    assert pencil_index(np.zeros((2, 2)), np.ones((2, 2))) is None
    assert structure_of(np.zeros((2, 2), bool), np.array([[True, False]] * 2)) is None


@pytest.mark.parametrize("level", [2, 3])
def test_controlled_steps_are_read_inside(level):
    """Rows, dense output and events of a problem of higher index do not shorten its steps."""
    options = {"rtol": 1e-6, "atol": 1e-6}
    whole = de.solve(pendulum(level), **options)
    rows = de.solve(pendulum(level), saveat=[0.3, 0.5001, 1.0], **options)
    np.testing.assert_allclose(rows.ys[1, :4], exact(G, 0.5001)[:4], atol=2e-5)
    np.testing.assert_allclose(rows.ys[1, 4], exact(G, 0.5001)[4], atol=2e-2)
    dense = de.solve(pendulum(level), dense=True, **options)
    np.testing.assert_allclose(dense(0.3), rows.ys[0], rtol=1e-9)
    for sol in (rows, dense):
        assert sol.stats["steps"] + sol.stats["rejected"] < 1.5 * whole.stats["steps"]
    bottom = de.solve(pendulum(level), events=de.Event(lambda t, y, g: y[0]), **options)
    np.testing.assert_allclose(exact(G, float(bottom.t1))[0], 0.0, atol=1e-5)
