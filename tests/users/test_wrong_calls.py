"""Wrong calls, and what each is answered: the argument, what came, what was wanted, the way out.

Nearly all are refused before anything is compiled.
"""
# ruff: noqa: E501

import functools
import math
import re

import jax
import jax.numpy as jnp
import jaxtyping
import lineax as lx
import numpy as np
import pytest
import scipy.sparse

import diffeq as de

DECAY = lambda t, y, args: -y
P = de.ODEProblem(DECAY, jnp.array([1.0, 2.0]), (0.0, 1.0))
SCALAR = de.ODEProblem(DECAY, 1.0, (0.0, 1.0))
NOISY = de.SDEProblem(DECAY, lambda t, y, args: 0.1 * y, jnp.ones(2), (0.0, 1.0))
DELAYED = {"y0": jnp.ones(1), "tspan": (0.0, 1.0)}
LAGGED = lambda t, y, past, args: -past(t - 1.0)
KEY = jax.random.key(0)
TS = jnp.array([0.0, 0.5, 1.0])
RNG = np.random.default_rng(0)


class Tensor:
    """Stands for torch.Tensor, which need not be installed."""


Tensor.__module__ = "torch"


class Field:
    def __call__(self, t, y, args):
        return -y


def field(f, **changes):
    """A solve of the two-component problem with this field."""
    return lambda: de.solve(P.replace(f=f, **changes))


def named(text):
    return lambda: de.solve(P, text)


def event(condition, affect=None):
    return lambda: de.solve(P, events=de.Event(condition, affect))


def rotated(a, b, c):
    return [b, c, a]


def net(t, y, args):
    return -y


METHODS = {
    "LSODA": r"leave method out: solve chooses", "BDF": r"wanted: de\.BDF\(\)", "RK45": r"de\.Dopri5\(\)",
    "RK23": r"de\.Bosh3\(\)", "DOP853": r"de\.Dopri8\(\)", "Radau": r"de\.RadauIIA5\(\)",
    "TRBDF2()": r"wanted: de\.TRBDF2\(\)\.", "Rosenbrock23": r"de\.Rosenbrock23\(\)", "FBDF": r"de\.BDF\(\)",
    "QNDF()": r"de\.BDF\(\)", "Vern7": r"de\.Vern7\(\)", "AutoTsit5(Rosenbrock23())": r"leave method out",
    "Rodas5": r"de\.Rodas5P\(\)", "dopri5": r"de\.Dopri5\(\)", "rk4": r"de\.RK4\(\)", "euler": r"de\.Euler\(\)",
    "adaptive_heun": r"de\.Heun\(\)", "ode45": r"de\.Dopri5\(\)", "ode15s": r"de\.BDF\(\)",
    "de.Tsit5()": r"wanted: de\.Tsit5\(\)", "tsit": r"near to it are .*de\.Tsit5\(\)",
    "kvaerno": r"near to it are .*de\.Kvaerno", "magic": r"such as de\.Tsit5\(\), or where it is stiff de\.Rodas5P\(\)",
}  # fmt: skip

