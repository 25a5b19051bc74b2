"""Checks of problems of each kind: their functions, state, history and key."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..algebra import ILU0, JacobianStructure, Krylov
from ..algebra.preconditioner import is_function, preconditioner_structure
from ..core.packing import Packing, holds, moving_leaves
from ..core.user_functions import is_of_torch
from ..methods import Method, Stochastic
from ..problems import (
    CDEProblem,
    DAEProblem,
    HamiltonianProblem,
    ImplicitDAEProblem,
    JumpProblem,
    ODEProblem,
    Problem,
    SDEProblem,
    SecondOrderProblem,
    SplitODEProblem,
)
from ..problems.base import data_of, evaluated
from ..problems.cde import by_increments, check_control
from ..problems.dae import packed_differential, packed_index, packed_mass, packed_slope
from ..problems.dde import DDEProblem, depends_on_state
from ..problems.jump import rate_varies
from ..problems.lowering import functions_of, initial_tree, named_leaves
from ..problems.sdde import SDDEProblem
from .defaults import no_control
from .values import concrete, is_real, shown

__all__ = [
    "check_controlled",
    "check_delayed",
    "check_forwards",
    "check_history",
    "check_index",
    "check_key",
    "check_no_torch",
    "check_noisy",
    "check_one_key",
    "check_preconditioner",
    "check_problem",
    "check_state",
    "without_jumps",
]


def check_problem(problem: Any) -> None:
    """Refuses what is no problem, and functions that do not fit."""
    if isinstance(problem, Problem):
        return _check_functions(problem)
    hint = (
        "write de.ODEProblem(f, y0, tspan, args) first"
        if callable(problem)
        else "give a de.ODEProblem or another problem"
    )
    raise TypeError(f"problem is {shown(problem)}; {hint}.")


def _check_functions(problem: Problem) -> None:
    for name in problem.fields:
        check_no_torch(name, getattr(problem, name))
    for name, f, arguments in functions_of(problem):
        if not callable(f):
            raise TypeError(f"{name} is {shown(f)}; a function {name}({arguments}) is wanted.")
    jac = getattr(problem, "jac", None)
    if isinstance(jac, ILU0) or jac is ILU0:
        raise TypeError(
            f"jac is {shown(jac)}, a preconditioner: it belongs to the method, linear=de.Krylov("
            'solver, de.ILU0()), and the pattern to the problem, jac=de.Sparse("detect").'
        )
    if isinstance(jac, type) and issubclass(jac, JacobianStructure):
        raise TypeError(
            f"jac is the class {jac.__name__}; give an instance, such as de.Banded(1, 1)."
        )
    if not (jac is None or callable(jac) or isinstance(jac, JacobianStructure)):
        raise TypeError(
            f"jac is {shown(jac)}; a function jac(t, y, args) that gives ∂f/∂y is wanted, a "
            'structure such as de.Banded(1, 1) or de.Sparse("detect"), or None.'
        )


def check_no_torch(name: str, f: Any) -> None:
    """Refuses what runs on torch's arrays, and these (a module in a tree may be for a callback)."""
    iterated = lambda x: hasattr(x, "__next__")  # noqa: E731 - nothing that JAX has as a leaf
    leaves = [f] if is_of_torch(f) else jax.tree.leaves(f, is_leaf=iterated)
    parts = [x for x in leaves if x is f or not callable(x)]
    found = [x for x in parts if is_of_torch(x)]
    if not found:
        return
    kind = type(found[0]).__name__
    if callable(found[0]):
        raise TypeError(
            f"{name} is a torch module ({kind}), and JAX can neither trace nor differentiate it "
            "here: diffeq.torch solves with modules and tensors of torch (odeint, NeuralODE, "
            "solve). Or write the network with equinox or flax.nnx."
        )
    has = "is" if found[0] is f else "has in it"
    raise TypeError(
        f"{name} {has} a torch {kind}; an array of JAX is wanted: jnp.asarray(x.numpy()), or "
        "x.detach().cpu().numpy() where it has a gradient or is on a GPU. diffeq.torch solves with "
        "tensors of torch, and gives tensors back."
    )


def without_jumps(problem: Any) -> tuple[Any, tuple]:
    """The equation between jumps, and the jumps."""
    if not isinstance(problem, JumpProblem):
        return problem, ()
    _check_jumps(problem)
    return problem.problem, problem.jumps


