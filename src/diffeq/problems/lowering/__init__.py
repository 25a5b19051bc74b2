"""The canonical form of a user's problem, over packed arrays.

`canonical(problem)` evaluates what depends on args, packs the state, checks what the field returns,
and reverses time where it runs backwards. Methods never see a problem. Each kind of problem has a
rule, which says what functions it has and which equation they make.
"""

from .canonical import (
    Canonical,
    canonical,
    equation_at,
    functions_of,
    initial_tree,
    named_leaves,
    names_of,
)
from .time_interval import flip_time, time_dtype, time_interval
from .traced_function import Traced, as_rate

__all__ = [
    "Canonical",
    "Traced",
    "as_rate",
    "canonical",
    "equation_at",
    "flip_time",
    "functions_of",
    "initial_tree",
    "named_leaves",
    "names_of",
    "time_dtype",
    "time_interval",
]
