"""A chemist: an acid–base equilibrium beside a slow reaction, started from a wrong guess."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

# A slow first-order loss of the total acid; its dissociation HA ⇌ H + A is instantaneous:
#     total' = −k · acid,   total = acid + ion,   H · ion = K · acid,   H = ion (electroneutrality).
RATE, K = 0.5, 1e-3


def reaction(t, y, args):
    rate, constant = args
    return {
        "total": -rate * y["acid"],
        "acid": y["total"] - y["acid"] - y["ion"],
        "ion": (y["ion"] ** 2 - constant * y["acid"]) * 1e3,
    }


GUESS = {"total": 1.0, "acid": 0.3, "ion": 0.5}  # neither the balance nor the equilibrium holds
MASS = {"total": 1.0, "acid": 0.0, "ion": 0.0}
PROBLEM = de.DAEProblem(
    reaction, jax.tree.map(jnp.asarray, GUESS), (0.0, 4.0), jnp.array([RATE, K]), mass_matrix=MASS
)


def ion(total, constant):
    """The equilibrium, solved by hand: ion² = K (total − ion)."""
    return 0.5 * (-constant + jnp.sqrt(constant**2 + 4 * constant * total))


def reduced(t, total, args):
    return -args[0] * (total - ion(total, args[1]))


def test_the_guess_is_mended_and_the_balances_hold():
    mended = de.consistent(PROBLEM).y0
    assert float(mended["total"]) == 1.0  # what the chemist weighed in
    np.testing.assert_allclose(mended["ion"], ion(1.0, K), rtol=1e-8)

    ts = jnp.linspace(0.0, 4.0, 9)
    ys = de.solve(PROBLEM, de.Rodas5P(), saveat=ts, rtol=1e-7, atol=1e-9).ys
    plain = de.ODEProblem(reduced, 1.0, (0.0, 4.0), PROBLEM.args)
    want = de.solve(plain, saveat=ts, rtol=1e-10, atol=1e-12).ys
    np.testing.assert_allclose(ys["total"], want, rtol=1e-6)
    np.testing.assert_allclose(ys["ion"], ion(want, K), rtol=1e-6)
    np.testing.assert_allclose(ys["acid"] + ys["ion"], ys["total"], rtol=1e-7)


@pytest.mark.thorough
def test_the_derivative_by_the_equilibrium_constant_is_that_of_the_reduced_equation():
    def end(constant, problem, method):
        args = jnp.stack([RATE, constant])
        y1 = de.solve(problem.replace(args=args), method, rtol=1e-8, atol=1e-10).y1
        return y1["ion"] if isinstance(y1, dict) else ion(y1, constant)

    plain = de.ODEProblem(reduced, 1.0, (0.0, 4.0), PROBLEM.args)
    found = jax.grad(lambda c: end(c, PROBLEM, de.Rodas5P()))(K)
    want = jax.grad(lambda c: end(c, plain, None))(K)
    np.testing.assert_allclose(found, want, rtol=1e-5)


def test_who_checks_is_told_what_does_not_hold():
    with pytest.raises(de.SolveError, match="init="):
        de.solve(PROBLEM, de.Rodas5P(), init="check")
