"""Solves that know the zeros of the Jacobian: the numbers and derivatives of dense ones, at a cost
that does not grow with n²; and what is refused.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de

N = 20
RATES = jnp.array([0.05, 3.0])
START = jnp.exp(-20 * (jnp.linspace(0, 1, N) - 0.3) ** 2)
NEAR = np.eye(N) + np.eye(N, k=1) + np.eye(N, k=-1)
LINE = de.Banded(1, 1)


def diffused(t, y, k):
    wide = jnp.concatenate([y[:1], y, y[-1:]])
    return k[0] * N**2 * (wide[2:] - 2 * y + wide[:-2])


def grown(t, y, k):
    return k[1] * y * (1 - y) * (1 + 0.1 * jnp.sin(t))


def line(t, y, k):
    return diffused(t, y, k) + grown(t, y, k)


PROBLEM = de.ODEProblem(line, START, (0.0, 0.5), RATES)
SPLIT = de.SplitODEProblem(diffused, grown, START, (0.0, 0.5), RATES)
METHODS = {
    "Rodas5P": de.Rodas5P(),
    "Rosenbrock23": de.Rosenbrock23(),
    "KenCarp4": de.KenCarp4(),
    "TRBDF2": de.TRBDF2(),
    "ImplicitEuler": de.ImplicitEuler(),
    "BDF": de.BDF(),
    "RadauIIA5": de.RadauIIA5(),
    "Switching": de.Switching(de.Tsit5(), de.Rodas5P()),
}


def both(problem, method, jac, **options):
    """The solve with all entries of the Jacobian, and with those of a structure."""
    options = {"rtol": 1e-5, "atol": 1e-7} | options
    return [de.solve(problem.replace(jac=x), method, **options) for x in (None, jac)]


@pytest.mark.parametrize("name", shortly(METHODS, "Rodas5P", "BDF", "RadauIIA5"))
@pytest.mark.parametrize("jac", shortly([LINE, de.Sparse(NEAR)], LINE))
def test_every_method_makes_the_steps_of_the_dense_jacobian(name, jac):
    options = {"dt": 0.05} if name == "ImplicitEuler" else {}
    dense, found = both(PROBLEM, METHODS[name], jac, **options)
    assert found.stats["steps"] == dense.stats["steps"]
    np.testing.assert_allclose(found.y1, dense.y1, rtol=1e-10)


@pytest.mark.parametrize("name", shortly(METHODS, "Rodas5P", "RadauIIA5"))
def test_gradients_are_those_of_the_dense_jacobian_and_of_differences(name):
    method, options = METHODS[name], {"rtol": 1e-5, "atol": 1e-7}
    if name == "ImplicitEuler":
        options = {"dt": 0.05}

    def end(k, jac):
        sol = de.solve(PROBLEM.replace(args=k, jac=jac), method, **options)
        return jnp.sum(sol.y1**2)

    dense = jax.grad(end)(RATES, None)
    found = jax.jit(jax.grad(lambda k: end(k, LINE)))(RATES)
    np.testing.assert_allclose(found, dense, rtol=1e-8)
    if name in ("Rodas5P", "ImplicitEuler"):
        fixed = lambda k: jnp.sum(
            de.solve(PROBLEM.replace(args=k, jac=LINE), method, dt=0.05).y1 ** 2
        )
        step = 1e-5 * np.eye(2)
        moved = [(fixed(RATES + e) - fixed(RATES - e)) / 2e-5 for e in step]
        np.testing.assert_allclose(jax.grad(fixed)(RATES), moved, rtol=1e-6)


def test_forward_mode_second_derivatives_and_lanes():
    def end(k, jac=LINE, **options):
        sol = de.solve(PROBLEM.replace(args=k, jac=jac), de.Rodas5P(), dt=0.1, **options)
        return jnp.sum(sol.y1**2)

    slope = jax.jacfwd(lambda k: end(k, adjoint=de.Forward(), rtol=1e-6, atol=1e-6))(RATES)
    np.testing.assert_allclose(slope, jax.grad(lambda k: end(k, None))(RATES), rtol=1e-9)
    bend = jax.jit(jax.hessian(end))(RATES)
    np.testing.assert_allclose(bend, jax.hessian(lambda k: end(k, None))(RATES), rtol=1e-8)
    several = jnp.stack([RATES, 2 * RATES])
    together = jax.jit(jax.vmap(jax.grad(end)))(several)
    np.testing.assert_allclose(together[1], jax.grad(end)(several[1]), rtol=1e-9)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["Rodas5P", "RadauIIA5"])
def test_superlu_differentiates_in_lanes(name):
    n = 140
    x = jnp.linspace(0, 1, n)
    ring = np.eye(n) + np.roll(np.eye(n), 1, axis=0) + np.roll(np.eye(n), -1, axis=0)

    def field(t, y, k):
        return k * (jnp.roll(y, 1) - 2 * y + jnp.roll(y, -1)) - y**3

    problem = de.ODEProblem(field, jnp.sin(6 * x), (0.0, 0.5), 50.0)

    def end(k, jac):
        return jnp.sum(de.solve(problem.replace(args=k, jac=jac), METHODS[name], dt=0.1).y1 ** 2)

    ks = jnp.array([50.0, 200.0])
    wanted = [jax.grad(end)(k, None) for k in ks]
    found = jax.jit(jax.vmap(jax.grad(lambda k: end(k, de.Sparse(ring)))))(ks)
    np.testing.assert_allclose(found, wanted, rtol=1e-8)


@pytest.mark.parametrize("name", shortly(["KenCarp4", "Rodas5P"], "KenCarp4"))
def test_of_two_parts_the_structure_is_that_of_the_implicit_one(name):
    coupled = SPLIT.replace(explicit=lambda t, y, k: grown(t, y, k) + 0.1 * y.mean())
    dense, found = both(coupled, METHODS[name], LINE)
    assert found.stats["steps"] == dense.stats["steps"]
    np.testing.assert_allclose(found.y1, dense.y1, rtol=1e-9)


def chain(t, y, k):
    """Differential components with algebraic ones between them, z_i = y_i², in a band."""
    x, z = y[::2], y[1::2]
    wide = jnp.concatenate([x[:1], x, x[-1:]])
    rate = k * (wide[2:] - 2 * x + wide[:-2]) - z
    return jnp.stack([rate, z - x**2], axis=1).ravel()


MASSES = {"diagonal": np.tile([1.0, 0.0], 8), "matrix": np.diag(np.tile([2.0, 0.0], 8))}


@pytest.mark.parametrize("mass", shortly(MASSES, "diagonal"))
@pytest.mark.parametrize("name", shortly(["Rodas5P", "BDF", "RadauIIA5"], "Rodas5P"))
def test_mass_matrices(mass, name):
    start = jnp.stack([jnp.linspace(0.5, 1.0, 8), jnp.full(8, 0.3)], axis=1).ravel()
    problem = de.DAEProblem(chain, start, (0.0, 0.3), 20.0, mass_matrix=jnp.asarray(MASSES[mass]))
    dense, found = both(problem, METHODS[name], de.Banded(2, 2))
    np.testing.assert_allclose(found.y1, dense.y1, rtol=1e-8)
    np.testing.assert_allclose(found.y1[1::2], found.y1[::2] ** 2, rtol=1e-4)
    consistent = de.consistent(problem.replace(jac=de.Banded(2, 2))).y0
    np.testing.assert_allclose(consistent[1::2], start[::2] ** 2, rtol=1e-9)


@pytest.mark.thorough
def test_a_wrong_index_is_found_without_the_dense_matrix():
    twice = lambda t, y, k: chain(t, y, k).at[1].set(y[0] - jnp.sin(t) - 0.5)
    start = jnp.stack([jnp.linspace(0.5, 1.0, 8), jnp.full(8, 0.3)], axis=1).ravel()
    mass = jnp.asarray(MASSES["diagonal"])
    problem = de.DAEProblem(twice, start, (0.0, 0.3), 20.0, mass_matrix=mass, jac=de.Banded(2, 2))
    with pytest.raises(de.SolveError, match="differentiated") as caught:
        de.solve(problem, init="given")
    assert caught.value.status == de.Status.wrong_index


def test_trees_blocks_and_backward_time():
    def many(t, y, k):
        return {"a": -k * y["a"], "b": k * y["a"] - y["b"] ** 2}

    y0 = {"a": jnp.linspace(1.0, 2.0, 3), "b": jnp.zeros(3)}
    pattern = np.block([[np.eye(3), np.zeros((3, 3))], [np.eye(3), np.eye(3)]])
    problem = de.ODEProblem(many, y0, (0.5, 0.0), jnp.array([1.0, 2.0, 3.0]))
    dense, found = both(problem, de.Rodas5P(), de.Sparse(pattern))
    np.testing.assert_allclose(found.y1["b"], dense.y1["b"], rtol=1e-10)
    pairs = de.ODEProblem(
        lambda t, y, k: jnp.stack([-k * y[:, 0], k * y[:, 0] - y[:, 1]], axis=1),
        jnp.ones((3, 2)), (0.0, 0.5), jnp.array([1.0, 20.0, 300.0]),
    )  # fmt: skip
    dense, found = both(pairs, de.Rodas5P(), de.Block(2))
    np.testing.assert_allclose(found.y1, dense.y1, rtol=1e-10)


def test_without_a_method_the_structure_says_that_it_is_stiff():
    assert de.solve(PROBLEM.replace(jac=LINE)).about.method == "Rodas5P()"
    assert de.solve(SPLIT.replace(jac=LINE)).about.method == "KenCarp4()"


def test_a_large_stiff_solve_without_a_structure_says_what_to_declare():
    n = 100

    def heat(t, y, k):
        wide = jnp.pad(y, 1)
        return k * (wide[2:] - 2 * y + wide[:-2])

    problem = de.ODEProblem(heat, jnp.ones(n), (0.0, 1.0), 2000.0)
    with pytest.warns(UserWarning, match=r'100² entries: .*jac=de.Sparse\("detect"\)'):
        de.solve(problem)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        de.solve(problem.replace(jac=LINE))


@pytest.mark.parametrize("name", shortly(["Rodas5P", "RadauIIA5"], "Rodas5P"))
def test_no_array_has_n_squared_numbers(name):
    n = 10_000

    def heat(t, y, k):
        wide = jnp.pad(y, 1)
        return k * n**2 * (wide[2:] - 2 * y + wide[:-2]) - y**3

    problem = de.ODEProblem(heat, jnp.ones(n), (0.0, 1.0), 0.1, jac=LINE)

    def value(k):
        return jnp.sum(de.solve(problem.replace(args=k), METHODS[name], max_steps=50).y1)

    for function in (value, jax.grad(value)):
        memory = jax.jit(function).lower(0.1).compile().memory_analysis()
        if memory is not None:  # 800 MB would be one such array, and rows of the tape are 80 kB
            assert memory.temp_size_in_bytes < 200e6


# --- what is refused ------------------------------------------------------------------------------


def test_a_pattern_that_misses_an_entry_is_refused_with_its_name():
    def field(t, y, k):
        return line(t, y, k).at[4].add(y[11] ** 2)

    wrong = PROBLEM.replace(f=field, y0=jnp.zeros(N).at[3].set(1.0), jac=LINE)
    with pytest.raises(de.SolveError, match=r"∂f\[4\]/∂y\[11\] is .* jac=Banded\(1, 1\) has no"):
        de.solve(wrong, de.Rodas5P())
    sol = jax.jit(lambda k: de.solve(wrong.replace(args=k), de.Rodas5P(), throw=False))(RATES)
    assert sol.status == de.Status.wrong_pattern
    assert jnp.isnan(sol.y1).all()


REFUSED = {
    "Banded(20, 1), and y has 20 numbers: lower from 0 to 19": {"jac": de.Banded(20, 1)},
    r"of shape \(3, 3\), and y has 20 numbers": {"jac": de.Sparse(np.eye(3))},
    r"Block\(3\), and y has 20 numbers": {"jac": de.Block(3)},
    "jac is the class Banded; give an instance": {"jac": de.Banded},
    "jac is 'banded'; a function": {"jac": "banded"},
    "and y0 is complex": {"jac": LINE, "y0": START + 1j},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_structures_that_do_not_fit_are_refused(sentence):
    with pytest.raises(
        (TypeError, ValueError),
        match=sentence.replace("Banded(", r"Banded\(").replace("1),", r"1\),"),
    ):
        de.solve(PROBLEM.replace(**REFUSED[sentence]), de.Rodas5P())


def test_masses_that_do_not_fit_are_refused():
    start, mass = jnp.ones(16), np.eye(16)
    mass[0, 9] = 1.0
    problem = de.DAEProblem(
        chain, start, (0.0, 0.1), 1.0, mass_matrix=jnp.asarray(mass), jac=de.Banded(2, 2)
    )
    with pytest.raises(ValueError, match=r"mass_matrix\[0, 9\] is 1, and jac=Banded\(2, 2\)"):
        de.solve(problem)
    index = de.DAEProblem(
        chain, start, (0.0, 0.1), 1.0, mass_matrix=jnp.asarray(MASSES["diagonal"]),
        jac=de.Banded(2, 2), index=np.tile([1, 2], 8),
    )  # fmt: skip
    with pytest.raises(ValueError, match="equations of a higher index"):
        de.solve(index)
