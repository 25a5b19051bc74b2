"""The canonical equations that methods see, over packed arrays, and how to lower one to another."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ..core.norm import magnitude
from .history import History, HistoryView, StepLayout

__all__ = [
    "Delayed",
    "Form",
    "Implicit",
    "Increments",
    "Ito",
    "Mass",
    "Ode",
    "Partitioned",
    "Sde",
    "Split",
    "Stratonovich",
    "apply_diffusion",
    "diffusion_magnitude",
    "lower",
    "solved_field",
]


@dataclass(frozen=True)
class Form:
    """The base of all equations, which are made of functions. Where these are `large`, the stages
    of a step are a loop (`methods.stage_loop`).
    """

    large: bool = field(default=False, kw_only=True)

    def functions(self) -> dict[str, Callable]:
        """Its functions by their names."""
        return {name: f for name, f in vars(self).items() if callable(f)}

    def mapped(self, change: Callable) -> Any:
        """Returns the form with each of its functions changed."""
        return replace(self, **{name: change(f) for name, f in self.functions().items()})

    def sized(self, *, large: bool) -> Any:
        """Returns the form with `large` set."""
        return replace(self, large=large)

    def over_step(self, t: Array, dt: Array) -> Any:
        """Returns the form of the step from t to t + dt: itself, where all steps have one."""
        del t, dt
        return self

    def with_slope(self, t: Array, y: Array, slope: Array) -> Any:
        """Returns the form of which it is known what its field is at (t, y), these very arrays."""
        del t, y, slope
        return self


@dataclass(frozen=True)
class _OneField(Form):
    """The base of equations of one field(t, y). `jac(t, y)`, if known, is ∂field/∂y of the ravelled
    state; or jac is the structure that ∂field/∂y has (`algebra.JacobianStructure`).
    """

    field: Callable[..., Array]
    jac: Any = None

    def with_slope(self, t: Array, y: Array, slope: Array) -> Any:
        """Returns the equation with a field that is not evaluated at (t, y)."""
        known = lambda at, state: slope if at is t and state is y else self.field(at, state)  # noqa: E731
        return replace(self, field=known)


@dataclass(frozen=True)
class Ode(_OneField):
    """y' = field(t, y)."""


@dataclass(frozen=True)
class Increments(Ode):
    """dy = columns(t, y) dX, of which a step sees the increment of X = path(t) over itself, as if
    X went there on a straight line: the columns have a last axis more than y. Outside of a step
    there is no slope, and its `field` refuses to give one.
    """

    columns: Callable[..., Array] = field(kw_only=True)
    path: Callable[[Array], Array] = field(kw_only=True)

    @staticmethod
    def of(columns: Callable[..., Array], path: Callable[[Array], Array]) -> "Increments":
        """Returns the equation."""
        return Increments(_no_slope, columns=columns, path=path)

    def over_step(self, t: Array, dt: Array) -> Ode:
        """The equation of the step, y' = columns(t, y) ΔX/dt."""
        change = self.path(t + dt) - self.path(t)
        rate = change / jnp.where(dt == 0, 1, dt).astype(change.dtype)

        def slope(s: Array, y: Array) -> Array:
            value = self.columns(s, y)
            return apply_diffusion("general", value, rate.astype(value.dtype))

        return Ode(slope, large=self.large)


def _no_slope(t: Array, y: Array) -> Array:
    del t, y
    raise TypeError(
        "the method evaluates a slope outside of a step, and a control by its increments has none "
        "there: choose de.Heun() or de.Euler()."
    )


@dataclass(frozen=True)
class Split(Form):
    """y' = implicit(t, y) + explicit(t, y); `jac` is that of the implicit part."""

    implicit: Callable[..., Array]
    explicit: Callable[..., Array]
    jac: Any = None


@dataclass(frozen=True)
class Mass(_OneField):
    """M y' = field(t, y) over the ravelled state.

    `mass` is M: a matrix, its diagonal as a vector, or None for 1. `free` projects on what M cannot
    reach, in the same shape: free · M = 0, and free · field = 0 are the algebraic equations.
    `index` is that of each component, where one is above 1: then `free` is a vector that is 1 where
    a row and a column of M are zero.
    """

    mass: Any = None
    free: Any = None
    index: Int[np.ndarray, " n"] | None = None


