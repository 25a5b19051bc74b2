"""Random jumps as events, so that the loop learns nothing new of them.

The random time change (Kurtz; Gibson and Bruck's next reactions): channel c of a jump happens for
the n-th time when its hazard Λ_c' = rate_c(t, y), counted from its last jump, reaches E_cn, one of
the exponential numbers of mean 1 that the key determines. Of a rate that is constant all times are
known at once, t0 + Σ E_cn / rate_c, and are given times. Another's hazard is solved together with
the state, in which E_cn and n are held; an `Event` finds the crossing. Hazards are set to 0 after
each jump, so that a long integral does not lose small increments to rounding.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from ..autodiff.jax_internals import influences
from ..autodiff.one_way_linear import undifferentiable
from ..brownian import exponentials, key_words, threefry
from ..brownian.counter_rng import RandomKey
from ..closures import flatten, unflatten
from ..core.packing import Held, Packing, as_state, hold, released
from ..core.user_functions import check_arguments, described
from ..problems import JumpProblem, ODEProblem, SDEProblem, SplitODEProblem
from ..problems.base import Problem, evaluated
from ..problems.jump import Jump, rate_varies
from ..problems.lowering import as_rate, functions_of, initial_tree, time_interval
from .event import AbstractEvent, Event, PresetTimes
from .lowered import same_state

__all__ = ["JumpProcess"]

_JUMPS = 0x6A756D70  # of the counter, where the words of jumps are
_REFUSED = (
    "A derivative reaches the rate of jumps[{j}]. What enters a rate changes how probable a path "
    "is, which the path does not know: JumpProblem(…, estimator='score') weights paths by that "
    "(sol.weight), estimator='pathwise' moves the times of jumps and is right for what is "
    "continuous across them; the docstring says for what each is unbiased."
)


type Extended = dict[str, PyTree]
"""A state extended by hazards: {"y": the user's, "hazards": …}, with the leaves that are held."""

type HazardPlace = tuple[int, int, bool]
"""The hazards of a jump: the number of the first one, how many there are, and whether the rate is
one number and no vector.
"""


class MarkKey(NamedTuple):
    """The key of the marks of a jump: its words, the implementation of a typed key, and the place
    of the jump.
    """

    data: Array
    kind: Hashable
    place: int


@dataclass(frozen=True, eq=False)
class Channels:
    """One jump: its place, the width of its rate (None for one number) and its words."""

    jump: Jump
    place: int
    width: int | None
    words: Array
    key: MarkKey

    @property
    def count(self) -> int:
        """The number of channels."""
        return 1 if self.width is None else self.width

    def affect(self) -> "_Jumping":
        """Returns the affect of the jump on the user's state."""
        name = f"jumps[{self.place}].affect"
        arguments = "t, y, args" + (", fired" if self.width is not None else "")
        arguments += ", mark" if self.jump.mark is not None else ""
        check_arguments(self.jump.affect, name, arguments)
        return _Jumping(self.jump, name, self.key, self.width is not None)


@dataclass(frozen=True, eq=False)
class ConstantChannels(Channels):
    """One jump at a constant rate: its times, and which channel each is of."""

    rate: Array
    times: Float[Array, " times"]
    which: Int[Array, " times"]


@dataclass(frozen=True, eq=False)
class JumpProcess:
    """The jumps of a solve: the `problem`, with a state extended by hazards, if there are any, and
    the jumps as events of it.
    """

    problem: Problem
    channels: tuple[Channels, ...]
    estimator: str | None
    hazards: int
    size: int
    t0: Array
    most: int
    least: Array

    @classmethod
    def of(cls, problem: JumpProblem, key: RandomKey, most: int, rtol: PyTree) -> "JumpProcess":
        """Returns the jumps of a problem, of which `most` are recorded."""
        problem = problem if problem.estimator else _guarded(problem)
        plain, tree = problem.problem, initial_tree(problem.problem)
        for name, f, arguments in functions_of(plain):
            check_arguments(f, name, arguments)
        packing = Packing(tree)
        ends = time_interval(evaluated(plain.tspan, plain.args), plain.args, packing.dtype)
        found = [
            _channels(problem, j, released(tree), ends[0], key, most)
            for j in range(len(problem.jumps))
        ]
        moving = [c for c in found if not isinstance(c, ConstantChannels)]
        hazards, real = sum(c.count for c in moving), jnp.finfo(packing.dtype).dtype
        least = jnp.min(jnp.stack([jnp.min(jnp.asarray(x, real)) for x in jax.tree.leaves(rtol)]))
        least = jnp.maximum(least, 4 * jnp.finfo(real).eps)
        if moving:
            low = -least / jnp.maximum(ends[1] - ends[0], jnp.finfo(real).tiny).astype(real)
            rates = _Rates(tuple((c.jump.rate, c.count) for c in moving), low)
            plain = _extended_problem(
                plain, tree, moving, rates, score=problem.estimator == "score"
            )
        size = packing.size
        return cls(plain, tuple(found), problem.estimator, hazards, size, ends[0], most, least)

    def events(self, given: tuple) -> tuple[AbstractEvent, ...]:
        """The jumps, and after them the other events that were given."""
        own, first = [], 0
        for c in self.channels:
            if isinstance(c, ConstantChannels):
                event = _given(c, bool(self.hazards))
            else:
                event = self._located(c, first)
                first += c.count
            event.label = f"jumps[{c.place}]"
            own.append(event)
        return (*own, *(_on_user_state(e, i, bool(self.hazards)) for i, e in enumerate(given)))

    def _located(self, c: Channels, first: int) -> Event:
        """The event of a hazard; its hazards begin at `first`."""
        place = (first, c.count, c.width is None)
        fixed = self.estimator != "pathwise"
        check_arguments(c.jump.rate, f"jumps[{c.place}].rate", "t, y, args")
        score = self.estimator == "score"
        affect = _VariableRateJump(c.affect(), c.jump.rate, c.words, place, score)
        event = Event(_HazardAffect(place, fixed), affect, direction=1)
        event.fixed = fixed
        return event

    def tolerances(self, rtol: PyTree, atol: PyTree) -> tuple[PyTree, PyTree]:
        """Those of the state, and of the hazards (which are of size 1) the smallest rtol; so scaled
        that the mean square over all is that of the state and that of the hazards, in sum.
        """
        if not self.hazards:
            return rtol, atol
        n, k = self.size, self.hazards
        own, theirs = (n / (n + k)) ** 0.5, (k / (n + k)) ** 0.5
        rtol, atol = as_state(rtol), as_state(atol)
        own_state = dict.fromkeys(
            ("waits", "counts", "logs") if self._scores else ("waits", "counts")
        )
        scaled = lambda tol: jax.tree.map(lambda x: own * jnp.asarray(x), tol)  # noqa: E731
        both = {**own_state, "hazards": theirs * self.least}
        return {**both, "y": scaled(rtol)}, {**both, "y": scaled(atol)}

    @property
    def _scores(self) -> bool:
        return self.estimator == "score"

    def with_channels(self, records: tuple) -> tuple:
        """Returns the records of events, where those of several constant rates have the channel
        that jumped.
        """
        found = list(records)
        for c in self.channels:
            if not isinstance(c, ConstantChannels) or c.width is None:
                continue
            record = found[c.place]
            which = c.which[: self.most, None] == jnp.arange(c.width)
            found[c.place] = record._replace(fired=which & record.fired[:, None])
        return tuple(found)

    def weight(self, state: PyTree, records: tuple, t: Array) -> Array | None:
        """1, with the derivative of the logarithm of the density of these jumps."""
        if not self._scores:
            return None
        log = jnp.zeros((), jnp.finfo(t.dtype).dtype)
        if self.hazards:
            log = log + state["logs"] - jnp.sum(state["hazards"])
        for c in self.channels:
            if isinstance(c, ConstantChannels):
                fired = records[c.place].fired
                happened = jnp.sum(fired, axis=0).astype(t.dtype)
                rate = jnp.where(happened > 0, c.rate, 1)
                log = log + jnp.sum(happened * jnp.log(rate) - c.rate * (t - self.t0))
        return jnp.exp(log - lax.stop_gradient(log))


# --- rates ----------------------------------------------------------------------------------------


def _channels(
    problem: JumpProblem, j: int, y: PyTree, t0: Array, key: RandomKey, most: int
) -> Channels:
    """Returns jump j with its channels, and its times if its rate is constant."""
    jump, args = problem.jumps[j], problem.problem.args
    words = jnp.stack(threefry(key_words(key), jnp.uint32(j), jnp.uint32(_JUMPS)))
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    data = (jax.random.key_data(key), jax.random.key_impl(key)) if typed else (key, None)
    marks = MarkKey(*data, j)
    if rate_varies(jump.rate):
        width = _width(j, jax.eval_shape(jump.rate, t0, y, args))
        return Channels(jump, j, width, words, marks)
    value = evaluated(jump.rate, args)
    width = _width(j, value)
    rate = jnp.asarray(value, t0.dtype)
    rate = rate if problem.estimator else undifferentiable(_same, _REFUSED.format(j=j))(rate)
    moved = rate if problem.estimator == "pathwise" else lax.stop_gradient(rate)
    times, which = _arrival_times(words, jnp.atleast_1d(moved), t0, most + 1)
    return ConstantChannels(jump, j, width, words, marks, rate, times, which)


def _same(x: Array) -> Array:
    return x


def _width(j: int, rate: PyTree) -> int | None:
    leaves = jax.tree.leaves(rate)
    shape = jnp.shape(leaves[0]) if len(leaves) == 1 else (0, 0)
    real = len(leaves) == 1 and jnp.issubdtype(jnp.result_type(leaves[0]), jnp.number)
    if len(shape) > 1 or shape == (0,) or not real or jnp.iscomplexobj(leaves[0]):
        raise TypeError(
            f"jumps[{j}].rate is {described(rate)}; one real number is wanted, or a vector (k,) of "
            "them for k channels."
        )
    return shape[0] if shape else None


def _arrival_times(words: Array, rate: Array, t0: Array, most: int) -> tuple[Array, Array]:
    """The first arrivals at constant rates, in order, and whose they are. A rate that is none has
    all of them at t0.
    """
    number, channel = jnp.arange(most), jnp.arange(rate.size)
    number, channel = jnp.broadcast_arrays(number, channel[:, None])
    draws = exponentials(words, number, channel, rate.dtype)
    some = (rate > 0)[:, None]
    waited = jnp.cumsum(draws, axis=1) / jnp.where(some, rate[:, None], 1)
    times = jnp.where(some, t0 + waited, jnp.inf)
    times = jnp.where(jnp.all((rate >= 0) & (rate < jnp.inf)), times, t0)
    order = jnp.argsort(times.ravel(), stable=True)[:most]
    return times.ravel()[order], order // most


def _guarded(problem: JumpProblem) -> JumpProblem:
    """The problem, of which nothing that enters a rate that varies can be differentiated."""
    plain, y = problem.problem, released(initial_tree(problem.problem))
    args, tree = jax.tree.flatten(problem.args)
    t, jumps = jnp.zeros(()), list(problem.jumps)
    for j, jump in enumerate(jumps):
        if not rate_varies(jump.rate):
            continue
        sentence = _REFUSED.format(j=j)
        leaves, structure = flatten(jump.rate)
        called = partial(_rate_from_leaves, structure, tree)
        jaxpr = jax.make_jaxpr(called)(t, y, args, [jnp.asarray(x) for x in leaves])
        used = influences(jaxpr)
        count = len(jax.tree.leaves(y))
        if any(used[1 : 1 + count]):
            return _without_derivative(problem, sentence)
        enters = used[1 + count : 1 + count + len(args)]
        args = [
            _without_derivative(x, sentence) if u else x for x, u in zip(args, enters, strict=True)
        ]
        jumps[j] = jump.replaced(rate=_without_derivative(jump.rate, sentence))
    plain = plain.replace(args=jax.tree.unflatten(tree, args))
    return problem.replace(problem=plain, jumps=tuple(jumps))


def _rate_from_leaves(
    structure: Hashable, tree: Hashable, t: Array, y: PyTree, args: list, leaves: list
) -> PyTree:
    """The value of a rate, from its own leaves."""
    return unflatten(structure, leaves)(t, y, jax.tree.unflatten(tree, args))


def _without_derivative[T](x: T, sentence: str) -> T:
    """Anything, whose numbers cannot be differentiated."""
    leaves, structure = flatten(x)
    guard = undifferentiable(_same, sentence)
    inexact = lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)  # noqa: E731
    return unflatten(structure, [guard(leaf) if inexact(leaf) else leaf for leaf in leaves])


