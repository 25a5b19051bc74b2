# Written by tools/stubs.py. Do not edit: run it again.
"""Layer 2: how to make a step. A method is a table; one stepper serves each family of tables.

Every entry of the tables becomes a public class here, so that `de.Tsit5()` exists because
`tableaus/explicit.py` has its text, and for no other reason.
"""

from typing import Literal

import lineax

from ..algebra.preconditioner import Krylov
from .base import Method, Step
from .bdf import BDF
from .dirk import DIRK
from .explicit_rk import ExplicitRK
from .firk import FIRK
from .interpolant import Hermite, Interpolant
from .partitioned import Nystrom, Symplectic
from .rosenbrock import Rosenbrock
from .stochastic_implicit import ImplicitEM
from .stochastic_rk import SRA, SRI, EulerHeun, EulerMaruyama, Milstein, Stochastic
from .stochastic_tableau import StochasticTableau
from .switching import Switching
from .tableau import NystromTableau, RosenbrockTableau, Splitting, Tableau

METHODS: dict[str, type[Method]]

__all__ = [
    "BDF",
    "BS5",
    "DIRK",
    "DPRKN6",
    "FIRK",
    "METHODS",
    "RK4",
    "SOSRA",
    "SOSRI",
    "SRA",
    "SRA1",
    "SRI",
    "SRIW1",
    "SSPRK33",
    "SSPRK43",
    "SSPRK104",
    "TRBDF2",
    "Bosh3",
    "CandyRoz4",
    "Dopri5",
    "Dopri8",
    "Euler",
    "EulerHeun",
    "EulerMaruyama",
    "ExplicitRK",
    "ForestRuth",
    "Hermite",
    "Heun",
    "ImplicitEM",
    "ImplicitEuler",
    "ImplicitMidpoint",
    "Interpolant",
    "KahanLi8",
    "KenCarp3",
    "KenCarp4",
    "KenCarp5",
    "Kvaerno3",
    "Kvaerno5",
    "McAte5",
    "Method",
    "Midpoint",
    "Milstein",
    "Nystrom",
    "NystromTableau",
    "RadauIIA5",
    "Ralston",
    "Rodas4",
    "Rodas5P",
    "Rosenbrock",
    "Rosenbrock23",
    "RosenbrockTableau",
    "Ruth3",
    "Splitting",
    "Step",
    "Stochastic",
    "StochasticTableau",
    "Switching",
    "Symplectic",
    "SymplecticEuler",
    "Tableau",
    "Trapezoid",
    "Tsit5",
    "VelocityVerlet",
    "Vern6",
    "Vern7",
    "Vern8",
    "Vern9",
    "Yoshida6",
]

