"""Methods for positions and momenta: splittings, and the pair of Dormand and Prince for x'' = f.

One text is one method: the rules for reading it are in `diffeq.methods.tableau`. A splitting kicks
and then drifts in each stage, so one that begins with a drift begins with a kick of zero, and one
that ends with a kick ends with a drift of zero. Compositions of the leapfrog are given by their
substeps w, and the half kicks that meet are added, as every code does.

The digits of McAte5, KahanLi8 and DPRKN6 were carried over from the tables of OrdinaryDiffEq.jl.
"""

from diffeq.methods.tableau import NystromTableau, Splitting

__all__ = ["NYSTROM", "SPLITTINGS"]

# --- splittings --------------------------------------------------------------------------------

_SYMPLECTIC_EULER = """
name: SymplecticEuler
order: 1
reference: devogelaere1956
description: One kick, one drift: the simplest symplectic method.

kick  | 1
drift | 1
"""

_VELOCITY_VERLET = """
name: VelocityVerlet
order: 2
reference: verlet1967
description: Half a kick, a drift, half a kick: the leapfrog of molecular dynamics; symmetric.

kick  | 1/2  1/2
drift | 1    0
"""

_RUTH3 = """
name: Ruth3
order: 3
reference: ruth1983
description: The first symplectic method of order 3, in three stages with simple fractions.

kick  | 7/24  3/4   -1/24
drift | 2/3   -2/3  1
"""

_FOREST_RUTH = """
name: ForestRuth
order: 4
reference: forest1990
description: Three leapfrogs, the middle one backwards, for order 4; symmetric, drifts first.

theta = 1/(2-cbrt(2))
kick  | 0        theta        1-2*theta    theta
drift | theta/2  (1-theta)/2  (1-theta)/2  theta/2
"""

# The numbers of Forest and Ruth, found independently and printed in other terms.
_CANDY_ROZ4 = """
name: CandyRoz4
order: 4
reference: candy1991
description: Order 4 for separable Hamiltonians, time-dependent ones too; equals ForestRuth.

r     = cbrt(2)
outer = (2+r+1/r)/6
inner = (1-r-1/r)/6
kick  | 0      1/(2-r)  1/(1-r**2)  1/(2-r)
drift | outer  inner    inner       outer
"""

# Of order 5 for x'' = f(t, x) alone: on a general separable H the order is 3.
_MCATE5 = """
name: McAte5
order: 5
kinetic: quadratic
reference: mclachlan1992
description: Six stages of order 5 where the kinetic energy is p²/2m, without t; not symmetric.

kick  | 0.1193900292875672758   0.6989273703824752308   -0.1713123582716007754
        0.4012695022513534480   0.0107050818482359840   -0.0589796254980311632
drift | 0.339839625839110000    -0.088601336903027329   0.5858564768259621188
        -0.603039356536491888   0.3235807965546976394   0.4423637942197494587
"""

# Solution A of the paper prints 14 digits. These are its roots to 42, found by Newton's method on
# the order conditions from there.
_YOSHIDA6 = """
name: Yoshida6
order: 6
reference: yoshida1990
description: Seven leapfrogs for order 6; symmetric.

w1 = -1.17767998417887100694641568096431573463927
w2 = 0.235573213359358133684793182978534601686468
w3 = 0.784513610477557263819497633866349875776824
w0 = 1-2*(w1+w2+w3)
kick  | w3/2  (w3+w2)/2  (w2+w1)/2  (w1+w0)/2  (w0+w1)/2  (w1+w2)/2  (w2+w3)/2  w3/2
drift | w3    w2         w1         w0         w1         w2         w3         0
"""

_KAHAN_LI8 = """
name: KahanLi8
order: 8
reference: kahan1997
description: Seventeen leapfrogs for order 8, for orbits over long times; symmetric.

w1 = 0.13020248308889008087881763
w2 = 0.56116298177510838456196441
w3 = -0.38947496264484728640807860
w4 = 0.15884190655515560089621075
w5 = -0.39590389413323757733623154
w6 = 0.18453964097831570709183254
w7 = 0.25837438768632204729397911
w8 = 0.29501172360931029887096624
w9 = -0.60550853383003451169892108
kick  | w1/2       (w1+w2)/2  (w2+w3)/2  (w3+w4)/2  (w4+w5)/2  (w5+w6)/2
        (w6+w7)/2  (w7+w8)/2  (w8+w9)/2  (w9+w8)/2  (w8+w7)/2  (w7+w6)/2
        (w6+w5)/2  (w5+w4)/2  (w4+w3)/2  (w3+w2)/2  (w2+w1)/2  w1/2
drift | w1  w2  w3  w4  w5  w6  w7  w8  w9  w8  w7  w6  w5  w4  w3  w2  w1  0
"""