# The problems that can jump: at rates that vary (a hazard is solved beside y), and at all rates.
_AT_RATES_THAT_VARY = (ODEProblem, SplitODEProblem, SDEProblem)
_JUMPING = (*_AT_RATES_THAT_VARY, DAEProblem, SecondOrderProblem, HamiltonianProblem)


def _check_jumps(problem: JumpProblem) -> None:
    """Equations that can jump, and at which rates."""
    moving = [j for j, jump in enumerate(problem.jumps) if rate_varies(jump.rate)]
    able = _AT_RATES_THAT_VARY if moving else _JUMPING
    if not isinstance(problem.problem, able):
        what = f"jumps[{moving[0]}] has a rate that varies" if moving else "jumps were given"
        raise TypeError(
            f"{what}, and problem is a {type(problem.problem).__name__}; one of "
            f"{', '.join(kind.__name__ for kind in able)} is wanted"
            + (", or constant rates." if isinstance(problem.problem, _JUMPING) else ".")
        )
    if moving and getattr(problem.problem, "jac", None) is not None:
        raise TypeError(
            f"jac was given and jumps[{moving[0]}] has a rate that varies, whose hazard is solved "
            "beside y: leave jac out."
        )
    if problem.estimator == "pathwise" and problem.problem.stochastic:
        raise ValueError(
            "estimator is 'pathwise', and the path of an SDE has no derivative by the time of a "
            "jump: 'score' is wanted, or None."
        )


def check_noisy(problem: Problem, events: tuple) -> None:
    """Refuses what an equation with noise cannot have: held leaves that nothing would change; and
    events, where they would come back.
    """
    if problem.delayed and events:
        raise TypeError(
            f"events were given, and problem is a {type(problem).__name__}: what they change would "
            "come back to a path that has been cut. Leave them out, or see what is saved (saveat=)."
        )
    if holds(initial_tree(problem)) and not events:
        raise TypeError(
            "y0 has leaves that are held, and without events nothing changes them: use args."
        )


def check_forwards(problem: Problem, span: PyTree) -> None:
    """Time runs forwards where a path is drawn."""
    if problem.stochastic and span is not None and span[1] < span[0]:
        what = "jumps are" if problem.has_jumps else "an SDE is"
        raise ValueError(
            f"tspan = ({span[0]:g}, {span[1]:g}) runs backwards; {what} solved forwards in time."
        )


def check_controlled(
    problem: CDEProblem, method: Method, span: PyTree, *, controlled: bool, events: tuple
) -> None:
    """Refuses a control that cannot drive the equation, and by its increments what needs to know
    more of it inside of a step.
    """
    check_control(problem, span)
    if not by_increments(problem):
        return
    if controlled:
        raise ValueError(
            "by is 'increments', and no estimate of an error sees what the control does inside of "
            "a step: give the steps, dt= or controller=de.Fixed(ts)."
        )
    if events:
        raise TypeError(
            "events were given, and by is 'increments', which says nothing of y inside of a step: "
            "leave them out, or give a control that has a derivative and by='derivative'."
        )
    if getattr(getattr(method, "tableau", None), "fsal", False):
        raise TypeError(
            f"{method!r} takes the slope at the end of a step for that at the start of the next "
            "one, where the increment is another: choose de.Heun() or de.Euler()."
        )


def check_delayed(problem: Problem, method: Method, *, controlled: bool) -> None:
    """Refuses methods that cannot solve a delay equation."""
    if problem.stochastic:
        _check_noisy_delayed(problem, method, controlled=controlled)
        return
    forms = (method.form,) if isinstance(method.form, str) else method.form
    if not {"ode", "mass"} & set(forms):
        raise TypeError(
            f"{method!r} does not solve delay equations: choose a method for ODEs, such as "
            "de.Tsit5(), or where they are stiff de.Rodas5P()."
        )
    if np.max(getattr(getattr(method, "tableau", None), "c", 0.0)) > 1 + 1e-12:
        raise TypeError(
            f"{method!r} has a stage beyond the end of its steps, where the past of a delay "
            "equation may have another side already: choose de.Rodas5P(), de.RadauIIA5() or "
            "de.KenCarp4()."
        )


