"""The methods and options of torchdiffeq, as those of this package."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import torch

from ..controllers import PI, I
from ..methods import BDF, METHODS, ExplicitRK, Method, Tableau
from ..methods.tableaus.explicit import DOPRI5

__all__ = [
    "StepOptions",
    "controlled_steps",
    "method_and_options",
    "most_steps",
    "non_negative",
]

# torchdiffeq's "dopri5": the steps and the interpolant of Dormand and Prince, and an error estimate
# by the embedded weights of Shampine (1986), which is smaller than that of the pair's own.
_SHAMPINE = "b_hat | 1951/21600 0 22642/50085 451/720 -12231/42400 649/6300 1/60"
_DOPRI5_OF_SHAMPINE = Tableau(
    re.sub(r"(?m)^b_hat .*$", _SHAMPINE, DOPRI5).replace("name: Dopri5", "name: Dopri5OfShampine")
)

_HEUN3 = Tableau("""
name: Heun3
order: 3

0     |
1/3   | 1/3
2/3   | 0    2/3
------+--------------
b     | 1/4  0    3/4
""")

_RK38 = Tableau("""
name: RK38
order: 4

0     |
1/3   | 1/3
2/3   | -1/3  1
1     | 1     -1   1
------+-------------------
b     | 1/8   3/8  3/8  1/8
""")

_FEHLBERG2 = Tableau("""
name: Fehlberg2
order: 2(1)

