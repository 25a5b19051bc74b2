"""`odeint`, `odeint_adjoint` and `odeint_event`, with the signatures of torchdiffeq."""

import math
from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, PyTree

from ..adjoints import Gauss
from ..closures import flatten, unflatten
from ..closures.reading import Identity
from ..controllers import PI, Fixed, I
from ..core.keywords import keywords
from ..events import Event
from ..problems import ODEProblem
from ..solve import solve
from .arrays import check_numeric, double_where
from .autograd import Operation, operation
from .compiling import graph_break
from .error_norm import LargestPart, norm_by_torch
from .functions import TorchProgram, count_calls, torch_function
from .methods import (
    StepOptions,
    controlled_steps,
    method_and_options,
    most_steps,
    non_negative,
)
from .results import SolveReport, report_of

__all__ = ["odeint", "odeint_adjoint", "odeint_event"]

_FAR = 1e12  # where a solve ends that only its event ends
_MORE_ATTEMPTS = "In odeint, max_steps is options={'max_num_steps': …}."
_NO_EVENT = "event_fn did not change its sign, and nothing else ends the solve of an event."
# The tape of a program for more attempts is longer, and is filled and copied in each call: where a
# solve needs more, it is solved again by such a program, and from then on by that one alone.
_FEW_ATTEMPTS = 2**16


@graph_break
@keywords
def odeint(
    func: Callable,
    y0: Any,
    t: Any,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: Any = None,
    options: Any = None,
    event_fn: Callable | None = None,
) -> Any:
    """Solves dy/dt = func(t, y), y(t[0]) = y0, for tensors of torch, as `torchdiffeq.odeint` does.

    The solve is compiled once for each shape; parameters, buffers and all other tensors that func
    sees are inputs of it, and gradients go to each that requires one, through the steps that were
    taken (`de.Discrete`), to every order.

    Args:
        func: a function of (t, y), a module or any other, written in torch. It is called with t a
            tensor without axes, and y as y0 is.
        y0: the initial state, a tensor of any shape or a tuple of tensors, of single or double
            precision.
        t: times, increasing or decreasing, of which the first is that of y0.
        rtol, atol: tolerances: numbers, tensors like y0, or tuples with one for each part of y0.
        method: "dopri5" (default), "dopri8", "bosh3", "fehlberg2" or "adaptive_heun", which
            control their steps; "euler", "midpoint", "heun2", "heun3" or "rk4", whose steps are t
            or as options say; "scipy_solver"; or a method of this package, such as `de.Rodas5P()`.
        options: of a method that controls its steps first_step, min_step, max_step, step_t, jump_t,
            safety, ifactor, dfactor, max_num_steps and norm, a function in torch of the scaled
            errors, like y0, to a number (their root mean square; of a tuple the largest of its
            parts'); of the others step_size or grid_constructor, and interp ("linear", "cubic").
        event_fn: a function of (t, y). The solve ends where a number that it returns first changes
            its sign; of t, of length 2, the first is the start and the second gives the direction.

    Returns:
        y at the times t, which is the first axis; of a tuple, a tuple. With event_fn the time of
        the event, and y at t[0] and there.

    Raises:
        TypeError, ValueError: an argument does not fit; or func does what cannot be compiled: it
            draws random numbers, writes to buffers, or looks at the numbers of a tensor.
        SolveError: the solve failed; says where and why.

    Reference: chen2018.

    Example:
        >>> import torch
        >>> from diffeq.torch import odeint
        >>> rate = torch.tensor(2.0, requires_grad=True)
        >>> y = odeint(lambda t, y: -rate * y, torch.ones(3), torch.tensor([0.0, 0.5, 1.0]))
        >>> y.shape
        torch.Size([3, 3])
        >>> y[-1].sum().backward()
        >>> round(float(rate.grad), 3)
        -0.406
    """
    chosen = method_and_options(method, options)
    return _Call(func, y0, t, {"rtol": rtol, "atol": atol}, chosen, event_fn).solved()


