"""A network of thousands of reactions, which a few rules make."""

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, Int

from diffeq import algebra
from diffeq.zoo.case import vector
from diffeq.zoo.large import LargeCase

__all__ = ["Reactions", "egfr_network", "egfr_reactions"]

# Per second, or per second and molecule in a cell; numbered as in the paper, p forth and m back.
_RATES = {
    "kp1": 1.667e-6, "km1": 0.06, "kp2": 5.556e-6, "km2": 0.1, "kp3": 0.5, "km3": 4.505,
    "kp14": 3.0, "km14": 0.03, "km16": 0.005, "kp9": 8.333e-7, "km9": 0.05, "kp10": 5.556e-6,
    "km10": 0.06, "kp11": 1.25e-6, "km11": 0.03, "kp13": 2.5e-5, "km13": 0.6, "kp15": 2.5e-7,
    "km15": 0.3, "kp17": 1.667e-6, "km17": 0.1, "kp18": 2.5e-7, "km18": 0.3, "kp19": 5.556e-6,
    "km19": 0.0214, "kp20": 6.667e-8, "km20": 0.12, "kp24": 5e-6, "km24": 0.0429,
    "kp21": 1.667e-6, "km21": 0.1, "kp23": 1.167e-5, "km23": 0.1, "kp12": 5.556e-8,
    "km12": 0.0015, "kp22": 1.667e-5, "km22": 0.064,
}  # fmt: skip
_TOTALS = {"EGF": 1.2e6, "EGFR": 1.8e5, "Shc": 2.7e5, "Grb2": 1.49e5, "Sos": 6.2e4}

_FREE = ("EGF", "Grb2", "Shc", "Sos", "Grb2-Sos", "ShcP", "ShcP-Grb2", "ShcP-Grb2-Sos")
_Y1068 = ("Y", "pY", "Grb2", "Grb2-Sos")
_Y1148 = ("Y", "pY", "Shc", "ShcP", "ShcP-Grb2", "ShcP-Grb2-Sos")
_RECEPTORS = tuple((a, b) for a in _Y1068 for b in _Y1148)


class _Rule(NamedTuple):
    """A state, the molecule that binds to it if one does, the state after; the rates forth and
    back, an empty one of what does not happen.
    """

    before: str
    binds: str
    after: str
    forth: str
    back: str


_IN_CYTOSOL = (
    _Rule("ShcP", "", "Shc", "km16", ""),
    _Rule("Sos", "Grb2", "Grb2-Sos", "kp12", "km12"),
    _Rule("ShcP", "Grb2", "ShcP-Grb2", "kp21", "km21"),
    _Rule("ShcP", "Grb2-Sos", "ShcP-Grb2-Sos", "kp23", "km23"),
    _Rule("ShcP-Grb2", "Sos", "ShcP-Grb2-Sos", "kp22", "km22"),
)
_AT_Y1068 = (
    _Rule("Y", "", "pY", "kp3", "km3"),
    _Rule("pY", "Grb2", "Grb2", "kp9", "km9"),
    _Rule("pY", "Grb2-Sos", "Grb2-Sos", "kp11", "km11"),
    _Rule("Grb2", "Sos", "Grb2-Sos", "kp10", "km10"),
)
_AT_Y1148 = (
    _Rule("Y", "", "pY", "kp3", "km3"),
    _Rule("Shc", "", "ShcP", "kp14", "km14"),
    _Rule("pY", "Shc", "Shc", "kp13", "km13"),
    _Rule("pY", "ShcP", "ShcP", "kp15", "km15"),
    _Rule("pY", "ShcP-Grb2", "ShcP-Grb2", "kp18", "km18"),
    _Rule("pY", "ShcP-Grb2-Sos", "ShcP-Grb2-Sos", "kp20", "km20"),
    _Rule("ShcP", "Grb2", "ShcP-Grb2", "kp17", "km17"),
    _Rule("ShcP", "Grb2-Sos", "ShcP-Grb2-Sos", "kp24", "km24"),
    _Rule("ShcP-Grb2", "Sos", "ShcP-Grb2-Sos", "kp19", "km19"),
)
_BY_NEIGHBOUR = ("kp3", "kp14")  # a receptor of a dimer phosphorylates what is at the other one


_Receptor = tuple[str, str]  # the states of Y1068 and of Y1148


