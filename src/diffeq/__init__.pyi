# Written by tools/stubs.py. Do not edit: run it again.
"""Neural networks in differential equations, and the other way round, on JAX."""

from . import datasets, interp, nn, plot, stats, testing, zoo
from .adjoints.backsolve import Backsolve
from .adjoints.check_gradient import GradientReport, check_gradient
from .adjoints.discrete import Discrete
from .adjoints.forward import Forward
from .adjoints.gauss import Gauss
from .adjoints.steady_state import SteadyState
from .algebra.jacobian_structure import Banded, Block, Sparse
from .algebra.preconditioner import ILU0, Krylov
from .consistent import consistent
from .controllers.base import Controller, Verdict
from .controllers.fixed import Fixed
from .controllers.mean_square import MeanSquare
from .controllers.pid import PI, PID, I
from .core.packing import hold
from .core.status import Status
from .ensemble.ensemble import solve_ensemble
from .events.event import AfterStep, Event, Periodic, PresetTimes, doses
from .interp.hold import infusions
from .methods import (
    BDF,
    BS5,
    DIRK,
    DPRKN6,
    FIRK,
    METHODS,
    RK4,
    SOSRA,
    SOSRI,
    SRA,
    SRA1,
    SRI,
    SRIW1,
    SSPRK33,
    SSPRK43,
    SSPRK104,
    TRBDF2,
    Bosh3,
    CandyRoz4,
    Dopri5,
    Dopri8,
    Euler,
    EulerHeun,
    EulerMaruyama,
    ExplicitRK,
    ForestRuth,
    Hermite,
    Heun,
    ImplicitEM,
    ImplicitEuler,
    ImplicitMidpoint,
    Interpolant,
    KahanLi8,
    KenCarp3,
    KenCarp4,
    KenCarp5,
    Kvaerno3,
    Kvaerno5,
    McAte5,
    Method,
    Midpoint,
    Milstein,
    Nystrom,
    NystromTableau,
    RadauIIA5,
    Ralston,
    Rodas4,
    Rodas5P,
    Rosenbrock,
    Rosenbrock23,
    RosenbrockTableau,
    Ruth3,
    Splitting,
    Step,
    Stochastic,
    StochasticTableau,
    Switching,
    Symplectic,
    SymplecticEuler,
    Tableau,
    Trapezoid,
    Tsit5,
    VelocityVerlet,
    Vern6,
    Vern7,
    Vern8,
    Vern9,
    Yoshida6,
)
from .methods.interpolant import Polynomial
from .problems.base import Problem
from .problems.cde import CDEProblem
from .problems.dae import DAEProblem, ImplicitDAEProblem
from .problems.dde import DDEProblem
from .problems.jump import Jump, JumpProblem
from .problems.ode import ODEProblem, SplitODEProblem
from .problems.sdde import SDDEProblem
from .problems.sde import SDEProblem
from .problems.second_order import HamiltonianProblem, SecondOrderProblem, Separable
from .problems.steady_state import SteadyStateProblem
from .solution import Solution, SolveError
from .solve import solve
from .stepping import State, advance, init, step
from .train.collocation import Collocation, collocate
from .train.curriculum import fit_growing
from .train.fit import fit
from .train.loss import mse
from .train.multiple_shooting import Shooting, multiple_shooting
from .train.result import Fit
from .train.starts import fit_starts

__version__: str

__all__ = [
    "BDF",
    "BS5",
    "DIRK",
    "DPRKN6",
    "FIRK",
    "ILU0",
    "METHODS",
    "PI",
    "PID",
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
    "AfterStep",
    "Backsolve",
    "Banded",
    "Block",
    "Bosh3",
    "CDEProblem",
    "CandyRoz4",
    "Collocation",
    "Controller",
    "DAEProblem",
    "DDEProblem",
    "Discrete",
    "Dopri5",
    "Dopri8",
    "Euler",
    "EulerHeun",
    "EulerMaruyama",
    "Event",
    "ExplicitRK",
    "Fit",
    "Fixed",
    "ForestRuth",
    "Forward",
    "Gauss",
    "GradientReport",
    "HamiltonianProblem",
    "Hermite",
    "Heun",
    "I",
    "ImplicitDAEProblem",
    "ImplicitEM",
    "ImplicitEuler",
    "ImplicitMidpoint",
    "Interpolant",
    "Jump",
    "JumpProblem",
    "KahanLi8",
    "KenCarp3",
    "KenCarp4",
    "KenCarp5",
    "Krylov",
    "Kvaerno3",
    "Kvaerno5",
    "McAte5",
    "MeanSquare",
    "Method",
    "Midpoint",
    "Milstein",
    "Nystrom",
    "NystromTableau",
    "ODEProblem",
    "Periodic",
    "Polynomial",
    "PresetTimes",
    "Problem",
    "RadauIIA5",
    "Ralston",
    "Rodas4",
    "Rodas5P",
    "Rosenbrock",
    "Rosenbrock23",
    "RosenbrockTableau",
    "Ruth3",
    "SDDEProblem",
    "SDEProblem",
    "SecondOrderProblem",
    "Separable",
    "Shooting",
    "Solution",
    "SolveError",
    "Sparse",
    "SplitODEProblem",
    "Splitting",
    "State",
    "Status",
    "SteadyState",
    "SteadyStateProblem",
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
    "Verdict",
    "Vern6",
    "Vern7",
    "Vern8",
    "Vern9",
    "Yoshida6",
    "advance",
    "check_gradient",
    "collocate",
    "consistent",
    "datasets",
    "doses",
    "fit",
    "fit_growing",
    "fit_starts",
    "hold",
    "infusions",
    "init",
    "interp",
    "mse",
    "multiple_shooting",
    "nn",
    "plot",
    "solve",
    "solve_ensemble",
    "stats",
    "step",
    "testing",
    "zoo",
]