# --- the state, extended by hazards ---------------------------------------------------------------


def _extended_problem(
    plain: ODEProblem | SplitODEProblem | SDEProblem,
    tree: PyTree,
    channels: list,
    rates: "_Rates",
    *,
    score: bool,
) -> Problem:
    """The problem of the extended state {"y": the user's, "hazards": …}, with the leaves that are
    held.
    """
    count, dtype = sum(c.count for c in channels), rates.low.dtype
    waits = [
        exponentials(c.words, jnp.zeros(c.count, jnp.int32), jnp.arange(c.count), dtype)
        for c in channels
    ]
    state = {
        "y": tree,
        "hazards": jnp.zeros(count, dtype),
        "waits": hold(jnp.concatenate(waits)),
        "counts": hold(jnp.zeros(count, jnp.int32)),
    }
    state |= {"logs": hold(jnp.zeros((), dtype))} if score else {}
    held = tuple(Packing(tree).held)
    parts: dict[str, Callable] = {
        name: _Field(
            getattr(plain, name), name, rates if name == plain.explicit_function else None, held
        )
        for name in plain.functions
    }
    if plain.stochastic:
        noisy: Any = plain
        parts["diffusion"] = _Spread(noisy.diffusion, noisy.noise)
    return plain.replace(**parts, y0=state)