class _Step(NamedTuple):
    """A reaction A + B ⇌ C or A ⇌ C between species, its rates, and in how many ways it happens."""

    first: str
    second: str
    product: str
    forth: str
    back: str
    ways_forth: float = 1.0
    ways_back: float = 1.0


def _single(receptor: _Receptor) -> str:
    return f"EGFR({receptor[0]}, {receptor[1]})"


def _bound(receptor: _Receptor) -> str:
    return f"EGF-{_single(receptor)}"


def _dimer(one: _Receptor, other: _Receptor) -> str:
    return " ".join(map(_bound, sorted((one, other), key=_RECEPTORS.index)))


def _pairs() -> Iterator[tuple[_Receptor, _Receptor]]:
    return itertools.combinations_with_replacement(_RECEPTORS, 2)


@functools.cache
def _species() -> dict[str, int]:
    """The numbers of all species, by their names."""
    names = itertools.chain(
        _FREE,
        map(_single, _RECEPTORS),
        map(_bound, _RECEPTORS),
        itertools.starmap(_dimer, _pairs()),
    )
    return {name: i for i, name in enumerate(names)}


def _receptor_changes() -> Iterator[tuple[_Receptor, _Receptor, _Rule]]:
    """All changes at the two sites of a receptor: before, after, and by which rule."""
    for y1068, y1148 in _RECEPTORS:
        before = y1068, y1148
        yield from ((before, (x.after, y1148), x) for x in _AT_Y1068 if x.before == y1068)
        yield from ((before, (y1068, x.after), x) for x in _AT_Y1148 if x.before == y1148)


def _steps() -> Iterator[_Step]:
    """All reactions, those of both directions in one.

    Two like receptors meet in half as many ways as two unlike ones, and in a dimer of two like
    ones either may be the one that changes.
    """
    for before, binds, after, forth, back in _IN_CYTOSOL:
        yield _Step(before, binds, after, forth, back)
    for r in _RECEPTORS:
        yield _Step(_single(r), "EGF", _bound(r), "kp1", "km1")
    for r, s in _pairs():
        yield _Step(_bound(r), _bound(s), _dimer(r, s), "kp2", "km2", 0.5 if r == s else 1.0)
    for r, q, (_, binds, _, forth, back) in _receptor_changes():
        alone = "" if forth in _BY_NEIGHBOUR else forth
        yield _Step(_single(r), binds, _single(q), alone, back)
        yield _Step(_bound(r), binds, _bound(q), alone, back)
        for s in _RECEPTORS:
            ways = 1.0 + (s == r), 1.0 + (s == q)
            yield _Step(_dimer(r, s), binds, _dimer(q, s), forth, back, *ways)


class Reactions(NamedTuple):
    """Reactions A + B ⇌ C and A ⇌ C as arrays: the numbers of A, B and C, B that of no species in
    A ⇌ C; the numbers of both rates, that of no rate for what does not happen; and the ways.
    """

    species: Int[np.ndarray, "m 3"]
    rates: Int[np.ndarray, "m 2"]
    ways: Float64[np.ndarray, "m 2"]

    def changes(self, n: int) -> tuple[Int[np.ndarray, " k"], ...]:
        """Which species changes (in order), by which reaction, and by how many molecules."""
        reactions = np.repeat(np.arange(len(self.species)), 3)
        species, signs = self.species.ravel(), np.tile([-1, -1, 1], len(self.species))
        order = np.argsort(species, kind="stable")
        order = order[species[order] < n]
        return species[order], reactions[order], signs[order]

    def pattern(self, n: int) -> algebra.Pattern:
        """Every species of a reaction changes with the reactants of the directions it has."""
        there = (self.rates < len(_RATES))[:, [0, 0, 1]]
        seen = np.where(there, self.species, n)
        rows, columns = np.repeat(self.species, 3, axis=1), np.tile(seen, (1, 3))
        known = (rows < n) & (columns < n)
        return algebra.Pattern(n, rows[known], columns[known])

    def directions(self) -> int:
        """The number of reactions, each direction one."""
        return int((self.rates < len(_RATES)).sum())


@functools.cache
def egfr_reactions() -> Reactions:
    """The reactions of `egfr_network`, as arrays."""
    species = {**_species(), "": len(_species())}
    rates = {**{name: i for i, name in enumerate(_RATES)}, "": len(_RATES)}
    steps = list(_steps())
    return Reactions(
        np.array([[species[name] for name in step[:3]] for step in steps]),
        np.array([[rates[name] for name in step[3:5]] for step in steps]),
        np.array([step[5:] for step in steps]),
    )


