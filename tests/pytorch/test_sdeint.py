"""`sdeint` with torchsde's signature: means and variances, gradients, paths of a seed."""
# ruff: noqa: E501

from collections.abc import Callable

import pytest
import torch
import torchsde
from torch import nn

import diffeq as de
import diffeq.torch as dt

DOUBLE = torch.float64
TS = torch.linspace(0.0, 1.0, 3, dtype=DOUBLE)


class Decay(nn.Module):
    """y' = −a y + 1/10 with noise of a kind, and the drift of a prior."""

    def __init__(self, noise: str, kind: str = "ito") -> None:
        super().__init__()
        self.noise_type, self.sde_type = noise, kind
        self.rate = nn.Parameter(torch.tensor(0.5, dtype=DOUBLE))
        self.scale = nn.Parameter(torch.tensor([[0.3, 0.1], [0.0, 0.2], [0.1, 0.1]], dtype=DOUBLE))

    def f(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -self.rate * y + 0.1

    def g(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        match self.noise_type:
            case "diagonal":
                return 0.3 * torch.sin(y)
            case "scalar":
                return 0.3 * torch.sin(y)[..., None]
            case "additive":
                return self.scale.expand(len(y), 3, 2)
        return self.scale * y[..., None]

    def h(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -0.2 * y


def moments(sdeint: Callable, noise: str, kind: str) -> list[torch.Tensor]:
    """Means, variances, and the gradient of their sum, of 4,096 paths."""
    torch.manual_seed(1)
    sde = Decay(noise, kind)
    y = sdeint(sde, torch.ones(4096, 3, dtype=DOUBLE), TS, dt=0.05)
    mean, variance = y.mean(1), y.var(1)
    (mean[-1].sum() + variance[-1].sum()).backward()
    return [mean.detach(), variance.detach(), sde.rate.grad]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(
    ("noise", "kind"),
    [
        ("diagonal", "ito"),
        *(
            pytest.param(noise, kind, marks=pytest.mark.thorough)
            for noise, kind in (
                ("scalar", "ito"),
                ("additive", "ito"),
                ("general", "ito"),
                ("diagonal", "stratonovich"),
                ("general", "stratonovich"),
            )
        ),
    ],
)
def test_moments_and_their_gradients_are_torchsdes(noise: str, kind: str) -> None:
    theirs, ours = (moments(library.sdeint, noise, kind) for library in (torchsde, dt))
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=0.025)


def test_a_seed_is_a_path_and_a_brownian_motion_too() -> None:
    sde, y0 = Decay("diagonal"), torch.ones(4, 3, dtype=DOUBLE)
    bm = torchsde.BrownianInterval(0.0, 1.0, size=(4, 3))

    def ends(bm: object = None, seed: int | None = None) -> torch.Tensor:
        if seed is not None:
            torch.manual_seed(seed)
        return dt.sdeint(sde, y0, TS, bm, "euler", 0.1)[-1]

    assert torch.equal(ends(seed=3), ends(seed=3))
    assert not torch.equal(ends(), ends())
    assert torch.equal(ends(bm), ends(bm))
    assert not torch.equal(ends(seed=3)[0], ends(seed=3)[1])  # each sample has its own noise


def seeded() -> torchsde.BrownianInterval:
    """The noise of 4,096 paths and of their penalty, the same in each run of the tests."""
    return torchsde.BrownianInterval(0.0, 1.0, size=(4096, 4), dtype=DOUBLE, entropy=1)


@pytest.mark.thorough
def test_the_log_ratio_penalty_is_torchsdes() -> None:
    found = []
    for library in (torchsde, dt):
        y, penalty = library.sdeint(
            Decay("diagonal"), torch.ones(4096, 3, dtype=DOUBLE), TS, seeded(), "euler", 0.05,
            logqp=True,
        )  # fmt: skip
        found.append([y.mean(1).detach(), penalty.mean(1).detach()])
    torch.testing.assert_close(*found, rtol=0.0, atol=0.02)


class Guided(nn.Module):
    """The posterior of torchsde's Lorenz example: its drift reads a row of a table at each time."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.GRU(3, 4, dtype=DOUBLE)
        self.net = nn.Linear(7, 3, dtype=DOUBLE)
        self.rows: torch.Tensor | None = None

    def f(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        assert self.rows is not None
        i = torch.searchsorted(TS, t, right=True).clamp(max=len(TS) - 1)
        return self.net(torch.cat([y, self.rows[i]], dim=1))

    def h(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return -y

    def g(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.full_like(y, 0.5)


def test_a_drift_reads_the_rows_of_an_encoder_and_trains_it() -> None:
    xs = torch.linspace(-1.0, 1.0, 3 * 4096 * 3, dtype=DOUBLE).reshape(3, 4096, 3)
    means, slopes = [], []
    for library in (torchsde, dt):
        sde = Guided()
        sde.rows = sde.encoder(xs)[0]
        y, penalty = library.sdeint(
            sde, torch.zeros(4096, 3, dtype=DOUBLE), TS, seeded(), "euler", 0.05, logqp=True
        )
        (y[-1].mean() + penalty.mean()).backward()
        means.append(torch.stack([y[-1].mean().detach(), penalty.mean().detach()]))
        slopes.append(sde.encoder.weight_hh_l0.grad / sde.encoder.weight_hh_l0.grad.norm())
    torch.testing.assert_close(*means, rtol=0.0, atol=0.03)
    torch.testing.assert_close(*slopes, rtol=0.0, atol=0.05)


@pytest.mark.thorough
def test_steps_are_controlled_and_parameters_chosen() -> None:
    sde, y0 = Decay("diagonal"), torch.ones(16, 3, dtype=DOUBLE, requires_grad=True)
    y = dt.sdeint_adjoint(sde, y0, TS, adaptive=True, dt=0.05, adjoint_params=())
    y[-1].mean().backward()
    assert sde.rate.grad is None
    assert y0.grad is not None
    assert abs(float(y.detach()[-1].mean()) - 0.685) < 0.1


def solved(
    sde: object, y0: object = torch.ones(2, 3), ts: object = TS, **options: object
) -> Callable:
    return lambda: dt.sdeint(sde, y0, ts, dt=0.1, **options)


class Bare:
    noise_type, sde_type = "diagonal", "ito"

    def f(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y


class Wrong(Bare):
    def g(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y[..., None]


CASES: dict[str, tuple[Callable, str]] = {
    "noise_type": (solved(object()), r"attribute noise_type.*diagonal"),
    "y0: one sample": (solved(Decay("diagonal"), torch.ones(3)), r"2-dimensional.*y0\[None\]"),
    "y0: whole numbers": (solved(Decay("diagonal"), torch.ones(2, 3).int()), r"`y0` must be a float"),
    "ts": (solved(Decay("diagonal"), ts=[0.0, 0.0]), r"strictly increasing"),
    "ts: gradient": (solved(Decay("diagonal"), ts=TS.clone().requires_grad_()), r"ts cannot require"),
    "bm": (solved(Decay("diagonal"), bm=3.0), r"manual_seed"),
    "method: not here": (solved(Decay("diagonal"), method="log_ode"), r"'heun' is nearest"),
    "method: unknown": (solved(Decay("diagonal"), method="rk"), r"Expected method.*found 'rk'"),
    "options": (solved(Decay("diagonal"), options={"a": 1}), r"options is"),
    "dt: zero": (lambda: dt.sdeint(Decay("diagonal"), torch.ones(2, 3), TS, dt=0.0), r"dt is 0\.0; a positive number"),
    "dt: backwards": (lambda: dt.sdeint(Decay("diagonal"), torch.ones(2, 3), TS, dt=-0.1), r"dt is -0\.1; a positive number"),
    "extra": (solved(Decay("diagonal"), extra=True), r"extra is True"),
    "g: missing": (solved(Bare()), r"sde has no g\(t, y\)"),
    "g: shape": (solved(Wrong()), r"g returned.*\(2, 3, 1\).*diagonal.*\(2, 3\)"),
    "logqp: no h": (solved(Wrong(), logqp=True), r"sde\.h"),
    "adjoint_method": (lambda: dt.sdeint_adjoint(Decay("diagonal"), torch.ones(2, 3), TS, adjoint_method="heun"), r"adjoint_method is"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str) -> None:
    call, message = CASES[case]
    with pytest.raises((TypeError, ValueError, AttributeError), match=f"(?s){message}"):
        call()


@pytest.mark.thorough
def test_methods_of_this_package() -> None:
    y = dt.sdeint(Decay("diagonal"), torch.ones(4, 3, dtype=DOUBLE), TS, method=de.SOSRI(), dt=0.1)
    assert bool(y.isfinite().all())
