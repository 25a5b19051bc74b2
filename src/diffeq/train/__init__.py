"""Fitting models to data."""

from .collocation import Collocation, collocate
from .curriculum import fit_growing
from .fit import fit
from .loss import mse
from .multiple_shooting import Shooting, multiple_shooting
from .result import Fit
from .starts import fit_starts

__all__ = [
    "Collocation",
    "Fit",
    "Shooting",
    "collocate",
    "fit",
    "fit_growing",
    "fit_starts",
    "mse",
    "multiple_shooting",
]
