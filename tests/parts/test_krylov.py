"""Linear systems by products alone: the same solves and derivatives as by LU."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import diffeq as de
from diffeq.algebra import Products, solve_iteratively
from diffeq.algebra.preconditioner import inverses_of_products
from diffeq.diagnosis import hint

N = 40
X = (jnp.arange(N) + 0.5) / N
GMRES = lx.GMRES(rtol=1e-3, atol=1e-3)


def heat(t, u, rate):
    """A rod that conducts, and burns a little."""
    wide = jnp.concatenate([u[:1], u, u[-1:]])
    return rate[0] * N**2 * (wide[2:] - 2 * u + wide[:-2]) + rate[1] * u * (1 - u)


ROD = de.ODEProblem(heat, jnp.exp(-30 * (X - 0.3) ** 2), (0.0, 1.0), jnp.array([0.02, 1.0]))


@pytest.mark.parametrize("kind", [de.TRBDF2, pytest.param(de.BDF, marks=pytest.mark.thorough)])
def test_solves_and_gradients_are_those_of_lu(kind):
    def end(rate, method):
        sol = de.solve(ROD.replace(args=rate), method, rtol=1e-6, atol=1e-8)
        return jnp.sum(sol.y1**2), sol.stats["steps"]

    run = lambda method: jax.jit(jax.value_and_grad(lambda r: end(r, method), has_aux=True))(
        ROD.args
    )
    ((value, steps), slope), ((by_lu, steps_by_lu), slope_by_lu) = (
        run(kind(linear=GMRES)),
        run(kind()),
    )
    np.testing.assert_allclose(value, by_lu, rtol=1e-6)
    np.testing.assert_allclose(slope, slope_by_lu, rtol=1e-4)
    assert steps < 1.2 * steps_by_lu


@pytest.mark.thorough
def test_given_steps_differentiate_exactly_in_lanes():
    """Newton's method goes on to its own tolerance, whatever the iteration inside leaves."""
    method = de.ImplicitEuler(linear=lx.GMRES(rtol=1e-2, atol=1e-2))
    end = lambda rate: jnp.sum(de.solve(ROD.replace(args=rate), method, dt=0.1).y1 ** 2)
    rates = jnp.array([[0.02, 1.0], [0.2, 2.0]])
    found = jax.jit(jax.vmap(jax.grad(end)))(rates)
    run = jax.jit(end)
    for rate, slope in zip(rates, found, strict=True):
        moved = [run(rate + 1e-5 * e) - run(rate - 1e-5 * e) for e in np.eye(2)]
        np.testing.assert_allclose(slope, np.array(moved) / 2e-5, rtol=1e-6)


def check_mass_and_residual(linear):
    """BDF solves an equation with a mass matrix, and its residual, by these linear systems."""
    field = lambda t, y, k: jnp.stack([-k * y[0] + y[1], y[0] - 2 * y[1]])
    mass = de.DAEProblem(field, [1.0, 0.5], (0.0, 1.0), 3.0, mass_matrix=[2.0, 0.0])
    residual = de.ImplicitDAEProblem(
        lambda t, y, dy, k: jnp.stack([2 * dy[0] + k * y[0] - y[1], y[0] - 2 * y[1]]),
        [1.0, 0.5], (0.0, 1.0), 3.0, dy0=[-1.25, 0.0], differential=[True, False],
    )  # fmt: skip
    for problem in (mass, residual):
        y1 = de.solve(problem, de.BDF(linear=linear), rtol=1e-8, atol=1e-10).y1
        np.testing.assert_allclose(y1, np.exp(-1.25) * np.array([1.0, 0.5]), rtol=1e-6)


@pytest.mark.thorough
def test_a_mass_matrix_a_residual_and_noise():
    """Whatever else the matrix is made of."""
    check_mass_and_residual(GMRES)
    noisy = de.SDEProblem(lambda t, y, a: -1e4 * (y - 1), lambda t, y, a: 0.1 * y, 0.0, (0.0, 1.0))
    ends = [
        de.solve(noisy, de.ImplicitEM(linear=linear), dt=0.1, key=jax.random.key(0)).y1
        for linear in (GMRES, None)
    ]
    np.testing.assert_allclose(*ends, rtol=1e-9)


NEAR = np.linalg.inv(np.diag([3.0, 5.0, 4.0]) + np.tri(3))