class Euler(ExplicitRK):
    """The simplest method; a baseline, and the limit of every other as dt goes to 0.

    Order 1, 1 stage.

    Reference: euler1768.

    Example:
        >>> import diffeq as de
        >>> de.Euler()
        Euler()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Midpoint(ExplicitRK):
    """Two stages of order 2, the first above Euler; exact for the mean slope.

    Order 2(1), 2 stages.

    Reference: runge1895.

    Example:
        >>> import diffeq as de
        >>> de.Midpoint()
        Midpoint()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Heun(ExplicitRK):
    """The explicit trapezoidal rule with Euler inside; also the best SSP method of order 2.

    Order 2(1), 2 stages.

    Reference: heun1900.

    Example:
        >>> import diffeq as de
        >>> de.Heun()
        Heun()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Ralston(ExplicitRK):
    """Two stages of order 2 with the smallest bound on the local error.

    Order 2(1), 2 stages.

    Reference: ralston1962.

    Example:
        >>> import diffeq as de
        >>> de.Ralston()
        Ralston()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class RK4(ExplicitRK):
    """The classical method of order 4, for a fixed dt.

    Order 4, 4 stages.

    Reference: kutta1901.

    Example:
        >>> import diffeq as de
        >>> de.RK4()
        RK4()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Bosh3(ExplicitRK):
    """A pair for loose tolerances and for fields that are not smooth; FSAL.

    Order 3(2), 4 stages.

    Reference: bogacki1989.

    Example:
        >>> import diffeq as de
        >>> de.Bosh3()
        Bosh3()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class BS5(ExplicitRK):
    """A careful pair of order 5 whose error estimate is hard to fool; FSAL.

    Order 5(4), 8 stages.

    Reference: bogacki1996.

    Example:
        >>> import diffeq as de
        >>> de.BS5()
        BS5()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Tsit5(ExplicitRK):
    """The default for problems that are not stiff, at tolerances of 1e-3 to 1e-8; FSAL.

    Order 5(4), 7 stages.

    Reference: tsitouras2011.

    Example:
        >>> import diffeq as de
        >>> de.Tsit5()
        Tsit5()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Dopri5(ExplicitRK):
    """The Dormand-Prince pair, of MATLAB's ode45 and SciPy's RK45; FSAL.

    Order 5(4), 7 stages.

    Reference: dormand1980.

    Example:
        >>> import diffeq as de
        >>> de.Dopri5()
        Dopri5()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Vern6(ExplicitRK):
    """Verner's most efficient pair of order 6, for 1e-6 to 1e-10 in double precision; FSAL.

    Order 6(5), 9 stages.

    Reference: verner2010.

    Example:
        >>> import diffeq as de
        >>> de.Vern6()
        Vern6()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Vern7(ExplicitRK):
    """Verner's most efficient pair of order 7, for tolerances of 1e-8 to 1e-12.

    Order 7(6), 10 stages.

    Reference: verner2010.

    Example:
        >>> import diffeq as de
        >>> de.Vern7()
        Vern7()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Vern8(ExplicitRK):
    """Verner's most efficient pair of order 8, for tolerances below 1e-10 in double precision.

    Order 8(7), 13 stages.

    Reference: verner2010.

    Example:
        >>> import diffeq as de
        >>> de.Vern8()
        Vern8()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Vern9(ExplicitRK):
    """Verner's most efficient pair of order 9, for reference solutions.

    Order 9(8), 16 stages.

    Reference: verner2010.

    Example:
        >>> import diffeq as de
        >>> de.Vern9()
        Vern9()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Dopri8(ExplicitRK):
    """DOP853 of Hairer, Norsett and Wanner, with estimates of orders 5 and 3 that it blends.

    Order 8(5), 12 stages.

    Reference: hairer1993.

    Example:
        >>> import diffeq as de
        >>> de.Dopri8()
        Dopri8()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class SSPRK33(ExplicitRK):
    """Strong stability preserving in three stages, with SSP coefficient 1.

    Order 3, 3 stages.

    Reference: shu1988.

    Example:
        >>> import diffeq as de
        >>> de.SSPRK33()
        SSPRK33()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class SSPRK43(ExplicitRK):
    """Strong stability preserving in four stages, with SSP coefficient 2 and an error estimate.

    Order 3(2), 4 stages.

    Reference: fekete2022.

    Example:
        >>> import diffeq as de
        >>> de.SSPRK43()
        SSPRK43()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class SSPRK104(ExplicitRK):
    """Strong stability preserving of order 4 in ten stages, with SSP coefficient 6.

    Order 4, 10 stages.

    Reference: ketcheson2008.

    Example:
        >>> import diffeq as de
        >>> de.SSPRK104()
        SSPRK104()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Rosenbrock23(Rosenbrock):
    """MATLAB's ode23s: for stiff problems at loose tolerances; of order 2 with any Jacobian.

    Order 2(3), 3 stages.

    Reference: shampine1997.

    Example:
        >>> import diffeq as de
        >>> de.Rosenbrock23()
        Rosenbrock23()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Rodas4(Rosenbrock):
    """Stiffly accurate and L-stable, for stiff problems and index 1 at medium tolerances.

    Order 4(3), 6 stages.

    Reference: hairer1996.

    Example:
        >>> import diffeq as de
        >>> de.Rodas4()
        Rodas4()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Rodas5P(Rosenbrock):
    """The default for stiff problems and for mass matrices: stiffly accurate and L-stable.

    Order 5(4), 8 stages.

    Reference: steinebach2023.

    Example:
        >>> import diffeq as de
        >>> de.Rodas5P()
        Rodas5P()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class ImplicitEuler(DIRK):
    """The most robust method for very stiff problems at loose tolerances; L-stable.

    Order 1(2), 2 stages.

    Reference: hairer1996.

    Example:
        >>> import diffeq as de
        >>> de.ImplicitEuler()
        ImplicitEuler()
    """

    def __init__(self, *, linear: lineax.AbstractLinearSolver | Krylov | None = None) -> None: ...

