"""A solve never lies: what raises, what is NaN, what a failed lane's derivative is, what is refused."""
# ruff: noqa: B023, E501, D403

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de

TS = jnp.array([0.25, 0.5, 1.5, 1.9])
BLOWS_UP = de.ODEProblem(lambda t, y, a: a * y**2, jnp.array([1.0, 0.5]), (0.0, 2.0), 1.0)
# y0 = 1: y = 1 / (1 − a t) is infinite at t = 1 / a.
AS = jnp.array([0.2, 1.0, 0.4])
FAILED = np.array([False, True, False])


def solve(a, saveat=TS, **options):
    options = {"method": de.Tsit5(), "rtol": 1e-5, "atol": 1e-7} | options
    return de.solve(BLOWS_UP.replace(args=a), saveat=saveat, **options)


def exact(a, t=TS):
    y0 = BLOWS_UP.y0
    return y0 / (1 - a * y0 * t[:, None])


# --- raising --------------------------------------------------------------------------------------


def test_an_eager_failure_raises_and_says_where():
    with pytest.raises(de.SolveError, match=r"stopped at t = 0\.99|t = 1") as caught:
        solve(1.0)
    error = caught.value
    assert error.index == ()
    assert isinstance(error.status, de.Status)
    assert not error.status.ok
    np.testing.assert_allclose(error.t, 1.0, atol=1e-3)
    assert np.isfinite(error.y).all()
    assert np.isfinite(error.dt)
    assert error.solution.saved.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: jax.grad(f)(1.0),
        lambda f: jax.jvp(f, (1.0,), (1.0,)),
        lambda f: jax.jacfwd(f)(1.0),
        lambda f: jax.hessian(f)(1.0),
    ],
    ids=["grad", "jvp", "jacfwd", "hessian"],
)
def test_eager_derivatives_raise_or_are_nan(transform):
    """grad and jvp of one solve know the status; a batch of tangents (jacfwd) knows it, too."""
    try:
        out = transform(lambda a: solve(a).ys.sum())
    except de.SolveError as error:
        np.testing.assert_allclose(error.t, 1.0, atol=1e-3)
    else:
        assert np.isnan(jax.tree.leaves(out)[-1]).all()


@pytest.mark.parametrize(
    "transform", [lambda f: jax.grad(f)(1.0), lambda f: jax.jvp(f, (1.0,), (1.0,))]
)
def test_eager_grad_and_jvp_raise(transform):
    with pytest.raises(de.SolveError, match="stopped at"):
        transform(lambda a: solve(a).ys.sum())


def test_throw_false_leaves_it_to_check():
    sol = solve(1.0, throw=False)
    assert not bool(sol.success)
    assert sol.message
    with pytest.raises(de.SolveError, match="stopped at"):
        sol.check()
    assert solve(0.2).check() is not None


@pytest.mark.parametrize(
    "wrap", [jax.jit, lambda f: lambda a: jax.tree.map(lambda x: x[0], jax.vmap(f)(jnp.stack([a])))]
)
def test_inside_jit_or_vmap_nothing_raises(wrap):
    sol = wrap(solve)(jnp.array(1.0))
    assert sol.saved.tolist() == [True, True, False, False]
    assert np.isnan(sol.ys[2:]).all()
    np.testing.assert_allclose(sol.ys[:2], exact(1.0)[:2], rtol=1e-3)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(sol.last))
    assert int(sol.num) == 2
    np.testing.assert_array_equal(sol.ts, TS)
    with pytest.raises(de.SolveError):
        sol.check()


def test_statuses():
    status = lambda **options: int(solve(options.pop("a", 0.2), throw=False, **options).status)
    assert status() == de.Status.success
    assert status(max_steps=2) == de.Status.max_steps
    assert status(method=de.Tsit5(), dt=0.05, a=5.0) == de.Status.nonfinite
    assert status(a=1.0) in (de.Status.step_too_small, de.Status.nonfinite)
    assert status(a=1.0, controller=de.PI(dtmin=1e-3)) == de.Status.dtmin
    assert status(a=jnp.nan) in (de.Status.nonfinite, de.Status.step_too_small)
    assert status(saveat="steps", max_saves=3) == de.Status.too_many_saves
    end = jax.jit(lambda t: de.solve(BLOWS_UP.replace(args=0.2, tspan=(0.0, t)), saveat=TS))
    assert int(end(jnp.nan).status) == de.Status.bad_times
    assert int(end(jnp.inf).status) == de.Status.bad_times
    assert int(end(1.0).status) == de.Status.bad_times, "save times outside tspan"


