"""Checks of a call before anything is traced: the argument's name, what came, what was wanted."""

import difflib
import functools
import inspect
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .adjoint import ODES, Discrete, refusal
from .control import PI, PID, Controller
from .core.lift import INSIDE
from .core.packing import Packing, as_state, holds, moving
from .core.primitive import Tracer
from .door import MAX_STEPS
from .events import Happening
from .interp.base import jumps_in
from .methods import BDF, METHODS, Method, Stochastic, Switching
from .problems import DAEProblem, ImplicitDAEProblem, JumpProblem, Problem
from .problems.base import evaluated
from .problems.breaking import depth_of, kinks_of
from .problems.called import described
from .problems.dae import packed_differential, packed_mass, packed_slope
from .problems.dde import depends_on_state
from .problems.jump import varies
from .problems.lowering import functions_of, named_leaves, state_of

__all__ = [
    "Call",
    "check_adjoint",
    "check_no_torch",
    "checked_call",
    "checked_problem",
    "checked_rest",
    "concrete",
    "explicit_for",
    "is_real",
    "keywords",
    "stops_of",
]

_FEW_STEPS = 16
_MAX_SAVES = 4096
_MOST_TURNING = 64  # numbers in a state; beyond, those who know their equation choose better

# What others call it.
_MEANT = {
    "t_eval": "saveat", "dense_output": "dense", "first_step": "dt0", "max_step": "controller",
    "solver": "method", "alg": "method", "stepsize_controller": "controller", "tstops": "stops",
    "reltol": "rtol", "abstol": "atol", "maxiters": "max_steps", "sensealg": "adjoint",
    "args": "problem", "y0": "problem", "t_span": "problem", "tspan": "problem", "p": "problem",
}  # fmt: skip


