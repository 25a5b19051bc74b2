"""The hares and lynxes of the Hudson's Bay Company."""

from importlib import resources
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64


class HareLynx(NamedTuple):
    """Yearly counts of pelts, in thousands.

    Attributes:
        years: 1900.0 … 1920.0, as floats, since they are the times of a model.
        hare: pelts of the snowshoe hare, Lepus americanus, in thousands.
        lynx: pelts of the Canada lynx, Lynx canadensis, in thousands.

    Reference: howard2009.

    Example:
        >>> import diffeq as de
        >>> de.datasets.hare_lynx()._fields
        ('years', 'hare', 'lynx')

    """

    years: Float64[np.ndarray, " 21"]
    hare: Float64[np.ndarray, " 21"]
    lynx: Float64[np.ndarray, " 21"]


def hare_lynx() -> HareLynx:
    """Pelts of hare and lynx collected by the Hudson's Bay Company, 1900 to 1920.

    Two cycles of ten years, predator after prey: the series to which the Lotka–Volterra equations
    are fitted. What was counted are pelts sold, not animals.

    Reference: howard2009 for the figures, carpenter2018 for the model.

    >>> import diffeq as de
    >>> data = de.datasets.hare_lynx()
    >>> print(data.years[4], data.hare[4], data.lynx[4])
    1904.0 36.3 59.4
    """
    source = resources.files("diffeq.datasets") / "hare_lynx.csv"
    rows = source.read_text("utf-8").splitlines()
    table = np.loadtxt(rows, delimiter=",", skiprows=3)  # two lines of source, one of names
    return HareLynx(*np.ascontiguousarray(table.T))
