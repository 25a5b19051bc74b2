"""Normal numbers by counter: the i-th draw of a key is a function of (key, i), and of nothing else.

Nothing is carried from draw to draw, so a path can be looked up anywhere and in any order: a step
that is rejected, a window that is run again and a time that is asked for afterwards all see the
same numbers. The bits are those of Threefry-2x32 in 20 rounds (the block function of JAX's own
keys), written as straight code: JAX's is a loop of its own on a CPU, which inside a loop costs ten
times as much, and can not be fused with what uses it. The normal is the inverse of its distribution
function by the polynomials of Giles, which have no table, no rejection and no second branch to
wait for.

Reference: salmon2011, giles2012.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer, Key, UInt32

__all__ = ["RandomKey", "Words", "exponentials", "key_words", "normals", "threefry"]

type RandomKey = Key[Array, ""] | UInt32[Array, " words"]
"""A key of JAX, typed or as its words."""

type Words = UInt32[Array, "2"]
"""The key of all draws, by `key_words`."""

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA

# erf⁻¹(x) = x · p(w), w = −log(1 − x²): for w < 5 in powers of w − 2.5, as Giles prints it; beyond,
# up to the smallest probability of 31 bits, in powers of √w − 3.4, fitted here (to 6e-7).
_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 2.1858087e-04,
    -1.25372503e-03, -4.17768164e-03, 2.46640727e-01, 1.50140941,
)  # fmt: skip
_TAIL = (
    -1.81971542e-04, 6.8033296e-04, -1.1186224e-03, 1.48404847e-03, -2.52516062e-03,
    3.97031765e-03, 1.0066411, 3.23478383,
)  # fmt: skip


def key_words(key: RandomKey) -> Words:
    """Two words of a JAX key, of whatever kind: the key of all draws. They differ from those that
    JAX itself draws from that key.

    >>> key_words(jax.random.key(0)).shape
    (2,)
    """
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    words = jax.random.key_data(key) if typed else key
    found = jnp.asarray([0x64696666, 0x6571], jnp.uint32)
    for first, second in zip(words[::2], words[1::2], strict=True):
        found = jnp.stack(threefry(found, first, second))
    return found


def threefry(words: Words, first: Array, second: Array) -> tuple[Array, Array]:
    """The block (first, second) enciphered: two words of 32 random bits each.

    >>> [hex(int(x)) for x in threefry(jnp.zeros(2, jnp.uint32), jnp.uint32(0), jnp.uint32(0))]
    ['0x6b200159', '0x99ba4efe']
    """
    schedule = (words[0], words[1], words[0] ^ words[1] ^ jnp.uint32(_PARITY))
    a, b = first + schedule[0], second + schedule[1]
    for i in range(20):
        r = _ROTATIONS[i % 8]
        a = a + b
        b = ((b << jnp.uint32(r)) | (b >> jnp.uint32(32 - r))) ^ a
        if i % 4 == 3:
            turn = i // 4 + 1
            a = a + schedule[turn % 3]
            b = b + (schedule[(turn + 1) % 3] + jnp.uint32(turn))
    return a, b


def normals(
    words: Words, index: Integer[Array, ""], shape: tuple[int, ...], dtype: DTypeLike
) -> Float[Array, "..."]:
    """Independent standard normal numbers of a shape, number `index` of this key's.

    A normal has 32 random bits (it lies within ±6.34) and the relative error of single precision,
    in double precision too: 3e-7 of a number that is random changes no statistic of fewer than
    10¹² samples.

    >>> draw = normals(key_words(jax.random.key(0)), jnp.int32(7), (3,), jnp.float32)
    >>> draw.shape, draw.dtype
    ((3,), dtype('float32'))
    """
    place = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    bits, _ = threefry(words, index.astype(jnp.uint32), place)
    # Behind a barrier they are drawn once. XLA would draw them again for each of their uses.
    return lax.optimization_barrier(_normal(bits).astype(dtype))


def exponentials(
    words: Words, index: Integer[Array, "..."], place: Integer[Array, "..."] | int, dtype: DTypeLike
) -> Float[Array, "..."]:
    """Independent exponential numbers of mean 1, number `index` at `place` of this key's: −log of
    a probability of 64 random bits (32 in single precision). None is 0.

    >>> draw = exponentials(key_words(jax.random.key(0)), jnp.arange(3), 0, jnp.float32)
    >>> draw.shape, bool((draw > 0).all())
    ((3,), True)
    """
    index = index.astype(jnp.uint32)
    high, low = threefry(words, index, jnp.broadcast_to(jnp.uint32(place), index.shape))
    rest = low.astype(dtype) * 2.0**-32 if jnp.dtype(dtype) == jnp.float64 else 0.5
    part = (high.astype(dtype) + rest) * 2.0**-32
    least = float(jnp.finfo(dtype).eps) / 4
    return jnp.maximum(-jnp.log(jnp.maximum(part, 2.0**-64)), least)


def _normal(bits: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """One bit is the sign; the other 31 are the probability t of a number that is larger.

    t is taken from the integer, so that it is exact where it is small, and the tail is right.
    """
    t = ((bits >> jnp.uint32(1)).astype(jnp.int32).astype(jnp.float32) + 0.5) * 2.0**-31
    w = -jnp.log(t * (2 - t))
    size = jnp.where(w < 5, _horner(_CENTRE, w - 2.5), _horner(_TAIL, jnp.sqrt(w) - 3.4))
    size = jnp.float32(math.sqrt(2)) * (1 - t) * size
    return jnp.where((bits & jnp.uint32(1)) == 1, -size, size)


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    value = jnp.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        value = value * x + c
    return value
