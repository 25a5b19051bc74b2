"""The number of times that the equations of M y' = f have to be differentiated, known from which
components each of them depends on.

Pryce's Σ-method: σ_ij is 1 where y_j' stands in equation i, 0 where y_j alone does, and −∞ where
neither. A transversal of the largest sum pairs equations with components, and its dual variables
are the number of times that each equation is to be differentiated. The index that the numbers
themselves show, at one point, is that of the pencil. Both run on the host, in NumPy.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["Structure", "pencil_index", "structure_of"]

_NEVER = -1e9
_ROUNDING = 1e-12


class Structure(NamedTuple):
    """`times`: how often each equation has to be differentiated before its pair can be solved for;
    `pairs`: the component that equation i is paired with; `indices`: of the components, as RADAU5
    counts it, 1 + the power of 1/h by which it magnifies a perturbation of the equations.
    """

    times: Int[np.ndarray, " n"]
    pairs: Int[np.ndarray, " n"]
    indices: Int[np.ndarray, " n"]


def structure_of(
    slopes: Bool[np.ndarray, "n n"], states: Bool[np.ndarray, "n n"]
) -> Structure | None:
    """The structure of a system with these patterns of ∂F/∂y' and ∂F/∂y; None where no pairing is
    possible, for then some equations say too little.

    Reference: pryce2001.

    A pendulum, x' = u, y' = v, u' = −λ x, v' = −λ y − g, x² + y² = 1:

    >>> states = np.zeros((5, 5), bool)
    >>> states[[0, 1, 2, 2, 3, 3, 4, 4], [2, 3, 0, 4, 1, 4, 0, 1]] = True
    >>> found = structure_of(np.diag([1, 1, 1, 1, 0]) > 0, states)
    >>> found.times.tolist(), found.indices.tolist()
    ([1, 1, 0, 0, 2], [1, 1, 2, 2, 3])
    """
    from scipy.optimize import linear_sum_assignment

    sigma = np.where(slopes, 1.0, np.where(states, 0.0, _NEVER))
    rows, pairs = linear_sum_assignment(sigma, maximize=True)
    if sigma[rows, pairs].sum() < 0.5 * _NEVER:
        return None
    return Structure(_offsets(sigma, pairs), pairs, _growth(sigma, pairs))


def pencil_index(mass: Float[np.ndarray, "n n"], by_y: Float[np.ndarray, "n n"]) -> int | None:
    """The index of M y' = J y: how often its algebraic equations are differentiated, all of them at
    once, until M is regular (Luenberger's shuffle algorithm). None where it never is, for then
    λ M − J is singular for each λ, and the equations depend on each other.

    >>> pencil_index(np.diag([1.0, 0.0]), np.array([[0.0, 1.0], [1.0, 0.0]]))
    2
    """
    scale = np.maximum(np.abs(mass).max(axis=0), np.abs(by_y).max(axis=0))
    mass, by_y = (x / np.where(scale > 0, scale, 1) for x in (mass, by_y))
    for index in range(len(mass) + 1):
        size = np.abs(np.hstack([mass, by_y])).max(axis=1, keepdims=True)
        mass, by_y = (x / np.where(size > 0, size, 1) for x in (mass, by_y))
        left, values, _ = np.linalg.svd(mass)
        rank = int(np.sum(values > _ROUNDING * len(mass)))
        if rank == len(mass):
            return index
        mass, by_y = left.T @ mass, left.T @ by_y
        mass[rank:], by_y[rank:] = by_y[rank:], 0.0
    return None


def _offsets(sigma: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The least c ≥ 0 with c_i + σ_ij ≤ d_j everywhere, and equal on the transversal."""
    own, c = sigma[np.arange(len(sigma)), pairs], np.zeros(len(sigma))
    while True:
        d = np.max(c[:, None] + sigma, axis=0)
        following = d[pairs] - own
        if (following == c).all():
            return c.astype(int)
        c = following


def _growth(sigma: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The largest power of 1/h in each row of (M − h J)⁻¹, which is 1/h times (s M − J)⁻¹ at
    s = 1/h; by Cramer's rule that of an entry is how much the largest transversal grows when its
    row and column are left out, a longest path through the pairs.
    """
    row = np.argsort(pairs)  # the equation of each component
    own = sigma[row, np.arange(len(row))]
    longest = sigma[row] - own
    np.fill_diagonal(longest, 0.0)
    for k in range(len(row)):  # Floyd and Warshall: the pairing leaves no cycle that gains
        longest = np.maximum(longest, longest[:, k, None] + longest[k])
    degree = (longest - own[:, None]).max(axis=1)
    return np.maximum(1, 1 + degree).astype(int)
