"""Runge–Kutta methods for equations with noise, of Rößler's kinds SRI and SRA.

One text is one method: the rules for reading it are in `diffeq.methods.tableau`. A matrix is given
row by row, in rows of one label; what is missing at the right is zero.

SRIW1 and SRA1 are Rößler's. SOSRI and SOSRA are those of the same kinds with the largest regions of
stability that Rackauckas and Nie found; their digits were carried over from StochasticDiffEq.jl.
"""

from diffeq.methods.stochastic_tableau import StochasticTableau

__all__ = ["SRA_TABLES", "SRI_TABLES"]

_SRIW1 = """
name: SRIW1
strong: 3/2
weak: 2
reference: rossler2010
description: Rößler's method of order 3/2 for diagonal and scalar noise, with simple fractions.

c0    | 0    3/4  0    0
A0    |
A0    | 3/4
A0    | 0    0
A0    | 0    0    0
B0    |
B0    | 3/2
B0    | 0    0
B0    | 0    0    0
c1    | 0    1/4  1    1/4
A1    |
A1    | 1/4
A1    | 1    0
A1    | 0    0    1/4
B1    |
B1    | 1/2
B1    | -1   0
B1    | -5   3    1/2
alpha | 1/3  2/3  0    0
beta1 | -1   4/3  2/3  0
beta2 | -1   4/3  -1/3 0
beta3 | 2    -4/3 -2/3 0
beta4 | -2   5/3  -2/3 1
"""

_SOSRI = """
name: SOSRI
strong: 3/2
weak: 2
reference: rackauckas2020
description: The default for diagonal and scalar noise: order 3/2 and a large region of stability.

c0    | 0  -0.04199224421316468  0.7898405466170333  3.7504010171562823
A0    |
A0    | -0.04199224421316468
A0    | 2.842612915017106     -2.0527723684000727
A0    | 4.338237071435815     -2.8895936137439793  2.3017575594644466
B0    |
B0    | -0.21641093549612528
B0    | 1.5336352863679572    0.26066223492647056
B0    | -1.0536037558179159   1.7015284721089472   -0.20725685784180017
c1    | 0  0.26204282091330466  0.05879875232001766  0.758661169101175
A1    |
A1    | 0.26204282091330466
A1    | 0.20903646383505375   -0.1502377115150361
A1    | 0.05836595312746999   0.6149440396332373   0.08535117634046772
B1    |
B1    | -0.5119011827621657
B1    | 2.67767339866713      -4.9395031322250995
B1    | 0.15580956238299215   3.2361551006624674   -1.4223118283355949
alpha | 1.140099274172029     -0.6401334255743456  0.4736296532772559   0.026404498125060714
beta1 | -1.8453464565104432   2.688764531100726    -0.2523866501071323  0.40896857551684956
beta2 | 0.4969658141589478    -0.5771202869753592  -0.12919702470322217 0.2093514975196336
beta3 | 2.8453464565104425    -2.688764531100725   0.2523866501071322   -0.40896857551684945
beta4 | 0.11522663875443433   -0.57877086147738    0.2857851028163886   0.17775911990655704
"""

_SRA1 = """
name: SRA1
strong: 3/2
weak: 2
reference: rossler2010
description: Rößler's method of order 3/2 for additive noise, with two drifts and simple fractions.

c0    | 0    3/4
A0    |
A0    | 3/4
B0    |
B0    | 3/2
c1    | 1    0
alpha | 1/3  2/3
beta1 | 1    0
beta2 | -1   1
"""

_SOSRA = """
name: SOSRA
strong: 3/2
weak: 2
reference: rackauckas2020
description: The default for additive noise of any kind: order 3/2 and a large region of stability.

c0    | 0    0.6923962376159507   1
A0    |
A0    | 0.6923962376159507
A0    | -3.1609142252828395   4.1609142252828395
B0    |
B0    | 1.3371632704399763
B0    | 1.442371048468624     1.8632741501139225
c1    | 0    0.041248171110700504 1
alpha | 0.2889874966892885    0.6859880440839937   0.025024459226717772
beta1 | -16.792534242221663   17.514995785380226   0.27753845684143835
beta2 | 0.4237535769069274    0.6010381474428539   -1.0247917243497813
"""


def _tables(*texts: str) -> dict[str, StochasticTableau]:
    return {table.name: table for table in map(StochasticTableau, texts)}


SRI_TABLES = _tables(_SRIW1, _SOSRI)
SRA_TABLES = _tables(_SRA1, _SOSRA)
