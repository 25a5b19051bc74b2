"""Fully implicit Runge-Kutta methods, as their books print them.

One text is one method: the rules for reading it are in `diffeq.methods.tableau`. A first row of
zeros is the slope at the start, which serves the error estimate alone: it is that at the end of the
step before. Where the dense output is the collocation polynomial, its rows are the integrals of the
Lagrange polynomials over the nodes.
"""

from diffeq.methods.tableau import Tableau

__all__ = ["FIRK_TABLES"]

# g is the inverse of the real eigenvalue of A^-1, so that the estimate is filtered by a matrix that
# is there already; b_hat - b = g (1, A^T e).
_RADAU_IIA5 = """
name: RadauIIA5
order: 5(3)
dense: 3
reference: hairer1996
description: Collocation of order 5, for very stiff problems, DAEs and tight tolerances; L-stable.

r = sqrt(6)
c2 = (4-r)/10
c3 = (4+r)/10
a22 = (88-7*r)/360
a23 = (296-169*r)/1800
a24 = (3*r-2)/225
a32 = (296+169*r)/1800
a33 = (88+7*r)/360
a34 = (-2-3*r)/225
b_2 = (16-r)/36
b_3 = (16+r)/36
g = (6+cbrt(81)-cbrt(9))/30
e2 = g*(-13-7*r)/3
e3 = g*(7*r-13)/3
e4 = -g/3
d2 = (c2-c3)*(c2-1)
d3 = (c3-c2)*(c3-1)
d4 = (1-c2)*(1-c3)
0     |
c2    | 0  a22  a23  a24
c3    | 0  a32  a33  a34
1     | 0  b_2  b_3  1/9
------+------------------
b     | 0  b_2  b_3  1/9
b_hat | g  b_2+a22*e2+a32*e3+b_2*e4  b_3+a23*e2+a33*e3+b_3*e4  1/9+a24*e2+a34*e3+e4/9
dense_error | g/8  (a22*e2+a32*e3+b_2*e4)/8  (a23*e2+a33*e3+b_3*e4)/8  (a24*e2+a34*e3+e4/9)/8
b2    | c3/d2         -(1+c3)/(2*d2)         1/(3*d2)
b3    | c2/d3         -(1+c2)/(2*d3)         1/(3*d3)
b4    | c2*c3/d4      -(c2+c3)/(2*d4)        1/(3*d4)
"""

_TEXTS = (_RADAU_IIA5,)

FIRK_TABLES: dict[str, Tableau] = {tableau.name: tableau for tableau in map(Tableau, _TEXTS)}
