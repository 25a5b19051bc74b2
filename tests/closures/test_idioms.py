"""Ordinary scientific code in a field: what it closes over are constants, as under `jax.jit`.

Each idiom is solved by Diffrax, too: what works there works here.
"""

import math
import types

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import diffeq as de

Y0 = jnp.array([1.0, 0.5, 0.25])
MASK = np.array([True, False, True])
INDEX = np.array([2, 0, 1])
S = np.array([[0.0, 0.5, 0.0], [0.0, 0.0, 0.25], [0.0, 0.0, 0.0]])
PAIRS = [(np.int64(0), np.int64(1)), (np.int64(1), np.int64(2))]
R, DAMPED, COUNT, NAMES = 8.314, True, np.int64(3), {"a": 0, 1: "a"}
JAX_ARRAY = jnp.array(2.0)
PARAMETERS = types.SimpleNamespace(k=0.5, order=2, matrix=S, on=True, names=["a", "b"])


class Table:
    """An object with attributes that are constants."""

    rates = np.array([0.5, 0.25, 0.125])
    by_index = {np.int64(0): 0.5, np.int64(1): 0.25}  # noqa: RUF012

    def __getitem__(self, i):
        return self.rates[i]


TABLE = Table()


def sparse_sum(t, y, a):
    dy = [0.0] * 3
    for i in range(3):
        for j in range(3):
            if S[i, j] != 0:
                dy[i] = dy[i] - S[i, j] * y[j]
                dy[j] = dy[j] + S[i, j] * y[j]
    return jnp.stack([jnp.asarray(x) + 0 * y[0] for x in dy])


def reactions(t, y, a):
    dy = jnp.zeros(3)
    for i, j in PAIRS:
        rate = 0.5 * y[i]
        dy = dy.at[i].add(-rate).at[j].add(rate)
    return dy


def segments(t, y, a):
    index = np.array([0, 0, 1])
    sums = jax.ops.segment_sum(y, index, num_segments=int(index.max()) + 1)
    return -sums[index]


IDIOMS = {
    "boolean mask": lambda t, y, a: -jnp.zeros(3).at[MASK].set(y[MASK]),
    "mask's count": lambda t, y, a: -y / int(MASK.sum()),
    "mask as weights": lambda t, y, a: -jnp.where(MASK, y, 0.0),
    "integer index array": lambda t, y, a: -y[INDEX],
    "index of an index array": lambda t, y, a: -y * y[INDEX[0]],
    "loop over pairs": reactions,
    "if S[i, j] != 0": sparse_sum,
    "nonzero": lambda t, y, a: -y * len(np.nonzero(S)[0]),
    "matrix product": lambda t, y, a: S @ y - y,
    "norm of a constant": lambda t, y, a: -y / np.linalg.norm(S),
    "inverse of a constant": lambda t, y, a: -np.linalg.inv(np.eye(3) + S) @ y,
    "scipy on a constant": lambda t, y, a: scipy.linalg.expm(-S) @ y - y,
    "range of a numpy integer": lambda t, y, a: -sum(y[i] for i in range(COUNT)) * y,
    "range of a length": lambda t, y, a: jnp.stack([-y[i] for i in range(len(MASK))]),
    "math.exp": lambda t, y, a: -y * math.exp(-1 / R),
    "math.sqrt and pi": lambda t, y, a: -y * math.sqrt(math.pi),
    "np.sqrt": lambda t, y, a: -y * np.sqrt(R),
    "if FLAG": lambda t, y, a: -y if DAMPED else y,
    "if number > 0": lambda t, y, a: -y if R > 1 else y,
    "max of two": lambda t, y, a: -y * max(R, 0.1),
    "min and abs": lambda t, y, a: -y * min(abs(-R), 2.0),
    "round": lambda t, y, a: -y * round(R),
    "int(...)": lambda t, y, a: -y * int(R),
    "f-string": lambda t, y, a: -y * {"8.3": 1.0}[f"{R:.1f}"],
    "string of a number": lambda t, y, a: -y * len(str(R)),
    "float of an entry": lambda t, y, a: -y * float(S[0, 1]),
    "item": lambda t, y, a: -y * S[0, 1].item(),
    "dict by a numpy integer": lambda t, y, a: -y * TABLE.by_index[PAIRS[0][1]],
    "dict of mixed keys": lambda t, y, a: -y * (1 + NAMES[NAMES[1]]),
    "attribute of a namespace": lambda t, y, a: -y * math.exp(-PARAMETERS.k),
    "flag of a namespace": lambda t, y, a: -y if PARAMETERS.on else y,
    "power by an attribute": lambda t, y, a: -(y**PARAMETERS.order),
    "matrix of a namespace": lambda t, y, a: -y * len(np.flatnonzero(PARAMETERS.matrix)),
    "object with items": lambda t, y, a: -y * max(TABLE[0], TABLE[1]),
    "list of names": lambda t, y, a: -y * PARAMETERS.names.index("b"),
    "segments": segments,
    "reshape by a constant": lambda t, y, a: -jnp.reshape(y, (COUNT,)),
    "einsum with a constant": lambda t, y, a: jnp.einsum("ij,j->i", S, y) - y,
    "interpolation of a table": lambda t, y, a: -y * jnp.interp(t, np.arange(3.0), np.ones(3)),
    "polynomial": lambda t, y, a: -jnp.polyval(np.array([0.1, 1.0, 0.0]), y),
    "static slice": lambda t, y, a: -jnp.concatenate([y[: COUNT - 1], y[-1:]]),
    "while loop of Python": lambda t, y, a: -y * [n := 0, *(n := n + 1 for _ in range(3))][-1],
    "float of an array of JAX": lambda t, y, a: -y if float(JAX_ARRAY) > 1 else y,
}


