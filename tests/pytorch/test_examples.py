"""torchdiffeq's and torchsde's examples, re-written, by one changed import."""

from types import ModuleType

import pytest
import torch
import torchdiffeq
import torchsde
from benchmarks import torch_bridge
from torch import nn

import diffeq.torch as dt

pytestmark = pytest.mark.thorough


def losses(step, count: int) -> list[float]:
    return [step() for _ in range(count)]


def test_ode_demo_has_the_same_losses() -> None:
    theirs, ours = (losses(torch_bridge.ode_demo(x.odeint), 5) for x in (torchdiffeq, dt))
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_an_epoch_of_the_digits_has_the_same_loss() -> None:
    (theirs, _), (ours, accuracy) = (
        torch_bridge.digits(x.odeint, channels=4) for x in (torchdiffeq, dt)
    )
    assert ours() == pytest.approx(theirs(), abs=5e-3)  # tolerances are 1e-3
    assert 0.0 <= accuracy() <= 1.0


def test_the_latent_sde_learns() -> None:
    ours = losses(torch_bridge.latent_sde(dt.sdeint), 30)
    theirs = losses(torch_bridge.latent_sde(torchsde.sdeint), 1)
    assert ours[0] == pytest.approx(theirs[0], rel=0.3)  # of other paths
    assert sum(ours[-5:]) < 0.7 * sum(ours[:5])


class Ball(nn.Module):
    """A ball whose gravity and restitution are to be found, and whose start is known."""

    def __init__(self, gravity: float, restitution: float) -> None:
        super().__init__()
        self.gravity = nn.Parameter(torch.tensor([gravity], dtype=torch.float64))
        self.restitution = nn.Parameter(torch.tensor([restitution], dtype=torch.float64))

    def forward(self, t: torch.Tensor, state: tuple) -> tuple:
        return state[1], -self.gravity

    def event(self, t: torch.Tensor, state: tuple) -> torch.Tensor:
        return state[0]

    def rows(self, library: ModuleType) -> torch.Tensor:
        """Heights after the first two bounces, at given times, and the times of these."""
        state = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        t, found = torch.zeros((), dtype=torch.float64), []
        for _ in range(2):
            t, rows = library.odeint_event(
                self, state, t, event_fn=self.event, atol=1e-8, rtol=1e-8
            )
            t = t.reshape(())
            state = rows[0][-1] + 1e-6, -self.restitution * rows[1][-1]
            times = t + torch.linspace(0.0, 0.1, 3, dtype=torch.float64)
            heights = library.odeint(self, state, times, atol=1e-8, rtol=1e-8)[0]
            found += [t.reshape(1), heights[:, 0]]
        return torch.cat(found)


def test_learn_physics_has_the_same_gradients() -> None:
    found = []
    for library in (torchdiffeq, dt):
        data = Ball(9.8, 0.8).rows(library).detach()
        ball = Ball(9.0, 0.7)
        loss = ((ball.rows(library) - data) ** 2).sum()
        loss.backward()
        found.append([loss.detach(), ball.gravity.grad, ball.restitution.grad])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_learn_physics_finds_the_constants() -> None:
    data, ball = Ball(9.8, 0.8).rows(dt).detach(), Ball(9.0, 0.7)
    optimizer = torch.optim.Adam(ball.parameters(), 0.03)
    for _ in range(120):
        optimizer.zero_grad()
        loss = ((ball.rows(dt) - data) ** 2).sum()
        loss.backward()
        optimizer.step()
    assert ball.gravity.item() == pytest.approx(9.8, abs=0.1)
    assert ball.restitution.item() == pytest.approx(0.8, abs=0.02)
