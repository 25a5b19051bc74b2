"""Rules of random keys. The entry of an array of keys is the tuple of its words."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, UInt32

from ...brownian.counter_rng import threefry
from .context import LaneContext, Rule
from .operands import all_entries, entry_of
from .scalar_values import KeyWords, index_array, objects

__all__ = ["KEYS", "entries_of", "wrapped"]

type Words = UInt32[Array, "..."]


@runtime_checkable
class KeyImplementation(Protocol):
    """JAX's generator of random numbers: functions of the words of keys."""

    key_shape: tuple[int, ...]

    def seed(self, seed: Array) -> Words:
        """The words of the key of a number."""
        ...

    def split(self, words: Words, shape: Sequence[int]) -> Words:
        """The words of an array of new keys."""
        ...

    def random_bits(self, words: Words, bit_width: int, shape: Sequence[int]) -> Array:
        """Random integers of so many bits."""
        ...

    def fold_in(self, words: Words, data: Array) -> Words:
        """The words of the key for a number."""
        ...


def entries_of(keys: Key[Array, "..."]) -> np.ndarray:
    """An array of keys whose words are known."""
    with jax.ensure_compile_time_eval():
        return wrapped(np.asarray(jax.random.key_data(keys)), keys.shape)


def wrapped(words: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Keys of words, which are the last axis."""
    out, words = np.empty(shape, object), objects(words)
    for i in np.ndindex(shape):
        out[i] = KeyWords(words[i].flat)
    return out


def _word_array(keys: np.ndarray) -> np.ndarray:
    out = np.empty((*keys.shape, len(next(iter(keys.flat)))), object)
    for i in np.ndindex(keys.shape):
        for k, word in enumerate(keys[i]):
            out[(*i, k)] = word
    return out


def _of_each(
    context: LaneContext, function: Callable, shape: tuple[int, ...], *xs: np.ndarray
) -> np.ndarray:
    """Evaluates a function of the words of one key, which returns an array of this shape, for each
    key; further arguments are arrays of the shape of the keys.
    """
    keys, *others = xs
    out = np.empty((*keys.shape, *shape), object)
    for i in np.ndindex(keys.shape):
        own = [index_array(x, i) for x in others]
        found = context.traced(function, [_word_array(index_array(keys, i)), *own])[0]
        out[(*i, ...)] = objects(all_entries(found))
    return out


def _wrap(context: LaneContext, words: np.ndarray, *, impl: KeyImplementation) -> list[np.ndarray]:
    del context
    return [wrapped(words, words.shape[: words.ndim - len(impl.key_shape)])]


def _unwrap(context: LaneContext, keys: np.ndarray, *, impl: KeyImplementation) -> list[np.ndarray]:
    del context, impl
    return [_word_array(keys)]


def _bits(
    context: LaneContext,
    keys: np.ndarray,
    *,
    bit_width: int,
    shape: Sequence[int],
    impl: KeyImplementation,
) -> list[np.ndarray]:
    draw = lambda words: impl.random_bits(words, bit_width, shape)  # noqa: E731
    return [_of_each(context, draw, tuple(shape), keys)]


def _fold_in(
    context: LaneContext, keys: np.ndarray, data: np.ndarray, *, impl: KeyImplementation
) -> list[np.ndarray]:
    return [wrapped(_of_each(context, impl.fold_in, impl.key_shape, keys, data), keys.shape)]


def _random_split(
    context: LaneContext, keys: np.ndarray, *, shape: Sequence[int], impl: KeyImplementation
) -> list[np.ndarray]:
    parts = lambda words: impl.split(words, shape)  # noqa: E731
    found = _of_each(context, parts, (*shape, *impl.key_shape), keys)
    return [wrapped(found, (*keys.shape, *shape))]


def _random_seed(
    context: LaneContext, seeds: np.ndarray, *, impl: KeyImplementation
) -> list[np.ndarray]:
    out = np.empty(seeds.shape, object)
    for i in np.ndindex(seeds.shape):
        found = context.traced(impl.seed, [index_array(seeds, i)])[0]
        out[i] = KeyWords(objects(all_entries(found)).flat)
    return [out]


def _cipher(context: LaneContext, *xs: np.ndarray, impl: None) -> list[np.ndarray]:
    """JAX's cipher as straight code (`brownian/counter_rng.py`), for each pair of words."""
    del impl
    block = lambda a, b, x, y: threefry(jnp.stack([a, b]), x, y)  # noqa: E731
    xs = np.broadcast_arrays(*xs)
    out = [np.empty(xs[0].shape, object) for _ in range(2)]
    for i in np.ndindex(xs[0].shape):
        found = context.traced(block, [index_array(x, i) for x in xs])
        for y, z in zip(out, found, strict=True):
            y[i] = entry_of(z)
    return out


KEYS: dict[str, Rule] = {
    "random_wrap": _wrap,
    "random_unwrap": _unwrap,
    "random_bits": _bits,
    "random_fold_in": _fold_in,
    "random_split": _random_split,
    "random_seed": _random_seed,
    "threefry2x32": _cipher,
}
