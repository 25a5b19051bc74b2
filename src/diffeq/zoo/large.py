"""Large stiff problems, whose Jacobians are zero almost everywhere: reactions on a line and on a
square.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from diffeq import algebra, problems
from diffeq.zoo.case import Reference, references, vector

__all__ = ["LargeCase", "brusselator_2d", "medical_akzo", "reaction_diffusion"]


@dataclasses.dataclass(frozen=True, eq=False)
class LargeCase:
    """A large stiff problem, the structure of its Jacobian, and what is published of its solution.

    `y0` and `args` are numpy arrays in double precision, whatever JAX is set to: `problem()` is
    where they become JAX arrays.

    Attributes:
        name: its name.
        title: one line for a table.
        field: the right-hand side f(t, y, args).
        y0: the start.
        tspan: the interval.
        args: the parameters, a vector.
        jac: the structure of ∂f/∂y.
        source: a key of `docs/references.bib`.
        stops: times at which the field jumps.
        published: components of the end, by their places in the ravelled state.
        components: the names of the components of y0, where they have names.
        parameters: the names of those of args.
        observables: sums of components that are measured, by their names: the weights of each.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.reaction_diffusion(100)
        >>> case.jac, de.solve(case.problem()).y1.shape
        (Banded(1, 1), (100,))

    """

    name: str
    title: str
    field: Callable[..., Any]
    y0: Float64[np.ndarray, "..."]
    tspan: tuple[float, float]
    args: Float64[np.ndarray, " k"]
    jac: algebra.JacobianStructure
    source: str
    stops: tuple[float, ...] = ()
    published: Mapping[int, float] = dataclasses.field(default_factory=dict)
    components: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    observables: Mapping[str, Float64[np.ndarray, " n"]] = dataclasses.field(default_factory=dict)

    @property
    def reference(self) -> Reference:
        """The stored solution.

        Raises:
            KeyError: there is none.

        """
        return references()[self.name]

    def problem(self, *, structured: bool = True) -> "problems.ODEProblem":
        """The problem in the default precision of JAX, with the structure of its Jacobian or
        without. It is solved with `stops=case.stops`.
        """
        y0, args = jnp.asarray(self.y0), jnp.asarray(self.args)
        jac = self.jac if structured else None
        return problems.ODEProblem(self.field, y0, self.tspan, args, jac=jac)


def _reaction_diffusion(t, y, args):
    diffusion, rate = args
    wide = jnp.concatenate([y[:1], y, y[-1:]])
    around = wide[2:] - 2 * y + wide[:-2]
    return diffusion * y.size**2 * around + rate * y * (1 - y)


def reaction_diffusion(n: int = 1000) -> LargeCase:
    """Fisher's equation on a line of n cells: a population that spreads, and grows to a limit.

    u_t = D u_xx + r u (1 − u) on (0, 1) with closed ends, D = 0.02 and r = 10, from a hump at x =
    0.3, over (0, 1); second differences on n cells.

    Reference: fisher1937.

    Example:
        >>> import diffeq as de
        >>> de.zoo.reaction_diffusion(300).y0.shape
        (300,)
    """
    x = (np.arange(n) + 0.5) / n
    return LargeCase(
        name="reaction_diffusion",
        title=f"reaction and diffusion on a line, n = {n:,}",
        field=_reaction_diffusion,
        y0=np.exp(-30 * (x - 0.3) ** 2),
        tspan=(0.0, 1.0),
        args=vector(0.02, 10.0),
        jac=algebra.Banded(1, 1),
        source="fisher1937",
    )


def _medical_akzo(t, y, args):
    speed, start = args
    u, v = y.reshape(-1, 2).T
    n = u.size
    step = 1 / n
    place = jnp.arange(1, n + 1) * step - 1
    slope, bend = 2 * place**3 / 16, place**4 / 16
    left = jnp.concatenate([jnp.where(t <= 5, start, 0 * start)[None], u[:-1]])
    right = jnp.concatenate([u[1:], u[-1:]])
    moved = slope * (right - left) / (2 * step) + bend * (left - 2 * u + right) / step**2
    meeting = speed * u * v
    return jnp.stack([moved - meeting, -meeting], axis=1).ravel()


def medical_akzo() -> LargeCase:
    """Medical Akzo Nobel: an antibody that enters a tumour and is bound there; 400 equations.

    u_t = u_xx − k u v, v_t = −k u v on x > 0, with u = 2 at x = 0 up to t = 5 and 0 from then on,
    u = 0 and v = 1 at the start, k = 100, over (0, 20); x = 4 ζ/(1 − ζ) takes it to 200 cells in ζ,
    as the test set does. The components of one cell are next to each other.

    Reference: mazzia2008.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.medical_akzo()
        >>> case.y0.shape, case.jac, case.stops
        ((400,), Banded(2, 2), (5.0,))
    """
    return LargeCase(
        name="medical_akzo",
        title="medical Akzo Nobel, n = 400",
        field=_medical_akzo,
        y0=np.tile([0.0, 1.0], 200),
        tspan=(0.0, 20.0),
        args=vector(100.0, 2.0),
        jac=algebra.Banded(2, 2),
        source="mazzia2008",
        stops=(5.0,),
        published={  # numbered from 1 there
            78: 0.2339942217046434e-3,
            148: 0.3595616017506735e-3,
            198: 0.11737412926802e-3,
            199: 0.61908071460151e-5,
            238: 0.68600948191191e-11,
            239: 0.99999973258552,
        },
    )


def _brusselator_2d(t, y, args):
    a, b, diffusion = args
    n = y.shape[0]
    u, v = y[..., 0], y[..., 1]
    around = sum(jnp.roll(y, step, axis) for axis in (0, 1) for step in (-1, 1)) - 4 * y
    place = jnp.arange(n) / n
    circle = (place[:, None] - 0.3) ** 2 + (place - 0.6) ** 2 <= 0.1**2
    source = jnp.where(circle & (t >= 1.1), 5.0, 0.0)
    both = u**2 * v
    reaction = jnp.stack([a + both - (b + 1) * u + source, b * u - both], axis=-1)
    return diffusion * n**2 * around + reaction


def brusselator_2d(n: int = 100) -> LargeCase:
    """The Brusselator with diffusion on n × n cells with periodic borders: 2 n² equations.

    u_t = a + u² v − (b + 1) u + α Δu + f, v_t = b u − u² v + α Δv with (a, b, α) = (1, 3.4, 0.1),
    f = 5 inside a circle of radius 0.1 around (0.3, 0.6) from t = 1.1 on, and 0 elsewhere; from u =
    22 y (1 − y)^(3/2), v = 27 x (1 − x)^(3/2), over (0, 11.5).

    Reference: hairer1996, IV.10.

    Example:
        >>> import diffeq as de
        >>> case = de.zoo.brusselator_2d(8)
        >>> case.y0.shape, case.jac
        ((8, 8, 2), Sparse(128×128, 768 entries))
    """
    place = np.arange(n) / n
    x, y = np.meshgrid(place, place, indexing="ij")
    start = np.stack([22 * y * (1 - y) ** 1.5, 27 * x * (1 - x) ** 1.5], axis=-1)
    return LargeCase(
        name="brusselator_2d",
        title=f"Brusselator on {n} × {n} cells, n = {2 * n * n:,}",
        field=_brusselator_2d,
        y0=start,
        tspan=(0.0, 11.5),
        args=vector(1.0, 3.4, 0.1),
        jac=algebra.Sparse(_square_pattern(n)),
        source="hairer1996",
        stops=(1.1,),
    )


def _square_pattern(n: int) -> algebra.Pattern:
    """Each component sees itself in the four cells around, and both in its own."""
    number = np.arange(2 * n * n).reshape(n, n, 2)
    near = [np.roll(number, step, axis) for axis in (0, 1) for step in (-1, 1)]
    seen = np.stack([*near, number, number[..., ::-1]], axis=-1)
    rows = np.broadcast_to(number[..., None], seen.shape)
    return algebra.Pattern(2 * n * n, rows.ravel(), seen.ravel())
