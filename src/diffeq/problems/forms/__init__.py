"""The canonical equations that methods see, over packed arrays: one file for each. A method asks a
form for its slope, its linearisation, its residual in a step; `lower` makes one form of another.
"""

from .base import DifferentialAlgebraic, Form
from .dde import Delayed
from .higher_index import HigherIndex, with_index
from .implicit import Implicit, divide_by_dt
from .linearisation import linearised_field
from .lowering import lower
from .mass import Mass
from .ode import Increments, Ode
from .partitioned import Partitioned
from .sde import Ito, Sde, Stratonovich, apply_diffusion
from .split_ode import Split

__all__ = [
    "Delayed",
    "DifferentialAlgebraic",
    "Form",
    "HigherIndex",
    "Implicit",
    "Increments",
    "Ito",
    "Mass",
    "Ode",
    "Partitioned",
    "Sde",
    "Split",
    "Stratonovich",
    "apply_diffusion",
    "divide_by_dt",
    "linearised_field",
    "lower",
    "with_index",
]
