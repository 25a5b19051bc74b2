"""Large stiff problems against what is published of them, and the structures that they state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

SMALL = {
    "reaction_diffusion": de.zoo.reaction_diffusion(30),
    "medical_akzo": de.zoo.medical_akzo(),
    "brusselator_2d": de.zoo.brusselator_2d(5),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_structure_holds_every_entry_and_no_other(name):
    """At two states at random, on both sides of a jump."""
    case, entries = SMALL[name], False
    field = lambda y, t: case.field(t, y.reshape(case.y0.shape), jnp.asarray(case.args)).ravel()
    for seed, t in ((0, 0.5), (1, 10.0)):
        y = jnp.asarray(np.random.default_rng(seed).uniform(0.5, 1.0, case.y0.size))
        found = jax.jacfwd(field)(y, t)
        entries |= np.asarray(found) != 0
    rows, places = case.jac.entries(y.size)
    known = np.zeros_like(entries)
    known[rows[rows >= 0], places[rows >= 0]] = True
    assert not (entries & ~known).any()
    if name == "brusselator_2d":
        np.testing.assert_array_equal(entries, known)


@pytest.mark.thorough
@pytest.mark.parametrize(("method", "rtol"), [(de.Rodas5P(), 1e-6), (de.BDF(), 1e-7)])
def test_medical_akzo_ends_as_published(method, rtol):
    case = de.zoo.medical_akzo()
    sol = de.solve(case.problem(), method, rtol=rtol, atol=1e-12, stops=case.stops)
    for place, value in case.published.items():
        assert abs(sol.y1[place] / value - 1) < 2e-4, place


@pytest.mark.thorough
def test_the_brusselator_on_a_square_is_that_of_the_dense_jacobian():
    case = de.zoo.brusselator_2d(9)  # 162 equations: SuperLU
    options = {"rtol": 1e-5, "atol": 1e-7, "stops": case.stops}
    structured, dense = (
        de.solve(case.problem(structured=on).replace(tspan=(0.0, 2.0)), de.Rodas5P(), **options)
        for on in (True, False)
    )
    assert structured.stats["steps"] == dense.stats["steps"]
    np.testing.assert_allclose(structured.y1, dense.y1, rtol=1e-9)
