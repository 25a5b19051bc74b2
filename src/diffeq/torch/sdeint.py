"""`sdeint` and `sdeint_adjoint`, with the signatures of torchsde."""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import torch
from jaxtyping import Array, PyTree

from ..controllers import MeanSquare
from ..core.keywords import keywords
from ..methods import METHODS, EulerHeun, EulerMaruyama, Method, Milstein
from ..problems import SDEProblem
from ..solution import Solution
from ..solve import solve
from .arrays import check_numeric, double_where
from .autograd import operation
from .compiling import graph_break
from .functions import TorchFunction, TorchProgram, count_calls, torch_function
from .methods import non_negative
from .results import SolveReport, drawn_seed, report_of

__all__ = ["sdeint", "sdeint_adjoint"]

_NOISE_TYPES = ("additive", "diagonal", "general", "scalar")
_SDE_TYPES = ("ito", "stratonovich")
_METHODS: dict[str, Method] = {
    "euler": EulerMaruyama(),
    "milstein": Milstein(),
    "srk": METHODS["SRIW1"](),
    "heun": EulerHeun(),
}
_REFUSED = {
    "midpoint": "heun",
    "euler_heun": "heun",
    "log_ode": "heun",
    "reversible_heun": "heun",
    "adjoint_reversible_heun": "heun",
}


@graph_break
@keywords
def sdeint(
    sde: Any,
    y0: Any,
    ts: Any,
    bm: Any = None,
    method: Any = None,
    dt: Any = 1e-3,
    adaptive: bool = False,
    *,
    rtol: Any = 1e-5,
    atol: Any = 1e-4,
    dt_min: Any = 1e-5,
    options: Any = None,
    names: Any = None,
    logqp: bool = False,
    extra: bool = False,
    extra_solver_state: Any = None,
) -> Any:
    """Solves dy = f(t, y) dt + g(t, y) dW for a batch of tensors of torch, as `torchsde.sdeint`.

    Gradients are those of the path that was drawn, by y0 and all tensors that f and g see. The path
    is drawn from torch's own generator: after `torch.manual_seed` it is the same again.

    Args:
        sde: an object with methods f(t, y) and g(t, y), of shapes (batch, d) and, as `noise_type`
            says, (batch, d) for "diagonal" or (batch, d, m) for "scalar" (m = 1), "additive" and
            "general"; and with `sde_type`, "ito" or "stratonovich". f_and_g(t, y) may be in place
            of both. Unless noise is diagonal, f and g are called with batches of one sample.
        y0: the initial states, shape (batch, d).
        ts: increasing times, of which the first is that of y0.
        bm: None, or a Brownian motion of torchsde, whose entropy is the seed of the paths: one
            object is one path.
        method: "euler", "milstein" or "srk" (Itô), "heun" (Stratonovich), or a method of this
            package, such as `de.SOSRI()`. None: "srk", of general noise "euler"; "heun".
        dt: the step, or with `adaptive` the first.
        adaptive: whether steps are controlled by rtol, atol and dt_min.
        names: {"drift": …, "diffusion": …, "prior_drift": …}, other names of f, g and h.
        logqp: whether to return the log-ratio penalty, too, ½ ∫ |(f − h)/g|² dt between the times,
            with sde.h the drift of the prior; diagonal noise.

    Returns:
        y at the times ts, shape (times, batch, d); with logqp that and the penalty,
        (times − 1, batch).

    Raises:
        TypeError, ValueError: an argument does not fit, or f or g does what cannot be compiled.
        SolveError: the solve failed; says where and why.

    Reference: li2020, kidger2021.

    Example:
        >>> import torch
        >>> from diffeq.torch import sdeint
        >>> class Decay(torch.nn.Module):
        ...     noise_type, sde_type = "diagonal", "ito"
        ...     def f(self, t, y):
        ...         return -y
        ...     def g(self, t, y):
        ...         return 0.1 * y
        >>> sdeint(Decay(), torch.ones(8, 3), torch.linspace(0, 1, 5), dt=0.01).shape
        torch.Size([5, 8, 3])
    """
    _check_unset(options=options, extra=extra, extra_solver_state=extra_solver_state)
    steps = _steps(adaptive, dt=dt, rtol=rtol, atol=atol, dt_min=dt_min)
    return _SdeCall(sde, y0, ts, method, steps, names, logqp=logqp).solved(bm)


