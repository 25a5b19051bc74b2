"""`solve_ensemble`: many trajectories of one problem, by the strategy that suits."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from ..autodiff.jax_internals import Tracer, in_a_trace
from ..closures import captured
from ..controllers import Controller
from ..core.addressable import here
from ..core.notices import INSIDE, log_once
from ..core.promotion import standard_promotion
from ..core.status import Status
from ..integrator.call import MAX_STEPS, StaticOptions
from ..methods import Method
from ..problems import Problem
from ..problems.base import evaluated
from ..problems.lowering import initial_tree
from ..solution import Solution
from ..solve import prepare_call
from ..validation import SolveOptions, check_no_torch, concrete, keywords
from ..validation.problem_checks import check_one_key
from .gpu_kernel import NoKernel
from .gpu_kernel.pallas_triton import triton_is_missing
from .inputs import Inputs, check_fits, filled, gathered, key_of, placed, trajectory
from .reduction import check_reduce
from .resume import in_blocks
from .sharded import check_mesh, distribute_rows, in_one_process, is_global, known_here, platform
from .strategies import Ensemble
from .trajectory import Plan
from .tuning import tuned

__all__ = ["STRATEGIES", "solve_ensemble"]

STRATEGIES = ("auto", "lockstep", "lanes", "kernel")
CHUNK = 64  # of 16 to 128, the best or nearly so for small systems, stiff ones and networks
# A loop over so many lanes is not unrolled by LLVM, and its program compiles in two thirds of the
# time. It waits for more others: no loss where so many, sorted by cost, are to be solved.
_WIDE, _MANY = 128, 65_536
_MOST = 4096  # numbers in a solution of which Jacobians are kept

type Spans = Float[np.ndarray, "n 2"] | tuple[()] | None
"""The spans of time of all trajectories: None if they have one and the same, () if they are not
known now.
"""


@keywords
@standard_promotion()
def solve_ensemble(
    problem: Problem,
    method: Method | None = None,
    *,
    n: int | None = None,
    draw: Callable | None = None,
    y0: PyTree = None,
    args: PyTree = None,
    tspan: PyTree = None,
    in_axes: PyTree = 0,
    key: Any = None,
    reduce: PyTree = None,
    resume: str | PathLike | None = None,
    progress: bool = False,
    strategy: str = "auto",
    chunk: int | str | None = None,
    mesh: Any = None,
    saveat: Any = None,
    save: Any = None,
    dense: bool = False,
    rtol: PyTree = None,
    atol: PyTree = None,
    dt: Any = None,
    dt0: Any = None,
    controller: Controller | None = None,
    events: Any = (),
    stops: Any = (),
    adjoint: Any = None,
    max_steps: int | None = None,
    max_saves: int | None = None,
    max_events: int | None = None,
    init: str = "consistent",
    throw: bool | str = True,
) -> Solution:
    """Solves a problem for many initial states, parameters, spans of time, or keys.

    What is given here has a leading axis and replaces the problem's own; trajectory i has row i.
    Every trajectory is the solve that `solve` would make of it alone, with its own steps and its
    own status: one that fails is listed, and spoils no other.

    Args:
        problem: any problem that is followed in time; what all trajectories share.
        method: as in `solve`.
        n: how many trajectories there are, where no leading axis says so: paths of one stochastic
            problem, or inputs that `draw` makes.
        draw: `draw(key)`, a dict of the problem's fields, such as `{"args": …}`: the inputs of one
            trajectory, made where they are used. Needs `n` and `key`.
        y0, args, tspan: rows of initial states, parameters, spans; of a `SecondOrderProblem` or a
            `HamiltonianProblem` y0 is a pair. A number in `tspan` is shared.
        in_axes: which axis of each array is that of the trajectories: 0; or a dict such as
            `{"args": (0, None)}`, where None is what they share.
        key: of stochastic problems and of `draw`: trajectory i has `jax.random.fold_in(key, i)`
            (where both draw, `jax.random.split` of it: the first for `draw`, the second for the
            path).
        reduce: statistics in place of the trajectories: one of `de.stats`, or a pytree of them. The
            results are in `sol.reduced`, for each saved time (of a dict of save times, all of them
            under each of its keys); trajectories that failed do not count. In lanes, no more than
            a chunk of trajectories is in memory.
        resume: a folder, for long runs with `reduce`: what was reached is kept there, block by
            block, and a call with the same settings goes on from it. With a mesh of several
            processes it is the first one that reads and writes.
        progress: with `reduce`, whether a bar shows how many trajectories are done.
        strategy: "lockstep" steps all together until the last is done, as `jax.vmap` does. "lanes"
            steps `chunk` of them together, those of similar cost; on all cores, unless it stands
            inside `jit` or a derivative, where it has one. "kernel" runs whole solves of small
            systems in one kernel of a GPU (on a CPU in an interpreter, for tests and slowly); where
            there is none of a solve, it raises with the reason. So is a gradient; a derivative that
            has no kernel goes in lockstep. "auto": on a CPU lanes, where there is more than one
            chunk; on a GPU the kernel, where there is one; else lockstep.
        chunk: how many trajectories are stepped together by "lanes", or are a block of a "kernel"
            (a power of two). None: 64, and 128 by "lanes" if there are 65,536 or more. "tuned": the
            fastest for this ensemble on this machine; a call outside of `jit` tries each on a
            sample, which takes a compilation for each, and is remembered.
        mesh: a `jax.sharding.Mesh`, for several devices, of one machine or of several: each of its
            devices has an equal share of the trajectories, whatever its axes are called, and runs
            the strategy on it alone. What comes back is where it was made: its leading axis is
            sharded over the mesh. None: the default device.
        throw: True warns where some failed, False says nothing, "compiled" raises as in `solve`.
        saveat, save, dense, rtol, atol, dt, dt0: as in `solve`, the same for all.
        controller, events, stops, adjoint, max_steps, max_saves, max_events, init: likewise.

    Returns:
        A `Solution` whose arrays have a leading axis. `sol.failed` lists trajectories that failed,
        `sol[i]` is one of them, `sol.check()` raises for the first that failed; `sol.strategy` is
        what was chosen.

    Raises:
        TypeError, ValueError: an argument does not fit, leading axes disagree (each is named), or
            nothing says how many trajectories there are.

    Example:
        >>> import jax.numpy as jnp, diffeq as de
        >>> problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0))
        >>> sol = de.solve_ensemble(problem, args=jnp.array([0.0, 1.0, 2.0]))
        >>> sol
        Solution(3 trajectories, none failed, lockstep)
        >>> [round(float(y), 2) for y in sol.y1]
        [1.0, 0.37, 0.14]
    """
    options = SolveOptions.of(locals())
    _check(problem, n=n, draw=draw, key=key, strategy=strategy)
    tunes = _check_chunk(chunk, resume, mesh)
    chunk = None if isinstance(chunk, str) else chunk
    given = {"y0": y0, "args": args, "tspan": tspan}
    for name, value in given.items():
        check_no_torch(name, value)
    inputs = gathered({k: x for k, x in given.items() if x is not None}, in_axes, n)
    _check_size(inputs, problem, n, draw)
    inputs, mesh = _on_devices(inputs, mesh)
    in_parts = resume is not None or progress
    if reduce is not None:
        check_reduce(reduce, saveat, dense=dense)
    elif in_parts:
        raise TypeError(
            f"{'progress' if resume is None else 'resume'} was given without reduce: what goes on "
            "block by block are statistics. Give reduce=, for example reduce=de.stats.Mean()."
        )
    known = _spans(problem, inputs, draw, mesh)
    best = _best_example(inputs, known, mesh)
    example = inputs.example(best, mesh) if inputs.rows else inputs.given
    # What is given here is no part of the problem once more, for a derivative.
    seen = jax.tree.map(lambda x: lax.stop_gradient(x) if isinstance(x, Tracer) else x, example)
    one, path = trajectory(problem, draw, key_of(key, 0), seen)
    check_fits(problem, one)
    throws = "compiled" if throw == "compiled" else False
    call, static = prepare_call(one, replace(options, key=path, progress=None, throw=throws))
    static = _for_all(static, known, max_steps)
    shared = {
        "call": call,
        "given": example,
        "key": key,
        "reduce": reduce,
        "draw": draw if draw is None else captured(draw, key),
        "stops": captured(stops, one.args) if callable(stops) else stops,
    }
    finds = dt0 is None and call.is_adaptive
    even = not finds and known is None
    reduces = reduce is not None
    wide = reduces or dense or bool(call.events) or _wide(call.saveat, one)
    lanes = chunk or (_WIDE if inputs.size >= _MANY else CHUNK)
    static = replace(static, lanes=min(chunk or CHUNK, inputs.size))
    plan = Plan(static, inputs.places, lanes, chunk or CHUNK, even, finds, wide, reduces)
    ensemble = Ensemble(plan, shared, inputs, strategy, mesh, tunes)
    if in_parts:
        _check_parts(ensemble)
        sol = in_blocks(_arranged(ensemble), resume, progress=progress)
    else:
        sol = _solve_nonstiff_first(ensemble) or _arranged(ensemble).solved()
    if throw is True and concrete(sol.status):
        _warn_of_failures(sol)
    return sol


def _solve_nonstiff_first(ensemble: Ensemble) -> Solution | None:
    """All of them by the probe of a pair of methods that nobody has named, and again by the pair if
    some of them are stiff; None if there is no pair, or it is not known here what happens.
    """
    shared, call, static = ensemble.shared, ensemble.shared["call"], ensemble.plan.static
    probe = call.method.nonstiff_probe if static.default_method else None
    many = ensemble.plan.reduces or not in_one_process(
        ensemble.mesh
    )  # which would be solved twice over
    if probe is None or many or static.raises_inside_jit or ensemble.traced:
        return None
    by_probe = replace(ensemble, shared=shared | {"call": call._replace(method=probe)})
    sol = _arranged(by_probe).solved()
    if not concrete(sol.status):
        return None
    if np.any(np.asarray(sol.status) == Status.stiff):
        plan = replace(ensemble.plan, static=replace(static, is_stiff=True))
        return _arranged(replace(ensemble, plan=plan)).solved()
    return sol


# --- the call -------------------------------------------------------------------------------------


def _check(problem: Problem, *, n: Any, draw: Any, key: Any, strategy: str) -> None:
    """Refuses arguments that are wrong for any inputs."""
    if getattr(problem, "is_steady", False):
        raise TypeError(
            "problem is a SteadyStateProblem, which is not followed in time: jax.vmap of de.solve "
            "finds many steady states."
        )
    if strategy not in STRATEGIES:
        known = ", ".join(map(repr, STRATEGIES))
        raise ValueError(f"strategy is {strategy!r}; one of {known} is wanted.")
    if n is not None and not _counts(n):
        raise TypeError(f"n is {n!r}; a positive whole number is wanted.")
    if key is not None:
        check_one_key(key)
    if draw is None:
        return
    if not callable(draw):
        raise TypeError(
            f"draw is {draw!r}; a function draw(key) is wanted, which returns a dict of the "
            "problem's fields."
        )
    if n is None or key is None:
        missing = "n" if n is None else "key"
        raise TypeError(
            f"draw was given without {missing}: trajectory i < n is drawn from "
            "jax.random.fold_in(key, i). Give n= and key=."
        )


def _check_chunk(chunk: int | str | None, resume: str | PathLike | None, mesh: Any) -> bool:
    """True if the chunk size is to be tuned."""
    if chunk is None or _counts(chunk):
        return False
    if not isinstance(chunk, str) or chunk != "tuned":
        raise TypeError(f"chunk is {chunk!r}; a positive whole number, or 'tuned', is wanted.")
    if resume is not None or mesh is not None:
        other = "resume" if mesh is None else "mesh"
        raise TypeError(
            f"chunk is 'tuned' beside {other}=, where it has to be the same each time and in each "
            "process: give a number."
        )
    return True


def _counts(x: Any) -> bool:
    return isinstance(x, (int, np.integer)) and not isinstance(x, bool) and bool(x >= 1)


def _check_size(inputs: Inputs, problem: Problem, n: int | None, draw: Callable | None) -> None:
    """Refuses inputs in which all trajectories are the same."""
    if draw is not None or inputs.rows or (n is not None and problem.stochastic):
        return
    if n is not None:
        raise ValueError(
            f"n is {n}, and nothing differs among {n} solves of a {type(problem).__name__}: give "
            "y0=, args= or tspan= a leading axis, or draw= and key=."
        )
    raise ValueError(
        "nothing has a leading axis, so that there is one trajectory: give y0=, args= or tspan= "
        "rows, or n= with draw= (of a stochastic problem, n= alone)."
    )


def _on_devices(inputs: Inputs, mesh: Any) -> tuple[Inputs, Mesh | None]:
    """The inputs where they are used, and the mesh as it is."""
    if mesh is not None:
        mesh = check_mesh(mesh, inputs.size)
        return replace(inputs, rows=distribute_rows(inputs.rows, mesh)), mesh
    if any(map(is_global, inputs.rows)):
        raise ValueError(
            "rows have parts in other processes, and there is no mesh: give the one that they are "
            "on, mesh=."
        )
    return inputs, None


def _check_parts(ensemble: Ensemble) -> None:
    """Refuses an ensemble that cannot be solved block by block."""
    if ensemble.traced:
        raise TypeError(
            "resume= and progress= go from block to block on the host, and this is inside jit, "
            "vmap or a derivative: leave them out there."
        )


def _spans(problem: Problem, inputs: Inputs, draw: Callable | None, mesh: Mesh | None) -> Spans:
    """The spans of time of all trajectories, as far as they are known."""
    tspan = problem.tspan
    parts = tspan if isinstance(tspan, (tuple, list)) else [tspan]
    by_args = any(callable(t) and not hasattr(t, "shape") for t in parts)
    if "tspan" not in inputs.given and not (by_args and (draw or "args" in inputs.given)):
        return () if draw is not None else None
    known = jax.lax.stop_gradient(inputs.rows)
    if draw is not None or in_a_trace(known):
        return ()

    def ends(rows: list) -> Float[Array, " 2"]:
        own = placed(problem, filled(inputs.given, inputs.places, rows))
        return jnp.stack(
            [jnp.asarray(evaluated(t, own.args), float) for t in evaluated(own.tspan, own.args)]
        )

    return np.asarray(known_here(jax.vmap(ends)(known), mesh))


def _best_example(inputs: Inputs, spans: Spans, mesh: Mesh | None) -> int:
    """A trajectory to look at before tracing: of those whose numbers are finite, the longest."""
    known = jax.lax.stop_gradient(inputs.rows)
    if in_a_trace(known):
        return 0
    sound = np.ones(inputs.size, bool)
    for row in known:
        if jnp.issubdtype(row.dtype, jnp.inexact):
            finite = jnp.isfinite(row) if is_global(row) else np.isfinite(np.asarray(row))
            sound &= np.asarray(known_here(finite.reshape(inputs.size, -1).all(1), mesh))
    if not isinstance(spans, np.ndarray):
        return int(np.argmax(sound))
    return int(np.argmax(np.where(sound, np.abs(spans[:, 1] - spans[:, 0]), -1)))


def _for_all(static: StaticOptions, spans: Spans, max_steps: int | None) -> StaticOptions:
    """The static options that hold for all trajectories."""
    if spans is None:
        return static
    if not isinstance(spans, np.ndarray):
        return replace(static, direction=None, max_steps=max_steps or MAX_STEPS)
    forwards = spans[:, 1] >= spans[:, 0]
    same = bool(forwards.all() or not forwards.any())
    return static if same else replace(static, direction=None)


def _wide(saveat: PyTree, problem: Problem) -> bool:
    """True if a trajectory saves so many numbers that a tape is smaller than their Jacobians."""
    each = list(saveat.values()) if isinstance(saveat, dict) else [saveat]
    if problem.has_jumps or any(isinstance(at, str) for at in each):
        return True
    rows = sum(1 if at is None else np.size(at) for at in each)
    return rows * sum(map(np.size, jax.tree.leaves(initial_tree(problem)))) > _MOST


def _arranged(ensemble: Ensemble) -> Ensemble:
    """The ensemble by its strategy, in its layout."""
    found = _by_strategy(ensemble)
    return tuned(found) if ensemble.tunes else found


def _by_strategy(ensemble: Ensemble) -> Ensemble:
    """The ensemble by its strategy; "auto" becomes the first one that there is for the share of a
    device.
    """
    requested, backend = ensemble.strategy, platform(ensemble.mesh)
    share = ensemble.inputs.size // ensemble.devices
    if requested == "kernel" or (requested == "auto" and backend == "gpu"):
        try:
            return ensemble.as_kernel()
        except NoKernel as reason:
            if requested == "kernel":
                ensemble.numbers()  # an error of the field's own is raised as it is
                raise ValueError(
                    f"strategy is 'kernel', and there is no kernel of this solve: {reason}. "
                    "'auto' takes the next strategy."
                ) from None
            if triton_is_missing():
                log_once(
                    "An ensemble on a GPU is one kernel, but this JAX does not lower Pallas to "
                    "Triton: strategy='auto' takes 'lockstep'."
                )
    if requested != "auto":
        return ensemble
    lanes = backend == "cpu" and share > ensemble.plan.chunk
    return replace(ensemble, strategy="lanes" if lanes else "lockstep")


def _warn_of_failures(sol: Solution) -> None:
    """Warns where some trajectories failed."""
    failed, count = sol.failed, here(sol.status).size
    if failed.count:
        where = " of this process" if count < sol.status.size else ""
        warnings.warn(
            f"{failed.count} of {count} trajectories{where} failed, the first of them number "
            f"{failed.indices[0]}: {Status(failed.statuses[0]).reason}. sol.failed lists them, "
            "sol.check() says more; throw=False says nothing.",
            skip_file_prefixes=INSIDE,
        )