def _check_noisy_delayed(problem: Problem, method: Method, *, controlled: bool) -> None:
    """Between the ends of steps the past of a noisy path is a line, which is enough for order 1."""
    if not isinstance(method, Stochastic):
        raise TypeError(
            f"{method!r} solves equations without noise: choose de.EulerMaruyama(), or "
            "de.EulerHeun() for a Stratonovich equation."
        )
    if method.order > 1 or method.area:
        raise TypeError(
            f"{method!r} is of order {method.order:g}, and sees a past that is a line between the "
            "ends of steps, enough for order 1: choose de.EulerMaruyama(), or de.EulerHeun() for a "
            "Stratonovich equation, and dt=."
        )
    if controlled:
        raise ValueError(f"{no_control(problem)}.")


def check_history(problem: DDEProblem | SDDEProblem) -> None:
    """A history that can be asked, and lags that are positive where they are known."""
    history, lags = problem.history, problem.lags
    if history is None or any(isinstance(x, str) for x in jax.tree.leaves(history)):
        raise TypeError(
            f"history is {shown(history)}; a function history(t, args) is wanted, or the constant "
            "that y was before t0."
        )
    if depends_on_state(lags):
        return
    lags = evaluated(lags, problem.args)
    for leaf in jax.tree.leaves(lags) or ([None] if lags is None else []):
        if leaf is None or isinstance(leaf, str) or not is_real(leaf):
            raise TypeError(
                f"lags is {shown(lags)}; positive numbers are wanted, or a function of args or of "
                "(t, y, args) that returns them; () declares none."
            )
        if concrete(leaf) and not (np.asarray(leaf) > 0).all():
            found = "NaN" if np.isnan(leaf).any() else f"{np.min(leaf):g}"
            raise ValueError(
                f"lags has {found}; a lag is positive: f asks for past(t - lag). What vanishes now "
                "and then is a function of (t, y, args), or left out: lags=()."
            )
        if concrete(leaf) and not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(f"lags is {shown(lags)}; finite times are wanted.")


def check_key(problem: Problem, key: Any) -> None:
    """A key for an equation with noise, and for no other."""
    if not problem.stochastic:
        if key is not None:
            raise TypeError(
                f"key was given, but {type(problem).__name__} has no noise: leave key out."
            )
        return
    if key is None:
        what = "jumps are drawn" if problem.has_jumps else "an SDE draws its noise"
        raise ValueError(
            f"key is None; {what} from a key: solve(…, key=jax.random.key(0)), and other keys for "
            "other paths."
        )
    check_one_key(key)


