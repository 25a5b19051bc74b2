"""Rules of random keys. The entry of an array of keys is the tuple of its words."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...brownian.counter_rng import threefry
from .scalar_values import KeyWords, entry_array, objects

__all__ = ["KEYS", "entries_of", "wrapped"]


def entries_of(keys: Any) -> np.ndarray:
    """An array of keys whose words are known."""
    with jax.ensure_compile_time_eval():
        return wrapped(np.asarray(jax.random.key_data(keys)), keys.shape)


def wrapped(words: np.ndarray, shape: tuple) -> np.ndarray:
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


def _of_each(context: Any, function: Callable, shape: tuple, *xs: np.ndarray) -> np.ndarray:
    """Evaluates a function of the words of one key, which returns an array of this shape, for each
    key; further arguments are arrays of the shape of the keys.
    """
    keys, *others = xs
    out = np.empty((*keys.shape, *shape), object)
    for i in np.ndindex(keys.shape):
        own = [entry_array(objects(x)[i]) for x in others]
        out[(*i, ...)] = objects(
            context.traced(function, [_word_array(entry_array(keys[i])), *own])[0]
        )
    return out


def _wrap(context: Any, words: np.ndarray, *, impl: Any) -> list:
    del context
    return [wrapped(words, words.shape[: words.ndim - len(impl.key_shape)])]


def _unwrap(context: Any, keys: np.ndarray, *, impl: Any) -> list:
    del context, impl
    return [_word_array(keys)]


def _bits(context: Any, keys: np.ndarray, *, bit_width: int, shape: Any, impl: Any) -> list:
    draw = lambda words: impl.random_bits(words, bit_width, shape)  # noqa: E731
    return [_of_each(context, draw, tuple(shape), keys)]


def _fold_in(context: Any, keys: np.ndarray, data: np.ndarray, *, impl: Any) -> list:
    return [wrapped(_of_each(context, impl.fold_in, impl.key_shape, keys, data), keys.shape)]


def _random_split(context: Any, keys: np.ndarray, *, shape: Any, impl: Any) -> list:
    parts = lambda words: impl.split(words, shape)  # noqa: E731
    found = _of_each(context, parts, (*shape, *impl.key_shape), keys)
    return [wrapped(found, (*keys.shape, *shape))]


def _random_seed(context: Any, seeds: np.ndarray, *, impl: Any) -> list:
    out = np.empty(seeds.shape, object)
    for i in np.ndindex(seeds.shape):
        found = context.traced(impl.seed, [entry_array(objects(seeds)[i])])[0]
        out[i] = KeyWords(objects(found).flat)
    return [out]


def _cipher(context: Any, *xs: np.ndarray, impl: Any) -> list:
    """JAX's cipher as straight code (`brownian/counter_rng.py`), for each pair of words."""
    del impl
    block = lambda a, b, x, y: threefry(jnp.stack([a, b]), x, y)  # noqa: E731
    xs = tuple(map(objects, np.broadcast_arrays(*map(objects, xs))))
    out = [np.empty(xs[0].shape, object) for _ in range(2)]
    for i in np.ndindex(xs[0].shape):
        found = context.traced(block, [entry_array(x[i]) for x in xs])
        for y, z in zip(out, found, strict=True):
            y[i] = objects(z)[()]
    return out


KEYS: dict[str, Callable] = {
    "random_wrap": _wrap,
    "random_unwrap": _unwrap,
    "random_bits": _bits,
    "random_fold_in": _fold_in,
    "random_split": _random_split,
    "random_seed": _random_seed,
    "threefry2x32": _cipher,
}
