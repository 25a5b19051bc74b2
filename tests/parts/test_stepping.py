"""A solve by hand is the same solve, in every mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de


def field(t, y, k):
    return {"a": -k * y["a"] * jnp.cos(t), "b": jnp.sum(y["a"]) - y["b"]}


PROBLEM = de.ODEProblem(field, {"a": jnp.array([1.0, 2.0]), "b": jnp.array(0.5)}, (0.0, 2.0), 1.3)
TIGHT = {"rtol": 1e-6, "atol": 1e-8}


def same(a, b, atol=0.0, rtol=1e-13):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol, rtol=rtol), a, b)


def finite_difference(f, x, h=1e-5):
    return (f(x + h) - f(x - h)) / (2 * h)


@pytest.mark.parametrize("tspan", [(0.0, 2.0), (2.0, 0.0)])
def test_steps_are_those_of_solve(tspan):
    problem = PROBLEM.replace(tspan=tspan)
    sol = de.solve(problem, de.Tsit5(), saveat="steps", **TIGHT)
    state = de.init(problem, de.Tsit5(), **TIGHT)
    for i, t in enumerate(sol.ts):
        np.testing.assert_allclose(state.t, t, rtol=1e-14)
        same(state.y, jax.tree.map(lambda y, i=i: y[i], sol.ys))
        assert (state.status == de.Status.running) == (i + 1 < len(sol.ts))
        state = de.step(state)
    assert state.status == de.Status.success
    assert state.t == tspan[1]
    assert np.sign(state.dt) == np.sign(tspan[1] - tspan[0])


def test_the_first_step_has_three_digits():
    # What is behind them would depend on the program that the guess is compiled in.
    problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0))
    first = jax.vmap(lambda k: de.init(problem.replace(args=k), de.Tsit5()).dt)
    found = np.asarray(first(jnp.linspace(0.5, 40.0, 30)))
    assert len(set(found.tolist())) > 15
    np.testing.assert_array_equal(np.frexp(found)[0] * 512 % 1, 0.0)
    assert float(de.init(problem.replace(args=0.0), de.Tsit5()).dt) <= 1.0


def test_a_step_beyond_the_end_is_none():
    state = de.advance(de.init(PROBLEM), 2.0)
    assert state.status == de.Status.success
    again = de.step(state)
    assert again.t == 2.0
    same(again.y, state.y, rtol=0)


def test_advance_lands_on_its_times():
    state = de.init(PROBLEM, **TIGHT)
    exact = de.solve(PROBLEM, de.Vern9(), rtol=1e-12, atol=1e-12, saveat=jnp.array([0.1, 0.5, 1.7]))
    for i, t in enumerate((0.1, 0.5, 1.7)):
        state = de.advance(state, t)
        assert state.t == t
        assert state.status == de.Status.running
        same(state.y, jax.tree.map(lambda y, i=i: y[i], exact.ys), atol=1e-5)
    here = de.advance(state, 1.7)
    same(here.y, state.y, rtol=0)
    assert here.dt == state.dt


def test_advance_to_the_end_is_solve():
    sol = de.solve(PROBLEM, **TIGHT)
    state = de.advance(de.init(PROBLEM, **TIGHT), 2.0)
    same(state.y, sol.y1)


@pytest.mark.parametrize("t", [0.5, 2.5, jnp.nan])
def test_advance_refuses_times_outside(t):
    state = de.advance(de.init(PROBLEM), 1.0)
    with pytest.raises(ValueError, match="a time from 1 to 2 is wanted"):
        de.advance(state, t)
    traced = jax.jit(de.advance)(state, t)
    assert traced.status == de.Status.bad_times
    assert traced.t == 1.0


def test_failures_raise_outside_a_trace():
    blows_up = de.ODEProblem(lambda t, y, a: y**2, 1.0, (0.0, 2.0))
    state = de.init(blows_up)
    with pytest.raises(de.SolveError, match="It stopped at t = "):
        de.advance(state, 1.5)
    quiet = de.advance(de.init(blows_up, throw=False), 1.5)
    assert quiet.status > de.Status.running
    assert quiet.t < 1.0 + 1e-3


# --- replace -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [de.Tsit5(), de.Dopri5(), de.RK4()], ids=repr)
def test_a_new_y_starts_afresh(method):
    y = {"a": jnp.array([0.3, -0.4]), "b": jnp.array(1.0)}
    state = de.advance(de.init(PROBLEM, method, dt=0.1), 1.0).replace(y=y)
    direct = de.solve(PROBLEM.replace(y0=y, tspan=(1.0, 2.0)), method, dt=0.1)
    same(de.advance(state, 2.0).y, direct.y1)


def test_new_args_time_and_dt():
    state = de.advance(de.init(PROBLEM, de.Tsit5(), dt=0.1), 1.0)
    other = state.replace(args=0.7, t=0.5, dt=0.05)
    assert (other.t, other.dt) == (0.5, 0.05)
    direct = de.solve(PROBLEM.replace(args=0.7, y0=state.y, tspan=(0.5, 2.0)), de.Tsit5(), dt=0.05)
    same(de.advance(other, 2.0).y, direct.y1)


@pytest.mark.parametrize(
    "method", [de.Rodas5P(), de.BDF(), de.RadauIIA5(), de.Kvaerno5()], ids=repr
)
def test_a_dae_is_consistent_after_replace(method):
    def f(t, y, k):
        return jnp.stack([-y[1], y[1] ** 3 + y[1] - 1 - k * y[0]])

    problem = de.DAEProblem(f, [1.0, 1.0], (0.0, 2.0), 1.5, mass_matrix=[1.0, 0.0])
    state = de.advance(de.init(problem, method, rtol=1e-7, atol=1e-9), 1.0)

    def end(k):
        """The end of a solve whose y and k jump at t = 1."""
        jumped = state.replace(y=state.y + jnp.array([0.5, 0.0]), args=k)
        return jumped.y, de.advance(jumped, 2.0).y

    (x, z), y1 = end(3.0)
    np.testing.assert_allclose(x, state.y[0] + 0.5, rtol=1e-15)
    np.testing.assert_allclose(z**3 + z, 1 + 3 * x, rtol=1e-9)
    again = problem.replace(y0=jnp.stack([x, z]), tspan=(1.0, 2.0), args=3.0)
    np.testing.assert_allclose(y1, de.solve(again, method, rtol=1e-7, atol=1e-9).y1, atol=1e-6)
    if isinstance(method, de.Rodas5P):
        slope = jax.jacfwd(lambda k: end(k)[1])(3.0)
        change = end(3.0 + 1e-4)[1] - end(3.0 - 1e-4)[1]
        np.testing.assert_allclose(slope, change / 2e-4, rtol=1e-4)
        with pytest.raises(de.SolveError, match="do not satisfy the algebraic equations"):
            state.replace(y=state.y * jnp.nan)


def test_replace_refuses_what_does_not_fit():
    state = de.init(PROBLEM)
    with pytest.raises(TypeError, match="structure"):
        state.replace(y=jnp.zeros(3))
    with pytest.raises(ValueError, match="a time from 0 to 2 is wanted"):
        state.replace(t=3.0)
    with pytest.raises(ValueError, match="one number"):
        state.replace(dt=jnp.ones(2))
    for dt in (0.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"dt is {dt}; a length of time"):
            state.replace(dt=dt)
    with pytest.raises(TypeError, match=r"y is .*; numbers of the kinds.*a: float64"):
        state.replace(y={"a": jnp.ones(2) * 1j, "b": 0.0})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (1, 0.3),
        (np.array([1, 1]), np.array([0.5, 1.0])),
        (True, 0.3),
        (1.0, 1j),
        ({"gain": 2.0, "bias": 0.0}, {"gain": 2.0, "offset": 3.0}),
        ((1.0, 2.0), (1.0,)),
        (1.0, jnp.ones(2)),
        (1.0, "fast"),
    ],
    ids=repr,
)
def test_args_of_another_kind_are_not_taken_for_those_that_were_traced(old, new):
    field = lambda t, y, args: -y * sum(jnp.sum(x) for x in jax.tree.leaves(args))
    state = de.init(de.ODEProblem(field, 1.0, (0.0, 10.0), old))
    with pytest.raises(TypeError, match=r"args is .*; the functions were traced by init for"):
        state.replace(args=new)


def test_numbers_that_fit_stand_for_those_that_were_traced():
    state = de.init(de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 1.0), rtol=1e-8)
    for k in (2, np.float32(2.0), np.int64(2), jnp.array(2.0)):
        same(de.advance(state.replace(args=k), 1.0).y, np.exp(-2.0), rtol=1e-6)
    same(state.replace(y=2).y, 2.0)


def test_stops_start_afresh():
    def jumps(t, y, args):
        return jnp.where(t < 1.0, -y, 2.0)

    problem = de.ODEProblem(jumps, 1.0, (0.0, 2.0))
    sol = de.solve(problem, stops=jnp.array([1.0]), **TIGHT)
    state = de.init(problem, stops=jnp.array([1.0]), **TIGHT)
    stepped = state
    while stepped.status == de.Status.running:
        stepped = de.step(stepped)
    same(stepped.y, sol.y1)
    same(de.advance(de.advance(state, 1.0), 2.0).y, sol.y1, rtol=1e-5)


# --- transformations -----------------------------------------------------------------------------


def by_scan(k):
    state = de.init(PROBLEM.replace(args=k), de.Tsit5(), dt=0.1)
    state, seen = jax.lax.scan(lambda s, _: (de.step(s), s.y["b"]), state, length=20)
    return jnp.sum(state.y["a"]) + jnp.sum(seen)


def by_solve(k):
    problem = PROBLEM.replace(args=k)
    sol = de.solve(problem, de.Tsit5(), dt=0.1, saveat="steps", max_saves=21)
    return jnp.sum(sol.ys["a"][20]) + jnp.sum(sol.ys["b"][:20])


@pytest.mark.parametrize("mode", shortly([jax.grad, jax.jacfwd, jax.hessian], jax.grad))
def test_derivatives_through_a_scan_of_steps(mode):
    np.testing.assert_allclose(mode(by_scan)(1.3), mode(by_solve)(1.3), rtol=1e-11)


def test_derivatives_through_controlled_steps():
    def loss(k):
        state = de.init(PROBLEM.replace(args=k), rtol=1e-9, atol=1e-9)
        state, _ = jax.lax.scan(lambda s, _: (de.step(s), None), state, length=60)
        return jnp.sum(state.y["a"]) * state.y["b"]

    found = jax.grad(loss)(1.3)
    np.testing.assert_allclose(found, finite_difference(loss, 1.3), rtol=1e-6)
    np.testing.assert_allclose(found, jax.jacfwd(loss)(1.3), rtol=1e-11)


def test_derivatives_through_advance_and_replace():
    def loss(x):
        state = de.advance(de.init(PROBLEM.replace(args=x), rtol=1e-10, atol=1e-10), 0.5 * x)
        state = state.replace(y={"a": state.y["a"] * x, "b": state.y["b"]})
        state = de.advance(state, 1.9)
        return jnp.sum(state.y["a"]) * state.y["b"]

    np.testing.assert_allclose(jax.grad(loss)(1.3), finite_difference(loss, 1.3), rtol=1e-6)


def test_a_finished_state_passes_gradients_through():
    def loss(y):
        problem = de.ODEProblem(lambda t, y, a: -1 / y, y, (0.0, 0.1))
        state = de.init(problem, de.Tsit5(), dt=0.05)
        state, _ = jax.lax.scan(lambda s, _: (de.step(s), None), state, length=5)
        return state.y

    ys = jnp.array([1.0, 2.0])
    exact = ys / jnp.sqrt(ys**2 - 0.2)
    np.testing.assert_allclose(jax.vmap(jax.grad(loss))(ys), exact, rtol=1e-6)


def test_many_at_once_and_loops():
    @jax.jit
    def steps(k):
        state = de.init(PROBLEM.replace(args=k), **TIGHT)
        running = lambda s: s.status == de.Status.running
        return jax.lax.while_loop(running, de.step, state)

    k = jnp.array([0.3, 1.3, 4.0])
    together = jax.vmap(steps)(k)
    for i, one in enumerate(k):
        alone = steps(one)
        same(jax.tree.map(lambda y, i=i: y[i], together.y), alone.y, rtol=1e-11)
        assert together.inner.steps[i] == alone.inner.steps
    gradient = jax.vmap(jax.grad(by_scan))(k)
    np.testing.assert_allclose(gradient, [jax.grad(by_scan)(x) for x in k], rtol=1e-10)


def test_a_batch_of_states_is_a_state():
    k = jnp.array([0.3, 1.3])
    states = jax.vmap(lambda k: de.init(PROBLEM.replace(args=k), **TIGHT))(k)
    states = jax.vmap(de.advance, in_axes=(0, None))(states, 1.0)
    states = jax.vmap(de.step)(states)
    assert states.y["a"].shape == (2, 2)
    assert states.t.shape == (2,)
    assert (states.t > 1.0).all()


def test_leaves_are_arrays():
    state = de.init(PROBLEM, de.Tsit5())
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert jax.tree.structure(state) == jax.tree.structure(de.step(state))