@graph_break
@keywords
def odeint_adjoint(
    func: Callable,
    y0: Any,
    t: Any,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: Any = None,
    options: Any = None,
    event_fn: Callable | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_method: Any = None,
    adjoint_options: Any = None,
    adjoint_params: Any = None,
) -> Any:
    """`odeint` with the arguments of `torchdiffeq.odeint_adjoint`.

    The memory of `odeint` grows with the square root of the number of steps, and its gradient is
    that of the numbers which it returns: so this is `odeint`, unless something is said of the
    adjoint equation. Then that is solved (`de.Gauss`), with tolerances and a method of its own.

    Args:
        func, y0, t, rtol, atol, method, options, event_fn: as of `odeint`; func has to be a module
            where adjoint_params is None.
        adjoint_rtol, adjoint_atol, adjoint_method: tolerances and method of the adjoint equation.
        adjoint_options: {"norm": "seminorm"}, which leaves the parameters out of the error control,
            as `de.Gauss` does in any case; or the options of adjoint_method, which has to be one
            that controls its steps.
        adjoint_params: the tensors that gradients go to, besides y0 and t. None: all that require
            one.

    Raises:
        TypeError: as by `odeint`.
        ValueError: as by `odeint`; func is no module and adjoint_params is None, the adjoint method
            has no error control, or an adjoint equation is asked for with event_fn.

    Reference: chen2018.

    Example:
        >>> import torch
        >>> from diffeq.torch import odeint_adjoint
        >>> field = torch.nn.Linear(2, 2)
        >>> class F(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = torch.nn.Linear(2, 2)
        ...     def forward(self, t, y):
        ...         return self.net(y)
        >>> f = F()
        >>> odeint_adjoint(f, torch.ones(2), torch.tensor([0.0, 1.0])).sum().backward()
        >>> f.net.weight.grad.shape
        torch.Size([2, 2])
    """
    if adjoint_params is None and not isinstance(func, torch.nn.Module):
        raise ValueError(
            "func must be an instance of nn.Module to specify the adjoint parameters; "
            "alternatively they can be given as adjoint_params=, () where there are none."
        )
    chosen = method_and_options(method, options)
    adjoint = None
    if any(x is not None for x in (adjoint_rtol, adjoint_atol, adjoint_method)):
        other = {k: v for k, v in (adjoint_options or {}).items() if k != "norm"}
        of_adjoint = method_and_options(adjoint_method or method, other, "adjoint_method")
        if of_adjoint.fixed or event_fn is not None:
            raise ValueError(
                "adjoint_rtol, adjoint_atol and adjoint_method are of an adjoint equation that is "
                "solved with an error control, and without event_fn: leave them out, and the "
                "gradient is that of the steps which were taken."
            )
        tighter = {"rtol": adjoint_rtol, "atol": adjoint_atol}
        given = {name: float(x) for name, x in tighter.items() if x is not None}
        adjoint = Gauss(method=of_adjoint.method, **given)  # pyright: ignore[reportArgumentType]
    params = None if adjoint_params is None else list(adjoint_params)
    tolerances = {"rtol": rtol, "atol": atol}
    call = _Call(func, y0, t, tolerances, chosen, event_fn, adjoint=adjoint, params=params)
    return call.solved()


@graph_break
def odeint_event(
    func: Callable,
    y0: Any,
    t0: torch.Tensor,
    *,
    event_fn: Callable,
    reverse_time: bool = False,
    odeint_interface: Callable = odeint,
    **kwargs: Any,
) -> tuple:
    """Solves until `event_fn(t, y)` changes its sign, as `torchdiffeq.odeint_event` does.

    The time of the event is a root, and has its derivative: −(∂g/∂y dy)/(dg/dt), to every order.

    Args:
        func, y0, event_fn: as of `odeint`.
        t0: the time of y0, a tensor without axes.
        reverse_time: whether time runs backwards.
        odeint_interface: `odeint` or `odeint_adjoint`; kwargs are its other arguments.

    Returns:
        The time of the event, and y at t0 and there.

    Raises:
        TypeError, ValueError: as by `odeint`.
        RuntimeError: event_fn does not change its sign.

    Reference: chen2021.

    Example:
        >>> import torch
        >>> from diffeq.torch import odeint_event
        >>> fall = lambda t, y: torch.stack([y[1], -9.81 * torch.ones(())])
        >>> start = torch.tensor([10.0, 0.0], requires_grad=True)
        >>> t, y = odeint_event(fall, start, torch.tensor(0.0), event_fn=lambda t, y: y[0])
        >>> round(t.item(), 3)
        1.428
        >>> t.backward()
        >>> start.grad  # 1/(g t) by the height, 1/g by the velocity
        tensor([0.0714, 0.1019])
    """
    if not isinstance(t0, torch.Tensor):
        raise TypeError(f"t0 is {t0!r}; a torch.Tensor is wanted: torch.tensor({t0!r}).")
    start = t0.reshape(-1)
    end = start.detach() + (-1.0 if reverse_time else 1.0)
    times = torch.cat([start, end])
    return odeint_interface(func, y0, times, event_fn=event_fn, **kwargs)