def check_one_key(key: Any) -> None:
    """Refuses what is not one random key."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if typed and key.shape == ():
        return
    if dtype == jnp.uint32 and key.ndim == 1:
        return
    shape = getattr(key, "shape", None)
    many = typed or (dtype == jnp.uint32 and key.ndim == 2)
    raise TypeError(
        f"key is {f'an array of {shape[0]} keys' if many and shape else shown(key)}; one key is "
        "wanted, such as jax.random.key(0)"
        + ("; for one path a key map over them with jax.vmap." if many else ".")
    )


def _check_mass(problem: DAEProblem, state: PyTree) -> None:
    """A mass matrix and what is said to be differential, where they are known."""
    packing = Packing(state)
    mass, kept = packed_mass(problem, packing), packed_differential(problem, packing)
    if not concrete((mass, kept)):
        return
    mass = np.asarray(mass)
    if not np.isfinite(mass).all():
        raise ValueError("mass_matrix has NaN or inf; finite numbers are wanted.")
    rank = int(np.count_nonzero(mass) if mass.ndim == 1 else np.linalg.matrix_rank(mass))
    index = packed_index(problem.index, packing)
    if index is not None:
        _check_index(mass, rank, index, None if kept is None else np.asarray(kept))
    elif kept is not None and np.count_nonzero(kept) != rank:
        raise ValueError(
            f"differential has {np.count_nonzero(kept)} components that are True; as many as "
            f"mass_matrix has rank are wanted, and it has rank {rank}."
        )


def _check_index(mass: np.ndarray, rank: int, index: np.ndarray, kept: np.ndarray | None) -> None:
    """An index above 1 beside a mass matrix, and components that are kept."""
    zero = mass == 0 if mass.ndim == 1 else (mass == 0).all(axis=1)
    columns = zero if mass.ndim == 1 else (mass == 0).all(axis=0)
    if (zero != columns).any() or rank != np.count_nonzero(~zero):
        raise ValueError(
            f"index is above 1, and mass_matrix has rank {rank}, zero rows {np.flatnonzero(zero)} "
            f"and zero columns {np.flatnonzero(columns)}: algebraic equations are zero rows there, "
            "in the places of the algebraic components; mass_matrix is regular otherwise."
        )
    if not (index[zero] > 1).any():
        raise ValueError(
            f"index is {index}, and of the algebraic components, {np.flatnonzero(zero)}, none has "
            "one above 1; leave index out."
        )
    if kept is not None and kept[zero].any():
        raise ValueError(
            f"differential is True for {np.flatnonzero(kept & zero)}, which mass_matrix says are "
            "algebraic: above index 1 these are always found."
        )


def check_index(problem: Problem, method: Method) -> None:
    """Refuses a method for an index that it does not solve."""
    index = getattr(problem, "index", None)
    if index is None:
        return
    found = packed_index(index, Packing(initial_tree(problem)))
    if found is not None and found.max() > method.highest_index:
        raise TypeError(
            f"{method!r} solves equations of index {method.highest_index}, and index has a "
            f"{found.max()}: choose de.RadauIIA5()."
        )


def _check_slopes(problem: ImplicitDAEProblem, state: PyTree) -> None:
    """The slopes at the start, and which of them the residual has, where they are known."""
    packing = Packing(state)
    kept, slope = packed_differential(problem, packing), packed_slope(problem, packing)
    if kept is None:
        raise ValueError(
            "differential is None; booleans with the structure and shapes of y0 are wanted, which "
            "say for which components of y the residual has a slope."
        )
    if concrete(slope) and not np.isfinite(np.asarray(slope)).all():
        raise ValueError("dy0 has NaN or inf; finite numbers are wanted: zeros, if nothing better.")


def _check_structure(problem: Any, state: PyTree) -> None:
    """A structure of ∂f/∂y that fits the state, which is real, and the mass matrix."""
    jac, packing = problem.jac, Packing(state)
    if jnp.issubdtype(packing.dtype, jnp.complexfloating):
        raise ValueError(
            f"jac is {jac!r}, and y0 is complex: a structure is that of real equations; write y as "
            "real and imaginary parts, or leave jac out."
        )
    jac.check_size(packing.size)
    if getattr(problem, "index", None) is not None:
        raise ValueError(
            f"jac is {jac!r}, and index was given: equations of a higher index are solved with all "
            "entries; leave jac out."
        )
    with jax.ensure_compile_time_eval():  # M is known inside of a jit, too, unless it is an input
        mass = packed_mass(problem, packing) if isinstance(problem, DAEProblem) else None
    if mass is None or mass.ndim == 1 or not concrete(mass) or not jac.is_known:
        return
    beyond = np.asarray(mass).copy()
    rows, columns = jac.entries(packing.size)
    beyond[rows[rows >= 0], columns[rows >= 0]] = 0
    if (places := np.argwhere(beyond)).size:
        i, j = places[0]
        raise ValueError(
            f"mass_matrix[{i}, {j}] is {beyond[i, j]:g}, and jac={jac!r} has no entry there: the "
            "structure is that of M and of ∂f/∂y together."
        )


def check_preconditioner(problem: Problem, method: Method, state: PyTree) -> None:
    """Refuses a preconditioner that does not fit the state or what is declared of ∂f/∂y."""
    linear = getattr(method, "linear", None)
    if isinstance(linear, Krylov) and not is_function(linear.preconditioner):
        structure = preconditioner_structure(linear.preconditioner, getattr(problem, "jac", None))
        structure.check_size(Packing(state, real=method.real_view).size, "preconditioner")


def check_state(problem: Problem, state: PyTree) -> None:
    """Refuses states, masses and slopes that do not fit together."""
    if isinstance(problem, DAEProblem):
        _check_mass(problem, state)
    if isinstance(problem, ImplicitDAEProblem):
        _check_slopes(problem, state)
    if isinstance(getattr(problem, "jac", None), JacobianStructure):
        _check_structure(problem, state)
    # (A history that calls jnp makes the state a tracer inside a trace, of numbers that are known.)
    if not concrete((data_of(problem), moving_leaves(state))):
        return
    for name, leaf in named_leaves(problem, moving_leaves(state)):
        value = np.asarray(leaf)
        if not np.isfinite(value).all():
            found = "NaN" if np.isnan(value).any() else "inf"
            raise ValueError(f"{name} has {found}; a finite initial state is wanted.")
