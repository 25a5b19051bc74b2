"""Every adjoint against `Discrete`, differences and closed forms, and against its trap."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.tiers import shortly

import diffeq as de
from diffeq import adjoints

ALL = {
    "Forward": de.Forward(),
    "Gauss": de.Gauss(),
    "Gauss, adaptive": de.Gauss(integral="adaptive"),
    "Gauss, augmented": de.Gauss(integral="augmented"),
    "Backsolve": de.Backsolve(checkpoints=16),
}
EACH = pytest.mark.parametrize("name", ALL)
FEW = pytest.mark.parametrize("name", ["Forward", "Gauss", "Backsolve"])  # the three ways
BACK = pytest.mark.parametrize("name", ["Gauss", "Backsolve"])  # two of them in reverse

# So few steps that no tape is thinned: windows have a test of their own.
TIGHT = {"rtol": 1e-9, "atol": 1e-9, "max_steps": 256}


def close(found, wanted, rtol=1e-6, atol=1e-7):
    found, wanted = jax.tree.leaves(found), jax.tree.leaves(wanted)
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def derivative(total, adjoint):
    """By forward or by reverse mode, whichever is served."""
    mode = jax.jacfwd if isinstance(adjoint, de.Forward) else jax.grad
    return jax.jit(mode(lambda x: total(x, adjoint)))


def measure(ys):
    """A sum in which no row and no component counts as another does."""
    return jnp.sum(jnp.sin(ys * jnp.arange(1.0, 1 + ys.size).reshape(ys.shape)))


# --- by every input -------------------------------------------------------------------------------


def field(t, y, a):
    return jnp.stack([y[1] * a[0], -a[0] * jnp.sin(y[0]) + a[1] * jnp.cos(t) * y[1] ** 2])


def everything(x, adjoint):
    """Of (args, y0, t0, t1, save times): rows, rows of a `save` function, and the end. Two of the
    save times are the ends, and two the same.
    """
    a, y0, t0, t1, ts = x
    sol = de.solve(
        de.ODEProblem(field, y0, (t0, t1), a), de.Tsit5(), adjoint=adjoint, **TIGHT,
        saveat={"all": ts, "few": ts[1:3] + 0.1, "end": None},
        save={
            "all": lambda t, y, a: y,
            "few": lambda t, y, a: {"x": t**2 * y * a, "n": 1},
            "end": lambda t, y, a: y,
        },
    )  # fmt: skip
    rows = measure(sol.ys["all"]) + measure(sol.ys["few"]["x"])
    return rows + measure(sol.ys["end"]) + sol.y1[0] ** 2


X = (
    jnp.array([1.3, 0.4]),
    jnp.array([0.8, -0.2]),
    jnp.array(0.0),
    jnp.array(1.0),
    jnp.array([0.0, 0.2, 0.5, 0.5, 1.0]),
)


@cache
def wanted_of_everything():
    """The gradient by `Discrete`, which has to agree with differences of the loss itself."""
    gradient = derivative(everything, de.Discrete())(X)
    value = jax.jit(lambda x: everything(x, None))

    def difference(which, h=1e-4):
        moved = lambda s: jax.tree.map(lambda x, d: x + s * d, X, which)
        central = lambda h: (value(moved(h)) - value(moved(-h))) / (2 * h)
        return (4 * central(h) - central(2 * h)) / 3

    inner = jnp.array([0.0, 0.3, -0.2, -0.2, 0.0])  # rows at the ends stay there
    directions = [
        (jnp.array([0.5, -0.7]), *map(jnp.zeros_like, X[1:])),
        (jnp.zeros(2), jnp.array([0.5, -0.7]), *map(jnp.zeros_like, X[2:])),
        (*map(jnp.zeros_like, X[:4]), inner),
    ]
    for v in directions:
        slope = sum(jnp.sum(g * d) for g, d in zip(gradient, v, strict=True))
        np.testing.assert_allclose(slope, difference(v), rtol=1e-5)
    return gradient


@pytest.mark.parametrize("name", shortly(ALL, "Forward", "Gauss", "Backsolve"))
def test_by_every_input(name):
    close(derivative(everything, ALL[name])(X), wanted_of_everything(), rtol=1e-5, atol=1e-6)


# --- kinds of problems ----------------------------------------------------------------------------

NET = eqx.nn.MLP(2, 2, 8, 1, jnp.tanh, key=jax.random.key(0))


def network(x, adjoint):
    """In a layer, backwards in time, by its weights and a tree as the state; with a jump at s."""
    weights, s, y0 = x
    net = eqx.combine(weights, eqx.partition(NET, eqx.is_array)[1])

    def rates(net, t, y, s):
        dy = net(jnp.stack([y["x"], y["z"][0]]))
        return {"x": dy[0] * jnp.where(t < s, 1.0, t), "z": (dy[1] - y["z"][0],)}

    layer = de.nn.Layer(
        net, tspan=(1.0, 0.0), field=rates, saveat=jnp.array([0.8, 0.2]), stops=s[None],
        adjoint=adjoint, method=de.Tsit5(), **TIGHT,
    )  # fmt: skip
    ys = layer(y0, s).ys
    return jnp.sum(ys["x"] ** 2 + ys["z"][0])


@cache
def wanted_of_network():
    return derivative(network, de.Discrete())(NETWORK)


NETWORK = (eqx.filter(NET, eqx.is_array), jnp.array(0.5), {"x": 1.0, "z": (0.5,)})


@pytest.mark.thorough
@FEW
def test_a_network_in_a_layer_backwards_with_a_jump(name):
    close(derivative(network, ALL[name])(NETWORK), wanted_of_network(), rtol=1e-6, atol=1e-6)


def test_a_complex_state_with_complex_and_real_parameters():
    def total(x, adjoint):
        k, r = x
        rates = lambda t, y, p: (p[0] - p[1]) * y + 0.1 * jnp.conj(y) * jnp.sin(jnp.sum(y))
        problem = de.ODEProblem(rates, jnp.array([0.8 + 0.3j, -0.2]), (0.0, 1.0), (k, r))
        ts = jnp.array([0.3, 0.9])
        ys = de.solve(problem, de.Tsit5(), saveat=ts, adjoint=adjoint, **TIGHT).ys
        return jnp.sum(jnp.abs(ys) ** 2)

    x = jnp.array(1.3j), jnp.array(0.4)
    close(derivative(total, de.Gauss())(x), derivative(total, de.Discrete())(x), rtol=1e-6)


def stiff(x, adjoint):
    """Two rates, five decades apart, by a Rosenbrock method."""
    rates = lambda t, y, k: jnp.stack([
        -k[0] * (y[0] - jnp.cos(y[1])) - y[0] ** 3, k[1] * y[0] - y[1]
    ])  # fmt: skip
    problem = de.ODEProblem(rates, x[1], (0.0, 2.0), jnp.exp(x[0]))
    ts = jnp.array([0.5, 2.0])
    return measure(de.solve(problem, de.Rodas5P(), saveat=ts, adjoint=adjoint, **TIGHT).ys)


@pytest.mark.thorough
def test_a_stiff_problem():
    """λ is as stiff as y; and y, solved backwards, is lost at once, which has to be said."""
    x = jnp.log(jnp.array([1e5, 0.7])), jnp.array([0.3, 0.6])
    forward, gauss, back = (derivative(stiff, ALL[n])(x) for n in ("Forward", "Gauss", "Backsolve"))
    close(forward, gauss, rtol=1e-6)
    assert np.isnan(jnp.concatenate(back)).all()


def test_a_method_for_motion_alone_leaves_the_adjoint_to_another():
    """A splitting takes no adjoint equation, and no tolerance; its adjoint has its own."""
    energy = de.Separable(lambda t, p, a: jnp.sum(p**2) / 2, lambda t, q, a: a * jnp.sum(q**2) / 2)

    def end(a, adjoint):
        problem = de.HamiltonianProblem(energy, 1.0, 0.0, (0.0, 2.0), a)
        return de.solve(problem, de.ForestRuth(), dt=1 / 64, adjoint=adjoint).y1[0]

    found = derivative(end, de.Gauss(rtol=1e-9, atol=1e-9))(1.3)
    rate = np.sqrt(1.3)
    np.testing.assert_allclose(found, -np.sin(2 * rate) / rate, rtol=1e-5)  # of cos(√a t) at 2


# --- in closed form -------------------------------------------------------------------------------


def decay(k, adjoint, t1=1.0, method=None, **options):
    problem = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, t1), k)
    return de.solve(problem, method or de.Tsit5(), adjoint=adjoint, **(options or TIGHT)).y1


@FEW
def test_lanes(name):
    """Each with its own number of steps, forwards and backwards; ∂(k, T) of e^(−kT). And a loss in
    other units changes no step: the tolerance of λ is relative to its kicks.
    """
    k, t1 = jnp.array([0.1, 3.0, 30.0, 3.0]), jnp.array([1.0, 0.5, 0.7, 0.5])
    units = jnp.array([1.0, 1.0, 1.0, 1e-30])
    options = {"rtol": 1e-8, "atol": 1e-10, "max_steps": 256}
    of = lambda x, unit: unit * decay(x[0], ALL[name], x[1], **options)
    mode = jax.jacfwd if name == "Forward" else jax.grad
    by_k, by_t1 = jax.jit(jax.vmap(mode(of)))((k, t1), units)
    close(by_k[:3], (-t1 * jnp.exp(-k * t1))[:3], rtol=1e-5, atol=1e-9)
    close(by_t1[:3], (-k * jnp.exp(-k * t1))[:3], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(by_k[3] * 1e30, by_k[1], rtol=1e-12)


def test_fixed_steps_march_in_fixed_steps():
    found = derivative(lambda k, a: decay(k, a, method=de.RK4(), dt=1 / 64), de.Gauss())(2.0)
    close(found, -np.exp(-2.0), rtol=1e-7)


def test_a_thinned_tape_is_walked_window_by_window():
    options = {"rtol": 1e-7, "atol": 1e-9, "max_steps": 400}
    thinned = derivative(lambda k, a: decay(k, a, 40.0, **options), de.Gauss(rows=16))(0.1)
    close(thinned, -40 * np.exp(-4.0), rtol=1e-5)


def test_tolerances_of_its_own():
    """λ tight where y is loose: of a linear field it does not see the error of y."""
    end = lambda y0, adjoint: de.solve(
        de.ODEProblem(lambda t, y, k: -y + jnp.cos(9 * t), y0, (0.0, 1.0)), de.Tsit5(),
        adjoint=adjoint, rtol=1e-2, atol=1e-2, max_steps=256,
    ).y1  # fmt: skip
    tight = de.Gauss(rtol=1e-11, atol=1e-11, method=de.Vern7())
    np.testing.assert_allclose(derivative(end, tight)(1.0), np.exp(-1), rtol=1e-10)


@pytest.mark.parametrize("integral", ["adaptive", "augmented"])
def test_an_integrand_that_the_solve_does_not_resolve(integral):
    """Of y' = −y + a sin 60t at a = 0, whose steps do not see the sine: dy(3)/da =
    ∫ e^(t−3) sin 60t dt. The integral has an error control of its own, or is 0.12 (`Gauss()`).
    """

    def end(a):
        problem = de.ODEProblem(lambda t, y, a: -y + a * jnp.sin(60 * t), 1.0, (0.0, 3.0), a)
        adjoint = de.Gauss(integral=integral)
        return de.solve(problem, de.Tsit5(), adjoint=adjoint, rtol=1e-6, atol=1e-8).y1

    wanted = (np.sin(180) - 60 * np.cos(180) + 60 * np.exp(-3)) / (1 + 60**2)
    np.testing.assert_allclose(jax.grad(end)(0.0), wanted, rtol=1e-5)


def test_an_integrand_that_is_not_finite_at_a_node():
    """√(a (t − ½)²) has no derivative by a at t = ½, a node of the rule on the whole step; halved
    panels have none there. dy(1)/da = ∫ e^(t−1) |t − ½| dt / (2√a).
    """

    def end(a):
        problem = de.ODEProblem(
            lambda t, y, a: -y + jnp.sqrt(a * (t - 0.5) ** 2), 1.0, (0.0, 1.0), a
        )
        adjoint = de.Gauss(integral="adaptive")
        return de.solve(problem, de.Tsit5(), dt=1.0, rtol=1e-2, atol=1e-2, adjoint=adjoint).y1

    integral = 2 * np.exp(-0.5) - 0.5 - 1.5 * np.exp(-1)
    np.testing.assert_allclose(jax.grad(end)(2.0), integral / (2 * np.sqrt(2)), rtol=2e-2)


# --- what must never be wrong ---------------------------------------------------------------------


def van_der_pol(mu, adjoint):
    rates = lambda t, y, mu: jnp.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])
    problem = de.ODEProblem(rates, jnp.array([2.0, 0.0]), (0.0, 5.0), mu)
    options = {"rtol": 1e-6, "atol": 1e-6, "max_steps": 512}
    return de.solve(problem, de.Tsit5(), adjoint=adjoint, **options).y1.sum()


@cache
def pairs_of_van_der_pol():
    """By `Discrete`, for a hard and for an easy μ."""
    gradient = jax.grad(lambda mu: van_der_pol(mu, de.Discrete()))
    return jax.jit(jax.vmap(gradient))(jnp.array([5.0, 0.01]))


def test_van_der_pol_by_discrete():
    np.testing.assert_allclose(pairs_of_van_der_pol()[0], 9.93324, rtol=1e-4)


@EACH
def test_van_der_pol(name):
    """Where the published adjoints give −7 and −11."""
    adjoint = de.Backsolve() if name == "Backsolve" else ALL[name]
    np.testing.assert_allclose(derivative(van_der_pol, adjoint)(5.0), 9.93324, rtol=1e-4)


def test_a_lost_state_is_an_error_outside_and_nan_inside():
    gradient = jax.grad(lambda mu: van_der_pol(mu, de.Backsolve(checkpoints=0)))
    with pytest.raises(RuntimeError, match=r"lost y on its way back: at t = \S+ .* tolerances"):
        jax.block_until_ready(gradient(5.0))
    lost, kept = jax.jit(jax.vmap(gradient))(jnp.array([5.0, 0.01]))
    assert np.isnan(lost)
    np.testing.assert_allclose(kept, pairs_of_van_der_pol()[1], rtol=1e-4)


@pytest.mark.parametrize("given", [{"dt": 0.02}, {"controller": de.Fixed(np.linspace(0, 1, 51))}])
def test_backsolve_along_given_steps_asks_for_their_tolerance(given):
    """The state is compared in units of a tolerance, and given steps have none of their own: the
    default, 1e-12, is for the equations of implicit stages, and no splitting is as good as that.
    """

    def end(k, **tolerance):
        problem = de.HamiltonianProblem(
            de.Separable(lambda t, p, k: p**2 / 2, lambda t, q, k: k * q**2 / 2), 1.0, 0.2,
            (0.0, 1.0), k,
        )  # fmt: skip
        adjoint = de.Backsolve(checkpoints=4)
        return de.solve(problem, de.VelocityVerlet(), adjoint=adjoint, **given, **tolerance).y1[0]

    with pytest.raises(TypeError, match=r"adjoint is Backsolve.*without rtol= or atol=.*Discrete"):
        end(1.0)
    slope = 0.5 * (-np.sin(1) + 0.2 * np.cos(1) - 0.2 * np.sin(1))  # of cos(√k) + 0.2 sin(√k)/√k
    np.testing.assert_allclose(jax.grad(lambda k: end(k, rtol=1e-3))(1.0), slope, rtol=1e-3)


@BACK
def test_rows_of_a_solve_that_failed(name):
    """Of 1/(1 − a t): rows before the pole have derivatives, zero stays zero, the rest is NaN."""

    def total(a, mask):
        problem = de.ODEProblem(lambda t, y, a: a * y**2, 1.0, (0.0, 2.0), a)
        sol = de.solve(
            problem, de.Tsit5(), saveat=jnp.array([0.3, 0.5, 1.5]), adjoint=ALL[name],
            throw=False, rtol=1e-6, atol=1e-6, max_steps=512,
        )  # fmt: skip
        return jnp.sum(jnp.where(mask, sol.ys, 0))

    gradient = jax.jit(jax.vmap(jax.grad(total), (None, 0)))
    masks = jnp.array([[True, True, False], [False] * 3, [True] * 3])
    reached, silent, missing = gradient(1.0, masks)
    np.testing.assert_allclose(reached, 0.3 / 0.7**2 + 0.5 / 0.5**2, rtol=1e-4)
    assert silent == 0
    assert np.isnan(missing)


@BACK
def test_a_solve_without_an_accepted_step_has_no_derivative(name):
    """Its only attempt is rejected: no step leads from the parameter to y1, which is NaN."""

    def end(a):
        problem = de.ODEProblem(lambda t, y, a: -a * y, 1.0, (0.0, 1.0), a)
        return de.solve(
            problem, de.Tsit5(), adjoint=ALL[name], throw=False, max_steps=1, dt0=5.0
        ).y1

    whole, failed = jax.jit(jax.vmap(jax.grad(end)))(jnp.array([0.01, 3.0]))
    np.testing.assert_allclose(whole, -np.exp(-0.01), rtol=1e-4)
    assert np.isnan(failed)


# --- Forward --------------------------------------------------------------------------------------


def trapped(a, adjoint, tolerance=1e-12):
    """From a steady state: the error of y is zero, that of its tangent is not."""
    rates = lambda t, y, a: jnp.stack([a * y[0] - y[0] * y[1], -a * y[1] + y[0] * y[1]])
    sol = de.solve(
        de.ODEProblem(rates, jnp.array([1.0, 1.0]), (0.0, 10.0), a), de.Tsit5(), adjoint=adjoint,
        saveat=jnp.linspace(0, 10, 101), rtol=tolerance, atol=tolerance, max_steps=4096,
    )  # fmt: skip
    return jnp.sum(sol.ys)


def test_the_norm_trap():
    """Sapienza et al. (2024): 212.71042521681, where steps of y alone give 6278.16."""
    push = jax.jit(lambda v: jax.jvp(lambda a: trapped(a, de.Forward()), (1.0,), (v,)))
    value, tangent = push(1.0)
    np.testing.assert_allclose((value, tangent), (202.0, 212.71042521681), rtol=1e-12)
    # a direction that is longer takes the same steps
    np.testing.assert_allclose(push(1e9)[1] * 1e-9, tangent, rtol=1e-12)
    by_gauss = derivative(trapped, de.Gauss())(1.0)
    np.testing.assert_allclose(by_gauss, 212.71042521681, rtol=1e-10)


@pytest.mark.thorough
def test_forward_twice_and_in_lanes():
    """Second tangents are in the norm, too; directions share a solve, lanes of inputs do not."""
    rates = jnp.array([0.5, 2.0])
    second = jax.jacfwd(jax.jacfwd(lambda k: decay(k, de.Forward())))
    close(jax.jit(jax.vmap(second))(rates), np.exp(-rates), atol=1e-9)


# --- what each serves -----------------------------------------------------------------------------

PLAIN = de.ODEProblem(lambda t, y, k: -k * y, 1.0, (0.0, 1.0), 1.0)
DAE = de.DAEProblem(
    lambda t, y, k: jnp.stack([-k * y[0], y[0] - y[1]]), [1.0, 1.0], (0.0, 1.0), 1.0,
    mass_matrix=[1.0, 0.0],
)  # fmt: skip
ASKED = {
    "steps": lambda adjoint: de.solve(PLAIN, saveat="steps", adjoint=adjoint),
    "dense": lambda adjoint: de.solve(PLAIN, dense=True, adjoint=adjoint),
    "multistep": lambda adjoint: de.solve(PLAIN, de.BDF(), adjoint=adjoint),
    "by hand": lambda adjoint: de.init(PLAIN, adjoint=adjoint),
    "no tolerance": lambda adjoint: de.solve(PLAIN, de.RK4(), dt=0.1, adjoint=adjoint),
    "forward": lambda adjoint: jax.jacfwd(lambda k: decay(k, adjoint))(1.0),
    "reverse": lambda adjoint: jax.grad(lambda k: decay(k, adjoint))(1.0),
    "second": lambda adjoint: jax.hessian(lambda k: decay(k, adjoint))(1.0),
}


@pytest.mark.parametrize("name", adjoints.known_adjoints())
def test_what_is_not_served_is_refused_with_those_that_do(name):
    """As the table says that the docs show."""
    cls = adjoints.known_adjoints()[name]
    if not cls.solves(de.ODEProblem):
        with pytest.raises(
            TypeError, match=f"{name} does not serve an ODEProblem.* Discrete, Forward"
        ):
            de.solve(PLAIN, adjoint=cls())
        return
    if name != "Discrete":
        with pytest.raises(TypeError, match=f"{name} does not serve a DAEProblem.*: Discrete"):
            de.solve(DAE, adjoint=cls())
    for feature, ask in ASKED.items():
        if feature in cls.serves:
            continue
        with pytest.raises(TypeError, match=f"{name} does not serve .*; those that do: .*Discrete"):
            ask(cls())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: de.Gauss(rtol=-1.0), "rtol is -1.0; a positive number"),
        (lambda: de.Gauss(points=0), "points is 0"),
        (lambda: de.Gauss("adaptive"), "points is 'adaptive'; .* Write integral='adaptive'"),
        (lambda: de.Gauss(rows=0), "rows is 0"),
        (lambda: de.Gauss(integral="simpson"), "integral is 'simpson'; one of 'gauss'"),
        (lambda: de.Gauss(3, integral="adaptive"), "points is 3, and integral is 'adaptive'"),
        (lambda: de.Forward(rtol=0.0), "rtol is 0.0; a positive number"),
        (lambda: de.Gauss(method=de.RK4(), integral="augmented"), "no error estimate"),
        (lambda: de.Gauss(method=de.BDF()), "a one-step method is wanted"),
        (lambda: de.Backsolve(checkpoints=-1), "checkpoints is -1"),
        (lambda: de.Backsolve(drift=0.0), "drift is 0.0"),
        (lambda: de.SteadyState(linear="lu"), "linear is 'lu'"),
    ],
)
def test_bad_options(make, said):
    with pytest.raises((TypeError, ValueError), match=said):
        make()
