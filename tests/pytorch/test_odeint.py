"""`odeint` with torchdiffeq's signature: its numbers, gradients and events, by one import."""

import copy
import gc
import io
import weakref
from types import ModuleType

import pytest
import torch
import torchdiffeq
from torch import nn

import diffeq as de
import diffeq.torch as dt
from diffeq.torch import autograd

DOUBLE = torch.float64
TS = torch.linspace(0.0, 1.0, 5, dtype=DOUBLE)
LIBRARIES = (torchdiffeq, dt)


class Field(nn.Module):
    """A field with a network, a buffer, a plain tensor and a counter of its calls."""

    def __init__(self, dtype: torch.dtype = DOUBLE) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(2, 8, dtype=dtype), nn.Tanh(), nn.Linear(8, 2, dtype=dtype)
        )
        self.register_buffer("shift", torch.tensor([0.1, -0.2], dtype=dtype))
        self.plain = torch.tensor(0.5, dtype=dtype, requires_grad=True)
        self.nfe = 0

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.nfe += 1
        return self.net(y**3) * torch.cos(t) + self.plain * (y - self.shift)


def compiled() -> int:
    """How many programs `odeint` has."""
    return sum(
        op.value._cache_size() + op.with_pullback._cache_size()  # pyright: ignore[reportFunctionMemberAccess]
        for op in autograd._operations.values()
    )


def close(a: object, b: object, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance)


def gradients(library: ModuleType, **options: object) -> list[torch.Tensor]:
    """Rows, and the gradients by y0, t, parameters and a plain tensor."""
    field, y0 = Field(), torch.tensor([[1.0, 0.3], [-0.4, 0.8]], dtype=DOUBLE, requires_grad=True)
    t = TS.clone().requires_grad_()
    y = library.odeint(field, y0, t, **options)
    (y**2).sum().backward()
    return [y.detach(), *(x.grad for x in (y0, t, field.plain, *field.parameters()))]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(
    "method",
    ["dopri5", *(pytest.param(m, marks=pytest.mark.thorough) for m in ("dopri8", "bosh3"))],
)
def test_controlled_steps_give_torchdiffeqs_gradients(method: str) -> None:
    theirs, ours = (gradients(x, method=method) for x in LIBRARIES)
    by_t = 2
    # By t a row has the slope of the interpolant: that of torchdiffeq's bosh3 is off by half a
    # percent, while ours is the field's, and torchdiffeq's at tolerances of 1e-10.
    close(theirs.pop(by_t), ours.pop(by_t), 1e-2 if method == "bosh3" else 1e-4)
    close(theirs, ours, 1e-4)  # torchdiffeq differentiates its first step, too


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("rk4", None),
        *(
            pytest.param(method, options, marks=pytest.mark.thorough)
            for method, options in (
                ("euler", None),
                ("heun3", {"step_size": 0.07}),
                ("midpoint", {"step_size": 0.1}),
                ("heun2", {"step_size": 0.1, "interp": "cubic"}),
            )
        ),
    ],
)
def test_given_steps_give_torchdiffeqs_numbers_to_rounding(method: str, options: dict) -> None:
    theirs, ours = (gradients(x, method=method, options=options) for x in LIBRARIES)
    loose = options is not None and options.get("interp") == "cubic"  # by the slopes of the steps
    close(theirs, ours, 1e-3 if loose else 1e-12)


@pytest.mark.parametrize(
    "options",
    [{"right": True}, {"side": "left", "out_int32": True}, {"sorter": torch.tensor([2, 0, 1])}],
    ids=str,
)
def test_a_table_is_searched(options: dict) -> None:
    knots = torch.tensor([0.5, 0.9, 0.2] if "sorter" in options else [0.2, 0.5, 0.9])
    heights = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=DOUBLE, requires_grad=True)
    slopes = []
    for library in LIBRARIES:
        field = lambda t, y: heights[torch.searchsorted(knots, t.float(), **options)] * y
        y = library.odeint(field, torch.ones((), dtype=DOUBLE), TS, method="rk4")
        slopes.append(torch.autograd.grad(y[-1], heights)[0])
    close(*slopes, 1e-12)


def test_rows_of_tables_are_searched() -> None:
    knots = torch.tensor([[0.2, 0.5, 0.9], [0.1, 0.3, 2.0]], dtype=DOUBLE)
    ends = []
    for library in LIBRARIES:
        field = lambda t, y: torch.searchsorted(knots, y, right=True).to(DOUBLE) - 1.5
        ends.append(library.odeint(field, 0.4 * torch.ones(2, 2, dtype=DOUBLE), TS, method="rk4"))
    close(*ends, 1e-12)


