"""Fitting models to data."""

from .fit import Fit, fit
from .loss import mse

__all__ = ["Fit", "fit", "mse"]
