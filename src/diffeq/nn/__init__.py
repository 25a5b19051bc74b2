"""Layers: a network in a differential equation, as an Equinox module that any network can use."""

from .augmented import Augmented
from .basis import Basis, Chebyshev, Cos, Fourier, Legendre, Polynomial, Sin, TensorLayer
from .cde import NeuralCDE, pad_series
from .dae import NeuralDAE
from .dde import NeuralDDE
from .flow import FFJORD, Regularised
from .hamiltonian import HamiltonianNN
from .layer import Layer
from .ode import NeuralODE
from .sde import NeuralSDE
from .second_order import SecondOrder
from .spline import Spline

__all__ = [
    "FFJORD",
    "Augmented",
    "Basis",
    "Chebyshev",
    "Cos",
    "Fourier",
    "HamiltonianNN",
    "Layer",
    "Legendre",
    "NeuralCDE",
    "NeuralDAE",
    "NeuralDDE",
    "NeuralODE",
    "NeuralSDE",
    "Polynomial",
    "Regularised",
    "SecondOrder",
    "Sin",
    "Spline",
    "TensorLayer",
    "pad_series",
]
