"""Tries an installation: `python -m diffeq.selftest` solves, differentiates, compares with known
numbers, and ends with status 1 if something is wrong.

It takes about ten seconds, most of them to compile, and needs neither a network nor a clone.
"""

import math
import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .core.jax_contracts import NEWEST, missing_parts
from .methods import METHODS
from .problems import ODEProblem, SDEProblem
from .solve import solve

__all__ = ["CHECKS", "Check", "main"]

_PACKAGES = (
    "diffeq", "jax", "jaxlib", "equinox", "lineax", "optimistix", "optax", "jaxtyping", "numpy",
)  # fmt: skip


class Check(NamedTuple):
    """A computation and its known result: `found()` is at most `error` away from `known`."""

    name: str
    found: Callable[[], Array]
    known: tuple[float, ...]
    error: float


def _orbit() -> Array:
    """The end of a closed orbit around a centre of attraction: y'' = −y / |y|³."""

    def field(t: Array, y: Array, args: None) -> Array:
        return jnp.concatenate([y[2:], -y[:2] / jnp.sum(y[:2] ** 2) ** 1.5])

    start, span = jnp.array([0.5, 0.0, 0.0, math.sqrt(3.0)]), (0.0, 2 * math.pi)
    return solve(ODEProblem(field, start, span), METHODS["Tsit5"](), rtol=1e-6, atol=1e-6).y1


def _stiff() -> ODEProblem:
    """Robertson's reaction: three rates over nine powers of ten."""

    def field(t: Array, y: Array, k: Array) -> Array:
        slow, fast, back = k[0] * y[0], k[1] * y[1] ** 2, k[2] * y[1] * y[2]
        return jnp.stack([back - slow, slow - back - fast, fast])

    return ODEProblem(field, jnp.array([1.0, 0.0, 0.0]), (0.0, 40.0), jnp.array([0.04, 3e7, 1e4]))


def _reaction() -> Array:
    y1 = solve(_stiff(), METHODS["Rodas5P"](), rtol=1e-5, atol=1e-9).y1
    return y1 * jnp.array([1.0, 1e5, 1.0])


def _variance() -> Array:
    """Mean and variance of 4,000 paths of dy = −y dt + dW from 0, at t = 1."""

    def path(key: Array) -> Array:
        problem = SDEProblem(
            lambda t, y, a: -y, lambda t, y, a: jnp.ones(()), 0.0, (0.0, 1.0), additive=True
        )
        return solve(problem, METHODS["SRA1"](), dt=0.1, key=key).y1

    ends = jax.jit(jax.vmap(path))(jax.random.split(jax.random.key(0), 4_000))
    return jnp.stack([ends.mean(), ends.var()])


def _gradient() -> Array:
    """The value and both derivatives of y(1) = y0 exp(−k)."""

    def end(y0: Array, k: Array) -> Array:
        problem = ODEProblem(lambda t, y, k: -k * y, y0, (0.0, 1.0), k)
        return solve(problem, METHODS["Tsit5"](), rtol=1e-5, atol=1e-6).y1

    value, slopes = jax.value_and_grad(end, (0, 1))(jnp.array(2.0), jnp.array(1.0))
    forward = jax.jacfwd(end, 1)(jnp.array(2.0), jnp.array(1.0))
    return jnp.stack([value, *slopes, forward])


def _stiff_gradient() -> Array:
    """The sum of the derivatives of all concentrations, which is 0, and one of them by a rate."""
    problem = _stiff()

    def ends(k: Array) -> Array:
        method = METHODS["Rodas5P"]()
        return solve(problem.replace(args=k), method, rtol=1e-5, atol=1e-9).y1

    pulled = jax.vjp(ends, problem.args)[1]
    whole, first = pulled(jnp.ones(3))[0], pulled(jnp.array([1.0, 0.0, 0.0]))[0]
    return jnp.stack([jnp.sum(jnp.abs(whole * problem.args)), first[0]])


_E = math.exp(-1.0)
CHECKS = (
    Check("an orbit, by Tsit5", _orbit, (0.5, 0.0, 0.0, math.sqrt(3.0)), 5e-3),
    Check("a stiff reaction, by Rodas5P", _reaction, (0.71583, 0.91855, 0.28416), 5e-4),
    Check("4,000 paths with noise, by SRA1", _variance, (0.0, (1 - _E**2) / 2), 0.05),
    Check("a gradient, in both modes", _gradient, (2 * _E, _E, -2 * _E, -2 * _E), 1e-4),
    Check("a gradient of the reaction", _stiff_gradient, (0.0, -4.2476), 5e-3),
)


def main(checks: Sequence[Check] = CHECKS) -> int:
    """Prints versions and the result of each check; returns how many are wrong.

    >>> main([Check("one and one", lambda: jnp.array([2.0]), (3.0,), 0.1)])
    diffeq ...
    WRONG    one and one: 2; 3 is known, with an error of at most 0.1
    1 of 1 checks is wrong.
    1
    """
    print(_installed())
    missing = list(missing_parts())
    for part, purpose in missing:
        print(f"WRONG    this JAX has no {part}, by which diffeq {purpose}")
    wrong = sum(not _passes(check) for check in checks)
    if wrong:
        print(f"{wrong} of {len(checks)} checks {'is' if wrong == 1 else 'are'} wrong.")
    elif not missing:
        print(f"All {len(checks)} checks are right.")
    return wrong + len(missing)


def _passes(check: Check) -> bool:
    """Runs a check, and prints its result in a line."""
    try:
        found = jnp.ravel(check.found()).tolist()
    except Exception as error:  # of whatever kind: the others still run
        print(f"WRONG    {check.name}: {traceback.format_exception_only(error)[-1].strip()}")
        return False
    pairs = list(zip(found, check.known, strict=True))
    if all(abs(a - b) <= check.error for a, b in pairs):  # false of NaN
        print(f"right    {check.name}")
        return True
    shown = ["{:.6g}; {:.6g} is known".format(*pair) for pair in pairs]
    print(f"WRONG    {check.name}: {', '.join(shown)}, with an error of at most {check.error:g}")
    return False


def _installed() -> str:
    """A line of the versions of all that takes part, and of the device."""
    shown = []
    for package in _PACKAGES:
        try:
            shown.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            shown.append(f"{package} (not installed)")
    device = jax.devices()[0]
    newer = " (newer than the tested ones)" if jax.__version_info__[:2] > NEWEST else ""
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    kind = f"{device.platform}: {device.device_kind}"
    return f"{', '.join(shown)}{newer}\n{python}, {kind}"


if __name__ == "__main__":
    sys.exit(min(main(), 1))
