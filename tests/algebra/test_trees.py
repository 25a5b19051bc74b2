"""The trees and their weights, against counts and sums that are known from elsewhere."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from diffeq.methods.order import (
    density,
    node_count,
    nystrom_trees,
    order_of,
    order_residuals,
    real_stability_interval,
    rooted_trees,
    row_sum_residual,
    stability_function,
    weights,
)
from diffeq.methods.tableau import Tableau

COUNTS = [1, 1, 2, 4, 9, 20, 48, 115, 286, 719]

# Gauss's method with two stages: implicit, order 4, R(z) the Pade approximation (2, 2).
GAUSS = Tableau("""
1/2-sqrt(3)/6 | 1/4            1/4-sqrt(3)/6
1/2+sqrt(3)/6 | 1/4+sqrt(3)/6  1/4
b             | 1/2            1/2
""")


def symmetry(tree):
    return math.prod(
        symmetry(branch) ** m * math.factorial(m) for branch, m in Counter(tree).items()
    )


@pytest.mark.parametrize("n", range(1, 11))
def test_counts(n):
    trees = rooted_trees(n)
    assert len(trees) == COUNTS[n - 1]
    assert len({canonical(tree) for tree in trees}) == len(trees)
    assert all(node_count(tree) == n for tree in trees)


def canonical(tree):
    return tuple(sorted(canonical(branch) for branch in tree))


@pytest.mark.parametrize("n", range(1, 11))
def test_labellings_add_up(n):
    # n! / (gamma sigma) is the number of monotone labellings of a tree, (n - 1)! for all together.
    total = sum(Fraction(math.factorial(n), density(t) * symmetry(t)) for t in rooted_trees(n))
    assert total == math.factorial(n - 1)


def test_density_of_the_extremes():
    tall, bushy = ((((),),),), ((), (), ())
    assert density(tall) == math.factorial(4)
    assert density(bushy) == 4


def test_trees_out_of_range_are_refused():
    with pytest.raises(ValueError, match="1 to 10"):
        rooted_trees(11)


def test_nystrom_trees():
    # The counts of special Nystrom trees, in Hairer, Norsett and Wanner, section II.14.
    assert [len(nystrom_trees(n)) for n in range(1, 8)] == [1, 1, 2, 3, 6, 10, 20]


def test_weights_are_the_printed_products():
    A = np.array([[0, 0, 0], [0.5, 0, 0], [-1, 2, 0]])
    c = A.sum(axis=1)
    tree = ((), ((),))  # the root carries a leaf and a branch of two nodes
    np.testing.assert_allclose(weights(A, tree), c * (A @ c))


def test_implicit_tableau():
    assert not GAUSS.explicit
    assert GAUSS.order == 4
    assert order_of(GAUSS.A, GAUSS.b, GAUSS.c) == 4
    numerator, denominator = stability_function(GAUSS.A, GAUSS.b)
    np.testing.assert_allclose(numerator, [1, 1 / 2, 1 / 12], atol=1e-15)
    np.testing.assert_allclose(denominator, [1, -1 / 2, 1 / 12], atol=1e-15)
    assert real_stability_interval(GAUSS.A, GAUSS.b) == math.inf


def test_fractions_stay_fractions():
    A = np.array([[Fraction(0), Fraction(0)], [Fraction(1, 2), Fraction(0)]])
    b, c = np.array([Fraction(0), Fraction(1)]), np.array([Fraction(0), Fraction(1, 2)])
    residuals = order_residuals(A, b, c, 3)
    assert residuals == [0, 0, Fraction(1, 6)]
    assert row_sum_residual(A, c) == 0
    assert stability_function(A, b)[0].tolist() == [1, 1, Fraction(1, 2)]


def test_wrong_nodes_have_no_order():
    assert order_of(np.array([[0, 0], [0.5, 0]]), np.array([0, 1.0]), np.array([0, 0.4])) == 0


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("0 |\n1/2 | 1/2", "needs a row 'b"),
        ("0 |\nb | 1 2", "at most 1"),
        ("0 |\nb | 1\nb | 1", "two rows"),
        ("0 |\nb | 1\nq | 3", "unknown rows q"),
        ("0 |\nb | __import__('os')", "cannot read"),
        ("0 |\nb | open", "cannot read"),
        ("0 |\nb | sqrt(-1)", "even root"),
        ("0 |\nb | 1\nb3 | 1", "names stage 3 of 1"),
    ],
)
def test_bad_texts_are_refused(body, complaint):
    with pytest.raises(ValueError, match=complaint):
        Tableau(body).exact  # noqa: B018


def test_entries():
    table = Tableau("""
    g = 1/4
    g   | g
    0.1 | 2*g-0.4  g  # a remark
    b   | -(g-1)/
          3  cbrt(1/8)+sqrt(2)**2/4-3/4
    """)
    assert ((Fraction(1, 4), 0), (Fraction(1, 10), Fraction(1, 4))) == table.exact.A
    assert table.exact.c == (Fraction(1, 4), Fraction(1, 10))
    assert table.exact.b[0] == Fraction(1, 4)
    assert abs(table.exact.b[1] - Fraction(1, 4)) < Fraction(1, 10**58)


def test_tables_are_values():
    text = "0 |\nb | 1"
    assert Tableau(text) == Tableau(text)
    assert hash(Tableau(text)) == hash(Tableau(text))
    assert Tableau(text) != GAUSS
    with pytest.raises(ValueError, match="read-only"):
        GAUSS.A[0, 0] = 1.0
    with pytest.raises(AttributeError, match="never changed"):
        GAUSS.name = "Radau"
