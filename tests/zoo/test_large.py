"""Large stiff problems against what is published of them, and the structures that they state."""

import json
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de

SMALL = {
    "reaction_diffusion": de.zoo.reaction_diffusion(30),
    "medical_akzo": de.zoo.medical_akzo(),
    "brusselator_2d": de.zoo.brusselator_2d(5),
    "egfr_network": de.zoo.egfr_network(),
}
# What BioNetGen's ODE solver finds at t = 120 with rtol = atol = 1e-8: the file that the repository
# of BioNetGen keeps for its tests, bng2/Validate/DAT_validate/egfr_net.gdat.
BIONETGEN = {
    "Dimers": 1.299365620574e05,
    "Sos_act": 2.234188200048e03,
    "RP": 3.725429285459e04,
    "R_Grb2": 6.665337326287e03,
    "R_Shc": 3.619604581659e02,
    "R_ShcP": 5.170437958638e03,
    "ShcP": 2.665894577560e05,
    "R_G_S": 1.598389428866e03,
    "R_S_G_S": 6.357987711817e02,
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
    if name in ("brusselator_2d", "egfr_network"):
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


def test_the_network_has_the_published_size():
    case = de.zoo.egfr_network()
    assert (case.title, len(case.components)) == ("EGF receptor, 3,749 reactions, n = 356", 356)
    assert len(set(case.components)) == len(case.y0) == 356
    assert len(case.parameters) == len(case.args) == 37
    assert case.observables.keys() == BIONETGEN.keys()


def test_the_network_keeps_the_number_of_each_molecule():
    """Every reaction moves molecules, and makes none."""
    case = de.zoo.egfr_network()
    slope = case.field(0.0, jnp.asarray(np.random.default_rng(0).uniform(0, 1e4, 356)), case.args)
    for molecule in ("EGF-", "EGFR(", "Shc", "Grb2", "Sos"):
        # A molecule of EGF that is free has no hyphen.
        counts = np.array([name.count(molecule) + (name + "-" == molecule)
                           for name in case.components])  # fmt: skip
        assert abs(counts @ slope) < 1e-12 * (counts @ jnp.abs(slope)), molecule
    assert jnp.abs(slope).max() > 1e3


def test_the_reference_of_the_network_is_of_this_problem():
    case = de.zoo.egfr_network()
    file = resources.files("diffeq.zoo") / "references_network.json"
    stored = json.loads(file.read_text())["cases"]["egfr_network"]
    np.testing.assert_allclose(case.y0, stored["y0"], rtol=3e-16)
    assert (list(case.tspan), case.args.tolist()) == (stored["tspan"], stored["args"])
    agreement = case.reference.agreement
    assert agreement["taylor"] < 1e-17  # of two runs in 64 bits
    assert max(agreement["dop853"], agreement["lsoda"]) < 1e-11
    for name, weights in case.observables.items():
        np.testing.assert_allclose(weights @ case.reference.y1, BIONETGEN[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("method", "small"),
    [
        (de.Rodas5P(), 1e-6),
        pytest.param(de.KenCarp4(), 1e-5, marks=pytest.mark.thorough),
        pytest.param(de.BDF(), 1e-5, marks=pytest.mark.thorough),
    ],
)
def test_the_network_ends_as_known(method, small):
    case = de.zoo.egfr_network()
    at = case.reference.ts
    sol = de.solve(case.problem(), method, saveat=at, rtol=1e-6, atol=1e-3)
    error = np.abs(sol.ys - case.reference.ys).max(axis=1) / np.abs(case.reference.ys).max(axis=1)
    assert 0 < error.max() < small
