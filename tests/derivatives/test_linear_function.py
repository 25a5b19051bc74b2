"""`autodiff/linear_function.py`, `autodiff/packed.py`: a small solve and its derivative are one
function each, to every order and under `vmap`.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.adjoints import base
from diffeq.autodiff.linear_function import linear_function
from diffeq.autodiff.packed import pack, unpack

TS = jnp.linspace(0.2, 3.0, 5)
PROBLEM = de.ODEProblem(
    lambda t, y, k: {"a": k[0] * y["b"], "b": -k[1] * jnp.sin(y["a"])},
    {"a": jnp.array([1.0, 0.2]), "b": jnp.array([0.3, 0.5])},
    (0.0, 3.0),
    jnp.array([1.0, 2.0]),
)
K = jnp.array([1.1, 1.9])


def loss(k):
    problem = PROBLEM.replace(args=k)
    ys = de.solve(problem, de.Tsit5(), saveat=TS, rtol=1e-6, atol=1e-6).ys
    return jnp.sum(ys["a"] ** 2) + jnp.sum(jnp.cos(ys["b"]))


DERIVATIVES = {
    "grad": jax.grad(loss),
    "grad of grad": jax.grad(lambda k: jax.grad(loss)(k)[0]),
    "hessian": jax.hessian(loss),
    "grad of vmap": jax.grad(lambda k: jax.vmap(loss)(jnp.stack([k, 2 * k])).sum()),
    "vmap of hessian": lambda k: jax.vmap(jax.hessian(loss))(jnp.stack([k, 2 * k])),
}


QUICK = ("grad of vmap", "hessian")
EACH = [n if n in QUICK else pytest.param(n, marks=pytest.mark.thorough) for n in DERIVATIVES]


@pytest.mark.parametrize("name", EACH)
def test_derivatives_are_those_of_the_operations_one_by_one(name, monkeypatch):
    derivative = DERIVATIVES[name]
    found = jax.jit(derivative)(K)
    monkeypatch.setattr(base, "_SMALL_EQUATION", 0)
    monkeypatch.setattr(base, "_LITTLE_ARITHMETIC", 2**20)
    jax.clear_caches()
    np.testing.assert_allclose(found, jax.jit(derivative)(K), rtol=1e-12, atol=1e-12)
    jax.clear_caches()


def test_a_linear_function_has_derivatives_by_both_arguments():
    def scaled(residuals, tangents):
        return [residuals[0] * tangents[0], jnp.sum(residuals[0]) * tangents[1]]

    def product(x, t, s):
        first, second = linear_function(scaled, [x], [t, s])
        return jnp.sum(jnp.sin(first)) + second

    args = jnp.array([0.3, 0.7]), jnp.array([1.0, -2.0]), jnp.array(0.4)
    plain = lambda x, t, s: jnp.sum(jnp.sin(x * t)) + jnp.sum(x) * s
    for derivative in (jax.grad, jax.hessian):
        found = derivative(product, (0, 1, 2))(*args)
        jax.tree.map(np.testing.assert_allclose, found, derivative(plain, (0, 1, 2))(*args))
    # A cotangent that is zero is no input of the transpose.
    first = jax.make_jaxpr(
        jax.grad(lambda t: linear_function(scaled, [args[0]], [t, args[2]])[0][0])
    )
    assert "linear_function" in str(first(args[1]))


ARRAYS = [
    jnp.array([[1.0, 2.0], [3.0, 4.0]]),
    jnp.array([5, 6]),
    jnp.array([True, False]),
    jnp.array(7.0),
    jnp.zeros((0, 3)),
    jnp.array([8, 9], jnp.uint32),
]


def test_what_is_packed_is_unpacked():
    vectors = pack(ARRAYS)
    assert [x.dtype for x in vectors] == [jnp.float64, jnp.int64, bool, jnp.uint32]
    for found, array in zip(unpack(vectors, ARRAYS), ARRAYS, strict=True):
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype
        assert found.shape == array.shape


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="XLA's tasks on a CPU are counted")
def test_a_gradient_by_weights_starts_with_few_tasks():
    """XLA on a CPU wakes another thread where more than eight tasks are ready, which takes longer
    than the solve of a small network.
    """
    draw = np.random.default_rng(0)
    weights = [jnp.asarray(draw.normal(size=n), jnp.float32) for n in ((2, 16), (16, 2))]
    field = lambda t, y, w: jnp.tanh(y @ w[0]) @ w[1]
    y0, ts = jnp.array([1.0, 0.5], jnp.float32), jnp.linspace(0.0, 1.0, 10, dtype=jnp.float32)

    def distance(weights):
        problem = de.ODEProblem(field, y0, (ts[0], ts[-1]), weights)
        return jnp.sum(de.solve(problem, de.Tsit5(), saveat=ts).ys ** 2)

    text = jax.jit(jax.value_and_grad(distance)).lower(weights).compile().as_text()
    entry = text[text.index("ENTRY") :].splitlines()[1:]
    defined = [re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = \S+ .*?([\w\-]+)\((.*)", s) for s in entry]
    given = {"parameter", "constant"}
    names = {m[1]: m[2] for m in defined if m}
    tasks = [
        m for m in defined if m and m[2] not in given | {"tuple", "get-tuple-element", "bitcast"}
    ]
    operands = lambda m: set(re.findall(r"%([\w.\-]+)", m[3].split("), ")[0])) & names.keys()
    ready = [m for m in tasks if all(names[name] in given for name in operands(m))]
    assert 0 < len(ready) <= 8, [m[1] for m in ready]
    assert len(tasks) <= 24, [m[1] for m in tasks]
