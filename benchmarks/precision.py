"""Achieved error: a reference of its own for each case, and the loosest tolerance that is enough.

The reference is the classical Runge–Kutta method (or Euler's, where the case is Euler's) with very
many fixed steps in float64, a plain `lax.scan` that shares no code with any peer.
"""

import functools
import time

import jax
import numpy as np

from benchmarks.peers import jax_common

VARIANT_SECONDS = 3.0
"""No more variants are asked after this; a first call that compiles counts in it."""
RUNGS = 8
"""Tolerances a decade: the ladder is 10**(-k/8)."""
LOOSEST, TIGHTEST = 1, {"float64": 13, "float32": 8}


def _rk4_step(field, t, y, dt, args):
    k1 = field(t, y, args)
    k2 = field(t + dt / 2, y + dt / 2 * k1, args)
    k3 = field(t + dt / 2, y + dt / 2 * k2, args)
    k4 = field(t + dt, y + dt * k3, args)
    return y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _euler_step(field, t, y, dt, args):
    return y + dt * field(t, y, args)


def _solve(case, y0, args, rtol, atol):
    euler = case.method == "euler"
    step = _euler_step if euler else _rk4_step
    intervals = 1 if case.saves is None else case.saves - 1
    total = case.steps if euler else max(case.reference_steps, 2 * (case.steps or 0))
    substeps = -(-total // intervals)
    dt = (case.t1 - case.t0) / (intervals * substeps)

    def advance(y, i):
        return step(case.field, case.t0 + dt * i, y, dt, args), None

    def interval(y, i):
        y, _ = jax.lax.scan(advance, y, i * substeps + jax.numpy.arange(substeps))
        return y, y

    y1, ys = jax.lax.scan(interval, y0, jax.numpy.arange(intervals))
    return y1 if case.saves is None else jax.numpy.concatenate([y0[None], ys])


def references(case, mode, inputs):
    """What `mode` should give, for each of the inputs; NumPy float64."""
    with jax.enable_x64(True):
        solve = jax_common.build(_solve, case, mode, reference=True)(0.0)
        wide = [jax.tree.map(lambda x: np.asarray(x, np.float64), each) for each in inputs]
        return [jax.tree.map(np.asarray, solve(each)) for each in wide]


def error(outputs, reference):
    """The largest difference in units of the largest entry; infinite if not finite."""

    def leaf(got, wanted):
        difference = np.max(np.abs(np.asarray(got, np.float64) - wanted))
        return float(difference / np.max(np.abs(wanted)))

    errors = jax.tree.leaves(jax.tree.map(leaf, outputs, reference))
    return max(errors) if np.all(np.isfinite(errors)) else float("inf")


def achieved(solve, inputs, wanted):
    """The largest error over the variants, of a slow solve over the first few."""
    largest, start = 0.0, time.perf_counter()
    for each, reference in zip(inputs, wanted, strict=True):
        largest = max(largest, error(solve(each), reference))
        if time.perf_counter() - start > VARIANT_SECONDS:
            break
    return largest


def achieved_or_infinite(solve, inputs, wanted):
    """The same, infinite where the solve fails."""
    try:
        return achieved(solve, inputs, wanted)
    except Exception:  # each library has its own way to fail; every one of them is a failure
        return float("inf")


def loosest(case, at, inputs, wanted):
    """The loosest tolerance whose error is at most `case.target_error`, and that error.

    Decade by decade first, then by bisection inside the decade.
    """

    @functools.cache
    def measured(rung):
        return achieved_or_infinite(at(10.0 ** (-rung / RUNGS)), inputs, wanted)

    def enough(rung):
        return measured(rung) <= case.target_error

    good = _decade(enough, round(-np.log10(case.target_error)), TIGHTEST[case.dtype])
    bad = good - RUNGS
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if enough(middle) else (good, middle)
    return 10.0 ** (-good / RUNGS), measured(good)


def _decade(enough, start, tightest):
    """The loosest rung at a whole decade that is enough, from a guess."""
    decade = start
    while not enough(decade * RUNGS):
        decade += 1
        if decade > tightest:
            raise RuntimeError("no tolerance reaches the target error")
    while decade <= start and decade > LOOSEST and enough((decade - 1) * RUNGS):
        decade -= 1
    return decade * RUNGS
