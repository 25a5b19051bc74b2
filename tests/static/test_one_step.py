"""The sequence of a step is written once: the loop, the derivative, stepping by hand and the
backward solves call `take_step`, and nothing else steps a method.
"""

import ast
from pathlib import Path

import diffeq as de

ROOT = Path(de.__file__).parent

# `step_interpolant` makes a whole step again to interpolate it; `check_method` tries a user's
# method; a method may step another one.
ELSEWHERE = {"integrator/saving.py", "testing.py"}
ARGUMENTS = 5  # form, t, y, dt, memory


def steps_a_method(path: Path) -> bool:
    """True if a module calls `method.step(form, t, y, dt, memory)`."""
    calls = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
    return any(
        isinstance(call.func, ast.Attribute)
        and call.func.attr == "step"
        and len(call.args) == ARGUMENTS
        for call in calls
    )


def test_one_place_steps_a_method() -> None:
    found = {p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.py") if steps_a_method(p)}
    found = {name for name in found if not name.startswith("methods/")}
    assert found == {"integrator/take_step.py"} | ELSEWHERE