ROWS = {
    # --- arguments of solve
    "method: a class": (named(de.Tsit5), r"the class Tsit5; .* de\.Tsit5\(\)"),
    "method: a class that takes some": (named(de.Switching), r"Switching\(nonstiff=…, stiff=…\)"),
    "method: a number": (named(5), r"method is 5; a method is wanted, such as de\.Tsit5\(\)"),
    "method: a controller": (named(de.PI()), r"method is PI.*a method is wanted"),
    "method: for SDEs": (lambda: de.solve(P, de.EulerMaruyama(), dt=0.1), r"solves equations with noise: give an SDEProblem, or choose"),
    "method: for second order": (lambda: de.solve(P, de.VelocityVerlet(), dt=0.1), r"needs positions and momenta: give a SecondOrderProblem"),
    "method: without dt": (lambda: de.solve(P, de.RK4()), r"no error estimate.*dt="),
    "three by position": (lambda: de.solve(P, de.Tsit5(), TS), r"after problem, method in this order.*by name: saveat="),
    "problem: a function": (lambda: de.solve(DECAY), r"write de\.ODEProblem\(f, y0, tspan, args\) first"),
    "problem: a number": (lambda: de.solve(3), r"problem is 3; give a de\.ODEProblem"),
    "problem: None": (lambda: de.solve(None), r"problem is None"),
    "t_eval": (lambda: de.solve(P, t_eval=TS), r"'t_eval', .* Is saveat meant"),
    "ts": (lambda: de.solve(P, ts=TS), r"Is saveat meant"),
    "solver": (lambda: de.solve(P, solver=de.Tsit5()), r"Is method meant"),
    "reltol": (lambda: de.solve(P, reltol=1e-3), r"Is rtol meant"),
    "callback": (lambda: de.solve(P, callback=1), r"Is events meant"),
    "sensealg": (lambda: de.solve(P, sensealg=1), r"Is adjoint meant"),
    "args": (lambda: de.solve(P, args=1), r"Is problem meant"),
    "max_step": (lambda: de.solve(P, max_step=0.1), r"Is controller meant"),
    "misspelt": (lambda: de.solve(P, savat=TS), r"Is saveat meant"),
    "rtol: a string": (lambda: de.solve(P, rtol="1e-3"), r"rtol is '1e-3'"),
    "rtol: negative": (lambda: de.solve(P, rtol=-1e-3), r"rtol is -0\.001; positive"),
    "rtol: NaN": (lambda: de.solve(P, rtol=math.nan), r"rtol is nan; positive"),
    "atol: zero": (lambda: de.solve(P, atol=0.0), r"atol is 0\.0; it must be positive"),
    "atol: too long": (lambda: de.solve(P, atol=jnp.ones(3)), r"atol is .*prefix tree of y0, which is float"),
    "dt: zero": (lambda: de.solve(P, dt=0.0), r"dt is 0\.0; one finite number, not zero"),
    "dt: a string": (lambda: de.solve(P, dt="a"), r"dt is 'a'; one finite number"),
    "dt: backwards": (lambda: de.solve(P, dt=-0.1), r"runs forwards; give dt > 0"),
    "dt0 and given steps": (lambda: de.solve(P, controller=de.Fixed([0.5, 1.0]), dt0=0.1), r"dt0 is the first step of an adaptive solve, and Fixed"),
    "dense: a word": (lambda: de.solve(P, dense="yes"), r"dense is 'yes'; True or False"),
    "Separable: numbers": (lambda: de.Separable(1, 2), r"kinetic is 1; a function t, p, args"),
    "mass_matrix: sparse": (
        lambda: de.solve(de.DAEProblem(DECAY, jnp.ones(2), (0.0, 1.0), mass_matrix=scipy.sparse.eye(2))),
        r"mass_matrix is a dia_matrix, sparse; .*toarray\(\)",
    ),
    "ensemble: many keys": (
        lambda: de.solve_ensemble(NOISY, n=3, key=jax.random.split(KEY, 3)), r"key is an array of 3 keys; one key is wanted"
    ),
    "ensemble: args twice": (
        lambda: de.solve_ensemble(P, n=2, key=KEY, args=jnp.ones(2), draw=lambda key: {"args": jax.random.uniform(key)}),
        r"args was given twice: as args=, and by draw",
    ),
    "dt and dt0": (lambda: de.solve(P, dt=0.1, dt0=0.1), r"dt and dt0 were both given"),
    "dt and a controller": (lambda: de.solve(P, dt=0.1, controller=de.PI()), r"both given: dt is a fixed step"),
    "controller: a class": (lambda: de.solve(P, controller=de.PID), r"the class PID; .*: de\.PID\(\)"),
    "controller: a class that takes some": (lambda: de.solve(P, controller=de.Fixed), r"de\.Fixed\(ts=…\)"),
    "controller: a number": (lambda: de.solve(P, controller=0.1), r"controller is 0\.1;.*de\.PI\(dtmax=0\.1\)"),
    "controller: a string": (lambda: de.solve(P, controller="pid"), r"such as de\.PID\(\)"),
    "adjoint: a class": (lambda: de.solve(P, adjoint=de.Gauss), r"the class Gauss; .*: de\.Gauss\(\)"),
    "adjoint: a string": (lambda: de.solve(P, adjoint="backsolve"), r"such as de\.Backsolve\(\)"),
    "adjoint: Julia's name": (lambda: de.solve(P, adjoint="GaussAdjoint()"), r"such as de\.Gauss\(\)"),
    "adjoint: a number": (lambda: de.solve(P, adjoint=1), r"adjoint is 1; .*de\.Discrete\(\)"),
    "max_steps: zero": (lambda: de.solve(P, max_steps=0), r"max_steps is 0; a positive whole number"),
    "max_steps: a float": (lambda: de.solve(P, max_steps=1e4), r"max_steps is 10000\.0; a positive whole"),
    "init: unknown": (lambda: de.solve(P, init="no"), r"init is 'no'; 'consistent', 'check' or 'given'"),
    "progress: a number": (lambda: de.solve(P, progress=3), r"progress is 3; True or False"),
    "stops: a function that returns none": (
        lambda: de.solve(P, stops=lambda args: None),
        r"stops is a function of args that returned None; times are wanted",
    ),
    "dense output: complex": (
        lambda: de.solve(P, dense=True)(1j),
        r"t is of complex\d+; a real time is wanted",
    ),
    "mass_matrix: complex": (
        lambda: de.solve(
            de.DAEProblem(lambda t, y, args: -y, [1.0, 1.0], (0.0, 1.0), mass_matrix=[1.0 + 1j, 0])
        ),
        r"mass_matrix is complex\d+\[2\], complex, and y0 is real",
    ),
    "throw: unknown": (lambda: de.solve(P, throw="loud"), r"throw is 'loud'"),
    "key: without noise": (lambda: de.solve(P, key=KEY), r"ODEProblem has no noise: leave key out"),
    # --- saveat, save, stops
    "saveat: a number": (lambda: de.solve(P, saveat=0.5), r"saveat is 0\.5; a sequence of times"),
    "saveat: ragged": (lambda: de.solve(P, saveat=[[0.0], [0.5, 1.0]]), r"saveat is \[\[0\.0\], \[0\.5, 1\.0\]\]; a sequence of times"),
    "stops: ragged": (lambda: de.solve(P, stops=[[0.0], [0.5, 1.0]]), r"stops is \[\[0\.0\], \[0\.5, 1\.0\]\]; a sequence of times"),
    "dt: ragged": (lambda: de.solve(P, dt=[[1.0], [1.0, 2.0]]), r"dt is \[\[1\.0\], \[1\.0, 2\.0\]\]; one finite number"),
    "saveat: a string": (lambda: de.solve(P, saveat="all"), r'saveat is \'all\'; times, "steps" or None'),
    "saveat: empty": (lambda: de.solve(P, saveat=jnp.zeros(0)), r"saveat is empty; at least one time"),
    "saveat: outside": (lambda: de.solve(P, saveat=[0.5, 2.0]), r"saveat has 2, outside tspan = \(0, 1\)"),
    "saveat: not sorted": (lambda: de.solve(P, saveat=[0.5, 0.2]), r"not sorted .*give jnp\.sort\(saveat\)\."),
    "saveat: against the time": (lambda: de.solve(P.replace(tspan=(1, 0)), saveat=TS), r"from t0 = 1 to t1 = 0: give jnp\.sort\(saveat\)\[::-1\]"),
    "saveat: NaN in front": (lambda: de.solve(P, saveat=[math.nan, 0.5]), r"NaN is padding, at the end only"),
    "saveat: an empty dict": (lambda: de.solve(P, saveat={}), r"at least one key is wanted"),
    "saveat: words": (lambda: de.solve(P, saveat=["now", "later"]), r"saveat is \['now', 'later'\]; a sequence of times"),
    "save: a number": (lambda: de.solve(P, saveat=TS, save=3), r"a function save\(t, y, args\) is wanted"),
    "save: a dict of no keys": (lambda: de.solve(P, saveat=TS, save={"a": net}), r"saveat must be a dict with the same keys"),
    "save: y alone": (lambda: de.solve(P, saveat=TS, save=lambda y: y), r"save\(y\) cannot be called as save\(t, y, args\)"),
    "save: out of range": (lambda: de.solve(P, saveat=TS, save=lambda t, y, args: y[2]), r"save reads index 2 of an array of shape \(2,\)"),
    "stops: a word": (lambda: de.solve(P, stops="x"), r"stops is 'x'; a sequence of times"),
    "stops: a number": (lambda: de.solve(P, stops=0.5), r"stops is 0\.5; a sequence of times"),
    # --- problems
    "p": (lambda: de.ODEProblem(DECAY, 1.0, (0, 1), p=2.0), r"ODEProblem got 'p', .*Is args meant"),
    "u0": (lambda: de.ODEProblem(DECAY, u0=1.0, tspan=(0, 1)), r"'u0', .*Is y0 meant"),
    "t_span": (lambda: de.ODEProblem(DECAY, 1.0, t_span=(0, 1)), r"'t_span', .*Is tspan meant"),
    "fun": (lambda: de.ODEProblem(fun=DECAY, y0=1.0, tspan=(0, 1)), r"'fun', .*Is f meant"),
    "rtol of a problem": (lambda: de.ODEProblem(DECAY, 1.0, (0, 1), rtol=1e-3), r"rtol is an argument of solve"),
    "five by position": (lambda: de.ODEProblem(DECAY, 1.0, (0, 1), 2.0, 3.0), r"got 3\.0 after f, y0, tspan, args in this order.*jac="),
    "f of an SDE": (lambda: de.SDEProblem(f=DECAY, diffusion=DECAY, y0=1.0, tspan=(0, 1)), r"Is drift meant"),
    "mass of a DAE": (lambda: de.DAEProblem(DECAY, 1.0, (0, 1), mass=1.0), r"Is mass_matrix meant"),
    "delays of a DDE": (lambda: de.DDEProblem(LAGGED, **DELAYED, history=jnp.ones(1), delays=1.0), r"Is lags meant"),
    "replace: p": (lambda: P.replace(p=1), r"ODEProblem\.replace got 'p'; its fields are f, y0"),
    "y0: whole numbers": (lambda: de.solve(P.replace(y0=jnp.array([1, 2]))), r"y0 has dtype int.*write 1\.0 for 1"),
    "y0: a word": (lambda: de.solve(P.replace(y0="a")), r"y0 is 'a'; a number or an array"),
    "y0: None": (lambda: de.solve(P.replace(y0=None)), r"y0 has no arrays"),
    "y0: empty": (lambda: de.solve(P.replace(y0=jnp.zeros(0))), r"y0 is .*empty"),
    "y0: NaN": (lambda: de.solve(P.replace(y0=jnp.array([1.0, jnp.nan]))), r"y0 has NaN; a finite initial state"),
    "y0: ragged": (field(DECAY, y0=[1.0, [2.0, 3.0]]), r"y is a list there, a tree as y0 is.*one array as y0"),
    "y0: rows": (field(DECAY, y0=[[1.0, 2.0], [3.0, 4.0]]), r"jnp\.array\(y0\)"),
    "y0: a dict, used as an array": (field(DECAY, y0={"x": 1.0}), r"y is a dict there, a tree"),
    "tspan: a number": (lambda: de.solve(P.replace(tspan=1.0)), r"tspan is 1\.0; a pair \(t0, t1\)"),
    "tspan: three": (lambda: de.solve(P.replace(tspan=(0, 1, 2))), r"tspan is \(0, 1, 2\); a pair"),
    "tspan: infinite": (lambda: de.solve(P.replace(tspan=(0, jnp.inf))), r"finite times are wanted"),
    "tspan: words": (lambda: de.solve(P.replace(tspan=("a", "b"))), r"tspan is \('a', 'b'\); two scalars"),
    "f: a number": (field(3), r"f is 3; a function f\(t, y, args\)"),
    "f: None": (field(None), r"f is None; a function f\(t, y, args\)"),
    "f: a class": (field(Field), r"f is the class Field; an instance is wanted, Field\(…\)"),
    "f: two arguments": (field(lambda t, y: -y), r"f\(t, y\) cannot be called as f\(t, y, args\)"),
    "f: y first": (field(lambda y, t, args: -y), r"does not have t first"),
    "jac: a matrix": (field(DECAY, jac=jnp.eye(2)), r"a function jac\(t, y, args\)"),
    # --- what a field returns, and what fails in it
    "f: a string": (field(lambda t, y, args: "x"), r"f returned the string 'x'; numbers"),
    "f: a string among numbers": (field(lambda t, y, args: [y[0], "x"]), r"the string 'x' at \[1\]"),
    "f: True": (field(lambda t, y, args: True), r"f returned True; numbers are wanted: jnp\.where"),
    "f: booleans": (field(lambda t, y, args: y > 0), r"f returned booleans; numbers"),
    "f: no return": (field(lambda t, y, args: None), r"f returned None;.*its return left out"),
    "f: a function": (field(lambda t, y, args: jnp.sin), r"f returned the function sin.*is it to be called"),
    "f: another shape": (field(lambda t, y, args: y[0]), r"f returned shape \(\); y has shape \(2,\)"),
    "f: a tree": (field(lambda t, y, args: {"x": y}), r"f returned \{x: float.*y is float"),
    "f: complex": (field(lambda t, y, args: 1j * y), r"f returned dtype complex.*give y0 as complex"),
    "f: np.sin": (field(lambda t, y, args: np.sin(y)), r"jnp\.sin\(y\) for np\.sin\(y\)"),
    "f: np.sin of a number": (field(lambda t, y, args: y * np.sin(y[0])), r"jnp\.sin\(y\) for np\.sin\(y\)"),
    "f: math.sin": (field(lambda t, y, args: y * math.sin(y[0])), r"math\.sin\(y\)"),
    "f: if": (field(lambda t, y, args: -y if y[0] > 0 else y), r"jnp\.where\(condition, a, b\) or jax\.lax\.cond"),
    "f: max": (field(lambda t, y, args: y * max(y[0], y[1])), r"jnp\.where\(condition, a, b\)"),
    "f: float": (field(lambda t, y, args: y * float(y[0])), r"leave out float"),
    "f: int as an index": (field(lambda t, y, args: y * [1.0, 2.0][y[0].astype(int)]), r"f is compiled"),
    "f: a key that is not there": (field(lambda t, y, args: -args["w"] * y, args={"k": 1.0}), r"'w'.*The keys of args are 'k'"),
    "f: a key of y": (field(lambda t, y, args: {"x": y["z"]}, y0={"x": 1.0}), r"The keys of y are 'x'"),
    "f: args of None, a key": (field(lambda t, y, args: -args["k"] * y), r"args is None.*give it its parameters"),
    "f: args of None, a factor": (field(lambda t, y, args: -args * y), r"args is None.*args=…"),
    "f: unpacks too many": (field(lambda t, y, args: rotated(*y)), r"missing 1 required.*y is float\d+\[2\]"),
    "f: too many names": (field(lambda t, y, args: [a for a, b, c in [y]]), r"not enough values.*y is float\d+\[2\]"),
    "f: y[5]": (field(lambda t, y, args: y[5] * y), r"f reads index 5 of an array of shape \(2,\), whose axis 0 has 2 entries"),
    "f: y[-3]": (field(lambda t, y, args: y[-3] * y), r"f reads index -3"),
    "f: args[4]": (field(lambda t, y, args: args[4] * y, args=jnp.ones(3)), r"f reads index 4 of an array of shape \(3,\)"),
    "f: a column": (field(lambda t, y, args: args[:, 2] * y, args=jnp.ones((2, 2))), r"index 2 of .*\(2, 2\), whose axis 1 has 2"),
    "f: rows by a list": (field(lambda t, y, args: y[np.array([0, 2])]), r"f reads index 2"),
    "f: inside jit": (field(jax.jit(lambda t, y, args: y[2] * y)), r"f reads index 2"),
    "f: inside a loop": (field(lambda t, y, args: jax.lax.fori_loop(0, 2, lambda i, x: x + y[2], y)), r"f reads index 2"),
    "jac: another shape": (lambda: de.solve(P.replace(jac=lambda t, y, args: -y), de.Rodas5P()), r"jac returned float.*∂f/∂y"),
    # --- torch
    "torch: y0": (lambda: de.solve(P.replace(y0=Tensor())), r"y0 is a torch Tensor; .*jnp\.asarray\(x\.numpy\(\)\).*diffeq\.torch"),
    "torch: in y0": (lambda: de.solve(P.replace(y0=[Tensor()])), r"y0 has in it a torch Tensor"),
    "torch: tspan": (lambda: de.solve(P.replace(tspan=(0.0, Tensor()))), r"tspan has in it a torch Tensor"),
    "torch: saveat": (lambda: de.solve(P, saveat=Tensor()), r"saveat is a torch Tensor"),
    "torch: a list in saveat": (lambda: de.solve(P, saveat=[Tensor()]), r"saveat has in it a torch Tensor"),
    "torch: args": (lambda: de.solve(P.replace(args={"k": Tensor()})), r"args has in it a torch Tensor"),
    "torch: returned": (field(lambda t, y, args: Tensor()), r"f returned a torch Tensor; arrays of JAX"),
    "torch: rows": (lambda: de.solve_ensemble(P, y0=Tensor()), r"y0 is a torch Tensor"),
    # --- methods, controllers, tables
    "Tsit5(rtol)": (lambda: de.Tsit5(rtol=1e-3), r"Tsit5 got 'rtol'.*given to solve"),
    "KenCarp4(newton)": (lambda: de.KenCarp4(newton=1), r"KenCarp4 got 'newton'.*it takes linear"),
    "Rodas5P(linear)": (lambda: de.Rodas5P(linear=lx.LU()), r"Rodas5P got 'linear'.*KenCarp4\(linear=…\)"),
    "PI(rtol)": (lambda: de.PI(rtol=1e-3), r"^PI got 'rtol'.*rtol is an argument of solve"),
    "I(max_dt)": (lambda: de.I(max_dt=0.1), r"^I got 'max_dt'.*Is dtmax meant"),
    "PID: two exponents": (lambda: de.PID((0.3, 0.1)), r"exponents is \(0\.3, 0\.1\); three numbers"),
    "PID: one number": (lambda: de.PID(0.3), r"exponents is 0\.3; three numbers"),
    "PID: safety": (lambda: de.PID(safety=-1.0), r"safety is -1\.0; a number above 0 and at most 1"),
    "PID: shrink": (lambda: de.PI(shrink=2.0), r"shrink is 2\.0; a number between 0 and 1"),
    "PID: grow": (lambda: de.PI(grow=0.5), r"grow is 0\.5; a number of 1 or more"),
    "PI: dtmax": (lambda: de.solve(P, controller=de.PI(dtmax=-1.0)), r"dtmax is -1\.0; one positive number"),
    "PI: dtmin above dtmax": (lambda: de.solve(P, controller=de.PI(dtmin=1.0, dtmax=0.1)), r"above dtmax = 0\.1"),
    "Fixed: a number": (lambda: de.Fixed(0.1), r"ts has shape \(\); a sequence.*solve's dt="),
    "Fixed: a word": (lambda: de.Fixed("x"), r"ts is 'x'; a sequence of times"),
    "Fixed: no order": (lambda: de.Fixed([0.0, 1.0, 0.5]), r"goes up and down.*jnp\.sort\(ts\)"),
    "Tableau: garbage": (lambda: de.Tableau("garbage"), r"a row 'label \| entries' was wanted, not 'garbage'"),
    "Tableau: a matrix": (lambda: de.Tableau([[0.0]]), r"read from a text.*list came"),
    "Tableau: without b": (lambda: de.Tableau("0 |\n1 | 1"), r"needs a row 'b"),
    "Tableau: too long a row": (lambda: de.Tableau("0 |\n1 | 1 1 1\nb | 1/2 1/2"), r"stage 2: 3 entries where at most 2"),
    "Tableau: no number": (lambda: de.Tableau("0 |\nb | x"), r"cannot read 'x'"),
    "Splitting: garbage": (lambda: de.Splitting("a | 1"), r"rows kick and drift of equal length"),
    "ExplicitRK: implicit": (lambda: de.ExplicitRK(de.ImplicitEuler().tableau), r"is implicit; ExplicitRK takes"),
    # --- events
    "events: a function": (lambda: de.solve(P, events=net), r"an event is wanted, such as de\.Event\(condition\)"),
    "events: a class": (lambda: de.solve(P, events=de.Event), r"events is the class Event; .*de\.Event\(…\)"),
    "events: a number in a list": (lambda: de.solve(P, events=[3]), r"events\[0\] is 3; an event"),
    "Event: a number": (lambda: de.Event(1), r"condition is 1; a function condition\(t, y, args\)"),
    "Event: direction": (lambda: de.Event(net, direction="up"), r"direction is 'up'; −1, 0 or 1"),
    "Event: affect": (lambda: de.Event(net, 3), r"affect is 3; a function affect\(t, y, args\)"),
    "Event: y alone": (event(lambda y: y[0]), r"events\[0\]\.condition\(y\) cannot be called"),
    "Event: a string": (event(lambda t, y, args: "x"), r"condition returned the string 'x'; a real number"),
    "Event: None": (event(lambda t, y, args: None), r"condition returned None; one number"),
    "Event: a matrix": (event(lambda t, y, args: jnp.ones((2, 2))), r"condition returned \(2, 2\); one number"),
    "Event: whole numbers": (event(lambda t, y, args: jnp.array(1)), r"condition returned dtype int"),
    "Event: out of range": (event(lambda t, y, args: y[2]), r"events\[0\]\.condition reads index 2"),
    "Event: if": (event(lambda t, y, args: y[0] if y[1] > 0 else y[1]), r"condition is compiled.*jnp\.where"),
    "affect: another shape": (event(lambda t, y, args: y[0] - 0.5, lambda t, y, args: y[0]), r"affect returned shape \(\); y has shape \(2,\)"),
    "affect: no return": (event(lambda t, y, args: y[0] - 0.5, lambda t, y, args: None), r"affect returned None; y is"),
    "PresetTimes: a word": (lambda: de.PresetTimes("x", net), r"times is 'x'; a sequence of numbers"),
    "PresetTimes: a number": (lambda: de.PresetTimes(1.0, net), r"times has shape \(\); a sequence"),
    "Periodic: negative": (lambda: de.Periodic(-1.0, net), r"period is -1\.0; one positive number"),
    # --- noise, jumps, delays, DAEs, second order
    "SDE: no key": (lambda: de.solve(NOISY), r"key is None; an SDE draws its noise from a key: .*jax\.random\.key\(0\)"),
    "SDE: a number as key": (lambda: de.solve(NOISY, key=0), r"key is 0; one key is wanted"),
    "SDE: many keys": (lambda: de.solve(NOISY, key=jax.random.split(KEY, 3)), r"an array of 3 keys.*jax\.vmap"),
    "SDE: backwards": (lambda: de.solve(NOISY.replace(tspan=(1.0, 0.0)), key=KEY), r"runs backwards; an SDE is solved forwards"),
    "SDE: noise": (lambda: de.SDEProblem(DECAY, DECAY, 1.0, (0, 1), noise="white"), r"noise is 'white'; one of 'diagonal'"),
    "SDE: a matrix": (lambda: de.solve(NOISY.replace(diffusion=lambda t, y, a: jnp.eye(2)), key=KEY), r"diffusion returned .*give noise='general'"),
    "SDE: a string": (lambda: de.solve(NOISY.replace(diffusion=lambda t, y, a: "x"), key=KEY), r"diffusion returned the string 'x'"),
    "SDE: method of an ODE": (lambda: de.solve(NOISY, de.Tsit5(), key=KEY), r"without noise: choose a method for SDEs, such as de\.SOSRI"),
    "Jump: affect": (lambda: de.Jump(1.0, 3), r"affect is 3; a function affect\(t, y, args\)"),
    "DDE: no lags": (lambda: de.solve(de.DDEProblem(LAGGED, **DELAYED, history=jnp.ones(1), lags=None)), r"lags is None; positive numbers"),
    "DDE: a negative lag": (lambda: de.solve(de.DDEProblem(LAGGED, **DELAYED, history=jnp.ones(1), lags=-1.0)), r"lags has -1; a lag is positive"),
    "DDE: no history": (lambda: de.solve(de.DDEProblem(LAGGED, **DELAYED, history=None, lags=1.0)), r"history is None; a function history\(t, args\)"),
    "DDE: field of an ODE": (lambda: de.solve(de.DDEProblem(DECAY, **DELAYED, history=jnp.ones(1), lags=1.0)), r"f\(t, y, args\) cannot be called as f\(t, y, past, args\)"),
    "DDE: out of range": (lambda: de.solve(de.DDEProblem(lambda t, y, past, a: -past(t - 1.0)[3] * y, **DELAYED, history=jnp.ones(1), lags=1.0)), r"f reads index 3 of an array of shape \(1,\)"),
    "DDE: args is None": (lambda: de.solve(de.DDEProblem(lambda t, y, past, a: -past(t - 1.0) * a["k"], **DELAYED, history=jnp.ones(1), lags=1.0)), r"args is None, .*f is called as f\(t, y, past, args\).*past is called with a time, args is None"),
    "DDE: a branch on the past": (lambda: de.solve(de.DDEProblem(lambda t, y, past, a: -y if past(t - 1.0)[0] > 0 else y, **DELAYED, history=jnp.ones(1), lags=1.0)), r"Write jnp\.where"),
    "DAE: a mass of another shape": (lambda: de.solve(de.DAEProblem(DECAY, jnp.ones(2), (0, 1), mass_matrix=jnp.eye(3))), r"mass_matrix is float.*of shape \(2, 2\)"),
    "DAE: NaN in the mass": (lambda: de.solve(de.DAEProblem(DECAY, jnp.ones(2), (0, 1), mass_matrix=jnp.full(2, jnp.nan))), r"mass_matrix has NaN"),
    "second order: other shapes": (lambda: de.solve(de.SecondOrderProblem(lambda t, x, v, a: -x, 1.0, jnp.ones(2), (0, 1))), r"v0 is float.*must match x0"),
    "Hamiltonian: no scalar": (lambda: de.solve(de.HamiltonianProblem(lambda t, q, p, a: q, jnp.ones(2), jnp.ones(2), (0, 1)), dt=0.1), r"hamiltonian returned shape \(2,\); an energy is a scalar"),
    # --- steady states, consistent values, steps by hand
    "steady: saveat": (lambda: de.solve(de.SteadyStateProblem(DECAY, jnp.ones(2)), saveat=TS), r"saveat was given with a SteadyStateProblem"),
    "steady: no error estimate": (lambda: de.solve(de.SteadyStateProblem(DECAY, jnp.ones(2)), de.Euler()), r"no error estimate.*None for Newton"),
    "steady: tspan": (lambda: de.SteadyStateProblem(DECAY, jnp.ones(2), tspan=(0, 1)), r"SteadyStateProblem got 'tspan'"),
    "consistent: an ODE": (lambda: de.consistent(P), r"a DAEProblem is wanted"),
    "init: saveat": (lambda: de.init(P, saveat=TS), r"init got 'saveat'.*saveat is an argument of solve"),
    "init: a string": (lambda: de.init(P, "rk4"), r"wanted: de\.RK4\(\)"),
    "step: a problem": (lambda: de.step(P), r"a State is wanted, which de\.init\(problem, method\) makes"),
    "advance: a word": (lambda: de.advance(de.init(P), "x"), r"t is 'x'; one number"),
    # --- inputs
    "Linear: lengths": (lambda: de.interp.Linear([0, 1], [1, 2, 3]), r"xs has shape \(3,\); its first axis must be that of ts, 2"),
    "Linear: a word": (lambda: de.interp.Linear("noon", 1.0), r"ts is 'noon'; a sequence of times"),
    "Linear: down": (lambda: de.interp.Linear([1, 0], [1, 2]), r"ts must increase"),
    "Linear: NaN": (lambda: de.interp.Linear([0, 1, 2], [1.0, np.nan, 3.0]), r"xs has NaN at ts\[1\] = 1: leave out the times"),
    "Hold: NaN in a tree": (lambda: de.interp.Hold([0.0, 1.0], {"a": jnp.array([np.nan, 1.0])}), r"xs\['a'\] has NaN at ts\[0\] = 0"),
    "Cubic: NaN": (lambda: de.interp.Cubic([0, 1, 2], [np.nan, 1.0, 2.0]), r"xs has NaN at ts\[0\]"),
    "Cubic: words": (lambda: de.interp.Cubic([0, 1], ["low", "high"]), r"xs is \['low', 'high'\]; numbers"),
    "Cubic: ends": (lambda: de.interp.Cubic([0, 1], [1.0, 2.0], ends="flat"), r"'not-a-knot' or 'natural'"),
    "Cubic: one time": (lambda: de.interp.Cubic([0], [1.0]), r"a curve wants two at least"),
    "infusions: lengths": (lambda: de.infusions([0.0], [1.0, 2.0], [1.0]), r"rates has shape \(2,\); one for each of the 1 starts"),
    # --- ensembles, statistics
    "ensemble: one state": (lambda: de.solve_ensemble(P, y0=jnp.array([1.0, 2.0])), r"y0 has rows of shape \(\), .*give y0 the shape \(n, 2\)"),
    "ensemble: wide rows": (lambda: de.solve_ensemble(P, y0=jnp.ones((4, 3))), r"y0 has rows of shape \(3,\).*shape \(n, 2\)"),
    "ensemble: a pair": (lambda: de.solve_ensemble(de.SecondOrderProblem(lambda t, x, v, a: -x, jnp.ones(2), jnp.ones(2), (0, 1)), y0=(jnp.ones((3, 1)), jnp.ones((3, 1)))), r"x0 has rows of shape \(1,\)"),
    "ensemble: nothing": (lambda: de.solve_ensemble(P), r"nothing has a leading axis"),
    "ensemble: a number": (lambda: de.solve_ensemble(P, args=1.0), r"args is 1\.0, without a leading axis"),
    "ensemble: lengths": (lambda: de.solve_ensemble(P, y0=jnp.ones((2, 2)), args=jnp.ones(3)), r"leading axes disagree: y0 has 2, args has 3"),
    "ensemble: strategy": (lambda: de.solve_ensemble(P, strategy="fast"), r"strategy is 'fast'; one of"),
    "ensemble: trajectories": (lambda: de.solve_ensemble(P, trajectories=3), r"Is n meant"),
    "ensemble: n": (lambda: de.solve_ensemble(P, n=3), r"nothing differs among 3 solves"),
    "ensemble: draw without key": (lambda: de.solve_ensemble(P, n=3, draw=lambda key: {}), r"draw was given without key"),
    "ensemble: draw of no dict": (lambda: de.solve_ensemble(P, n=3, key=KEY, draw=lambda key: 1.0), r"draw returned float; a dict"),
    "ensemble: chunk": (lambda: de.solve_ensemble(P, args=TS, chunk="big"), r"chunk is 'big'"),
    "ensemble: reduce": (lambda: de.solve_ensemble(P, args=TS, reduce="mean"), r"reduce has 'mean'; statistics are wanted, such as de\.stats\.Mean\(\)"),
    "ensemble: resume": (lambda: de.solve_ensemble(P, args=TS, progress=True), r"progress was given without reduce"),
    # --- layers
    "NeuralODE: a number": (lambda: de.nn.NeuralODE(3), r"net is a int, which is not callable"),
    "NeuralODE: no tspan": (lambda: de.nn.NeuralODE(jnp.sin)(jnp.ones(2)), r"tspan is not known"),
    "NeuralODE: tspan": (lambda: de.nn.NeuralODE(jnp.sin, tspan=3)(jnp.ones(2)), r"tspan is 3; a pair"),
    "NeuralODE: solver": (lambda: de.nn.NeuralODE(jnp.sin, solver=3), r"'solver', which it does not know.*Is method meant\?"),
    "NeuralODE: tspan by place": (lambda: de.nn.NeuralODE(jnp.sin, (0.0, 1.0)), r"got \(0\.0, 1\.0\) after net.*by name: tspan="),
    "NeuralODE: t_eval": (lambda: de.nn.NeuralODE(jnp.sin, tspan=(0, 1), t_eval=3), r"'t_eval', which it does not know.*Is saveat meant\?"),
    "NeuralSDE: tspan by place": (lambda: de.nn.NeuralSDE(jnp.sin, jnp.cos, (0.0, 1.0)), r"after drift, diffusion.*by name: tspan="),
    # --- tables
    "ExplicitRK: a name": (lambda: de.ExplicitRK("Tsit5"), r"tableau is 'Tsit5'; a de\.Tableau is wanted"),
    "Rosenbrock: a number": (lambda: de.Rosenbrock(3), r"tableau is 3; a de\.RosenbrockTableau is wanted"),
    "DIRK: None": (lambda: de.DIRK(None), r"tableau is None; a de\.Tableau is wanted"),
    "FIRK: a list": (lambda: de.FIRK([1.0]), r"tableau is \[1\.0\]; a de\.Tableau is wanted"),
    "Symplectic: another table": (lambda: de.Symplectic(de.Tsit5().tableau), r"a de\.Splitting is wanted"),
    "Nystrom: a word": (lambda: de.Nystrom("x"), r"a de\.NystromTableau is wanted"),
    "SRI: a word": (lambda: de.SRI("x"), r"a de\.StochasticTableau is wanted"),
    # --- training
    "fit: optimizer by place": (lambda: de.fit(1.0, jnp.square, 3.0), r"fit needs optimizer=, by that name"),
    "fit: batch": (lambda: de.fit(1.0, jnp.square, optimizer=3, batch=2), r"'batch', which it does not know.*Is batch_size meant\?"),
    "fit: lr": (lambda: de.fit(1.0, jnp.square, lr=0.1), r"Is optimizer meant\?"),
    "fit: epochs": (lambda: de.fit(1.0, jnp.square, optimizer=3, epochs=2), r"Is steps meant\?"),
    "fit: optimizer": (lambda: de.fit(1.0, jnp.square, optimizer="adam", steps=1), r"optimizer is 'adam'.*optax\.adam\(1e-2\)"),
    # --- events
    "doses: no into": (lambda: de.doses([0.0], [1.0]), r"into is None; an index, .*\(\) for all of a y that is one number"),
    "doses: cmt": (lambda: de.doses([0.0], [1.0], cmt=2), r"Is into meant\?"),
    "Event: event": (lambda: de.Event(lambda t, y, args: y, terminate=True), r"Is terminal meant\?"),
    "PresetTimes: effect": (lambda: de.PresetTimes([1.0], effect=None), r"Is affect meant\?"),
    "infusions: duration": (lambda: de.infusions(TS, TS, duration=1.0), r"Is durations meant\?"),
    "NeuralODE: a string": (lambda: de.nn.NeuralODE(jnp.sin, tspan=(0.0, 1.0), method="dopri5")(jnp.ones(2)), r"de\.Dopri5\(\)"),
    # --- solutions
    "sol(t): not dense": (lambda: de.solve(P)(0.5), r"give dense=True to solve"),
    "sol(t): after": (lambda: dense()(2.0), r"t has 2, outside of the interval that was solved, \(0, 1\)"),
    "sol(t): before": (lambda: dense()(jnp.array([0.5, -1.0])), r"t has -1, outside"),
    "sol.derivative(t): after": (lambda: dense().derivative(2.0), r"t has 2, outside"),
    "sol(t): a word": (lambda: dense()("x"), r"t is 'x'; a time is wanted"),
} | {f"method: {text}": (named(text), words) for text, words in METHODS.items()}  # fmt: skip


