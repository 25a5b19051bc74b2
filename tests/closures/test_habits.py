"""How people work in a notebook: they define, solve, change something and solve again. A call
returns what a fresh trace would return, whatever has changed and wherever that lies.
"""

import sys
import textwrap
import types

import jax
import numpy as np
import pytest

import diffeq as de

# Each is a first cell and a second one. The first defines a field of y' = −k y with k = 1; after
# the second one k is 2. What a cell defines are globals, as in a notebook.
# ruff: noqa: E501, ISC004 - cells of a notebook
HABITS = {
    "number": ("k = 1.0; f = lambda t, y, a: -k * y", "k = 2.0"),
    "integer": ("k = 1; f = lambda t, y, a: -k * y", "k = 2"),
    "fraction": (
        "from fractions import Fraction; k = Fraction(1); f = lambda t, y, a: -float(k) * y",
        "k = Fraction(2)",
    ),
    "numpy scalar": ("k = np.float64(1); f = lambda t, y, a: -k * y", "k = np.float64(2)"),
    "numpy array": ("k = np.ones(3); f = lambda t, y, a: -k[0] * y", "k = 2 * np.ones(3)"),
    "numpy array in place": ("k = np.ones(3); f = lambda t, y, a: -k[0] * y", "k *= 2"),
    "large numpy array in place": (
        "k = np.ones(5000); f = lambda t, y, a: -jnp.sum(k * jnp.ones(5000)) / 5000 * y", "k *= 2"
    ),
    "jax array": ("k = jnp.array(1.0); f = lambda t, y, a: -k * y", "k = jnp.array(2.0)"),
    "boolean": ("fast = False; f = lambda t, y, a: -2 * y if fast else -y", "fast = True"),
    "None": ("k = None; f = lambda t, y, a: -y if k is None else -k * y", "k = 2"),
    "string": ('k = "one"; f = lambda t, y, a: -{"one": 1, "two": 2}[k] * y', 'k = "two"'),
    "bytes": ('k = b"one"; f = lambda t, y, a: -len(k) / 3 * y', 'k = b"onetwo"'),
    "list in place": ("k = [1.0]; f = lambda t, y, a: -k[0] * y", "k[0] = 2.0"),
    "list that grows": ("k = [1.0]; f = lambda t, y, a: -sum(k) * y", "k.append(1.0)"),
    "dictionary in place": ("k = {'a': 1}; f = lambda t, y, a: -k['a'] * y", "k['a'] = 2"),
    "nested": ("k = {'a': [{'b': 1}]}; f = lambda t, y, a: -k['a'][0]['b'] * y",
               "k['a'][0]['b'] = 2"),
    "set": ("k = {1}; f = lambda t, y, a: -len(k) * y", "k.add(2)"),
    "deque": ("from collections import deque; k = deque([1]); f = lambda t, y, a: -k[-1] * y",
              "k.append(2)"),
    "ordered dictionary": (
        "import collections; k = collections.OrderedDict(a=1); f = lambda t, y, a: -k['a'] * y",
        "k['a'] = 2",
    ),
    "default dictionary": (
        "import collections; k = collections.defaultdict(lambda: 1)\n"
        "f = lambda t, y, a: -k['a'] * y",
        "k['a'] = 2",
    ),
    "keys of mixed types": ("k = {1: 1, 'b': 0}; f = lambda t, y, a: -(k[1] + k['b']) * y",
                            "k['b'] = 1"),
    "tuple": ("k = (1, 0); f = lambda t, y, a: -k[0] * y", "k = (2, 0)"),
    "named tuple": (
        "import collections; K = collections.namedtuple('K', 'k'); k = K(1)\n"
        "f = lambda t, y, a: -k.k * y",
        "k = K(2)",
    ),
    "range": ("k = range(1); f = lambda t, y, a: -len(k) * y", "k = range(2)"),
    "enumeration": (
        "import enum\nclass Law(enum.Enum):\n    A = 1; B = 2\nlaw = Law.A\n"
        "f = lambda t, y, a: -law.value * y",
        "law = Law.B",
    ),
    "simple namespace": ("k = types.SimpleNamespace(a=1); f = lambda t, y, a: -k.a * y", "k.a = 2"),
    "dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass K:\n    k: float\nk = K(1.0)\n"
        "f = lambda t, y, a: -k.k * y",
        "k.k = 2.0",
    ),
    "dataclass with lower": (
        "import dataclasses\n@dataclasses.dataclass\nclass Limits:\n    lower: float\n    upper: float\n"
        "k = Limits(1.0, 5.0)\nf = lambda t, y, a: -k.lower * y",
        "k.lower = 2.0",
    ),
    "slots": (
        "class K:\n    __slots__ = ('k',)\nk = K(); k.k = 1\nf = lambda t, y, a: -k.k * y", "k.k = 2"
    ),
    "property": (
        "class K:\n    n = 1\n    @property\n    def k(self): return self.n\nk = K()\n"
        "f = lambda t, y, a: -k.k * y",
        "k.n = 2",
    ),
    "class attribute": ("class K:\n    k = 1\nf = lambda t, y, a: -K.k * y", "K.k = 2"),
    "attribute of a base": (
        "class Base:\n    k = 1\nclass K(Base): pass\nk = K()\nf = lambda t, y, a: -k.k * y",
        "Base.k = 2",
    ),
    "method": (
        "class K:\n    def __init__(self): self.k = 1\n    def f(self, t, y, a): return -self.k * y\n"
        "k = K(); f = k.f",
        "k.k = 2",
    ),
    "callable object": (
        "class K:\n    def __init__(self): self.k = 1\n"
        "    def __call__(self, t, y, a): return -self.k * y\nk = f = K()",
        "k.k = 2",
    ),
    "callable object that reads a global": (
        "rate = 1\nclass K:\n    def __call__(self, t, y, a): return -rate * y\nf = K()", "rate = 2"
    ),
    "method that reads a global": (
        "rate = 'one'\nclass K:\n    def k(self): return 1 if rate == 'one' else 2\nk = K()\n"
        "f = lambda t, y, a: -k.k() * y",
        "rate = 'two'",
    ),
    "method exchanged": (
        "class K:\n    def k(self): return 1\nk = K()\nf = lambda t, y, a: -k.k() * y",
        "K.k = lambda self: 2",
    ),
    "helper redefined": (
        "def rate(y): return y\nf = lambda t, y, a: -rate(y)", "def rate(y): return 2 * y"
    ),
    "helper of a helper redefined": (
        "def inner(y): return y\ndef rate(y): return inner(y)\nf = lambda t, y, a: -rate(y)",
        "def inner(y): return 2 * y",
    ),
    "helper's default": (
        "def rate(y, k=1): return k * y\nf = lambda t, y, a: -rate(y)", "rate.__defaults__ = (2,)"
    ),
    "helper's attribute": (
        "def rate(y): return rate.k * y\nrate.k = 1\nf = lambda t, y, a: -rate(y)", "rate.k = 2"
    ),
    "global of a helper module": (
        "lib = types.ModuleType('lib'); exec('k = 1\\ndef rate(y): return k * y', vars(lib))\n"
        "f = lambda t, y, a: -lib.rate(y)",
        "lib.k = 2",
    ),
    "attribute of a module": (
        "lib = types.ModuleType('lib'); lib.k = 1; f = lambda t, y, a: -lib.k * y", "lib.k = 2"
    ),
    "function of a module exchanged": (
        "lib = types.ModuleType('lib'); lib.grow = lambda y: y; lib.decay = lambda y: 2 * y\n"
        "law = lib.grow\nf = lambda t, y, a: -law(y)",
        "law = lib.decay",
    ),
    "imported inside": (
        "lib = types.ModuleType('habit_lib'); lib.k = 1; sys.modules['habit_lib'] = lib\n"
        "def f(t, y, a):\n    from habit_lib import k\n    return -k * y",
        "lib.k = 2",
    ),
    "ufunc exchanged": ("op = jnp.add; f = lambda t, y, a: -op(y, jnp.where(y == y, 0, y))",
                        "op = lambda a, b: 2 * a"),
    "ufuncs in turn": ("act = jnp.abs; f = lambda t, y, a: -act(y)", "act = lambda y: 2 * y"),
    "jitted helper exchanged": (
        "g = jax.jit(lambda y: y); f = lambda t, y, a: -g(y)", "g = jax.jit(lambda y: 2 * y)"
    ),
    "jitted field exchanged": (
        "f = jax.jit(lambda t, y, a: -y)", "f = jax.jit(lambda t, y, a: -2 * y)"
    ),
    "partial": (
        "import functools; f = functools.partial(lambda k, t, y, a: -k * y, 1)",
        "f = functools.partial(lambda k, t, y, a: -k * y, 2)",
    ),
    "closure": (
        "def make(k):\n    return lambda t, y, a: -k * y\nf = make(1)", "f = make(2)"
    ),
    "nonlocal": (
        "def make():\n    k = 1\n    def more():\n        nonlocal k\n        k = 2\n"
        "    return (lambda t, y, a: -k * y), more\nf, more = make()",
        "more()",
    ),
    "default argument": (
        "def f(t, y, a, k=1): return -k * y", "f.__defaults__ = (2,)"
    ),
    "keyword default": (
        "def f(t, y, a, *, k=1): return -k * y", "f.__kwdefaults__ = {'k': 2}"
    ),
    "getattr": (
        "k = types.SimpleNamespace(a=1); f = lambda t, y, a: -getattr(k, 'a') * y", "k.a = 2"
    ),
    "globals()": ("k = 1; f = lambda t, y, a: -globals()['k'] * y", "k = 2"),
    "eval": ("k = 1; f = lambda t, y, a: -eval('k') * y", "k = 2"),
    "an object that counts": (
        "class K:\n    def __init__(self): self.n = []\n    def k(self):\n        return len(self.n) + 1\n"
        "k = K(); f = lambda t, y, a: -k.k() * y",
        "k.n.append(0)",
    ),
    "equinox module": (
        "import equinox as eqx\nclass Net(eqx.Module):\n    k: float\n"
        "    def __call__(self, t, y, a): return -self.k * y\nf = Net(1.0)",
        "f = Net(2.0)",
    ),
    "equinox module that reads a global": (
        "import equinox as eqx\nrate = 1\nclass Net(eqx.Module):\n    k: float\n"
        "    def __call__(self, t, y, a): return -self.k * rate * y\nf = Net(1.0)",
        "rate = 2",
    ),
    "pandas-like container in C": (
        "import array; k = array.array('d', [1.0]); f = lambda t, y, a: -k[0] * y", "k[0] = 2.0"
    ),
    "memory view": (
        "k = np.ones(1); v = memoryview(k); f = lambda t, y, a: -v[0] * y", "k[0] = 2.0"
    ),
    "iterator": ("k = iter([1, 1, 1] + [2] * 99); f = lambda t, y, a: -2 * y if stop else -y\n"
                 "stop = False", "stop = True"),
    "function in args": ("law = lambda y: y; f = lambda t, y, a: -law(y)", "law = lambda y: 2 * y"),
    "dictionary of functions": (
        "laws = {'k': lambda y: y}; f = lambda t, y, a: -laws['k'](y)",
        "laws['k'] = lambda y: 2 * y",
    ),
    "custom derivative exchanged": (
        "def named(k):\n    g = jax.custom_jvp(lambda y: k * y)\n"
        "    g.defjvp(lambda p, t: (g(*p), k * t[0]))\n    return g\n"
        "g = named(1); f = lambda t, y, a: -g(y)",
        "g = named(2)",
    ),
}  # fmt: skip


