"""Encoders: modules that read an irregular series, and return a vector."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..core.keywords import keywords
from ..events import PresetTimes
from ..solve import solve
from ..validation.options import SolveOption
from .layer import Layer, with_method
from .time_series import check_channels, readings

__all__ = ["AttentionEncoder", "GRUEncoder", "ODERNNEncoder", "check_encoded", "made_encoder"]


class GRUEncoder(eqx.Module):
    """A GRU that reads the rows (t, x, mask) of a series from the last to the first.

    Args:
        channels: numbers in a row of `xs`.
        hidden: numbers in the state of the GRU, which is what it returns.
        key: for its weights.

    `encoder(ts, xs, mask)` returns the state after the first row, and `encoder.states(…)` that
    after each: row i depends on the rows from i on. `xs` is 0 where `mask`, of its shape, is False;
    rows in which it always is change nothing.

    Reference: cho2014; chen2018.

    Example:
        >>> import jax, jax.numpy as jnp, diffeq as de
        >>> encoder = de.nn.GRUEncoder(2, 8, key=jax.random.key(0))
        >>> ts, xs, mask = jnp.arange(3.0), jnp.ones((3, 2)), jnp.ones((3, 2), bool)
        >>> encoder(ts, xs, mask).shape, encoder.states(ts, xs, mask).shape
        ((8,), (3, 8))
    """

    cell: eqx.nn.GRUCell

    @keywords
    def __init__(self, channels: int, hidden: int, *, key: PRNGKeyArray) -> None:
        self.cell = eqx.nn.GRUCell(1 + 2 * channels, hidden, key=key)

    def __call__(self, ts: PyTree, xs: PyTree, mask: PyTree) -> Float[Array, " hidden"]:
        """The state after the first row."""
        return self._read(ts, xs, mask, every=False)

    def states(self, ts: PyTree, xs: PyTree, mask: PyTree) -> Float[Array, "n hidden"]:
        """The state after each row."""
        return self._read(ts, xs, mask, every=True)

    def _read(self, ts: PyTree, xs: PyTree, mask: PyTree, *, every: bool) -> Array:
        rows, seen = readings(ts, xs, mask)
        _check_inputs(xs, self.cell.input_size)

        # A product of all rows before the loop would save little, and make two large arrays, what
        # the rows add to the gates and its cotangent, in memory that the process is given first.
        def step(state: Array, row: tuple) -> tuple[Array, Array | None]:
            x, seen = row
            state = jnp.where(seen, self.cell(x, state), state)
            return state, state if every else None

        start = jnp.zeros(self.cell.hidden_size, rows.dtype)
        last, states = lax.scan(step, start, (rows, seen), reverse=True)
        return last if states is None else states


class ODERNNEncoder(eqx.Module):
    """An ODE-RNN: its state h follows h' = net(h) from each row to the one before it, and a GRU
    changes it at each row.

    It starts at the last row with 0, and ends at t = 0: times are counted from the latent state
    that is wanted, and rows before 0 do not enter. One solve, whose steps end at the rows.

    Args:
        channels: numbers in a row of `xs`.
        hidden: numbers in the state.
        net: a network for h'; None: a perceptron with one hidden layer of `width`.
        width: see net.
        key: for its weights.
        solve_options: `method`, `rtol`, `dt`, … of `de.solve`.

    `encoder(ts, xs, mask)`, as in `GRUEncoder`.

    Reference: rubanova2019.

    Example:
        >>> import jax, jax.numpy as jnp, diffeq as de
        >>> encoder = de.nn.ODERNNEncoder(2, 8, key=jax.random.key(0))
        >>> ts, xs, mask = jnp.arange(3.0), jnp.ones((3, 2)), jnp.ones((3, 2), bool)
        >>> encoder(ts, xs, mask).shape
        (8,)
    """

    cell: eqx.nn.GRUCell
    layer: Layer

    @keywords
    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        net: PyTree = None,
        width: int = 32,
        key: PRNGKeyArray,
        **solve_options: SolveOption,
    ) -> None:
        of_cell, of_net = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(1 + 2 * channels, hidden, key=of_cell)
        net = eqx.nn.MLP(hidden, hidden, width, 1, jnp.tanh, key=of_net) if net is None else net
        self.layer = Layer(net, **solve_options)

    def __call__(self, ts: PyTree, xs: PyTree, mask: PyTree) -> Float[Array, " hidden"]:
        """The state at t = 0."""
        # From the last to the first, also of rows at one time, which are read in their order here.
        rows, seen = (x[::-1] for x in readings(ts, xs, mask))
        _check_inputs(xs, self.cell.input_size)
        change = lambda t, h, args, row: self.cell(row, h)  # noqa: E731
        observed = PresetTimes(jnp.where(seen, rows[:, 0], jnp.nan), change, data=rows)
        start = jnp.zeros(self.cell.hidden_size, rows.dtype)
        last = jnp.max(jnp.where(seen, rows[:, 0], 0))
        problem = self.layer.problem(start, tspan=(last, jnp.zeros_like(last)))
        options = {name: x for name, x in self.layer.options.items() if name != "tspan"}
        return solve(problem, events=observed, **with_method(problem, options)).y1


class AttentionEncoder(eqx.Module):
    """Attention over the pairs (t, x) of a series.

    Each head is a mean of the observed rows, with weights that depend on the row,

        e_i = embed([t_i, sin(ω t_i + φ), x_i, mask_i]),
        head = Σ a_i V e_i,   a = softmax over observed i of q · K e_i / √size,

    and a linear map of all heads is the vector that it returns. The order of the rows does not
    matter: time enters through t alone, with frequencies ω that are trained.

    Args:
        channels: numbers in a row of `xs`.
        hidden: numbers in the vector; a multiple of heads.
        heads: how many means there are.
        waves: how many frequencies.
        width: of the hidden layer of `embed`.
        key: for its weights.

    `encoder(ts, xs, mask)`, as in `GRUEncoder`.

    Raises:
        ValueError: hidden is no multiple of heads.

    Reference: vaswani2017; shukla2021.

    Example:
        >>> import jax, jax.numpy as jnp, diffeq as de
        >>> encoder = de.nn.AttentionEncoder(2, 8, key=jax.random.key(0))
        >>> ts, xs, mask = jnp.arange(3.0), jnp.ones((3, 2)), jnp.ones((3, 2), bool)
        >>> encoder(ts, xs, mask).shape
        (8,)
    """

    frequencies: Float[Array, " waves"]
    phases: Float[Array, " waves"]
    embed: eqx.nn.MLP
    queries: Float[Array, "heads size"]
    keys: Float[Array, "heads size hidden"]
    values: Float[Array, "heads size hidden"]
    out: eqx.nn.Linear

    @keywords
    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        heads: int = 4,
        waves: int = 8,
        width: int = 32,
        key: PRNGKeyArray,
    ) -> None:
        if hidden % heads:
            raise ValueError(
                f"hidden is {hidden} and heads {heads}; hidden must be a multiple of heads."
            )
        keys, size = jax.random.split(key, 6), hidden // heads
        inputs = 1 + waves + 2 * channels
        self.frequencies = jnp.exp(jax.random.normal(keys[0], (waves,)))
        self.phases = jax.random.uniform(keys[1], (waves,), maxval=2 * math.pi)
        self.embed = eqx.nn.MLP(inputs, hidden, width, 1, jax.nn.gelu, key=keys[2])
        self.queries = jax.random.normal(keys[3], (heads, size))
        self.keys, self.values = jax.random.normal(keys[4], (2, heads, size, hidden)) / math.sqrt(
            hidden
        )
        self.out = eqx.nn.Linear(hidden, hidden, key=keys[5])

    def __call__(self, ts: PyTree, xs: PyTree, mask: PyTree) -> Float[Array, " hidden"]:
        """The vector of a series; of one without an observation the means are 0, and it is what the
        linear map makes of that: its bias.
        """
        rows, seen = readings(ts, xs, mask)
        _check_inputs(xs, int(self.embed.in_size) - len(self.frequencies))
        waves = jnp.sin(rows[:, :1] * self.frequencies + self.phases)
        embedded = jax.vmap(self.embed)(jnp.concatenate([rows, waves], axis=1))
        # K and V act on the rows through the query and after the mean: one product a head.
        scaled = jnp.einsum("hs,hsd->hd", self.queries, self.keys) / math.sqrt(self.keys.shape[1])
        scores = jnp.where(seen, scaled @ embedded.T, -jnp.inf)
        # Of a series without an observation all scores are −∞, and their softmax would be NaN.
        weights = jax.nn.softmax(jnp.where(jnp.any(seen), scores, 0), axis=1)
        weights = jnp.where(seen, weights, 0)
        heads = jnp.einsum("hsd,hd->hs", self.values, weights @ embedded)
        return self.out(heads.ravel())


_ENCODERS: dict[str, Callable] = {
    "gru": GRUEncoder,
    "ode_rnn": ODERNNEncoder,
    "attention": AttentionEncoder,
}


def _check_inputs(xs: PyTree, inputs: PyTree) -> None:
    """Refuses rows that do not fit a cell that reads (t, x, mask)."""
    check_channels(jnp.asarray(xs), (inputs - 1) // 2, "the encoder")


def check_encoded(found: PyTree, shape: tuple[int, ...], name: str) -> None:
    """Refuses what an encoder returns, if it has another shape than a model wants by its `name`.

    >>> check_encoded(jnp.ones(4), (8,), "hidden")
    Traceback (most recent call last):
    ValueError: the encoder returns shape (4,); (8,) is wanted, by hidden=8.
    """
    if jnp.shape(found) != shape:
        each = ": a vector for each row, as GRUEncoder(…).states has it" if len(shape) == 2 else ""
        raise ValueError(
            f"the encoder returns shape {jnp.shape(found)}; {shape} is wanted, by "
            f"{name}={shape[-1]}{each}."
        )


def made_encoder(encoder: PyTree, channels: int, hidden: int, key: PRNGKeyArray) -> PyTree:
    """The encoder of a name, or the one that is given."""
    if isinstance(encoder, str) and encoder in _ENCODERS:
        return _ENCODERS[encoder](channels, hidden, key=key)
    if isinstance(encoder, str) or not callable(encoder):
        names = ", ".join(map(repr, _ENCODERS))
        raise ValueError(
            f"encoder is {encoder!r}; one of {names}, or a module encoder(ts, xs, mask), is wanted."
        )
    return encoder
