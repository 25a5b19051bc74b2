"""The benchmark of training: the bare program is right, the field is counted, disagreement said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import field_copies, fields, timing, training, training_cases
from benchmarks.bare import BareTsit5
from benchmarks.training_worker import FirstCall
from jax.flatten_util import ravel_pytree

import diffeq as de

pytestmark = pytest.mark.thorough

RATES = jnp.array([1.5, 1.0, 3.0, 1.0])
Y0 = jnp.array([1.0, 1.2])
TS = np.array([0.0, 0.31, 0.32, 1.7, 2.0])
WEIGHTS = jnp.arange(10.0).reshape(5, 2) - 4.0


def by_us(args, y0, **options):
    problem = de.ODEProblem(fields.lotka_volterra, y0, (0.0, 2.0), args)
    return de.solve(problem, de.Tsit5(), saveat=TS, **options).ys


@pytest.mark.parametrize("rolled", [False, True])
def test_given_steps_of_the_bare_program_are_those_of_the_library(rolled):
    solver = BareTsit5(fields.lotka_volterra, rolled, 20, dt=0.125)

    def bare(args, y0):
        return jnp.sum(jnp.sin(solver.solve(args, y0, jnp.asarray(TS), (0.0, 2.0))) * WEIGHTS)

    def ours(args, y0):
        return jnp.sum(jnp.sin(by_us(args, y0, dt=0.125)) * WEIGHTS)

    both = [jax.jit(jax.value_and_grad(f, argnums=(0, 1))) for f in (bare, ours)]
    (found, slopes), (known, wanted) = (f(RATES, Y0) for f in both)
    np.testing.assert_allclose(found, known, rtol=1e-12)
    np.testing.assert_allclose(ravel_pytree(slopes)[0], ravel_pytree(wanted)[0], rtol=1e-10)
    h, run = 1e-5, jax.jit(bare)
    differences = [(run(RATES + h * e, Y0) - run(RATES - h * e, Y0)) / (2 * h) for e in jnp.eye(4)]
    np.testing.assert_allclose(slopes[0], jnp.stack(differences), rtol=1e-7)


@pytest.mark.parametrize("rolled", [False, True])
def test_controlled_steps_of_the_bare_program(rolled):
    solver = BareTsit5(fields.lotka_volterra, rolled, 256)
    bare = lambda args: solver.solve(args, Y0, jnp.asarray(TS), (0.0, 2.0), 1e-9, 1e-9)
    run = jax.jit(lambda args: jax.vjp(bare, args)[1](WEIGHTS)[0])
    ours = jax.jit(
        lambda args: jax.vjp(lambda args: by_us(args, Y0, rtol=1e-11, atol=1e-11), args)[1](
            WEIGHTS
        )[0]
    )
    exact = by_us(RATES, Y0, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(jax.jit(bare)(RATES), exact, rtol=1e-7)
    np.testing.assert_allclose(run(RATES), ours(RATES), rtol=1e-6)


def test_a_tape_that_is_too_short_is_said():
    solver = BareTsit5(fields.lotka_volterra, True, 15, dt=0.125)
    end = lambda args: solver.solve(args, Y0, jnp.asarray(TS), (0.0, 2.0))[-1, 0]
    value, _ = jax.jit(jax.value_and_grad(end))(RATES)
    assert np.isnan(value)
    assert np.isfinite(jax.jit(end)(RATES))


def test_a_function_counts_as_often_as_it_is_called():
    @jax.jit
    def inner(x):
        return jnp.cbrt(x) + 1

    @jax.jit
    def outer(x):
        return inner(x) * inner(2 * x)

    count = lambda f: field_copies.marks(jax.jit(f).lower(1.0).as_text())
    assert count(lambda x: outer(x) + inner(x)) == 3
    assert count(lambda x: jax.lax.fori_loop(0, 9, lambda i, x: outer(x), x)) == 2
    assert count(jnp.sin) == 0


def test_copies_of_a_bare_program():
    """Rolled: the first slope, the first step size and the stages; and the stages in reverse."""
    case = training_cases.case_of("layers2")
    problem = case.problem._replace(field=field_copies.marked(case.problem.field))
    case = case._replace(problem=problem)
    rolled = case.loss_by(training_cases.CONTESTANTS["bare, rolled"])
    unrolled = case.loss_by(training_cases.CONTESTANTS["bare, unrolled"])
    assert field_copies.copies(rolled, case.params) == (3, 4)
    assert field_copies.copies(unrolled, case.params) == (8, 15)


def entry_of(case, who):
    """An entry whose figures are made up, and whose loss and gradient are not."""
    params = case.variants()[0]
    loss, slopes = jax.jit(jax.value_and_grad(case.loss_by(training_cases.CONTESTANTS[who])))(
        params
    )
    first = FirstCall(2.0, 1000, 10**6, float(loss), np.asarray(ravel_pytree(slopes)[0]))
    racers = {}
    for mode in ("forward", "gradient", "step"):
        racers[mode] = timing.Contestant(None, [], samples={0: 1e-3, 1: 2e-3})
    return training.Entry(first, (1, 3), 10**6, racers=racers)


def test_contestants_agree_and_a_disagreement_is_said():
    case = training_cases.case_of("layers1")._replace(large=True)
    entries = {who: entry_of(case, who) for who in training_cases.CONTESTANTS}
    assert training.disagreements(case, entries) == []
    families = [["method", "copies"], ["Tsit5", "1 / 3"]]
    text = training.report({"layers1": (case, entries)}, families, [])
    assert "All losses and gradients agree." in text
    assert "| a network of 1 layers | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 |" in text
    entries["Diffrax"].first = entries["Diffrax"].first._replace(loss=float("nan"))
    entries["bare, rolled"] = training.Entry(lacks="over 300 s")
    text = training.report({"layers1": (case, entries)}, families, [])
    assert "* a network of 1 layers: the loss of Diffrax is off by nan of its size." in text
    assert "|  | bare, rolled | over 300 s |" in text


def test_cases_by_name():
    assert training_cases.case_of("reactions7").title == "7 reactions"
    assert training_cases.case_of("ffjord", quick=True).title == "FFJORD, 8 samples"
    with pytest.raises(ValueError, match="unknown case 'spirals'"):
        training_cases.case_of("spirals")
    assert set(training_cases.QUICK) <= set(training_cases.CASES)
    for name in training_cases.CASES:
        case = training_cases.case_of(name)
        leaves = [*jax.tree.leaves(case.params), *jax.tree.leaves(case.problem.y0)]
        assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}, name