@pytest.mark.parametrize("idiom", IDIOMS)
def test_an_idiom_works_as_in_diffrax(idiom):
    f = IDIOMS[idiom]
    ours = de.solve(de.ODEProblem(f, Y0, (0.0, 1.0)), de.Tsit5(), dt=0.25).y1
    theirs = diffrax.diffeqsolve(
        diffrax.ODETerm(f), diffrax.Tsit5(), 0.0, 1.0, 0.25, Y0, max_steps=8
    ).ys[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_idioms_in_conditions_affects_diffusions_histories_and_saves():
    flagged = lambda y: y if DAMPED and S[0, 1] != 0 else 2 * y
    decay = de.ODEProblem(lambda t, y, a: -y, Y0, (0.0, 1.0))
    event = de.Event(
        lambda t, y, a: flagged(y)[INDEX[1]] - math.exp(-0.5),
        lambda t, y, a: jnp.where(MASK, flagged(y), 0.0),
    )
    sol = de.solve(decay, events=event, save=lambda t, y, a: y[MASK], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(sol.events[0].ts[0], 0.5, rtol=1e-5)
    np.testing.assert_allclose(sol.ys[0], np.exp(-1) * Y0[MASK], rtol=1e-5)
    noisy = de.SDEProblem(
        lambda t, y, a: -flagged(y), lambda t, y, a: jnp.where(MASK, 0.0, S[0, 0]), Y0, (0.0, 1.0)
    )
    sol = de.solve(noisy, de.EulerMaruyama(), dt=0.01, key=jax.random.key(0))
    np.testing.assert_allclose(sol.y1, np.exp(-1) * Y0, rtol=1e-2)
    delayed = de.DDEProblem(
        lambda t, y, past, a: -past(t - float(S[0, 1]))[INDEX], None, (0.0, 0.5),
        history=lambda t, a: jnp.array([R, R, R] if DAMPED else [0.0] * 3), lags=0.5,
    )  # fmt: skip
    np.testing.assert_allclose(de.solve(delayed).y1, [R / 2] * 3, rtol=1e-5)


def test_a_module_with_a_plain_integer_is_a_field():
    class Net(eqx.Module):
        weight: jax.Array
        hidden_size: int

        def __call__(self, t, y, args):
            return -jnp.zeros(self.hidden_size).at[: self.hidden_size].set(self.weight * y)

    net = Net(jnp.ones(3), 3)
    alone = de.solve(de.ODEProblem(net, Y0, (0.0, 1.0)), de.RK4(), dt=0.25).y1
    held = de.solve(de.ODEProblem(lambda t, y, a: net(t, y, a), Y0, (0.0, 1.0)), de.RK4(), dt=0.25)
    inside = jax.jit(lambda p: de.solve(p, de.RK4(), dt=0.25).y1)(
        de.ODEProblem(net, Y0, (0.0, 1.0))
    )
    np.testing.assert_array_equal(alone, held.y1)
    np.testing.assert_allclose(alone, inside, rtol=1e-15)
    end = lambda w: de.solve(de.ODEProblem(Net(w, 3), Y0, (0.0, 1.0)), de.RK4(), dt=0.05).y1
    slope = jax.grad(lambda w: end(w).sum())(jnp.ones(3))
    np.testing.assert_allclose(slope, -np.exp(-1) * Y0, rtol=1e-6)


def test_a_callable_that_holds_keys_of_mixed_types_is_a_field():
    class Holder:
        def __init__(self, k):
            self.table = {1: k, "name": "decay", (0, 1): None}

        def __call__(self, t, y, args):
            return -self.table[1] * y

    end = lambda k: de.solve(de.ODEProblem(Holder(k), 1.0, (0.0, 1.0)), rtol=1e-8).y1
    np.testing.assert_allclose(jax.grad(end)(jnp.array(2.0)), -np.exp(-2.0), rtol=1e-6)


def test_fresh_lambdas_over_changing_arrays_compile_nothing():
    """Neither eagerly nor in a derivative, by closure, default, partial, attribute or global."""
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if name.endswith("compile_duration") else None
    )

    def end(k):
        holder = types.SimpleNamespace(k=k)
        return sum(
            de.solve(de.ODEProblem(f, 1.0, (0.0, 1.0)), de.RK4(), dt=0.25).y1
            for f in (
                lambda t, y, a: -k * y,
                lambda t, y, a, k=k: -k * y,
                lambda t, y, a: -holder.k * y,
            )
        )

    for k in (1.0, 2.0, 3.0):
        if k == 2.0:
            jax.block_until_ready(jnp.array(k))
            del compiled[:]
        value, slope = jax.value_and_grad(end)(jnp.array(k))
        alone = end(jnp.array(k))
        np.testing.assert_allclose(value, alone, rtol=1e-12)
        np.testing.assert_allclose(slope, -3 * np.exp(-k), rtol=2e-2)
    assert compiled == []


def test_an_error_of_equinox_is_raised_where_it_should_be():
    """In a batch, its gradient and lanes: by those that are in error, and by none that are not."""
    refuse = lambda t, y, a: eqx.error_if(-a * y, jnp.any(y > 2.0), "y is too large")
    problem = de.ODEProblem(refuse, 1.0, (0.0, 1.0), 1.0)
    end = lambda a, y0: de.solve(problem.replace(args=a, y0=y0), de.RK4(), dt=0.25).y1
    rates = jnp.array([0.5, 1.0, 2.0])
    values, slopes = jax.vmap(jax.value_and_grad(end), (0, None))(rates, 1.0)
    np.testing.assert_allclose(values, np.exp(-rates), rtol=2e-3)
    np.testing.assert_allclose(slopes, -np.exp(-rates), rtol=5e-3)
    lanes = de.solve_ensemble(problem, de.RK4(), dt=0.25, args=rates, strategy="lanes")
    np.testing.assert_allclose(lanes.y1, values, rtol=1e-12)
    with pytest.raises(jax.errors.JaxRuntimeError, match="y is too large"):
        jax.vmap(end)(rates, jnp.array([1.0, 1.0, 3.0])).block_until_ready()


def test_python_numbers_in_args_take_the_dtype_of_the_state():
    problem = de.ODEProblem(lambda t, y, a: -a["k"] * y, jnp.ones(2, "float32"), (0.0, 1.0))
    sol = de.solve(problem.replace(args={"k": 0.5}), de.RK4(), dt=0.25)
    assert sol.y1.dtype == "float32"
    np.testing.assert_allclose(sol.y1, np.exp(-0.5), rtol=1e-4)