class Weighted:
    """A norm that sees a tensor, and that leaves out what a solve is not asked for."""

    def __init__(self, weights: list[float]) -> None:
        self.weights = torch.tensor(weights, dtype=DOUBLE)

    def __call__(self, errors: torch.Tensor) -> torch.Tensor:
        return (self.weights * errors).abs().max()


def stiffer(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.stack([-y[0], 20.0 * (torch.cos(9.0 * t) - y[1])])


def test_errors_are_measured_by_the_norm_that_is_given() -> None:
    exact, ends = torch.exp(-TS[-1]), {}
    for weights in ([1.0, 1.0], [1.0, 0.0], [1e-4, 0.0]):
        y = dt.odeint(
            stiffer, torch.ones(2, dtype=DOUBLE), TS, rtol=1e-5, atol=1e-8,
            options={"norm": Weighted(weights)},
        )  # fmt: skip
        ends[tuple(weights)] = float((y[-1, 0] - exact).abs())
    assert ends[1.0, 1.0] < ends[1.0, 0.0] < 1e-5 < ends[1e-4, 0.0]


def test_the_norm_of_a_tuple_gets_its_parts_and_compiles_once() -> None:
    largest = lambda errors: torch.maximum(errors[0].abs().max(), errors[1].abs().max())
    y0 = torch.ones(2, dtype=DOUBLE), torch.zeros((), dtype=DOUBLE)
    field = lambda t, y: (-y[0], y[0].sum() - y[1])
    solved = lambda library: library.odeint(
        field, y0, TS, rtol=1e-8, atol=1e-8, options={"norm": largest}
    )
    close(solved(torchdiffeq), solved(dt), 1e-7)
    count = compiled()
    solved(dt)
    assert compiled() == count


class VanDerPol(nn.Module):
    """A field whose class, and not its instance, begins to count."""

    nfe = 0

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.nfe += 1
        return torch.stack([y[1], 2 * (1 - y[0] ** 2) * y[1] - y[0] + 0.1 * torch.sin(t)])


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7])
def test_dopri5_takes_as_many_evaluations_as_torchdiffeqs(tolerance: float) -> None:
    counts, ends = [], []
    for library in LIBRARIES:
        field = VanDerPol()
        t = torch.tensor([0.0, 10.0], dtype=DOUBLE)
        y0 = torch.tensor([2.0, 0.0], dtype=DOUBLE)
        ends.append(library.odeint(field, y0, t, rtol=tolerance, atol=tolerance)[-1])
        counts.append(field.nfe)
    # torchdiffeq goes beyond the last time, and lets a step grow that follows a rejected one.
    assert 0.88 * counts[0] < counts[1] < 1.05 * counts[0]
    close(*ends, 100 * tolerance)


@pytest.mark.thorough
def test_low_orders_are_theirs() -> None:
    rates = {}
    for library in LIBRARIES:
        for method in ("fehlberg2", "adaptive_heun"):
            y = library.odeint(
                lambda t, y: -y,
                torch.ones(2, dtype=DOUBLE),
                TS,
                method=method,
                rtol=1e-5,
                atol=1e-6,
            )
            rates[library.__name__, method] = float((y[-1] - torch.exp(-TS[-1])).abs().max())
    assert max(rates.values()) < 1e-3


def test_a_training_step_compiles_once_and_counts_calls() -> None:
    field, optimizer = Field(torch.float32), None
    optimizer = torch.optim.Adam(field.parameters(), 0.01)
    losses, programs = [], []
    for _ in range(4):
        optimizer.zero_grad()
        loss = dt.odeint(field, torch.ones(3, 2), TS.float()).abs().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        programs.append(compiled())
    assert losses[-1] < losses[0]
    assert programs[0] == programs[-1]
    assert 20 < field.nfe / 4 < 400


def test_a_module_that_torch_compiles_is_the_module() -> None:
    field, y0 = Field(), torch.ones(3, 2, dtype=DOUBLE)
    rows, count = dt.odeint(field, y0, TS), compiled()
    close(dt.odeint(torch.compile(field, backend="eager"), y0, TS), rows, 0.0)
    assert compiled() == count
    inside = torch.compile(field.net, backend="eager")
    opened = dt.odeint(lambda t, y: inside(y), y0, TS)
    close(opened, dt.odeint(lambda t, y: field.net(y), y0, TS), 0.0)