def test_last_is_finite_when_the_field_is_nan_from_the_start():
    sol = de.solve(
        de.ODEProblem(lambda t, y, a: y / 0.0 * 0.0, jnp.ones(2), (0.0, 1.0)), throw=False
    )
    assert not bool(sol.success)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(sol.last))
    assert np.isnan(sol.ys).all()
    assert np.isnan(sol.y1).all()
    np.testing.assert_array_equal(sol.last.y, [1.0, 1.0])


def test_max_steps_counts_attempts_and_is_enough_when_it_is():
    needed = int(solve(0.4).stats["steps"] + solve(0.4).stats["rejected"])
    assert bool(solve(0.4, max_steps=needed).success)
    with pytest.raises(de.SolveError, match="max_steps"):
        solve(0.4, max_steps=needed - 1)


def test_integers_of_save_are_left_unmarked():
    sol = solve(1.0, throw=False, save=lambda t, y, a: (jnp.int32(7), y))
    assert sol.ys[0].dtype == jnp.int32
    assert np.isnan(sol.ys[1][2:]).all()


# --- batches --------------------------------------------------------------------------------------


def test_a_failed_lane_leaves_its_mates_alone():
    many = jax.vmap(solve)(AS)
    assert np.asarray(many.success).tolist() == (~FAILED).tolist()
    for i in np.flatnonzero(~FAILED):
        one = solve(AS[i])
        np.testing.assert_allclose(many.ys[i], one.ys, rtol=1e-12)
        assert int(many.stats["steps"][i]) == int(one.stats["steps"])
    with pytest.raises(de.SolveError, match="sample 1 of 3") as caught:
        many.check()
    assert caught.value.index == (1,)
    nested = jax.vmap(jax.vmap(solve))(jnp.stack([AS[::2], AS[:2]]))
    with pytest.raises(de.SolveError) as caught:
        nested.check()
    assert caught.value.index == (1, 1)


def test_a_sample_of_a_batch():
    many = jax.vmap(solve)(AS)
    assert bool(many[0].success)
    assert many[0].ys.shape == (4, 2)
    with pytest.raises(de.SolveError):
        many[1].check()


LOSSES = {
    "the gradient of each": lambda: jax.vmap(jax.grad(lambda a: solve(a).ys.sum()))(AS),
    "the gradient of the sum": lambda: jax.grad(lambda a: jnp.sum(jax.vmap(solve)(a).ys))(AS),
    "under jit": lambda: jax.jit(jax.grad(lambda a: jnp.sum(jax.vmap(solve)(a).ys)))(AS),
    "forward": lambda: jax.vmap(lambda a: jax.jvp(lambda a: solve(a).ys.sum(), (a,), (1.0,))[1])(
        AS
    ),
    "a thinned tape": lambda: jax.grad(
        lambda a: jnp.sum(
            jax.vmap(lambda a: solve(a, adjoint=de.Discrete(rows=32), max_steps=900))(a).ys
        )
    )(AS),
}


@pytest.mark.parametrize("way", shortly(LOSSES, "under jit", "forward"))
def test_gradients_of_the_mates_are_right_and_its_own_is_nan(way):
    found = LOSSES[way]()
    want = [jax.grad(lambda a: solve(a).ys.sum())(a) for a in AS[~FAILED]]
    np.testing.assert_allclose(found[~FAILED], want, rtol=1e-10)
    assert np.isnan(found[FAILED]).all()


