"""Order conditions, by rooted trees.

A Runge-Kutta method has order p if sum_i b_i Phi_i(tau) = 1/gamma(tau) for every rooted tree tau
with at most p nodes, where Phi(tau) = prod over branches of A Phi(branch), and gamma(tau) is the
number of nodes times the gammas of the branches. The trees up to order 10 number 1,842, so one walk
over them proves any table here, and the same walk, with A, b and c of another kind, serves dense
output, partitioned methods and methods of Nystrom.

Phi is found once for each branch and shared between all trees that carry it. Arrays of float64 go
through numpy; arrays of `Fraction` or `Decimal` (dtype object) take the same path, for ``@``, ``*``
and ``sum`` mean the same for all three. Fractions are exact, but grow without end in a table of 16
stages with 40 digits each; `precise` makes decimals of 60 digits of them, which tell an order
condition that holds from one that does not with no doubt left, and are 100 times faster. Floats
cannot always: the weights of Vern6 are near 300, and its residuals near 1e-11.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache, wraps
from itertools import combinations_with_replacement, islice, product, takewhile
from typing import Any, Protocol, runtime_checkable

import numpy as np

__all__ = [
    "additive_residuals",
    "damping_at_infinity",
    "dense_order_of",
    "dense_residuals",
    "density",
    "extended",
    "node_count",
    "nystrom_order_of",
    "nystrom_residuals",
    "nystrom_trees",
    "order_of",
    "order_residuals",
    "partitioned_order_of",
    "partitioned_residuals",
    "precise",
    "real_stability_interval",
    "rooted_trees",
    "rosenbrock_dense_residuals",
    "rosenbrock_index1_residuals",
    "rosenbrock_order_of",
    "rosenbrock_residuals",
    "rosenbrock_w_residuals",
    "row_sum_residual",
    "splitting_nystrom",
    "splitting_order_of",
    "splitting_tables",
    "stability_excess",
    "stability_function",
    "stability_reach",
    "stage_order_of",
    "weights",
]

MAX_ORDER = 10
_TOLERANCE = 1e-11

# A tree is the sorted tuple of its branches; the single node is ().
type Tree = tuple[Tree, ...]
type Array = np.ndarray


# --- trees -------------------------------------------------------------------------------------


def _forests(nodes: int, largest: int) -> Iterable[Tree]:
    """Multisets of trees with so many nodes in all, none larger than `largest`."""
    if nodes == 0:
        yield ()
        return
    for biggest in range(min(nodes, largest), 0, -1):
        for count in range(nodes // biggest, 0, -1):
            for rest in _forests(nodes - count * biggest, biggest - 1):
                for front in combinations_with_replacement(rooted_trees(biggest), count):
                    yield (*front, *rest)


@cache
def rooted_trees(n: int) -> tuple[Tree, ...]:
    """All rooted trees with n nodes: 1, 1, 2, 4, 9, 20, 48, 115, 286, 719 of them."""
    if not 1 <= n <= MAX_ORDER:
        raise ValueError(f"n: trees with 1 to {MAX_ORDER} nodes are known here, not {n}")
    return tuple(_forests(n - 1, n - 1))


@cache
def node_count(tree: Tree) -> int:
    """The number of nodes, |tau|."""
    return 1 + sum(map(node_count, tree))


@cache
def density(tree: Tree) -> int:
    """gamma(tau): the exact solution's weight of the tree is 1/gamma."""
    return node_count(tree) * math.prod(map(density, tree))


# --- Runge-Kutta -------------------------------------------------------------------------------


_DIGITS = 60