@graph_break
@keywords
def sdeint_adjoint(
    sde: Any,
    y0: Any,
    ts: Any,
    bm: Any = None,
    method: Any = None,
    adjoint_method: Any = None,
    dt: Any = 1e-3,
    *,
    adaptive: bool = False,
    adjoint_adaptive: bool = False,
    rtol: Any = 1e-5,
    adjoint_rtol: Any = None,
    atol: Any = 1e-4,
    adjoint_atol: Any = None,
    dt_min: Any = 1e-5,
    options: Any = None,
    adjoint_options: Any = None,
    adjoint_params: Any = None,
    names: Any = None,
    logqp: bool = False,
    extra: bool = False,
    extra_solver_state: Any = None,
) -> Any:
    """`sdeint` with the arguments of `torchsde.sdeint_adjoint`.

    The memory of `sdeint` grows with the square root of the number of steps, and its gradient is
    that of the path: no equation is solved backwards, and adjoint_method, adjoint_adaptive,
    adjoint_rtol, adjoint_atol and adjoint_options are refused.

    Args:
        adjoint_params: the tensors that gradients go to, besides y0. None: all that require one.

    The other arguments, returns, errors: see `sdeint`.

    Reference: li2020.

    Example:
        >>> import torch
        >>> from diffeq.torch import sdeint_adjoint
        >>> class Decay(torch.nn.Module):
        ...     noise_type, sde_type = "diagonal", "ito"
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.rate = torch.nn.Parameter(torch.tensor(1.0))
        ...     def f(self, t, y):
        ...         return -self.rate * y
        ...     def g(self, t, y):
        ...         return 0.1 * y
        >>> sde = Decay()
        >>> sdeint_adjoint(sde, torch.ones(8, 3), [0.0, 1.0], dt=0.01)[-1].mean().backward()
        >>> bool(sde.rate.grad < 0)
        True
    """
    _check_unset(options=options, extra=extra, extra_solver_state=extra_solver_state)
    _check_unset(
        adjoint_method=adjoint_method,
        adjoint_adaptive=adjoint_adaptive,
        adjoint_rtol=adjoint_rtol,
        adjoint_atol=adjoint_atol,
        adjoint_options=adjoint_options,
    )
    steps = _steps(adaptive, dt=dt, rtol=rtol, atol=atol, dt_min=dt_min)
    params = None if adjoint_params is None else list(adjoint_params)
    return _SdeCall(sde, y0, ts, method, steps, names, logqp=logqp).solved(bm, params)


# --- one call -------------------------------------------------------------------------------------


class _SdeSetting(NamedTuple):
    """All that a program depends on."""

    drift: TorchProgram
    diffusion: TorchProgram
    noise: str
    interpretation: str
    method: Method
    adaptive: bool

    @property
    def key(self) -> Hashable:
        return ("sde", self.drift.key, self.diffusion.key, *self[2:4], repr(self.method), self[5])


class _SdeCall:
    """A call of `sdeint` that has passed its checks."""

    def __init__(
        self,
        sde: Any,
        y0: Any,
        ts: Any,
        method: Any,
        steps: dict[str, float],
        names: Any,
        *,
        logqp: bool,
    ) -> None:
        self.noise, interpretation = _checked_types(sde)
        _check_batch(y0)
        self.y0, self.ts, self.steps, self.logqp = y0, _checked_ts(ts, y0), steps, logqp
        if logqp:
            if self.noise != "diagonal":
                raise ValueError(f"logqp is for diagonal noise here, and sde has {self.noise}.")
            self.y0 = torch.cat([y0, y0.new_zeros(len(y0), 1)], dim=1)
        with double_where([y0]):
            self.drift, self.diffusion = self._functions(sde, dict(names or {}))
        chosen = _chosen_method(method, self.noise, interpretation)
        self.setting = _SdeSetting(
            self.drift.program,
            self.diffusion.program,
            self.noise,
            interpretation,
            chosen,
            "dt" not in steps,
        )

    def _functions(self, sde: Any, names: dict[str, str]) -> list[TorchFunction]:
        """Drift and diffusion: of whole batches where noise is diagonal, else of one sample."""
        sample = self.y0 if self.noise == "diagonal" else self.y0[:1]
        examples = [torch.empty((), dtype=self.y0.dtype), sample]
        f, g = (
            getattr(sde, names.get(k, v), None) for k, v in (("drift", "f"), ("diffusion", "g"))
        )
        given, calls = [("f", f), ("g", g)], [_called, _called]
        if (f is None or g is None) and hasattr(sde, "f_and_g"):
            given, calls = [("f_and_g", sde.f_and_g)] * 2, [_first_of, _second_of]
        if self.logqp:
            h = getattr(sde, names.get("prior_drift", "h"), None)
            if f is None or g is None or h is None:
                raise AttributeError(
                    "If using logqp then drift, diffusion and prior drift must all be specified: "
                    "sde.f, sde.g and sde.h."
                )
            given, calls = [("f", (f, g, h)), ("g", g)], [_with_penalty, _with_zero]
        for name, function in given:
            if function is None:
                raise ValueError(
                    f"sde has no {name}(t, y): sde must define f and g, or f_and_g (g_prod is of "
                    "no use here)."
                )
        found = [
            torch_function(function, examples, name, call)
            for (name, function), call in zip(given, calls, strict=True)
        ]
        _check_shapes(found, sample, self.noise)
        return found

    def solved(self, bm: Any, params: list[torch.Tensor] | None = None) -> Any:
        """The answer in tensors."""
        seen = [*self.drift.tensors, *self.diffusion.tensors]
        if params is not None:
            kept = {id(x) for x in params}
            seen = [x if id(x) in kept else x.detach() for x in seen]
        operands = [self.y0, self.ts, *seen]
        extras = _seed(bm), self.steps
        function = partial(_paths, self.setting)
        with double_where(operands):
            (ys,), report = operation(self.setting.key, function)(extras, operands)
            report.check()
            count_calls([self.drift, self.diffusion], report.calls)
        if not self.logqp:
            return ys
        return ys[..., :-1], ys[..., -1].diff(dim=0)