@pytest.mark.thorough
@pytest.mark.parametrize("inverses", [None, (lambda r: NEAR @ r, lambda r: NEAR.T @ r)])
def test_derivatives_of_a_system(inverses):
    """By the matrix, by the right side, twice, and of a right side that is small; with a
    preconditioner and without.
    """
    b = 1e-9 * jnp.array([1.0, -2.0, 0.5])
    matrix = lambda p: jnp.diag(jnp.array([3.0, 4.0, 5.0])) + p * jnp.ones((3, 3)) + jnp.tri(3)
    ours = lambda p: jnp.sum(
        solve_iteratively(Products(lambda v: matrix(p) @ v, GMRES, True, inverses), p * b)
    )
    dense = lambda p: jnp.sum(jnp.linalg.solve(matrix(p), p * b))
    for mode in (jax.value_and_grad, jax.hessian):
        for a, c in zip(*(jax.tree.leaves(mode(f)(0.7)) for f in (ours, dense)), strict=True):
            np.testing.assert_allclose(a, c, rtol=1e-9)


def test_what_does_not_converge_is_no_number():
    turned = lambda v: jnp.roll(v, 1)  # of which GMRES knows nothing before n turns
    few = lx.GMRES(rtol=1e-8, atol=1e-8, restart=2, max_steps=3)
    assert np.isnan(solve_iteratively(Products(turned, few), jnp.eye(50)[0])).all()
    sol = de.solve(ROD, de.TRBDF2(linear=lx.GMRES(1e-8, 1e-8, max_steps=1)), dt=0.5, throw=False)
    assert not sol.success
    said = hint(de.Status(int(sol.status)), ROD, de.TRBDF2(linear=GMRES), sol.last)
    assert "GMRES may not have got there: give it more steps" in said


def test_refusals_and_names():
    with pytest.raises(TypeError, match="linear is 'gmres'; a linear solver of lineax is wanted"):
        de.TRBDF2(linear="gmres")
    assert repr(de.TRBDF2(linear=GMRES)) == "TRBDF2(linear=GMRES)"
    with pytest.raises(TypeError, match=r"RadauIIA5 got 'linear', .* such as de.KenCarp4\(linear"):
        de.RadauIIA5(linear=GMRES)
    with pytest.raises(TypeError, match=r"Tsit5 got 1e-06, and takes stages= alone\. Tolerances"):
        de.Tsit5(1e-6)
    with pytest.raises(ValueError, match="linear is CG, which asks more of a matrix than I − γ"):
        solve_iteratively(Products(lambda v: 2 * v, lx.CG(rtol=1e-3, atol=1e-3)), X)


# --- preconditioners ------------------------------------------------------------------------------

BICG = lx.BiCGStab(rtol=1e-3, atol=1e-3)
SQUARE = de.zoo.brusselator_2d(8)


def ring(t, y, k):
    """Flow and conduction around a ring, so that the corners of the Jacobian are not zero."""
    return k[0] * (jnp.roll(y, 1) - y) + k[1] * (jnp.roll(y, 1) - 2 * y + jnp.roll(y, -1)) + y**2


AROUND = np.eye(N) + np.roll(np.eye(N), 1, axis=0) + np.roll(np.eye(N), -1, axis=0)
RING = de.ODEProblem(ring, jnp.sin(2 * jnp.pi * X) ** 2, (0.0, 0.5), jnp.array([1e2, 1e3]))
INSIDE = np.abs(np.subtract.outer(np.arange(N), np.arange(N))) <= 1


def dense_inverse(given, matrix, jac=None):
    """The approximate inverse and its transpose, as matrices, of what is made for a matrix."""
    made = inverses_of_products(given, jac, lambda v: matrix @ v, jnp.zeros(len(matrix)))
    return (jax.vmap(f, out_axes=1)(jnp.eye(len(matrix))) for f in made)


@pytest.mark.parametrize("jac", [de.Sparse(AROUND), None], ids=["declared", "found by colours"])
def test_a_band_has_the_entries_that_are_declared_or_those_outside_added(jac):
    matrix = np.random.default_rng(2).normal(size=(N, N)) * AROUND + 9 * np.eye(N)
    band, colours = matrix * INSIDE, np.arange(N) % 3
    if jac is None:
        sums = np.stack([matrix[:, colours == c].sum(axis=1) for c in range(3)], axis=1)
        assert not np.allclose(band, np.where(INSIDE, sums[:, colours], 0))
        band = np.where(INSIDE, sums[:, colours], 0)
    found, turned = dense_inverse(de.Banded(1, 1), jnp.asarray(matrix), jac)
    np.testing.assert_allclose(np.linalg.inv(found), band, atol=1e-10)
    np.testing.assert_allclose(turned, found.T, atol=1e-12)


