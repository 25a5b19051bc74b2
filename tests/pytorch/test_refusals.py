"""Bad input to `diffeq.torch`: each is refused by name, with the way out."""
# ruff: noqa: E501

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import diffeq.torch as dt

TS = torch.linspace(0.0, 1.0, 3)
Y0 = torch.ones(4, 2)


def solved(f: Callable, y0: object = Y0, t: object = TS, **options: object) -> Callable:
    return lambda: dt.odeint(f, y0, t, **options)


def decay(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return -y


class Keeps(nn.Module):
    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.last = y
        return y


class Called(nn.Module):
    callback_step = print

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y


norm, dropout, table = nn.BatchNorm1d(2), nn.Dropout(0.5), torch.ones(2)
single, half = nn.Linear(2, 2), nn.Linear(2, 2).half()

CASES: dict[str, tuple[Callable, str]] = {
    "y0: whole numbers": (solved(decay, Y0.int()), r"`y0` must be a floating point Tensor but is a torch\.IntTensor"),
    "y0: half precision": (solved(decay, Y0.half()), r"y0\.float\(\)"),
    "y0: a list": (solved(decay, [1.0]), r"a torch\.Tensor or a tuple"),
    "y0: on no device of JAX": (solved(decay, Y0.to("meta")), r"y0 is on meta, and JAX"),
    "t: goes up and down": (solved(decay, Y0, torch.tensor([0.0, 1.0, 0.5])), r"t must be strictly increasing or decreasing"),
    "t: a list": (solved(decay, Y0, [0.0, 1.0]), r"t must be a torch\.Tensor"),
    "t: two axes": (solved(decay, Y0, TS[None]), r"t must be one dimensional"),
    "event: times": (solved(decay, event_fn=lambda t, y: y.sum()), r"len\(t\) == 2"),
    "event: None": (
        lambda: dt.odeint_event(decay, Y0, torch.tensor(0.0), event_fn=lambda t, y: None), r"event_fn returned None; a tensor is wanted"
    ),
    "func: an array inside": (solved(lambda t, y: -y * np.ones(2)), r"torch\.from_numpy"),
    "event: none": (
        lambda: dt.odeint_event(decay, Y0, torch.tensor(0.0), event_fn=lambda t, y: torch.ones_like(t)), r"event_fn did not change its sign"
    ),
    "event: fixed steps": (solved(decay, t=TS[:2], method="rk4", event_fn=lambda t, y: y.sum()), r"step_size"),
    "method: unknown": (solved(decay, method="rk45"), r'Invalid method "rk45".*"dopri5".*de\.Tsit5'),
    "method: not here": (solved(decay, method="implicit_adams"), r"Adams–Moulton.*'rk4'"),
    "option: unknown": (solved(decay, options={"hmax": 1.0}), r"options has 'hmax'.*max_step"),
    "option: of another method": (solved(decay, options={"step_size": 0.1}), r"options has 'step_size'"),
    "option: perturb": (solved(decay, method="rk4", options={"perturb": True}), r"jump_t"),
    "option: norm": (solved(decay, options={"norm": "max"}), r"norm.* is 'max'; a function"),
    "option: rows of a norm": (
        solved(decay, options={"norm": torch.abs}), r"norm.* numbers of shape \(.*max\(\)"
    ),
    "argument: unknown": (solved(decay, tol=1.0), r"odeint got 'tol'"),
    "rtol: negative": (solved(decay, rtol=-1e-3), r"rtol is -0\.001; a positive number"),
    "rtol: None": (solved(decay, rtol=None), r"rtol is None; a positive number"),
    "atol: not a number": (solved(decay, atol=math.nan), r"atol is nan; a positive number"),
    "rtol: a tensor": (solved(decay, rtol=torch.tensor([1e-3, -1.0])), r"rtol is \[.*-1.*\]; positive numbers"),
    "atol: of a part": (solved(lambda t, y: (-y[0],), (Y0,), atol=(-1.0,)), r"atol is -1\.0; a positive number"),
    "options: a list": (solved(decay, options=[0.1]), r"options is \[0\.1\]; a dict is wanted"),
    "y0: of torch.func": (
        lambda: torch.func.vmap(lambda y: dt.odeint(decay, y, TS))(Y0), r"y0 has no numbers of its own.*as an axis of y0"
    ),
    "y0: of a derivative of torch.func": (
        lambda: torch.func.grad(lambda y: dt.odeint(decay, y, TS).sum())(Y0), r"y0 has no numbers of its own.*backward\(\)"
    ),
    "func: an array": (solved(lambda t, y: np.ones((4, 2))), r"func returned an array of NumPy"),
    "rtol: of another length": (solved(decay, rtol=(1e-3, 1e-3)), r"tupled rtol"),
    "func: a callback": (solved(Called()), r"func has callback_step"),
    "func: shape": (solved(lambda t, y: y[:, :1]), r"func returned of shape \(4, 1\).*\(4, 2\)"),
    "func: None": (solved(lambda t, y: None), r"func returned None"),
    "func: parts": (solved(lambda t, y: (y[0],), (Y0, Y0)), r"a tuple of 2"),
    "func: complex": (solved(lambda t, y: 1j * y), r"func returned complex"),
    "func: batch normalisation": (solved(lambda t, y: norm(y)), r"writes in place.*eval\(\)"),
    "func: dropout": (solved(lambda t, y: dropout(y)), r"draws random numbers.*eval\(\)"),
    "func: noise": (solved(lambda t, y: y + torch.randn_like(y)), r"draws random numbers.*sdeint"),
    "func: a branch": (solved(lambda t, y: y if t > 0.5 else -y), r"looks at the numbers.*torch\.where.*jump_t"),
    "func: item": (solved(lambda t, y: y * y.sum().item()), r"looks at the numbers"),
    "func: a mask": (solved(lambda t, y: y[y > 0]), r"looks at the numbers"),
    "func: writes to a global": (solved(lambda t, y: table.add_(1) * y), r"writes in place to a tensor of shape \(2,\)"),
    "func: keeps": (solved(Keeps()), r"writes to its attribute last"),
    "func: NumPy": (solved(lambda t, y: torch.tensor(y.numpy())), r"numpy"),
    "func: half precision": (solved(lambda t, y: half(y)), r"multiplies tensors of torch\.float16 and torch\.float32.*func\.float\(\)"),
    "func: another precision": (solved(lambda t, y: single(y), Y0.double()), r"multiplies tensors of .*float32.*y0\.double\(\)"),
    "func: an operation that JAX has not": (
        solved(lambda t, y: torch.special.airy_ai(y)), r"func uses aten\.special_airy_ai.*torchax"
    ),
    "adjoint: no parameters": (lambda: dt.odeint_adjoint(decay, Y0, TS), r"adjoint_params"),
    "adjoint: fixed steps": (
        lambda: dt.odeint_adjoint(decay, Y0, TS, method="rk4", adjoint_rtol=1e-3, adjoint_params=()), r"error control"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str) -> None:
    call, message = CASES[case]
    with pytest.raises((TypeError, ValueError, RuntimeError), match=f"(?s){message}"):
        call()


def test_nothing_was_written() -> None:
    assert int(norm.num_batches_tracked) == 0  # pyright: ignore[reportArgumentType]
    assert torch.equal(table, torch.ones(2))
    assert "last" not in vars(Keeps())


def test_versions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffeq.torch import versions

    monkeypatch.setattr(versions.importlib.metadata, "version", lambda name: "2.15.0")
    with pytest.raises(ImportError, match=r"torch 2\.11 or newer, below 2\.13.*there is 2\.15"):
        versions.check_versions()
