"""The inputs of a loss at each step besides the model: a batch, a key."""

import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ..autodiff.jax_internals import is_key
from ..validation import check_no_torch
from ..validation.values import shown

__all__ = ["Draws", "StepInputs", "check_loss", "data_arrays", "parameters_of"]

_NUMBERS = (bool, int, float, complex)
_COLLECT = (
    " What is iterated (a loader, a generator) is collected first, and fit draws the batches: "
    "data=jax.tree.map(lambda *x: np.concatenate(x), *loader), batch_size=64."
)


class StepInputs(NamedTuple):
    """The inputs of one step: arrays, and None for what there is not."""

    data: PyTree
    rows: Int[Array, " batch"] | None  # the samples of the batch
    key: Any
    step: ArrayLike

    def batch(self) -> PyTree:
        """The data of this step."""
        if self.rows is None:
            return self.data
        return jax.tree.map(lambda x: x[self.rows], self.data)

    def step_key(self) -> Array:
        """The key of this step."""
        return jax.random.fold_in(self.key, self.step)


class Draws:
    """The draws of all steps.

    Attributes:
        noisy: whether the loss differs from step to step.
    """

    def __init__(self, data: PyTree, batch_size: Any, key: Any, *, keyed: bool) -> None:
        self.data = None if data is None else data_arrays(data)
        self.key = None if key is None else _checked_key(key)
        self.keyed = keyed
        self.size, self.count = batch_size, 0
        if batch_size is not None and data is None:
            raise ValueError(
                f"batch_size is {shown(batch_size)}, and there are no data to draw from; batch_size"
                " needs data=."
            )
        if batch_size is not None:
            self.count = _samples(self.data)
            _check_batch_size(batch_size, self.count)
        elif key is not None and not keyed:
            raise TypeError(
                "key was given, but there are no batches to draw, and the loss has no parameter "
                "called key: leave key out, or write loss(model, …, key)."
            )
        self.noisy = keyed or (batch_size is not None and batch_size < self.count)

    def __iter__(self) -> Iterator[StepInputs]:
        return self.after(0)

    def after(self, steps: int) -> Iterator[StepInputs]:
        """The draws of the steps after so many."""
        key = self.key if self.keyed else None
        shuffle = jax.random.key(0) if self.key is None else self.key
        first, skipped = divmod(steps, 1 if self.size is None else self.count // self.size)
        for epoch in itertools.count(first):
            for rows in self._epoch(shuffle, epoch)[skipped:]:
                yield StepInputs(self.data, rows, key, np.int32(steps))
                steps += 1
            skipped = 0

    def _epoch(self, key: PRNGKeyArray, epoch: int) -> Array | list:
        if self.size is None:
            return [None]
        batches = self.count // self.size
        order = jax.random.permutation(jax.random.fold_in(key, epoch), self.count)
        return order[: batches * self.size].reshape(batches, self.size)


def check_loss(loss: Any, *, data: bool, key: bool) -> bool:
    """True if the loss is given a key: it is, if it has a parameter of that name.

    Raises:
        TypeError: a loss that cannot be called.
    """
    given = ["model", *["batch"] * data]
    if not callable(loss):
        raise TypeError(f"loss is {shown(loss)}; a function loss({', '.join(given)}) is wanted.")
    keyed = key and "key" in parameters_of(loss)
    try:
        inspect.signature(loss).bind(*given, **({"key": None} if keyed else {}))
    except TypeError as error:
        wanted = ", ".join([*given, *["key"] * keyed])
        raise TypeError(
            f"loss must take ({wanted}): {error}.{_signature_hint(loss, given, key)}"
        ) from error
    except ValueError:  # it has no signature to ask
        pass
    return keyed


def parameters_of(function: Callable) -> tuple[str, ...]:
    """The names of the parameters of a function, with "**" where it takes any; none where it does
    not say.
    """
    try:
        found = inspect.signature(function).parameters.values()
        return tuple("**" if p.kind is p.VAR_KEYWORD else p.name for p in found)
    except (TypeError, ValueError):
        return ()


def _signature_hint(loss: Callable, given: list[str], key: bool) -> str:
    """Returns a hint at the likely mistake in the signature of a loss; "" if there is none."""
    names = parameters_of(loss)
    if "key" in names and not key:
        return " Its key is the argument key= of fit."
    if key and len(names) > len(given):
        return (
            f" A random key goes to a parameter called key, and to no other: {names[-1]} is none."
        )
    if len(given) == 1 and len(names) == 2:
        return f" Its {names[1]} is the argument data= of fit."
    return ""


# --- checks --------------------------------------------------------------------------------------


def data_arrays(data: PyTree) -> PyTree:
    """The data as a tree of arrays."""
    check_no_torch("data", data)
    whole = lambda x: hasattr(x, "__next__") or _is_list_of_numbers(x)  # noqa: E731
    for path, leaf in jax.tree.leaves_with_path(data, is_leaf=whole):
        if _is_list_of_numbers(leaf):
            raise TypeError(
                f"data{jax.tree_util.keystr(path)} is a list of {len(leaf)} numbers, of which each "
                "would be data of its own; an array is wanted: np.asarray(…)."
            )
        if hasattr(leaf, "shape") or isinstance(leaf, _NUMBERS):
            continue
        name = f"data{jax.tree_util.keystr(path)}"
        way = "" if isinstance(leaf, str) or not hasattr(leaf, "__iter__") else _COLLECT
        raise TypeError(f"{name} is {shown(leaf)}; a tree of arrays is wanted.{way}")
    return jax.tree.map(jnp.asarray, data)


def _is_list_of_numbers(x: PyTree) -> bool:
    return type(x) is list and len(x) > 0 and all(isinstance(y, _NUMBERS) for y in x)


def _samples(data: PyTree) -> int:
    """The number of samples in the data."""
    sizes = sorted({jnp.shape(x)[:1] for x in jax.tree.leaves(data)})
    if len(sizes) != 1 or sizes[0] == ():
        raise ValueError(
            f"batch_size needs data whose arrays have one first axis; theirs are {sizes}."
        )
    return sizes[0][0]


def _check_batch_size(size: Any, count: int) -> None:
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
        raise TypeError(f"batch_size is {shown(size)}; a whole number of samples is wanted.")
    if not 1 <= size <= count:
        raise ValueError(f"batch_size is {size}; there are {count} samples.")


def _checked_key(key: Any) -> Array:
    typed = is_key(key) and key.shape == ()
    raw = getattr(key, "dtype", None) == jnp.uint32 and jnp.ndim(key) == 1
    if typed or (raw and key.shape == jnp.shape(jax.random.key_data(jax.random.key(0)))):
        return key
    seed = f"jax.random.key({key})" if isinstance(key, int) else "jax.random.key(0)"
    raise TypeError(f"key is {shown(key)}; one random key is wanted, such as {seed}.")