def keywords[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """The same function, which says of a keyword that it does not know what may be meant."""
    known = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        for name in options:
            if name not in known:
                raise TypeError(_unknown(function.__name__, name, known))
        return function(*args, **options)

    return checked


def _unknown(function: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    meant = _MEANT.get(name) or (near[0] if near else "")
    ask = f" Is {meant} meant?" if meant in known else ""
    return f"{function} got {name!r}, which it does not know; it takes {', '.join(known)}.{ask}"


@dataclass(frozen=True)
class Call:
    """A call that passed: what is traced, and what is known without tracing."""

    traced: dict[str, Any]
    direction: int | None
    max_steps: int | None
    max_saves: int
    floored: bool
    loud: bool


def checked_call(
    *, problem: Any, method: Any, saveat: Any, save: Any, rtol: Any, atol: Any, dt: Any, dt0: Any,
    controller: Any, events: Any, stops: Any, adjoint: Any, max_steps: Any, max_saves: Any,
    max_events: Any, init: Any, throw: Any, key: Any, by_hand: bool = False,
) -> Call:  # fmt: skip
    """The call with its defaults, or the first thing that is wrong with it."""
    asked_for = problem
    problem, jumps = _without_jumps(problem)
    _check_problem(problem)
    _check_method(method)
    most = {"max_steps": max_steps, "max_saves": max_saves, "max_events": max_events}
    _check_options(controller, adjoint, most, init, throw)
    _check_key(asked_for, key)
    events = _events(events)
    noisy = problem.stochastic
    if problem.delayed:
        _check_history(problem)
    if noisy:
        _check_noisy(problem, (*events, *jumps))
    default = method is None
    if method is None:
        method = _default_method(problem, _tolerance("rtol", rtol, 1e-3), controller, dt)
    if dt is not None and controller is not None:
        raise ValueError(f"dt and controller={controller!r} were both given: dt is a fixed step.")
    controller = (_calm() if noisy else PI()) if controller is None else controller
    controlled, asked = dt is None and controller.decides, rtol
    rtol, atol = _tolerances(rtol, atol, noisy=noisy, controlled=controlled)
    _check_steps(method, controller, dt, dt0)
    _check_turns(problem, method, controller, dt)
    _check_limits(controller)
    span = _span(problem)
    delayed = problem.delayed
    if delayed:
        _check_delayed(problem, method, controlled=controlled)
    _check_forwards(asked_for, span)
    _check_direction("dt", dt, span)
    _check_direction("dt0", dt0, span)
    stops = stops_of(asked_for, stops)
    state = state_of(problem)
    _check_state(problem, state)
    if default and controlled and not by_hand and _may_turn(asked_for, state, adjoint):
        method = Switching(method, METHODS["Rodas5P"]())
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        _check_prefix(name, tolerance, moving(state))
    eps = _eps(moving(state))
    _notice_precision(asked, moving(state))
    _check_save(save)
    saveat = _arrays(saveat)
    _check_saveat(saveat, save, span, eps)
    traced = {
        "problem": asked_for, "method": method, "controller": controller,
        "saveat": saveat, "save": save,
        "rtol": rtol, "atol": atol, "dt": dt, "dt0": dt0, "events": events, "stops": stops,
        "key": key,
    }  # fmt: skip
    direction = None if span is None else (1 if span[1] >= span[0] else -1)
    kinks = _most_kinks(problem, method) if delayed else 0
    known, most = _known_steps(span, dt, stops, (*events, *jumps), kinks)
    steps = max_steps if max_steps is not None else most
    saves = max_saves or max(_MAX_SAVES, (known or 0) + 1)
    loud = throw == "compiled" or (throw is True and _loud_by_default())
    return Call(traced, direction, steps, saves, _below_eps(rtol, eps), loud)


def _loud_by_default() -> bool:
    value = os.environ.get("DIFFEQ_THROW", "")
    if value not in ("", "compiled"):
        raise ValueError(
            f"the environment variable DIFFEQ_THROW is {value!r}; 'compiled' is wanted, or nothing."
        )
    return value == "compiled"


def checked_problem(problem: Any) -> None:
    """Refuses what cannot be lowered, as `checked_call` does."""
    _check_problem(problem)
    _check_state(problem, state_of(problem))


def checked_rest(problem: Any, method: Any, throw: Any, **given: Any) -> tuple[Any, Any]:
    """The tolerances of a search for rest, or the first thing that is wrong with the call."""
    _check_problem(problem)
    _check_method(method)
    if method is not None and not method.adaptive:
        raise ValueError(
            f"method {method!r} has no error estimate; to follow an equation to rest one is wanted "
            "that has, such as de.Tsit5(), or None for Newton's method."
        )
    if method is not None:
        _check_turns(problem, method, PI(), None)
    adjoint, most, rtol, atol = (given.pop(k) for k in ("adjoint", "max_steps", "rtol", "atol"))
    _check_options(None, adjoint, {"max_steps": most}, "consistent", throw)
    check_adjoint(adjoint, problem)
    for name, value in given.items():
        if value is not None and value is not False and value != ():
            raise TypeError(
                f"{name} was given with a SteadyStateProblem, in which there is no time; solve "
                "takes method, rtol, atol, adjoint, max_steps and throw there."
            )
    state = state_of(problem)
    if holds(state):
        raise TypeError("y0 has leaves that are held, and at rest nothing changes them: use args.")
    _check_state(problem, state)
    default = _eps(state) ** 0.5  # the Newton step that is taken in the end squares it
    return _tolerance("rtol", rtol, default), _tolerance("atol", atol, default)


def concrete(x: Any) -> bool:
    """Whether a tree's numbers are known now."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(x))


def is_real(x: Any) -> bool:
    """Whether x is a real number, or an array of them: no string, no bool, nothing complex."""
    dtype = x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)


def _check_problem(problem: Any) -> None:
    if isinstance(problem, Problem):
        return _check_functions(problem)
    hint = (
        "write de.ODEProblem(f, y0, tspan, args) first"
        if callable(problem)
        else "give a de.ODEProblem or another problem"
    )
    raise TypeError(f"problem is {_shown(problem)}; {hint}.")


def _check_functions(problem: Problem) -> None:
    for name in problem.fields:
        check_no_torch(name, getattr(problem, name))
    for name, f, arguments in functions_of(problem):
        if not callable(f):
            raise TypeError(f"{name} is {_shown(f)}; a function {name}({arguments}) is wanted.")
    jac = getattr(problem, "jac", None)
    if not (jac is None or callable(jac)):
        raise TypeError(
            f"jac is {_shown(jac)}; a function jac(t, y, args) that gives ∂f/∂y is wanted, or None."
        )


def check_no_torch(name: str, f: Any) -> None:
    """Refuses what runs on torch's arrays."""
    if any(c.__module__.split(".")[0] == "torch" for c in type(f).__mro__):
        raise TypeError(
            f"{name} is a torch module ({type(f).__name__}), and JAX can neither trace nor "
            "differentiate it; a function of JAX arrays is wanted. Write the network with equinox "
            "or flax.nnx, and copy trained weights: jnp.asarray(parameter.detach().numpy())."
        )


def _check_method(method: Any) -> None:
    if method is None or isinstance(method, Method):
        return
    if isinstance(method, str):
        known = {name.lower(): name for name in METHODS}
        name = known.get(method.lower(), "Tsit5")
        raise TypeError(f"method is the string {method!r}; an instance is wanted: de.{name}().")
    if isinstance(method, type) and issubclass(method, Method):
        raise TypeError(
            f"method is the class {method.__name__}; an instance is wanted: de.{method.__name__}()."
        )
    raise TypeError(f"method is {_shown(method)}; a method is wanted, such as de.Tsit5().")


def _check_options(
    controller: Any, adjoint: Any, most: dict[str, Any], init: Any, throw: Any
) -> None:
    if isinstance(controller, type) or not (
        controller is None or isinstance(controller, Controller)
    ):
        raise TypeError(
            f"controller is {_shown(controller)}; an instance is wanted, such as de.PI()."
        )
    if isinstance(adjoint, type) or not (adjoint is None or hasattr(adjoint, "run")):
        raise TypeError(
            f"adjoint is {_shown(adjoint)}; an instance is wanted, such as de.Discrete()."
        )
    for name, value in most.items():
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1
        ):
            raise TypeError(
                f"{name} is {value!r}; a positive whole number, known before tracing, is wanted."
            )
    if not isinstance(init, str) or init not in ("consistent", "check", "given"):
        raise ValueError(f"init is {init!r}; 'consistent', 'check' or 'given' is wanted.")
    if throw not in (True, False, "compiled"):
        raise ValueError(f"throw is {throw!r}; True, False or 'compiled' is wanted.")


def check_adjoint(
    adjoint: Any, problem: Any, *, saveat: Any = None, save: Any = None, dense: bool = False,
    events: Any = (), stops: Any = None, by_hand: bool = False, method: Any = None,
) -> None:  # fmt: skip
    """Refuses an adjoint that cannot differentiate what was asked for, with those that can."""
    if adjoint is None:
        return
    at = list(saveat.values()) if isinstance(saveat, dict) else [saveat]
    asked = {
        "times": any(x is not None and not isinstance(x, str) for x in at),
        "steps": any(isinstance(x, str) for x in at),
        "dict": isinstance(saveat, dict),
        "save": save is not None,
        "dense": dense,
        "events": events not in ((), []),
        "held": holds(state_of(problem)),
        "stops": stops is not None,
        "by hand": by_hand,
        "multistep": method is not None and method.multistep,
        "turns": method is not None and len(method.phases) > 1,
    }
    features = [feature for feature, wanted in asked.items() if wanted]
    sentence = refusal(getattr(adjoint, "name", ""), type(problem).__name__, features)
    if sentence:
        raise TypeError(f"adjoint is {adjoint!r}: {sentence}")


def _tolerances(rtol: Any, atol: Any, *, noisy: bool, controlled: bool) -> tuple[Any, Any]:
    """Both, or what they are by default. With steps that are given, they say how exactly an
    implicit method solves its equations.
    """
    usual = (1e-2, 1e-2) if noisy else (1e-3, 1e-6)
    relative, absolute = usual if controlled else (1e-12, 1e-14)
    return _tolerance("rtol", rtol, relative), _tolerance("atol", atol, absolute)


def _tolerance(name: str, value: Any, default: float) -> Any:
    if value is None:
        return default
    if not concrete(value):
        return value
    for leaf in jax.tree.leaves(value) or [value]:
        numbers = np.asarray(leaf)
        if not (is_real(numbers) and numbers.size) or not (numbers >= 0).all():
            raise ValueError(f"{name} is {_shown(value)}; positive numbers are wanted.")
        if (name == "atol" and (numbers == 0).any()) or (
            name == "rtol" and not np.isfinite(numbers).all()
        ):
            raise ValueError(
                f"{name} is {_shown(value)}; it must be positive"
                + (" and finite." if name == "rtol" else ".")
            )
    return value


def _check_prefix(name: str, value: Any, state: Any) -> None:
    """A tolerance is one for all of the state, or one for each of its parts."""
    single = jax.tree_util.all_leaves([state])
    try:
        jax.tree.map(_check_fits, as_state(value) if single else value, state)
    except ValueError as error:
        raise ValueError(
            f"{name} is {_shown(value)}; a number is wanted, or a prefix tree of y0, which is "
            f"{described(state)}."
        ) from error


def _check_fits(value: Any, part: Any) -> None:
    for leaf in jax.tree.leaves(part):
        if np.broadcast_shapes(np.shape(value), np.shape(leaf)) != np.shape(leaf):
            raise ValueError("is larger than the part of the state that it is for")


def _eps(state: Any) -> float:
    """The rounding unit of the state."""
    return float(jnp.finfo(jnp.result_type(float, *jax.tree.leaves(state))).eps)


def _below_eps(rtol: Any, eps: float) -> bool:
    """Whether rtol is, or may be, below what the state's precision can hold."""
    if not concrete(rtol):
        return True
    return bool(min(float(np.min(np.asarray(x))) for x in jax.tree.leaves(rtol)) < 8 * eps)


_noticed: set[str] = set()


def _notice_precision(rtol: Any, state: Any) -> None:
    """Says once that a tolerance that was asked for is below what the state's dtype can reach."""
    if rtol is None or not concrete(rtol):
        return
    asked = [x for leaf in jax.tree.leaves(rtol) for x in np.ravel(leaf) if x > 0]
    eps, dtype = _eps(state), str(jnp.result_type(float, *jax.tree.leaves(state)))
    if dtype in _noticed or not asked or min(asked) >= 4 * eps:
        return
    _noticed.add(dtype)
    way = {
        True: "Give y0 in a wider dtype for more.",
        False: "jax.config.update('jax_enable_x64', True) at the start of a program gives more.",
    }[jax.config.jax_enable_x64]  # pyright: ignore[reportAttributeAccessIssue]
    warnings.warn(
        f"rtol is {min(asked):g}, and {dtype} cannot hold an error below "
        f"{4 * eps:.2g}: steps are judged at that (sol.stats['floored'] counts them). "
        + ("" if eps < 1e-15 else way),
        skip_file_prefixes=INSIDE,
    )


def _default_method(problem: Problem, rtol: Any, controller: Any, dt: Any) -> Method:
    if problem.stochastic:
        return _default_noisy(problem, controller, dt)
    if isinstance(problem, DAEProblem):
        return METHODS["Rodas5P"]()
    if isinstance(problem, ImplicitDAEProblem):
        return BDF()
    return explicit_for(rtol)


def explicit_for(rtol: Any) -> Method:
    """The explicit method for these relative tolerances (None: the default)."""
    known = [np.min(np.asarray(x)) for x in jax.tree.leaves(rtol)] if concrete(rtol) else []
    return METHODS["Vern7" if any(x < 1e-6 for x in known) else "Tsit5"]()


def _may_turn(problem: Problem, state: Any, adjoint: Any) -> bool:
    """Whether the default method may turn to one for stiff problems, which has a dense Jacobian."""
    if type(problem).__name__ not in ODES or not isinstance(adjoint, Discrete | None):
        return False
    return Packing(moving(state)).size <= _MOST_TURNING


def _default_noisy(problem: Any, controller: Any, dt: Any) -> Method:
    """The method for an SDE; those of order 3/2 take diagonal, scalar or additive noise."""
    name = "EulerMaruyama" if problem.interpretation == "ito" else "EulerHeun"
    controlled = dt is None and (controller is None or controller.decides)
    if problem.delayed:
        if controlled:
            raise ValueError(f"{_no_control(problem)} (the method is then {name}()).")
        return METHODS[name]()
    if problem.noise != "general":
        return METHODS["SOSRA" if problem.additive else "SOSRI"]()
    if problem.additive:
        return METHODS["SOSRA"]()
    if controlled:
        raise ValueError(
            "no method for general noise controls its steps: give dt= (the method is then "
            f"{name}()), or declare additive=True if the diffusion does not depend on y."
        )
    return METHODS[name]()


def _no_control(problem: Problem) -> str:
    """What to do where a past and noise meet."""
    return f"no method for {type(problem).__name__} controls its steps: give dt="


def _calm() -> Controller:
    """For noise: the error of a step is random, so dt follows many of them, not each; and the set
    point is low, for a step that is rejected because of its noise biases the path (see
    `docs/theory/noise.md`).
    """
    return PID((0.3, 0.0, 0.0), safety=0.5)


def _check_noisy(problem: Problem, events: tuple) -> None:
    """What an equation with noise cannot have: held leaves that nothing would change; and events,
    where they would come back.
    """
    if problem.delayed and events:
        raise TypeError(
            f"events were given, and problem is a {type(problem).__name__}: what they change would "
            "come back to a path that has been cut. Leave them out, or see what is saved (saveat=)."
        )
    if holds(state_of(problem)) and not events:
        raise TypeError(
            "y0 has leaves that are held, and without events nothing changes them: use args."
        )


def _check_forwards(problem: Problem, span: Any) -> None:
    """Time runs forwards where a path is drawn."""
    if problem.stochastic and span is not None and span[1] < span[0]:
        what = "jumps are" if isinstance(problem, JumpProblem) else "an SDE is"
        raise ValueError(
            f"tspan = ({span[0]:g}, {span[1]:g}) runs backwards; {what} solved forwards in time."
        )


_JUMPING = {
    False: ("ODEProblem", "SplitODEProblem", "SDEProblem", "DAEProblem", "SecondOrderProblem",
            "HamiltonianProblem"),
    True: ("ODEProblem", "SplitODEProblem", "SDEProblem"),
}  # fmt: skip


def _without_jumps(problem: Any) -> tuple[Any, tuple]:
    """The equation between jumps, and the jumps."""
    if not isinstance(problem, JumpProblem):
        return problem, ()
    _check_jumps(problem)
    return problem.problem, problem.jumps


def _check_jumps(problem: JumpProblem) -> None:
    """Equations that can jump, and at which rates."""
    moving = [j for j, jump in enumerate(problem.jumps) if varies(jump.rate)]
    kind, able = type(problem.problem).__name__, _JUMPING[bool(moving)]
    if kind not in able:
        what = f"jumps[{moving[0]}] has a rate that varies" if moving else "jumps were given"
        raise TypeError(
            f"{what}, and problem is a {kind}; one of {', '.join(able)} is wanted"
            + (", or constant rates." if kind in _JUMPING[False] else ".")
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


def _check_delayed(problem: Any, method: Method, *, controlled: bool) -> None:
    """What solves a delay equation."""
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


def _check_noisy_delayed(problem: Any, method: Method, *, controlled: bool) -> None:
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
        raise ValueError(f"{_no_control(problem)}.")


def _check_history(problem: Any) -> None:
    """A history that can be asked, and lags that are positive where they are known."""
    history, lags = problem.history, problem.lags
    if history is None or any(isinstance(x, str) for x in jax.tree.leaves(history)):
        raise TypeError(
            f"history is {_shown(history)}; a function history(t, args) is wanted, or the constant "
            "that y was before t0."
        )
    if depends_on_state(lags):
        return
    lags = evaluated(lags, problem.args)
    for leaf in jax.tree.leaves(lags) or ([None] if lags is None else []):
        if leaf is None or isinstance(leaf, str) or not is_real(leaf):
            raise TypeError(
                f"lags is {_shown(lags)}; positive numbers are wanted, or a function of args or of "
                "(t, y, args) that returns them; () declares none."
            )
        if concrete(leaf) and not (np.asarray(leaf) > 0).all():
            found = "NaN" if np.isnan(leaf).any() else f"{np.min(leaf):g}"
            raise ValueError(
                f"lags has {found}; a lag is positive: f asks for past(t - lag). What vanishes now "
                "and then is a function of (t, y, args), or left out: lags=()."
            )
        if concrete(leaf) and not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(f"lags is {_shown(lags)}; finite times are wanted.")


def _check_key(problem: Problem, key: Any) -> None:
    """A key for an equation with noise, and for no other."""
    if not problem.stochastic:
        if key is not None:
            raise TypeError(
                f"key was given, but {type(problem).__name__} has no noise: leave key out."
            )
        return
    if key is None:
        what = "jumps are drawn" if isinstance(problem, JumpProblem) else "an SDE draws its noise"
        raise ValueError(
            f"key is None; {what} from a key: solve(…, key=jax.random.key(0)), and other keys for "
            "other paths."
        )
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if typed and key.shape == ():
        return
    if dtype == jnp.uint32 and key.ndim == 1:
        return
    shape = getattr(key, "shape", None)
    many = typed or (dtype == jnp.uint32 and key.ndim == 2)
    raise TypeError(
        f"key is {f'an array of {shape[0]} keys' if many and shape else _shown(key)}; one key is "
        "wanted, such as jax.random.key(0)"
        + ("; for one path a key map over them with jax.vmap." if many else ".")
    )


def _check_steps(method: Method, controller: Any, dt: Any, dt0: Any) -> None:
    if dt is not None and dt0 is not None:
        raise ValueError(
            "dt and dt0 were both given: dt is a fixed step, dt0 the first of an adaptive solve."
        )
    if dt is None and not method.adaptive and controller.decides:
        raise ValueError(
            f"method {method!r} has no error estimate, so its steps must be given: dt=, or "
            "controller=de.Fixed(ts)."
        )
    for name, value in (("dt", dt), ("dt0", dt0)):
        if value is None or not concrete(value):
            continue
        number = np.asarray(value)
        if number.shape != () or not is_real(number) or not np.isfinite(number) or number == 0:
            raise ValueError(f"{name} is {value!r}; one finite number, not zero, is wanted.")


def _check_turns(problem: Problem, method: Method, controller: Any, dt: Any) -> None:
    """What methods that take turns want: an ODE, and steps that tell whether it is stiff."""
    if len(method.phases) == 1:
        return
    if type(problem).__name__ not in ODES:
        raise TypeError(
            f"{method!r} begins with an explicit method for ODEs, and this is a "
            f"{type(problem).__name__}: choose one method, such as de.Rodas5P()."
        )
    if dt is not None or not controller.decides:
        raise ValueError(
            f"{method!r} tells by the steps it chooses whether a problem is stiff, and these are "
            "given: leave dt= or controller= out, or choose one of both methods."
        )


def _check_limits(controller: Controller) -> None:
    """Limits of dt, where they are numbers that are known: positive, and in order."""
    limits = {"dtmin": controller.dtmin, "dtmax": controller.dtmax}
    known = {k: x for k, x in limits.items() if not (x is None or callable(x)) and concrete(x)}
    for name, x in known.items():
        if np.shape(x) != () or not is_real(x) or not x > 0:
            raise ValueError(
                f"{name} is {x!r}; one positive number is wanted, or None for no limit."
            )
    if len(known) == 2 and known["dtmin"] > known["dtmax"]:
        raise ValueError(
            f"dtmin is {known['dtmin']!r}, above dtmax = {known['dtmax']!r}: no step lies between."
        )


def _check_direction(name: str, dt: Any, span: Any) -> None:
    """A dt > 0 is a length, right for both directions of time; dt < 0 says which it means."""
    if dt is not None and span is not None and concrete(dt) and dt < 0 and span[1] > span[0]:
        raise ValueError(
            f"{name} is {dt!r}, but tspan = ({span[0]:g}, {span[1]:g}) runs forwards; give "
            f"{name} > 0."
        )


def _span(problem: Problem) -> tuple[float, float] | None:
    """Tspan as numbers, where they are known."""
    tspan, known = problem.tspan, concrete((problem.args, problem.tspan))
    if callable(tspan) and not hasattr(tspan, "shape"):
        if not known:
            return None
        tspan = tspan(problem.args)
    if not isinstance(tspan, (tuple, list, np.ndarray, jax.Array)):
        raise TypeError(
            f"tspan is {_shown(tspan)}; a pair (t0, t1) is wanted, or a function of args."
        )
    if len(tspan) != 2:
        raise TypeError(f"tspan is {_shown(tspan)}; a pair (t0, t1) is wanted.")
    if any(callable(t) and not hasattr(t, "shape") for t in tspan):
        if not concrete(problem.args):
            return None
        tspan = [evaluated(t, problem.args) for t in tspan]
    if not concrete(list(tspan)):
        return None
    ends = [np.asarray(t) for t in tspan]
    if any(e.shape != () or not is_real(e) for e in ends):
        raise ValueError(f"tspan is {_shown(tspan)}; two scalars, real numbers, are wanted.")
    if not all(np.isfinite(e) for e in ends):
        raise ValueError(f"tspan is {_shown(tspan)}; finite times are wanted.")
    return float(ends[0]), float(ends[1])


def _check_save(save: Any) -> None:
    for key, f in save.items() if isinstance(save, dict) else [(None, save)]:
        name = "save" if key is None else f"save[{key!r}]"
        if not (f is None or callable(f)):
            raise TypeError(
                f"{name} is {_shown(f)}; a function save(t, y, args) is wanted, or None for y."
            )


def _check_saveat(saveat: Any, save: Any, span: Any, eps: float) -> None:
    if isinstance(save, dict) and not (isinstance(saveat, dict) and set(save) <= set(saveat)):
        raise ValueError(
            f"save has the keys {sorted(map(str, save))}; saveat must be a dict with the same keys."
        )
    if isinstance(saveat, dict) and not saveat:
        raise ValueError("saveat is {}; at least one key is wanted, or None for the state at t1.")
    for key, at in saveat.items() if isinstance(saveat, dict) else [(None, saveat)]:
        name = "saveat" if key is None else f"saveat[{key!r}]"
        if at is None or isinstance(at, str):
            if at not in (None, "steps"):
                raise ValueError(f'{name} is {at!r}; times, "steps" or None is wanted.')
            continue
        _check_times(name, at, span, eps)


def _check_times(name: str, at: Any, span: Any, eps: float) -> None:
    if np.ndim(at) != 1 or not is_real(at):
        raise ValueError(f"{name} is {_shown(at)}; a sequence of times is wanted.")
    if np.size(at) == 0:
        raise ValueError(
            f"{name} is empty; at least one time is wanted, or None for the state at t1 alone."
        )
    if span is None or not concrete(at):
        return
    times = np.asarray(at, float)
    t0, t1 = span
    turn = 1.0 if t1 >= t0 else -1.0
    known = times[~np.isnan(times)]
    if np.isnan(times[: len(known)]).any():
        raise ValueError(f"{name} has NaN before a number; NaN is padding, at the end only.")
    if (np.diff(turn * known) < 0).any():
        raise ValueError(
            f"{name} is not sorted along the direction of time, from t0 = {_digits(t0)} to "
            f"t1 = {_digits(t1)}: give np.sort(…)."
        )
    slack = 4 * eps * max(abs(t0), abs(t1))
    outside = known[(turn * known < turn * t0 - slack) | (turn * known > turn * t1 + slack)]
    if len(outside):
        raise ValueError(
            f"{name} has {_digits(outside[0])}, outside tspan = ({_digits(t0)}, {_digits(t1)})."
        )


def _digits(t: float) -> str:
    """All digits that tell a time from its neighbours, and no more: 1, not 1.0."""
    return repr(float(t)).removesuffix(".0")


def _check_mass(problem: Any, state: Any) -> None:
    """A mass matrix and what is said to be differential, where they are known."""
    packing = Packing(state)
    mass, kept = packed_mass(problem, packing), packed_differential(problem, packing)
    if not concrete((mass, kept)):
        return
    if not np.isfinite(np.asarray(mass)).all():
        raise ValueError("mass_matrix has NaN or inf; finite numbers are wanted.")
    rank = np.count_nonzero(mass) if mass.ndim == 1 else np.linalg.matrix_rank(np.asarray(mass))
    if kept is not None and np.count_nonzero(kept) != rank:
        raise ValueError(
            f"differential has {np.count_nonzero(kept)} components that are True; as many as "
            f"mass_matrix has rank are wanted, and it has rank {rank}."
        )


def _check_slopes(problem: Any, state: Any) -> None:
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


def _check_state(problem: Problem, state: Any) -> None:
    if isinstance(problem, DAEProblem):
        _check_mass(problem, state)
    if isinstance(problem, ImplicitDAEProblem):
        _check_slopes(problem, state)
    # (A history that calls jnp makes the state a tracer inside a trace, of numbers that are known.)
    if not concrete((jax.tree.leaves(problem), moving(state))):
        return
    for name, leaf in named_leaves(problem, moving(state)):
        value = np.asarray(leaf)
        if not np.isfinite(value).all():
            found = "NaN" if np.isnan(value).any() else "inf"
            raise ValueError(f"{name} has {found}; a finite initial state is wanted.")


def _events(events: Any) -> tuple:
    """The events of a solve, all of them, and nothing else."""
    given = events if isinstance(events, (tuple, list)) else (events,)
    for i, event in enumerate(given):
        name = f"events[{i}]" if isinstance(events, (tuple, list)) else "events"
        if inspect.isclass(event) and issubclass(event, Happening):
            raise TypeError(
                f"{name} is the class {event.__name__}; an instance is wanted, such as "
                f"de.{event.__name__}(…)."
            )
        if not isinstance(event, Happening):
            hint = "de.Event(condition)" if callable(event) else "de.Event(condition, affect)"
            raise TypeError(f"{name} is {_shown(event)}; an event is wanted, such as {hint}.")
    return tuple(given)


def _most_kinks(problem: Any, method: Method) -> int:
    """How many stops the kinks of constant lags may be."""
    if depends_on_state(problem.lags):
        return 0
    lags = jax.tree.leaves(evaluated(problem.lags, problem.args))
    jumps, noisy = problem.y0 is not None, problem.stochastic
    return kinks_of(sum(map(np.size, lags)), depth_of(method.order, jumps=jumps, noisy=noisy))


def _known_steps(
    span: Any, dt: Any, stops: Any, events: tuple, kinks: int = 0
) -> tuple[int | None, int | None]:
    """How many steps of dt there are at the most, when that is known: a power of two. A count is
    part of the program, and another dt need not compile another one. And how many to allow: each
    time that something happens there is one more, of which a long solve has room for as many again.
    """
    if dt is None or span is None or not concrete((dt, stops)):
        return None, None
    steps = math.ceil(abs(span[1] - span[0]) / abs(float(dt)) * (1 + 1e-6)) + 2
    steps += kinks + (0 if stops is None else int(np.size(stops)))
    known = max(_FEW_STEPS, 2 ** math.ceil(math.log2(steps)))
    if not events:
        return known, known
    return None, 2 * known if 2 * known > MAX_STEPS else None


def _times(name: str, x: Any) -> Any:
    """A sequence of times as an array; None where there are none."""
    if x is None or (isinstance(x, (tuple, list)) and not x):
        return None
    x = _arrays(x)
    if np.ndim(x) != 1 or not is_real(x):
        raise ValueError(f"{name} is {_shown(x)}; a sequence of times is wanted.")
    return jnp.asarray(x) if np.size(x) else None


def stops_of(problem: Problem, stops: Any) -> Any:
    """All the stops of a solve: those that are given, and those that its inputs ask for."""
    problem, jumps = _without_jumps(problem)
    stops = _times("stops", stops(problem.args) if callable(stops) else stops)
    return _with_jumps(problem, jumps, stops)


def _with_jumps(problem: Problem, random: tuple, stops: Any) -> Any:
    """The stops, and the times at which inputs jump that the problem depends on, or a rate does."""
    functions = [f for _, f, _ in functions_of(problem)] + [jump.rate for jump in random]
    jumps = jumps_in(problem.args, getattr(problem, "control", None), *functions)
    if not jumps:
        return stops
    return jnp.concatenate([*(() if stops is None else (stops,)), *jumps])


def _arrays(saveat: Any) -> Any:
    if isinstance(saveat, dict):
        return {k: _arrays(v) for k, v in saveat.items()}
    if not isinstance(saveat, Sequence) or isinstance(saveat, str):
        return saveat
    try:
        return jnp.asarray(saveat)
    except (TypeError, ValueError):
        return saveat  # what is no array is refused by its name


def _shown(x: Any) -> str:
    if inspect.isclass(x):
        return f"the class {x.__name__}"
    text = repr(x).replace("\n", " ")
    return text if len(text) < 80 else text[:77] + "…"
