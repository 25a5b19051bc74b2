"""Jaxprs made of the equations of another one: split, pruned, and grouped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.autodiff.jax_internals import (
    count_equations,
    equations,
    evaluate,
    grouped,
    input_types,
    name_of,
    pruned,
    trace,
)
from diffeq.autodiff.loop_invariant import split_invariant
from diffeq.autodiff.packed import pack
from diffeq.autodiff.while_loop import native_function


def chatty(t, a):
    """An effect that depends on t, and a costly operation of parameters."""
    jax.debug.print("{}", t)
    return t * jnp.sort(a)[0]


def test_an_effect_stays_with_what_it_depends_on():
    jaxpr = trace(chatty, 2.0, jnp.array([3.0, 1.0]))
    before, rest = split_invariant(jaxpr, [False, True])
    assert not any(name_of(e) == "debug_print" for e in equations(before))
    known = evaluate(before, [jnp.array([3.0, 1.0])])
    assert float(evaluate(rest, [*known, 2.0, jnp.array([3.0, 1.0])])[0]) == 2.0


def test_a_field_that_prints_may_have_a_costly_parameter():
    problem = de.ODEProblem(
        lambda t, y, a: chatty(t, a) * y, 1.0, (0.0, 0.2), jnp.array([3.0, 1.0])
    )
    ys = de.solve(problem, de.Euler(), dt=0.1).ys
    assert jnp.allclose(ys[-1], 1.01)


def test_a_pruned_jaxpr_has_what_is_wanted_and_what_that_needs():
    jaxpr = trace(lambda x, y: jnp.cos(jnp.sin(x + 1.0)) * jnp.exp(y), 1.0, 2.0)
    sine = pruned(jaxpr, lambda e: name_of(e) == "sin", outputs=False)
    assert [name_of(e) for e in equations(sine)] == ["add", "sin"]
    assert len(input_types(sine)) == 2
    assert count_equations(pruned(jaxpr, lambda e: False, outputs=True)) == count_equations(jaxpr)


def test_a_grouped_jaxpr_is_the_same_function():
    offset = jnp.array([1.0, 2.0])
    jaxpr = trace(lambda x: (jnp.sin(x + offset) * 2.0 + x, 3.0), offset)
    parts = grouped(jaxpr, lambda e: name_of(e) == "sin")
    assert [name_of(e) for e in equations(parts)] == ["jit", "sin", "jit"]
    for a, b in zip(evaluate(parts, [offset]), evaluate(jaxpr, [offset]), strict=True):
        assert jnp.array_equal(a, b)


@pytest.mark.parametrize("in_loop", [True, False])
@pytest.mark.parametrize("constant", [3.0, np.float64(3.0)])
def test_an_output_of_a_native_function_may_be_a_constant(in_loop, constant):
    evaluate = lambda x: native_function(lambda x: (x + 1.0, constant), x, in_loop=in_loop)
    assert evaluate(jnp.array(2.0)) == (3.0, 3.0)
    assert jax.jit(evaluate)(jnp.array(2.0)) == (3.0, 3.0)


def test_constants_are_packed_with_arrays():
    (packed,) = pack([3.0, np.array([2.0, 1.0]), jnp.zeros(())])
    assert packed.tolist() == [3.0, 2.0, 1.0, 0.0]
