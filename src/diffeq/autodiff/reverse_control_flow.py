"""Reverse mode through what a user's function may hold: loops and branches.

JAX cannot transpose a `while` loop, and finds it far from the function that holds it: `loops_named`
says where it is. Nor can it transpose a branch that lanes have chosen each for itself, if lanes
came after the derivative: `transposable` mends that.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..core.split import Sizes
from .jax_internals import (
    CALLS,
    Equation,
    Jaxpr,
    ShapedArray,
    branches_of,
    called,
    contains,
    define,
    input_types,
    interpret,
    name_of,
    output_types,
    own_dependence,
    parameters,
    replace_primitive,
    scan_of,
    subprograms,
    user_line,
    zero_tangent,
)

__all__ = ["linear_inputs", "loops_named", "transposable"]

_OF_JAX = "Reverse-mode differentiation does not work for"
_WAYS = (
    "Write it as jax.lax.scan, or as jax.lax.fori_loop between Python numbers (with jnp.where in "
    "turns that should change nothing); give the root that an iteration converges to by "
    "jax.lax.custom_root; or take forward mode, jax.jacfwd or jax.jvp, which goes through it."
)


@contextmanager
def loops_named(linear: Callable[[], tuple[Jaxpr, Sequence[bool]]]) -> Iterator[None]:
    """Within it a `while` loop that cannot be transposed is named by its line. `linear()` is what
    is transposed, and which of its inputs it is linear in.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(_OF_JAX):
            raise
        jaxpr, flags = linear()
        equation = _first_dependent("while", jaxpr, flags)
        where = f" ({user_line(equation)})" if equation is not None else ""
        raise ValueError(
            "reverse mode (grad, vjp, jacrev) has come to a while loop in the field, or in another "
            f"function of the problem{where}: how often it turns is only known as it runs, and JAX "
            f"cannot go back through it. {_WAYS}"
        ) from error


def transposable(wide: Jaxpr, narrow: Jaxpr, flags: Sequence[bool]) -> Jaxpr:
    """`wide`, which is `narrow` over lanes, with a transpose where it has a branch.

    Over lanes JAX evaluates all branches, each on x where it is the one that was chosen and on
    stop_gradient(x) elsewhere, so that no derivative of the others is seen, NaN perhaps. Where x is
    itself a tangent, a flagged input, that has no transpose. Here it has, and adds nothing.
    """
    if not contains(narrow, "cond"):
        return wide
    if _first_dependent("stop_gradient", narrow, flags) is not None:
        return wide  # a rule of the user's, which means to say something else
    return replace_primitive(wide, "stop_gradient", _blocked_p)


def _first_dependent(name: str, jaxpr: Jaxpr, flags: Sequence[bool]) -> Equation | None:
    """The first equation of this primitive that depends on the flagged inputs, or None."""
    found: list[Equation] = []
    _dependent_outputs(jaxpr, flags, lambda e: found.append(e) if name_of(e) == name else None)
    return found[0] if found else None


def _dependent_outputs(jaxpr: Jaxpr, flags: Sequence[bool], see: Callable) -> list[bool]:
    """Flags of the outputs that depend on the flagged inputs; calls `see` with each equation that
    does.
    """

    def passed_on(equation: Equation, moved: list[bool]) -> list[bool]:
        if not any(moved):
            return [False] * len(output_types(equation))
        see(equation)
        return _equation_outputs(equation, moved, see)

    return interpret(jaxpr, flags, passed_on, lambda x, aval: False)


def _equation_outputs(equation: Equation, moved: list[bool], see: Callable) -> list[bool]:
    """Flags of the outputs of an equation that depend on its flagged inputs; `see` is also called
    with the equations inside of it.
    """
    name, all_of = name_of(equation), [True] * len(output_types(equation))
    if name in CALLS:
        return _dependent_outputs(called(equation), moved, see)
    if name == "cond":
        each = [_dependent_outputs(branch, moved[1:], see) for branch in branches_of(equation)]
        return all_of if moved[0] else [any(flags) for flags in zip(*each, strict=True)]
    if name == "scan":
        scan, out = scan_of(equation), []
        carry = slice(scan.constants, scan.constants + scan.carried)
        for _ in range(scan.carried + 1):  # from turn to turn
            out = _dependent_outputs(scan.step, moved, see)
            moved[carry] = [a or b for a, b in zip(moved[carry], out[: scan.carried], strict=True)]
        return out
    params = parameters(equation)
    for inner in subprograms(equation):
        of_walk = params.get("linear") is True
        flags = linear_inputs(params["sizes"]) if of_walk else [True] * len(input_types(inner))
        _dependent_outputs(inner, flags, see)
    found = own_dependence(equation, moved)
    return all_of if found is None else found


def linear_inputs(sizes: Sizes) -> list[bool]:
    """Flags of the inputs in which the step of a linear walk is linear: all but `active`, rows and
    constants.
    """
    return [*[False] * (1 + sizes[0] + sizes[1]), *[True] * sum(sizes[2:])]


_blocked_p = define(
    "blocked",
    lambda x: [x],
    lambda x: [ShapedArray(x.shape, x.dtype)],
    jvp=lambda xs, _: (_blocked_p.bind(*xs), [zero_tangent(xs[0])]),
    transpose=lambda cotangents, x: [None],
    batch=lambda size, xs, axes: (_blocked_p.bind(*xs), axes),
)
