"""`check_gradient` compares a derivative with others, and names the likely cause of a difference.

A loss is differentiated as it is; once more by `Forward`, whose error control includes the
tangents; once more at tighter tolerances; and by finite differences at these. The cause of an error
follows from which of them agree.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..autodiff.jax_internals import is_key
from ..core.keywords import keywords
from ..core.whole_numbers import as_whole
from .base import Adjoint
from .forward import Forward, Monitored

__all__ = ["GradientReport", "check_gradient", "overridden"]

_TRAPPED = (
    30.0  # tolerances: a tangent's error, above which the step sizes chosen for y do not suit it
)


class _Override(NamedTuple):
    """The adjoint and the tolerances that replace those of the solves inside a loss."""

    adjoint: Adjoint | None = None
    tighter: float = 1.0


def _user_context() -> Callable | None:
    """A context that is part of the key of compiled functions: another value traces them again."""
    make = getattr(jax, "make_user_context", None)
    return None if make is None else make(default_value=None)


_CONTEXT = _user_context()
_PLAIN: contextvars.ContextVar = contextvars.ContextVar("override", default=None)


@contextlib.contextmanager
def _overriding(override: _Override) -> Iterator[None]:
    token = _PLAIN.set(override)
    try:
        with _clearing_caches() if _CONTEXT is None else _CONTEXT(override):
            yield
    finally:
        _PLAIN.reset(token)


@contextlib.contextmanager
def _clearing_caches() -> Iterator[None]:
    """Clears the caches of a JAX that has no such contexts: programs compiled before are not used
    inside, and programs compiled inside are not used after.
    """
    jax.clear_caches()
    try:
        yield
    finally:
        jax.clear_caches()


def overridden(adjoint: Any, rtol: Any, atol: Any) -> tuple[Any, Any, Any]:
    """The adjoint and tolerances of a solve; inside a check, those that the check sets."""
    override = _PLAIN.get()
    if override is None:
        return adjoint, rtol, atol
    if override.tighter != 1:
        rtol = 1e-3 if rtol is None else rtol
        atol = 1e-6 if atol is None else atol
        rtol, atol = jax.tree.map(lambda x: x * override.tighter, (rtol, atol))
    return override.adjoint or adjoint, rtol, atol


@dataclass(frozen=True, repr=False)
class GradientReport:
    """The result of `check_gradient`. `bool(report)` is `report.agrees`.

    Attributes:
        agrees: True if the derivative agrees with those that it was compared with.
        cause: the likely reason if not, as a sentence.
        slopes: the derivative of the loss along each direction, by name: "as it is", "Forward",
            "tighter" (as it is, at tighter tolerances) and "differences" (of those).
        disagreement: the largest difference of "as it is" from the best of the others, relative to
            the largest slope.
        uncertainty: that of the differences, likewise.
        tangent_error: the largest error of a tangent in an accepted step, in tolerances, when the
            step sizes are chosen by the error of y alone. It should be about 1, as that of y is.
        notes: the comparisons that could not be made.

    Raises:
        RuntimeError: by `report.check()`, if the derivative does not agree.

    Example:
        >>> import diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 2.0)
        >>> loss = lambda k: de.solve(problem.replace(args=k), rtol=1e-4, atol=1e-6).y1
        >>> de.check_gradient(loss, 2.0).agrees
        True
    """

    agrees: bool
    cause: str
    slopes: dict[str, np.ndarray]
    disagreement: float
    uncertainty: float
    tangent_error: float
    notes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.agrees

    def check(self) -> "GradientReport":
        """Returns the report, or raises a RuntimeError with its text."""
        if not self.agrees:
            raise RuntimeError(repr(self))
        return self

    def __repr__(self) -> str:
        head = "the gradient agrees" if self.agrees else "the gradient is not to be trusted"
        first = (
            f"{head}: it differs by {self.disagreement:.1e} (relative); a tangent's error is up to "
            f"{self.tangent_error:.3g} tolerances."
        )
        lines = [
            first,
            *([self.cause] if self.cause else []),
            *(
                f"  {name:<12} {' '.join(f'{x: .8g}' for x in values)}"
                for name, values in self.slopes.items()
            ),
            *self.notes,
        ]
        return "\n".join(lines)


@keywords
def check_gradient(
    loss: Callable,
    x: PyTree,
    *,
    directions: int = 2,
    rtol: float = 1e-2,
    key: PRNGKeyArray | None = None,
) -> GradientReport:
    """Compares the gradient of a loss that calls `solve` with other ways to compute it.

    Along random directions v (as large as x, leaf by leaf) the slope g·v of `jax.grad(loss)` is
    compared with the tangent by `Forward`, whose error control includes the tangents; with the same
    gradient at tolerances a thousand times tighter; and with (4 D(h) − D(2h))/3, the extrapolated
    central differences at those. If they do not agree, the report names the likely cause: error
    control that ignores sensitivities (steps that are good for y and too long for its tangent),
    tolerances that are too loose, a discontinuity of the field that was not declared, or a loss
    that is not smooth.

    Args:
        loss: a function of x with a real number as its value. Its solves may have any options; it
            may be compiled.
        x: the point; any pytree, of which the arrays of floats are varied (networks are fine).
        directions: the number of random directions.
        rtol: the relative difference that is tolerated.
        key: the random key of the directions.

    Returns:
        A `GradientReport`; of what it finds nothing is raised but by its `check()`.

    Raises:
        TypeError, ValueError: x has no floats to vary; an argument that does not fit.

    Reference: sapienza2024.

    Example:
        A field with an undeclared jump: its derivative by the time of the jump is lost.

        >>> import jax.numpy as jnp, diffeq as de
        >>> jumps = lambda t, y, s: jnp.where(t < s, 1.0, 3.0) + 0 * y
        >>> problem = de.ODEProblem(jumps, 0.0, (0.0, 1.0), 0.5)
        >>> loss = lambda s: de.solve(problem.replace(args=s), rtol=1e-4, atol=1e-4).y1
        >>> report = de.check_gradient(loss, 0.5)
        >>> report.agrees, "discontinuous" in report.cause
        (False, True)
    """
    arrays, rest = eqx.partition(x, eqx.is_inexact_array_like)
    arrays = jax.tree.map(jnp.asarray, arrays)
    _check_call(x, arrays, directions, rtol, key)
    run = _DifferentiatedLoss(lambda arrays: loss(eqx.combine(arrays, rest)), arrays, [])
    keys = jax.random.split(jax.random.key(0) if key is None else key, directions)
    along = [_random_direction(k, arrays) for k in keys]
    single = any(a.dtype in (jnp.float32, jnp.complex64) for a in jax.tree.leaves(arrays))
    tight = _Override(tighter=1e-2 if single else 1e-3)
    errors: list[float] = []
    monitored = Monitored(callback=lambda worst: errors.append(float(np.max(worst))))
    slopes = {
        "as it is": run.slopes(along, _Override()),
        "Forward": run.tangents(along, _Override(Forward())),
        "tighter": run.slopes(along, tight),
    }
    run.tangents(along[:1], _Override(monitored), name="the error of tangents")
    slopes["differences"], wide = run.differences(along, tight, 1e-2 if single else 1e-3)
    return make_report(slopes, wide, max(errors, default=np.nan), rtol, run.notes)


def _check_call(x: PyTree, arrays: PyTree, directions: Any, rtol: Any, key: Any) -> None:
    """Refuses a point with nothing to vary, and options that do not fit."""
    if not any(leaf.size for leaf in jax.tree.leaves(arrays)):
        raise TypeError(f"x is {x!r}, in which there are no floats to vary; write 1.0 for 1.")
    if (as_whole(directions) or 0) < 1:
        raise ValueError(f"directions is {directions!r}; a positive whole number is wanted.")
    if not isinstance(rtol, (int, float, np.number)) or isinstance(rtol, bool) or not rtol > 0:
        raise ValueError(f"rtol is {rtol!r}; a positive number is wanted.")
    if key is not None and not is_key(key) and getattr(key, "dtype", None) != jnp.uint32:
        raise TypeError(f"key is {key!r}; a random key is wanted, such as jax.random.key(0).")


class _DifferentiatedLoss:
    """A loss that is differentiated in several ways; a way that fails gives NaN and a note."""

    def __init__(self, loss: Callable, x: PyTree, notes: list[str]) -> None:
        self.loss, self.x, self.notes = loss, x, notes

    def _tried(self, name: str, count: int, compute: Callable) -> np.ndarray:
        try:
            found = np.array([float(value) for value in compute()])
            jax.effects_barrier()
        except (TypeError, RuntimeError, FloatingPointError) as error:
            self.notes.append(f"{name} could not be had: {str(error).strip().splitlines()[-1]}")
            found = np.full(count, np.nan)
        return found

    def slopes(self, along: list, override: _Override) -> np.ndarray:
        """The gradient times each direction; by forward mode where reverse mode is not served."""
        name = "the gradient" if override.tighter == 1 else "the gradient at tighter tolerances"

        def compute() -> list:
            with _overriding(override):
                try:
                    gradient = jax.grad(self.loss)(self.x)
                except TypeError as error:
                    if "reverse mode" not in str(error):
                        raise
                    return [jax.jvp(self.loss, (self.x,), (v,))[1] for v in along]
            pairs = [zip(*map(jax.tree.leaves, (gradient, v)), strict=True) for v in along]
            return [sum(jnp.sum(jnp.real(a * b)) for a, b in pair) for pair in pairs]

        return self._tried(name, len(along), compute)

    def tangents(self, along: list, override: _Override, name: str = "Forward") -> np.ndarray:
        """The tangent of the loss along each direction."""

        def compute() -> list:
            with _overriding(override):
                return [jax.jvp(self.loss, (self.x,), (v,))[1] for v in along]

        return self._tried(name, len(along), compute)

    def differences(self, along: list, override: _Override, h: float) -> tuple:
        """Extrapolated central differences, and the differences D(h) − D(2h) of the plain ones."""

        def slope(v: PyTree, h: float) -> Array:
            at = lambda s: self.loss(jax.tree.map(lambda x, d: x + s * d, self.x, v))  # noqa: E731
            return (at(h) - at(-h)) / (2 * h)

        def compute() -> list:
            with _overriding(override):
                return [slope(v, step) for v in along for step in (h, 2 * h)]

        near, far = self._tried("differences", 2 * len(along), compute).reshape(-1, 2).T
        return (4 * near - far) / 3, np.abs(near - far)


def _random_direction(key: PRNGKeyArray, tree: PyTree) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(len(leaves), 1))

    def one(key: PRNGKeyArray, x: Array) -> Array:
        size = jnp.sqrt(jnp.mean(jnp.abs(x) ** 2))
        return jnp.where(size > 0, size, 1) * jax.random.normal(key, x.shape, x.dtype)

    return jax.tree.unflatten(structure, [one(k, x) for k, x in zip(keys, leaves, strict=False)])


def make_report(
    slopes: dict[str, np.ndarray],
    wide: np.ndarray,
    tangent_error: float,
    rtol: float,
    notes: list[str],
) -> GradientReport:
    """The report that follows from which of the derivatives agree."""
    known = [np.abs(s) for s in slopes.values() if np.isfinite(s).all()]
    size = max((float(s.max()) for s in known), default=0.0) or 1.0
    apart = lambda a, b: float(np.max(np.abs(slopes[a] - slopes[b]))) / size  # noqa: E731
    doubt = float(np.max(wide)) / size
    settled = doubt <= rtol
    best = "differences" if settled else "tighter"
    off = {name: apart("as it is", name) for name in ("Forward", "tighter", "differences")}
    known = [x for x in (off[best], off["tighter"]) if np.isfinite(x)]
    disagreement = max(known, default=np.inf)
    agrees = bool(off[best] <= rtol and not off["tighter"] > rtol)
    if agrees and not settled:
        notes = [*notes, "differences do not settle; the gradient agrees with tighter ones alone"]
    cause = "" if agrees else _cause(off, apart, settled, tangent_error, rtol)
    return GradientReport(
        agrees, cause, slopes, float(disagreement), doubt, tangent_error, list(notes)
    )


def _cause(off: dict, apart: Callable, settled: bool, tangent_error: float, rtol: float) -> str:
    """The likely cause of a disagreement."""
    if not np.isfinite([off["Forward"], off["tighter"], off["differences"]]).any():
        return (
            "The gradient is not finite, or could not be had: see the notes, if there are any; a "
            "solve that failed (sol.status) or a square root or logarithm at zero makes it NaN."
        )
    trapped = tangent_error > _TRAPPED and off["Forward"] > rtol
    if trapped and not apart("Forward", "differences") > rtol:
        return (
            f"The norm trap: the steps were chosen for y, whose error is within tolerance, and the "
            f"error of a tangent in them is {tangent_error:.3g} tolerances. Take adjoint="
            'de.Forward() (for few parameters), de.Gauss(integral="adaptive"), which controls the '
            "errors of λ and of the integral, or steps that suit both (controller=de.PI(dtmax=…))."
        )
    if not settled:
        return (
            "The differences do not settle either: the loss is not smooth on the scale of a "
            "thousandth of x. The solution may be chaotic over this interval, or the field jumps."
        )
    if apart("tighter", "differences") > rtol:
        return (
            "Derivatives agree with each other and not with differences of the loss: something on "
            "the way is discontinuous, or hides its derivative. A field that jumps at a known time "
            "(jnp.where(t < s, …)) needs stops=; look also for round, floor, sign, integer indices "
            "and stop_gradient."
        )
    return (
        "The tolerances are too loose for the derivative: at tighter ones it agrees with the "
        "differences of the loss. Lower rtol and atol."
    )