def _with_marks(y: PyTree, held: tuple) -> PyTree:
    if not any(held):
        return y
    leaves = zip(jax.tree.leaves(y), held, strict=True)
    return jax.tree.unflatten(jax.tree.structure(y), [Held(x) if h else x for x, h in leaves])


class _Rates:
    """All rates that vary. One that is negative by so little that it would have made less than rtol
    jumps in all the time is 0, for states are no more exact than that; one below is NaN.
    """

    def __init__(self, each: tuple[tuple[Callable, int], ...], low: Array) -> None:
        self.each, self.low = each, low

    def __call__(self, t: Array, y: PyTree, args: PyTree) -> Array:
        rates = [jnp.broadcast_to(rate(t, y, args), (count,)) for rate, count in self.each]
        rate = jnp.concatenate(rates).astype(self.low.dtype)
        return jnp.where(rate >= 0, rate, jnp.where(rate >= self.low, 0, jnp.nan))


class _Field:
    """The user's field, extended by the rates of hazards."""

    def __init__(self, f: Callable, name: str, rates: _Rates | None, held: tuple) -> None:
        self.f, self.name, self.rates, self.held = f, name, rates, held

    def __call__(self, t: Array, z: Extended, args: PyTree) -> Extended:
        y = z["y"]
        dy = as_rate(self.name, self.f(t, y, args), (_with_marks(y, self.held),))
        none = jnp.zeros_like(z["hazards"])
        return {"y": dy, "hazards": none if self.rates is None else self.rates(t, y, args)}