# --- one call -------------------------------------------------------------------------------------


class _Setting(NamedTuple):
    """All that a program depends on: functions, the number of parts of y0, options."""

    func: TorchProgram
    event: TorchProgram | None
    parts: int | None  # None: y0 is a tensor
    grid: Hashable
    structure: Hashable  # of the options of `solve`
    max_steps: int | None
    interp: str
    moving_grid: bool  # t is differentiated, and with it the steps of a fixed grid

    @property
    def key(self) -> Hashable:
        event = None if self.event is None else self.event.key
        return (self.func.key, event, self[2:])

    @property
    def operation(self) -> Operation:
        """The program."""
        return operation(self.key, partial(_solution, self))


class _Call:
    """A call that has passed its checks."""

    def __init__(
        self,
        func: Callable,
        y0: Any,
        t: Any,
        tolerances: dict[str, Any],
        chosen: StepOptions,
        event_fn: Callable | None,
        *,
        adjoint: Any = None,
        params: list[torch.Tensor] | None = None,
    ) -> None:
        _check_state(y0)
        _check_torch_times(t, event_fn)
        _check_callbacks(func)
        if chosen.options.get("dtype") is not None:
            t = t.to(torch.promote_types(chosen.options["dtype"], t.dtype))
        self.is_tuple, self.t, self.params = isinstance(y0, tuple), t, params
        self.y0 = list(y0) if self.is_tuple else [y0]
        first = self.y0[0]
        moment = torch.empty((), dtype=first.real.dtype if first.is_complex() else first.dtype)
        shapes = [moment, *self.y0]
        with double_where([*self.y0, t]):
            call = _called_with_tuple if self.is_tuple else _called_with_tensor
            self.func = torch_function(func, shapes, "func", call)
            _check_returned(self.func.program.returned, y0)
            self.event = None
            if event_fn is not None:
                self.event = torch_function(event_fn, shapes, "event_fn", call)
                _check_condition(self.event.program.returned)
            self.extras, self.setting = self._setting(tolerances, chosen, adjoint)

    def _setting(
        self, tolerances: dict[str, Any], chosen: StepOptions, adjoint: Any
    ) -> tuple[PyTree, _Setting]:
        grid, steps = self._grid(chosen.options) if chosen.fixed else (None, None)
        most = None if chosen.fixed else most_steps(chosen.options)
        leaves, structure = self._flat_options(tolerances, chosen, adjoint)
        parts = len(self.y0) if self.is_tuple else None
        interp = chosen.options.get("interp", "")
        event = None if self.event is None else self.event.program
        moving = self.t.requires_grad
        setting = _Setting(self.func.program, event, parts, grid, structure, most, interp, moving)
        return (leaves, steps), setting

    def _flat_options(
        self, tolerances: dict[str, Any], chosen: StepOptions, adjoint: Any
    ) -> tuple[list, Hashable]:
        """The numbers among the options of `solve`, and the structure of all."""
        norm = None if chosen.fixed else self._norm(chosen.options["norm"])
        given = (*chosen.options.values(), *tolerances.values())
        if adjoint is None and chosen.named and all(type(x) in _PLAIN for x in given):
            pairs = tuple(chosen.options.items()), tuple(tolerances.items())
            kind = Identity(chosen.method), chosen.fixed, chosen.controller
            return _options_by_name(*kind, *pairs, norm)
        if not chosen.fixed or adjoint is not None:
            tolerances = {name: self._tolerance(name, x) for name, x in tolerances.items()}
        return _flat_options(chosen, tolerances, norm, adjoint)

    def solved(self) -> Any:
        """The answer in tensors."""
        seen = [*self.func.tensors, *(self.event.tensors if self.event else ())]
        if self.params is not None:
            kept = {id(x) for x in self.params}
            seen = [x if id(x) in kept else x.detach() for x in seen]
        operands = [*self.y0, self.t, *seen]
        with double_where(operands):
            results, report = self._run(operands)
            report.check(_MORE_ATTEMPTS if self.event is None else f"{_NO_EVENT} {_MORE_ATTEMPTS}")
            if self.event is not None and not report.met_event():
                raise RuntimeError(f"{_NO_EVENT} It was followed for {_FAR:g} units of time.")
            count_calls([self.func, *([self.event] if self.event else ())], report.calls)
        times, ys = results[:1], results[-len(self.y0) :]
        y = tuple(ys) if self.is_tuple else ys[0]
        return y if self.event is None else (times[0], y)

    def _run(self, operands: list[torch.Tensor]) -> tuple[list[torch.Tensor], SolveReport]:
        """The results: of a program that makes few attempts, unless more are needed and allowed."""
        setting, program = self.setting, self.setting.func
        if (setting.max_steps or 0) > _FEW_ATTEMPTS and not program.is_long:
            short = setting._replace(max_steps=_FEW_ATTEMPTS)
            results, report = short.operation(self.extras, operands)
            if not report.spent():
                return results, report
            program.is_long = True
        return setting.operation(self.extras, operands)

    def _tolerance(self, name: str, value: Any) -> PyTree:
        """A tolerance as `solve` takes it: a number, or a tree like y0."""
        if isinstance(value, (tuple, list)):
            if not self.is_tuple or len(value) != len(self.y0):
                raise ValueError(
                    f"If using tupled {name} it must have the same length as the tuple y0; it is "
                    f"{value!r}."
                )
            return tuple(_as_number(name, x) for x in value)
        return _as_number(name, value)

    def _norm(self, norm: Any) -> Callable | None:
        """The norm of the scaled errors of a step; None: their root mean square."""
        if norm is not None:
            return norm_by_torch(norm, self.y0, is_tuple=self.is_tuple)
        return LargestPart(tuple(x.numel() for x in self.y0)) if self.is_tuple else None

    def _grid(self, options: dict[str, Any]) -> tuple[Hashable, PyTree]:
        """The kind of a fixed grid, and the numbers that it is made of."""
        if options["perturb"]:
            raise ValueError(
                "options has perturb=True: give the times at which func jumps to a method that "
                "controls its steps, as options={'jump_t': …}, or as points of the grid."
            )
        if options["interp"] not in ("linear", "cubic"):
            raise ValueError(f"Unknown interpolation method {options['interp']}")
        size, make = options["step_size"], options["grid_constructor"]
        if size is not None and make is not None:
            raise ValueError("step_size and grid_constructor are mutually exclusive arguments.")
        if self.event is not None:
            if size is None:
                raise ValueError(
                    "Event handling for fixed step solvers currently requires `step_size` to be "
                    "provided in options."
                )
            return "event", float(size)
        if size is not None:
            length = abs(float((self.t[-1] - self.t[0]).detach()))
            return ("step_size", math.ceil(length / float(size)) + 1), float(size)
        if make is not None:
            return "points", jnp.asarray(make(None, self.y0[0], self.t).detach().numpy())
        return "t", None