def _deep[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Decimals inside are carried to 60 digits, not to the usual 28."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with localcontext(prec=_DIGITS):
            return function(*args, **kwargs)

    return wrapped


@_deep
def precise(rows: np.ndarray | Sequence) -> Array:
    """Fractions, as a row or as rows, as an array of decimals of 60 digits."""
    array = np.array(rows, dtype=object)
    flat = [Decimal(x.numerator) / Decimal(x.denominator) for x in array.flat]
    return np.array(flat, dtype=object).reshape(array.shape)


def _one(*arrays: Array) -> Any:
    """1, of the kind of number that the arrays hold."""
    first = np.asarray(arrays[0])
    return first.flat[0] * 0 + 1 if first.dtype == object else 1.0


def _ones(like: Array) -> Array:
    return np.array([_one(like)] * len(like))


def _multiply_all(factors: Sequence[Array], ones: Array) -> Array:
    result = ones
    for factor in factors:
        result = result * factor
    return result


class _Weights:
    """Phi(tau) by stage, each branch once."""

    def __init__(self, A: Array):
        self._A = np.asarray(A)
        self._ones = _ones(self._A)
        self._known: dict[Tree, Array] = {}

    def __call__(self, tree: Tree) -> Array:
        return _multiply_all([self._branch(branch) for branch in tree], self._ones)

    def _branch(self, tree: Tree) -> Array:
        """A Phi(tau). A A ... 1 is used where c might be: `row_sum_residual` is a separate test."""
        if tree not in self._known:
            self._known[tree] = self._A @ self(tree)
        return self._known[tree]


@_deep
def weights(A: Array, tree: Tree) -> Array:
    """The elementary weights Phi_i(tau), one for each stage."""
    return _Weights(A)(tree)


def _conditions(A: Array, b: Array) -> Iterator[Any]:
    """The worst residual for n = 1, 2, ...; made on demand, for the last trees are the most."""
    phi, one = _Weights(A), _one(A)
    for n in range(1, MAX_ORDER + 1):
        yield max(abs(np.asarray(b) @ phi(tree) - one / density(tree)) for tree in rooted_trees(n))


def _leading(residuals: Iterable[Any], tol: float) -> int:
    """The number of residuals, from the first one on, that vanish."""
    return sum(1 for _ in takewhile(lambda residual: residual <= tol, residuals))


@_deep
def order_residuals(A: Array, b: Array, c: Array | None = None, order: int = MAX_ORDER) -> list:
    """The worst |sum_i b_i Phi_i - 1/gamma| over the trees with n nodes, for n = 1, ..., order.

    The numbers are of the kind that A holds. With `c`, the entry n = 1 also has the row sums.
    """
    worst = list(islice(_conditions(A, b), order))
    if c is not None and worst:
        worst[0] = max(worst[0], row_sum_residual(A, c))
    return worst


@_deep
def order_of(A: Array, b: Array, c: Array | None = None, tol: float = _TOLERANCE) -> int:
    """The order of the method: the largest p with all conditions up to p met within `tol`."""
    if c is not None and row_sum_residual(A, c) > tol:
        return 0
    return _leading(_conditions(A, b), tol)


@_deep
def row_sum_residual(A: Array, c: Array) -> Any:
    """max_i |sum_j A_ij - c_i|."""
    return max(abs(np.asarray(A).sum(axis=1) - np.asarray(c)))


@_deep
def stage_order_of(A: Array, c: Array, tol: float = _TOLERANCE) -> int:
    """The largest q with sum_j A_ij c_j^(k - 1) = c_i^k / k for k = 1, ..., q, in all stages.

    It is the order to which stages are right, and with them the solution of very stiff problems.
    """
    A, c = np.asarray(A), np.asarray(c)
    ones = _ones(c)
    gaps = (
        max(abs(A @ (c ** (k - 1) if k > 1 else ones) - c**k / k)) for k in range(1, MAX_ORDER + 1)
    )
    return _leading(gaps, tol)


# --- additive methods --------------------------------------------------------------------------


def _additive_conditions(tables: Sequence[Array], b: Array, theta: Any) -> Iterator[Any]:
    tables, b = [np.asarray(A) for A in tables], np.asarray(b)
    ones, one = _ones(tables[0]), _one(tables[0])

    @cache
    def phis(tree: Tree) -> list:
        """Phi of the tree, for every way to colour the nodes above its root."""
        ways = product(*([A @ phi for A in tables for phi in phis(child)] for child in tree))
        return [_multiply_all(way, ones) for way in ways]

    for n in range(1, MAX_ORDER + 1):
        exact = one * theta**n
        trees = rooted_trees(n)
        yield max(abs(b @ phi - exact / density(t)) for t in trees for phi in phis(t))


@_deep
def additive_residuals(
    tables: Sequence[Array], b: Array, order: int = MAX_ORDER, theta: Any = 1
) -> list:
    """The conditions of order n = 1, ..., order of an additive method, as the worst residuals.

    For y' = sum_k f_k(y), stages Y_i = y + dt sum_k sum_j tables[k][i, j] f_k(Y_j), and one row b
    for all parts: sum_i b_i Phi_i = theta^n/gamma for every rooted tree and every colouring of its
    nodes. Here theta is 1, or with the row b(theta) a point of the dense output.
    """
    return list(islice(_additive_conditions(tables, b, theta), order))


# --- dense output ------------------------------------------------------------------------------


@runtime_checkable
class _Interpolated(Protocol):
    """The part of a `Tableau` that is used here; its file imports this one."""

    @property
    def exact(self) -> Any: ...


_THETAS = (Fraction(1, 7), Fraction(1, 3), Fraction(5, 8), Fraction(9, 10), Fraction(1))


def extended(tableau: _Interpolated) -> Array:
    """A over stages and extra stages, as decimals."""
    A, extra = tableau.exact.A, tableau.exact.extra_A
    blank = (Fraction(0),) * len(extra)
    return precise([*((*row, *blank) for row in A), *extra])


def _dense_conditions(tableau: _Interpolated, thetas: Sequence[Fraction]) -> Iterator[float]:
    if tableau.exact.dense is None:
        raise ValueError("tableau: one with a dense output was wanted")
    phi = _Weights(extended(tableau))
    dense, theta = precise(tableau.exact.dense), precise(thetas)
    b = np.array([theta ** (d + 1) for d in range(dense.shape[1])]).T @ dense.T
    for n in range(1, MAX_ORDER + 1):
        exact = theta**n
        gaps = (abs(b @ phi(tree) - exact / density(tree)) for tree in rooted_trees(n))
        yield float(max(max(gap) for gap in gaps))


@_deep
def dense_residuals(
    tableau: _Interpolated, order: int = MAX_ORDER, thetas: Sequence[Fraction] = _THETAS
) -> list[float]:
    """The worst |sum_i b_i(theta) Phi_i - theta^n / gamma| for n = 1, ..., order.

    The conditions are polynomials in theta: a few points show whether they hold.
    """
    return list(islice(_dense_conditions(tableau, thetas), order))


@_deep
def dense_order_of(tableau: _Interpolated, tol: float = _TOLERANCE) -> int:
    """The largest p such that b_i(theta) meets every condition up to p, at all theta."""
    return _leading(_dense_conditions(tableau, _THETAS), tol)


# --- linear stability --------------------------------------------------------------------------


def _determinant(M: Array) -> list:
    """The coefficients of det(I - z M), lowest power first, by Faddeev and LeVerrier."""
    s = len(M)
    identity = np.diag(_ones(M))
    coefficients = [identity[0, 0]]
    power = identity
    for k in range(1, s + 1):
        power = M @ power
        coefficients.append(-np.trace(power) / k)
        power = power + coefficients[-1] * identity
    return coefficients


def _without_leading_zeros(coefficients: list) -> Array:
    least = 1e-15 * float(max(map(abs, coefficients)))
    while len(coefficients) > 1 and abs(coefficients[-1]) <= least:
        coefficients.pop()
    return np.array(coefficients)


@_deep
def stability_function(A: Array, b: Array) -> tuple[Array, Array]:
    """R(z) = numerator / denominator, both as coefficients with the lowest power first.

    R(z) = det(I - z A + z 1 b^T) / det(I - z A). For an explicit method this is the polynomial
    1 + sum_k z^(k + 1) b A^k 1, and the denominator is [1].
    """
    A, b = np.asarray(A), np.asarray(b)
    if not any(A[i, j] for i in range(len(A)) for j in range(i, len(A))):
        terms, vector = [_ones(A)[0]], _ones(A)
        for _ in range(len(A)):
            terms.append(b @ vector)
            vector = A @ vector
        return _without_leading_zeros(terms), _ones(A)[:1]
    return _without_leading_zeros(_determinant(A - np.outer(_ones(A), b))), _without_leading_zeros(
        _determinant(A)
    )


def damping_at_infinity(A: Array, b: Array) -> float:
    """|R(oo)|: what is left of an infinitely fast decay; 0 for an L-stable method."""
    numerator, denominator = stability_function(A, b)
    if len(numerator) != len(denominator):
        return 0.0 if len(numerator) < len(denominator) else math.inf
    return float(abs(numerator[-1] / denominator[-1]))


def stability_excess(A: Array, b: Array) -> float:
    """The excess of max |R(iy)| over 1: not more than rounding if the method is A-stable, where the
    poles of R lie on the right, as with a positive diagonal they do.
    """
    numerator, denominator = (
        np.polynomial.Polynomial(np.asarray(side, dtype=float)) for side in stability_function(A, b)
    )
    z = 1j * np.concatenate([np.linspace(0.0, 50.0, 20_001), np.geomspace(50.0, 1e5, 2_001)])
    return float(np.max(abs(numerator(z)) / abs(denominator(z)))) - 1


def real_stability_interval(A: Array, b: Array) -> float:
    """The largest x with |R(z)| <= 1 for all z in [-x, 0]; inf if the whole half line is stable.

    dt * |lambda| near this number, step after step, is how an explicit method feels stiffness.
    """
    return stability_reach(A, b, math.pi)


def stability_reach(A: Array, b: Array, angle: float, growth: float = 0.0) -> float:
    """The largest r with |R(z)| <= 1 + growth for all z = x exp(i angle), 0 <= x <= r; inf if there
    is none.

    Along the imaginary axis most explicit methods of odd order grow a little from 0 on (Tsit5 by
    1e-4 a step at z = i): there `growth` says how much is taken for stable.
    """
    numerator, denominator = (
        np.polynomial.Polynomial(np.asarray(side, dtype=float)) for side in stability_function(A, b)
    )
    direction = -1.0 if angle == math.pi else complex(math.cos(angle), math.sin(angle))

    def stable(x: Any) -> Any:
        # A hair above 1, as R(0) = 1 is on the boundary.
        z = direction * x
        return abs(numerator(z)) <= (1 + growth + 1e-10) * abs(denominator(z))

    reach = 2.0 * len(b) ** 2 + 1  # no explicit method of order 1 reaches past 2 s^2
    grid = np.concatenate([np.linspace(0, reach, 20_001), np.geomspace(reach, 1e9, 2_001)[1:]])
    bad = np.flatnonzero(~stable(grid))
    if len(bad) == 0:
        return math.inf
    low, high = grid[max(bad[0] - 1, 0)], grid[bad[0]]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if stable(middle) else (low, middle)
    return float(low)


# --- Rosenbrock methods --------------------------------------------------------------------------


class _RosenbrockWeights:
    """Phi(tau) by stage: a branch that is alone on its node is reached by beta, others by alpha.

    For f''(y) [., .] sees the arguments of f, y + dt sum_j alpha_ij k_j, but to f'(y) [.] the term
    with the Jacobian is added, which makes alpha + gamma = beta of it.
    """

    def __init__(self, alpha: Array, beta: Array):
        self._alpha, self._beta = np.asarray(alpha), np.asarray(beta)
        self._ones = _ones(self._beta)
        self._known: dict[Tree, Array] = {}

    def __call__(self, tree: Tree) -> Array:
        if tree not in self._known:
            self._known[tree] = self._found(tree)
        return self._known[tree]

    def _found(self, tree: Tree) -> Array:
        if len(tree) == 1:
            return self._beta @ self(tree[0])
        return _multiply_all([self._alpha @ self(branch) for branch in tree], self._ones)


def _rosenbrock_conditions(alpha: Array, beta: Array, rows: Array, thetas: Array) -> Iterator[Any]:
    phi, one = _RosenbrockWeights(alpha, beta), _one(beta)
    for n in range(1, MAX_ORDER + 1):
        gaps = (rows @ phi(tree) - thetas**n * one / density(tree) for tree in rooted_trees(n))
        yield max(max(abs(gap)) for gap in gaps)


@_deep
def rosenbrock_residuals(alpha: Array, beta: Array, b: Array, order: int = MAX_ORDER) -> list:
    """The conditions of order n = 1, ..., order of a Rosenbrock method, as the worst residuals.

    sum_i b_i Phi_i(tau) = 1/gamma(tau), where the Jacobian is that of f at the step's start. Those
    with f_t follow from these where c and d are the row sums of alpha and gamma.
    """
    rows = np.asarray(b)[None]
    return list(islice(_rosenbrock_conditions(alpha, beta, rows, _ones(rows)), order))


@_deep
def rosenbrock_order_of(alpha: Array, beta: Array, b: Array, tol: float = _TOLERANCE) -> int:
    """The order of a Rosenbrock method: the largest p with all conditions up to p."""
    rows = np.asarray(b)[None]
    return _leading(_rosenbrock_conditions(alpha, beta, rows, _ones(rows)), tol)


@_deep
def rosenbrock_dense_residuals(alpha: Array, beta: Array, dense: Any, order: int) -> list:
    """The residuals of b_i(theta) = sum_d dense[i, d] theta^(d + 1), at a few thetas."""
    dense, theta = precise(dense), precise(_THETAS)
    rows = np.array([theta ** (d + 1) for d in range(dense.shape[1])]).T @ dense.T
    return list(islice(_rosenbrock_conditions(alpha, beta, rows, theta), order))


def _w_weights(alpha: Array, extra: Array, tree: Tree, ones: Array) -> Iterator[Array]:
    """Phi of every tree that looks like this one when its edges with the matrix count as plain."""
    if not tree:
        yield ones
        return
    if len(tree) == 1:
        for below in _w_weights(alpha, extra, tree[0], ones):
            yield alpha @ below
            yield extra @ below
        return
    for below in product(*(list(_w_weights(alpha, extra, branch, ones)) for branch in tree)):
        yield _multiply_all([alpha @ x for x in below], ones)


@_deep
def rosenbrock_w_residuals(alpha: Array, beta: Array, b: Array, order: int) -> list:
    """The conditions of a W-method, which has its order with any matrix in the place of J.

    Each edge that carries the matrix instead of f' is a condition of its own, with nothing on its
    right side.
    """
    alpha, b = np.asarray(alpha), np.asarray(b)
    extra, ones, one = np.asarray(beta) - alpha, _ones(alpha), _one(alpha)
    found = []
    for n in range(1, order + 1):
        worst = 0 * one
        for tree in rooted_trees(n):
            plain, *others = _w_weights(alpha, extra, tree, ones)
            worst = max(worst, abs(b @ plain - one / density(tree)), *(abs(b @ x) for x in others))
        found.append(worst)
    return found


# A tree of a differential-algebraic equation y' = f(y, z), 0 = g(y, z): its root is "f" or "g".
type DaeTree = tuple[str, tuple[DaeTree, ...]]


@cache
def _dae_trees(kind: str, order: int) -> tuple[DaeTree, ...]:
    """Trees with so many f; a "g" has no single branch "g", for g_z z' is on the other side."""
    inner = order - 1 if kind == "f" else order
    found = []
    for branches in _dae_forests(inner, inner, kind == "g"):
        alone = len(branches) == 1 and branches[0][0] == "g"
        if not (kind == "g" and (alone or not branches)):
            found.append((kind, branches))
    return tuple(found)


def _dae_forests(nodes: int, largest: int, of_g: bool) -> Iterator[tuple[DaeTree, ...]]:
    """Multisets of trees with so many f in all, none with more than `largest`."""
    if nodes == 0:
        yield ()
        return
    for biggest in range(min(nodes, largest), 0, -1):
        # A tree under a "g" with as many f as it has itself can only be a single "f".
        own = () if of_g and biggest == nodes else _dae_trees("g", biggest)
        for count in range(nodes // biggest, 0, -1):
            for rest in _dae_forests(nodes - count * biggest, biggest - 1, False):
                for front in combinations_with_replacement(
                    (*_dae_trees("f", biggest), *own), count
                ):
                    yield (*front, *rest)


@cache
def _dae_size(tree: DaeTree) -> int:
    return (tree[0] == "f") + sum(map(_dae_size, tree[1]))


@cache
def _dae_density(tree: DaeTree) -> int:
    own = _dae_size(tree) if tree[0] == "f" else 1
    return own * math.prod(map(_dae_density, tree[1]))


@_deep
def rosenbrock_index1_residuals(alpha: Array, beta: Array, b: Array, order: int) -> list:
    """The conditions for y' = f(y, z), 0 = g(y, z) with g_z regular, as pairs (for y, for z).

    The stages l_i of z obey beta l = (-1/g_z)(g_y beta k + higher terms of alpha k, alpha l): a
    branch of y alone on a "g" passes through, and all others on it meet omega = beta^-1.
    """
    alpha, beta, b = map(np.asarray, (alpha, beta, b))
    ones, one, omega = _ones(beta), _one(beta), _lower_inverse(beta)
    known: dict[DaeTree, Array] = {}

    def phi(tree: DaeTree) -> Array:
        if tree not in known:
            kind, branches = tree
            if len(branches) == 1:
                below = phi(branches[0])
                known[tree] = below if kind == "g" else beta @ below
            else:
                several = _multiply_all([alpha @ phi(branch) for branch in branches], ones)
                known[tree] = several if kind == "f" else omega @ several
        return known[tree]

    def worst(kind: str, n: int) -> Any:
        return max(abs(b @ phi(t) - one / _dae_density(t)) for t in _dae_trees(kind, n))

    return [(worst("f", n), worst("g", n)) for n in range(1, order + 1)]


def _lower_inverse(M: Array) -> Array:
    inverse = 0 * M
    for j in range(len(M)):
        inverse[j, j] = 1 / M[j, j]
        for i in range(j + 1, len(M)):
            inverse[i, j] = -(M[i, j:i] @ inverse[j:i, j]) / M[i, i]
    return inverse


# --- partitioned methods -----------------------------------------------------------------------


def _partitioned_conditions(A_q: Array, b_q: Array, A_p: Array, b_p: Array) -> Iterator[Any]:
    # Phi of a tree with a root of one colour needs its branches with roots of the other.
    tables, rows = (np.asarray(A_p), np.asarray(A_q)), (np.asarray(b_q), np.asarray(b_p))
    ones, one = _ones(tables[0]), _one(tables[0])
    known: dict[tuple[Tree, int], Array] = {}

    def phi(tree: Tree, colour: int) -> Array:
        return _multiply_all([branch(child, colour) for child in tree], ones)

    def branch(tree: Tree, colour: int) -> Array:
        if (tree, colour) not in known:
            known[tree, colour] = tables[colour] @ phi(tree, 1 - colour)
        return known[tree, colour]

    for n in range(1, MAX_ORDER + 1):
        yield max(
            abs(row @ phi(tree, colour) - one / density(tree))
            for tree in rooted_trees(n)
            for colour, row in enumerate(rows)
        )


@_deep
def partitioned_residuals(
    A_q: Array, b_q: Array, A_p: Array, b_p: Array, order: int = MAX_ORDER
) -> list:
    """The conditions of order n = 1, ..., order for q' = g(p), p' = f(q), as the worst residuals.

    P_i = p + dt sum_j A_p[i, j] f(Q_j) and Q_i = q + dt sum_j A_q[i, j] g(P_j); the step ends with
    the rows b_p and b_q. Only trees whose colours alternate from a node to its branches occur, so
    each rooted tree gives two conditions, one for each colour of its root.
    """
    return list(islice(_partitioned_conditions(A_q, b_q, A_p, b_p), order))


@_deep
def partitioned_order_of(
    A_q: Array, b_q: Array, A_p: Array, b_p: Array, tol: float = _TOLERANCE
) -> int:
    """The order of a partitioned method on q' = g(p), p' = f(q)."""
    return _leading(_partitioned_conditions(A_q, b_q, A_p, b_p), tol)


@_deep
def splitting_tables(kick: Array, drift: Array) -> tuple[Array, Array, Array, Array]:
    """(A_q, b_q, A_p, b_p) of a composition in which each stage kicks and then drifts.

    The i-th force sees the drifts before it, and the i-th velocity the kicks up to its own.
    """
    kick, drift = np.asarray(kick), np.asarray(drift)
    s = len(kick)
    before = np.tril(np.ones((s, s), dtype=int), -1)
    up_to = np.tril(np.ones((s, s), dtype=int))
    return before * drift, drift, up_to * kick, kick


@_deep
def splitting_nystrom(kick: Array, drift: Array) -> tuple[Array, Array, Array, Array]:
    """(A, b, b_dot, c) of a composition on x'' = f(t, x), that is with the kinetic energy v^2 / 2.

    Fewer trees occur there, and so a composition may have a higher order than on all separable H.
    """
    kick, drift = np.asarray(kick), np.asarray(drift)
    s = len(kick)
    c = np.array([_one(drift) * 0 + sum(drift[:i]) for i in range(s)])
    A = np.tril(np.ones((s, s), dtype=int), -1) * (c[:, None] - c[None, :]) * kick
    return A, kick * (sum(drift) - c), kick, c


def splitting_order_of(kick: Array, drift: Array, tol: float = _TOLERANCE) -> int:
    """The order of a composition of kicks and drifts on separable Hamiltonians."""
    return partitioned_order_of(*splitting_tables(kick, drift), tol)


# --- methods of Nystrom ------------------------------------------------------------------------


@cache
def nystrom_trees(n: int) -> tuple[Tree, ...]:
    """The trees with n nodes that x'' = f(t, x) has, rooted in a force.

    As a first-order system, x' = v and v' = f: forces and positions alternate, and a position has
    at most one branch, for x' = v is linear.
    """
    return tuple(tree for tree in rooted_trees(n) if _is_nystrom(tree))


@cache
def _is_nystrom(tree: Tree) -> bool:
    return all(len(position) <= 1 and all(map(_is_nystrom, position)) for position in tree)


def _nystrom_conditions(
    A: Array, b: Array, b_dot: Array, c: Array, theta: Any = 1
) -> Iterator[Any]:
    A, b, b_dot, c = map(np.asarray, (A, b, b_dot, c))
    ones, one = _ones(A), _one(A)
    known: dict[Tree, Array] = {}

    def phi(tree: Tree) -> Array:
        return _multiply_all([branch(position) for position in tree], ones)

    def branch(position: Tree) -> Array:
        if not position:
            return c
        if position not in known:
            known[position] = A @ phi(position[0])
        return known[position]

    for n in range(1, MAX_ORDER + 1):
        exact = one * theta**n
        gaps = [b_dot @ phi(tree) - exact / density(tree) for tree in nystrom_trees(n)]
        if n > 1:
            gaps += [b @ phi(t) - exact / (n * density(t)) for t in nystrom_trees(n - 1)]
        yield max(map(abs, gaps))


@_deep
def nystrom_residuals(
    A: Array, b: Array, b_dot: Array, c: Array, order: int = MAX_ORDER, theta: Any = 1
) -> list:
    """The conditions of order n = 1, ..., order for x'' = f(t, x), as the worst residuals.

    For a tree tau with n nodes, sum_i b_dot_i Phi_i = theta^n / gamma for the velocity, and for
    one with n - 1 nodes, sum_i b_i Phi_i = theta^n / (n gamma) for the position. Here theta is 1,
    or with the rows b(theta) and b_dot(theta) a point of the dense output.
    """
    return list(islice(_nystrom_conditions(A, b, b_dot, c, theta), order))


@_deep
def nystrom_order_of(
    A: Array, b: Array, b_dot: Array, c: Array, tol: float = _TOLERANCE, theta: Any = 1
) -> int:
    """The order of a Runge-Kutta-Nystrom method on x'' = f(t, x)."""
    return _leading(_nystrom_conditions(A, b, b_dot, c, theta), tol)
