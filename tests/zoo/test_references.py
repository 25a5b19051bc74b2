"""The zoo against what is known without it: scipy, analysis, invariants, printed tables.

The stored states come from right-hand sides that were written twice, once in the package and once
in `tools/zoo_references.py`, so an agreement here vouches for the field as well as for the state.
"""

import json
from importlib import resources

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import ellipj

from diffeq import problems, zoo

CASES = {case.name: case for case in zoo.cases() if not case.stiff}
STORED = json.loads((resources.files("diffeq.zoo") / "references.json").read_text())["cases"]
# Explicit steps beyond the stability limit leave an error that the estimator does not see.
MAX_STEP = {"brusselator_diffusion": 0.02}

every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
analytic = [case for case in CASES.values() if case.exact]
conserved = [(case, name) for case in CASES.values() for name in case.invariants]


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def rounding(case):
    """What the rounding of the start, a few times over, makes of the end, relative to it."""
    reference = case.reference
    return 1e-15 * (
        1 + reference.amplification * np.abs(case.y0).max() / np.abs(reference.y1).max()
    )


def relative(ys, expected):
    """The largest difference, in units of the largest component at the same time."""
    return np.max(np.abs(ys - expected) / np.abs(expected).max(axis=-1, keepdims=True))


@every
def test_dop853_agrees(case):
    field = jax.jit(case.field)
    solution = solve_ivp(
        lambda t, y: np.asarray(field(t, y, case.args)),
        case.tspan,
        case.y0,
        method="DOP853",
        t_eval=case.reference.ts,
        rtol=1e-13,
        atol=1e-20,
        max_step=MAX_STEP.get(case.name, np.inf),
    )
    assert relative(solution.y.T, case.reference.ys) < 1e-11 + rounding(case)


@every
def test_the_reference_is_of_this_problem(case):
    reference, stored = case.reference, STORED[case.name]
    np.testing.assert_allclose(case.y0, stored["y0"], rtol=3e-16)  # libm may differ by an ulp
    assert (list(case.tspan), reference.ts[-1]) == (stored["tspan"], case.tspan[1])
    # A parameter that the reference had may be a constant of the field: μ of DETEST E2.
    assert case.args is None or case.args.tolist() == stored["args"]
    assert reference.ys.shape == (4, case.y0.size)
    assert reference.agreement["taylor"] < 1e-20
    assert reference.agreement["dop853"] < max(1e-11, rounding(case))


@every
def test_problem(case):
    problem = case.problem()
    np.testing.assert_array_equal(np.asarray(problem.tspan), case.tspan)
    np.testing.assert_array_equal(problem.y0, case.y0)
    slope = jax.eval_shape(case.field, case.tspan[0], problem.y0, problem.args)
    assert (slope.shape, slope.dtype) == (problem.y0.shape, problem.y0.dtype)


@pytest.mark.parametrize("case", analytic, ids=lambda case: case.name)
def test_analytic(case):
    np.testing.assert_allclose(case.exact(case.tspan[0]), case.y0, atol=1e-14)
    exact = np.stack([case.exact(t) for t in case.reference.ts])
    assert relative(exact, case.reference.ys) < 1e-13


def test_rigid_body_is_elliptic():
    reference = zoo.detest("B5").reference
    exact = np.stack(ellipj(reference.ts, 0.51)[:3], axis=-1)
    assert relative(exact, reference.ys) < 1e-13


@pytest.mark.parametrize(("case", "name"), conserved, ids=lambda x: getattr(x, "name", x))
def test_invariant(case, name):
    quantity = case.invariants[name]
    start = quantity(case.tspan[0], case.y0, case.args)
    rows = zip(case.reference.ts, case.reference.ys, strict=True)
    later = np.stack([quantity(t, y, case.args) for t, y in rows])
    # Rounding the stored states costs little, except where an orbit is close to a body: Arenstorf.
    np.testing.assert_allclose(later, np.broadcast_to(start, later.shape), rtol=2e-12, atol=1e-12)


def test_arenstorf_closes():
    case = zoo.arenstorf()
    assert case.reference.agreement["closure"] < 1e-25  # with all digits that are printed
    gap = np.abs(case.reference.y1 - case.y0).max()
    assert gap < 1e-16 * case.reference.amplification  # with their doubles


@pytest.mark.skipif(not hasattr(problems, "HamiltonianProblem"), reason="not written yet")
def test_hamiltonian_problem():
    case = zoo.henon_heiles()
    problem = case.hamiltonian_problem()
    np.testing.assert_array_equal(np.concatenate([problem.q0, problem.p0]), case.y0)


def test_henon_heiles_two_ways():
    case = zoo.henon_heiles()
    kinetic, potential = case.hamiltonian
    q, p = np.split(case.reference.y1, 2)
    force = -jax.grad(potential, argnums=1)(0.0, q, None)
    velocity = jax.grad(kinetic, argnums=1)(0.0, p, None)
    slope = case.field(0.0, case.reference.y1, None)
    np.testing.assert_allclose(np.concatenate([velocity, force]), slope, rtol=1e-14)


