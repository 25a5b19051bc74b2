"""Laws of the layers: their equation, their shapes, and jit, vmap and grad of each."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import diffeq as de

KEY = jax.random.key(0)
TS = jnp.linspace(0.0, 1.0, 4)
FIXED = {"tspan": (0.0, 1.0), "saveat": TS, "method": de.Midpoint(), "dt": 0.25}


def plain(p, *z):
    return p["out"] @ jnp.tanh(p["in"] @ jnp.concatenate([jnp.ravel(x) for x in z]))


def weights(inputs, outputs):
    keys = jax.random.split(KEY)
    return {
        "in": jax.random.normal(keys[0], (4, inputs)),
        "out": jax.random.normal(keys[1], (outputs, 4)),
    }


class Net(nnx.Module):
    def __init__(self, inputs, outputs):
        self.up = nnx.Linear(inputs, 4, rngs=nnx.Rngs(0), param_dtype=float)
        self.down = nnx.Linear(4, outputs, rngs=nnx.Rngs(1), param_dtype=float)

    def __call__(self, y):
        return self.down(jnp.tanh(self.up(y)))


NETS = {
    "equinox": lambda i, o: eqx.nn.MLP(i, o, 4, 1, jnp.tanh, key=KEY),
    "nnx": Net,
    "plain": weights,
}


def second_order(kind):
    field = (lambda net, t, x, v, args: plain(net, x)) if kind == "plain" else None
    return de.nn.SecondOrder(NETS[kind](2, 2), field=field, **FIXED)


def hamiltonian(kind):
    energy = (lambda net, t, q, p, args: plain(net, q, p)) if kind == "plain" else None
    return de.nn.HamiltonianNN(NETS[kind](4, 1), hamiltonian=energy, **FIXED)


def augmented(kind):
    field = (lambda net, t, y, args: plain(net, y)) if kind == "plain" else None
    inner = de.nn.NeuralODE(NETS[kind](3, 3), field=field, **FIXED)
    return de.nn.Augmented(inner, 1, cut=True)


PAIRS = (jnp.array([[1.0, 0.2], [0.3, -0.4]]), jnp.array([[0.0, 0.5], [-1.0, 0.2]]))
LAYERS = {
    "second order": (second_order, PAIRS),
    "hamiltonian": (hamiltonian, PAIRS),
    "augmented": (augmented, PAIRS[0]),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hamiltonian", "equinox"), ("second order", "equinox"), ("augmented", "plain"),
        *(pytest.param(*case, marks=pytest.mark.thorough) for case in
          (("hamiltonian", "nnx"), ("hamiltonian", "plain"), ("augmented", "nnx"))),
    ],
)  # fmt: skip
def test_a_batch_is_its_samples_and_everything_has_a_gradient(name, kind):
    make, batch = LAYERS[name]
    layer = make(kind)
    graph = nnx.split(layer.layer.net if name == "augmented" else layer.net) if kind == "nnx" else 0

    def ends(scale):
        if kind == "nnx":
            net = nnx.merge(graph[0], jax.tree.map(lambda x: scale * x, graph[1]))
            where = (lambda m: m.layer.net) if name == "augmented" else lambda m: m.net
            other = eqx.tree_at(where, layer, net)
        else:
            other = jax.tree.map(lambda x: scale * x if eqx.is_inexact_array(x) else x, layer)
        ys = other(jax.tree.map(lambda x: x[1], batch)).ys
        return sum(jnp.sum(y[-1] ** 2) for y in jax.tree.leaves(ys)), ys

    program = jax.jit(jax.value_and_grad(ends, has_aux=True))
    (_, alone), slope = program(1.0)
    (above, _), (below, _) = (program(1.0 + s)[0] for s in (1e-5, -1e-5))
    assert float(slope) == pytest.approx(float(above - below) / 2e-5, rel=1e-6)
    together = jax.jit(jax.vmap(lambda y0: layer(y0).ys))(batch)
    for one, two in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        assert one.shape == (2, 4, 2)
        np.testing.assert_allclose(one[1], two, rtol=1e-12, atol=1e-12)


def test_second_order_is_the_neural_ode_of_its_pair():
    net = weights(2, 2)
    layer = de.nn.SecondOrder(
        net, tspan=(0.0, 1.0), field=lambda net, t, x, v, args: plain(net, x) - args * v,
        rtol=1e-10, atol=1e-10,
    )  # fmt: skip
    node = de.nn.NeuralODE(
        net, tspan=(0.0, 1.0), rtol=1e-10, atol=1e-10,
        field=lambda net, t, y, args: (y[1], plain(net, y[0]) - args * y[1]),
    )  # fmt: skip
    y0 = jax.tree.map(lambda x: x[0], PAIRS)
    for one, two in zip(layer(y0, 0.3).y1, node(y0, 0.3).y1, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-9)
    with pytest.raises(TypeError, match=r"needs an f that does not depend on v"):
        layer.problem(y0, 0.3) and de.solve(layer.problem(y0, 0.3), de.DPRKN6())
    undamped = de.nn.SecondOrder(eqx.nn.MLP(2, 2, 4, 1, key=KEY), tspan=(0.0, 1.0))
    assert de.solve(undamped.problem(y0), de.DPRKN6()).success


ENERGIES = {
    "joined": (eqx.nn.MLP(2, "scalar", 8, 1, jnp.tanh, key=KEY), None),
    "pair": ([eqx.nn.MLP(1, 1, 8, 1, jnp.tanh, key=key) for key in jax.random.split(KEY)], None),
    "separable": (
        {"k": jnp.array(2.0)},
        de.Separable(
            lambda net, t, p, args: jnp.sum(p**2) / 2,
            lambda net, t, q, args: net["k"] * jnp.sum(q**4),
        ),
    ),
}


@pytest.mark.parametrize("name", ENERGIES)
def test_energy_is_kept(name):
    net, energy = ENERGIES[name]
    y0 = (jnp.array([0.7]), jnp.array([0.2]))
    layer = de.nn.HamiltonianNN(net, tspan=(0.0, 5.0), hamiltonian=energy, rtol=1e-9, atol=1e-9)
    before, after = jax.jit(lambda y0: (layer.energy(y0), layer.energy(layer(y0).y1)))(y0)
    assert float(after) == pytest.approx(float(before), abs=1e-7)
    if name == "joined":
        with pytest.raises(TypeError, match=r"give de\.Separable"):
            de.solve(layer.problem(y0), de.VelocityVerlet(), dt=0.1)
        return

    def drift(dt):
        options = {"method": de.VelocityVerlet(), "dt": dt, "saveat": np.linspace(0.0, 100.0, 101)}
        layer = de.nn.HamiltonianNN(net, tspan=(0.0, 100.0), hamiltonian=energy, **options)
        ys = layer(y0).ys
        error = np.abs(energies(ys) - float(before))
        return error.max(), error[:20].max()

    energies = jax.jit(jax.vmap(lambda y: layer.energy(y)))
    coarse, fine = drift(0.1), drift(0.05)
    assert fine[0] < 0.3 * coarse[0], "second order in dt"
    assert coarse[0] < 2 * coarse[1] + 1e-8, "bounded in time"


def test_the_derivative_of_a_hamiltonian_layer_is_its_field():
    net = eqx.nn.MLP(4, 1, 8, 1, jnp.tanh, key=KEY)
    layer = de.nn.HamiltonianNN(net, tspan=(0.0, 1.0), saveat=jnp.array([0.0]), dense=True)
    y0 = jax.tree.map(lambda x: x[0], PAIRS)
    # A Hamiltonian field has no divergence, and its Jacobian is a symmetric matrix turned by J.
    flat = lambda z: jnp.concatenate(layer.derivative((z[:2], z[2:])))
    slope, field, jacobian = jax.device_get(
        jax.jit(lambda y0, z: (layer(y0).derivative(0.0), flat(z), jax.jacfwd(flat)(z)))(
            y0, np.concatenate(y0)
        )
    )
    np.testing.assert_allclose(np.concatenate(slope), field, rtol=1e-10)
    assert np.trace(jacobian) == pytest.approx(0.0, abs=1e-12)
    turned = np.concatenate([-jacobian[2:], jacobian[:2]])
    np.testing.assert_allclose(turned, turned.T, atol=1e-12)


def test_the_derivative_at_whole_numbers():
    layer = de.nn.HamiltonianNN(lambda z: jnp.sum(z**2) / 2)
    np.testing.assert_array_equal(layer.derivative(([1, 2], [3, 4])), [[3.0, 4.0], [-1.0, -2.0]])


def test_augmented_appends_zeros_and_cuts_them_off():
    net = {"turn": jnp.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, -1.0, 0.0]])}
    inner = de.nn.Layer(net, tspan=(0.0, 1.0), field=lambda net, t, y, args: net["turn"] @ y)
    wide = de.nn.Augmented(inner, 1)
    y0 = jnp.array([1.0, 2.0])
    np.testing.assert_array_equal(wide.problem(y0).y0, [1.0, 2.0, 0.0])
    assert wide(y0, saveat=TS).ys.shape == (4, 3)
    cut = de.nn.Augmented(inner, 1, cut=True)(y0, saveat=TS)
    np.testing.assert_array_equal(cut.ys, wide(y0, saveat=TS).ys[:, :2])
    assert cut.y1.shape == (2,)
    pair = de.nn.Augmented(de.nn.SecondOrder(eqx.nn.MLP(3, 3, 4, 1, key=KEY), tspan=(0.0, 1.0)), 1)
    assert [x.shape for x in pair((y0, y0)).y1] == [(3,), (3,)]


def test_augmented_takes_a_start_that_is_a_function_of_args():
    inner = de.nn.Layer({}, tspan=(0.0, 1.0), field=lambda net, t, y, args: -args * y)
    wide, start = de.nn.Augmented(inner, 1), lambda rate: rate * jnp.ones(2)
    np.testing.assert_array_equal(wide(start, 2.0).y1, wide(start(2.0), 2.0).y1)
    pair = de.nn.Augmented(de.nn.SecondOrder(jnp.sin, tspan=(0.0, 1.0)), 1)
    found = pair((start, jnp.ones(2)), 2.0).y1
    np.testing.assert_array_equal(found, pair((start(2.0), jnp.ones(2))).y1)


# --- with lags ------------------------------------------------------------------------------------

SHARP = {"tspan": (0.0, 1.0), "method": de.Tsit5(), "rtol": 1e-9, "atol": 1e-11}
WEIGHTS = jnp.array([[0.5, -1.0], [0.3, 0.2]])


def of_weights(weights):
    layer = de.nn.NeuralDDE(
        weights, lags=0.3, field=lambda net, t, y, past, args: net @ past(t - 0.3) * args, **SHARP
    )
    return jnp.sum(layer(jnp.array([1.0, 2.0]), 1.5).y1 ** 2)


def by_hand(weights):
    problem = de.DDEProblem(
        lambda t, y, past, net: 1.5 * net @ past(t - 0.3), None, SHARP["tspan"], weights,
        history=jnp.array([1.0, 2.0]), lags=0.3,
    )  # fmt: skip
    options = {name: x for name, x in SHARP.items() if name != "tspan"}
    return jnp.sum(de.solve(problem, **options).y1 ** 2)


def test_a_field_with_lags_is_the_delay_equation():
    found, slope = jax.jit(jax.value_and_grad(of_weights))(WEIGHTS)
    wanted, by_weights = jax.jit(jax.value_and_grad(by_hand))(WEIGHTS)
    assert float(found) == pytest.approx(float(wanted), rel=1e-10)
    np.testing.assert_allclose(slope, by_weights, rtol=1e-8)


def test_a_start_that_is_a_function_of_args_is_the_history():
    layer = de.nn.NeuralDDE(lambda z: jnp.tanh(z[2:] - z[:2]), lags=0.3, tspan=(0.0, 1.0))
    start = lambda a: a * jnp.array([1.0, -2.0])
    of_args = jax.jit(jax.value_and_grad(lambda a: jnp.sum(layer(start, a).y1 ** 2)))
    of_start = jax.jit(jax.value_and_grad(lambda a: jnp.sum(layer(start(a)).y1 ** 2)))
    np.testing.assert_allclose(of_args(0.7), of_start(0.7), rtol=1e-12)


def test_a_field_with_lags_and_other_arguments_is_refused():
    layer = de.nn.NeuralDDE(WEIGHTS, lags=0.3, field=lambda net, t, y, args: net @ y, **SHARP)
    with pytest.raises(TypeError, match=r"cannot be called as field\(net, t, y, past, args\)"):
        layer(jnp.ones(2))


def test_whole_numbers_of_numpy():
    two, net = np.int64(2), eqx.nn.MLP(2, 4, 4, 1, key=KEY)
    assert de.nn.Augmented(de.nn.Layer(net), two).extra == 2
    noisy = de.nn.NeuralSDE(lambda y: -y, net, noise=two, tspan=(0.0, 1.0), dt=0.5)
    assert noisy(jnp.ones(2), key=KEY).success


def test_layers_refuse_by_name():
    net = eqx.nn.MLP(2, 2, 4, 1, key=KEY)
    layer = de.nn.SecondOrder(net, tspan=(0.0, 1.0))
    with pytest.raises(TypeError, match=r"y0 is a ArrayImpl; a pair \(x0, v0\) is wanted"):
        layer(jnp.ones(2))
    with pytest.raises(TypeError, match=r"net is a list of 3; a pair \(kinetic, potential\)"):
        de.nn.HamiltonianNN([net] * 3)
    wide = de.nn.HamiltonianNN(eqx.nn.MLP(2, 2, 4, 1, key=KEY), tspan=(0.0, 1.0))
    with pytest.raises(TypeError, match=r"the energy has shape \(2,\); one number"):
        wide((jnp.ones(1), jnp.ones(1)))
    for extra in (0, True, 1.0):
        with pytest.raises(TypeError, match=rf"extra is {extra}; a positive whole number"):
            de.nn.Augmented(layer, extra)
    with pytest.raises(TypeError, match=r"layer is MLP\(.*; a layer of diffeq.nn is wanted"):
        de.nn.Augmented(net, 1)
    controlled = de.nn.NeuralCDE.of_sizes(1, 2, 1, width=2, key=KEY)
    with pytest.raises(TypeError, match="layer is a NeuralCDE, whose state starts at"):
        de.nn.Augmented(controlled, 1)
    for noise in (True, 0, 2.0):
        with pytest.raises(TypeError, match=rf"noise is {noise}; 'diagonal', .* Brownian motions"):
            de.nn.NeuralSDE(net, net, noise=noise)
    noisy = de.nn.NeuralSDE(net, eqx.nn.MLP(2, 3, 4, 1, key=KEY), noise=2, tspan=(0.0, 1.0), dt=0.5)
    with pytest.raises(
        TypeError, match=r"shape \(3,\) for a state of shape \(2,\); with noise=2 .* 4"
    ):
        noisy(jnp.ones(2), key=KEY)
    with pytest.raises(ValueError, match=r"y0 has the number 1\.0 in it"):
        de.nn.Augmented(layer, 1)((1.0, 1.0))
    kept = de.nn.NeuralODE(net, tspan=(0.0, 1.0), save=lambda t, y, args: y[0])
    with pytest.raises(ValueError, match=r"cut=True, and the layer has save="):
        de.nn.Augmented(kept, 1, cut=True)


# --- what is no sample ----------------------------------------------------------------------------


def mlp(inputs, outputs=2):
    return eqx.nn.MLP(inputs, outputs, 4, 1, key=KEY)


BATCH = r"shape \(8, 2\), and takes one of shape \(2,\)\. A layer solves for one .*jax\.vmap\(layer"
WRONG_STATES = {
    "batch": (lambda: de.nn.NeuralODE(mlp(2), **FIXED)(jnp.ones((8, 2))), BATCH),
    "batch for a field": (
        lambda: de.nn.NeuralODE(mlp(2), field=lambda net, t, y, args: net(y) * t, **FIXED)(
            jnp.ones((8, 2))
        ),
        BATCH,
    ),
    "batch of paths": (
        lambda: de.nn.NeuralSDE(mlp(2), mlp(2), tspan=(0.0, 1.0), dt=0.5)(
            jnp.ones((8, 2)), key=KEY
        ),
        BATCH,
    ),
    "width": (
        lambda: de.nn.NeuralODE(mlp(2), **FIXED)(jnp.ones(3)),
        r"network of this NeuralODE .* shape \(3,\), and takes one of shape \(2,\)",
    ),
    "width of a Flax module": (
        lambda: de.nn.NeuralODE(Net(2, 2), **FIXED)(jnp.ones(3)),
        r"shape \(3,\), and takes one of shape \(2,\)",
    ),
    "a number": (
        lambda: de.nn.NeuralODE(mlp(2), **FIXED)(1.0),
        r"shape \(\), and takes one of shape \(2,\)",
    ),
    "with lags": (
        lambda: de.nn.NeuralDDE(mlp(4), lags=0.1, **FIXED)(jnp.ones(3)),
        r"network of this NeuralDDE .* shape \(6,\), and takes one of shape \(4,\)",
    ),
    "q and p": (
        lambda: de.nn.HamiltonianNN(mlp(4, 1), **FIXED)((jnp.ones(3), jnp.ones(3))),
        r"shape \(6,\), and takes one of shape \(4,\)",
    ),
    "a class": (
        lambda: de.nn.NeuralODE(eqx.nn.MLP, **FIXED),
        r"net is the class MLP; an instance is wanted: MLP\(…\)",
    ),
    "a class for a field": (
        lambda: de.nn.NeuralODE(mlp(2), field=Net, **FIXED),
        "field is the class Net",
    ),
    "a class for a diffusion": (
        lambda: de.nn.NeuralSDE(mlp(2), Net, tspan=(0.0, 1.0), dt=0.5),
        "diffusion is the class Net",
    ),
}


@pytest.mark.parametrize("name", WRONG_STATES)
def test_what_is_no_sample_is_told_with_the_shape_that_is_one(name):
    call, message = WRONG_STATES[name]
    with pytest.raises(TypeError, match=message):
        call()


def test_an_error_of_a_network_itself_stays_what_it_is():
    layer = de.nn.NeuralODE(lambda y: y + "a", **FIXED)
    with pytest.raises(TypeError, match=r"^unsupported operand"):
        layer(jnp.ones(2))