def test_a_shared_parameter_is_poisoned_only_by_what_was_asked_for():
    def loss(scale, rows):
        ys = jax.vmap(lambda a: solve(scale * a))(AS).ys
        return jnp.sum(jnp.where(rows[:, :, None], ys, 0.0))

    everything, reached = jnp.ones((3, 4), bool), jnp.isfinite(exact_rows())
    assert np.isnan(jax.grad(loss)(1.0, everything))
    grad = jax.grad(loss)(1.0, reached)
    ones = [jax.grad(lambda s: solve(s * a).ys.sum())(1.0) for a in AS[~FAILED]]
    part = jax.grad(lambda s: solve(s, throw=False).ys[:2].sum())(1.0)
    np.testing.assert_allclose(grad, sum(ones) + part, rtol=1e-9)


def exact_rows():
    return jnp.where(jnp.asarray(FAILED)[:, None] & (TS > 1), jnp.nan, 1.0)


# --- the derivative of a failed lane --------------------------------------------------------------


def test_zero_cotangent_gives_exactly_zero():
    go = jax.jit(lambda problem: de.solve(problem, saveat=TS, rtol=1e-6).ys)
    _, pull = jax.vjp(lambda a, y0: go(BLOWS_UP.replace(args=a, y0=y0)), 1.0, BLOWS_UP.y0)
    for x in pull(jnp.zeros((4, 2))):
        np.testing.assert_array_equal(x, jnp.zeros_like(x))
    for x in pull(jnp.zeros((4, 2)).at[3, 0].set(1e-300)):
        assert np.isnan(x).all()
    reached = jnp.zeros((4, 2)).at[0, 0].set(1.0)
    for x in pull(reached):
        assert np.isfinite(x).all()
    np.testing.assert_allclose(pull(reached)[0], 0.25 / 0.75**2, rtol=1e-3)


def test_zero_cotangent_of_a_field_that_is_nan_is_zero():
    problem = de.ODEProblem(lambda t, y, a: jnp.sqrt(a - t) * y, jnp.ones(2), (0.0, 1.0), 0.5)
    end = jax.jit(lambda a: de.solve(problem.replace(args=a), saveat=jnp.array([0.25, 1.0])).ys)
    _, pull = jax.vjp(end, 0.5)
    assert float(pull(jnp.zeros((2, 2)))[0]) == 0.0
    grad = pull(jnp.array([[1.0, 0.0], [0.0, 0.0]]))[0]
    true = jax.grad(lambda a: jnp.exp(2 / 3 * (a**1.5 - (a - 0.25) ** 1.5)))(0.5)
    np.testing.assert_allclose(grad, true, rtol=1e-3)


@pytest.mark.parametrize("dt", [None, 0.05])
def test_filled_has_right_gradients(dt):
    """The idiom of the docs: a likelihood over lanes some of which failed."""

    def likelihood(a):
        sol = solve(a, dt=dt)
        value = -jnp.sum(sol.filled(1.0) ** 2)
        return jnp.where(sol.success, value, -jnp.inf)

    values, grads = jax.vmap(jax.value_and_grad(likelihood))(jnp.array([0.2, 5.0, 0.4]))
    ones = [jax.value_and_grad(likelihood)(a) for a in (0.2, 0.4)]
    np.testing.assert_allclose(values[jnp.array([0, 2])], [v for v, _ in ones], rtol=1e-12)
    np.testing.assert_allclose(grads[jnp.array([0, 2])], [g for _, g in ones], rtol=1e-10)
    assert float(values[1]) == -np.inf
    assert float(grads[1]) == 0.0


def test_filled_rows_have_zero_derivative_and_reached_ones_their_own():
    go = jax.jit(lambda a: solve(a).filled(3.0))
    value, dot = jax.jvp(go, (1.0,), (1.0,))
    np.testing.assert_array_equal(value[2:], 3.0)
    np.testing.assert_array_equal(dot[2:], 0.0)
    assert np.isfinite(dot[:2]).all()
    grad = jax.grad(lambda a: go(a).sum())(1.0)
    np.testing.assert_allclose(grad, dot[:2].sum(), rtol=1e-9)


