"""Graph ODEs: heat on a graph, permutations, other graphs, and what is no graph."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import diffeq as de

KEY = jax.random.key(0)
SENDERS = np.array([0, 1, 1, 2, 3, 0, 4])
RECEIVERS = np.array([1, 0, 2, 1, 0, 4, 3])
Y0 = jax.random.normal(KEY, (5, 2))


def network(**options):
    keys = jax.random.split(KEY)
    return de.nn.GraphODE(
        eqx.nn.MLP(2 + 3, 2, 8, 1, jnp.tanh, key=keys[0]),
        message=eqx.nn.MLP(2 + 2 + 1, 3, 8, 1, jnp.tanh, key=keys[1]),
        **{
            "senders": SENDERS, "receivers": RECEIVERS, "edges": np.arange(7.0),
            "tspan": (0.0, 1.0), "method": de.RK4(), "dt": 0.25,
        } | options,
    )  # fmt: skip


def test_heat_on_a_graph_is_the_exponential_of_its_laplacian():
    lengths = np.linspace(0.5, 2.0, 7)
    laplacian = np.zeros((5, 5))
    for sender, receiver, length in zip(SENDERS, RECEIVERS, lengths, strict=True):
        laplacian[receiver, sender] += 1 / length
        laplacian[receiver, receiver] -= 1 / length
    flow = lambda both: (both[2:4] - both[:2]) / both[4]
    options = {
        "senders": SENDERS,
        "receivers": RECEIVERS,
        "tspan": (0.0, 0.7),
        "rtol": 1e-9,
        "atol": 1e-9,
    }
    layer = de.nn.GraphODE(None, message=flow, edges=lengths, **options)
    np.testing.assert_allclose(layer(Y0).y1, expm(0.7 * laplacian) @ Y0, rtol=1e-7)
    mean = de.nn.GraphODE(None, aggregate="mean", **options)
    count = np.bincount(RECEIVERS, minlength=5)
    adjacency = np.zeros((5, 5))
    np.add.at(adjacency, (RECEIVERS, SENDERS), 1.0)
    wanted = expm(0.7 * adjacency / np.maximum(count, 1)[:, None]) @ Y0
    np.testing.assert_allclose(mean(Y0).y1, wanted, rtol=1e-7)


def test_a_permutation_of_the_nodes_is_one_of_the_solution():
    layer = network()
    order = np.array([3, 0, 4, 1, 2])  # node i of the new graph is order[i] of the old
    place = np.argsort(order)
    shuffle = np.array([6, 2, 0, 1, 5, 3, 4])  # the edges may come in any order
    other = layer.on(place[SENDERS][shuffle], place[RECEIVERS][shuffle], np.arange(7.0)[shuffle])

    @jax.jit
    def both(y0):
        loss = lambda layer, y: jnp.sum(jnp.sin(layer(y).y1))
        return [
            (layer(y0).y1[order], eqx.filter_grad(loss)(layer, y0)),
            (other(y0[order]).y1, eqx.filter_grad(loss)(other, y0[order])),
        ]

    (one, slopes), (two, same) = both(Y0)
    np.testing.assert_allclose(one, two, rtol=1e-12)
    for a, b in zip(*map(jax.tree.leaves, (slopes, same)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_graphs_side_by_side_are_one_graph():
    layer = network()
    pair = layer.on(
        np.concatenate([SENDERS, SENDERS + 5]), np.concatenate([RECEIVERS, RECEIVERS + 5]),
        np.tile(np.arange(7.0), 2),
    )  # fmt: skip
    starts = jnp.stack([Y0, -Y0])
    batch = jax.jit(jax.vmap(lambda y0: layer(y0).y1))(starts)
    np.testing.assert_allclose(pair(starts.reshape(10, 2)).y1, batch.reshape(10, 2), rtol=1e-12)


def test_a_field_sees_all_nodes_and_args():
    def field(net, t, y, messages, args):
        return args * messages - net["decay"] * y + t

    layer = de.nn.GraphODE(
        {"decay": jnp.array(0.5)},
        senders=SENDERS,
        receivers=RECEIVERS,
        field=field,
        tspan=(0.0, 1.0),
    )
    slope = layer.problem(Y0, 3.0).f(2.0, Y0, 3.0)
    sent = np.zeros((5, 2))
    np.add.at(sent, RECEIVERS, np.asarray(Y0)[SENDERS])
    np.testing.assert_allclose(slope, 3.0 * sent - 0.5 * Y0 + 2.0, rtol=1e-12)


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_the_mean_of_messages_that_are_no_vectors(shape):
    layer = de.nn.GraphODE(
        None, message=lambda pair: jnp.broadcast_to(pair[0], shape), aggregate="mean",
        senders=SENDERS, receivers=RECEIVERS,
    )  # fmt: skip
    reached = np.bincount(RECEIVERS, minlength=5) > 0  # by messages, all of them the receiver's own
    wanted = np.where(reached, Y0[:, 0], 0.0).reshape((5,) + (1,) * len(shape))
    found = layer.messages(Y0)
    np.testing.assert_allclose(found, np.broadcast_to(wanted, (5, *shape)), rtol=1e-12)


def test_a_graph_without_edges():
    layer = network().on([], [], np.zeros((0, 1)))
    np.testing.assert_array_equal(layer.messages(Y0), np.zeros((5, 3)))
    assert layer(Y0).y1.shape == (5, 2)


def test_edges_may_be_a_list():
    path = {"senders": [0, 1], "receivers": [1, 0], "tspan": (0.0, 1.0)}
    message = lambda pair: pair[2:] * pair[1:2]
    end = lambda edges: de.nn.GraphODE(None, message=message, edges=edges, **path)(jnp.ones((2, 1)))
    np.testing.assert_array_equal(end([1.0, 2.0]).y1, end(jnp.array([1.0, 2.0])).y1)


def test_a_layer_that_is_made_again_is_the_same():
    made = [
        de.nn.GraphODE(None, senders=SENDERS, receivers=RECEIVERS, tspan=(0.0, 1.0))
        for _ in range(2)
    ]
    assert jax.tree.structure(made[0]) == jax.tree.structure(made[1])
    assert made[0].field is made[1].field


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: network(senders=[0, 1]), ValueError, "there are 2 senders and 7 receivers"),
        (lambda: network(senders=SENDERS / 1.0), TypeError, "senders is .*whole numbers is wanted"),
        (lambda: network(senders=SENDERS - 1), ValueError, "senders has -1; nodes are counted"),
        (lambda: network(edges=np.ones(3)), ValueError, r"edges has shape \(3,\).* the 7 edges"),
        (lambda: network(aggregate="max"), ValueError, "aggregate is 'max'; one of 'sum', 'mean'"),
        (lambda: network()(Y0[:3]), ValueError, "has the node 4, and y0 the shape"),
        (lambda: network()(Y0[:, 0]), ValueError, r"y0 has shape \(5,\); \(nodes, features\)"),
        (lambda: network()(Y0[:, :1]), TypeError, r"network of this GraphODE .* takes one of"),
        (
            lambda: jax.jit(lambda s: network(senders=s)(Y0).y1)(SENDERS), TypeError,
            "senders and receivers are not known here",
        ),
    ],
)  # fmt: skip
def test_what_is_no_graph(call, error, message):
    with pytest.raises(error, match=message):
        call()