def notebook(cell):
    """A module in which a cell was run."""
    space = types.ModuleType("__notebook__")
    exec("import sys, types, jax, jax.numpy as jnp, numpy as np", vars(space))
    exec(textwrap.dedent(cell), vars(space))
    return space


def end(space):
    """y(1), eagerly, and inside a function under jit that is made anew."""
    problem = de.ODEProblem(space.f, 1.0, (0.0, 1.0))
    eager = de.solve(problem, de.RK4(), dt=0.25).y1
    inside = jax.jit(lambda y0: de.solve(problem.replace(y0=y0), de.RK4(), dt=0.25).y1)(1.0)
    return np.array([eager, inside])


@pytest.mark.parametrize("habit", HABITS)
def test_what_changed_is_seen(habit):
    first, second = HABITS[habit]
    space = notebook(first)
    np.testing.assert_allclose(end(space), np.exp(-1.0), rtol=3e-3)
    exec(textwrap.dedent(second), vars(space))
    np.testing.assert_allclose(end(space), np.exp(-2.0), rtol=3e-3)


def _of_event(condition=None, affect=None):
    event = de.Event(condition or (lambda t, y, a: t - 0.5), affect)
    problem = de.ODEProblem(lambda t, y, a: -y, 1.0, (0.0, 1.0))
    return lambda: de.solve(problem, de.Tsit5(), events=event)