0     |
1/2   | 1/2
1     | 1/256  255/256
------+-----------------------
b     | 1/512  255/256  1/512
b_hat | 1/256  255/256  0
""")

_ADAPTIVE: dict[str, Method] = {
    "dopri8": METHODS["Dopri8"](),
    "dopri5": ExplicitRK(_DOPRI5_OF_SHAMPINE),
    "bosh3": METHODS["Bosh3"](),
    "fehlberg2": ExplicitRK(_FEHLBERG2),
    "adaptive_heun": METHODS["Heun"](),
}
_FIXED: dict[str, Method] = {
    "euler": METHODS["Euler"](),
    "midpoint": METHODS["Midpoint"](),
    "heun2": METHODS["Heun"](),
    "heun3": ExplicitRK(_HEUN3),
    "rk4": ExplicitRK(_RK38),  # Kutta's other method of order 4, the 3/8 rule
}
_OF_SCIPY: dict[str, Method | None] = {
    "RK23": METHODS["Bosh3"](),
    "RK45": METHODS["Dopri5"](),
    "DOP853": METHODS["Dopri8"](),
    "Radau": METHODS["RadauIIA5"](),
    "BDF": BDF(),
    "LSODA": None,  # solve chooses, and turns to a stiff method where the equation is stiff
}
_REFUSED = {
    "explicit_adams": "an Adams–Bashforth method with given steps: 'rk4' is nearest to it",
    "implicit_adams": "an Adams–Moulton method with given steps: 'rk4' is nearest to it",
    "fixed_adams": "an Adams–Moulton method with given steps: 'rk4' is nearest to it",
}
_NAMES = (*_ADAPTIVE, *_FIXED, "scipy_solver")

# The options of each kind of method, with torchdiffeq's defaults for its own.
_OF_CONTROLLED = {
    "first_step": None, "min_step": 0.0, "max_step": float("inf"), "step_t": None, "jump_t": None,
    "safety": None, "ifactor": None, "dfactor": None, "max_num_steps": None, "dtype": None,
    "norm": None,
}  # fmt: skip
_OF_ADAPTIVE = {**_OF_CONTROLLED, "safety": 0.9, "ifactor": 10.0, "dfactor": 0.2}
_OF_FIXED = {
    "step_size": None, "grid_constructor": None, "interp": "linear", "perturb": False, "norm": None,
}  # fmt: skip
_OF_SCIPY_SOLVER = {
    "solver": "LSODA", "min_step": 0.0, "max_step": float("inf"), "max_num_steps": None,
    "norm": None,
}  # fmt: skip


class StepOptions(NamedTuple):
    """A method with how its steps are chosen, and the options that were given."""

    method: Method | None
    fixed: bool
    options: dict[str, Any]
    named: bool  # the method is one of torchdiffeq's, given by its name
    controller: type[PI] | type[I] = PI


def method_and_options(method: Any, options: Any, name: str = "method") -> StepOptions:
    """Reads `method` and `options` as torchdiffeq has them.

    Raises:
        TypeError: options is no dict.
        ValueError: the method is none of torchdiffeq's, or one that is not here; an option is none
            of the method's.
    """
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(f"options is {options!r}; a dict is wanted, such as {{'step_size': 0.1}}.")
    given = {} if options is None else dict(options)
    method = "dopri5" if method is None else method
    if isinstance(method, Method):
        known, fixed, found = _OF_CONTROLLED, False, method
        if "step_size" in given or "grid_constructor" in given:
            known, fixed = _OF_FIXED, True
    elif method in _REFUSED:
        raise ValueError(f"{name} is {method!r}, {_REFUSED[method]}, or an adaptive one, 'dopri5'.")
    elif not isinstance(method, str) or method not in _NAMES:
        names = ", ".join(f'"{x}"' for x in _NAMES)
        raise ValueError(
            f'Invalid method "{method}". Must be one of {{{names}}}, or a method of diffeq, such '
            "as de.Tsit5() or, for stiff equations, de.Rodas5P()."
        )
    elif method == "scipy_solver":
        known, fixed, found = _OF_SCIPY_SOLVER, False, _scipy_method(given)
    else:
        fixed = method in _FIXED
        known, found = (_OF_FIXED, _FIXED[method]) if fixed else (_OF_ADAPTIVE, _ADAPTIVE[method])
    for option in given:
        if option not in known:
            raise ValueError(
                f"options has {option!r}, which {method!r} does not know; it takes "
                f"{', '.join(known)}."
            )
    # torchdiffeq's methods propose their steps as there, so that they are as many and as exact.
    controller = I if known is _OF_ADAPTIVE else PI
    return StepOptions(found, fixed, {**known, **given}, isinstance(method, str), controller)


def non_negative(name: str, value: Any) -> float:
    """The number that a tolerance or a step size is; refused where it is none, or less than 0."""
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not number >= 0:
        raise ValueError(f"{name} is {value!r}; a positive number is wanted.")
    return number


def _scipy_method(given: Mapping[str, Any]) -> Method | None:
    solver = given.get("solver", "LSODA")
    if solver not in _OF_SCIPY:
        raise ValueError(
            f"options has the solver {solver!r}; one of {', '.join(_OF_SCIPY)} is wanted."
        )
    return _OF_SCIPY[solver]


def controlled_steps(chosen: StepOptions, norm: Callable | None) -> dict[str, Any]:
    """The options of `solve` for a method with an error control; `norm` is of vectors of scaled
    errors.
    """
    options = chosen.options
    factors = {"safety": "safety", "grow": "ifactor", "shrink": "dfactor"}
    given: dict[str, Any] = {k: options.get(v) for k, v in factors.items()}
    shortest, longest = float(options["min_step"]), float(options["max_step"])
    controller = chosen.controller(
        **{k: x for k, x in given.items() if x is not None},
        dtmin=shortest or None,
        dtmax=None if longest == math.inf else longest,
        norm=norm,
    )
    first = options.get("first_step")
    stops = [x for name in ("step_t", "jump_t") for x in _times(options.get(name))]
    return {
        "controller": controller,
        "dt0": None if first is None else float(first),
        "stops": jnp.asarray(sorted(stops)) if stops else (),
    }


def most_steps(options: Mapping[str, Any]) -> int:
    """The most attempts of a solve with an error control."""
    most = options["max_num_steps"]
    return _MOST if most is None else min(int(most), _MOST)


_MOST = 10_000_000  # attempts: a counter, which costs nothing


def _times(x: Any) -> list[float]:
    return [] if x is None else torch.as_tensor(x).detach().reshape(-1).tolist()