@pytest.mark.filterwarnings(
    r"ignore:The \.grad attribute of a Tensor"
)  # the compiler of torch asks
def test_a_function_that_torch_compiles_may_solve() -> None:
    field, y0 = Field(), torch.ones(2, dtype=DOUBLE)

    def end(y: torch.Tensor) -> torch.Tensor:
        return 2 * dt.odeint(field, torch.sin(y), TS)[-1]

    found, wanted = torch.compile(end, backend="eager")(y0), end(y0)
    close(found, wanted, 0.0)
    weight = field.net[0].weight
    gradients = [torch.autograd.grad(y.sum(), weight)[0] for y in (found, wanted)]
    close(*gradients, 0.0)
    node = dt.NeuralODE(nn.Linear(2, 2, dtype=DOUBLE), (0.0, 1.0))
    close(torch.compile(node, backend="eager")(y0).y1, node(y0).y1, 0.0)


def test_products_in_half_precision_have_gradients() -> None:
    module, y0, ts = nn.Linear(2, 2).bfloat16(), torch.ones(4, 2), TS.float()
    weight, bias = (x.detach().float().requires_grad_() for x in module.parameters())
    dt.odeint(lambda t, y: module(y.bfloat16()).float(), y0, ts).sum().backward()
    dt.odeint(lambda t, y: nn.functional.linear(y, weight, bias), y0, ts).sum().backward()
    for x, single in zip(module.parameters(), (weight, bias), strict=True):
        assert x.grad.dtype == torch.bfloat16
        close(single.grad, x.grad.float(), 0.05)


def test_a_tuple_compiles_once() -> None:
    y0, counts = (torch.ones(2, dtype=DOUBLE), torch.ones(1, dtype=DOUBLE)), []
    for _ in range(2):
        dt.odeint(lambda t, y: (-y[0], y[1] * t), y0, TS)
        counts.append(len(autograd._operations))
    assert counts[0] == counts[1]


def test_a_fresh_lambda_and_another_module_are_the_same_program() -> None:
    y0, before = torch.ones(2, dtype=DOUBLE), None
    for scale in (1.0, 2.0):
        field, w = copy.deepcopy(Field()), torch.tensor(scale, dtype=DOUBLE, requires_grad=True)
        y = dt.odeint(lambda t, y: -w * field(t, y), y0, TS)  # noqa: B023
        y.sum().backward()
        assert w.grad is not None
        assert field.net[0].weight.grad is not None
        before = before or compiled()
    assert before == compiled()


def test_a_flag_a_number_and_a_function_are_read_again() -> None:
    class Gain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain, self.law = 1.0, torch.sin

        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.gain * self.law(y) * (2.0 if self.training else 1.0)

    field, y0 = Gain(), torch.ones(1, dtype=DOUBLE)

    def check() -> None:
        theirs, ours = (x.odeint(field, y0, TS, method="rk4") for x in LIBRARIES)
        close(theirs, ours, 1e-12)

    check()
    field.gain = 3.0
    check()
    field.eval()
    check()
    field.law = torch.cos
    check()


def test_tuples_and_decreasing_times_and_a_tolerance_for_each_part() -> None:
    rows = []
    for library in LIBRARIES:
        y0 = (torch.ones(3, dtype=DOUBLE, requires_grad=True), torch.zeros(2, 2, dtype=DOUBLE))
        y, z = library.odeint(
            lambda t, s: (-s[0] * t, s[1] + s[0].sum()),
            y0,
            TS.flip(0),
            rtol=(1e-8, 1e-6),
            atol=1e-9,
        )
        (y.sum() + z[-1].sum()).backward()
        rows.append([y.detach(), z.detach(), y0[0].grad])
    close(*rows)


def test_single_precision_stays_single_and_double_double() -> None:
    y = dt.odeint(lambda t, y: -y * t, torch.ones(2), TS.float())
    z = dt.odeint(lambda t, y: -y * t, torch.ones(2), TS)
    assert y.dtype == z.dtype == torch.float32
    assert dt.odeint(lambda t, y: -y, torch.ones(2, dtype=DOUBLE), TS).dtype == DOUBLE


def test_complex_states_have_torchs_gradients() -> None:
    found = []
    for library in LIBRARIES:
        w = torch.tensor(1.0 + 0.5j, dtype=torch.complex128, requires_grad=True)
        y = library.odeint(lambda t, y, w=w: w * y, torch.ones(2, dtype=torch.complex128), TS)
        (y[-1].abs().sum() + y[-1].imag.sum()).backward()
        found.append([y.detach(), w.grad])
    close(*found)


