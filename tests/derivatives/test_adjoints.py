"""Every adjoint against `Discrete`, against closed forms, and against the traps it is there for."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq import adjoint as adjoints

REVERSE = {
    "Gauss": de.Gauss(),
    "Quadrature": de.Quadrature(),
    "Interpolating": de.Interpolating(),
    "Backsolve": de.Backsolve(checkpoints=16),
}
EACH = pytest.mark.parametrize("name", REVERSE)
FEW = pytest.mark.parametrize("name", ["Gauss", "Backsolve"])  # the tape's march, and the other

TS = jnp.array([0.0, 0.2, 0.5, 0.5, 1.0])
A = jnp.array([1.3, 0.4])
Y0 = jnp.array([0.8, -0.2])
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def field(t, y, a):
    return jnp.stack([y[1] * a[0], -a[0] * jnp.sin(y[0]) + a[1] * jnp.cos(t) * y[1] ** 2])


def measure(ys):
    return jnp.sum(jnp.sin(ys * jnp.arange(1.0, 1 + ys.size).reshape(ys.shape)))


def close(found, wanted, rtol=1e-6, atol=1e-7):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def loss(x, adjoint, save=None, method=None, **options):
    """Of (args, y0, t0, t1, save times), through rows and the end."""
    a, y0, t0, t1, ts = x
    sol = de.solve(
        de.ODEProblem(field, y0, (t0, t1), a), method or de.Tsit5(), saveat=ts, save=save,
        adjoint=adjoint, **(options or TIGHT),
    )  # fmt: skip
    return measure(sol.ys) + sol.y1[0] ** 2


X = (A, Y0, jnp.array(0.0), jnp.array(1.0), TS)


# --- the continuous adjoints ----------------------------------------------------------------------


@EACH
def test_by_every_input(name):
    """Args, y0, both ends and save times (two of which are the ends, and two the same)."""
    gradient = lambda adjoint: jax.jit(jax.grad(lambda x: loss(x, adjoint)))(X)
    close(gradient(REVERSE[name]), gradient(de.Discrete()), rtol=1e-5, atol=1e-6)


@FEW
def test_through_save_functions_and_several_rows(name):
    def total(x, adjoint):
        a, y0, t1 = x
        sol = de.solve(
            de.ODEProblem(field, y0, (0.0, t1), a), de.Tsit5(), adjoint=adjoint, **TIGHT,
            saveat={"few": jnp.array([0.1, 0.7]), "end": None},
            save={"few": lambda t, y, a: {"x": t**2 * y * a, "n": 1}},
        )  # fmt: skip
        return measure(sol.ys["few"]["x"]) + measure(sol.ys["end"])

    gradient = lambda adjoint: jax.jit(jax.grad(lambda x: total(x, adjoint)))((A, Y0, 1.0))
    close(gradient(REVERSE[name]), gradient(de.Discrete()))


def decay(k, adjoint, t1=1.0, **options):
    problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, t1), k)
    return de.solve(problem, de.Tsit5(), adjoint=adjoint, **(options or TIGHT)).y1


@pytest.mark.parametrize("adjoint", [*REVERSE.values(), de.Forward()], ids=repr)
def test_in_closed_form(adjoint):
    """∂(k, T) of e^(−kT) is −(T, k) e^(−kT)."""
    mode = jax.jacfwd if isinstance(adjoint, de.Forward) else jax.jacrev
    found = jax.jit(mode(lambda k, t1: decay(k, adjoint, t1), argnums=(0, 1)))(2.0, 0.7)
    close(found, [-0.7 * np.exp(-1.4), -2.0 * np.exp(-1.4)], rtol=1e-7)


def jumping(t, y, a):
    return jnp.where(t < a, jnp.cos(3 * t), -t) * y + t


def with_stops(s, adjoint, tspan=(0.0, 1.0)):
    problem = de.ODEProblem(jumping, 1.0, tspan, s)
    ts = jnp.array([0.2, 0.45, 0.9])[:: 1 if tspan[1] else -1]
    sol = de.solve(problem, de.Tsit5(), stops=s[None], saveat=ts, adjoint=adjoint, **TIGHT)
    return measure(sol.ys)


def turning(x, adjoint):
    return loss((*x, jnp.array(1.0), jnp.array(0.1), jnp.array([1.0, 0.7, 0.1])), adjoint)


def complex_state(a, adjoint):
    rates = lambda t, y, a: (1j * a[0] - a[1]) * y + 0.1 * jnp.conj(y) + a[2] * jnp.sin(y[::-1])
    problem = de.ODEProblem(rates, jnp.array([0.8 + 0.3j, -0.2]), (0.0, 1.0), a)
    ys = de.solve(problem, de.Tsit5(), saveat=jnp.array([0.3, 0.9]), adjoint=adjoint, **TIGHT).ys
    return jnp.sum(jnp.abs(ys) ** 2)


def motion(x, adjoint):
    problem = de.SecondOrderProblem(
        lambda t, x, v, a: -a * jnp.sin(x), x[0], x[1], (0.0, 2.0), x[2]
    )
    sol = de.solve(problem, de.DPRKN6(), saveat=jnp.array([1.0, 2.0]), adjoint=adjoint, **TIGHT)
    return jnp.sum(sol.ys[0] ** 2)


NET = eqx.nn.MLP(2, 2, 8, 1, jnp.tanh, key=jax.random.key(0))


def network(weights, adjoint):
    """In a layer, by its weights, with a tree as the state."""
    net = eqx.combine(weights, eqx.partition(NET, eqx.is_array)[1])

    def rates(net, t, y, args):
        dy = net(jnp.stack([y["x"], y["z"][0]]))
        return {"x": dy[0], "z": (dy[1] - y["z"][0],)}

    layer = de.nn.Layer(
        net, tspan=(0.0, 1.0), field=rates, saveat=jnp.array([0.5, 1.0]), adjoint=adjoint, **TIGHT
    )
    ys = layer({"x": 1.0, "z": (0.5,)}).ys
    return jnp.sum(ys["x"] ** 2 + ys["z"][0])


KINDS = {
    "a time at which the field jumps": (with_stops, jnp.array(0.5)),
    "that, backwards": (lambda s, adjoint: with_stops(s, adjoint, (1.0, 0.0)), jnp.array(0.5)),
    "backwards, by args and y0": (turning, (A, Y0)),
    "a complex state, real args": (complex_state, jnp.array([1.3, 0.4, 0.1])),
    "a complex state, complex args": (complex_state, jnp.array([1.3 + 0.1j, 0.4, 0.1])),
    "positions and speeds": (motion, (jnp.array([1.0, 0.2]), jnp.array([0.0, 0.1]), 1.3)),
    "a network in a layer": (network, eqx.filter(NET, eqx.is_array)),
}


@pytest.mark.parametrize("kind", KINDS)
@FEW
def test_kinds_of_problems(name, kind):
    total, x = KINDS[kind]
    gradient = lambda adjoint: jax.jit(jax.grad(lambda x: total(x, adjoint)))(x)
    close(gradient(REVERSE[name]), gradient(de.Discrete()), rtol=1e-6, atol=1e-6)


def test_a_method_for_motion_alone_leaves_the_adjoint_to_another():
    """A splitting takes no adjoint equation, and no tolerance; its adjoint has its own."""
    energy = de.Separable(lambda t, p, a: jnp.sum(p**2) / 2, lambda t, q, a: -a * jnp.cos(q))

    def end(a, adjoint):
        problem = de.HamiltonianProblem(energy, 1.0, 0.0, (0.0, 2.0), a)
        return de.solve(problem, de.KahanLi8(), dt=0.01, adjoint=adjoint).y1[0]

    found = jax.grad(end)(1.3, de.Gauss(rtol=1e-9, atol=1e-9))
    close(found, jax.grad(end)(1.3, de.Discrete()))


def test_fixed_steps_march_in_fixed_steps():
    gradient = lambda adjoint: jax.jit(
        jax.grad(lambda x: loss((*x, *X[2:]), adjoint, method=de.RK4(), dt=1 / 64))
    )(X[:2])
    close(gradient(de.Gauss()), gradient(de.Discrete()))


def test_a_thinned_tape_is_walked_window_by_window():
    end = lambda k, adjoint: decay(k, adjoint, 40.0, rtol=1e-7, atol=1e-9, max_steps=400)
    gradient = lambda rows: jax.jit(jax.grad(lambda k: end(k, de.Gauss(rows=rows))))(0.1)
    whole, thinned = gradient(400), gradient(32)
    np.testing.assert_allclose(thinned, whole, rtol=1e-9)
    np.testing.assert_allclose(whole, -40 * np.exp(-4.0), rtol=1e-5)


@EACH
def test_lanes_are_a_loop(name):
    """Each with its own number of steps, forwards and backwards."""
    gradient = jax.grad(lambda k: decay(k, REVERSE[name], rtol=1e-7, atol=1e-8))
    rates = jnp.array([0.1, 3.0, 30.0])
    close(jax.jit(jax.vmap(gradient))(rates), [gradient(k) for k in rates], rtol=1e-10, atol=0)


@EACH
def test_a_loss_in_other_units_changes_no_step(name):
    """And so neither y in others: the tolerance of λ is relative to its kicks."""
    of = lambda unit: jax.grad(lambda k: unit * decay(k, REVERSE[name], rtol=1e-5, atol=1e-7))(2.0)
    np.testing.assert_allclose(of(1e-30) * 1e30, of(1.0), rtol=1e-12)


def test_tolerances_of_its_own():
    """λ tight where y is loose: of a linear field it does not see the error of y."""
    end = lambda y0, adjoint: de.solve(
        de.ODEProblem(lambda t, y, k: -y + jnp.cos(9 * t), y0, (0.0, 1.0)), de.Tsit5(),
        adjoint=adjoint, rtol=1e-2, atol=1e-2,
    ).y1  # fmt: skip
    loose = de.Gauss(rtol=1e-1, atol=1e-1)
    tight = de.Gauss(rtol=1e-11, atol=1e-11, method=de.Vern7())
    errors = [abs(jax.grad(end)(1.0, adjoint) - np.exp(-1)) for adjoint in (loose, tight)]
    assert errors[1] < 1e-10 < errors[0]


# --- what must never be wrong ---------------------------------------------------------------------


def van_der_pol(mu, adjoint):
    rates = lambda t, y, mu: jnp.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])
    problem = de.ODEProblem(rates, jnp.array([2.0, 0.0]), (0.0, 5.0), mu)
    return de.solve(problem, de.Tsit5(), rtol=1e-6, atol=1e-6, adjoint=adjoint).y1.sum()


@pytest.mark.parametrize(
    "adjoint", [de.Discrete(), *REVERSE.values(), de.Backsolve(), de.Forward()], ids=repr
)
def test_van_der_pol(adjoint):
    """Where the published adjoints give −7 and −11."""
    mode = jax.jacfwd if isinstance(adjoint, de.Forward) else jax.grad
    gradient = jax.jit(mode(lambda mu: van_der_pol(mu, adjoint)))
    np.testing.assert_allclose(gradient(5.0), 9.93324, rtol=1e-4)


def test_a_lost_state_is_an_error_outside_and_nan_inside():
    gradient = jax.grad(lambda mu: van_der_pol(mu, de.Backsolve(checkpoints=0)))
    with pytest.raises(RuntimeError, match=r"lost y on its way back: at t = \S+ .* tolerances"):
        jax.block_until_ready(gradient(5.0))
    assert np.isnan(jax.jit(gradient)(5.0))
    lanes = jax.vmap(gradient)(jnp.array([5.0, 0.01]))
    assert np.isnan(lanes[0])
    np.testing.assert_allclose(lanes[1], jax.jit(gradient)(0.01), rtol=1e-9)


def test_lorenz_backwards_is_lost():
    """What contracts at the rate 13.67 forwards cannot be solved backwards."""
    problem = de.zoo.lorenz().problem().replace(tspan=(0.0, 5.0))

    def end(a, adjoint):
        options = {"rtol": 1e-10, "atol": 1e-10, "adjoint": adjoint}
        return de.solve(problem.replace(args=a), de.Dopri8(), **options).y1[0]

    with pytest.raises(RuntimeError, match="lost y"):
        jax.block_until_ready(jax.grad(end)(problem.args, de.Backsolve(checkpoints=0)))
    gradient = lambda adjoint: jax.jit(jax.grad(lambda a: end(a, adjoint)))(problem.args)
    np.testing.assert_allclose(
        gradient(de.Backsolve(checkpoints=256)), gradient(de.Gauss()), rtol=1e-4
    )


@FEW
def test_rows_of_a_solve_that_failed(name):
    """Of 1/(1 − a t): rows before the pole have derivatives, zero stays zero, the rest is NaN."""

    def total(a, mask):
        problem = de.ODEProblem(lambda t, y, a: a * y**2, 1.0, (0.0, 2.0), a)
        sol = de.solve(
            problem, de.Tsit5(), saveat=jnp.array([0.3, 0.5, 1.5]), adjoint=REVERSE[name],
            throw=False, rtol=1e-6, atol=1e-6,
        )  # fmt: skip
        return jnp.sum(jnp.where(mask, sol.ys, 0))

    gradient = jax.jit(jax.vmap(jax.grad(total), (None, 0)))
    masks = jnp.array([[True, True, False], [False] * 3, [True] * 3])
    reached, silent, missing = gradient(1.0, masks)
    np.testing.assert_allclose(reached, 0.3 / 0.7**2 + 0.5 / 0.5**2, rtol=1e-4)
    assert silent == 0
    assert np.isnan(missing)


# --- Forward --------------------------------------------------------------------------------------


def at_rest(t, y, a):
    return jnp.stack([a * y[0] - y[0] * y[1], -a * y[1] + y[0] * y[1]])


def trapped(a, adjoint, tolerance=1e-12):
    problem = de.ODEProblem(at_rest, jnp.array([1.0, 1.0]), (0.0, 10.0), a)
    sol = de.solve(
        problem, de.Tsit5(), saveat=jnp.linspace(0, 10, 101), adjoint=adjoint, rtol=tolerance,
        atol=tolerance,
    )  # fmt: skip
    return jnp.sum(sol.ys)


def test_the_norm_trap():
    """Sapienza et al. (2024): 212.71042521681, where steps of y alone give 6278.16."""
    value, tangent = jax.jvp(lambda a: trapped(a, de.Forward()), (1.0,), (1.0,))
    np.testing.assert_allclose((value, tangent), (202.0, 212.71042521681), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(trapped)(1.0, de.Gauss()), 212.71042521681, rtol=1e-10)
    assert abs(jax.jvp(lambda a: trapped(a, de.Discrete()), (1.0,), (1.0,))[1]) > 6000
    # a direction that is longer takes the same steps
    longer = jax.jvp(lambda a: trapped(a, de.Forward()), (1.0,), (1e9,))[1]
    np.testing.assert_allclose(longer * 1e-9, tangent, rtol=1e-12)


def test_forward_by_every_input_and_method():
    for method in (de.Tsit5(), de.Dopri8()):
        of = lambda adjoint, method=method: lambda x: loss(x, adjoint, method=method)
        found, wanted = (jax.jit(jax.jacfwd(of(a)))(X) for a in (de.Forward(), de.Discrete()))
        close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [k for k in KINDS if "complex args" not in k])
def test_forward_kinds_of_problems(kind):
    total, x = KINDS[kind]
    jacobian = lambda adjoint: jax.jit(jax.jacfwd(lambda x: total(x, adjoint)))(x)
    close(jacobian(de.Forward()), jacobian(de.Discrete()), rtol=1e-6, atol=1e-6)


def test_forward_in_lanes_and_twice():
    """Directions share a solve, lanes of inputs do not; second tangents are in the norm, too."""
    one = lambda a, adjoint: loss((a, *X[1:]), adjoint)
    many = jnp.stack([A, 0.9 * A])
    for mode in (
        lambda f: jax.vmap(jax.jacfwd(f)),
        lambda f: lambda a: jax.jvp(jax.vmap(f), (a,), (jnp.cos(a),))[1],
        lambda f: lambda a: jax.jacfwd(jax.jacfwd(f))(a[0]),
    ):
        of = lambda adjoint, mode=mode: jax.jit(mode(lambda a: one(a, adjoint)))(many)
        close(of(de.Forward()), of(de.Discrete()), rtol=1e-6, atol=1e-6)


# --- what each serves -----------------------------------------------------------------------------

PLAIN = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 1.0)
ASKED = {
    "steps": lambda adjoint: de.solve(PLAIN, saveat="steps", adjoint=adjoint),
    "dense": lambda adjoint: de.solve(PLAIN, dense=True, adjoint=adjoint),
    "by hand": lambda adjoint: de.init(PLAIN, adjoint=adjoint),
    "forward": lambda adjoint: jax.jacfwd(lambda k: decay(k, adjoint))(1.0),
    "reverse": lambda adjoint: jax.grad(lambda k: decay(k, adjoint))(1.0),
    "second": lambda adjoint: jax.hessian(lambda k: decay(k, adjoint))(1.0),
}


@pytest.mark.parametrize("name", adjoints.known())
def test_what_is_not_served_is_refused_with_those_that_do(name):
    """As the table says that the docs show."""
    cls = adjoints.known()[name]
    if not adjoints.solves(cls, "ODEProblem"):
        with pytest.raises(
            TypeError, match=f"{name} does not serve a ODEProblem.* Discrete, Forward"
        ):
            de.solve(PLAIN, adjoint=cls())
        return
    for feature, ask in ASKED.items():
        if feature in cls.serves:
            continue
        with pytest.raises(TypeError, match=f"{name} does not serve .*; those that do: .*Discrete"):
            ask(cls())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: de.Gauss(rtol=-1), "rtol is -1; a positive number"),
        (lambda: de.Gauss(points=0), "points is 0"),
        (lambda: de.Gauss(method=de.Tsit5), "an instance is wanted, such as de.Tsit5"),
        (lambda: de.Interpolating(method=de.RK4()), "no error estimate"),
        (lambda: de.Backsolve(checkpoints=-1), "checkpoints is -1"),
        (lambda: de.Backsolve(drift=0.0), "drift is 0.0"),
        (lambda: de.SteadyState(linear="lu"), "linear is 'lu'"),
    ],
)
def test_bad_options(make, said):
    with pytest.raises((TypeError, ValueError), match=said):
        make()


# --- rest -----------------------------------------------------------------------------------------


def brusselator(t, y, a):
    """At rest in (a, b/a)."""
    reaction = y[0] ** 2 * y[1]
    return jnp.stack([a[0] + reaction - (a[1] + 1) * y[0], a[1] * y[0] - reaction])


REST = de.SteadyStateProblem(brusselator, jnp.array([1.5, 1.0]), jnp.array([1.0, 1.7]))


@pytest.mark.parametrize("method", [None, de.Tsit5()], ids=repr)
def test_rest_in_every_mode(method):
    rest = jax.jit(lambda a: de.solve(REST.replace(args=a), method).y1)
    a, wanted = REST.args, [[1.0, 0.0], [-1.7, 1.0]]
    np.testing.assert_allclose(rest(a), [1.0, 1.7], rtol=1e-12)
    for mode in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(mode(rest)(a), wanted, atol=1e-10)
    np.testing.assert_allclose(
        jax.hessian(lambda a: rest(a)[1])(a), [[3.4, -1.0], [-1.0, 0.0]], atol=1e-9
    )
    lanes = jax.vmap(jax.grad(lambda a: rest(a)[1]))(jnp.stack([a, 2 * a]))
    np.testing.assert_allclose(lanes, [[-1.7, 1.0], [-0.85, 0.5]], atol=1e-10)


def test_rest_of_a_complex_state_and_of_the_guess():
    problem = de.SteadyStateProblem(
        lambda t, y, k: k * (1j * y - y * abs(y) ** 2) + 1, 1.0 + 0j, 1.0
    )
    size = lambda k: jnp.abs(de.solve(problem.replace(args=k)).y1)
    difference = (size(1 + 1e-5) - size(1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(size)(1.0), difference, rtol=1e-8)
    by_guess = jax.grad(lambda y0: jnp.abs(de.solve(problem.replace(y0=y0)).y1))(1.0 + 0j)
    assert by_guess == 0


def test_no_rest_is_a_status():
    none = de.SteadyStateProblem(lambda t, y, k: k + y**2, 1.0, 1.0)
    for method in (None, de.Tsit5()):
        with pytest.raises(de.SolveError, match="no state of rest was found") as error:
            de.solve(none, method)
        assert error.value.status == de.Status.not_at_rest

    def total(k, asked):
        sol = de.solve(none.replace(args=k), throw=False)
        return jnp.where(asked, sol.y1, 0.0)

    gradient = jax.jit(jax.vmap(jax.grad(total)))
    found = gradient(jnp.array([-4.0, 1.0, 1.0]), jnp.array([True, False, True]))
    np.testing.assert_allclose(found[0], -1 / 4, rtol=1e-10)
    assert found[1] == 0
    assert np.isnan(found[2])
    with pytest.raises(de.SolveError, match="no state of rest"):  # a limit cycle is none
        de.solve(REST.replace(args=jnp.array([1.0, 3.0])), de.Tsit5(), max_steps=2000)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"saveat": [1.0]}, "saveat was given with a SteadyStateProblem"),
        ({"dt": 0.1}, "dt was given"),
        ({"adjoint": de.Gauss()}, "Gauss does not serve a SteadyStateProblem.*SteadyState"),
        ({"method": de.RK4()}, "has no error estimate"),
        ({"rtol": -1.0}, "rtol is -1.0"),
    ],
)
def test_rest_refuses(options, said):
    with pytest.raises((TypeError, ValueError), match=said):
        de.solve(REST, **options)


def test_rest_refuses_a_field_of_time():
    with pytest.raises(TypeError, match="f depends on t"):
        de.solve(de.SteadyStateProblem(lambda t, y, k: t - y, 1.0))


# --- check_gradient -------------------------------------------------------------------------------


def test_check_gradient_says_what_is_wrong():
    trap = de.check_gradient(jax.jit(lambda a: trapped(a, None, 1e-5)), 1.0, directions=1)
    assert not trap
    assert "norm trap" in trap.cause
    assert trap.tangent_error > 1e3
    with pytest.raises(RuntimeError, match="not to be trusted"):
        trap.check()

    fine = de.check_gradient(lambda k: decay(k, None, rtol=1e-4, atol=1e-6), 2.0)
    assert fine.agrees
    assert fine.disagreement < 1e-3
    assert "agrees" in repr(fine)

    loose = de.check_gradient(lambda a: loss((a, *X[1:]), None, rtol=10.0, atol=10.0), 4 * A)
    assert "too loose" in loose.cause

    jump = lambda s, **stops: de.solve(de.ODEProblem(jumping, 1.0, (0.0, 1.0), s), **stops).y1
    assert "stops=" in de.check_gradient(jump, jnp.array(0.5)).cause
    assert de.check_gradient(lambda s: jump(s, stops=s[None]), jnp.array(0.5)).agrees


def test_check_gradient_of_what_forward_does_not_serve():
    report = de.check_gradient(lambda k: de.solve(PLAIN.replace(args=k), dense=True)(0.5), 1.0)
    assert report.agrees
    assert any("Forward does not serve dense output" in note for note in report.notes)