def test_padding_discards_its_cotangent():
    times = jnp.array([0.25, 0.5, jnp.nan])
    grad = jax.grad(lambda a: jnp.sum(jnp.nan_to_num(solve(a, times).ys)))(0.4)
    plain = jax.grad(lambda a: jnp.sum(solve(a, times[:2]).ys))(0.4)
    np.testing.assert_allclose(grad, plain, rtol=1e-12)
    _, pull = jax.vjp(lambda a: solve(a, times).ys, 0.4)
    np.testing.assert_allclose(pull(jnp.ones((3, 2)))[0], plain, rtol=1e-12)
    _, pull = jax.vjp(lambda a: jax.jit(lambda a: solve(a, "steps", max_saves=200).ys)(a), 0.4)
    assert np.isfinite(pull(jnp.ones((200, 2)))[0])


def test_a_lane_of_nothing_but_padding_leaves_the_gradients_of_others_alone():
    times = jnp.array([[0.25, 0.5], [jnp.nan, jnp.nan]])
    both = lambda a: jax.vmap(lambda at: solve(a, at).filled(0.0))(times).sum()
    alone = jax.grad(lambda a: solve(a, times[0]).ys.sum())(0.4)
    np.testing.assert_allclose(jax.grad(both)(0.4), alone, rtol=1e-12)


@pytest.mark.parametrize(("of", "finite"), [(lambda s: s.last.y, True), (lambda s: s.y1, False)])
def test_the_last_state_of_a_failed_solve_differentiates_and_its_end_does_not(of, finite):
    """`last` is a state that was reached; `y1` is the end, which was not."""
    failed = jax.jit(solve, static_argnames="max_steps")
    value, grad = jax.value_and_grad(lambda a: of(failed(a, max_steps=3)).sum())(0.4)
    assert np.isfinite(value) == finite
    assert np.isfinite(grad) == finite


DECAY = lambda t, y, a: -a * y
WILD = {  # method, options, field, y0 of the bad lane, and of a good one
    "a missing sample": (de.Tsit5(), {}, DECAY, jnp.nan, 1.0),
    "a missing sample, no stage kept": (de.RK4(), {"dt": 0.1}, DECAY, jnp.nan, 1.0),
    "no field at y0": (de.Tsit5(), {"dt": 0.1}, lambda t, y, a: a * jnp.log(y + 2.0), -3.0, 1.0),
    "numbers too large": (de.RK4(), {"dt": 0.1}, lambda t, y, a: a * y**2, 1.0, 0.1),
    "a field that ends": (de.Tsit5(), {}, lambda t, y, a: -a * jnp.sqrt(y) - 0.1, 0.5, 5.0),
}


@pytest.mark.parametrize("name", shortly(WILD, "a missing sample", "numbers too large"))
def test_a_bad_sample_never_spoils_what_all_share(name):
    """The gradient by a parameter of all lanes is that of the good ones: zero times what is
    infinite where a lane broke down is zero.
    """
    method, options, field, bad, good = WILD[name]

    @jax.jit
    @jax.grad
    def gradient(a, y0s, weights):
        def one(y0):
            problem = de.ODEProblem(field, y0, (0.0, 2.0), a)
            sol = de.solve(problem, method, saveat=TS, throw=False, **options)
            return jnp.where(sol.success, sol.filled(1.0).sum(), 0.0)

        return weights @ jax.vmap(one)(y0s)

    with_bad, with_good = (jnp.array([good, x, 1.5 * good]) for x in (bad, good))
    want = gradient(1.0, with_good, jnp.array([1.0, 0.0, 1.0]))
    assert np.isfinite(want)
    np.testing.assert_allclose(gradient(1.0, with_bad, jnp.ones(3)), want, rtol=1e-12)
    np.testing.assert_array_equal(gradient(1.0, with_bad, jnp.array([0.0, 1.0, 0.0])), 0.0)


def test_a_tape_that_overflows_is_never_a_number():
    problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 1.0)
    short = {"dt": 0.01, "adjoint": de.Discrete(rows=4, checkpoint=False)}
    end = lambda k: de.solve(problem.replace(args=k), de.Euler(), **short).y1
    value, grad = jax.jit(jax.value_and_grad(end))(1.0)
    assert np.isnan(value)
    assert np.isnan(grad)