@dataclass(frozen=True)
class Implicit(Form):
    """residual(t, y, dy) = 0, over a state of any shape, with dy = dy/dt.

    `differential` says, of the ravelled state, for which components dy is in the residual; the
    others are algebraic. `guess` is where a search for the slope at a start begins, and `span` how
    long the whole interval is.
    """

    residual: Callable[..., Array]
    differential: Bool[Array, " n"]
    guess: Array
    span: Array


@dataclass(frozen=True)
class Partitioned(Form):
    """q' = drift(t, q, p), p' = kick(t, q, p); the state is (q, p) as one vector, q first.

    `separable`: drift does not depend on q, nor kick on p. `identity`: drift is p itself, as in a
    second-order equation (−p where time runs backwards).
    """

    drift: Callable[..., Array]
    kick: Callable[..., Array]
    separable: bool
    identity: bool

    def halves(self, y: Array) -> tuple[Array, Array]:
        """(q, p)."""
        half = y.shape[-1] // 2
        return y[..., :half], y[..., half:]


@runtime_checkable
class DrawnNoise(Protocol):
    """The noise of a step (`brownian.StepNoise`): what was drawn, and √dt."""

    @property
    def drawn(self) -> Any:
        """Its `normal` is W/√dt, and where the method has `area` H/√dt."""
        ...

    @property
    def root(self) -> Array:
        """√dt."""
        ...


@dataclass(frozen=True)
class Sde(Form):
    """dy = drift(t, y) dt + diffusion(t, y) dW, as `Ito` or as `Stratonovich` understands it.

    `kind`: "diagonal" (W has the shape of y), "scalar" (one W for all) or "general" (the diffusion
    has a last axis more than y). `own`: each component of a diagonal diffusion depends on its own
    component of y alone. `recalls`: the diffusion looks into the past. `bound` is the noise of a
    step.
    """

    drift: Callable[..., Array]
    diffusion: Callable[..., Array]
    kind: str
    additive: bool
    own: bool
    recalls: bool = False
    bound: Any = None  # a `DrawnNoise`

    def with_noise(self, bound: DrawnNoise) -> "Sde":
        """Returns the form with the noise of a step in place."""
        return replace(self, bound=bound)

    @property
    def normal(self) -> Array:
        """W/√dt, and where the method has `area` H/√dt: an array of shape (1 or 2, …)."""
        return self.bound.drawn.normal

    @property
    def root(self) -> Array:
        """√dt, and 0 in a step that is not made."""
        return self.bound.root

    @property
    def increment(self) -> Array:
        """W over the step."""
        return self.root * self.normal[0]

    def times(self, g: Array, w: Array) -> Array:
        """The diffusion g, a value of it, times increments."""
        return apply_diffusion(self.kind, g, w)

    def square_of(self, g: Array) -> Array:
        """The mean square of the diffusion g, a value of it, times standard normals."""
        square = magnitude(g) ** 2
        return jnp.sum(square, -1) if self.kind == "general" else square

    @staticmethod
    def square(w: Array, dt: Array) -> Array:
        """Twice the iterated integral of W over a step: W² − dt, of Stratonovich's kind W²."""
        return w * w - dt

    def must_be(self, method: object, kinds: tuple[str, ...], other: str) -> None:
        """Refuses a method that does not take this kind of noise."""
        if self.kind not in kinds:
            raise TypeError(
                f"{method!r} takes {' and '.join(kinds)} noise, and this is {self.kind}: choose "
                f"{other}."
            )

    def must_be_own(self, method: object) -> None:
        """Refuses diagonal noise whose components see each other.

        Methods of order above 1/2 need the double integrals of each component with itself alone;
        those of two Brownian motions have no closed form.
        """
        if self.kind == "diagonal" and not self.own:
            raise TypeError(
                f"{method!r} takes diagonal noise of which each component depends on its own "
                "component of y, and here one depends on others, as the noise of a price on its "
                "volatility does, or cannot be seen not to. Its order would be 1/2: choose "
                "de.EulerMaruyama() or de.EulerHeun(), which are of that order, with dt=."
            )

    def must_not_recall(self, method: object, other: str) -> None:
        """Refuses a method that wants to know how the diffusion moves along with all it sees."""
        if self.recalls:
            raise TypeError(
                f"{method!r} takes a diffusion of t, y and args, and this one looks into the past, "
                f"whose noise would come in by integrals over both: choose {other}."
            )

    def milstein_term(self, t: Array, y: Array) -> Array:
        """Twice the coefficient of W²: (g ∂g/∂y), for diagonal and for scalar noise.

        Where a component of a diagonal diffusion depends on others, this takes a derivative in
        each direction; else one for all.
        """
        g = lambda y: self.diffusion(t, y)  # noqa: E731
        if self.kind == "scalar" or self.own:
            value = g(y)
            return jax.jvp(g, (y,), (value,))[1]
        flat = y.ravel()
        units = jnp.eye(flat.size, dtype=y.dtype)
        along = lambda e: (jax.jvp(g, (y,), (e.reshape(y.shape),))[1].ravel() * e).sum()  # noqa: E731
        return g(y) * jax.vmap(along)(units).reshape(y.shape)


