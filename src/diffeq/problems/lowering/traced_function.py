"""`Traced`: a user's function, traced once, and the checks of what it returns."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree

from ...autodiff.component_dependence import own_components
from ...autodiff.jax_internals import (
    Jaxpr,
    constants_of,
    count_equations,
    evaluate,
    influences,
    input_types,
    shape_of,
    with_constants,
)
from ...autodiff.loop_invariant import split_invariant
from ...autodiff.network_layers import is_network
from ...closures import check_indices, no_writes, unflatten
from ...core.packing import as_state, moving_leaves, released, without_held
from ...core.promotion import user_promotion
from ...core.user_functions import annotate_errors, check_numbers, described, paired_leaves
from ..history import HistoryView
from .time_interval import flip_time

__all__ = ["Traced", "as_rate", "checked"]

# A field of more equations is evaluated in a loop over the stages. Measured: 4 reactions written
# out (65 equations) and networks of 4 layers run faster as straight code, by a half; 12 reactions
# and 8 layers compile in half the time in a loop. A matrix product is worth several equations: its
# derivative is two more of them. One small network (2-50-2, 2-16-16-2) compiles in two thirds of
# the time in a loop, and its gradient runs as fast or a tenth slower; of a batch of them it
# compiles in as long, and is slower by a tenth to a half. A batch may come later, by `vmap`.
_FEW = 80
_WORTH = {"dot_general": 8, "conv_general_dilated": 8}


class Traced:
    """A user's function of (t, *parts, args, *extra), traced once: in a step it is used many times,
    and in its derivatives many times more, at the price of one Python call.

    What it closes over is `hoisted`, an input like any other. `fits(name, value, parts)` returns
    the value, if it is one that the function may return.
    """

    def __init__(
        self,
        f: Callable,
        name: str,
        arguments: str,
        t: jax.ShapeDtypeStruct,
        parts: tuple,
        leaves: list,
        structure: Hashable,
        *,
        extra: tuple = (),
        fits: Callable | None = None,
    ) -> None:
        fits = as_rate if fits is None else fits
        self.name = name
        self.count = [len(jax.tree.leaves(p)) for p in parts]
        arrays = [jax.tree.map(lambda x: shape_of(jnp.asarray(x)), released(p)) for p in parts]

        marked = parts

        def call(t: Array, parts: tuple, leaves: list, extra: tuple) -> PyTree:
            args = unflatten(structure, leaves)
            given = (t, *parts, args)
            with no_writes(name, f, args), annotate_errors(name, arguments, *given):
                with user_promotion():
                    value = f(t, *parts, args, *extra)
                return fits(name, value, marked)

        shaped = jax.make_jaxpr(call, return_shape=True)
        self.equations, shape = shaped(t, tuple(arrays), leaves, extra)
        # A past is longer in a solve than here, and may be looked at within a loop of the user's.
        looks = any(isinstance(p, HistoryView) for p in parts)
        if looks:  # any other was a program before, and looked at then
            check_indices(name, self.equations, [])
        inputs = jax.tree.structure((t, tuple(arrays), leaves, extra))
        self.again = partial(_traced_again, call, inputs, {}) if looks else None
        self.tree = jax.tree.structure(shape)
        self.shapes = [x.shape for x in jax.tree.leaves(shape)]
        self.is_network = partial(self._is_network, self.equations, len(leaves))
        self.hoisted = constants_of(self.equations)
        self._hoist(sum(self.count) + 1, leaves)

    def _is_network(self, equations: Jaxpr, parameters: int) -> bool:
        """True if it is a neural network of the state, whose weights are in args or closed over:
        read when it is asked, from the equations before any of them is hoisted.
        """
        count, state = len(input_types(equations)), 1 + sum(self.count)
        inputs = [1 <= i < state for i in range(count)]
        given = [state <= i < state + parameters for i in range(count)]
        return is_network(equations, inputs, given)

    def _hoist(self, first: int, leaves: list) -> None:
        """Computes now what depends on parameters alone: those are the inputs from the `first`."""
        count = len(input_types(self.equations))
        fixed = [first <= i < first + len(leaves) for i in range(count)]
        found = None if self.again is not None else split_invariant(self.equations, fixed)
        if found is not None:
            before, rest = found
            self.hoisted += evaluate(before, [*self.hoisted, *leaves])
            self.equations = with_constants(rest, self.hoisted)

    def bind(self, leaves: list, hoisted: list, sign: Array | int) -> Callable:
        """The function of (τ, *parts) with its parameters in place."""

        def bound(tau: Array, *parts: PyTree) -> PyTree:
            value = self.at(leaves, hoisted, flip_time(sign, tau), *parts)
            return jax.tree.map(lambda x: flip_time(sign, x), value)

        bound.uses = self.uses  # pyright: ignore[reportFunctionMemberAccess]
        bound.pointwise = self.pointwise  # pyright: ignore[reportFunctionMemberAccess]
        bound.parts = self.parts  # pyright: ignore[reportFunctionMemberAccess]
        bound.shapes = self.shapes  # pyright: ignore[reportFunctionMemberAccess]
        return bound

    def at(
        self, leaves: list, hoisted: list, t: Array, *parts: PyTree, extra: tuple = ()
    ) -> PyTree:
        """The value at the problem's own time t, as it was returned."""
        # Barriers around it, or XLA puts a stage together with what makes its state, and computes
        # it again in each of the places that use it: a gradient is compiled in two thirds of the
        # time, and runs in as much (of 20 reactions, in a fifth of the time and a quarter).
        t, parts = _apart((t, parts))
        flat = [t, *jax.tree.leaves(parts), *leaves, *jax.tree.leaves(extra)]
        wanted = input_types(self.equations)
        flat = [jnp.asarray(x, a.dtype) for x, a in zip(flat, wanted, strict=True)]
        equations = self.equations if self.again is None else self.again(flat)
        out = evaluate(with_constants(equations, hoisted), flat)
        return jax.tree.unflatten(self.tree, _apart(out))

    @property
    def large(self) -> bool:
        """True if it has so many equations that steps evaluate it in a loop over their stages."""
        return count_equations(self.equations, _WORTH) > _FEW

    @property
    def parts(self) -> int:
        """The number of parts of the state, and of its other inputs, that it is called with."""
        return len(self.count)

    def uses(self, part: int) -> bool:
        """True if the value depends on this part of the state."""
        start = 1 + sum(self.count[:part])
        return any(influences(self.equations)[start : start + self.count[part]])

    def pointwise(self, part: int, held: Sequence[bool] = ()) -> bool:
        """True if each component of the value depends on its own of this part alone, leaves of it
        that are `held` aside.
        """
        start = 1 + sum(self.count[:part])
        own = {start + i for i in range(self.count[part]) if not (held and held[i])}
        count = len(input_types(self.equations))
        return own_components(self.equations, [i in own for i in range(count)])


