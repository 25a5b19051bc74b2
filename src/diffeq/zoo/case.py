"""The class of the members of the zoo, and the register of all of them.

A case is a problem and what is known about its solution: reference states, computed once by
another solver in 40 digits or more and stored as JSON; an analytic solution where there is
one; quantities that the flow preserves.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from diffeq import problems


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """States of the true solution, and how they are known.

    The problem that they solve is the one a float64 solver sees: y0, args and constants are the
    doubles, taken as exact. `ys` is rounded to doubles and otherwise right, so an error against
    it is the solver's own, down to `amplification` × the rounding unit.

    Attributes:
        ts: a quarter, a half, three quarters and the end of the interval.
        ys: the states there.
        how: solver, tolerance, precision.
        date: of the computation.
        agreement: by name of the other computation, the largest distance from it, relative to the
            largest component of the state at the same time.
        amplification: the maximum norm of ∂y(t1)/∂y0. A perturbation δ of the start arrives as up
            to amplification × δ: no float64 solver can be asked for less than some 1e-16 times it.

    Example:
        >>> import diffeq as de
        >>> reference = de.zoo.lotka_volterra().reference
        >>> reference.ts.tolist(), reference.ys.shape
        ([2.5, 5.0, 7.5, 10.0], (4, 2))

    """

    ts: Float64[np.ndarray, " rows"]
    ys: Float64[np.ndarray, "rows n"]
    how: str
    date: str
    agreement: Mapping[str, float]
    amplification: float

    @property
    def y1(self) -> Float64[np.ndarray, " n"]:
        """The state at the end of the interval."""
        return self.ys[-1]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A problem whose solution is known.

    `y0` and `args` are numpy arrays in double precision, whatever JAX is set to: `problem()` is
    where they become JAX arrays.

    Attributes:
        name: its name in the register, and among the stored references.
        title: one line for a table.
        field: the right-hand side f(t, y, args).
        y0: the start, a vector.
        tspan: the interval.
        args: the parameters, a vector, or None.
        source: a key of `docs/references.bib`.
        exact: t ↦ y(t), where the solution is known in closed form; in numpy.
        invariants: functions (t, y, args) that are constant along a solution.
        hamiltonian: for a mechanical system with the state (q, p), its kinetic(t, p, args) and
            potential(t, q, args) energy.
        stiff: it wants an implicit method.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.spiral()
        >>> sol = de.solve(case.problem(), rtol=1e-5, atol=1e-7)
        >>> bool(abs(sol.y1 - case.reference.y1).max() < 1e-3)
        True

    """

    name: str
    title: str
    field: Callable[..., Any]
    y0: Float64[np.ndarray, " n"]
    tspan: tuple[float, float]
    source: str
    args: Float64[np.ndarray, " k"] | None = None
    exact: Callable[[float], Float64[np.ndarray, " n"]] | None = None
    invariants: Mapping[str, Callable[..., Any]] = dataclasses.field(default_factory=dict)
    hamiltonian: tuple[Callable[..., Any], Callable[..., Any]] | None = None
    stiff: bool = False

    @property
    def reference(self) -> Reference:
        """The stored solution."""
        return references()[self.name]

    def problem(self) -> "problems.ODEProblem":
        """The problem, of first order, in the default precision of JAX."""
        return problems.ODEProblem(self.field, jnp.asarray(self.y0), self.tspan, self._args())

    def hamiltonian_problem(self) -> "problems.HamiltonianProblem":
        """The case as a Hamiltonian problem, for symplectic methods: separable, with state (q, p).

        Raises:
            TypeError: the case is not a mechanical system.

        """
        if self.hamiltonian is None:
            raise TypeError(f"{self.name} has no Hamiltonian; use problem()")
        q0, p0 = jnp.split(jnp.asarray(self.y0), 2)
        energy = problems.Separable(*self.hamiltonian)
        return problems.HamiltonianProblem(energy, q0, p0, self.tspan, self._args())

    def _args(self):
        return None if self.args is None else jnp.asarray(self.args)


def vector(*values: float) -> Float64[np.ndarray, " n"]:
    """A read-only vector of doubles."""
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return array


_FILES = ("references.json", "references_stiff.json", "references_network.json")


@functools.cache
def references() -> Mapping[str, Reference]:
    """All stored solutions, by the name of their case; read when first asked for."""
    files = (resources.files("diffeq.zoo") / name for name in _FILES)
    every = [json.loads(file.read_text("utf-8")) for file in files]
    return {
        name: Reference(
            ts=vector(*entry["ts"]),
            ys=np.array(entry["ys"], dtype=np.float64),
            how=entry["how"],
            date=stored["date"],
            agreement=MappingProxyType(entry["agreement"]),
            amplification=entry["amplification"],
        )
        for stored in every
        for name, entry in stored["cases"].items()
    }


_register: dict[str, Callable[[], Case]] = {}


def register(make: Callable[[], Case]) -> Callable[[], Case]:
    """Enter a function that makes a case; a decorator."""
    _register[make.__name__] = make
    return make


def cases() -> Iterator[Case]:
    """Every case that is looked up by its name. Large, delayed and noisy ones are functions, such
    as `de.zoo.egfr_network()`.

    >>> import diffeq as de
    >>> [case.name for case in de.zoo.cases() if case.hamiltonian]
    ['henon_heiles']
    """
    return (make() for make in _register.values())


def case(name: str) -> Case:
    """The case of that name.

    Raises:
        KeyError: there is none; large, delayed and noisy ones are functions, as in `cases`.

    Example:
        >>> import diffeq as de
        >>> de.zoo.case("lorenz").title
        'Lorenz attractor'

    """
    if name not in _register:
        raise KeyError(
            f"no case {name!r} in the zoo; there are {', '.join(_register)}. Large, delayed and "
            "noisy ones are functions, such as de.zoo.egfr_network()."
        )
    return _register[name]()
