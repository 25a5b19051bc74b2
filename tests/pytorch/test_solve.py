"""`diffeq.torch.solve` for problems of every kind, and the modules that solve."""
# ruff: noqa: E501

import io
import math

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import diffeq as de
import diffeq.torch as dt
from diffeq.torch import autograd

DOUBLE = torch.float64


def test_a_neural_ode_trains_like_any_module() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    node = dt.NeuralODE(net, (0.0, 1.0), saveat=torch.linspace(0.0, 1.0, 4), method=de.Tsit5())
    assert [name for name, _ in node.named_parameters()] == [
        f"net.{n}" for n, _ in net.named_parameters()
    ]
    optimizer, losses, programs = torch.optim.Adam(node.parameters(), 0.02), [], []
    data = torch.utils.data.DataLoader(torch.randn(16, 2), batch_size=8)
    for _ in range(3):
        for batch in data:
            optimizer.zero_grad()
            loss = ((node(batch).ys[-1] + batch) ** 2).mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
        programs.append(len(autograd._operations))
    assert losses[-1] < losses[0]
    assert programs[0] == programs[-1]
    raw = io.BytesIO()
    torch.save(node.state_dict(), raw)
    raw.seek(0)
    node.load_state_dict(torch.load(raw))
    with pytest.raises(TypeError, match=r"torch\.nn\.Module is wanted"):
        dt.NeuralODE(torch.tanh, (0.0, 1.0))


def test_a_delay_equation_reads_its_past() -> None:
    rate = torch.tensor(1.0, dtype=DOUBLE, requires_grad=True)
    start = torch.ones(1, dtype=DOUBLE)
    problem = de.DDEProblem(
        lambda t, y, past, args: -rate * past(t - 1.0),
        start,
        (0.0, 2.0),
        history=start,
        lags=(1.0,),
    )
    y1 = dt.solve(problem, de.Tsit5(), rtol=1e-9, atol=1e-10).y1
    y1.sum().backward()
    assert rate.grad is not None
    # 1 − 2k + k²/2 at t = 2
    np.testing.assert_allclose([y1.item(), rate.grad.item()], [-0.5, -1.0], rtol=1e-6)


@pytest.mark.thorough
def test_an_algebraic_equation_and_a_tree_of_tensors() -> None:
    """Y' = −k z with z = y, in a dictionary."""

    def residual(t: torch.Tensor, s: dict, args: dict) -> dict:
        return {"y": -args["k"] * s["z"], "z": s["z"] - s["y"]}

    k = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    start = {"y": torch.ones(1, dtype=DOUBLE), "z": torch.zeros(1, dtype=DOUBLE)}
    mass = {"y": torch.ones(1, dtype=DOUBLE), "z": torch.zeros(1, dtype=DOUBLE)}
    problem = de.DAEProblem(residual, start, (0.0, 1.0), {"k": k}, mass_matrix=mass)
    sol = dt.solve(problem, rtol=1e-8, atol=1e-10)
    sol.y1["y"].sum().backward()
    assert k.grad is not None
    np.testing.assert_allclose(
        [sol.y1["z"].item(), k.grad.item()], [np.exp(-0.7), -np.exp(-0.7)], rtol=1e-6
    )


def test_events_doses_and_steps() -> None:
    bounce = de.Event(lambda t, y, a: y[0], lambda t, y, a: torch.stack([0.0 * y[0], -a * y[1]]))
    restitution = torch.tensor(0.8, dtype=DOUBLE, requires_grad=True)
    fall = de.ODEProblem(
        lambda t, y, a: torch.stack([y[1], -9.81 + 0.0 * y[1]]),
        torch.tensor([10.0, 0.0], dtype=DOUBLE),
        (0.0, 3.0),
        restitution,
    )
    sol = dt.solve(fall, de.Tsit5(), events=(bounce, de.doses([0.5], [1.0], 0)), saveat="steps")
    first = sol.events[0]
    assert first.num == len(first.ts) == 1
    np.testing.assert_allclose(first.ts[0].item(), np.sqrt(2 * 11 / 9.81), rtol=1e-3)
    first.after[0, 1].backward()
    assert restitution.grad is not None
    assert restitution.grad > 10
    assert len(sol.ts) == len(sol.ys) == sol.stats["steps"] + 1


@pytest.mark.thorough
def test_a_stiff_problem_in_jax_is_the_same_in_torch() -> None:
    theirs = de.solve(
        de.ODEProblem(lambda t, y, m: jnp.array([y[1], m * (1 - y[0] ** 2) * y[1] - y[0]]), jnp.array([2.0, 0.0]), (0.0, 30.0), 20.0),
        de.Rodas5P(),
    ).y1  # fmt: skip
    ours = dt.solve(
        de.ODEProblem(lambda t, y, m: torch.stack([y[1], m * (1 - y[0] ** 2) * y[1] - y[0]]), torch.tensor([2.0, 0.0], dtype=DOUBLE), (0.0, 30.0), 20.0),
        de.Rodas5P(),
    ).y1  # fmt: skip
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-10)


@pytest.mark.thorough
def test_noise_and_jumps_come_from_torchs_generator() -> None:
    walk = de.SDEProblem(lambda t, y, a: -y, lambda t, y, a: 0.5 * y, torch.ones(3), (0.0, 1.0))
    ends = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        ends.append(dt.solve(walk, de.EulerMaruyama(), dt=0.1).y1)
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])
    jumps = de.JumpProblem(
        de.ODEProblem(lambda t, y, a: -y, torch.ones(1), (0.0, 1.0)),
        de.Jump(lambda t, y, a: 5.0 + 0.0 * y[0], lambda t, y, a: y + 1.0),
    )
    sol = dt.solve(jumps, de.Tsit5(), key=0)
    assert sol.y1.item() > 0.5


def test_refused() -> None:
    problem = de.ODEProblem(lambda t, y, a: -y, torch.ones(1), (0.0, 1.0))
    with pytest.raises(ValueError, match=r"dense is True.*saveat"):
        dt.solve(problem, dense=True)
    with pytest.raises(TypeError, match="a problem is wanted"):
        dt.solve(torch.tanh)
    with pytest.raises(TypeError, match="float32 or float64"):
        dt.solve(problem.replace(y0=torch.ones(1).half()))
    with pytest.raises(TypeError, match="draws random numbers"):
        dt.solve(de.ODEProblem(lambda t, y, a: torch.rand_like(y), torch.ones(1), (0.0, 1.0)))
    with pytest.raises(ValueError, match=r"rtol is .*-0\.001.*; positive numbers"):
        dt.solve(problem, rtol=torch.tensor([-1e-3]))
    with pytest.raises(TypeError, match=r"tspan is .*0\., 1\., 2\..*; a pair \(t0, t1\)"):
        dt.solve(problem.replace(tspan=torch.tensor([0.0, 1.0, 2.0])))
    with pytest.raises(ValueError, match=r"tspan is .*nan.*; finite times"):
        dt.solve(problem.replace(tspan=(0.0, torch.tensor(math.nan))))


def test_the_end_of_a_solve_has_its_derivative() -> None:
    speed = torch.tensor(2.0, requires_grad=True)
    rise = de.ODEProblem(lambda t, y, v: v, torch.zeros(()), (0.0, 5.0), speed)
    lands = de.Event(lambda t, y, v: y - 3.0, terminal=True)
    sol = dt.solve(rise, de.Tsit5(), events=(lands,))
    sol.t1.backward()
    np.testing.assert_allclose((sol.t1.item(), speed.grad), (1.5, -0.75), rtol=1e-5)
