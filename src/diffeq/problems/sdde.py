"""Stochastic delay equations: dy = drift dt + diffusion dW, where both may look at the past."""

from collections.abc import Callable
from typing import ClassVar

from jaxtyping import PyTree

from ..core.packing import as_state
from .base import TimeSpan
from .dde import Lags
from .sde import Noisy

__all__ = ["SDDEProblem"]


class SDDEProblem(Noisy):
    """dy = drift(t, y, past, args) dt + diffusion(t, y, past, args) dW with past(s) = y(s), s ≤ t.

    An `SDEProblem` whose functions look back as the field of a `DDEProblem` does: `past(s)` is the
    path at any time s ≤ t, and what it was before the start is the `history`.

    Args:
        drift: `drift(t, y, past, args)`, in units of y over units of t. `past(s)` has the structure
            of y; s is a time, or an array of times, whose axes come first in the result.
        diffusion: `diffusion(t, y, past, args)`, in units of y over the root of the unit of t. What
            it returns is as in `SDEProblem`, by `noise`.
        y0: the state at the start; None: history(t0). Another one is a jump there.
        tspan: (t0, t1) with t0 < t1; or a function of args.
        args: parameters, any pytree.
        history: `history(t, args)`, y at times before t0; or what y was there, as a constant.
        lags: the lags that are looked back by, positive; one or a sequence, or a function of args
            or of (t, y, args); `()` declares none. As in `DDEProblem`.
        noise: "diagonal", "scalar" or "general".
        additive: declares that the diffusion depends on t and args only, and has that checked.
        interpretation: "ito" or "stratonovich". A method of the other kind solves the equation with
            its drift converted by ½ Σ_j (∂g_j/∂y) g_j, the past as it is: what lies a lag back
            knows nothing of the noise now.

    Steps are given, by `dt=` or `de.Fixed(ts)`. The method is Euler's: `EulerMaruyama` (the default
    of an Itô equation), `EulerHeun` (of a Stratonovich equation) and, where the drift is stiff,
    `ImplicitEM`; of strong order 1/2, or 1 where the noise is additive. `Milstein` is of order 1,
    where the diffusion does not look back.

    The past is the path at the ends of steps, and a line between them. The line misses the path by
    O(√dt), but by as much to either side: a diffusion that reads it keeps order 1/2, and a drift
    keeps order 1. Where a lag is a multiple of dt there is nothing between. A lag may be shorter
    than dt. Euler–Maruyama looks back from the start of its step, where all it sees has happened; a
    method that looks back from its end then sees the step itself, and is repeated as on a
    `DDEProblem`. Where y0 is a jump, a step ends where that comes back.

    Lags, history, y0 and args differentiate along the path, by `de.Discrete`; the derivative by a
    lag is that of the lines. At a lag that is a multiple of dt they have a kink, and it is that of
    one side.

    There are no controlled steps, no events, no jumps at a rate and no solve by hand (`init`).

    Raises:
        ValueError: noise or interpretation is another word; (by `solve`) steps are not given; a lag
            is not positive and finite; tspan runs backwards.
        TypeError: (by `solve`) drift or diffusion takes other arguments, or does not fit y; the
            diffusion uses y or the past though it was declared additive; history or y0 does not fit
            the other; the method is for other equations.
        SolveError: (by `solve`) the equation asked for past(s) with s > t, or for what is no longer
            kept: `max_saves=` steps, by default 1,024.

    Reference: buckwar2000; hu2004.

    Example:
        Noise in a feedback that arrives late, and the mean, which obeys the equation without noise:

        >>> import jax, jax.numpy as jnp, diffeq as de
        >>> late = lambda t, y, past, lag: -past(t - lag)
        >>> noise = lambda t, y, past, lag: 0.3 * past(t - lag)
        >>> noisy = de.SDDEProblem(late, noise, None, (0.0, 2.0), 1.0, history=1.0, lags=1.0)
        >>> end = lambda key: de.solve(noisy, dt=0.05, key=key).y1
        >>> ends = jax.vmap(end)(jax.random.split(jax.random.key(0), 1000))
        >>> bool(abs(jnp.mean(ends) + 0.5) < 0.05)
        True
    """

    explicit_function: ClassVar[str] = "drift"
    fields = (
        "drift",
        "diffusion",
        "y0",
        "tspan",
        "args",
        "history",
        "lags",
        "noise",
        "additive",
        "interpretation",
    )
    functions: ClassVar[dict[str, str]] = {
        "drift": "t, y, past, args",
        "diffusion": "t, y, past, args",
    }
    delayed: ClassVar[bool] = True

    def __init__(
        self,
        drift: Callable,
        diffusion: Callable,
        y0: PyTree,
        tspan: TimeSpan,
        args: PyTree = None,
        *,
        history: PyTree,
        lags: Lags,
        noise: str = "diagonal",
        additive: bool = False,
        interpretation: str = "ito",
    ) -> None:
        self.drift, self.diffusion = drift, diffusion
        self.y0, self.tspan, self.args = as_state(y0), tspan, args
        self.history = history if callable(history) else as_state(history)
        self.lags = lags
        self.noise, self.additive, self.interpretation = noise, bool(additive), interpretation
        self._check_words()
