"""The base of all methods: `init` makes a memory, `step` goes from (t, y) to t + dt, and properties
state what the method needs.

To write a scheme of your own, subclass `Method`, give `order` and `step`, and pass an instance to
`solve`. Data files under `tableaus/` cover the families; a new tableau needs no class.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact, Int, PyTree, Real

from ..problems.forms import Ode, lower
from .interpolant import Hermite, Interpolant

__all__ = ["Method", "Step"]


class Step(NamedTuple):
    """One attempted step from t to t + dt: what `Method.step` returns.

    Attributes:
        y: the state at t + dt, of the shape of the packed state.
        error: the estimated error of y, in its units and shape; None where the method has none.
        memory: what goes to the next step, as a first stage that is the same as the last one here.
            It must be what `Method.init` returns at (t + dt, y): a shortcut, and no history, for
            the reverse pass may compute it from the state. Where it is the same up to rounding, or
            up to a tolerance (a slope that Newton's method has found, where to start it next), the
            method says so by `stores_memory`.
        data: whatever the method's `interpolant` wants to see again, such as the stages.
        solved: whether the equations of an implicit step were solved; a step where they were not is
            rejected. None where there are none.
        evaluations: of the field in this step, where their number is not `Method.evaluations`.
        order: of the error estimate, where it is not `Method.error_order` at every step.
        rejected: the memory of the next attempt, should this one be rejected; None: it stays as it
            was.
        hands_over: for a pair of methods: whether the other one makes this step instead, from the
            same state and with the same dt, if the error here is small enough, and if it is not;
            and its memory. None: no step is handed over.
        growth: the factor by which dt changes after this step, once it is accepted, for a method
            that chooses it together with its order. None where the controller chooses.
        again: whether the attempt is to be made again with the same dt, because its equations were
            not solved with what the method had kept; None where it keeps nothing.
        workspace: what the next attempt may use again, accepted or not (`Method.workspace`).

    Example:
        >>> import diffeq as de
        >>> de.Step(y=1.0, error=None, memory=(), data=()).solved is None
        True
    """

    y: Inexact[Array, "..."]
    error: PyTree
    memory: PyTree
    data: PyTree
    solved: Bool[Array, ""] | None = None
    evaluations: Int[Array, ""] | int | None = None
    order: Real[Array, ""] | int | float | None = None
    growth: Real[Array, ""] | None = None
    rejected: PyTree = None
    hands_over: tuple[Bool[Array, ""], Bool[Array, ""], PyTree] | None = None
    again: Bool[Array, ""] | None = None
    workspace: PyTree = ()


class Method(eqx.Module):
    """A one-step scheme, (t, y) ↦ y1 ≈ y(t + dt). Subclasses give `order` and `step`.

    `form` names the equation that `step` takes, or several that it does: "ode", with
    `form.field(t, y)`; "split", with `form.implicit(t, y)` and `form.explicit(t, y)`;
    "partitioned", with `form.drift(t, q, p)`, `form.kick(t, q, p)` and `form.halves(y)`; "mass",
    with `form.field(t, y)`, `form.jac(t, y)` and `form.mass`, which are None where nothing is known
    and where it is 1; or "implicit", with `form.residual(t, y, dy)`. y is one array: a tree is
    packed into a vector, and where `real_view` is set a complex state as its real parts and then
    its imaginary ones. Time runs forwards here (a backward problem is reversed before), so dt > 0,
    in a derivative as well. An element of a batch that has ended, while others go on, is evaluated
    at dt = 0, and its result is not used. Where several things happen at one instant (an event
    makes another true, given times coincide) there are steps of dt = 0 between them: a method that
    is not the identity there fails at these with the status `nonfinite`.

    A method that estimates its error says so by `adaptive`, returns the estimate in its `Step`, and
    gives its power of dt as `error_order`. Steps are differentiated, batched and compiled like any
    JAX function, so write `step` in `jax.numpy`.

    Raises:
        NotImplementedError: `order` or `step` was left out.

    Reference: hairer1993, II.

    Example:
        Heun's method, with the difference to Euler's as its estimate:

        >>> import diffeq as de
        >>> class MyHeun(de.Method):
        ...     @property
        ...     def order(self):
        ...         return 2
        ...     @property
        ...     def adaptive(self):
        ...         return True
        ...     def step(self, form, t, y, dt, memory):
        ...         first = form.field(t, y)
        ...         last = form.field(t + dt, y + dt * first)
        ...         error = dt / 2 * (last - first)
        ...         return de.Step(y + dt / 2 * (first + last), error, (), ())
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0)
        >>> round(float(de.solve(problem, MyHeun(), rtol=1e-4).y1), 3)
        0.135
    """

    form: ClassVar[Any] = "ode"  # or a tuple of names
    real_view: ClassVar[bool] = False
    reference: ClassVar[str] = ""

    @property
    def order(self) -> int | float:
        """Order of the solution that the method advances with."""
        raise NotImplementedError

    @property
    def error_order(self) -> int | float:
        """The local error estimate is O(dt^error_order)."""
        return self.order

    @property
    def adaptive(self) -> bool:
        """True if the method estimates its error."""
        return False

    @property
    def stores_memory(self) -> bool:
        """True if the memory is not, to the last bit, what `init` returns for the state: the tape
        then keeps it, however large, so that steps that are run again are the same steps. Its
        derivative is that of `init`.
        """
        return self.multistep

    @property
    def multistep(self) -> bool:
        """True if the memory consists of previous states, which the current one does not determine:
        it is kept, as where the method `stores_memory`, and has a derivative of its own.
        """
        return False

    @property
    def evaluations(self) -> int | None:
        """Evaluations of the field in a step; None where each step counts its own."""
        return 1

    @property
    def area(self) -> bool:
        """True if a step with noise uses H, the space-time area, as well as W."""
        return False

    @property
    def evaluates_inside_step(self) -> bool:
        """True if a step evaluates the equation after its start. On a delay equation such a step
        may evaluate its own interpolant, where a lag is short, and is then repeated until the two
        agree.
        """
        return True

    @property
    def highest_index(self) -> int:
        """The highest index of a `DAEProblem` that the method solves as it stands."""
        return 1

    @property
    def submethods(self) -> "tuple[Method, ...]":
        """The methods that alternate, each with a loop of its own: one, but for `Switching`."""
        return (self,)

    def submethod(self, memory: PyTree) -> Int[Array, ""] | int:
        """The index of the one of `submethods` that makes the step that starts with this memory."""
        del memory
        return 0

    @property
    def nonstiff_probe(self) -> "Method | None":
        """The explicit method of a pair that switches, alone: it ends where the pair would turn to
        the stiff one. None for methods that do not switch.
        """
        return None

    def gives_up(self, memory: PyTree) -> Bool[Array, ""] | bool | None:
        """True if the attempt that left this memory is the last, since the problem is none for this
        method; None for methods that never ask.
        """
        del memory
        return None

    def chosen(self, form: Any, *, controlled: bool) -> "Method":
        """The method for a canonical equation, by steps that are controlled or given: this one.
        A default that depends on the equation's noise overrides it.
        """
        del form, controlled
        return self

    def with_tolerance(self, tolerance: Any, *, final: bool = False) -> "Method":
        """The method for a solve to this tolerance: implicit ones solve their equations to a
        fraction of `tolerance.scale(y)`, the error that is accepted of a state y. `final`: no
        shorter step will be tried where they are not solved.
        """
        del tolerance, final
        return self

    def with_view(self, view: Callable) -> "Method":
        """The method for a problem whose user's functions see a point as `view(t, y, dt)`, which is
        (t, y, args, dt) in the time of the problem and with its tree: for one that calls such a
        function itself.
        """
        del view
        return self

    def without_preconditioner(self) -> "Method":
        """The method for an equation other than the problem's, such as its adjoint equation, for
        whose matrices the user's preconditioner is not made: for a method that has one.
        """
        return self

    def keeps_workspace(self, form: Any, size: int) -> bool:
        """True if steps of a state of so many numbers have a `workspace`."""
        del form, size
        return False

    def workspace(self, form: Any, t: Real[Array, ""], y: Array) -> PyTree:
        """The workspace before the first attempt: arrays that attempts compute for those after
        them, such as factors of a matrix. It is no part of the memory: it is not differentiated,
        and the step is the same without it, up to the error to which equations are solved. Its
        `origin` is what a tape keeps of it, and `at_origin(origin)` the workspace that follows.
        """
        del form, t, y
        return ()

    def with_workspace(self, workspace: PyTree) -> "Method":
        """The method for an attempt with this workspace; a step without one makes its own."""
        del workspace
        return self

    def init(self, form: Any, t: Real[Array, ""], y: Array) -> PyTree:
        """The memory at (t, y): at the start, after a discontinuity, and in the reverse pass."""
        del form, t, y
        return ()

    def step(
        self, form: Any, t: Real[Array, ""], y: Array, dt: Real[Array, ""], memory: PyTree
    ) -> Step:
        """One step."""
        raise NotImplementedError

    def interpolant(self, form: Any, t: Array, y: Array, dt: Array, step: Step) -> Interpolant:
        """The step as a polynomial; asked for in steps in which something is saved.

        The default is the cubic through both ends, which costs the slopes there.
        """
        return Hermite(y, step.y, form.field(t, y), form.field(t + dt, step.y), dt)

    def interpolant_evaluates(self, form: Any) -> bool:
        """True if `interpolant` evaluates the field where `step` did not. It may then be infinite
        or NaN where the step is finite; so, where output is interpolated, it is computed before the
        step is accepted, and a step whose interpolant is not finite is rejected.
        """
        del form
        return True

    def interpolation_error(
        self, y: Array, dt: Array, step: Step, path: Interpolant | None
    ) -> Array | None:
        """The estimated error of the interpolant inside the step, in the units of y: like that of
        the step it limits dt, where output is interpolated. None where the error of the step is
        enough. `path` is the interpolant where it evaluates the field, else None.
        """
        del y, dt, step, path
        return None

    def history_interpolant(
        self, y: Array, dt: Array, step: Step, path: Interpolant
    ) -> Interpolant:
        """The interpolant that the past of a delay equation keeps of a step whose interpolant is
        `path`: that one.
        """
        del y, dt, step
        return path

    def constant_step(self, t: Array, y: Array, dt: Array) -> Interpolant:
        """The interpolant that it keeps of a step in which y is constant."""
        form = lower(Ode(lambda t, y: jnp.zeros_like(y)), self.form, repr(self))
        step = self.step(form, t, y, dt, self.init(form, t, y))
        return self.history_interpolant(y, dt, step, self.interpolant(form, t, y, dt, step))
