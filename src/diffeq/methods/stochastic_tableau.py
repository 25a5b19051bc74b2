"""Coefficient tables of stochastic Runge–Kutta methods, in the text format of `tableau.py`."""

from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from .tableau import Matrix, Row, _floats, _padded, _parse_rows, _Text

__all__ = ["StochasticTableau"]

_MATRICES = ("A0", "B0", "A1", "B1")
_ROWS = ("c0", "c1", "alpha", "beta1", "beta2", "beta3", "beta4")


class StochasticTableau(_Text):
    """A stochastic Runge–Kutta method of Rößler's kinds.

    SRI, for diagonal and scalar Itô noise, with I = W, I11 = ½(W² − dt), I111 = (W³ − 3 dt W)/6 and
    I10 = dt(W/2 + H):

    X_i = y + dt Σ_j A0_ij f_j + I10/dt Σ_j B0_ij g_j,   f_i = f(t + c0_i dt, X_i)
    Y_i = y + dt Σ_j A1_ij f_j + √dt Σ_j B1_ij g_j,      g_i = g(t + c1_i dt, Y_i)
    y1 = y + dt Σ α_i f_i + Σ (β1_i I + β2_i I11/√dt + β3_i I10/dt + β4_i I111/dt) g_i

    SRA, for additive noise of any kind, without A1, B1, β3 and β4:

    y1 = y + dt Σ α_i f_i + Σ (β1_i I + β2_i I10/dt) g(t + c1_i dt)

    Rows ``c0``, ``c1``, ``alpha``, ``beta1`` … ``beta4``, and matrices ``A0``, ``B0``, ``A1`` and
    ``B1`` row by row. The header names the orders as ``strong`` and ``weak``. Every array is
    read-only float64; ``exact`` maps the labels to fractions.

    Raises:
        ValueError: a row is missing or too long; or a text cannot be read.

    Reference: rossler2010.

    Example:
        >>> import diffeq as de
        >>> table = de.SRA1().tableau
        >>> table.additive, table.stages, table.strong, table.beta2.tolist()
        (True, 2, 1.5, [-1.0, 1.0])
    """

    @cached_property
    def exact(self) -> dict[str, Any]:
        """Labels to fractions, or rows of fractions."""
        found: dict[str, list[Row]] = {}
        for label, row in _parse_rows(self._body):
            found.setdefault(str(label), []).append(row)
        count = len(found.get("alpha", [()])[0])
        wanted = {*_MATRICES, *_ROWS} if "A1" in found else {"A0", "B0", *_ROWS[:5]}
        if found.keys() != wanted:
            wrong = ", ".join(sorted(found.keys() ^ wanted))
            raise ValueError(f"tableau {self.name}: rows that are missing or not known: {wrong}")
        return {
            label: tuple(_padded(row, count, label) for row in rows)
            if label in _MATRICES
            else _padded(rows[0], count, label)
            for label, rows in found.items()
        }

    def _order(self, kind: str) -> float:
        return float(Fraction(self._header.get(kind, "0")))

    @property
    def strong(self) -> float:
        """Order of the mean error of paths."""
        return self._order("strong")

    @property
    def weak(self) -> float:
        """Order of the error of means."""
        return self._order("weak")

    order = strong

    @cached_property
    def stages(self) -> int:
        return len(self.exact["alpha"])

    @cached_property
    def additive(self) -> bool:
        """True if the tableau is of the kind SRA."""
        return "A1" not in self.exact

    def _row(self, label: str) -> Float[np.ndarray, " s"]:
        return _floats(self.exact[label], (self.stages,))

    def _matrix(self, label: str) -> Float[np.ndarray, "s s"]:
        rows: Matrix = self.exact[label]
        return _floats(rows, (self.stages, self.stages))

    A0 = cached_property(lambda self: self._matrix("A0"))
    B0 = cached_property(lambda self: self._matrix("B0"))
    A1 = cached_property(lambda self: self._matrix("A1"))
    B1 = cached_property(lambda self: self._matrix("B1"))
    c0 = cached_property(lambda self: self._row("c0"))
    c1 = cached_property(lambda self: self._row("c1"))
    alpha = cached_property(lambda self: self._row("alpha"))
    beta1 = cached_property(lambda self: self._row("beta1"))
    beta2 = cached_property(lambda self: self._row("beta2"))
    beta3 = cached_property(lambda self: self._row("beta3"))
    beta4 = cached_property(lambda self: self._row("beta4"))

    def __str__(self) -> str:
        return f"{self._title()}\n{self._body.strip()}"

    def _title(self) -> str:
        return f"{type(self).__name__} {self.name} of order {self.strong:g}"
