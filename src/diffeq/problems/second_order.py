"""Equations of motion: x'' = f(t, x, v, args), and Hamilton's equations."""

from collections.abc import Callable
from typing import ClassVar

from jax.typing import ArrayLike
from jaxtyping import PyTree

from ..core.packing import as_state
from .base import Problem, TimeSpan

__all__ = ["HamiltonianProblem", "SecondOrderProblem", "Separable"]


class SecondOrderProblem(Problem):
    """x'' = f(t, x, v, args), x(t0) = x0, x'(t0) = v0. The state of its solution is (x, v).

    Args:
        f: the acceleration, with the structure and shapes of x. Symplectic and Nyström methods want
            one that does not depend on v; whether it does is found by tracing it.
        x0: positions, any pytree of arrays and numbers; or a function of args that returns it.
        v0: velocities, of the same structure, in units of x over units of t.
        tspan: (t0, t1), or a function of args.
        args: parameters, any pytree.

    Raises:
        TypeError: (by `solve`) x0 and v0 differ in structure or shapes; f returns what does not fit
            x; the method needs an f without v.

    Reference: hairer1993, II.14.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> spring = de.SecondOrderProblem(lambda t, x, v, k: -k * x, 1.0, 0.0, (0.0, 1.0), 1.0)
        >>> x, v = de.solve(spring, de.DPRKN6(), rtol=1e-6, atol=1e-6).y1
        >>> bool(abs(x - jnp.cos(1.0)) < 1e-5)
        True
    """

    is_ode = True
    fields = ("f", "x0", "v0", "tspan", "args")
    functions: ClassVar[dict[str, str]] = {"f": "t, x, v, args"}

    def __init__(
        self, f: Callable, x0: PyTree, v0: PyTree, tspan: TimeSpan, args: PyTree = None
    ) -> None:
        self.f, self.x0, self.v0 = f, as_state(x0), as_state(v0)
        self.tspan, self.args = tspan, args


class Separable:
    """H(t, q, p) = kinetic(t, p, args) + potential(t, q, args), which splitting methods need.

    Args:
        kinetic: `kinetic(t, p, args)`, a scalar energy.
        potential: `potential(t, q, args)`, a scalar in the same unit.

    Raises:
        TypeError: (by `solve`) an energy is no scalar.

    Reference: yoshida1990.

    Example:
        >>> import diffeq as de
        >>> oscillator = de.Separable(lambda t, p, a: p**2 / 2, lambda t, q, a: q**2 / 2)
        >>> oscillator(0.0, 3.0, 4.0, None)
        12.5
    """

    functions: ClassVar[dict[str, str]] = {"kinetic": "t, p, args", "potential": "t, q, args"}

    def __init__(self, kinetic: Callable, potential: Callable) -> None:
        for name, f in (("kinetic", kinetic), ("potential", potential)):
            if not callable(f):
                raise TypeError(f"{name} is {f!r}; a function {self.functions[name]} is wanted.")
        self.kinetic, self.potential = kinetic, potential

    def __call__(self, t: ArrayLike, q: PyTree, p: PyTree, args: PyTree) -> PyTree:
        """The energy."""
        return self.kinetic(t, p, args) + self.potential(t, q, args)


class HamiltonianProblem(Problem):
    """q' = ∂H/∂p, p' = −∂H/∂q. The state of its solution is (q, p).

    Args:
        hamiltonian: `hamiltonian(t, q, p, args)`, a scalar; or `de.Separable(kinetic, potential)`.
        q0: positions, any pytree of real arrays.
        p0: momenta, of the same structure.
        tspan: (t0, t1), or a function of args.
        args: parameters, any pytree.

    Raises:
        TypeError: (by `solve`) the energy is no scalar; q0 and p0 differ in structure or shapes; a
            symplectic method was given an energy that is not `Separable`.

    Reference: yoshida1990.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> H = de.Separable(lambda t, p, a: p**2 / 2, lambda t, q, a: q**2 / 2)
        >>> sol = de.solve(de.HamiltonianProblem(H, 1.0, 0.0, (0.0, 6.0)), de.KahanLi8(), dt=0.1)
        >>> bool(abs(H(0.0, *sol.y1, None) - 0.5) < 1e-6)
        True
    """

    is_ode = True
    fields = ("hamiltonian", "q0", "p0", "tspan", "args")
    functions: ClassVar[dict[str, str]] = {"hamiltonian": "t, q, p, args"}

    def __init__(
        self,
        hamiltonian: Callable | Separable,
        q0: PyTree,
        p0: PyTree,
        tspan: TimeSpan,
        args: PyTree = None,
    ) -> None:
        self.hamiltonian, self.q0, self.p0 = hamiltonian, as_state(q0), as_state(p0)
        self.tspan, self.args = tspan, args
