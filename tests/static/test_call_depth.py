"""The way of a state is short: few of our functions are between a user's call and the user's code.

A reader who follows a call through the package, or a stack trace, passes them one by one.
"""

import sys
from pathlib import Path

import jax.numpy as jnp

import diffeq as de

ROOT = str(Path(de.__file__).parent)
TO_FIELD, TO_STEP = 12, 30


def our_functions_above() -> list[str]:
    """The names of the functions of the package on the stack, from the caller's on."""
    names, frame = [], sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(ROOT):
            names.append(frame.f_code.co_qualname)
        frame = frame.f_back
    return names


def test_few_functions_are_above_the_field_and_the_step() -> None:
    seen: dict[str, list[str]] = {}

    class Watched(de.Tsit5):
        def step(self, form, t, y, dt, memory):
            seen.setdefault("step", our_functions_above())
            return super().step(form, t, y, dt, memory)

    def decay(t, y, args):
        seen.setdefault("field", our_functions_above())
        return -y

    problem = de.ODEProblem(decay, jnp.array([1.0, 2.0]), (0.0, 1.0))
    de.solve(problem, Watched(), saveat=jnp.linspace(0, 1, 5))
    assert len(seen["field"]) <= TO_FIELD, seen["field"]
    assert len(seen["step"]) <= TO_STEP, seen["step"]
