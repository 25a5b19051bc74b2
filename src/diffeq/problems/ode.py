"""Ordinary differential equations: y' = f(t, y, args), and y' = implicit + explicit."""

from collections.abc import Callable
from typing import Any, ClassVar

from jaxtyping import PyTree

from ..core.packing import as_state
from .base import Problem, TimeSpan

__all__ = ["ODEProblem", "SplitODEProblem"]


class ODEProblem(Problem):
    """y' = f(t, y, args) on tspan, y(tspan[0]) = y0.

    Args:
        f: the field; takes t (a real scalar, in the problem's own unit of time), y and args, and
            returns dy/dt with the structure and shapes of y (a list of scalars does for a vector).
        y0: the initial state: any pytree of arrays and numbers, real or complex; or a function of
            args that returns it.
        tspan: (t0, t1), forwards or backwards in time; or a function of args, or a pair with one.
        args: parameters, any pytree; networks are fine, in args or inside f.
        jac: `jac(t, y, args)`, ∂f/∂y as `jax.jacfwd` would give it: for a vector a matrix with
            row i for component i of f, for a tree a tree of trees. Rosenbrock methods want it
            exact. Or where it is not zero: `de.Banded(lower, upper)`, `de.Block(size)`,
            `de.Sparse(pattern)` or `de.Sparse("detect")`; then implicit methods neither find nor
            store nor eliminate the zeros, and without a method `Rodas5P` is taken (`KenCarp4` for
            two parts). None: they differentiate f forwards.

    Raises:
        TypeError: (by `solve`) f takes other arguments, or t in another place than the first;
            returns another structure, other shapes or a wider dtype than y's; y0 is made of
            integers; tspan is no pair; jac returns other shapes.
        SolveError: (by `solve`) ∂f/∂y has an entry that jac says is zero.

    Reference: hairer1993, I.

    Example:
        >>> import diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0)
        >>> round(float(de.solve(problem, rtol=1e-6, atol=1e-6).y1), 5)
        0.13534
    """

    is_ode = True
    fields = ("f", "y0", "tspan", "args", "jac")
    functions: ClassVar[dict[str, str]] = {"f": "t, y, args"}

    def __init__(
        self,
        f: Callable,
        y0: PyTree,
        tspan: TimeSpan,
        args: PyTree = None,
        *,
        jac: Any = None,
    ) -> None:
        self.f, self.y0, self.tspan, self.args, self.jac = f, as_state(y0), tspan, args, jac


class SplitODEProblem(Problem):
    """y' = implicit(t, y, args) + explicit(t, y, args): the stiff part, then the rest.

    Methods that make no difference between the parts solve their sum; today these are all.

    Args:
        implicit, explicit: fields, each with the arguments and the result of `ODEProblem`'s f.
        y0, tspan, args, jac: as in `ODEProblem`; jac is that of `implicit`.

    Raises:
        TypeError: (by `solve`) a part returns what does not fit y; the message says which.

    Reference: hairer1996.

    Example:
        >>> import diffeq as de
        >>> problem = de.SplitODEProblem(
        ...     lambda t, y, a: -50.0 * y, lambda t, y, a: 50.0 + 0 * y, 0.0, (0.0, 1.0)
        ... )
        >>> round(float(de.solve(problem).y1), 2)
        1.0
    """

    is_ode = True
    explicit_function: ClassVar[str] = "explicit"
    default_implicit: ClassVar[str] = "KenCarp4"
    fields = ("implicit", "explicit", "y0", "tspan", "args", "jac")
    functions: ClassVar[dict[str, str]] = {"implicit": "t, y, args", "explicit": "t, y, args"}

    def __init__(
        self,
        implicit: Callable,
        explicit: Callable,
        y0: PyTree,
        tspan: TimeSpan,
        args: PyTree = None,
        *,
        jac: Any = None,
    ) -> None:
        self.implicit, self.explicit = implicit, explicit
        self.y0, self.tspan, self.args, self.jac = as_state(y0), tspan, args, jac