def test_throw_compiled_is_the_plain_error_where_nothing_is_compiled(monkeypatch):
    with pytest.raises(de.SolveError, match=r"stopped at t = ") as caught:
        solve(1.0, throw="compiled")
    assert caught.value.status == de.Status.step_too_small
    monkeypatch.setenv("DIFFEQ_THROW", "compiled")
    with pytest.raises(de.SolveError):
        solve(1.0)
    monkeypatch.setenv("DIFFEQ_THROW", "always")
    with pytest.raises(ValueError, match="DIFFEQ_THROW is 'always'; 'compiled' is wanted"):
        solve(0.2)


def test_how_a_batch_ended():
    sols = jax.vmap(lambda a: solve(a))(AS)
    assert sols.message == "1 of 3 solves failed"
    assert sols[0].message == "the solve reached the end"
    for look in (lambda sol: sol.check(), lambda sol: sol.message):
        with pytest.raises(TypeError, match=r"not known inside jit or vmap.*throw='compiled'"):
            jax.jit(lambda a, look=look: look(solve(a)))(0.2)


def test_throw_compiled_raises_inside_jit():
    with pytest.raises(Exception, match="stopped at t"):
        jax.block_until_ready(jax.jit(lambda a: solve(a, throw="compiled").ys)(1.0))
    jax.jit(lambda a: solve(a, throw="compiled").ys)(0.2).block_until_ready()


# --- refusals -------------------------------------------------------------------------------------

F = lambda t, y, a: -y
# As users see it: in the tests annotations are checked too, and would speak first.
unchecked = inspect.unwrap(de.solve)


def problem(f=F, y0=(1.0, 2.0), tspan=(0.0, 1.0), args=None):
    return de.ODEProblem(f, y0, tspan, args)


def half_an_energy():
    energy = de.Separable(F, F)
    energy.potential = None
    return de.HamiltonianProblem(energy, 1.0, 1.0, (0.0, 1.0))


class Torchy:
    """What a torch module looks like from outside."""

    def __call__(self, t, y, args):
        return -y


Torchy.__module__ = "torch.nn.modules.linear"