def _traced_again(call: Callable, inputs: PyTree, known: dict, flat: list) -> Any:
    """A function that was traced before, for arrays of other lengths."""
    lengths = tuple(x.shape for x in flat)
    if lengths not in known:
        shapes = [shape_of(x) for x in flat]
        known[lengths] = jax.make_jaxpr(call)(*jax.tree.unflatten(inputs, shapes))
    return known[lengths]


def as_rate(name: str, value: PyTree, parts: tuple, must: str = "dy/dt must match it") -> PyTree:
    """Returns the value of a field, if it fits the state; leaves that are held have none."""
    like = moving_leaves(parts[0])
    holds = jax.tree.structure(like) != jax.tree.structure(released(parts[0]))
    return checked(name, without_held(value, parts[0]) if holds else as_state(value), like, must)


def checked(name: str, value: PyTree, like: PyTree, must: str = "dy/dt must match it") -> PyTree:
    """Returns the value of a field, if it fits the state; a list of scalars stands for a vector."""
    check_numbers(name, value)
    if jax.tree.structure(value) != jax.tree.structure(like):
        raise TypeError(f"{name} returned {described(value)}; y is {described(like)}, and {must}.")
    for where, dy, y in paired_leaves(value, like):
        if jnp.shape(dy) != jnp.shape(y):
            raise TypeError(
                f"{name} returned shape {jnp.shape(dy)}{where}; y has shape {jnp.shape(y)}, and "
                f"{must}."
            )
        got, state = jnp.result_type(dy), jnp.result_type(y)
        if jnp.promote_types(got, state) != state:
            tree = not jax.tree_util.all_leaves([value])
            cast = (
                f"jax.tree.map(lambda x: x.astype('{state}'), dy)" if tree else "dy.astype(y.dtype)"
            )
            raise TypeError(
                f"{name} returned dtype {got}{where}, wider than the state's {state}: give y0 as "
                f"{got}, or cast what {name} returns, {cast}."
            )
    return value


def _apart(tree: PyTree) -> PyTree:
    """Arrays behind barriers, each behind its own: in a derivative only some of them may move."""
    return jax.tree.map(lax.optimization_barrier, tree)
