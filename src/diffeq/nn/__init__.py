"""Layers: a network in a differential equation, as an Equinox module that any network can use."""

from .augmented import Augmented
from .basis import Basis, Chebyshev, Cos, Fourier, Legendre, Polynomial, Sin, TensorLayer
from .cde import NeuralCDE, pad_series
from .dae import NeuralDAE
from .dde import NeuralDDE
from .encoders import AttentionEncoder, GRUEncoder, ODERNNEncoder
from .flow import FFJORD, Regularised
from .graph_ode import GraphODE
from .gru_ode import GRUODE, Filtered
from .hamiltonian import HamiltonianNN
from .latent_ode import LatentODE
from .latent_sde import LatentSDE
from .layer import Layer
from .observation import ELBO, Gaussian
from .ode import NeuralODE
from .sde import NeuralSDE
from .second_order import SecondOrder
from .spline import Spline

__all__ = [
    "ELBO",
    "FFJORD",
    "GRUODE",
    "AttentionEncoder",
    "Augmented",
    "Basis",
    "Chebyshev",
    "Cos",
    "Filtered",
    "Fourier",
    "GRUEncoder",
    "Gaussian",
    "GraphODE",
    "HamiltonianNN",
    "LatentODE",
    "LatentSDE",
    "Layer",
    "Legendre",
    "NeuralCDE",
    "NeuralDAE",
    "NeuralDDE",
    "NeuralODE",
    "NeuralSDE",
    "ODERNNEncoder",
    "Polynomial",
    "Regularised",
    "SecondOrder",
    "Sin",
    "Spline",
    "TensorLayer",
    "pad_series",
]