# --- Runge-Kutta-Nystrom -----------------------------------------------------------------------

# The dense output has order 6 in the positions; that of the velocities is its derivative, of order 5.
_DPRKN6 = """
name: DPRKN6
order: 6(4)
dense: 5
reference: dormand1987
description: The pair of Dormand and Prince for x'' = f(t, x), no velocity in f; FSAL.

R = sqrt(8581)
0           |
(209-R)/900 | (26131-209*R)/810000
(209-R)/450 | (26131-209*R)/607500  (26131-209*R)/303750
(209+R)/450 | (980403512254+7781688431*R)/11694469921875
              -(1262884486208+15385481287*R)/11694469921875
              (7166233891441+78694563299*R)/46777879687500
9/10        | -9*(329260+3181*R)/27040000
              27*(35129+3331*R)/13520000
              -27*(554358343+31040327*R)/464060480000
              153*(8555257-67973*R)/2745920000
1           | 329/4212  0
              (84119543+366727*R)/409622616
              (84119543-366727*R)/409622616
              200/17901
------------+-----------------------------------------------------------------------
b           | 329/4212  0
              (84119543+366727*R)/409622616
              (84119543-366727*R)/409622616
              200/17901  0
b_dot       | 329/4212  0
              (389225579+96856*R)/1024056540
              (389225579-96856*R)/1024056540
              2000/17901  1/20
b_hat       | (2701+23*R)/4563  -(9829+131*R)/9126  5*(1798+17*R)/9126  0  0  0
b_dot_hat   | 115/2106  0
              (84119543+366727*R)/256014135
              (84119543-366727*R)/256014135
              6950/17901  -1/10
------------+-----------------------------------------------------------------------
x1          | 2106/4212  -5244/4212  6386/4212  -3819/4212  900/4212
x3          | 0
              18*(81356461+25954829*R)/22529243880
              (22190560391-1109665151*R)/22529243880
              -6*(4929647204-156109769*R)/22529243880
              1800*(5860823-152228*R)/22529243880
x4          | 0
              18*(81356461-25954829*R)/22529243880
              (22190560391+1109665151*R)/22529243880
              -6*(4929647204+156109769*R)/22529243880
              1800*(5860823+152228*R)/22529243880
x5          | 0  39000/17901  -124000/17901  130200/17901  -45000/17901
x6          | 0  -117/110  757/220  -823/220  15/11
v1          | 1  -15732/4212  25544/4212  -19095/4212  5400/4212
v3          | 0
              27*(81356461+25954829*R)/11264621940
              2*(22190560391-1109665151*R)/11264621940
              -15*(4929647204-156109769*R)/11264621940
              5400*(5860823-152228*R)/11264621940
v4          | 0
              27*(81356461-25954829*R)/11264621940
              2*(22190560391+1109665151*R)/11264621940
              -15*(4929647204+156109769*R)/11264621940
              5400*(5860823+152228*R)/11264621940
v5          | 0  117000/17901  -496000/17901  651000/17901  -270000/17901
v6          | 0  -702/220  3028/220  -4115/220  1800/220
"""

_SPLITTING_TEXTS = (
    _SYMPLECTIC_EULER,
    _VELOCITY_VERLET,
    _RUTH3,
    _FOREST_RUTH,
    _CANDY_ROZ4,
    _MCATE5,
    _YOSHIDA6,
    _KAHAN_LI8,
)
_NYSTROM_TEXTS = (_DPRKN6,)

SPLITTINGS: dict[str, Splitting] = {
    splitting.name: splitting for splitting in map(Splitting, _SPLITTING_TEXTS)
}
NYSTROM: dict[str, NystromTableau] = {
    tableau.name: tableau for tableau in map(NystromTableau, _NYSTROM_TEXTS)
}
