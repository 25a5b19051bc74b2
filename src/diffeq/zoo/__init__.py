"""Problems with reference solutions, used by tests, docs and benchmarks alike.

`cases()` yields all of them, a function of its name makes each, and `detest("A1")` … `detest("E5")`
the problems of the non-stiff DETEST. `noisy_cases()` yields the stochastic ones, and
`delay_cases()` the delay equations.

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
from diffeq.zoo.large import LargeCase, brusselator_2d, medical_akzo, reaction_diffusion
from diffeq.zoo.mechanics import arenstorf, henon_heiles, pleiades
from diffeq.zoo.networks import egfr_network
from diffeq.zoo.noise import (
    NoisyCase,
    additive_decay,
    bounded_angle,
    geometric_brownian,
    hyperbolic_sine,
    noisy_cases,
    ornstein_uhlenbeck,
    stochastic_lotka_volterra,
    two_noises,
)
from diffeq.zoo.nonstiff import detest
from diffeq.zoo.oscillators import (
    brusselator,
    brusselator_diffusion,
    lorenz,
    lotka_volterra,
    spiral,
    van_der_pol,
)
from diffeq.zoo.stiff import (
    hires,
    oregonator,
    pollution,
    robertson,
    robertson_long,
    van_der_pol_stiff,
)

__all__ = [
    "Case",
    "DelayCase",
    "LargeCase",
    "NoisyCase",
    "Reference",
    "additive_decay",
    "arenstorf",
    "bounded_angle",
    "brusselator",
    "brusselator_2d",
    "brusselator_diffusion",
    "case",
    "cases",
    "delay_cases",
    "delayed_decay",
    "detest",
    "egfr_network",
    "geometric_brownian",
    "henon_heiles",
    "hires",
    "hutchinson",
    "hyperbolic_sine",
    "lorenz",
    "lotka_volterra",
    "mackey_glass",
    "medical_akzo",
    "neves",
    "noisy_cases",
    "oregonator",
    "ornstein_uhlenbeck",
    "pantograph",
    "pleiades",
    "pollution",
    "reaction_diffusion",
    "robertson",
    "robertson_long",
    "spiral",
    "stochastic_lotka_volterra",
    "two_noises",
    "van_der_pol",
    "van_der_pol_stiff",
]
