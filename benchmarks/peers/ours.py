"""`diffeq`, the library that these benchmarks belong to."""

from benchmarks.peers import jax_common


def version():
    """The installed version."""
    import diffeq

    return getattr(diffeq, "__version__", "unreleased")


def lacks(case, mode):
    """Nothing: every case is ours to do."""


def _method(case):
    import diffeq as de

    return {"tsit5": de.Tsit5, "dopri5": de.Dopri5, "euler": de.Euler}[case.method]()


def _options(case, rtol, atol):
    if case.dt is not None:
        return {"dt": case.dt}
    # `max_steps` is a counter here, with a default of 65,536: given where a case needs more.
    options = {"rtol": rtol, "atol": atol}
    return options | ({"max_steps": case.max_steps} if case.max_steps > 65_536 else {})


def _solve(case, y0, args, rtol, atol):
    import diffeq as de

    problem = de.ODEProblem(case.field, y0=y0, tspan=(case.t0, case.t1), args=args)
    saved = {} if case.ts is None else {"saveat": case.ts.astype(y0.dtype)}
    sol = de.solve(problem, _method(case), **saved, **_options(case, rtol, atol))
    return sol.ys[-1] if case.ts is None else sol.ys


def build(case, mode):
    """`at(tolerance) -> solve(inputs)`."""
    return jax_common.build(_solve, case, mode)