@pytest.mark.parametrize("pattern", [None, AROUND, np.ones((N, N)), INSIDE])
def test_an_incomplete_lu_has_the_entries_of_its_pattern(pattern):
    matrix = np.random.default_rng(3).normal(size=(N, N)) * AROUND + 9 * np.eye(N)
    found, turned = dense_inverse(de.ILU0(pattern), jnp.asarray(matrix), de.Sparse(AROUND))
    inside = np.nonzero(AROUND * (1 if pattern is None else pattern))
    np.testing.assert_allclose(np.linalg.inv(found)[inside], matrix[inside], atol=1e-10)
    np.testing.assert_allclose(turned, found.T, atol=1e-12)


def test_a_preconditioner_saves_products():
    """Of a square that conducts; a system that takes many products takes a few."""
    n = 24
    laplace = np.eye(n, k=1) - 2 * np.eye(n) + np.eye(n, k=-1)
    matrix = np.eye(n * n) - 50 * (np.kron(laplace, np.eye(n)) + np.kron(np.eye(n), laplace))
    b = jnp.asarray(np.random.default_rng(4).normal(size=n * n))
    times = lambda v: jnp.asarray(matrix) @ v
    made = inverses_of_products(de.ILU0(matrix), de.Sparse(matrix), times, b)

    def left(most, inverses):
        solver = lx.BiCGStab(rtol=1e-8, atol=1e-8, max_steps=most)
        x = solve_iteratively(Products(times, solver, inverses=inverses), b)
        return np.abs(matrix @ np.asarray(x) - b).max() / np.abs(b).max()

    assert left(25, made) < 2e-8
    assert np.isnan(left(45, None))
    assert left(200, None) < 2e-8


@pytest.mark.parametrize(
    ("linear", "structured"),
    [
        (de.Krylov(BICG, de.ILU0()), True),
        (de.Krylov(lx.GMRES(1e-3, 1e-3, restart=5), de.ILU0()), True),
        (de.Krylov(BICG, de.Block(2)), False),
    ],
)
@pytest.mark.thorough
def test_solves_and_gradients_of_a_square_are_those_of_lu(linear, structured):
    def end(rates, method, problem):
        sol = de.solve(problem.replace(args=rates, tspan=(0.0, 1.0)), method, rtol=1e-7, atol=1e-9)
        return jnp.sum(sol.y1[..., 0] ** 2), sol.stats["steps"]

    def run(method, problem):
        slope = jax.value_and_grad(lambda r: end(r, method, problem), has_aux=True)
        return jax.jit(slope)(jnp.asarray(SQUARE.args))

    (value, steps), slope = run(de.TRBDF2(linear=linear), SQUARE.problem(structured=structured))
    (by_lu, steps_by_lu), slope_by_lu = run(de.TRBDF2(), SQUARE.problem())
    np.testing.assert_allclose(value, by_lu, rtol=1e-6)
    np.testing.assert_allclose(slope, slope_by_lu, rtol=1e-4)
    assert steps < 1.2 * steps_by_lu


@pytest.mark.parametrize(
    ("given", "jac"),
    [
        (de.ILU0(), de.Sparse(AROUND)),
        pytest.param(de.Banded(1, 1), None, marks=pytest.mark.thorough),
    ],
)
def test_given_steps_differentiate_exactly_with_a_preconditioner(given, jac):
    method, problem = de.ImplicitEuler(linear=de.Krylov(BICG, given)), RING.replace(jac=jac)
    end = lambda k: jnp.sum(de.solve(problem.replace(args=k), method, dt=0.1).y1 ** 2)
    rates = jnp.array([[1e2, 1e3], [3.0, 40.0]])
    found, run = jax.jit(jax.vmap(jax.grad(end)))(rates), jax.jit(end)
    for rate, slope in zip(rates, found, strict=True):
        moved = [run(rate + 1e-5 * r) - run(rate - 1e-5 * r) for r in np.diag(rate)]
        np.testing.assert_allclose(slope * rate, np.array(moved) / 2e-5, rtol=1e-5)


@pytest.mark.parametrize("given", [None, de.Block(2)])
def test_systems_of_derivatives_are_solved_in_single_precision(given):
    """Of cells whose two quantities react fast: the matrix of a step is so large that rounding
    alone leaves a residual above ε^(2/3).
    """
    laplace = np.eye(20, k=1) - 2 * np.eye(20) + np.eye(20, k=-1)
    reaction = np.kron(np.eye(20), [[1.0, -1.0], [-1.0, 1.0]])
    matrix = np.eye(40) + 2e4 * reaction - 5 * np.kron(laplace, np.eye(2))
    times = lambda v: jnp.asarray(matrix, jnp.float32) @ v
    b = np.sin(np.arange(40)) * np.arange(40)
    like = jnp.asarray(b, jnp.float32)
    inverses = None if given is None else inverses_of_products(given, None, times, like)
    products = Products(times, lx.GMRES(1e-3, 1e-3, restart=10), exact=True, inverses=inverses)
    found, wanted = solve_iteratively(products, like), np.linalg.solve(matrix, b)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())
    turned = jax.vjp(lambda r: solve_iteratively(products, r), like)[1](like)[0]
    np.testing.assert_allclose(turned, wanted, atol=1e-3 * np.abs(wanted).max())
    small = jnp.float32(2.0**-90)
    np.testing.assert_allclose(solve_iteratively(products, small * like) / small, found, rtol=1e-6)


