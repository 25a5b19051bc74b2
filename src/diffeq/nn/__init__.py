"""Layers: a network in a differential equation, as an Equinox module that any network can use."""

from .layer import Layer
from .ode import NeuralODE
from .sde import NeuralSDE

__all__ = ["Layer", "NeuralODE", "NeuralSDE"]