@dataclass(frozen=True)
class Delayed(Form):
    """An equation whose functions are called with (t, y, seen), where `seen` is the solution so
    far. Bound to a past it is its `equation`: an Ode, or an Sde.

    As long as the `origin` of its own past is not set (infinite), it has the given history alone.
    """

    equation: Any
    shape: StepLayout
    history: History
    origin: Array | float
    sign: Array | tuple
    held: tuple = ()
    since: Callable | None = None  # how far behind the start its lags reach, if that is watched

    def over(self, origin: Array | float, history: History | None) -> "Delayed":
        """Returns the form with another past, if there is one yet."""
        history = self.history if history is None else history.seen()
        return replace(self, history=history, origin=origin)

    def functions(self) -> dict[str, Callable]:
        """The functions of the equation."""
        return self.equation.functions()

    def sized(self, *, large: bool) -> "Delayed":
        """Returns the form with `large` of its equation set."""
        return replace(self, equation=self.equation.sized(large=large))

    def mapped(self, change: Callable) -> "Delayed":
        """Returns the form with each function of the equation changed."""
        return replace(self, equation=self.equation.mapped(change))

    def with_noise(self, bound: DrawnNoise) -> "Delayed":
        """Returns the form with the noise of a step in place."""
        return replace(self, equation=self.equation.with_noise(bound))

    def bind(self, now: Array | float, middle: Array | float, ahead: list | None = None) -> Any:
        """The equation of a step from `now`, with the row `ahead` for what lies beyond."""
        now, middle, origin = (jnp.asarray(x, self.shape.time) for x in (now, middle, self.origin))
        ahead = self.shape.filled(0.0) if ahead is None else ahead
        seen = HistoryView(self.history, ahead, now, middle, origin, self.sign)
        return self.equation.mapped(lambda f: lambda t, y: f(t, y, seen))

    def as_known(self) -> Any:
        """The equation where what is known now is all there will be."""
        return self.bind(jnp.inf, jnp.inf)


class Ito(Sde):
    """An `Sde` whose integrals take the diffusion at the start of each step."""


class Stratonovich(Sde):
    """An `Sde` whose integrals take the diffusion at the middle, so that the chain rule holds."""

    @staticmethod
    def square(w: Array, dt: Array) -> Array:
        del dt
        return w * w


_UNROLLED = 16  # sums of so many products are written out: straight code, also over lanes


def apply_diffusion(kind: str, g: Array, w: Array) -> Any:
    """A diffusion of some kind times increments."""
    if kind != "general":
        return g * w
    if w.shape[-1] > _UNROLLED:
        return g @ w.astype(g.dtype)
    return sum(g[..., j] * w[j] for j in range(w.shape[-1]))


def diffusion_magnitude(form: Sde) -> Callable:
    """|g|, per component of y."""
    if form.kind != "general":
        return form.diffusion
    return lambda t, y: jnp.sqrt(form.square_of(form.diffusion(t, y)))


def _drift_correction(form: Sde) -> Callable:
    """½ Σ_j (∂g_j/∂y) g_j: what a Stratonovich equation has in its drift that Itô's has not."""

    def half(t: Array, y: Array) -> Any:
        if form.kind != "general":
            return form.milstein_term(t, y) / 2
        column = lambda y, j: form.diffusion(t, y)[..., j]  # noqa: E731
        g = form.diffusion(t, y)
        return (
            sum(
                jax.jvp(lambda y, j=j: column(y, j), (y,), (g[..., j],))[1]
                for j in range(g.shape[-1])
            )
            / 2
        )

    return half


def _other(kind: type, sign: int) -> Callable:
    def converted(form: Sde) -> Sde:
        half = _drift_correction(form)
        drift = lambda t, y: form.drift(t, y) + sign * half(t, y)  # noqa: E731
        drift = form.drift if form.additive else drift
        return kind(**{**vars(form), "drift": drift})

    return converted


def solved_field(form: Any) -> Callable:
    """The field that implicit methods solve for: of two parts the implicit one."""
    return form.implicit if isinstance(form, Split) else form.field