def test_the_register():
    assert len(CASES) == 34
    assert [name for name in CASES if name.startswith("detest_")] == [
        f"detest_{letter}{number}" for letter in "abcde" for number in range(1, 6)
    ]
    assert all(zoo.case(name).name == name for name in CASES)
    with pytest.raises(KeyError, match=r"functions, such as de\.zoo\.egfr_network"):
        zoo.case("egfr_network")
    with pytest.raises(KeyError, match="no case 'detest_f1' in the zoo"):
        zoo.detest("F1")
    with pytest.raises(TypeError, match="no Hamiltonian"):
        zoo.lorenz().hamiltonian_problem()


# The end states that Enright and Pryce (1987) print, in Algorithm 648: a second pair of eyes on the
# definition of the problems. C4 has its first and its last component.
PRINTED = {
    "A1": [2.061153353012535e-09],
    "A2": [2.182178902359887e-01],
    "A3": [2.491650271850414],
    "A4": [1.773016648131483e01],
    "A5": [-7.887826688964196e-01],
    "B1": [6.761876008576667e-01, 1.860816099640036e-01],
    "B2": [1.000000001030576, 1.000000000000000, 9.999999989694235e-01],
    "B3": [2.061153488557776e-09, 5.257228022048349e-02, 9.474277177183630e-01],
    "B4": [9.826950928005993e-01, 2.198447081694832, 9.129452507276399e-01],
    "B5": [-9.396570798729192e-01, -3.421177754000779e-01, 7.414126596199957e-01],
    "C1": [
        *(2.061153622240064e-09, 4.122307244619555e-08, 4.122307244716968e-07),
        *(2.748204829855288e-06, 1.374102414941961e-05, 5.496409659803266e-05),
        *(1.832136553274552e-04, 5.234675866508716e-04, 1.308668966628220e-03),
        9.979127409508656e-01,
    ],
    "C2": [
        *(2.061153577984930e-09, 2.061153573736588e-09, 2.061153569488245e-09),
        *(2.061153565239902e-09, 2.061153560991560e-09, 2.061153556743217e-09),
        *(2.061153552494874e-09, 2.061153548246532e-09, 2.061153543998189e-09),
        9.999999814496180e-01,
    ],
    "C3": [
        *(2.948119211022058e-03, 5.635380154844266e-03, 7.829072515926013e-03),
        *(9.348257908594937e-03, 1.007943610301970e-02, 9.982674171429909e-03),
        *(9.088693332766085e-03, 7.489115195185912e-03, 5.322964130953349e-03),
        2.762434379029886e-03,
    ],
    "C4": [3.124111453721466e-03, *[np.nan] * 49, 1.891330702629865e-14],
    "C5": [
        *(-4.792730224323733, -2.420550725448973, -9.212509306014886e-01),
        *(-4.217310404035213, 7.356202947498970, 3.223785985421212),
        *(4.035559443262270, 1.719865528670555e01, 7.478910794233703),
        *(-2.998759326324844e01, -4.107310937550929, -9.277008321754407e-01),
        *(-2.442125302518482e01, 2.381459045746554e01, 1.492096306951359e01),
        *(3.499208963063806e-01, -5.748487687912825e-01, -2.551694020879149e-01),
        *(-5.237040978903326e-01, -2.493000463579661e-01, -8.045341642044464e-02),
        *(-3.875289237334110e-01, 5.648603288767891e-02, 3.023606472143342e-02),
        *(4.133856546712445e-02, -2.862393029841379e-01, -1.183032405136207e-01),
        *(-1.511986457359206e-01, -2.460068894318766e-01, -3.189687411323877e-02),
    ],
    "D1": [
        *(2.198835352008397e-01, 9.427076846341813e-01),
        *(-9.787659841058176e-01, 3.287977990962036e-01),
    ],
    "D2": [
        *(-1.777027357140412e-01, 9.467784719905892e-01),
        *(-1.030294163192969, 1.211074890053952e-01),
    ],
    "D3": [
        *(-5.780432953035361e-01, 8.633840009194193e-01),
        *(-9.595083730380727e-01, -6.504915126712089e-02),
    ],
    "D4": [
        *(-9.538990293416394e-01, 6.907409024219432e-01),
        *(-8.212674270877433e-01, -1.539574259125825e-01),
    ],
    "D5": [
        *(-1.295266250987574, 4.003938963792321e-01),
        *(-6.775390924707566e-01, -1.270838154278686e-01),
    ],
    "E1": [1.456723600728308e-01, -9.883500195574063e-02],
    "E2": [2.008149762174948, -4.250887527320057e-02],
    "E3": [-1.004178858647128e-01, 2.411400132095954e-01],
    "E4": [3.395091444646555e01, 2.767822659672869e-01],
    "E5": [1.411797390542629e01, 2.400000000000002],
}  # fmt: skip


@pytest.mark.parametrize("name", PRINTED)
def test_printed(name):
    y1, printed = zoo.detest(name).reference.y1, np.array(PRINTED[name])
    known = np.isfinite(printed)
    # The printed figures were computed to an absolute tolerance, which shows in A1 alone.
    assert np.max(np.abs(y1 - printed)[known]) < 1e-11 * np.abs(y1).max() + 1e-15