def _egfr_network(t, y, args):
    """The law of mass action: the flux of each reaction, and the sum of those of each species."""
    network = egfr_reactions()
    first, second, product = network.species.T
    forth, back = (network.ways * jnp.append(args, 0.0)[network.rates]).T
    flux = forth * y[first] * jnp.append(y, 1.0)[second] - back * y[product]
    species, reactions, signs = network.changes(y.size)
    return jax.ops.segment_sum(signs * flux[reactions], species, y.size, indices_are_sorted=True)


def _counted(site: int, *states: str) -> Float64[np.ndarray, " n"]:
    """The number of receptors in each species with that site in one of these states."""
    found = np.zeros(len(_species()))
    for r in _RECEPTORS:
        if r[site] in states:
            found[_species()[_single(r)]] += 1
            found[_species()[_bound(r)]] += 1
            for s in _RECEPTORS:
                found[_species()[_dimer(r, s)]] += 1 + (r == s)
    return found


def _observables() -> dict[str, Float64[np.ndarray, " n"]]:
    """Sums of species that experiments measure, as weights; by the names of the model's file."""
    names, free = tuple(_species()), dict(zip(_species(), np.eye(len(_species())), strict=True))
    shc = ("Shc", "ShcP", "ShcP-Grb2", "ShcP-Grb2-Sos")
    return {
        "Dimers": np.array([2.0 * (name.count("EGFR") == 2) for name in names]),
        "RP": _counted(0, *_Y1068[1:]) + _counted(1, *_Y1148[1:]),
        "R_Grb2": _counted(0, "Grb2", "Grb2-Sos"),
        "R_G_S": _counted(0, "Grb2-Sos"),
        "R_Shc": _counted(1, "Shc"),
        "R_ShcP": _counted(1, *shc[1:]),
        "R_S_G_S": _counted(1, "ShcP-Grb2-Sos"),
        "ShcP": _counted(1, *shc[1:]) + sum(free[name] for name in shc[1:]),
        "Sos_act": _counted(0, "Grb2-Sos") + _counted(1, "ShcP-Grb2-Sos"),
    }


def _start() -> Float64[np.ndarray, " n"]:
    """EGF comes to cells in which Grb2 and Sos are in equilibrium, and nothing else is bound."""
    grb2, sos = _TOTALS["Grb2"], _TOTALS["Sos"]
    apart = _RATES["km12"] / _RATES["kp12"]
    half = (grb2 + sos + apart) / 2
    both = grb2 * sos / (half + np.sqrt(half**2 - grb2 * sos))
    y0 = np.zeros(len(_species()))
    for name, count in {
        "EGF": _TOTALS["EGF"], _single(("Y", "Y")): _TOTALS["EGFR"], "Shc": _TOTALS["Shc"],
        "Grb2": grb2 - both, "Sos": sos - both, "Grb2-Sos": both,
    }.items():  # fmt: skip
        y0[_species()[name]] = count
    return y0


def egfr_network() -> LargeCase:
    """Early events after EGF binds to its receptor: 356 species in 3,749 reactions, of 20 rules.

    The receptor binds EGF, two of them make a dimer, and in it each phosphorylates two tyrosines of
    the other. Y1068 then binds Grb2, alone or with Sos; Y1148 binds Shc, which is phosphorylated
    there and binds Grb2 and Sos in turn. A receptor has 4 · 6 states, so that 24 are free, 24 have
    EGF, and 300 are dimers; there are 8 species more. Molecules in a cell over 120 s, from cells
    without EGF; mass action, with 37 rate constants. k₋₂₁ is 0.1 as in the paper: files of the
    model from before 2026 have 0.01.

    Reference: blinov2006.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.egfr_network()
        >>> case.y0.shape, case.jac
        ((356,), Sparse(356×356, 8431 entries))
        >>> int(case.observables["Dimers"] @ case.reference.y1)  # receptors in dimers at the end
        129936
    """
    network, n = egfr_reactions(), len(_species())
    return LargeCase(
        name="egfr_network",
        title=f"EGF receptor, {network.directions():,} reactions, n = {n}",
        field=_egfr_network,
        y0=_start(),
        tspan=(0.0, 120.0),
        args=vector(*_RATES.values()),
        jac=algebra.Sparse(network.pattern(n)),
        source="blinov2006",
        components=tuple(_species()),
        parameters=tuple(_RATES),
        observables=_observables(),
    )
