"""`Segments`: a traced function whose marks are calls on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffeq.autodiff.host_segments import Segments, outside

X = jnp.array([0.5, 2.0])


def mark(x):
    """The place of a call that returns an array like x."""
    return outside(x, like=[x])[0]


def counted(function, x):
    """The function, three times, in a loop that ends by a count."""
    return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, function(s[1])), (0, x))[1]


def looped(x):
    return counted(lambda x: mark(x) + 1.0, x)


def branched(x):
    up = lambda x: jnp.sin(mark(x))
    down = lambda x: x - 1.0
    return jax.lax.cond(x[0] > 1.0, up, down, x) + jax.lax.cond(x[1] > 1.0, up, down, 2.0 * x)


FUNCTIONS = {
    "straight": lambda x: mark(mark(x) * 2.0) + x,
    "loop": looped,
    "branches": branched,
    "jit": lambda x: jax.jit(lambda x: mark(x + 1.0) ** 2)(x),
    "branches in a loop in jit": lambda x: jax.jit(lambda x: counted(branched, x))(x),
    "constants": lambda x: mark(x) * jnp.arange(2.0) + np.arange(2.0),
    "no use": lambda x: (mark(x), x * 2.0)[1],
    "none": lambda x: jnp.cos(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_the_function_with_the_calls_in_it(name, monkeypatch):
    function = FUNCTIONS[name]
    calls = []

    def call(x):
        calls.append(x)
        return [jnp.exp(-x)]

    segments = Segments(jax.make_jaxpr(function)(X))
    found = segments(call, X)[0]
    assert all(isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) for x in calls)
    monkeypatch.setitem(globals(), "mark", lambda x: jnp.exp(-x))
    np.testing.assert_allclose(found, function(X), rtol=1e-12)


def test_a_mark_where_it_cannot_be_called_is_refused():
    scanned = lambda x: jax.lax.scan(lambda x, _: (mark(x), None), x, length=3)[0]
    with pytest.raises(NotImplementedError, match="a mark inside scan"):
        Segments(jax.make_jaxpr(scanned)(X))
    with pytest.raises(NotImplementedError, match="by `Segments` alone"):
        mark(X)