def _called(f: Callable, t: torch.Tensor, y: torch.Tensor) -> Any:
    return f(t, y)


def _first_of(f: Callable, t: torch.Tensor, y: torch.Tensor) -> Any:
    return f(t, y)[0]


def _second_of(f: Callable, t: torch.Tensor, y: torch.Tensor) -> Any:
    return f(t, y)[1]


def _with_penalty(parts: tuple, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The drift, and beside it that of ½ ∫ |(f − h)/g|² dt. A g of almost 0 counts as 1e-7."""
    f, g, h = (part(t, y[:, :-1]) for part in parts)
    divisor = torch.where(g.detach().abs() > 1e-7, g, 1e-7 * g.sign())
    penalty = 0.5 * (((f - h) / divisor) ** 2).sum(dim=1, keepdim=True)
    return torch.cat([f, penalty], dim=1)


def _with_zero(g: Callable, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    noise = g(t, y[:, :-1])
    return torch.cat([noise, torch.zeros_like(noise[:, :1])], dim=1)


def _seed(bm: Any) -> int:
    """A number from torch's generator, or that of a Brownian motion of torchsde."""
    entropy = getattr(getattr(bm, "_interval", bm), "_entropy", None)
    if bm is not None and entropy is None:
        raise TypeError(
            f"bm is {bm!r}; None is wanted, and torch.manual_seed(…) for the same paths again, or "
            "a torchsde.BrownianInterval, whose entropy says which paths."
        )
    return drawn_seed(entropy)


# --- its program ----------------------------------------------------------------------------------


def _paths(setting: _SdeSetting, extras: PyTree, arrays: list) -> tuple[list, SolveReport]:
    """The program: the rows of all samples, and how it went."""
    y0, ts, *seen = arrays
    count = len(setting.drift.places)
    args = {"f": seen[:count], "g": seen[count:]}
    seed, steps = extras
    key = jax.random.key(seed)
    if setting.noise == "diagonal":
        sol = _solved_sde(setting, y0, ts, args, key, steps)
        return [sol.ys], report_of(sol)
    keys = jax.random.split(key, len(y0))
    sols = jax.vmap(lambda y, k: _solved_sde(setting, y, ts, args, k, steps))(y0, keys)
    return [jnp.moveaxis(sols.ys, 0, 1)], report_of(sols)


def _solved_sde(
    setting: _SdeSetting, y0: Array, ts: Array, args: PyTree, key: Array, steps: dict[str, Array]
) -> Solution:
    """The solution of all samples, or of one."""
    noise = {"additive": "general"}.get(setting.noise, setting.noise)
    one = setting.noise != "diagonal"

    def value(name: str, program: TorchProgram, t: Array, y: Array, args: PyTree) -> Array:
        found = program(args[name], t.astype(y.dtype), y[None] if one else y)
        found = (found[0] if one else found).astype(y.dtype)
        return found[..., 0] if name == "g" and noise == "scalar" else found

    problem = SDEProblem(
        partial(value, "f", setting.drift),
        partial(value, "g", setting.diffusion),
        y0,
        (ts[0], ts[-1]),
        args,
        noise=noise,
        additive=setting.noise == "additive",
        interpretation=setting.interpretation,
    )
    options: dict[str, Any] = {k: v for k, v in steps.items() if k != "dtmin"}
    if setting.adaptive:
        options["controller"] = MeanSquare(dtmin=steps["dtmin"])
    return solve(problem, setting.method, saveat=ts, key=key, throw=False, **options)


# --- checks ---------------------------------------------------------------------------------------


def _steps(adaptive: bool, **options: Any) -> dict[str, float]:
    """The options of `solve` that choose steps."""
    numbers = {name: non_negative(name, x) for name, x in options.items()}
    if numbers["dt"] == 0:
        raise ValueError(f"dt is {options['dt']!r}; a positive number is wanted.")
    if not adaptive:
        return {"dt": numbers["dt"]}
    return {
        "dt0": numbers["dt"],
        "rtol": numbers["rtol"],
        "atol": numbers["atol"],
        "dtmin": numbers["dt_min"],
    }


def _check_unset(**options: Any) -> None:
    for name, value in options.items():
        if value:
            raise ValueError(
                f"{name} is {value!r}, which has no meaning here: paths are differentiated as they "
                "were drawn, by methods without a state of their own. Leave it out."
            )


def _checked_types(sde: Any) -> tuple[str, str]:
    """The kinds of noise and of integral."""
    for name, kinds in (("noise_type", _NOISE_TYPES), ("sde_type", _SDE_TYPES)):
        if not hasattr(sde, name):
            raise ValueError(f"sde does not have the attribute {name}, one of {', '.join(kinds)}.")
        if getattr(sde, name) not in kinds:
            raise ValueError(
                f"sde.{name} is {getattr(sde, name)!r}; one of {', '.join(kinds)} is wanted."
            )
    return sde.noise_type, sde.sde_type


def _check_batch(y0: Any) -> None:
    if not isinstance(y0, torch.Tensor):
        raise ValueError(f"`y0` must be a torch.Tensor, and is {y0!r}.")
    check_numeric("y0", y0)
    if y0.ndim != 2:
        raise ValueError(
            f"`y0` must be a 2-dimensional tensor of shape (batch, channels), and has shape "
            f"{tuple(y0.shape)}: a single sample is y0[None]."
        )


def _checked_ts(ts: Any, y0: torch.Tensor) -> torch.Tensor:
    if not isinstance(ts, torch.Tensor):
        ts = torch.tensor(ts, dtype=y0.dtype)
    check_numeric("ts", ts)
    if ts.ndim != 1 or not bool((ts.detach().diff() > 0).all()):
        raise ValueError("Evaluation times `ts` must be strictly increasing.")
    if ts.requires_grad:
        raise ValueError(
            "ts cannot require gradient: a path is not differentiable in time. Give ts.detach()."
        )
    return ts


def _check_shapes(found: list[TorchFunction], sample: torch.Tensor, noise: str) -> None:
    f, g = (function.program.returned for function in found)
    wanted = tuple(sample.shape)
    if not isinstance(f, torch.Tensor) or tuple(f.shape) != wanted:
        raise ValueError(f"f returned {_shape_of(f)}; a tensor of shape {wanted} is wanted.")
    fits = isinstance(g, torch.Tensor) and tuple(g.shape[:2]) == wanted
    axes = 2 if noise == "diagonal" else 3
    if not fits or g.ndim != axes or (noise == "scalar" and g.shape[2] != 1):
        last = {"diagonal": "", "scalar": ", 1"}.get(noise, ", m")
        raise ValueError(
            f"g returned {_shape_of(g)}; with {noise} noise a tensor of shape "
            f"({wanted[0]}, {wanted[1]}{last}) is wanted."
        )


def _shape_of(x: Any) -> str:
    return f"a tensor of shape {tuple(x.shape)}" if isinstance(x, torch.Tensor) else repr(x)


def _chosen_method(method: Any, noise: str, interpretation: str) -> Method:
    if isinstance(method, Method):
        return method
    if method is None:
        if interpretation == "stratonovich":
            return EulerHeun()
        method = "euler" if noise == "general" else "srk"
    if method in _REFUSED:
        raise ValueError(
            f"method is {method!r}, which is not here: {_REFUSED[method]!r} is nearest to it, of "
            "the same order."
        )
    if method not in _METHODS:
        raise ValueError(
            f"Expected method in {list(_METHODS)} or a method of diffeq, such as de.SOSRI(), but "
            f"found {method!r}."
        )
    if method == "srk" and noise == "additive":
        return METHODS["SRA1"]()
    return _METHODS[method]
