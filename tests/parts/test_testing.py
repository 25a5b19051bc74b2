"""`diffeq.testing.check_method`: methods that keep their contract pass, and of one that breaks it a
sentence says what does not hold.
"""

import jax.numpy as jnp
import pytest
from tests import own_methods as own
from tests.tiers import shortly

import diffeq as de
from diffeq.testing import check_method

SOUND = {
    "own": own.ExponentialEuler(jnp.array(1.0)),
    "Tsit5": de.Tsit5(),
    "Kvaerno5": de.Kvaerno5(),
    "Rodas5P": de.Rodas5P(),
    "VelocityVerlet": de.VelocityVerlet(),
}
BROKEN = {
    own.WrongOrder: r"WrongOrder: the error of equal steps goes as dt\^2\.0., and order is 3",
    own.WrongEstimate: r"estimate of a step goes as dt\^2\.0., and error_order is 3",
    own.History: r"memory of a step is not what init makes at its end .* multistep \(the past\)",
    own.PythonState: "two calls of step with the same arguments differ.* state in Python",
    own.ByValue: "looks at the values of its arguments in Python .* jnp.where",
    own.Wide: "a float32 state becomes float64",
    own.OffAtTheEnd: "the interpolant at θ = 1 is off the end of the step by",
}


@pytest.mark.parametrize("name", shortly(SOUND, "own"))
def test_a_sound_method_passes(name):
    method = SOUND[name]
    report = check_method(method)
    assert abs(report.order - method.order) < 0.5
    assert (report.rejected > 0) == method.adaptive
    assert report.checks[0] == "pytree"
    assert report.checks[-1] == "gradient"


@pytest.mark.parametrize("broken", BROKEN, ids=lambda cls: cls.__name__)
def test_a_broken_promise_is_named(broken):
    with pytest.raises(AssertionError, match=BROKEN[broken]):
        check_method(broken())


def test_a_problem_of_its_own():
    field = lambda t, y, k: -3.0 * y + k * jnp.sin(t) * y**2
    problem = de.ODEProblem(field, jnp.array([1.0, 0.5]), (0.0, 1.0), 0.8)
    assert abs(check_method(own.ExponentialEuler(jnp.array(3.0)), problem).order - 1) < 0.3


def test_an_equation_with_noise_is_not_for_it():
    with pytest.raises(TypeError, match="solves equations with noise"):
        check_method(de.EulerMaruyama())
