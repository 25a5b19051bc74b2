"""Neural controlled differential equations: time series, irregular and with values missing."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Inexact, PRNGKeyArray, PyTree, Real

from ..autodiff.jax_internals import Tracer
from ..core.keywords import keywords
from ..core.promotion import floating_dtype
from ..core.whole_numbers import whole_number
from ..interp import Hermite, Rectilinear
from ..problems import CDEProblem
from ..problems.cde import span_of
from ..solution import Solution
from ..solve import solve
from ..validation.defaults import explicit_for
from ..validation.options import SaveTimes, SolveOption
from ..validation.problem_checks import check_one_key
from ..validation.values import shown
from .layer import Layer
from .observation import positive
from .sample import check_instance

__all__ = ["NeuralCDE", "pad_series"]

C = TypeVar("C", bound="NeuralCDE")


class NeuralCDE(Layer):
    """dz = net(z) dX(t) from z = initial(X(t₀)), with `readout(z)` for its output: the neural CDE,
    along the curve X through a series of values, whose channels are time, the values, and with
    `masks` how often each of them was measured so far.

    A call takes one series, `layer(ts, xs)`, its times and a row of values for each; batches are
    `jax.vmap` of that. In a batch of series of different lengths the shorter ones have NaN behind
    their last time (`pad_series` makes it so): each is solved from its own first time to its own
    last one, and what stands beside the padding enters neither its output nor any derivative.

    Args:
        net: a network of the hidden state, whose output is a matrix of shape (hidden, channels), or
            a vector of as many numbers; or, with `field`, any pytree of parameters. A bounded last
            activation, such as tanh, keeps z from growing without bound.
        initial: a network from the channels at the first time to the hidden state, a vector.
        readout: a network of the hidden state; None: the hidden state is the output.
        masks: whether values may be missing: NaN in xs, or False in the mask of a call. They are
            filled in, on lines through what was measured before and after, and beyond the first and
            the last by these; of a channel that was never measured by zeros; and the counts are
            channels of X. A number is what a measurement adds to its count, 1 for True: where there
            are many, a small one keeps these channels of the size of the others.
        interpolation: makes X of times and channels: `de.interp.Hermite`, `Linear`, `Akima` or
            `Rectilinear`, or a function that returns one of these or another function of time, such
            as `functools.partial(de.interp.LogSignature, depth=2, stride=10)` for long series. With
            `Rectilinear` nothing looks ahead: what is missing is filled in by what was measured
            before, zero at first. (It has to be what is returned: inside of a function of time it
            is not seen.)
        field: `field(net, t, z, args)`, a matrix as above; it may also take `key=`.
        solve_options: `method`, `saveat`, `rtol`, … : all that `de.solve` takes but for `tspan`.

    With `Hermite` and `Akima` the slope of X bends at each row, and no step ends there unless the
    rows are `stops`: the error may be 10 to 80 times what the tolerance asks for. With `stops=ts`
    of the layer (of series with times of their own, `de.solve(layer.problem(ts, xs), stops=ts)`)
    steps end on the rows, one at least for each, and the error is that of the tolerance. Where the
    slope of X jumps, as with `Linear`, steps end without that.

    Raises:
        TypeError: an option that `de.solve` does not know; tspan, which the series has; a network
            or an interpolation that cannot be called; a net whose output has another size.
        ValueError: masks is negative, or no number; (by a call) ts and xs do not fit each other, or
            the layer; ts does not increase; a value is missing and masks is False. Where the
            numbers are not known, in a trace, wrong times are the status `bad_times`, and a value
            that is NaN is `nonfinite`.

    Reference: kidger2020; morrill2021online.

    Example:
        Two series of two values each, of different lengths:

        >>> import jax, jax.numpy as jnp, diffeq as de
        >>> layer = de.nn.NeuralCDE.of_sizes(2, 8, 1, width=16, key=jax.random.key(0))
        >>> ts, xs = de.nn.pad_series(
        ...     [[0.0, 1.0, 2.5], [0.0, 0.5]], [jnp.ones((3, 2)), jnp.zeros((2, 2))]
        ... )
        >>> jax.vmap(lambda t, x: layer(t, x).ys)(ts, xs).shape
        (2, 1, 1)
    """

    initial: PyTree
    readout: PyTree
    masks: float = eqx.field(static=True)
    interpolation: Callable = eqx.field(static=True)

    @keywords
    def __init__(
        self,
        net: PyTree,
        initial: PyTree,
        readout: PyTree = None,
        *,
        masks: Any = False,
        interpolation: Any = Hermite,
        field: Callable | None = None,
        **solve_options: SolveOption,
    ) -> None:
        if "tspan" in solve_options:
            raise TypeError(
                "NeuralCDE takes no tspan: a series is solved from its first to its last time. "
                "Leave tspan out, and give the rows of that interval to the call."
            )
        super().__init__(net, field=field, **solve_options)
        for name, part in (("initial", initial), ("readout", readout)):
            check_instance(name, part)
            if not (callable(part) or (part is None and name == "readout")):
                raise TypeError(f"{name} is {part!r}; a network, or a function, is wanted.")
        self.initial, self.readout = initial, readout
        if not callable(interpolation):
            raise TypeError(
                f"interpolation is {shown(interpolation)}; a function of times and channels is "
                "wanted, such as de.interp.Linear."
            )
        self.masks, self.interpolation = _count_step(masks), interpolation

    @classmethod
    def of_sizes(
        cls: type[C],
        values: Any,
        hidden: Any,
        outputs: int,
        *,
        width: int = 128,
        depth: int = 1,
        key: Any,
        masks: Any = False,
        **options: SolveOption,
    ) -> C:
        """The layer for series of so many values, with perceptrons for its networks (softplus
        inside, tanh at the end of net) and a linear readout.

        >>> import jax, diffeq as de
        >>> layer = de.nn.NeuralCDE.of_sizes(3, 8, 1, masks=True, key=jax.random.key(0))
        >>> layer.net.out_size  # 8 × (1 + 3 + 3)
        56
        """
        check_one_key(key)
        values, hidden = whole_number("values", values), whole_number("hidden", hidden)
        channels = _count_channels(values, masks=bool(_count_step(masks)))
        keys = jax.random.split(key, 3)
        soft, tanh = jax.nn.softplus, jnp.tanh
        net = eqx.nn.MLP(hidden, hidden * channels, width, depth, soft, tanh, key=keys[1])
        initial = eqx.nn.MLP(channels, hidden, width, depth, key=keys[0])
        readout = eqx.nn.Linear(hidden, outputs, key=keys[2])
        return cls(net, initial, readout, masks=masks, **options)

    def control(
        self, ts: ArrayLike | Sequence, xs: ArrayLike | Sequence, *, mask: PyTree = None
    ) -> Callable:
        """X: the curve through time, values and counts."""
        return self._control(*self._checked(ts, xs, mask))[0]

    def problem(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        ts: ArrayLike | Sequence,
        xs: ArrayLike | Sequence,
        args: PyTree = None,
        *,
        mask: PyTree = None,
        key: PRNGKeyArray | None = None,
    ) -> CDEProblem:
        """The equation, for `de.solve` and all else that takes a problem."""
        times, values, seen = self._checked(ts, xs, mask)
        control, first = self._control(times, values, seen)
        start = self._start(first, values.shape[1])
        equation = self._equation(key)

        def f(t: Array, z: Array, args: PyTree) -> PyTree:
            value = jnp.asarray(equation(t, z, args))
            whole = (*z.shape, value.size // z.size)
            return value.reshape(whole) if math.prod(whole) == value.size else value

        return CDEProblem(f, control, start, span_of(times), args)

    def _start(self, first: Array, count: int) -> PyTree:
        """The hidden state at the first time, of rows of so many values."""
        s = "s" * (count != 1)
        own = f"time, {count} value{s}" + f", {count} count{s}" * bool(self.masks)
        has = f"xs has {count} value{s} a row, so that X has {first.shape[0]} channels ({own})"
        size = getattr(self.initial, "in_size", getattr(self.initial, "in_features", None))
        if isinstance(size, int) and size != first.shape[0]:
            raise ValueError(
                f"{has}, and initial takes {size}. Give rows of as many values as the layer was "
                f"made for, or make it for these: NeuralCDE.of_sizes({count}, …)."
            )
        try:
            return self.initial(first)
        except Exception as error:
            error.add_note(f"initial was called with X at the first time: {has}.")
            raise

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        ts: ArrayLike | Sequence,
        xs: ArrayLike | Sequence,
        args: PyTree = None,
        *,
        mask: PyTree = None,
        saveat: SaveTimes = None,
        key: PRNGKeyArray | None = None,
    ) -> Solution:
        """Solves for one series. `ys` of the solution are the outputs at the saved times, by
        default at the last time of the series alone, and `y1` is the hidden state there.

        Args:
            ts: increasing times, shape (times,); NaN at the end is padding.
            xs: the values, shape (times, values).
            args: what `field` gets as args.
            mask: with `masks`, booleans of the shape of xs: False where a value is missing.
            saveat: other save times; `saveat=ts` gives an output for each row.
            key: one key for the whole solve, given to the network (or the field) as `key=`.
        """
        problem, options = self.problem(ts, xs, args, mask=mask, key=key), self.options
        del options["tspan"]
        if saveat is not None:
            options["saveat"] = saveat
        sol = solve(problem, **self._with_defaults(problem, options, jnp.asarray(ts)))
        if self.readout is None:
            return sol
        return eqx.tree_at(lambda s: s.ys, sol, jax.tree.map(self._outputs, sol.ys, sol.saved))

    @staticmethod
    def _with_defaults(
        problem: CDEProblem, options: dict[str, SolveOption], ts: Array
    ) -> dict[str, Any]:
        """The options, with an explicit method whose stages are a loop, so that the network is
        compiled once, and runs as fast; and with a first step as long as the time between two rows,
        where one would be found by two more evaluations. Of one row no step is made.
        """
        if options.get("method") is None:
            options["method"] = explicit_for(options.get("rtol"), stages="loop")
        if all(options.get(name) is None for name in ("dt", "dt0", "controller")):
            t0, t1 = problem.tspan
            length = lax.stop_gradient(t1 - t0) / jnp.maximum(jnp.sum(jnp.isfinite(ts)) - 1, 1)
            options["dt0"] = jnp.where(length > 0, length, 1)
        return options

    def _outputs(self, rows: Inexact[Array, "rows n"], saved: Bool[Array, " rows"]) -> Array:
        """The outputs of rows; NaN where a row is missing, of which no derivative comes."""
        found = jax.vmap(self.readout)(jnp.where(saved[:, None], rows, 0))
        return jnp.where(saved.reshape(-1, *(1,) * (found.ndim - 1)), found, jnp.nan)

    def _checked(
        self, ts: ArrayLike | Sequence, xs: ArrayLike | Sequence, mask: PyTree
    ) -> tuple[Array, Array, Array | None]:
        """The times, the values, and flags of what was measured, if they fit each other."""
        times, values = jnp.asarray(ts), jnp.asarray(xs)
        times = times.astype(float) if jnp.issubdtype(times.dtype, jnp.integer) else times
        if times.ndim != 1 or values.ndim != 2:
            raise ValueError(
                f"ts has shape {times.shape} and xs has shape {values.shape}; one series is "
                "wanted, (times,) and (times, values). Batches are jax.vmap of that."
            )
        if times.shape[0] != values.shape[0] or not times.shape[0]:
            raise ValueError(
                f"ts has {times.shape[0]} times and xs has {values.shape[0]} rows; a row of values "
                "for each time is wanted, one at least."
            )
        values = values.astype(floating_dtype(values))
        if mask is not None and not self.masks:
            raise TypeError("mask was given, and the layer has masks=False: give masks=True to it.")
        if not self.masks:
            _check_none_missing(times, values)
            return times, values, None
        seen = ~jnp.isnan(values)
        if mask is not None:
            mask = jnp.asarray(mask)
            if mask.shape != values.shape or mask.dtype != bool:
                raise ValueError(
                    f"mask has shape {mask.shape} and dtype {mask.dtype}; booleans of the shape of "
                    f"xs are wanted, {values.shape}."
                )
            seen = seen & mask
        return times, values, seen

    def _control(self, ts: Array, xs: Array, seen: Array | None) -> tuple[Any, Array]:
        """X, and its channels at the first time."""
        if ts.shape[0] == 1:  # a point: a curve has a second time, which is padding
            row = lambda x, last: jnp.concatenate([x, jnp.full_like(x, last)])  # noqa: E731
            ts, xs = row(ts, jnp.nan), row(xs, jnp.nan)
            seen = None if seen is None else row(seen, False)
        if seen is None:
            return self._through(ts, [xs])
        known = ~jnp.isnan(ts)
        time = jnp.where(known, ts, span_of(ts)[1])
        seen = seen & known[:, None]
        xs, counts = jnp.where(seen, xs, 0), self.masks * jnp.cumsum(seen, axis=0, dtype=xs.dtype)
        made = self._through(ts, [_between(time, xs, seen), counts], time)
        if isinstance(made[0], Rectilinear):  # it does not look ahead, whatever function made it
            return self._through(ts, [_held(xs, seen), counts], time)
        return made

    def _through(
        self, ts: Array, parts: list[Array], time: Array | None = None
    ) -> tuple[Any, Array]:
        """The curve through time and the parts, and its channels at the first time."""
        time = ts if time is None else time
        channels = jnp.concatenate([time[:, None].astype(parts[0].dtype), *parts], axis=1)
        return self.interpolation(ts, channels), channels[0]


# --- one series -----------------------------------------------------------------------------------


def _count_step(masks: Any) -> float:
    """The number that a measurement adds to its count."""
    if isinstance(masks, (bool, np.bool_)):
        return float(masks)
    return positive("masks", masks, ", or True or False", zero=True)


def _count_channels(values: int, *, masks: bool) -> int:
    """The number of channels of X: time, the values, and their counts."""
    return 1 + values * (1 + masks)


def _check_none_missing(ts: Array, xs: Array) -> None:
    """Refuses values that are missing at a time that is there, where they are known."""
    if isinstance(ts, Tracer) or isinstance(xs, Tracer):
        return
    missing = np.isnan(np.asarray(xs)) & ~np.isnan(np.asarray(ts))[:, None]
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise ValueError(
            f"xs has NaN at [{row}, {column}], at the time {float(ts[row]):g}, and the layer has "
            "masks=False: masks=True fills in what is missing, and gives its network the counts of "
            "what is there."
        )


def _held(xs: Array, seen: Bool[Array, "times values"]) -> Array:
    """The values with what was seen last in the place of what is missing; zero before that."""
    before = lax.cummax(jnp.where(seen, _row_numbers(seen), -1))
    return jnp.where(before < 0, 0, jnp.take_along_axis(xs, jnp.maximum(before, 0), axis=0))


def _between(ts: Array, xs: Array, seen: Bool[Array, "times values"]) -> Array:
    """The values with lines through the neighbours that were seen in the place of what is missing,
    and beyond the first and the last of them these; zero where none was.
    """
    count = xs.shape[0]
    before = lax.cummax(jnp.where(seen, _row_numbers(seen), -1))
    after = lax.cummin(jnp.where(seen, _row_numbers(seen), count), reverse=True)
    left = jnp.clip(jnp.where(before < 0, after, before), 0, count - 1)
    right = jnp.where(after >= count, left, after)
    t0, t1 = ts[left], ts[right]
    width = jnp.where(t1 > t0, t1 - t0, 1)
    theta = jnp.where(t1 > t0, (ts[:, None] - t0) / width, 0).astype(xs.dtype)
    a, b = (jnp.take_along_axis(xs, i, axis=0) for i in (left, right))
    return a + theta * (b - a)


def _row_numbers(seen: Bool[Array, "times values"]) -> Array:
    """The number of its row at each place."""
    return lax.broadcasted_iota(jnp.int32, seen.shape, 0)


# --- many -----------------------------------------------------------------------------------------


@keywords
def pad_series(ts: Sequence, xs: Sequence) -> tuple[Real[Array, "n times"], Array]:
    """Series of different lengths as two arrays for `jax.vmap`, with NaN behind their ends.

    Args:
        ts: the times of each series, increasing.
        xs: the values of each series, shape (times, values), with as many values in all.

    Returns:
        Arrays of shape (series, times) and (series, times, values), as long as the longest.

    Raises:
        ValueError: there are not as many of both; the times and the values of a series are not as
            many, or its times do not increase; the rows have different numbers of values.

    Example:
        >>> import diffeq as de
        >>> ts, xs = de.nn.pad_series([[0.0, 1.0], [0.5]], [[[3.0], [4.0]], [[5.0]]])
        >>> ts.tolist(), xs[..., 0].tolist()
        ([[0.0, 1.0], [0.5, nan]], [[3.0, 4.0], [5.0, nan]])
    """
    if len(ts) != len(xs) or not len(ts):
        raise ValueError(
            f"ts has {len(ts)} series and xs has {len(xs)}; as many of both are wanted, and one "
            "at least."
        )
    times = [_as_series("ts", i, t) for i, t in enumerate(ts)]
    values = [_as_series("xs", i, x) for i, x in enumerate(xs)]
    for i, (t, x) in enumerate(zip(times, values, strict=True)):
        _check_series(i, t, x, values[0])
    most = max(map(len, times))
    behind = lambda x: [(0, most - len(x))] + [(0, 0)] * (x.ndim - 1)  # noqa: E731
    return tuple(
        jnp.stack([jnp.pad(_floating(x), behind(x), constant_values=jnp.nan) for x in each])
        for each in (times, values)
    )  # pyright: ignore[reportReturnType]


def _as_series(name: str, i: int, x: ArrayLike | Sequence) -> np.ndarray:
    """A series as an array; rows of different lengths make none."""
    try:
        return np.asarray(x)
    except ValueError as error:
        rows: Any = x
        of = [f"a list of {len(row)}" if hasattr(row, "__len__") else "a number" for row in rows]
        wanted = {
            "ts": "a sequence of times is wanted.",
            "xs": "rows of as many values each are wanted: write NaN where one is missing, and "
            "give masks=True to the layer.",
        }
        raise ValueError(
            f"{name}[{i}] has {', '.join(dict.fromkeys(of))} for its entries; {wanted[name]}"
        ) from error


def _check_series(i: int, t: np.ndarray, x: np.ndarray, first: np.ndarray) -> None:
    """Refuses a series whose parts do not fit each other, or the first series."""
    if t.ndim != 1 or x.ndim != 2:
        raise ValueError(
            f"ts[{i}] has shape {t.shape} and xs[{i}] has shape {x.shape}; (times,) and "
            "(times, values) are wanted."
        )
    if len(t) != len(x) or not len(t):
        raise ValueError(
            f"ts[{i}] has {len(t)} times and xs[{i}] has {len(x)} rows; a row for each time is "
            "wanted, one at least."
        )
    if x.shape[1] != first.shape[-1]:
        raise ValueError(
            f"xs[{i}] has {x.shape[1]} values a row and xs[0] has {first.shape[-1]}; as many in "
            "all series are wanted (NaN where one is missing)."
        )
    if not (np.diff(t) > 0).all() or np.isnan(t).any():
        raise ValueError(
            f"ts[{i}] does not increase, or has NaN in it; increasing times are wanted."
        )


def _floating(x: np.ndarray) -> Array:
    """The array with numbers among which there is NaN."""
    return jnp.asarray(x, floating_dtype(x))
