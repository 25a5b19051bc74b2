"""Random jumps of an equation: what happens at a rate, and what becomes of the state."""

import inspect
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..autodiff.jax_internals import Tracer
from ..closures import flatten_fields, unflatten_fields
from ..core.user_functions import accepts
from .base import Problem, TimeSpan

__all__ = ["ESTIMATORS", "Jump", "JumpProblem", "rate_varies"]

ESTIMATORS = ("pathwise", "score")


class Jump:
    """Something that happens at random, at a rate: in a short time dt with probability rate · dt.

    Args:
        rate: a number, or k of them for k channels; or a function of args that returns them; or a
            function `rate(t, y, args)`, where it changes with time or with the state. In units of
            1 over the unit of t; where it turns NaN, or negative (by more than would make rtol
            jumps in all of tspan), the solve fails.
        affect: `affect(t, y, args)` returns the state after the jump, of the structure, shapes and
            dtypes of y. With k channels it is called with `fired` as a fourth argument, booleans
            (k,) of which one is True. With a mark that comes last.
        mark: `mark(key)`, what else is random about a jump (its size): a pytree of arrays, drawn
            for each jump. Draw what has no parameters and put those into the affect:
            `lambda t, y, args, z: y + args * z` differentiates by args.

    Raises:
        TypeError: rate is no number and no function; affect or mark is no function.
        ValueError: rate is negative or not finite, or has more than one axis.

    Example:
        A dog has one flea in y; others jump on at a rate of 2 a day, and each off at 0.5 a day.

        >>> import jax, diffeq as de
        >>> on = de.Jump(2.0, lambda t, y, a: y + 1)
        >>> off = de.Jump(lambda t, y, a: 0.5 * y, lambda t, y, a: y - 1)
        >>> dog = de.ODEProblem(lambda t, y, a: 0 * y, 1.0, (0.0, 10.0))
        >>> sol = de.solve(de.JumpProblem(dog, (on, off)), key=jax.random.key(1))
        >>> came, went = (int(e.num) for e in sol.events)
        >>> came > 0, float(sol.y1) == 1 + came - went
        (True, True)
    """

    fields: ClassVar[tuple[str, ...]] = ("rate", "affect", "mark")

    def __init__(self, rate: Any, affect: Any, *, mark: Any = None) -> None:
        self.rate, self.affect, self.mark = _check_rate(rate), affect, mark
        if not callable(affect):
            raise TypeError(f"affect is {affect!r}; a function affect(t, y, args) is wanted.")
        if not (mark is None or callable(mark)):
            raise TypeError(f"mark is {mark!r}; a function mark(key) is wanted, or None.")

    def __repr__(self) -> str:
        return f"Jump({', '.join(_describe(getattr(self, name)) for name in ('rate', 'affect'))})"

    def replaced(self, rate: PyTree) -> "Jump":
        """Returns the jump with another rate."""
        return Jump(rate, self.affect, mark=self.mark)

    def _flatten(self) -> tuple[list, Hashable]:
        return flatten_fields(self, self.fields, ("affect", "mark"))

    @classmethod
    def _unflatten(cls, structure: Hashable, leaves: Sequence) -> "Jump":
        self = object.__new__(cls)
        self.__dict__.update(unflatten_fields(structure, leaves))
        return self


jax.tree_util.register_pytree_node(Jump, Jump._flatten, Jump._unflatten)