@pytest.mark.parametrize("place", [0, 1, 22])
def test_rounding_of_any_component_may_be_what_is_left(place):
    """One component is held to the mean of the others by a large number."""
    n, size = 200, 2e4

    def times(v):
        others = (jnp.sum(v) - v[place]) / (n - 1)
        return v.at[place].add(size * (v[place] - others))

    matrix = np.eye(n)
    matrix[place] -= size / (n - 1)
    matrix[place, place] += size + size / (n - 1)
    b = np.random.default_rng(0).normal(size=n)
    products = Products(times, lx.GMRES(1e-3, 1e-3, restart=10), exact=True)
    found = solve_iteratively(products, jnp.asarray(b, jnp.float32))
    np.testing.assert_allclose(found, np.linalg.solve(matrix, b), atol=1e-5)


def test_a_singular_matrix_has_no_solution_in_any_precision():
    flat = lambda v: v - jnp.mean(v)
    for dtype in (jnp.float32, jnp.float64):
        products = Products(flat, lx.GMRES(1e-3, 1e-3, restart=5), exact=True)
        assert np.isnan(solve_iteratively(products, jnp.arange(8, dtype=dtype))).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_function_of_the_user_sees_what_the_field_sees(sign):
    """A circulant matrix, solved by Fourier's transform; also backwards in time, of an equation
    that is turned round.
    """
    around = jnp.zeros(N).at[jnp.array([0, 1, -1])].set(jnp.array([-2.0, 1.0, 1.0]))
    seen = []

    def field(t, y, k):
        u = y["u"]
        return {"u": sign * (k * (jnp.roll(u, 1) - 2 * u + jnp.roll(u, -1)) - t * u**3)}

    def preconditioner(t, y, k, c):
        assert y["u"].shape == (N,)
        jax.debug.callback(lambda *x: seen.append(np.array(x)), t, c, k)
        spectrum = 1 - c * sign * k * jnp.fft.fft(around)
        return lambda r: jnp.fft.ifft(jnp.fft.fft(r) / spectrum).real

    def end(k, method):
        start = {"u": 0.5 + jnp.sin(2 * jnp.pi * X)}
        problem = de.ODEProblem(field, start, (0.0, sign * 0.5), k)
        sol = de.solve(problem, method, rtol=1e-6, atol=1e-8, max_steps=100)
        return jnp.sum(sol.y1["u"] ** 2 + sol.y1["u"])

    few = lx.BiCGStab(rtol=1e-3, atol=1e-3, max_steps=8)
    run = lambda method: jax.jit(jax.value_and_grad(lambda k: end(k, method)))(50.0)
    value, slope = run(de.KenCarp4(linear=de.Krylov(few, preconditioner)))
    wanted, wanted_slope = run(de.KenCarp4())
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    np.testing.assert_allclose(slope, wanted_slope, rtol=1e-4)
    t, c, k = np.array(seen).T * np.array([[sign], [sign], [1.0]])
    assert (t >= 0).all()
    assert (t > 0.1).any()
    assert (c >= 0).all()
    assert (c > 1e-3).any()
    assert (k == 50.0).all()


@pytest.mark.thorough
def test_preconditioners_with_a_mass_a_residual_noise_and_adjoints():
    linear = de.Krylov(BICG, de.Block(2))
    check_mass_and_residual(linear)
    noisy = de.SDEProblem(
        lambda t, y, a: -1e4 * (y - y[::-1] / 2), lambda t, y, a: 0.1 * y, jnp.ones(2), (0.0, 1.0)
    )
    ends = [
        de.solve(noisy, de.ImplicitEM(linear=x), dt=0.1, key=jax.random.key(0)).y1
        for x in (linear, None)
    ]
    np.testing.assert_allclose(*ends, rtol=1e-9)

    def slope(method, adjoint):
        end = lambda k: de.solve(RING.replace(args=k), method, rtol=1e-8, adjoint=adjoint).y1[0]
        return jax.jacfwd(end)(RING.args) if adjoint == de.Forward() else jax.grad(end)(RING.args)

    wanted = slope(de.KenCarp4(), de.Discrete())
    for adjoint in (de.Gauss(), de.Forward()):
        method = de.KenCarp4(linear=de.Krylov(BICG, de.Banded(1, 1)))
        np.testing.assert_allclose(slope(method, adjoint), wanted, rtol=1e-3, atol=1e-8)