def _split_to_ode(form: Split) -> Ode:
    return Ode(lambda t, y: form.implicit(t, y) + form.explicit(t, y), large=form.large)


def _partitioned_to_ode(form: Partitioned) -> Ode:
    def field(t: Array, y: Array) -> Array:
        q, p = form.halves(y)
        return jnp.concatenate([form.drift(t, q, p), form.kick(t, q, p)])

    return Ode(field, large=form.large)


def _same(form: Form) -> Any:
    return form


def _ode_to_mass(form: Ode) -> Mass:
    return Mass(form.field, form.jac, large=form.large)


_NAMES = {
    "delayed": Delayed,
    "ode": Ode,
    "split": Split,
    "partitioned": Partitioned,
    "mass": Mass,
    "implicit": Implicit,
    "sde": Sde,
    "ito": Ito,
    "stratonovich": Stratonovich,
}

# One table says which equation a method for another can solve, and how.
_RULES: dict[tuple[type, type], Callable] = {
    (Ode, Ode): _same,
    (Increments, Ode): _same,
    (Split, Split): _same,
    (Partitioned, Partitioned): _same,
    (Split, Ode): _split_to_ode,
    (Partitioned, Ode): _partitioned_to_ode,
    (Mass, Mass): _same,
    (Implicit, Implicit): _same,
    (Delayed, Delayed): _same,
    (Ode, Mass): _ode_to_mass,
    (Split, Mass): lambda form: _ode_to_mass(_split_to_ode(form)),
    (Partitioned, Mass): lambda form: _ode_to_mass(_partitioned_to_ode(form)),
    (Ito, Ito): _same,
    (Ito, Sde): _same,
    (Stratonovich, Sde): _same,
    (Stratonovich, Stratonovich): _same,
    (Ito, Stratonovich): _other(Stratonovich, -1),
    (Stratonovich, Ito): _other(Ito, 1),
}

_IMPLICIT = (
    "is explicit, and a mass-matrix problem needs an implicit method: Rodas5P, RadauIIA5, BDF"
)
_RESIDUAL = (
    "does not solve equations F(t, y, y') = 0: choose a method that does, de.BDF() or "
    "de.RadauIIA5(); or, where y' enters as M y', write a DAEProblem"
)
_NOISY = "solves equations without noise: choose a method for SDEs, such as de.SOSRI()"
_GIVEN = (
    "does not step a control by its increments: choose de.Heun() or de.Euler(), or "
    "by='derivative' where the control has one"
)
_QUIET = "solves equations with noise: give an SDEProblem, or choose a method such as de.Tsit5()"

_REASONS = {
    **{
        (kind, target): _NOISY
        for kind in (Ito, Stratonovich)
        for target in (Ode, Split, Partitioned, Mass)
    },
    **{
        (kind, target): _QUIET
        for kind in (Ode, Split, Partitioned, Mass, Implicit)
        for target in (Sde, Ito, Stratonovich)
    },
    **{(Implicit, target): _RESIDUAL for target in (Ode, Split, Partitioned, Mass)},
    **{(Increments, target): _GIVEN for target in (Split, Partitioned, Mass, Implicit)},
    **{(Increments, target): _QUIET for target in (Sde, Ito, Stratonovich)},
    (Ode, Partitioned): "needs positions and momenta: give a SecondOrderProblem or a "
    "HamiltonianProblem, or choose a method for any ODE, such as de.Tsit5()",
    (Ode, Split): "needs two parts: give a SplitODEProblem",
    (Mass, Ode): _IMPLICIT,
    (Mass, Split): "needs two parts and no mass matrix: give a SplitODEProblem",
    (Mass, Partitioned): _IMPLICIT,
}


def lower(form: Form, wanted: str | tuple[str, ...], method: str) -> Any:
    """`form` as the form that the method steps, or one sentence that says why not.

    Of several that are wanted, the one that the form has already, or else the last one.
    """
    names = (wanted,) if isinstance(wanted, str) else wanted
    if type(form) in [_NAMES[name] for name in names]:
        return form
    if isinstance(form, Mass) and form.mass is None:
        form = Ode(form.field, form.jac, large=form.large)
    target = _NAMES[names[-1]]
    rule = _RULES.get((type(form), target))
    if rule is None:
        reason = _REASONS.get((type(form), target), f"takes {names[-1]} equations only")
        raise TypeError(f"{method} {reason}.")
    return rule(form)