_PLAIN = (type(None), bool, int, float, str)


@lru_cache(64)
def _options_by_name(
    method: Identity,
    fixed: bool,
    controller: type[PI] | type[I],
    options: tuple[tuple[str, Any], ...],
    tolerances: tuple[tuple[str, Any], ...],
    norm: Callable | None,
) -> tuple[list, Hashable]:
    """The options of a method of torchdiffeq, where all that is given are numbers and names."""
    chosen = StepOptions(method.value, fixed, dict(options), True, controller)  # pyright: ignore[reportArgumentType]
    return _flat_options(
        chosen, {name: non_negative(name, x) for name, x in tolerances}, norm, None
    )


def _flat_options(
    chosen: StepOptions, tolerances: dict[str, Any], norm: Callable | None, adjoint: Any
) -> tuple[list, Hashable]:
    options: dict[str, Any] = {"method": chosen.method, "adjoint": adjoint}
    if not chosen.fixed:
        options |= controlled_steps(chosen, norm)
    if not chosen.fixed or adjoint is not None:
        options |= tolerances
    return flatten(options)


def _called_with_tensor(f: Callable, t: torch.Tensor, y: torch.Tensor) -> Any:
    return f(t, y)


def _called_with_tuple(f: Callable, t: torch.Tensor, *y: torch.Tensor) -> Any:
    return f(t, y)


