"""Rules of positions with velocities or momenta."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ...core.packing import Packing, as_state, moving_leaves
from ...core.user_functions import check_numbers, described
from ..base import Problem, evaluated
from ..forms import Form, Partitioned
from ..second_order import SecondOrderProblem, Separable
from .rule import ProblemRule, tree_shapes
from .time_interval import flip_time

__all__ = ["HamiltonianRule", "MotionRule"]


class MotionRule(ProblemRule):
    """Positions and momenta, each half of the packed state."""

    names: tuple[str, ...] = ("x0", "v0")

    @classmethod
    def state(cls, problem: Problem, args: PyTree) -> PyTree:
        q, p = (as_state(evaluated(getattr(problem, name), args)) for name in cls.names)
        if tree_shapes(moving_leaves(q)) != tree_shapes(moving_leaves(p)):
            first, second = cls.names
            raise TypeError(
                f"{second} is {described(p)}; it must match {first}, which is {described(q)}."
            )
        return q, p

    @staticmethod
    def functions(problem: SecondOrderProblem, tree: PyTree) -> list:
        return [("f", problem.f, tree)]

    @staticmethod
    def form(at: list, packing: Packing, sign: Array | int) -> Form:
        kick = _on_halves(at[0], packing)
        separable = not at[0].uses(1)
        return Partitioned(lambda t, q, p: flip_time(sign, p), kick, separable, identity=True)


class HamiltonianRule(MotionRule):
    """q' = ∂H/∂p, p' = −∂H/∂q."""

    names = ("q0", "p0")

    @staticmethod
    def functions(problem: Any, tree: PyTree) -> list:
        energy = problem.hamiltonian
        return [
            ("hamiltonian", _energy_gradient(energy, tree, of_momentum=True), tree),
            ("hamiltonian", _energy_gradient(energy, tree, of_momentum=False), tree),
        ]

    @staticmethod
    def form(at: list, packing: Packing, sign: Array | int) -> Form:
        del sign
        velocity, force = at
        drift = _on_halves(velocity, packing)
        push = _on_halves(force, packing)
        separable = not velocity.uses(0) and not force.uses(1)
        return Partitioned(drift, lambda t, q, p: -push(t, q, p), separable, identity=False)


def _energy_gradient(energy: Callable, tree: tuple, *, of_momentum: bool) -> Callable:
    """The derivative of an energy by positions or momenta (but for those that are held)."""
    marked = tree[of_momentum]

    def slope(t: Array, q: PyTree, p: PyTree, args: PyTree) -> PyTree:
        def of_part(z: PyTree) -> PyTree:
            z = _with_moving(z, p if of_momentum else q, marked)
            if isinstance(energy, Separable):
                part = energy.kinetic if of_momentum else energy.potential
                return _check_energy(part(t, z, args))
            return _check_energy(energy(t, q, z, args) if of_momentum else energy(t, z, p, args))

        found = jax.grad(of_part)(_moving_of(p if of_momentum else q, marked))
        packing = Packing(marked)
        return jax.tree.unflatten(packing.rates, found) if packing.holds else found

    return slope


def _moving_of(tree: PyTree, marked: PyTree) -> PyTree:
    """Those leaves of the tree that are not held in the marked one."""
    packing = Packing(marked)
    if not packing.holds:
        return tree
    each = zip(jax.tree.leaves(tree), packing.held, strict=True)
    return [x for x, held in each if not held]


def _with_moving(own: PyTree, tree: PyTree, marked: PyTree) -> PyTree:
    """Returns the tree with `own` in the place of the leaves that are not held."""
    packing = Packing(marked)
    if not packing.holds:
        return own
    each, found = zip(jax.tree.leaves(tree), packing.held, strict=True), iter(own)
    return jax.tree.unflatten(packing.tree, [x if held else next(found) for x, held in each])


def _check_energy(energy: PyTree) -> PyTree:
    check_numbers("hamiltonian", energy)
    if jnp.shape(energy) != ():
        raise TypeError(f"hamiltonian returned shape {jnp.shape(energy)}; an energy is a scalar.")
    return energy


def _on_halves(f: Callable, packing: Packing) -> Callable:
    """A function of trees as one of vectors (t, q, p); each half is packed like positions alone."""
    blank = packing.marked(jnp.zeros(sum(map(math.prod, packing.shapes)), packing.dtype))
    of_q, of_p = (Packing(half, packing.dtype) for half in blank)
    shape = of_q.shapes[0] if of_q.single else (-1,)
    count = sum(of_q.held)

    def of_vectors(t: Array, q: Array, p: Array) -> Array:
        kept = (packing.kept[:count], packing.kept[count:])
        trees = (of_q.unpack(q.reshape(shape), kept[0]), of_p.unpack(p.reshape(shape), kept[1]))
        return of_q.pack(f(t, *trees)).ravel()

    return of_vectors