class JumpProblem(Problem):
    """An equation that jumps at random: between jumps it is `problem`, and each of `jumps` happens
    at its rate.

    `solve` draws the jumps from its `key=`: one key is one path. Channel k happens for the n-th
    time when its hazard Λ_k(t) = ∫ rate_k dt since its last jump reaches E_kn, exponential numbers
    of mean 1 which the key alone determines (the random time change); so other parameters with the
    same key move the jumps, and draw no others. Jumps at constant rates are known
    beforehand: steps end on them. Of other rates the hazard is solved with y, and the crossing
    is located like that of an `Event`. A rate that is 0 but for a while shorter than a step may be
    passed over, like any pulse in a field: where it depends on t write it with `interp.Hold`, or
    give `stops=`; else bound dt, `controller=de.PI(dtmax=…)`. A hazard sees the smallest rtol,
    relative to its size and to 1; the error norm is that of the state and that of the hazards, each
    a root mean square.

    The jumps are the first of `sol.events` (times, states before and after, which channel `fired`);
    events that are given to `solve` come behind them. `max_events` bounds each.

    **Derivatives** are those of the path, given the number of jumps: by what enters the equation,
    the affects and y0, at jump times that do not move. What enters a *rate* also changes how
    probable a path is, which a path does not know: a derivative that reaches a rate (for a rate
    that looks at y: any derivative) is refused without an `estimator`, which says what it means.
    Nor does a path know that more time has more jumps: a derivative by tspan or by saved times is
    that of the path as well.

    | `estimator` | jump times | right, in the mean over keys, for |
    |---|---|---|
    | None | no rate is differentiated | all that the rates do not depend on |
    | "pathwise" | move with the rates | F that is continuous where a jump passes a saved time, t1 \
or a jump of another channel: ∫ y dt, and not y1 nor a count |
    | "score" | stay | E[F · `sol.weight`] for every F, continuous or not, at more variance |

    `sol.weight` is 1, and its derivative is that of log p, the density of this path's jumps
    (Σ log rate − Σ ∫ rate dt): ∂E[F] = E[∂F + F ∂log p], the likelihood ratio. It is 1 without
    a derivative for another estimator.

    Args:
        problem: an `ODEProblem`, `SplitODEProblem` or `SDEProblem`; where all rates are constant
            also a `DAEProblem`, `SecondOrderProblem` or `HamiltonianProblem`. Forwards in time.
        jumps: a `Jump`, or several.
        estimator: None, "pathwise" (not of an SDE, whose path has no derivative by time), "score".

    `replace` takes the fields of `problem`, too.

    Raises:
        TypeError: problem is of another kind; jumps holds something else; (on differentiation) a
            rate is differentiated without an estimator.
        ValueError: estimator is another word; there are no jumps.

    Reference: gibson2000, glasserman1991, glynn1990.

    Example:
        Insurance: premiums come in steadily, claims at a rate of 1, of exponential size.

        >>> import jax, jax.numpy as jnp, diffeq as de
        >>> claim = de.Jump(1.0, lambda t, y, a, size: y - size, mark=jax.random.exponential)
        >>> reserve = de.ODEProblem(lambda t, y, a: 1.5 + 0 * y, 10.0, (0.0, 20.0))
        >>> book = de.JumpProblem(reserve, claim)
        >>> end = lambda key: de.solve(book, key=key).y1
        >>> ends = jax.vmap(end)(jax.random.split(jax.random.key(0), 1000))
        >>> bool(abs(jnp.mean(ends) - 20) < 0.6)
        True
    """

    fields = ("problem", "jumps", "estimator")
    stochastic: ClassVar[bool] = True
    has_jumps: ClassVar[bool] = True

    def __init__(self, problem: Any, jumps: Any, *, estimator: Any = None) -> None:
        self.problem, self.jumps, self.estimator = problem, _jumps(jumps), estimator
        self._check()

    @property
    def without_jumps(self) -> Problem:
        """The equation between jumps."""
        return self.problem

    @property
    def args(self) -> PyTree:
        """The parameters, which rates and affects see as the equation does."""
        return self.problem.args

    @property
    def tspan(self) -> TimeSpan:
        """That of the equation."""
        return self.problem.tspan

    def replace(self, **changes: PyTree) -> "JumpProblem":
        """Returns the problem with other fields, its own or those of the equation.

        >>> import diffeq as de
        >>> decay = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0)
        >>> de.JumpProblem(decay, de.Jump(1.0, lambda t, y, k: y + 1)).replace(args=3.0).args
        3.0
        """
        own = {name: x for name, x in changes.items() if name in self.fields}
        other = super().replace(**own)
        inner = {name: x for name, x in changes.items() if name not in self.fields}
        if inner:
            unknown = [name for name in inner if name not in other.problem.fields]
            if unknown:
                raise TypeError(
                    f"JumpProblem.replace got {unknown[0]!r}; its fields are "
                    f"{', '.join((*self.fields, *other.problem.fields))}."
                )
            other.problem = other.problem.replace(**inner)
        other.jumps = _jumps(other.jumps)
        other._check()
        return other

    def _check(self) -> None:
        if not isinstance(self.problem, Problem) or isinstance(self.problem, JumpProblem):
            raise TypeError(
                f"problem is {_describe(self.problem)}; the equation between jumps is wanted, such "
                "as de.ODEProblem(f, y0, tspan, args). Several jumps go into one JumpProblem."
            )
        if self.estimator not in (None, *ESTIMATORS):
            raise ValueError(
                f"estimator is {self.estimator!r}; None, {' or '.join(map(repr, ESTIMATORS))} is "
                "wanted."
            )


def rate_varies(rate: PyTree) -> bool:
    """True if a rate is a function of (t, y, args), and no number or a function of args.

    >>> rate_varies(2.0), rate_varies(lambda args: args), rate_varies(lambda t, y, args: y)
    (False, False, True)
    """
    if not callable(rate) or hasattr(rate, "shape"):
        return False
    wanted = "a number is wanted, or a function rate(args), or rate(t, y, args) where it changes."
    return accepts(rate, "rate", (3, 1), wanted) != 1


def _check_rate(rate: Any) -> Any:
    """A rate as it is kept: numbers as one array."""
    if callable(rate) and not hasattr(rate, "shape"):
        rate_varies(rate)
        return rate
    if isinstance(rate, (list, tuple)) and rate:
        rate = jnp.stack([jnp.asarray(_check_rate(x)) for x in rate])
    dtype = getattr(rate, "dtype", None)
    if dtype is None and (isinstance(rate, bool) or not isinstance(rate, (int, float))):
        return _bad(rate)
    number: Any = rate
    shape = np.shape(number)
    if len(shape) > 1 or shape == (0,):
        raise ValueError(f"rate has shape {shape}; one number is wanted, or k of them.")
    known = not isinstance(rate, Tracer)
    if known and not (np.isfinite(np.asarray(number)) & (np.asarray(number) >= 0)).all():
        raise ValueError(f"rate is {rate!r}; finite numbers that are not negative are wanted.")
    return rate


def _bad(rate: Any) -> Any:
    raise TypeError(
        f"rate is {rate!r}; a number is wanted, or k of them, or a function rate(args) or "
        "rate(t, y, args)."
    )


def _jumps(jumps: Any) -> tuple:
    given = tuple(jumps) if isinstance(jumps, (tuple, list)) else (jumps,)
    if not given:
        raise ValueError("jumps is empty; at least one de.Jump(rate, affect) is wanted.")
    for i, jump in enumerate(given):
        name = f"jumps[{i}]" if isinstance(jumps, (tuple, list)) else "jumps"
        if not isinstance(jump, Jump):
            raise TypeError(
                f"{name} is {_describe(jump)}; a jump is wanted, such as de.Jump(rate, affect)."
            )
    return given


def _describe(x: Any) -> str:
    if inspect.isclass(x):
        return f"the class {x.__name__}"
    return getattr(x, "__name__", type(x).__name__) if callable(x) else repr(x)