@pytest.fixture(autouse=True)
def _as_users_call():
    """Without the types that our tests check, which a user's program does not."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@functools.cache
def dense():
    return de.solve(P, de.Tsit5(), dense=True, dt=0.25)


@pytest.mark.parametrize("call", ROWS)
def test_a_wrong_call_is_told_what_is_wrong(call):
    wrong, words = ROWS[call]
    with pytest.raises((TypeError, ValueError, LookupError, jax.errors.JAXTypeError)) as caught:
        wrong()
    said = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert re.search(words, said, re.DOTALL), said


@pytest.mark.parametrize("draw", [lambda: np.random.rand(), lambda: RNG.normal()])  # noqa: NPY002
def test_a_draw_while_tracing_is_told(draw):
    with pytest.warns(UserWarning, match=r"f drew a random number of NumPy.*de\.SDEProblem"):
        de.solve(SCALAR.replace(f=lambda t, y, args: -draw() * y), de.Tsit5(), dt=0.5)


def test_what_is_right_is_not_refused():
    sol = dense()
    assert jnp.isfinite(sol(jnp.array([0.0, 1.0]))).all()
    assert jnp.isnan(jax.jit(lambda t: sol(t))(2.0)).all()
    last = lambda t, y, args: jnp.stack([y[-1], y.at[5].get(mode="clip"), y.at[5].set(1.0)[0]])
    de.solve(P.replace(f=last, y0=jnp.ones(3)), de.Tsit5(), dt=0.5)
    assert de.PI(dtmax=0.1, safety=0.9).exponents == (0.9, 0.1, 0.0)
    assert de.interp.Linear([0.0, 1.0, jnp.nan], [1.0, 2.0, jnp.nan])(0.5) == 1.5


def test_a_dtype_that_cannot_hold_the_default_tolerance_is_told():
    """Four units of bfloat16 are 0.031, and the default rtol is 0.001: steps are judged at that."""
    problem = de.ODEProblem(lambda t, y, a: -y, jnp.ones(1, jnp.bfloat16), (0.0, 1.0))
    with pytest.warns(UserWarning, match=r"bfloat16 cannot hold an error below 0\.03.*float32"):
        sol = de.solve(problem, de.Heun())
    assert sol.stats["floored"] > 0
    de.solve(problem, de.Heun(), dt=0.125)  # given steps are judged by nobody


@pytest.mark.parametrize(
    ("name", "hint"), [("y", r": sol\.ys is"), ("t", r": sol\.ts is"), ("foo", r"\.$")]
)
def test_an_attribute_that_a_solution_of_scipy_has(name, hint):
    sol = dense()
    with pytest.raises(AttributeError, match=f"a Solution has no attribute '{name}'{hint}"):
        getattr(sol, name)
    assert not hasattr(sol, name)


def test_a_time_that_is_an_end_but_for_rounding_is_read():
    sol = de.solve(P.replace(tspan=(0.0, 3.0)), dense=True)
    for read in (sol, jax.jit(lambda t: sol(t)), sol.derivative):
        for end, beyond in ((3.0, 3 + 1e-15), (0.0, -1e-20)):
            np.testing.assert_allclose(
                read(jnp.asarray(beyond)), read(jnp.asarray(end)), rtol=1e-12
            )
