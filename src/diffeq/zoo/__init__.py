"""Problems with reference solutions, used by tests, docs and benchmarks alike.

`cases()` yields all of them, a function of its name makes each, and `detest("A1")` … `detest("E5")`
the problems of the non-stiff DETEST. `delay_cases()` yields the delay equations.

>>> import diffeq as de
>>> case = de.zoo.lotka_volterra()
>>> problem = case.problem()
>>> case.reference.y1  # the end, right in all digits of a double
array([1.0..., 0.9...])
"""

from diffeq.zoo.case import Case, Reference, case, cases
from diffeq.zoo.delays import (
    DelayCase,
    delay_cases,
    delayed_decay,
    hutchinson,
    mackey_glass,
    neves,
    pantograph,
)
from diffeq.zoo.mechanics import arenstorf, henon_heiles, pleiades
from diffeq.zoo.nonstiff import detest
from diffeq.zoo.oscillators import (
    brusselator,
    brusselator_diffusion,
    lorenz,
    lotka_volterra,
    spiral,
    van_der_pol,
)

__all__ = [
    "Case",
    "DelayCase",
    "Reference",
    "arenstorf",
    "brusselator",
    "brusselator_diffusion",
    "case",
    "cases",
    "delay_cases",
    "delayed_decay",
    "detest",
    "henon_heiles",
    "hutchinson",
    "lorenz",
    "lotka_volterra",
    "mackey_glass",
    "neves",
    "pantograph",
    "pleiades",
    "spiral",
    "van_der_pol",
]