def test_events_saves_and_functions_of_args_see_changes():
    mode = "early"
    event = _of_event(lambda t, y, a: t - (0.25 if mode == "early" else 0.75))
    affect = _of_event(affect=lambda t, y, a: y + (1 if mode == "early" else 2))
    problem = de.ODEProblem(lambda t, y, a: -y, 1.0, (0.0, 1.0))
    functions = {
        "condition": lambda: event().t1,
        "affect": lambda: affect().y1 * np.exp(0.5) - np.exp(-0.5),
        "save": lambda: de.solve(
            problem, de.Tsit5(), save=lambda t, y, a: 1.0 if mode == "early" else 2.0
        ).ys[0],
        "y0": lambda: de.solve(
            problem.replace(y0=lambda a: 1.0 if mode == "early" else 2.0), de.Tsit5()
        ).y1,
        "tspan": lambda: de.solve(
            problem.replace(tspan=lambda a: (0.0, 1.0 if mode == "early" else 2.0)), de.Tsit5()
        ).t1,
        "times": lambda: de.solve(
            problem, de.Tsit5(),
            events=de.PresetTimes(lambda a: np.array([0.5 if mode == "early" else 0.75]),
                                  lambda t, y, a: t),
        ).events[0].ts[0],
    }  # fmt: skip
    before = {name: float(f()) for name, f in functions.items()}
    mode = "late"
    after = {name: float(f()) for name, f in functions.items()}
    assert before == pytest.approx(
        {"condition": 0.25, "affect": 1.0, "save": 1.0, "y0": np.exp(-1), "tspan": 1.0,
         "times": 0.5}, rel=1e-3)  # fmt: skip
    assert after == pytest.approx(
        {"condition": 0.75, "affect": 2.0, "save": 2.0, "y0": 2 * np.exp(-1), "tspan": 2.0,
         "times": 0.75}, rel=1e-3)  # fmt: skip