REFUSED = {
    "a field for a problem": (lambda: unchecked(F), TypeError, r"problem is .*; write de\.ODEProblem\(f, y0, tspan, args\)"),
    "a number for a problem": (lambda: unchecked(3), TypeError, r"problem is 3; give a de\.ODEProblem"),
    "shape of f": (lambda: unchecked(problem(lambda t, y, a: y[:1])), TypeError, r"f returned shape \(1,\); y has shape \(2,\)"),
    "a scalar of f": (lambda: unchecked(problem(lambda t, y, a: y.sum())), TypeError, r"f returned shape \(\); y has shape \(2,\)"),
    "structure of f": (lambda: unchecked(problem(lambda t, y, a: {"x": y})), TypeError, r"f returned .*x.*; y is"),
    "None of f": (lambda: unchecked(problem(lambda t, y, a: None)), TypeError, r"f returned"),
    "complex f": (lambda: unchecked(problem(lambda t, y, a: 1j * y)), TypeError, r"f returned dtype complex128, wider than the state's float64"),
    "wide f": (lambda: unchecked(problem(lambda t, y, a: y.astype(jnp.float64), jnp.ones(2, jnp.float32))), TypeError, r"f returned dtype float64.*float32.*dy\.astype\(y\.dtype\)"),
    "arity of f": (lambda: unchecked(problem(lambda t, y: y)), TypeError, r"f\(t, y\) cannot be called as f\(t, y, args\)"),
    "odeint's order": (lambda: unchecked(problem(lambda y, t, a: -y)), TypeError, r"f\(y, t, a\) does not have t first, but is called as f\(t, y, args\)\. Change the order"),
    "no f": (lambda: unchecked(problem().replace(f=None)), TypeError, r"f is None; a function f\(t, y, args\)"),
    "no explicit part": (lambda: unchecked(de.SplitODEProblem(F, F, 1.0, (0.0, 1.0)).replace(explicit=3)), TypeError, r"explicit is 3; a function explicit\(t, y, args\)"),
    "arity of an energy": (lambda: unchecked(de.HamiltonianProblem(lambda q, p: p**2, 1.0, 1.0, (0.0, 1.0))), TypeError, r"hamiltonian\(q, p\) cannot be called as hamiltonian\(t, q, p, args\)"),
    "half an energy": (lambda: unchecked(half_an_energy()), TypeError, r"potential is None; a function potential\(t, q, args\)"),
    "a word for jac": (lambda: unchecked(problem().replace(jac="nonsense")), TypeError, r"jac is 'nonsense'; a function jac"),
    "a word for y0": (lambda: unchecked(problem(y0="f4")), TypeError, r"y0 is 'f4'; a number or an array"),
    "words in y0": (lambda: unchecked(problem(y0={"a": 1.0, "b": "x"})), TypeError, r"y0\['b'\] is 'x'"),
    "a word for v0": (lambda: unchecked(de.SecondOrderProblem(F, 1.0, "x", (0.0, 1.0))), TypeError, r"v0 is 'x'"),
    "integer y0": (lambda: unchecked(problem(y0=jnp.array([1, 2]))), TypeError, r"y0 has dtype int.*write 1\.0 for 1"),
    "integer leaf": (lambda: unchecked(problem(lambda t, y, a: y, {"n": jnp.array(1), "x": 1.0})), TypeError, r"y0\['n'\] has dtype int"),
    "empty y0": (lambda: unchecked(problem(y0={})), ValueError, r"y0 has no arrays"),
    "NaN in y0": (lambda: unchecked(problem(y0=[1.0, float("nan")])), ValueError, r"y0 has NaN; a finite"),
    "infinity in y0": (lambda: unchecked(problem(y0=[1.0, float("inf")])), ValueError, r"y0 has inf; a finite"),
    "infinite tspan": (lambda: unchecked(problem(tspan=(0.0, float("inf")))), ValueError, r"tspan is \(0\.0, inf\); finite times"),
    "NaN tspan": (lambda: unchecked(problem(tspan=(0.0, float("nan")))), ValueError, r"tspan is .*nan.*finite"),
    "a word for tspan": (lambda: unchecked(problem(tspan="01")), TypeError, r"tspan is '01'; a pair"),
    "words in tspan": (lambda: unchecked(problem(tspan=("0", "1"))), ValueError, r"tspan is \('0', '1'\); two scalars, real"),
    "complex tspan": (lambda: unchecked(problem(tspan=(0, 1j))), ValueError, r"tspan is .*1j.*real"),
    "a number for tspan": (lambda: unchecked(problem(tspan=1.0)), TypeError, r"tspan is 1\.0; a pair"),
    "three ends": (lambda: unchecked(problem(tspan=(0.0, 1.0, 2.0))), TypeError, r"tspan .*pair \(t0, t1\)"),
    "a vector as an end": (lambda: unchecked(problem(tspan=(0.0, jnp.ones(2)))), ValueError, r"tspan .*scalar"),
    "rtol": (lambda: unchecked(problem(), rtol=-1e-3), ValueError, r"rtol is -0\.001; positive"),
    "atol of zero": (lambda: unchecked(problem(), atol=0.0), ValueError, r"atol is 0\.0; it must be positive"),
    "NaN rtol": (lambda: unchecked(problem(), rtol=float("nan")), ValueError, r"rtol is nan"),
    "infinite rtol": (lambda: unchecked(problem(), rtol=float("inf")), ValueError, r"rtol is inf.*finite"),
    "a word for rtol": (lambda: unchecked(problem(), rtol="1e-3"), ValueError, r"rtol is '1e-3'; positive"),
    "no rtol in it": (lambda: unchecked(problem(), rtol=[]), ValueError, r"rtol is \[\]; positive"),
    "a string for a method": (lambda: unchecked(problem(), "tsit5"), TypeError, r"method is the string 'tsit5'.*de\.Tsit5\(\)"),
    "another string": (lambda: unchecked(problem(), "RK45"), TypeError, r"method is the string 'RK45'.*de\."),
    "a class for a method": (lambda: unchecked(problem(), de.Tsit5), TypeError, r"method is .*Tsit5; an instance is wanted: de\.Tsit5\(\)"),
    "a number for a method": (lambda: unchecked(problem(), 5), TypeError, r"method is 5; a method is wanted"),
    "no error estimate": (lambda: unchecked(problem(), de.RK4()), ValueError, r"method RK4.* no error estimate.*dt="),
    "dt and dt0": (lambda: unchecked(problem(), dt=0.1, dt0=0.1), ValueError, r"dt and dt0"),
    "dt of zero": (lambda: unchecked(problem(), dt=0.0), ValueError, r"dt is 0\.0"),
    "a word for dt": (lambda: unchecked(problem(), dt="0.1"), ValueError, r"dt is '0\.1'; one finite number"),
    "complex dt": (lambda: unchecked(problem(), dt=1j), ValueError, r"dt is 1j"),
    "dt backwards": (lambda: unchecked(problem(), dt=-0.1), ValueError, r"dt is -0\.1, but tspan .* runs forwards; give dt > 0"),
    "dt0 backwards": (lambda: unchecked(problem(), dt0=-0.1), ValueError, r"dt0 is -0\.1, but tspan .* runs forwards; give dt0 > 0"),
    "dtmin above dtmax": (lambda: unchecked(problem(), controller=de.PI(dtmin=1.0, dtmax=0.1)), ValueError, r"dtmin is 1\.0, above dtmax = 0\.1"),
    "negative dtmax": (lambda: unchecked(problem(), controller=de.PI(dtmax=-0.1)), ValueError, r"dtmax is -0\.1; one positive number"),
    "a word for dtmin": (lambda: unchecked(problem(), controller=de.PI(dtmin="a")), ValueError, r"dtmin is 'a'"),
    "controller string": (lambda: unchecked(problem(), controller="PI"), TypeError, r"controller is 'PI'; an instance is wanted, such as de\.PI\(\)"),
    "rows": (lambda: de.Discrete(rows=-1), ValueError, r"rows is -1; a positive whole number"),
    "stops": (lambda: unchecked(problem(), stops=0.5), ValueError, r"stops is 0\.5; a sequence of times"),
    "a word for stops": (lambda: unchecked(problem(), stops=["noon"]), ValueError, r"stops is \['noon'\]"),
    "NaN dt0": (lambda: unchecked(problem(), dt0=float("nan")), ValueError, r"dt0 is nan"),
    "controller class": (lambda: unchecked(problem(), controller=de.PI), TypeError, r"controller is the class PI; an instance"),
    "adjoint class": (lambda: unchecked(problem(), adjoint=de.Discrete), TypeError, r"adjoint is the class Discrete; an instance"),
    "max_steps": (lambda: unchecked(problem(), max_steps=0), TypeError, r"max_steps is 0; a positive whole number"),
    "max_saves": (lambda: unchecked(problem(), saveat="steps", max_saves=1.5), TypeError, r"max_saves is 1\.5"),
    "throw": (lambda: unchecked(problem(), throw="maybe"), ValueError, r"throw is 'maybe'"),
    "saveat outside": (lambda: unchecked(problem(), saveat=[0.5, 1.5]), ValueError, r"saveat has 1\.5, outside tspan = \(0, 1\)"),
    "saveat before": (lambda: unchecked(problem(), saveat=[-0.5, 0.5]), ValueError, r"saveat has -0\.5, outside"),
    "saveat unsorted": (lambda: unchecked(problem(), saveat=[0.5, 0.2]), ValueError, r"saveat is not sorted"),
    "saveat the wrong way": (lambda: unchecked(problem(tspan=(1.0, 0.0)), saveat=[0.2, 0.5]), ValueError, r"saveat is not sorted along the direction of time"),
    "NaN inside saveat": (lambda: unchecked(problem(), saveat=[0.2, float("nan"), 0.5]), ValueError, r"saveat has NaN before"),
    "a number for saveat": (lambda: unchecked(problem(), saveat=0.5), ValueError, r"saveat is .*0\.5.*; a sequence"),
    "a word for saveat": (lambda: unchecked(problem(), saveat="all"), ValueError, r"saveat is 'all'"),
    "words in saveat": (lambda: unchecked(problem(), saveat=["noon"]), ValueError, r"saveat is \['noon'\]; a sequence"),
    "no times": (lambda: unchecked(problem(), saveat=[]), ValueError, r"saveat is empty; .* None for the state at t1"),
    "no keys": (lambda: unchecked(problem(), saveat={}), ValueError, r"saveat is \{\}; at least one key"),
    "a number for save": (lambda: unchecked(problem(), save=3), TypeError, r"save is 3; a function save\(t, y, args\)"),
    "arity of save": (lambda: unchecked(problem(), save=lambda t, y: y), TypeError, r"save\(t, y\) cannot be called as save\(t, y, args\)"),
    "saveat in a dict": (lambda: unchecked(problem(), saveat={"a": [2.0]}), ValueError, r"saveat\['a'\] has 2"),
    "keys of save": (lambda: unchecked(problem(), saveat={"a": [0.5]}, save={"b": F}), ValueError, r"save has the keys \['b'\]"),
    "an unknown keyword": (lambda: de.solve(problem(), tol=1e-3), TypeError, r"solve got 'tol', which it does not know; it takes problem, method, saveat.*\. Is atol meant\?|Is rtol"),
    "SciPy's keyword": (lambda: de.solve(problem(), t_eval=[0.5]), TypeError, r"solve got 't_eval'.* Is saveat meant\?"),
    "an unknown keyword of init": (lambda: de.init(problem(), solver=de.Tsit5()), TypeError, r"init got 'solver'.* Is method meant\?"),
    "an unknown field": (lambda: problem().replace(parameters=1), TypeError, r"ODEProblem\.replace got 'parameters'; its fields are f, y0"),
    "a torch module": (lambda: unchecked(problem(Torchy())), TypeError, r"neither trace nor.*diffeq\.torch.*equinox"),
    "a torch module in a layer": (lambda: de.nn.NeuralODE(Torchy()), TypeError, r"net is a torch module \(Torchy\)"),
    "a torch module as a layer's field": (lambda: de.nn.Layer({}, field=Torchy()), TypeError, r"field is a torch module"),
    "saveat just outside": (lambda: unchecked(problem(), saveat=[1 + 1e-12]), ValueError, r"saveat has 1\.000000000001, outside"),
    "a problem for a state": (lambda: inspect.unwrap(de.step)(problem()), TypeError, r"state is ODEProblem.*; a State is wanted, which de\.init"),
    "a sample of one": (lambda: unchecked(problem())[0], TypeError, r"sol\[0\] is a sample of a batch, and this is one solution.*sol\.ys"),
    "a sample too many": (lambda: jax.vmap(lambda k: unchecked(problem(), atol=k))(jnp.ones(2))[2], IndexError, r"index 2 is out of bounds"),
    "a batch of dense output": (lambda: jax.vmap(lambda k: unchecked(problem(), atol=k, dense=True))(jnp.ones(2))(0.5), ValueError, r"a batch of shape \(2,\): index it, sol\[0\]\(t\)"),
    "no dense output": (lambda: unchecked(problem())(0.5), ValueError, r"dense=True"),
    "a tolerance tree": (lambda: unchecked(problem(), rtol={"z": 1e-3}), ValueError, r"rtol is \{'z': 0\.001\}; a number is wanted, or a prefix tree of y0, which is float64\[2\]"),
    "a tolerance too long": (lambda: unchecked(problem(), atol=jnp.ones(3)), ValueError, r"atol is .*; a number is wanted, or a prefix tree of y0, which is float64\[2\]"),
    "a tolerance wider than y0": (lambda: unchecked(problem(y0=1.0), rtol=[1e-3, 1e-3]), ValueError, r"rtol is \[0\.001, 0\.001\]; a number is wanted"),
    "no numbers in y0": (lambda: unchecked(problem(y0=jnp.zeros(0))), ValueError, r"y0 is float64\[0\], empty"),
    "no tspan": (lambda: unchecked(problem(tspan=None)), TypeError, r"tspan is None; a pair"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what):
    call, error, words = REFUSED[what]
    with pytest.raises(error, match=f"(?s){words}"):
        call()


def test_rtol_of_zero_alone_is_fine():
    assert bool(de.solve(problem(), rtol=0.0, atol=1e-6).success)


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap])
def test_shapes_are_refused_inside_traces_too(transform):
    go = transform(lambda k: de.solve(problem(lambda t, y, a: k * y[:1])).ys.sum())
    with pytest.raises(TypeError, match=r"f returned shape \(1,\)"):
        go(jnp.ones(2) if transform is jax.vmap else 1.0)