class ImplicitMidpoint(DIRK):
    """Symmetric, symplectic, and keeps every quadratic invariant, for a fixed dt; A-stable.

    Order 2, 1 stage.

    Reference: hairer2006.

    Example:
        >>> import diffeq as de
        >>> de.ImplicitMidpoint()
        ImplicitMidpoint()
    """

    def __init__(self, *, linear: lineax.AbstractLinearSolver | Krylov | None = None) -> None: ...

class Trapezoid(DIRK):
    """The rule of Crank and Nicolson, symmetric, for a fixed dt; A-stable.

    Order 2, 2 stages.

    Reference: crank1947.

    Example:
        >>> import diffeq as de
        >>> de.Trapezoid()
        Trapezoid()
    """

    def __init__(self, *, linear: lineax.AbstractLinearSolver | Krylov | None = None) -> None: ...

class TRBDF2(DIRK):
    """The trapezoidal rule, then BDF2: for loose tolerances and rough fields; L-stable.

    Order 2(3), 3 stages.

    Reference: hosea1996.

    Example:
        >>> import diffeq as de
        >>> de.TRBDF2()
        TRBDF2()
    """

    def __init__(self, *, linear: lineax.AbstractLinearSolver | Krylov | None = None) -> None: ...

class Kvaerno3(DIRK):
    """Both its solutions are stiffly accurate, for loose tolerances; L-stable.

    Order 3(2), 4 stages.

    Reference: kvaerno2004.

    Example:
        >>> import diffeq as de
        >>> de.Kvaerno3()
        Kvaerno3()
    """

    def __init__(self, *, linear: lineax.AbstractLinearSolver | Krylov | None = None) -> None: ...

class Kvaerno5(DIRK):
    """Both its solutions are stiffly accurate, for tolerances of 1e-5 to 1e-10; L-stable.

    Order 5(4), 7 stages.

    Reference: kvaerno2004.

    Example:
        >>> import diffeq as de
        >>> de.Kvaerno5()
        Kvaerno5()
    """

    def __init__(self, *, linear: lineax.AbstractLinearSolver | Krylov | None = None) -> None: ...

class KenCarp3(DIRK):
    """ARK3(2)4L[2]SA, stiff alone or the stiff part of a split problem; L-stable.

    Order 3(2), 4 stages.

    Reference: kennedy2003.

    Example:
        >>> import diffeq as de
        >>> de.KenCarp3()
        KenCarp3()
    """

    def __init__(self, *, linear: lineax.AbstractLinearSolver | Krylov | None = None) -> None: ...

class KenCarp4(DIRK):
    """ARK4(3)6L[2]SA, stiff alone or the stiff part of a split problem; L-stable.

    Order 4(3), 6 stages.

    Reference: kennedy2003.

    Example:
        >>> import diffeq as de
        >>> de.KenCarp4()
        KenCarp4()
    """

    def __init__(self, *, linear: lineax.AbstractLinearSolver | Krylov | None = None) -> None: ...

class KenCarp5(DIRK):
    """ARK5(4)8L[2]SA, stiff alone or the stiff part of a split problem; L-stable.

    Order 5(4), 8 stages.

    Reference: kennedy2003.

    Example:
        >>> import diffeq as de
        >>> de.KenCarp5()
        KenCarp5()
    """

    def __init__(self, *, linear: lineax.AbstractLinearSolver | Krylov | None = None) -> None: ...

