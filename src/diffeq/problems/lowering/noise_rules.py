"""The rule of equations with noise."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ...core.packing import Packing, as_state, moving_leaves, without_held
from ...core.user_functions import check_numbers, described
from ..forms import Form, Ito, Stratonovich
from ..history import HistoryView
from ..sdde import SDDEProblem
from ..sde import SDEProblem
from .ode_rules import OdeRule
from .rule import ProblemRule, check_width, on_packed

__all__ = ["SdeRule"]


class SdeRule(ProblemRule):
    """An equation with noise; what is declared of that is static."""

    state = staticmethod(OdeRule.state)

    def __init__(self, kind: str, interpretation: str) -> None:
        self.kind = kind
        self.wanted = Ito if interpretation == "ito" else Stratonovich

    @classmethod
    def of(cls, problem: SDEProblem | SDDEProblem) -> "SdeRule":
        return cls(problem.noise, problem.interpretation)

    def functions(
        self, problem: SDEProblem | SDDEProblem, tree: PyTree, *seen: HistoryView
    ) -> list:
        """The functions, of the state and of what else is seen."""
        check = partial(_checked_diffusion, self.kind)
        parts = (tree, *seen)
        return [("drift", problem.drift, parts), ("diffusion", problem.diffusion, parts, check)]

    def form(self, at: list, packing: Packing, sign: Array | int) -> Form:
        del sign
        drift, diffusion = at
        pack = packing.pack if self.kind != "general" else partial(_columns, packing)
        g = lambda t, y, *seen: pack(diffusion(t, packing.unpack(y), *seen))  # noqa: E731
        own = self.kind == "diagonal" and diffusion.pointwise(0, packing.held)
        recalls = diffusion.parts > 1 and diffusion.uses(1)
        additive = not diffusion.uses(0) and not recalls
        return self.wanted(on_packed(drift, packing), g, self.kind, additive, own, recalls)

    @staticmethod
    def noise(problem: SDEProblem | SDDEProblem, traced: list, y0: Array) -> tuple[int, ...]:
        diffusion = traced[1]
        parts = ("y", "past")[: diffusion.parts]
        used = [name for i, name in enumerate(parts) if diffusion.uses(i)]
        if problem.additive and used:
            raise TypeError(
                "additive=True says that diffusion depends on t and args alone, but it uses "
                f"{used[0]}. Leave additive out; or, if y gives it only a shape, write "
                "jnp.full_like(y, value)."
            )
        if problem.noise == "diagonal":
            return y0.shape
        return () if problem.noise == "scalar" else diffusion.shapes[0][-1:]


def _columns(packing: Packing, tree: PyTree) -> Array:
    """A diffusion whose leaves have a last axis more, packed along the others."""
    leaves = [jnp.asarray(leaf, packing.dtype) for leaf in jax.tree.leaves(tree)]
    if packing.single:
        return leaves[0]
    return jnp.concatenate([leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves])


def _checked_diffusion(kind: str, name: str, value: PyTree, parts: tuple) -> PyTree:
    """Returns the value of a diffusion, if it fits the state and the noise that was declared."""
    like = moving_leaves(parts[0])
    value = as_state(value) if like is parts[0] else without_held(value, parts[0])
    check_numbers(name, value)
    wants = {
        "diagonal": "noise='diagonal' wants one number for each of y's, so the shapes of y",
        "scalar": "noise='scalar' wants the shapes of y",
        "general": "noise='general' wants the shapes of y with one more axis at the end, of one "
        "length: a column for each Brownian motion",
    }[kind]
    fits = jax.tree.structure(value) == jax.tree.structure(like)
    pairs = zip(jax.tree.leaves(value), jax.tree.leaves(like), strict=False)
    shapes = [(jnp.shape(g), jnp.shape(y)) for g, y in pairs]
    if kind == "general":
        fits = fits and len({g[len(y) :] for g, y in shapes}) == 1
        fits = fits and all(len(g) == len(y) + 1 and g[:-1] == y for g, y in shapes)
        square = ""
    else:
        fits = fits and all(g == y for g, y in shapes)
        matrix = any(len(g) == len(y) + 1 for g, y in shapes)
        square = " For a matrix give noise='general'." if matrix else ""
    if not fits:
        raise TypeError(
            f"{name} returned {described(value)} for y = {described(like)}; {wants}.{square}"
        )
    check_width(name, value, like)
    return value
