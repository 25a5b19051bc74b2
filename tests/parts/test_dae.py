"""Mass matrices: what solve starts from, what it solves, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import diffeq as de

RATES = jnp.array([0.04, 3e7, 1e4])
DIAGONAL = np.array([1.0, 1.0, 0.0])
GUESS = [1.0, 0.0, 0.3]
TOLERANCES = {"rtol": 1e-7, "atol": 1e-10}
# Of few stages: what is compiled most quickly.
LIGHT = de.Rosenbrock23()


def kinetics(t, y, k):
    a, b, c = y
    slow, back, fast = k[0] * a, k[2] * b * c, k[1] * b * b
    return jnp.stack([back - slow, slow - back - fast, fast])


def balanced(t, y, k):
    return kinetics(t, y, k).at[2].set(jnp.sum(y) - 1)


def robertson(**changes):
    problem = de.DAEProblem(balanced, GUESS, (0.0, 40.0), RATES, mass_matrix=DIAGONAL)
    return problem.replace(**changes)


@pytest.fixture(scope="module")
def expected():
    ode = de.ODEProblem(kinetics, [1.0, 0.0, 0.0], (0.0, 40.0), RATES)
    return de.solve(ode, de.Rodas5P(), **TOLERANCES).y1


@pytest.mark.parametrize(
    "mass",
    [DIAGONAL, np.diag(DIAGONAL), [1, 1, 0], lambda k: jnp.diag(DIAGONAL) * k[0] / 0.04],
    ids=["diagonal", "matrix", "list", "function"],
)
def test_every_way_to_write_a_mass_matrix(mass, expected):
    sol = de.solve(robertson(mass_matrix=mass), LIGHT, rtol=1e-7, atol=1e-11)
    np.testing.assert_allclose(sol.y1, expected, rtol=1e-5)
    assert abs(float(jnp.sum(sol.y1)) - 1) < 1e-12


def test_the_default_method(expected):
    sol = de.solve(robertson(), **TOLERANCES)
    assert "Rodas5P" in sol.about.method
    np.testing.assert_allclose(sol.y1, expected, rtol=1e-6)


def test_a_tree_a_matrix_and_other_coordinates(expected):
    # y = T z makes M T of M: a dense matrix of rank 2 whose null spaces are no unit vectors.
    T = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.3, -0.2, 1.0]])
    S = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])

    def mixed(t, z, k):
        rate = S @ balanced(t, T @ jnp.concatenate([z["a"], z["b"][None]]), k)
        return {"a": rate[:2], "b": rate[2]}

    start = np.linalg.solve(T, GUESS)
    problem = de.DAEProblem(
        mixed, {"a": start[:2], "b": start[2]}, (0.0, 40.0), RATES,
        mass_matrix=S @ np.diag(DIAGONAL) @ T,
    )  # fmt: skip
    z = de.solve(problem, LIGHT, rtol=1e-7, atol=1e-11).y1
    np.testing.assert_allclose(T @ np.append(z["a"], z["b"]), expected, rtol=1e-5)
    y0 = de.consistent(problem).y0
    np.testing.assert_allclose(T @ np.append(y0["a"], y0["b"]), [1, 0, 0], atol=1e-14)


def test_regular_mass_matrix_is_an_ode():
    mass = np.array([[2.0, 1.0], [0.0, 4.0]])
    field = lambda t, y, a: jnp.stack([-y[0] + jnp.sin(t), y[0] * y[1]])
    dae = de.DAEProblem(field, [1.0, 0.5], (0.0, 2.0), mass_matrix=mass)
    inverse = np.linalg.inv(mass)
    ode = de.ODEProblem(lambda t, y, a: inverse @ field(t, y, a), [1.0, 0.5], (0, 2.0))
    at = np.linspace(0.0, 2.0, 5)
    a, b = (de.solve(p, LIGHT, saveat=at, **TOLERANCES) for p in (dae, ode))
    np.testing.assert_allclose(a.y1, b.y1, rtol=1e-8)
    np.testing.assert_allclose(a.ys, b.ys, rtol=1e-7)


@pytest.mark.thorough
def test_backwards_and_by_hand():
    # A DAE that can be turned round: the circle.
    circle = lambda t, y, r: jnp.stack([-y[1], y[0] ** 2 + y[1] ** 2 - r**2])
    problem = de.DAEProblem(circle, [0.0, 0.9], (0.0, 1.0), 1.0, mass_matrix=[1.0, 0.0])
    way = {"method": de.Rodas4(), **TOLERANCES}
    along = lambda t1: de.solve(problem.replace(tspan=(0.0, t1)), dense=True, **way)
    sol = along(1.0)
    np.testing.assert_allclose(sol.y1, [-np.sin(1), np.cos(1)], rtol=1e-6)
    np.testing.assert_allclose(sol.derivative(0.5), [-np.cos(0.5), -np.sin(0.5)], rtol=1e-3)
    np.testing.assert_allclose(along(-1.0).y1, [np.sin(1), np.cos(1)], rtol=1e-6)
    np.testing.assert_allclose(along(0.0).derivative(0.0), [-1, 0], atol=1e-12)
    state = de.init(problem, **way)
    np.testing.assert_allclose(state.y, [0, 1], atol=1e-15)
    state = de.advance(de.step(state), 1.0)
    np.testing.assert_allclose(state.y, [-np.sin(1), np.cos(1)], rtol=1e-6)


# --- consistent initial values --------------------------------------------------------------------


def test_differential_parts_are_kept():
    y0 = de.consistent(robertson(y0=[0.7, 1e-5, 5.0])).y0
    np.testing.assert_allclose(y0, [0.7, 1e-5, 0.3 - 1e-5], rtol=1e-12)
    other = robertson(y0=[5.0, 1e-5, 0.3], differential=[False, True, True])
    np.testing.assert_allclose(de.consistent(other).y0, [0.7 - 1e-5, 1e-5, 0.3], rtol=1e-12)
    np.testing.assert_allclose(de.solve(other, LIGHT, saveat=[0.0]).ys[0], [0.7 - 1e-5, 1e-5, 0.3])


def test_a_far_guess():
    # 0 = x + y + y⁵ − 4: full Newton steps from 50 shrink by 4/5 each.
    steep = lambda t, y, a: jnp.stack([y[1], y[0] + y[1] + y[1] ** 5 - 4])
    problem = de.DAEProblem(steep, [2.0, 50.0], (0.0, 1.0), mass_matrix=[1.0, 0.0])
    np.testing.assert_allclose(de.consistent(problem).y0, [2, 1], rtol=1e-14)


def test_without_consistent_values():
    empty = lambda t, y, a: jnp.stack([-y[0], y[0] ** 2 + y[1] ** 2 + 1])
    problem = de.DAEProblem(empty, [1.0, 0.5], (0.0, 1.0), mass_matrix=[1.0, 0.0])
    for call in (de.solve, de.consistent, de.init):
        way = () if call is de.consistent else (LIGHT,)
        with pytest.raises(
            de.SolveError, match=r"They miss by \[.*2\.25\].* component 1"
        ) as caught:
            call(problem, *way)
        assert caught.value.status == de.Status.inconsistent
    # One bad sample in a batch, and the others.
    sum_to = lambda t, y, a: jnp.stack([-y[0], y[0] ** 2 + y[1] ** 2 - a])
    problem = problem.replace(f=sum_to, y0=[1.0, 0.8])
    run = lambda a: de.solve(problem.replace(args=a), LIGHT, saveat=[1.0], rtol=1e-5)
    sol = jax.vmap(run)(np.array([2.0, 0.5]))
    assert sol.status.tolist() == [de.Status.success, de.Status.inconsistent]
    np.testing.assert_allclose(sol.ys[0, 0], [np.exp(-1), np.sqrt(2 - np.exp(-2))], rtol=1e-3)
    assert np.isnan(sol.ys[1]).all()
    assert sol.stats["steps"].tolist()[1] == 0
    inside = jax.jit(lambda a: de.consistent(problem.replace(args=a)).y0)
    assert np.isnan(inside(0.5)).all()


def test_index_2_is_no_consistent_start():
    # The velocity of a pendulum's multiplier: 0 = x does not determine z.
    index2 = lambda t, y, a: jnp.stack([y[1], y[0] - jnp.sin(t) - 1])
    problem = de.DAEProblem(index2, [0.5, 0.0], (0.0, 1.0), mass_matrix=[1.0, 0.0])
    with pytest.raises(de.SolveError, match="do not determine them"):
        de.solve(problem)


def test_init():
    with pytest.raises(de.SolveError, match=r"\[.*0\.3\]"):
        de.solve(robertson(), init="check")
    line = lambda t, y, a: jnp.stack([-y[0], y[0] + y[1] - 1])
    problem = de.DAEProblem(line, [1.0, 0.0], (0.0, 1.0), mass_matrix=[1.0, 0.0])
    options = {"saveat": [0.0, 1.0], "throw": False}
    run = lambda y0, way: de.solve(problem.replace(y0=y0), LIGHT, init=way, **options)
    good = [run([1.0, 0.0], way) for way in ("consistent", "check", "given")]
    assert all(sol.success for sol in good)
    assert len({int(sol.stats["steps"]) for sol in good}) == 1
    assert run([1.0, 0.3], "given").ys[0, 1] == 0.3
    with pytest.raises(ValueError, match="init is 'guess'; 'consistent', 'check' or 'given'"):
        de.solve(robertson(), init="guess")


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mass_matrix": jnp.ones(2)}, r"mass_matrix is float64\[2\]; .* of shape \(3, 3\)"),
        ({"mass_matrix": {"a": 1.0}}, "mass_matrix is"),
        ({"mass_matrix": jnp.array([1.0, jnp.nan, 0.0])}, "mass_matrix has NaN"),
        ({"differential": [True, False]}, "differential is bool"),
        ({"differential": [True, True, True]}, r"differential has 3 .* rank 2"),
        ({"jac": 3.0}, "jac is 3.0"),
    ],
    ids=lambda x: str(x)[:30],
)  # fmt: skip
def test_bad_problems(changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        de.solve(robertson(**changes))


def test_explicit_methods_are_refused():
    with pytest.raises(TypeError, match="a mass-matrix problem needs an implicit method: Rodas5P"):
        de.solve(robertson(), de.Tsit5())
    with pytest.raises(TypeError, match="implicit method"):
        de.solve(robertson(), de.VelocityVerlet(), dt=0.1)
    with pytest.raises(TypeError, match="a DAEProblem is wanted"):
        de.consistent(de.ODEProblem(kinetics, GUESS, (0.0, 1.0)))


# --- Jacobians ------------------------------------------------------------------------------------


def nonlinear(t, y, k):
    return {"x": -k * y["x"] ** 2 + y["v"], "v": jnp.cos(t) - y["v"] * y["x"][0]}


TREE = {"x": jnp.array([1.0, 2.0]), "v": jnp.array(0.5)}


def wrong(t, y, k):
    return jax.tree.map(jnp.zeros_like, jax.jacfwd(nonlinear, 1)(t, y, k))


@pytest.mark.thorough
def test_a_given_jacobian_is_the_one_that_is_used():
    way = {"method": de.Rodas4(), **TOLERANCES}
    right = jax.jacfwd(nonlinear, 1)
    for t1 in (0.4, -0.4):
        problem = de.ODEProblem(nonlinear, TREE, (0.0, t1), 0.7)
        found, given, spoiled = (
            de.solve(problem.replace(jac=jac), **way) for jac in (None, right, wrong)
        )
        assert found.stats["steps"] == given.stats["steps"]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), found.y1, given.y1)
        # A wrong one spoils the order of Rodas4, which shows that it is used.
        assert spoiled.stats["steps"] > 2 * found.stats["steps"]


@pytest.mark.thorough
def test_a_jacobian_as_lists_with_args_and_by_gradient():
    jac = lambda t, y, k: [
        [-k[0], k[2] * y[2], k[2] * y[1]],
        [k[0], -k[2] * y[2] - 2 * k[1] * y[1], -k[2] * y[1]],
        [0.0, 2 * k[1] * y[1], 0.0],
    ]
    problem = de.ODEProblem(kinetics, [1.0, 0.0, 0.0], (0.0, 40.0), RATES, jac=jac)

    def end(k, jac):
        return de.solve(problem.replace(args=k, jac=jac), LIGHT, rtol=1e-5, atol=1e-9).y1[0]

    of = lambda jac: jax.jit(jax.value_and_grad(lambda k: end(k, jac)))(RATES)
    (given, by_given), (found, by_found) = of(jac), of(None)
    np.testing.assert_allclose(given, found, rtol=1e-12)
    np.testing.assert_allclose(by_given, by_found, rtol=1e-9)


@pytest.mark.parametrize(
    "jac", [lambda t, y, k: jnp.zeros((3, 2)), lambda t, y, k: y, lambda t, y, k: {"a": y}]
)
def test_a_jacobian_of_another_shape(jac):
    problem = de.ODEProblem(kinetics, [1.0, 0.0, 0.0], (0.0, 1.0), RATES, jac=jac)
    with pytest.raises(TypeError, match="jac returned"):
        de.solve(problem, de.Rodas5P())


@pytest.mark.thorough
def test_complex_states():
    # z̄ is not complex differentiable: the real view is.
    field = lambda t, y, a: {"z": 1j * y["z"] - 50 * (y["z"] - jnp.conj(y["z"])) / 2, "r": -y["r"]}
    y0 = {"z": jnp.array([1.0 + 0.5j, 2.0j]), "r": jnp.array(1.0)}
    problem = de.ODEProblem(field, y0, (0.0, 1.0))
    a = de.solve(problem, de.Rodas4(), saveat=[0.5, 1.0], **TOLERANCES)
    # z = x + i y: x' = −y and y' = x − 50 y.
    flow = np.stack([expm(t * np.array([[0.0, -1.0], [1.0, -50.0]])) for t in (0.5, 1.0)])
    parts = flow @ np.array([[1.0, 0.0], [0.5, 2.0]])
    np.testing.assert_allclose(a.ys["z"], parts[:, 0] + 1j * parts[:, 1], atol=1e-6)
    np.testing.assert_allclose(a.ys["r"], np.exp([-0.5, -1.0]), atol=1e-6)
    assert a.ys["r"].dtype == jnp.float64
    assert a.ys["z"].shape == (2, 2)
    rotating = de.ODEProblem(lambda t, z, w: 1j * w * z, 1.0 + 0j, (0.0, 1.0), 3.0)
    given = rotating.replace(jac=lambda t, z, w: 1j * w)
    fine = {"method": de.Rodas4(), "rtol": 1e-8, "atol": 1e-8}
    for problem in (rotating, given):
        end = lambda w, p=problem: de.solve(p.replace(args=w), **fine).y1.real
        np.testing.assert_allclose(jax.jit(jax.grad(end))(3.0), -np.sin(3), rtol=1e-6)
    mass = de.DAEProblem(lambda t, z, w: 1j * w * z, 1.0 + 0j, (0.0, 1.0), 3.0, mass_matrix=1j)
    np.testing.assert_allclose(de.solve(mass, **fine).y1, np.exp(3), rtol=1e-6)
    # Beside a complex leaf a real one has no imaginary part, in no equation.
    size = lambda t, y, w: {"z": 1j * w * y["z"] - y["z"], "size": y["size"] - jnp.abs(y["z"]) ** 2}
    both = de.DAEProblem(
        size, {"z": 1.0 + 0j, "size": 0.3}, (0.0, 1.0), 3.0, mass_matrix={"z": 1.0, "size": 0.0}
    )
    np.testing.assert_allclose(de.solve(both, **fine).y1["size"], np.exp(-2), rtol=1e-6)