def test_a_preconditioner_that_is_wrong_is_no_result():
    """One that loses a component, and one that is singular: an unsolved step, never a result."""
    for wrong in (lambda r: r.at[0].set(0.0), lambda r: r * jnp.nan, lambda r: 0 * r):
        linear = de.Krylov(lx.BiCGStab(1e-6, 1e-6, max_steps=50), lambda t, y, args, c, w=wrong: w)
        method = de.ImplicitEuler(linear=linear)
        sol = de.solve(RING, method, dt=0.25, throw=False)
        assert not sol.success
        said = hint(de.Status(int(sol.status)), RING, method, sol.last)
        assert "may not have got there: give it more steps, a better preconditioner, or" in said


def test_preconditioners_that_do_not_fit_are_refused():
    solve = lambda linear, problem=RING: de.solve(problem, de.KenCarp4(linear=linear))
    refused = {
        r"solver is LU\(.*; one that takes a preconditioner": lambda: de.Krylov(lx.LU(), de.ILU0()),
        "solver is CG": lambda: de.Krylov(lx.CG(1e-3, 1e-3), de.ILU0()),
        "preconditioner is 'ilu'; one of de.ILU0": lambda: de.Krylov(BICG, "ilu"),
        "preconditioner is Sparse.*exact: leave linear out": lambda: de.Krylov(
            BICG, de.Sparse("detect")
        ),
        "preconditioner is the class Banded; an instance": lambda: de.Krylov(BICG, de.Banded),
        "linear is the class Krylov": lambda: de.KenCarp4(linear=de.Krylov),
        r"linear is ILU0\(\), which is a preconditioner": lambda: de.BDF(linear=de.ILU0()),
        r"pattern is 'detect'.*jac=de.Sparse\(.detect.\)": lambda: de.ILU0("detect"),
        r"preconditioner is ILU0\(\), .* and jac is None: give": lambda: solve(
            de.Krylov(BICG, de.ILU0())
        ),
        r"jac is ILU0\(\), a preconditioner: it belongs": lambda: de.solve(
            RING.replace(jac=de.ILU0()), de.KenCarp4()
        ),
        r"preconditioner\(t, y, c\) cannot be called as preconditioner\(t, y, args, c\)": lambda: (
            de.Krylov(BICG, lambda t, y, c: lambda r: r)
        ),
        r"returned a function r ↦ P⁻¹ r whose transpose a derivative needs": lambda: jax.grad(
            lambda k: solve(
                de.Krylov(BICG, lambda t, y, args, c: lambda r: r / jnp.sqrt(1 + r**2)),
                RING.replace(args=k),
            ).y1.sum()
        )(RING.args),
        r"preconditioner\(t, y, args, c\) returned 1.0; a function": lambda: solve(
            de.Krylov(BICG, lambda t, y, args, c: 1.0)
        ),
        r"preconditioner\(t, y, args, c\)\(r\) has shape \(1,\)": lambda: solve(
            de.Krylov(BICG, lambda t, y, args, c: lambda r: r[:1])
        ),
    }
    for message, call in refused.items():
        with pytest.raises(TypeError, match=message):
            call()
    for given, message in {
        de.Block(3): r"preconditioner is Block\(3\), and y has 40 numbers",
        de.Banded(40, 0): r"preconditioner is Banded\(40, 0\), and y has 40 numbers: lower from 0",
        de.ILU0(np.eye(3)): r"preconditioner is a pattern of shape \(3, 3\), and y has 40 numbers",
    }.items():
        with pytest.raises(ValueError, match=message):
            solve(de.Krylov(BICG, given))


def test_preconditioned_methods_are_equal_by_value_and_show_it():
    made = lambda: de.KenCarp4(linear=de.Krylov(BICG, de.ILU0(AROUND)))
    assert made().linear == made().linear
    assert hash(made().linear) == hash(made().linear)
    assert made().linear != de.Krylov(BICG, de.ILU0())
    assert de.Krylov(BICG, de.Banded(1, 1)) != de.Krylov(BICG, de.Banded(1, 2))
    assert repr(made()) == "KenCarp4(linear=Krylov(BiCGStab, ILU0(40×40, 120 entries)))"
