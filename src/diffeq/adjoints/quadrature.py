"""`Quadrature`: λ is solved backwards; dL/dp is an adaptive quadrature of its polynomials."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..autodiff.while_loop import loop
from ..core.norm import magnitude
from .backward_solve import AdjointSystem
from .base import register_adjoint
from .gauss import AdjointOnly

__all__ = ["Quadrature"]

_SMALLEST = 2.0**-12  # of a step; a panel is not halved further

# The 7-point Gauss and 15-point Kronrod rules on (−1, 1), from the outermost node to the middle.
_NODES = (
    0.991455371120812639206854697526329, 0.949107912342758524526189684047851,
    0.864864423359769072789712788640926, 0.741531185599394439863864773280788,
    0.586087235467691130294144691693013, 0.405845151377397166906606412076961,
    0.207784955007898467600689403773245, 0.0,
)  # fmt: skip
_KRONROD = (
    0.022935322010529224963732008058970, 0.063092092629978553290700663189204,
    0.104790010322250183839876322541518, 0.140653259715525918745189590510238,
    0.169004726639267902826583426598550, 0.190350578064785409913256402421014,
    0.204432940075298892414161999234649, 0.209482141084727828012999174891714,
)  # fmt: skip
_GAUSS = (
    0.0, 0.129484966168869693270611432679082, 0.0, 0.279705391489276667901467771423780,
    0.0, 0.381830050505118944950369775488975, 0.0, 0.417959183673469387755102040816327,
)  # fmt: skip


def _both_sides(half: tuple, sign: float = 1.0) -> np.ndarray:
    return np.array([*half, *(sign * x for x in half[-2::-1])])


@register_adjoint
class Quadrature(AdjointOnly):
    """Solves λ backwards, with y(t) from the polynomials of the forward solve, and takes dL/dp by
    an adaptive quadrature.

    λ is interpolated on each step of the backward solve; ∫ (∂f/∂p)ᵀλ dt over the step is taken by
    Gauss–Kronrod rules of 7 and 15 points on panels that are halved until their difference is
    within tolerance. So the integral has an error control of its own, which `Gauss` has not, at the
    price of at least 15 evaluations a step. Step by step it needs no memory for λ.

    Args:
        rows: the number of attempts that the tape keeps before it is thinned, as for `Discrete`.
        rtol, atol: tolerances of λ and of the integral; None: those of the solve. atol is meant in
            units of y: for λ it is relative to the largest adjoint jump.
        method: the method of the backward solve; it must estimate its error. None: the method of
            the solve.

    Reverse mode only; for rows at given times and the end.

    Raises:
        TypeError: forward mode, second derivatives, or rows at the ends of steps were asked for.
        RuntimeError: (outside a trace) λ could not be solved, or the integral not be taken.

    Reference: kim2021, piessens1983.

    Example:
        >>> import jax, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 1.0)
        >>> adjoint = de.Quadrature()
        >>> end = lambda k: de.solve(problem.replace(args=k), rtol=1e-5, adjoint=adjoint).y1
        >>> round(float(jax.grad(end)(1.0)), 3)
        -0.368
    """

    def integrated(self, back: AdjointSystem, integrand: Any, total: list) -> list:
        """Adds the integrals over panels of the step to the total, each as long as its error
        allows.
        """
        dtype = integrand.dt.dtype
        nodes = jnp.asarray((1 - _both_sides(_NODES, -1.0)) / 2, dtype)
        kronrod = jnp.asarray(_both_sides(_KRONROD) / 2, dtype)
        difference = kronrod - jnp.asarray(_both_sides(_GAUSS) / 2, dtype)
        one, zero = jnp.ones((), dtype), jnp.zeros((), dtype)

        def ahead(consts: Any, panel: Any, _: Any) -> Array:
            del consts
            return panel[0] < 1

        def turn(active: Any, consts: Any, panel: Any, _: Any) -> tuple:
            del active, consts
            place, length, total = panel
            length = jnp.minimum(length, 1 - place)
            pull = integrand.pulled(place + nodes * length)
            found, error = pull(kronrod * length), pull(difference * length)
            after = [a + b for a, b in zip(total, found, strict=True)]
            parts = zip(back.of_parameters, error, total, after, strict=True)
            worst = jnp.max(jnp.stack([t.squared(e, a, b, None)[0] for t, e, a, b in parts]))
            good = worst <= 1
            gives_up = ~good & ((length <= _SMALLEST) | ~jnp.isfinite(worst))
            refused = jnp.where(gives_up, jnp.nan, 1.0).astype(dtype)
            after = [
                jnp.where(good, b, a * refused.astype(magnitude(a).dtype))
                for a, b in zip(total, after, strict=True)
            ]
            # The last panel ends on 1 exactly, whatever the rounding of sums.
            last = gives_up | (good & (length >= 1 - place))
            place = jnp.where(last, one, jnp.where(good, place + length, place))
            return (place, length * jnp.where(good, 2.0, 0.5), after), ()

        (_, _, total), _ = loop(ahead, turn, (zero, one, total))
        return total