class _Spread:
    """The user's diffusion; hazards have none."""

    def __init__(self, diffusion: Callable, noise: str) -> None:
        self.diffusion, self.noise = diffusion, noise

    def __call__(self, t: Array, z: Extended, args: PyTree) -> Extended:
        g = as_state(self.diffusion(t, z["y"], args))
        more = jnp.shape(jax.tree.leaves(g)[0])[-1:] if self.noise == "general" else ()
        return {"y": g, "hazards": jnp.zeros((*z["hazards"].shape, *more), z["hazards"].dtype)}


# --- affects --------------------------------------------------------------------------------------


class _Jumping:
    """Applies a jump to the user's state; `n` is its number in its channel."""

    def __init__(self, jump: Jump, name: str, key: MarkKey, vector: bool) -> None:
        self.affect, self.mark, self.name, self.vector = jump.affect, jump.mark, name, vector
        self.data, self.kind, self.place = key

    def __call__(
        self, t: Array, y: PyTree, args: PyTree, fired: Bool[Array, " k"], n: Int[Array, ""]
    ) -> PyTree:
        extra = [fired] if self.vector else []
        if self.mark is not None:
            key = self.data
            key = key if self.kind is None else jax.random.wrap_key_data(key, impl=self.kind)
            for number in (_JUMPS + self.place, jnp.argmax(fired), n):
                key = jax.random.fold_in(key, number)
            extra.append(self.mark(key))
        return same_state(self.name, self.affect(t, y, args, *extra), (y,))


def _given(c: ConstantChannels, inside: bool) -> PresetTimes:
    """The jumps at constant rates, all times of which are known."""
    same = c.which[:, None] == jnp.arange(c.count)
    number = jnp.sum(jnp.where(same, jnp.cumsum(same, axis=0) - 1, 0), axis=1)
    sound = jnp.all((c.rate >= 0) & (c.rate < jnp.inf))
    rows = {"which": c.which, "number": number, "sound": jnp.broadcast_to(sound, number.shape)}
    event = PresetTimes(c.times, _ConstantRateJump(c.affect(), c.count, inside), data=rows)
    event.beyond = 1
    return event


