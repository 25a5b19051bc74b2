"""A network that is evaluated at one sample, and the error message where it is given a batch."""

import inspect
from collections.abc import Callable, Iterator

import jax
from jaxtyping import PyTree

__all__ = ["check_instance", "for_one_sample"]

_WIDEST = 64  # vectors up to here are tried, to name the one that a network takes


def check_instance(name: str, x: PyTree) -> None:
    """Refuses a class, whose call makes an instance and evaluates none.

    >>> check_instance("net", dict)
    Traceback (most recent call last):
    TypeError: net is the class dict; an instance is wanted: dict(…).
    """
    if inspect.isclass(x):
        raise TypeError(
            f"{name} is the class {x.__name__}; an instance is wanted: {x.__name__}(…)."
        )


def for_one_sample(call: Callable, layer: str) -> Callable:
    """A network, `call(y)`, or a field, `call(t, y, …, args)`, whose error about shapes says that
    a layer solves for one sample, and what shape the network takes.
    """

    def called(*z: PyTree) -> PyTree:
        try:
            return call(*z)
        except (TypeError, ValueError) as error:
            hint = _shape_hint(call, z, layer)
            if hint is None:
                raise
            raise TypeError(f"{hint} ({error})") from error

    return called


def _shape_hint(call: Callable, z: tuple, layer: str) -> str | None:
    """A hint at the shape that the network takes; None if no likely shape works."""
    place = 0 if len(z) == 1 else 1
    y = z[place]
    if not hasattr(y, "shape"):
        return None
    for shape in _likely(y.shape):
        tried = jax.ShapeDtypeStruct(shape, y.dtype)
        try:
            jax.eval_shape(lambda y: call(*z[:place], y, *z[place + 1 :]), tried)
        except Exception:  # whatever it is: of this shape nothing can be said
            continue
        text = f"the network of this {layer} was given an array of shape {y.shape}, and takes one "
        text += f"of shape {shape}. "
        if shape == y.shape[1:]:
            return text + (
                "A layer solves for one sample; a batch is jax.vmap(layer)(y0), or in a model "
                "jax.vmap(lambda y0: layer(y0).ys)(y0)."
            )
        return text + "A layer solves for one sample, whose numbers are what its network takes."
    return None


def _likely(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Shapes that may have been meant: one row of a batch, and vectors."""
    if shape:
        yield shape[1:]
    yield from ((n,) for n in range(1, _WIDEST + 1) if (n,) != shape)
