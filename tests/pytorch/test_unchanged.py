"""A function that comes again is not read anew, and every change of it is seen."""

import gc
import importlib
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchdiffeq
from torch import nn

import diffeq as de
import diffeq.torch as dt
from diffeq.torch import functions

DOUBLE = torch.float64
TS = torch.linspace(0.0, 0.5, 5, dtype=DOUBLE)
Y0 = torch.tensor([[1.0, 0.3], [-0.4, 0.8]], dtype=DOUBLE)
SCALE = 1.0
RATES = torch.tensor([0.5, 2.0], dtype=DOUBLE)


def law(y: torch.Tensor) -> torch.Tensor:
    return torch.sin(y)


class Helper:
    """An object that is no module."""

    def __init__(self) -> None:
        self.power, self.terms = 3, [1.0, 0.5]

    def __call__(self, y: torch.Tensor) -> torch.Tensor:
        return self.terms[0] * y**self.power + sum(self.terms[1:])


class Other(Helper):
    def __call__(self, y: torch.Tensor) -> torch.Tensor:
        return -y


class Field(nn.Module):
    """A field that sees all kinds of things."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).to(DOUBLE)
        self.register_buffer("shift", torch.tensor([0.1, -0.2], dtype=DOUBLE))
        self.helper, self.table, self.extra = Helper(), {"gain": 0.7}, set()
        self.nfe, self.law = 0, law

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.nfe += 1
        out = self.net(y) * self.table["gain"] * SCALE - self.shift + 0.01 * self.helper(y)
        out = out + len(self.extra) + len(self._buffers) * self.law(t)
        return out * (2.0 if self.training else 1.0) * self.rate(t) * RATES

    def rate(self, t: torch.Tensor) -> torch.Tensor:
        return torch.cos(t)


def _wider(field: Field) -> None:
    field.net[0].weight.data = torch.full((6, 2), 0.3, dtype=DOUBLE)
    field.net[0].bias.data = torch.zeros(6, dtype=DOUBLE)
    field.net[2].weight.data = torch.full((2, 6), -0.2, dtype=DOUBLE)


CHANGES: dict[str, Callable[[Field, pytest.MonkeyPatch], object]] = {
    "a flag": lambda f, m: f.eval(),
    "a submodule": lambda f, m: setattr(f.net, "1", nn.Sigmoid()),
    "one more submodule": lambda f, m: f.net.append(nn.Softplus()),
    "a parameter": lambda f, m: setattr(
        f.net[0], "weight", nn.Parameter(torch.ones(4, 2, dtype=DOUBLE))
    ),
    "the numbers of a parameter": lambda f, m: f.net[0].weight.data.fill_(0.5),
    "the shapes of parameters": lambda f, m: _wider(f),
    "the type of a submodule": lambda f, m: setattr(f.net[1], "__class__", nn.Sigmoid),
    "a buffer": lambda f, m: setattr(f, "shift", torch.ones(2, dtype=DOUBLE)),
    "one more buffer": lambda f, m: f.register_buffer("more", torch.ones(1)),
    "a number of an object": lambda f, m: setattr(f.helper, "power", 2),
    "an item of a list": lambda f, m: f.helper.terms.append(0.25),
    "an item of a dictionary": lambda f, m: f.table.update(gain=0.9),
    "a set that was empty": lambda f, m: f.extra.add(1),
    "a function": lambda f, m: setattr(f, "law", torch.exp),
    "an object": lambda f, m: setattr(f, "helper", Other()),
    "the type of an object": lambda f, m: setattr(f.helper, "__class__", Other),
    "a method of the object": lambda f, m: setattr(f, "rate", lambda t: torch.exp(-t)),
    "a method of the class": lambda f, m: m.setattr(Field, "rate", lambda self, t: torch.exp(-t)),
    "a global number": lambda f, m: m.setitem(globals(), "SCALE", 2.0),
    "a global tensor": lambda f, m: m.setitem(globals(), "RATES", 3.0 * RATES),
    "a function's code": lambda f, m: m.setattr(law, "__code__", (lambda y: y * y).__code__),
    "a hook": lambda f, m: f.net.register_forward_hook(lambda module, given, out: 2 * out),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    field = Field()
    with torch.no_grad():
        for _ in range(2):
            before = dt.odeint(field, Y0, TS, method="rk4")
        CHANGES[change](field, monkeypatch)
        theirs, ours = (x.odeint(field, Y0, TS, method="rk4") for x in (torchdiffeq, dt))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert not torch.equal(ours, before)


def test_arrays_and_cells_are_seen_to_change() -> None:
    table, gain = np.array([1.0, 2.0]), 1.0
    field = lambda t, y: -gain * torch.from_numpy(table) * y
    for _ in range(2):
        dt.odeint(field, Y0, TS, method="rk4")
    for change in (lambda: table.__setitem__(0, 5.0), lambda: None):
        change()
        gain += 1.0
        theirs, ours = (x.odeint(field, Y0, TS, method="rk4") for x in (torchdiffeq, dt))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["module", "function", "method"])
def test_what_has_not_changed_is_not_read_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    field = Field()
    function = {"module": field, "method": field.forward, "function": lambda t, y: field(t, y)}[
        kind
    ]
    for _ in range(2):
        dt.odeint(function, Y0, TS, method="rk4")

    def refuse(*given: object) -> None:
        raise AssertionError("it was read again")

    monkeypatch.setattr(functions.TorchReader, "read", refuse)
    optimizer = torch.optim.SGD(field.parameters(), 0.1)
    counts = [field.nfe]
    for _ in range(2):
        dt.odeint(
            field.forward if kind == "method" else function, Y0, TS, method="rk4"
        ).sum().backward()
        optimizer.step()
        counts.append(field.nfe)
    assert np.diff(counts).tolist() == [16, 16]


def test_a_function_is_not_kept_alive() -> None:
    field = Field()
    for _ in range(2):
        dt.odeint(field, Y0, TS)
    kept = [weakref.ref(x) for x in (field, field.net[0].weight, field.helper)]
    del field
    gc.collect()
    assert [x() for x in kept] == [None] * 3


def test_a_computed_tensor_that_a_field_sees_is_not_kept() -> None:
    field = Field()
    field.shift = torch.ones(2, dtype=DOUBLE, requires_grad=True) * 2.0
    for _ in range(2):
        dt.odeint(field, Y0, TS)
    kept = weakref.ref(field.shift)
    field.shift = torch.zeros(2, dtype=DOUBLE)
    gc.collect()
    assert kept() is None


def test_a_solve_of_many_attempts_has_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    found, rate = [], torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)
    for few in (2**16, 4):
        monkeypatch.setattr(importlib.import_module("diffeq.torch.odeint"), "_FEW_ATTEMPTS", few)
        y = dt.odeint(lambda t, y: -rate * y, Y0, TS, rtol=1e-9)
        found.append([y.detach(), *torch.autograd.grad(y.sum(), rate)])
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)
    with pytest.raises(de.SolveError, match="max_steps attempts"):
        dt.odeint(lambda t, y: -rate * y, Y0, TS, rtol=1e-9, options={"max_num_steps": 5})
