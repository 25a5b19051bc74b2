"""The stages of a step in a loop: the same numbers and derivatives as in straight code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.methods import METHODS
from diffeq.problems.lowering import Traced

jax.config.update("jax_enable_x64", True)

RATES = jnp.array([1.1, 0.7, 0.3])
DIRECTION = jnp.array([0.4, -1.0, 0.3])


def field(t, y, k):
    return jnp.stack([-k[0] * y[0] + jnp.sin(t) * y[1], k[1] * y[0] ** 2 - k[2] * y[1]])


def problems():
    y0, span = jnp.array([1.0, 0.5]), (0.0, 0.5)
    return {
        "ode": de.ODEProblem(field, y0, span, RATES),
        "split": de.SplitODEProblem(
            lambda t, y, k: -k[0] * y, lambda t, y, k: jnp.stack([jnp.sin(t) * y[1], y[0] ** 2]),
            y0, span, RATES,
        ),
        "nystrom": de.SecondOrderProblem(
            lambda t, x, v, k: -k[0] * jnp.sin(x) + jnp.cos(t), y0, -y0, span, RATES
        ),
        "sde": de.SDEProblem(
            field, lambda t, y, k: k[2] * jnp.sin(y + t), y0, span, RATES
        ),
        "stratonovich": de.SDEProblem(
            field, lambda t, y, k: k[2] * jnp.sin(y + t), y0, span, RATES,
            interpretation="stratonovich",
        ),
        "additive": de.SDEProblem(
            field, lambda t, y, k: k[2] * jnp.array([[1.0, 0.2, 0.0], [0.3, 1.0, t]]), y0, span,
            RATES, noise="general", additive=True,
        ),
    }  # fmt: skip


def problem_for(name, method):
    forms = (method.form,) if isinstance(method.form, str) else method.form
    if name.startswith(("SRA", "SOSRA")):
        return "additive"
    if "stratonovich" in forms:
        return "stratonovich"
    if {"sde", "ito"} & set(forms):
        return "sde"
    if "partitioned" in forms:
        return "nystrom"
    return "split" if "split" in forms else "ode"


# One of each family; the others are thorough.
FAMILIES = ("Tsit5", "Rodas5P", "SOSRI", "SOSRA", "DPRKN6", "McAte5")
ALL = [
    name if name in FAMILIES else pytest.param(name, marks=pytest.mark.thorough)
    for name in sorted(METHODS)
]


@pytest.mark.parametrize("name", ALL)
def test_a_loop_of_stages_is_straight_code(name, monkeypatch):
    """With rows between steps, which stages of dense output are evaluated for; the gradient; and a
    product with the Hessian, for which the loop's transpose has a tangent.
    """
    method = METHODS[name]()
    problem = problems()[problem_for(name, method)]
    key = {"key": jax.random.key(3)} if problem.stochastic else {}
    saveat = jnp.array([0.06, 0.31, 0.5])

    def loss(k):
        sol = de.solve(problem.replace(args=k), method, dt=0.125, saveat=saveat, **key)
        return sum(jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(sol.ys))

    found = []
    for large in (False, True):
        monkeypatch.setattr(Traced, "large", large)
        jax.clear_caches()
        along = lambda k: jax.jvp(jax.value_and_grad(loss), (k,), (DIRECTION,))
        found.append(jax.jit(along)(RATES))
    ((value, slope), (_, curve)), ((looped, looped_slope), (_, looped_curve)) = found
    np.testing.assert_allclose(looped, value, rtol=1e-13)
    np.testing.assert_allclose(looped_slope, slope, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(looped_curve, curve, rtol=1e-10, atol=1e-12)


# How often the field stands in the program of a solve, and in that of its gradient: at the start
# (once, as the two evaluations of the first step size are a loop), in the loop over the stages, in
# that of dense output; in the derivative of the start, and in the stages as they are made again:
# forwards for their values, and on the way back for what is between these, single numbers.
COPIES = {
    "Tsit5": (2, 6),
    "Vern7": (4, 12),  # its dense output has stages of its own
    "Rodas5P": (3, 8),  # and a Jacobian
    "Kvaerno5": (3, 11),
    "BDF": (3, 10),
    "default": (5, 18),
}
THOROUGH = ("Vern7", "Kvaerno5", "BDF", "default")


def large_field(t, y, k):
    return -k * jnp.cbrt(1.0 + sum(jnp.sin(i * y) for i in range(60)))


def copies(function):
    """The number of cube roots, one in each copy of the field, in a lowered program."""
    return jax.jit(function).lower(1.0).as_text().count("stablehlo.cbrt")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.thorough] * (n in THOROUGH)) for n in COPIES]
)
def test_a_large_field_is_compiled_few_times(name):
    """And no more often with more stages."""
    method = None if name == "default" else METHODS[name]() if name in METHODS else de.BDF()
    problem = de.ODEProblem(large_field, 1.0, (0.0, 1.0), 1.0)
    end = lambda k: de.solve(problem.replace(args=k), method, saveat=[0.3, 1.0]).ys[1]
    assert (copies(end), copies(jax.grad(end))) == COPIES[name]


def test_a_network_is_compiled_as_often_by_the_default_as_by_its_explicit_method():
    """Where the same field without its layer is compiled for a second method, too."""
    inner, outer = jnp.ones((3, 1)), jnp.ones((1, 3))

    def network(t, y, k):
        hidden = jnp.tanh(inner @ jnp.reshape(y, 1))
        return large_field(t, (outer @ hidden)[0], k)

    problem = de.ODEProblem(network, 1.0, (0.0, 1.0), 1.0)
    end = lambda k: de.solve(problem.replace(args=k), saveat=[0.3, 1.0]).ys[1]
    assert (copies(end), copies(jax.grad(end))) == COPIES["Tsit5"]


def test_stages_are_a_loop_or_straight_code_as_asked():
    small = de.ODEProblem(lambda t, y, k: -k * jnp.cbrt(y), 1.0, (0.0, 1.0), 1.0)

    def of(problem, stages):
        end = lambda k: de.solve(problem.replace(args=k), de.Tsit5(stages=stages), dt=0.25).y1
        return copies(end), end(1.0)

    (straight, plain), (looped, same), (chosen, _) = (
        of(small, stages) for stages in ("unrolled", "loop", None)
    )
    assert straight == chosen > looped
    np.testing.assert_allclose(same, plain, rtol=1e-14)
    large = de.ODEProblem(large_field, 1.0, (0.0, 1.0), 1.0)
    assert of(large, "unrolled")[0] > of(large, None)[0]
    assert repr(de.Tsit5(stages="loop")) == "Tsit5(stages='loop')"
    with pytest.raises(ValueError, match="stages is 'rolled'; 'loop'"):
        de.Rodas5P(stages="rolled")
    with pytest.raises(TypeError, match=r"solve got 'stages', which .* Is method meant"):
        de.solve(small, stages="loop")