def test_second_derivatives() -> None:
    w = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
    end = dt.odeint(lambda t, y: -w * y**2, torch.ones(1, dtype=DOUBLE), TS, rtol=1e-9)[-1, 0]
    derivatives = [end]
    for _ in range(2):
        derivatives.append(torch.autograd.grad(derivatives[-1], w, create_graph=True)[0])
    exact = [1 / 1.7, -1 / 1.7**2, 2 / 1.7**3]
    close(torch.tensor(exact, dtype=DOUBLE), torch.stack(derivatives).detach(), 1e-6)


def test_a_trace_of_a_jacobian_inside_of_the_field() -> None:
    """The continuous normalising flow of torchdiffeq's examples, with autograd in its field."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()

    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, t: torch.Tensor, states: tuple) -> tuple:
            z = states[0]
            with torch.set_grad_enabled(True):
                z.requires_grad_(True)
                dz = self.net(z) * t
                rows = (
                    torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i]
                    for i in (0, 1)
                )
                trace = sum(rows)
            return dz, -trace.view(len(z), 1)

    found = []
    for library in LIBRARIES:
        net.zero_grad()
        start = (torch.linspace(-1, 1, 6, dtype=DOUBLE).view(3, 2), torch.zeros(3, 1, dtype=DOUBLE))
        z, log_density = library.odeint(Flow(), start, TS.flip(0), rtol=1e-8, atol=1e-8)
        ((z[-1] ** 2).sum() + log_density[-1].sum()).backward()
        found.append(
            [z.detach(), log_density.detach(), *(p.grad for p in list(net.parameters())[:3])]
        )
        found[-1] = [x.clone() for x in found[-1]]
    close(*found)


def test_what_torch_does_not_differentiate_is_not_differentiated() -> None:
    found = []
    for library in LIBRARIES:
        w = torch.tensor([0.7, 0.2], dtype=DOUBLE, requires_grad=True)

        def field(t: torch.Tensor, y: torch.Tensor, w: torch.Tensor = w) -> torch.Tensor:
            with torch.no_grad():
                constant = torch.tanh(w * y)
            z = torch.zeros_like(y)
            z[:, 0] = y[:, 1]
            z += 0.1
            return -w * y + constant + (w * y).detach() + z * torch.linspace(0, 1, 2, dtype=DOUBLE)

        y = library.odeint(field, torch.ones(3, 2, dtype=DOUBLE), TS, method="rk4")
        y.sum().backward()
        found.append([y.detach(), w.grad])
    close(*found, 1e-12)


@pytest.mark.thorough
def test_convolutions_are_torchs() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2),
        nn.GroupNorm(2, 4),
        nn.Softplus(),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2),
        nn.ConvTranspose2d(4, 2, 3, padding=1, stride=2, output_padding=1, groups=2),
    ).double()
    found = []
    for library in LIBRARIES:
        net.zero_grad()
        start = torch.linspace(-1, 1, 144, dtype=DOUBLE).view(2, 2, 6, 6)
        y = library.odeint(lambda t, y: net(y), start, TS, method="midpoint")
        y.sum().backward()
        found.append([y.detach(), *(p.grad.clone() for p in net.parameters())])  # pyright: ignore[reportOptionalMemberAccess]
    close(*found, 1e-10)


# --- adjoint and events ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"adjoint_rtol": 1e-9, "adjoint_atol": 1e-11},
        pytest.param({"adjoint_options": {"norm": "seminorm"}}, marks=pytest.mark.thorough),
    ],
)
def test_odeint_adjoint_gives_the_gradients_that_are_asked_for(options: dict) -> None:
    found = []
    for library in LIBRARIES:
        field, y0 = Field(), torch.ones(2, 2, dtype=DOUBLE, requires_grad=True)
        wanted = (field.net[0].weight,)
        y = library.odeint_adjoint(field, y0, TS, adjoint_params=wanted, **options)
        (y**2).sum().backward()
        assert field.net[2].weight.grad is None
        assert field.plain.grad is None
        found.append([y.detach(), y0.grad, wanted[0].grad])
    close(*found, 1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"reverse_time": True}, marks=pytest.mark.thorough),
        pytest.param({"method": "rk4", "options": {"step_size": 0.01}}, marks=pytest.mark.thorough),
    ],
)
def test_an_event_has_its_time_state_and_gradients(options: dict) -> None:
    found = []
    for library in LIBRARIES:
        y0 = torch.tensor([10.0, 0.0], dtype=DOUBLE, requires_grad=True)
        g = torch.tensor(9.81, dtype=DOUBLE, requires_grad=True)
        t0 = torch.tensor(0.3, dtype=DOUBLE)
        t, y = library.odeint_event(
            lambda t, y, g=g: torch.stack([y[1], -g]),
            y0,
            t0,
            event_fn=lambda t, y: y[0],
            **options,
        )
        (t + y[-1].sum()).backward()
        found.append([t.detach(), y.detach(), y0.grad, g.grad])
    close(*found, 1e-4 if "method" in options else 1e-7)


def bounces(library: ModuleType) -> list[torch.Tensor]:
    """Times and heights of a bouncing ball, from a module that is solved again and again."""

    class Ball(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gravity = nn.Parameter(torch.tensor(9.8, dtype=DOUBLE))
            self.restitution = nn.Parameter(torch.tensor(0.8, dtype=DOUBLE))
            self.radius = nn.Parameter(torch.tensor(0.3, dtype=DOUBLE))

        def forward(self, t: torch.Tensor, state: tuple) -> tuple:
            _, velocity, radius = state
            return velocity, -self.gravity.expand_as(velocity), torch.zeros_like(radius)

        def event(self, t: torch.Tensor, state: tuple) -> torch.Tensor:
            return state[0] - state[2]

    ball, t = Ball(), torch.zeros(1, dtype=DOUBLE)
    state = (
        torch.tensor([3.0], dtype=DOUBLE),
        torch.zeros(1, dtype=DOUBLE),
        ball.radius.reshape(1),
    )
    times = []
    for _ in range(3):
        t, rows = library.odeint_event(
            ball, state, t.reshape(()), event_fn=ball.event, atol=1e-8, rtol=1e-8
        )
        height, velocity, radius = (x[-1] for x in rows)
        state = (height + 1e-7, -velocity * ball.restitution, radius)
        times.append(t.reshape(()))
    loss = torch.stack(times).sum() + state[1].sum()
    loss.backward()
    return [torch.stack(times).detach(), *(p.grad for p in ball.parameters())]  # pyright: ignore[reportReturnType]


@pytest.mark.thorough
def test_the_bouncing_ball() -> None:
    close(bounces(torchdiffeq), bounces(dt), 1e-5)


# --- as torch has it ------------------------------------------------------------------------------


def test_no_grad_memory_and_pickling() -> None:
    field = Field()
    with torch.no_grad():
        y = dt.odeint(field, torch.ones(2, dtype=DOUBLE), TS)
    assert not y.requires_grad
    y.add_(1.0)  # a tensor of its own
    kept = weakref.ref(field)
    raw = io.BytesIO()
    torch.save(field.state_dict(), raw)
    raw.seek(0)
    other = Field()
    other.load_state_dict(torch.load(raw))
    other.plain.data.fill_(0.25)
    assert not torch.equal(dt.odeint(other, torch.ones(2, dtype=DOUBLE), TS), y - 1)
    del field
    gc.collect()
    assert kept() is None


def test_a_tensor_that_was_written_to_since_is_named_by_torch() -> None:
    w = torch.ones(2, dtype=DOUBLE, requires_grad=True)
    y = dt.odeint(lambda t, y: -w * y, torch.ones(2, dtype=DOUBLE), TS)
    with torch.no_grad():
        w.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_methods_of_this_package_and_jumps() -> None:
    stiff = dt.odeint(
        lambda t, y: -1e4 * (y - torch.cos(t)),
        torch.zeros(1, dtype=DOUBLE),
        TS,
        method=de.Rodas5P(),
    )
    close(torch.cos(TS[1:]), stiff[1:, 0].detach(), 2e-4)
    jump = {"jump_t": torch.tensor([0.5], dtype=DOUBLE)}
    y = dt.odeint(
        lambda t, y: torch.where(t < 0.5, -y, y), torch.ones(1, dtype=DOUBLE), TS, options=jump
    )
    close(torch.exp(torch.tensor([-0.0, -0.25, -0.5, -0.25, 0.0], dtype=DOUBLE)), y[:, 0])


def test_a_failed_solve_says_where() -> None:
    with pytest.raises(de.SolveError, match=r"at t = 1"):
        dt.odeint(lambda t, y: y**2, torch.ones(1, dtype=DOUBLE), 2 * TS)
