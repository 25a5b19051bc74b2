"""Graph neural ordinary differential equations: nodes that send each other messages along edges."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..core.keywords import keywords
from ..validation.options import SolveOption
from ..validation.values import concrete, shown
from .layer import Frozen, Layer
from .sample import check_instance, for_one_sample

__all__ = ["GraphODE"]

_SUMS = ("sum", "mean")


class GraphODE(Layer):
    """A state for each node of a graph, which changes by messages along its edges.

        y_i' = net([y_i, Σ_e message([y_i, y_sender(e), edges_e])]),   over edges e that end in i.

    The state has the shape (nodes, features). All edges share one network, and all nodes another,
    so the same layer solves on other graphs, and a permutation of the nodes, in the state and in
    the edges, is one of the solution. One sample; batches by `jax.vmap`, and several graphs side by
    side are one graph without edges between them.

    Args:
        net: a network from a node's state and the sum of its messages to its slope, one vector; or,
            with `field`, any parameters. None: the sum of the messages is the slope.
        message: a network from the states of receiver and sender, and what `edges` says of the
            edge, one vector, to a message. None: the sender's state.
        senders, receivers: for each edge the nodes between which it leads, whole numbers from 0;
            an edge that leads both ways is two of them.
        edges: constants of each edge, shape (edges, …): a length, a strength; None: none.
        aggregate: "sum" of the messages, or their "mean" (0 of a node that gets none).
        tspan: (t0, t1), or a function of args; a call may give another.
        field: `field(net, t, y, messages, args) -> dy` of all nodes, with messages of the shape
            (nodes, …), for what is not the same at each node, or depends on t and args.
        solve_options: `method`, `saveat`, `rtol`, … : all that `de.solve` takes.

    `on(senders, receivers, edges)` returns the same layer on another graph.

    Raises:
        TypeError: an option that `de.solve` does not know; senders are no whole numbers.
        ValueError: senders, receivers and edges differ in length; a node that the state does not
            have; y0 has not two axes.

    Reference: battaglia2018; poli2019.

    Example:
        Heat along a path of three nodes, with a message that is known:

        >>> import jax.numpy as jnp, diffeq as de
        >>> path = de.nn.GraphODE(
        ...     None, message=lambda pair: pair[1:] - pair[:1],
        ...     senders=[0, 1, 1, 2], receivers=[1, 0, 2, 1], tspan=(0.0, 10.0),
        ... )
        >>> path(jnp.array([[3.0], [0.0], [0.0]])).y1.ravel().round(2)
        Array([1., 1., 1.], dtype=float32)
    """

    message: PyTree
    graph: Frozen
    aggregate: str = eqx.field(static=True)

    @keywords
    def __init__(
        self,
        net: PyTree,
        *,
        senders: Any,
        receivers: Any,
        message: PyTree = None,
        edges: PyTree = None,
        aggregate: str = "sum",
        tspan: Any = None,
        field: Callable | None = None,
        **solve_options: SolveOption,
    ) -> None:
        if aggregate not in _SUMS:
            words = ", ".join(map(repr, _SUMS))
            raise ValueError(f"aggregate is {aggregate!r}; one of {words} is wanted.")
        check_instance("message", message)
        if net is None and field is None:
            field = _messages_alone
        super().__init__(net, tspan=tspan, field=field, **solve_options)
        self.message = message
        self.aggregate = aggregate
        self.graph = _checked_graph(senders, receivers, edges)

    def on(self, senders: Any, receivers: Any, edges: PyTree = None) -> "GraphODE":
        """This layer, with its parameters, on another graph."""
        return eqx.tree_at(
            lambda layer: layer.graph, self, _checked_graph(senders, receivers, edges)
        )

    def messages(self, y: Float[Array, "nodes features"]) -> Array:
        """The sum (or the mean) of the messages to each node, shape (nodes, …)."""
        senders, receivers, edges = self.graph.value
        parts = [y[receivers], y[senders]]
        if edges is not None:
            numbers = math.prod(jnp.shape(edges)[1:])
            parts.append(jnp.reshape(edges, (len(senders), numbers)).astype(y.dtype))
        if self.message is None:
            sent = y[senders]
        else:
            sent = jax.vmap(for_one_sample(self.message, "GraphODE"))(jnp.concatenate(parts, 1))
        total = jax.ops.segment_sum(sent, receivers, len(y))
        if self.aggregate == "sum":
            return total
        count = np.maximum(np.bincount(receivers, minlength=len(y)), 1)
        return total / jnp.asarray(count, total.dtype).reshape((-1,) + (1,) * (total.ndim - 1))

    def _equation(self, key: PRNGKeyArray | None) -> Callable:
        """The field as a problem takes it."""
        net, field = self.net, self.field
        options = {} if key is None else {"key": key}
        self._check_field(key, "net, t, y, messages, args")

        def changed(t: Array, y: Array, args: PyTree) -> Array:
            self._check_nodes(y)
            messages = self.messages(y)
            if field is not None:
                return field(net, t, y, messages, args, **options)
            of_node = for_one_sample(lambda z: net(z, **options), "GraphODE")
            return jax.vmap(of_node)(jnp.concatenate([y, messages], axis=1))

        return changed

    def _check_nodes(self, y: PyTree) -> None:
        """Refuses a state that is not one row a node."""
        if jnp.ndim(y) != 2:
            raise ValueError(
                f"y0 has shape {jnp.shape(y)}; (nodes, features) is wanted, also for one feature."
            )
        senders, receivers, _ = self.graph.value
        for name, nodes in (("senders", senders), ("receivers", receivers)):
            if len(nodes) and nodes.max() >= len(y):
                raise ValueError(
                    f"{name} has the node {nodes.max()}, and y0 the shape {jnp.shape(y)}, which is "
                    f"of the nodes 0 to {len(y) - 1}."
                )


def _messages_alone(net: PyTree, t: Array, y: Array, messages: Array, args: PyTree) -> Array:
    """The slope of a graph without a network for its nodes."""
    del net, t, y, args
    return messages


def _checked_graph(senders: Any, receivers: Any, edges: PyTree) -> Frozen:
    """The edges of a graph, as constants."""
    if not concrete((senders, receivers)):
        raise TypeError(
            "senders and receivers are not known here: a graph is static, and made outside of jit "
            "and vmap. Graphs side by side are one, of all their edges."
        )
    ends = {"senders": np.asarray(senders), "receivers": np.asarray(receivers)}
    for name, nodes in ends.items():
        if nodes.ndim != 1 or not (np.issubdtype(nodes.dtype, np.integer) or not nodes.size):
            raise TypeError(f"{name} is {shown(nodes)}; a list of whole numbers is wanted.")
        if nodes.size and nodes.min() < 0:
            raise ValueError(f"{name} has {nodes.min()}; nodes are counted from 0.")
    count, other = (len(nodes) for nodes in ends.values())
    if count != other:
        raise ValueError(
            f"there are {count} senders and {other} receivers; an edge has one of each."
        )
    if edges is not None and not hasattr(edges, "shape"):
        edges = jnp.asarray(edges)
    if edges is not None and jnp.shape(edges)[:1] != (count,):
        raise ValueError(
            f"edges has shape {jnp.shape(edges)}; its first axis is that of the {count} edges."
        )
    nodes = [x.astype(np.int32) for x in ends.values()]
    return Frozen((*nodes, edges))
