"""Layers: a network in a differential equation, as an Equinox module that any network can use."""

from .dde import NeuralDDE
from .layer import Layer
from .ode import NeuralODE

__all__ = ["Layer", "NeuralDDE", "NeuralODE"]
