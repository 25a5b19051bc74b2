"""What a kernel makes of functions that Triton has no operation for."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.special
from tests.ensemble.test_kernel import H100
from tests.ensemble.test_scalars import scalar
from tests.tiers import shortly

from diffeq.ensemble.gpu_kernel import NoKernel, special_functions
from diffeq.ensemble.gpu_kernel.launch import Tuning, in_kernel

DTYPES = [np.float32, np.float64]
LINE = np.linspace(-6.0, 9.0, 20_001)
WHOLE = np.concatenate([np.linspace(-7.7, 40, 9_000), 10.0 ** np.linspace(-7, 9, 1_000)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["erf", "erfc"])
def test_the_error_function_is_right_to_a_few_units_in_the_last_place(name, dtype):
    x = np.concatenate([LINE, LINE + 16]).astype(dtype)
    x = x[x < (8.5 if dtype == np.float32 else 25)]  # beyond, XLA on a CPU is at its least number
    found = np.asarray(jax.jit(getattr(special_functions, name))(x))
    known = np.vectorize(getattr(math, name))(x.astype(float))
    assert found.dtype == dtype
    unit = np.spacing(np.abs(known).astype(dtype)).astype(float)
    assert (np.abs(found - known) / unit).max() < 10


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["lgamma", "digamma"])
def test_the_gamma_function_is_right_to_rounding(name, dtype):
    x = WHOLE.astype(dtype)
    poles = np.abs(x - np.round(x)) < 1e-2
    x = x[(x > 0) | ~poles]
    found = np.asarray(jax.jit(getattr(special_functions, name))(x))
    known = getattr(scipy.special, "gammaln" if name == "lgamma" else name)(x.astype(float))
    assert found.dtype == dtype
    error = np.abs(found - known) / (1 + np.abs(known)) / np.finfo(dtype).eps
    assert error.max() < 40


def _units_lost_by_log1p(u, dtype):
    found = np.asarray(jax.jit(jnp.log1p)(u), float)
    with mpmath.workdps(40):
        known = np.array([float(mpmath.log1p(float(z))) for z in u])
    return np.max(np.abs(found / known - 1)) / np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gamma_function_has_all_digits_about_its_zeros(dtype):
    steps = np.concatenate([10.0 ** np.linspace(-16, -1, 60), np.linspace(0.1, 0.5, 40)])
    x = np.unique(np.add.outer([1, 2], np.concatenate([-steps, steps])).astype(dtype))
    found = np.asarray(jax.jit(special_functions.lgamma)(x), float)
    with mpmath.workdps(40):
        known = np.array([float(mpmath.loggamma(float(z))) for z in x])
    zero = (x == 1) | (x == 2)
    assert not found[zero].any()
    error = np.abs(found[~zero] / known[~zero] - 1) / np.finfo(dtype).eps
    # About one it takes XLA's log(1 + u), which in jaxlib 0.11 is off by 80 units near −0.41.
    assert error.max() < max(5, 2 * _units_lost_by_log1p(x[~zero] - 1, dtype))
    whole = special_functions.lgamma(jnp.array([1, 2, 1 + 2**-7], jnp.bfloat16))
    np.testing.assert_allclose(whole, [0, 0, -0.0044591], rtol=2**-8)


def test_values_without_numbers():
    x = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 0.0, -2.0])
    np.testing.assert_array_equal(special_functions.erf(x)[:4], [jnp.nan, 1, -1, 0])
    np.testing.assert_array_equal(special_functions.erfc(x)[:4], [jnp.nan, 0, 2, 1])
    np.testing.assert_array_equal(special_functions.lgamma(x), [jnp.nan, *[jnp.inf] * 4])
    np.testing.assert_array_equal(special_functions.digamma(x)[:2], [jnp.nan, jnp.inf])
    assert jnp.isnan(special_functions.digamma(x)[-1])
    half = special_functions.erf(jnp.array([0.5], jnp.float16))
    np.testing.assert_allclose(half, 0.5205, rtol=1e-3)
    assert half.dtype == jnp.float16


VALUES = np.array([[-3.5, -0.7, 0.0], [0.3, 1.0, 7.5], [np.nan, -1e-3, 30.0], [1e3, -20.0, 2.0]])

FUNCTIONS = {
    "activations": lambda v: [
        jax.nn.gelu(v, approximate=False), jax.nn.gelu(v), jax.nn.silu(v), jax.nn.softplus(v),
        jax.nn.elu(v), jax.nn.selu(v), jax.nn.celu(v), jax.nn.relu(v), jax.nn.relu6(v),
        jax.nn.leaky_relu(v), jax.nn.mish(v), jax.nn.log_sigmoid(v), jax.nn.hard_tanh(v),
        jax.nn.squareplus(v), jax.nn.soft_sign(v), jax.nn.sigmoid(v), jax.nn.softmax(v),
    ],
    "statistics": lambda v: [
        jax.scipy.stats.norm.cdf(v), jax.scipy.stats.norm.ppf(jax.nn.sigmoid(v)),
        jax.scipy.special.gammaln(v), jax.scipy.special.digamma(v), jax.scipy.special.erfc(v),
    ],
    "extremes": lambda v: [
        jnp.maximum(v, 0.0), jnp.maximum(1.0, v), jnp.minimum(v, 2.0), jnp.clip(v, -1.0, 1.0),
        jnp.clip(v, max=v[0]), jnp.copy(v),
        jnp.max(v), jnp.min(v), jax.lax.cummax(v), jnp.linalg.norm(v, jnp.inf),
    ],
    "derivatives": lambda v: [
        jax.vmap(jax.grad(f))(v)
        for f in (partial(jax.nn.gelu, approximate=False), jax.scipy.stats.norm.cdf, jax.nn.mish)
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_fields_use_is_in_a_kernel_what_it_is_elsewhere(name):
    found = jax.jit(partial(scalar, FUNCTIONS[name], kernel=True))(VALUES)
    known = jax.jit(jax.vmap(FUNCTIONS[name]))(VALUES)
    for k, (a, b) in enumerate(zip(found, known, strict=True)):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14, err_msg=f"{name} {k}")


def every(v):
    positive = jnp.abs(v) + 1
    return [
        *(f(v) for group in FUNCTIONS.values() for f in [group]),
        jnp.expm1(v), jnp.log1p(positive), jnp.cbrt(v), jnp.arctan2(v, positive), jnp.sinh(v),
        jnp.cosh(v), jnp.arcsinh(v), jnp.arccosh(positive), jnp.arctanh(1 / (positive + 1)),
        v**3, v**-2, positive**0.3, jnp.nextafter(v, positive), jnp.tan(v),
        jax.scipy.special.erfinv(1 / positive), jnp.arcsin(1 / positive), jnp.log2(positive),
        jnp.exp2(v), jnp.sign(v), jnp.round(v), jnp.fmod(v, 2.0), jnp.sinc(v),
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("dtype", shortly(["float32", "float64"], "float32"))
def test_triton_takes_all_of_them(dtype):
    tuning = Tuning(block=32, interpret=False)
    one = lambda shared, rows, i: every(rows[0])
    run = jax.jit(lambda rows, index: in_kernel(one, [], rows, index, tuning))
    rows, index = [jnp.ones((32, 3), dtype)], jnp.arange(32, dtype=jnp.int32)
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=H100)
    with jax.sharding.use_abstract_mesh(mesh):
        program = run.trace(rows, index).lower(lowering_platforms=("cuda",)).as_text()
    assert "__gpu$xla.gpu.triton" in program
    assert "cmpf" in program  # (names of operations are written out in what is made for Triton)
    assert "numf" not in program  # maxnumf and minnumf leave NaN out


def test_what_has_no_such_form_is_refused():
    with pytest.raises(NoKernel, match=r"polygamma .*a kernel has no such operation"):
        jax.eval_shape(
            partial(scalar, jax.vmap(jax.grad(jax.scipy.special.digamma)), kernel=True), VALUES
        )
    long = lambda v: jax.scipy.special.erf(jnp.tile(v, 500))
    with pytest.raises(NoKernel, match=r"\(.*test_special.py:\d+\): .*more than 20000"):
        jax.eval_shape(partial(scalar, long, kernel=True), VALUES)