def test_a_method_of_the_user_sees_changes():
    scale = 1.0

    class Euler(de.Method):
        @property
        def order(self):
            return 1

        def step(self, form, t, y, dt, memory):
            return de.Step(y + scale * dt * form.field(t, y), None, (), ())

    problem = de.ODEProblem(lambda t, y, a: 1.0 + 0 * y, 0.0, (0.0, 1.0))
    ends = [float(de.solve(problem, Euler(), dt=0.25).y1)]
    scale = 2.0
    ends.append(float(de.solve(problem, Euler(), dt=0.25).y1))
    assert ends == [1.0, 2.0]


def test_delayed_noisy_and_algebraic_fields_see_changes():
    sign = "down"
    number = lambda: -1.0 if sign == "down" else 1.0
    key = jax.random.key(0)
    problems = {
        "delayed": de.DDEProblem(
            lambda t, y, past, a: number() * past(t - 1.0), None, (0.0, 0.5), history=1.0, lags=1.0
        ),
        "delayed, opaque": de.DDEProblem(
            lambda t, y, past, a: (number, eval("number"))[1]() * past(t - 1.0), 0.0, (0.0, 0.5), history=1.0,
            lags=1.0,
        ),
        "history": de.DDEProblem(
            lambda t, y, past, a: past(t - 1.0), 0.0, (0.0, 0.5), history=lambda t, a: number(),
            lags=1.0,
        ),
        "noisy": de.SDEProblem(lambda t, y, a: number(), lambda t, y, a: 0.0, 0.0, (0.0, 0.5)),
        "second order": de.SecondOrderProblem(
            lambda t, x, v, a: 0 * x + number(), 0.0, 0.0, (0.0, 0.5)
        ),
        "algebraic": de.DAEProblem(
            lambda t, y, a: jax.numpy.stack([number() + 0 * y[0], y[0] - y[1]]), [0.0, 0.0],
            (0.0, 0.5), mass_matrix=[1.0, 0.0],
        ),
    }  # fmt: skip
    found = []
    for sign in ("down", "up"):  # noqa: B007 - the fields read it
        sols = [
            de.solve(p, key=key if name == "noisy" else None) if name != "noisy"
            else de.solve(p, de.EulerMaruyama(), dt=0.25, key=key)
            for name, p in problems.items()
        ]  # fmt: skip
        found.append([float(np.ravel(jax.tree.leaves(sol.y1)[0])[0]) for sol in sols])
    np.testing.assert_allclose(found[0], [0.5, -0.5, -0.5, -0.5, -0.125, -0.5], rtol=1e-4)
    np.testing.assert_allclose(found[1], [1.5, 0.5, 0.5, 0.5, 0.125, 0.5], rtol=1e-4)


def test_what_is_exchanged_and_exchanged_back_compiles_nothing():
    """A program is known by its equations."""
    act = jax.numpy.sin
    problem = de.ODEProblem(lambda t, y, a: act(y), 1.0, (0.0, 1.0))
    solve = lambda: float(de.solve(problem, de.Tsit5()).y1)
    first = solve()
    act = jax.numpy.cos
    second = solve()
    act = jax.numpy.sin
    assert first == solve()
    assert first != second


assert len(HABITS) >= 56
assert "__notebook__" not in sys.modules