def _as_number(name: str, x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        if x.requires_grad:
            raise ValueError(f"{name} cannot require gradient")
        numbers = x.detach().cpu().numpy()
        if not (numbers >= 0).all():
            raise ValueError(f"{name} is {numbers}; positive numbers are wanted.")
        return jnp.asarray(numbers)
    return non_negative(name, x)


# --- its program ----------------------------------------------------------------------------------


def _solution(setting: _Setting, extras: PyTree, arrays: list) -> tuple[list, SolveReport]:
    """The program: rows of y, after the time of the event if there is one, and how it went."""
    parts = setting.parts or 1
    count = parts + 1 + len(setting.func.places)
    leaves, ts = arrays[:parts], arrays[parts]
    problem = ODEProblem(
        partial(_slopes_by_torch, setting, leaves[0].dtype),
        leaves[0] if setting.parts is None else tuple(leaves),
        (ts[0], ts[-1]),
        {"func": arrays[parts + 1 : count], "event_fn": arrays[count:]},
    )
    (numbers, steps), options = extras, {}
    options = {**unflatten(setting.structure, numbers), "throw": False}
    options = {key: value for key, value in options.items() if value is not None}
    if setting.max_steps is not None:
        options["max_steps"] = setting.max_steps
    if setting.event is not None:
        return _until_event(setting, problem, ts, steps, options)
    if setting.grid is None or setting.grid == "t":
        if setting.grid == "t":
            options["controller"] = Fixed(ts)
            # No controller is differentiated; where a step ends on a stop, its length is.
            options["stops"] = ts[1:-1] if setting.moving_grid else ()
        sol = solve(problem, saveat=ts, **options)
        return jax.tree.leaves(sol.ys), report_of(sol)
    grid = _points(setting.grid, ts, steps)
    options["controller"] = Fixed(grid)
    sol = solve(problem, saveat=grid if setting.interp == "linear" else ts, **options)
    rows = jax.tree.leaves(sol.ys)
    if setting.interp == "linear":
        rows = [_interpolated(grid, y, ts) for y in rows]
    return rows, report_of(sol)


def _slopes_by_torch(
    setting: _Setting, dtype: Any, t: Array, y: PyTree, args: dict[str, list]
) -> PyTree:
    """func, called with t in the precision of y."""
    leaves = y if isinstance(y, tuple) else (y,)
    moment = t.astype(jnp.finfo(dtype).dtype)
    out = setting.func(args["func"], moment, *leaves)
    given = out if isinstance(out, (tuple, list)) else (out,)
    slopes = tuple(x.astype(leaf.dtype) for x, leaf in zip(given, leaves, strict=True))
    return slopes if isinstance(y, tuple) else slopes[0]


def _until_event(
    setting: _Setting, problem: ODEProblem, ts: Array, step: PyTree, options: dict[str, Any]
) -> tuple[list, SolveReport]:
    event = setting.event
    assert event is not None

    def condition(t: Array, y: PyTree, args: dict[str, list]) -> Array:
        leaves = y if isinstance(y, tuple) else (y,)
        found = event(args["event_fn"], t.astype(jnp.finfo(leaves[0].dtype).dtype), *leaves)
        return found.reshape(()) if found.size == 1 else found.reshape(-1)

    t0 = ts[0]
    end = jax.lax.stop_gradient(t0 + jnp.sign(ts[1] - t0) * _FAR * (1 + jnp.abs(t0)))
    if step is not None:
        options["dt"] = step
        options["max_steps"] = 20_000
    problem = problem.replace(tspan=(t0, end))
    sol = solve(problem, events=Event(condition), max_events=1, **options)
    record = sol.events[0]
    ends = jax.tree.leaves(jax.tree.map(lambda x: x[0], record.before))
    starts = jax.tree.leaves(problem.y0)
    rows = [jnp.stack([a, b]) for a, b in zip(starts, ends, strict=True)]
    return [record.ts[0].astype(ts.dtype), *rows], report_of(sol)


def _points(kind: Hashable, ts: Array, steps: PyTree) -> Array:
    """The points of a grid from t[0] to t[-1]."""
    if kind == "points":
        return steps.astype(ts.dtype)
    assert isinstance(kind, tuple)
    count = kind[1]
    sign = jnp.sign(ts[-1] - ts[0])
    return (ts[0] + sign * steps * jnp.arange(count, dtype=ts.dtype)).at[-1].set(ts[-1])


def _interpolated(grid: Array, rows: Array, ts: Array) -> Array:
    """Rows at the points of a grid, at times between by lines."""
    sign = jnp.sign(grid[-1] - grid[0])
    place = jnp.clip(jnp.searchsorted(sign * grid, sign * ts), 1, len(grid) - 1)
    theta = (ts - grid[place - 1]) / (grid[place] - grid[place - 1])
    theta = theta.reshape(-1, *[1] * (rows.ndim - 1)).astype(jnp.finfo(rows.dtype).dtype)
    # No rounding where a time is a point.
    between = rows[place - 1] + theta * (rows[place] - rows[place - 1])
    return jnp.where(theta == 1, rows[place], between)


# --- checks ---------------------------------------------------------------------------------------


def _check_state(y0: Any) -> None:
    if not isinstance(y0, torch.Tensor) and not (isinstance(y0, tuple) and y0):
        raise TypeError(
            f"y0 must be either a torch.Tensor or a tuple of them, and is a {type(y0).__name__}."
        )
    for i, x in enumerate(y0 if isinstance(y0, tuple) else (y0,)):
        name = f"y0[{i}]" if isinstance(y0, tuple) else "y0"
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, and is {x!r}.")
        check_numeric(name, x)


def _check_torch_times(t: Any, event_fn: Callable | None) -> None:
    if not isinstance(t, torch.Tensor):
        raise TypeError(f"t must be a torch.Tensor, and is {t!r}: torch.tensor({t!r}).")
    check_numeric("t", t)
    if t.ndim != 1 or not len(t):
        raise ValueError(f"t must be one dimensional, and has shape {tuple(t.shape)}.")
    if event_fn is not None and len(t) != 2:
        raise ValueError(
            f"We require len(t) == 2 when in event handling mode, but got len(t)={len(t)}."
        )
    steps = np.diff(t.detach().cpu().numpy())
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError("t must be strictly increasing or decreasing")


def _check_condition(found: Any) -> None:
    """Refuses what event_fn returns where it is no tensor."""
    if not isinstance(found, torch.Tensor):
        raise TypeError(
            f"event_fn returned {found!r}; a tensor is wanted, whose sign changes at the event."
        )


def _check_returned(found: Any, y0: Any) -> None:
    """Refuses what func returns where it is not like y0."""
    slopes = found if isinstance(y0, tuple) else [found]
    if not isinstance(slopes, (list, tuple)) or len(slopes) != (
        len(y0) if isinstance(y0, tuple) else 1
    ):
        kind = len(found) if isinstance(found, (list, tuple)) else type(found).__name__
        raise TypeError(
            f"func returned {kind}; dy/dt like y0 is wanted, "
            + (f"a tuple of {len(y0)} tensors." if isinstance(y0, tuple) else "a tensor.")
        )
    for i, (x, y) in enumerate(zip(slopes, y0 if isinstance(y0, tuple) else (y0,), strict=True)):
        part = f"[{i}]" if isinstance(y0, tuple) else ""
        if not isinstance(x, torch.Tensor) or x.shape != y.shape:
            found = f"of shape {tuple(x.shape)}" if isinstance(x, torch.Tensor) else f"{x!r}"
            raise ValueError(
                f"func returned{part} {found}; a tensor dy/dt of the shape of y0{part}, "
                f"{tuple(y.shape)}, is wanted."
            )
        if x.is_complex() and not y.is_complex():
            raise TypeError(f"func returned complex numbers, and y0{part} is real: give y0 + 0j.")


def _check_callbacks(func: Any) -> None:
    if not callable(func):
        raise TypeError(f"func is {func!r}; a function func(t, y) is wanted.")
    names = ("callback_step", "callback_accept_step", "callback_reject_step")
    for name in names:
        if hasattr(func, name):
            raise TypeError(
                f"func has {name}, which would be called in each step, and the steps are compiled: "
                "leave it out; diffeq.torch.solve(…, saveat='steps') returns every step."
            )