class _ConstantRateJump:
    """A jump at a given time."""

    def __init__(self, jumping: _Jumping, count: int, inside: bool) -> None:
        self.jumping, self.count, self.inside = jumping, count, inside

    def __call__(self, t: Array, y: PyTree, args: PyTree, row: dict[str, Array]) -> PyTree:
        own = y["y"] if self.inside else y
        fired = row["which"] == jnp.arange(self.count)
        after = self.jumping(t, own, args, fired, row["number"])
        inexact = lambda x: jnp.issubdtype(jnp.result_type(x), jnp.inexact)  # noqa: E731
        lost = lambda x: jnp.where(row["sound"], x, jnp.nan) if inexact(x) else x  # noqa: E731
        after = jax.tree.map(lost, after)
        return {**y, "y": after} if self.inside else after


class _HazardAffect:
    """The condition of hazards: Λ − E, which crosses zero. If `fixed`, the time at which it does so
    has no derivative: all that moves is t itself, from where it is.
    """

    def __init__(self, place: HazardPlace, fixed: bool) -> None:
        self.place, self.fixed = place, fixed

    def __call__(self, t: Array, z: Extended, args: PyTree) -> Array:
        del args
        first, count, single = self.place
        ahead = (z["hazards"] - z["waits"])[first : first + count]
        if self.fixed:
            moved = (t - lax.stop_gradient(t)).astype(ahead.dtype)
            ahead = lax.stop_gradient(ahead) + moved
        return ahead[0] if single else ahead


class _VariableRateJump:
    """The affect of hazards: the jump, the next E, and the density of the path up to it."""

    def __init__(
        self,
        jumping: _Jumping,
        rate: Callable,
        words: UInt32[Array, "2"],
        place: HazardPlace,
        score: bool,
    ) -> None:
        self.jumping, self.rate, self.words = jumping, rate, words
        self.place, self.score = place, score

    def __call__(self, t: Array, z: Extended, args: PyTree, *flags: Bool[Array, "..."]) -> Extended:
        first, count, _ = self.place
        here = slice(first, first + count)
        fired = jnp.reshape(flags[0], (count,)) if flags else jnp.ones(1, bool)
        counts, hazards, waits = (z[name][here] for name in ("counts", "hazards", "waits"))
        after = dict(z)
        if self.score:
            rate = jnp.broadcast_to(self.rate(t, z["y"], args), (count,))
            past = jnp.log(jnp.where(fired, rate, 1)) - jnp.where(fired, hazards, 0)
            after["logs"] = z["logs"] + jnp.sum(past).astype(z["logs"].dtype)
        n = jnp.sum(jnp.where(fired, counts, 0))
        after["y"] = self.jumping(t, z["y"], args, fired, n)
        counts = counts + fired.astype(counts.dtype)
        drawn = exponentials(self.words, counts, jnp.arange(count), waits.dtype)
        new = {
            "counts": counts,
            "hazards": jnp.where(fired, 0, hazards),
            "waits": jnp.where(fired, drawn, waits),
        }
        return {**after, **{name: z[name].at[here].set(x) for name, x in new.items()}}


def _on_user_state(event: AbstractEvent, place: int, inside: bool) -> AbstractEvent:
    """An event of the user's, which sees the user's state alone."""
    leaves, structure = jax.tree.flatten(event)
    event = jax.tree.unflatten(structure, leaves)
    event.label = f"events[{place}]"
    if not inside:
        return event
    for name, kind in (("condition", _ConditionView), ("affect", _StateView)):
        f = getattr(event, name, None)
        if f is not None:
            setattr(event, name, kind(f, f"{event.label}.{name}"))
    return event


class _ConditionView:
    """A condition on the user's state."""

    def __init__(self, condition: Callable, name: str) -> None:
        self.condition, self.name = condition, name

    def __call__(self, t: Array, z: Extended, args: PyTree) -> PyTree:
        return self.condition(t, z["y"], args)


class _StateView:
    """An affect of the user's state."""

    def __init__(self, affect: Callable, name: str) -> None:
        self.affect, self.name = affect, name

    def __call__(self, t: Array, z: Extended, args: PyTree, *extra: PyTree) -> Extended:
        y = z["y"]
        return {**z, "y": same_state(self.name, self.affect(t, y, args, *extra), (y,))}