class RadauIIA5(FIRK):
    """Collocation of order 5, for very stiff problems, DAEs and tight tolerances; L-stable.

    Order 5(3), 4 stages.

    Reference: hairer1996.

    Example:
        >>> import diffeq as de
        >>> de.RadauIIA5()
        RadauIIA5()
    """

    def __init__(self) -> None: ...

class SymplecticEuler(Symplectic):
    """One kick, one drift: the simplest symplectic method.

    Order 1, 1 stage.

    Reference: devogelaere1956.

    Example:
        >>> import diffeq as de
        >>> de.SymplecticEuler()
        SymplecticEuler()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class VelocityVerlet(Symplectic):
    """Half a kick, a drift, half a kick: the leapfrog of molecular dynamics; symmetric.

    Order 2, 2 stages.

    Reference: verlet1967.

    Example:
        >>> import diffeq as de
        >>> de.VelocityVerlet()
        VelocityVerlet()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Ruth3(Symplectic):
    """The first symplectic method of order 3, in three stages with simple fractions.

    Order 3, 3 stages.

    Reference: ruth1983.

    Example:
        >>> import diffeq as de
        >>> de.Ruth3()
        Ruth3()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class ForestRuth(Symplectic):
    """Three leapfrogs, the middle one backwards, for order 4; symmetric, drifts first.

    Order 4, 4 stages.

    Reference: forest1990.

    Example:
        >>> import diffeq as de
        >>> de.ForestRuth()
        ForestRuth()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class CandyRoz4(Symplectic):
    """Order 4 for separable Hamiltonians, time-dependent ones too; equals ForestRuth.

    Order 4, 4 stages.

    Reference: candy1991.

    Example:
        >>> import diffeq as de
        >>> de.CandyRoz4()
        CandyRoz4()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class McAte5(Symplectic):
    """Six stages of order 5 where the kinetic energy is p²/2m, without t; not symmetric.

    Order 5, 6 stages.

    Reference: mclachlan1992.

    Example:
        >>> import diffeq as de
        >>> de.McAte5()
        McAte5()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class Yoshida6(Symplectic):
    """Seven leapfrogs for order 6; symmetric.

    Order 6, 8 stages.

    Reference: yoshida1990.

    Example:
        >>> import diffeq as de
        >>> de.Yoshida6()
        Yoshida6()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class KahanLi8(Symplectic):
    """Seventeen leapfrogs for order 8, for orbits over long times; symmetric.

    Order 8, 18 stages.

    Reference: kahan1997.

    Example:
        >>> import diffeq as de
        >>> de.KahanLi8()
        KahanLi8()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class DPRKN6(Nystrom):
    """The pair of Dormand and Prince for x'' = f(t, x), no velocity in f; FSAL.

    Order 6(4), 6 stages.

    Reference: dormand1987.

    Example:
        >>> import diffeq as de
        >>> de.DPRKN6()
        DPRKN6()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class SRIW1(SRI):
    """Rößler's method of order 3/2 for diagonal and scalar noise, with simple fractions.

    Order 1.5, 4 stages.

    Reference: rossler2010.

    Example:
        >>> import diffeq as de
        >>> de.SRIW1()
        SRIW1()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class SOSRI(SRI):
    """The default for diagonal and scalar noise: order 3/2 and a large region of stability.

    Order 1.5, 4 stages.

    Reference: rackauckas2020.

    Example:
        >>> import diffeq as de
        >>> de.SOSRI()
        SOSRI()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class SRA1(SRA):
    """Rößler's method of order 3/2 for additive noise, with two drifts and simple fractions.

    Order 1.5, 2 stages.

    Reference: rossler2010.

    Example:
        >>> import diffeq as de
        >>> de.SRA1()
        SRA1()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...

class SOSRA(SRA):
    """The default for additive noise of any kind: order 3/2 and a large region of stability.

    Order 1.5, 3 stages.

    Reference: rackauckas2020.

    Example:
        >>> import diffeq as de
        >>> de.SOSRA()
        SOSRA()
    """

    def __init__(self, *, stages: Literal["loop", "unrolled"] | None = None) -> None: ...
