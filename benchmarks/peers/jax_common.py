"""What the adapters of JAX libraries share: batching, the loss, its gradient, and one `jax.jit`.

An adapter gives `solve(case, y0, args, rtol, atol) -> ys`, with rows along the first axis.
"""

import functools

import jax
import numpy as np


def forward_value_and_grad(function):
    """`jax.value_and_grad` by forward mode, for few parameters and many steps."""

    def with_value(args):
        value = function(args)
        return value, value

    return jax.jacfwd(with_value, has_aux=True)


def _reverse(function, args):
    return jax.value_and_grad(function)(args)


def _forward(function, args):
    gradient, value = forward_value_and_grad(function)(args)
    return value, gradient


def trajectories(solve, case):
    """`run(y0, args, tolerance) -> ys` of one case, mapped as the case says."""

    def one(y0, args, tolerance):
        return solve(case, y0, args, tolerance, tolerance * case.atol_ratio)

    if case.vmap == "args":
        return jax.vmap(one, (None, 0, None))
    if case.vmap == "y0":
        return jax.vmap(one, (0, None, None), out_axes=0 if case.ts is None else 1)
    return one


def function(solve, case, mode, derivative=_reverse):
    """The function of `(tolerance, inputs)` that a mode of a case asks for, not yet compiled."""
    run = trajectories(solve, case)

    def forward(tolerance, inputs):
        return run(inputs.y0, inputs.args, tolerance)

    def gradient(tolerance, inputs):
        def loss(args):
            return case.loss(run(inputs.y0, args, tolerance), inputs.data)

        return derivative(loss, inputs.args)

    def lane_gradients(tolerance, inputs):
        def loss(args):
            ys = solve(case, inputs.y0, args, tolerance, tolerance * case.atol_ratio)
            return case.loss(ys, inputs.data)

        return jax.vmap(lambda args: derivative(loss, args))(inputs.args)

    if mode == "forward":
        return forward
    return lane_gradients if case.vmap == "args" else gradient


def build(solve, case, mode, *, reference=False):
    """`at(tolerance) -> solve(inputs)`, one compilation for all tolerances.

    With `reference`, the derivative is taken as the case wants it for its reference.
    """
    by_jvp = reference and case.reference_gradient == "forward"
    compiled = jax.jit(function(solve, case, mode, _forward if by_jvp else _reverse))
    return lambda tolerance: functools.partial(compiled, scalar(case, tolerance))


def build_static(solve, case, mode):
    """The same with one compilation for each tolerance, which is a Python number."""
    run = function(solve, case, mode)
    return lambda tolerance: jax.jit(functools.partial(run, tolerance))


def scalar(case, tolerance):
    """The tolerance on the device, in the precision of the case."""
    return jax.device_put(np.asarray(tolerance, case.dtype))
