"""PyTorch by one import: the functions of torchdiffeq and torchsde, and modules, by `diffeq.solve`.

`import diffeq` does not import torch; `import diffeq.torch` does.
"""

from . import versions as _versions  # noqa: F401 - before all that imports torch
from .layers import Layer, NeuralODE
from .odeint import odeint, odeint_adjoint, odeint_event
from .sdeint import sdeint, sdeint_adjoint
from .solve import Solution, solve

__all__ = [
    "Layer",
    "NeuralODE",
    "Solution",
    "odeint",
    "odeint_adjoint",
    "odeint_event",
    "sdeint",
    "sdeint_adjoint",
    "solve",
]
