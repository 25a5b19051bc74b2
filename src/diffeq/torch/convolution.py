"""Convolution as a product of matrices.

Inside a loop XLA runs a convolution on a CPU without its fast library: the derivative of one of 32
channels takes six times as long as this product, which is as fast there as anywhere.
"""

import math
from collections.abc import Sequence
from itertools import product

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["convolution"]


def convolution(  # noqa: PLR0917 - the signature of torch
    x: Float[Array, "batch channels *space"],
    weight: Float[Array, "first second *kernel"],
    bias: Float[Array, " bias"] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Array:
    """`aten::convolution`: the kernel's shifts of x beside each other, times the weights.

    y[b, o, s] = Σ_{c, k} weight[o, c, k] x[b, c, s·stride + k·dilation − padding] + bias[o]
    """
    if transposed:
        x, weight = _upsampled(x, weight, stride, padding, dilation, output_padding, groups)
        stride, padding = [1] * len(stride), [0] * len(padding)
    rank, out, batch = x.ndim - 2, weight.shape[0], x.shape[0]
    # With channels first the patches of the whole batch are the columns of one matrix.
    padded = jnp.pad(jnp.swapaxes(x, 0, 1), [(0, 0), (0, 0), *((p, p) for p in padding)])
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    space = [(n - r - 1) // s + 1 for n, r, s in zip(padded.shape[2:], reach, stride, strict=True)]
    shifted = []
    for place in product(*map(range, weight.shape[2:])):
        first = [k * d for k, d in zip(place, dilation, strict=True)]
        last = [f + s * (n - 1) + 1 for f, s, n in zip(first, stride, space, strict=True)]
        lead = padded.shape[:2]
        shifted.append(jax.lax.slice(padded, [0, 0, *first], [*lead, *last], [1, 1, *stride]))
    patches = jnp.stack(shifted, axis=1).reshape(groups, -1, batch * math.prod(space))
    matrices = weight.reshape(groups, out // groups, -1)
    y = jnp.swapaxes((matrices @ patches).reshape(out, batch, *space), 0, 1)
    return y if bias is None else y + bias.reshape(out, *[1] * rank)


def _upsampled(
    x: Array,
    weight: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
) -> tuple[Array, Array]:
    """The operands of the convolution that a transposed one is: zeros between the samples, and the
    kernel turned around.
    """
    rank = x.ndim - 2
    edges = []
    for axis in range(rank):
        around = dilation[axis] * (weight.shape[2 + axis] - 1) - padding[axis]
        edges.append((around, around + output_padding[axis], stride[axis] - 1))
    spread = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *edges])
    inner = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    turned = jnp.flip(jnp.swapaxes(inner, 1, 2), axis=range(3, 3 + rank))
    return spread, turned.reshape(-1, *turned.shape[2:])
