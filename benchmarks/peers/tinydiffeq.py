"""`tinydiffeq`: end states by its dynamic loop, saves and gradients by its bounded loop.

The bounded loop costs its bound, which a user must guess. Here it is the best there is: the number
of steps that the same solve takes, counted beforehand over all lanes, and a tenth more. (When it
saves, the dynamic loop is slower than that: it keeps a buffer of all steps.)
"""

import importlib.metadata

from benchmarks.peers import jax_common

MOST_STEPS = 100_000
COMPILES_EACH = True


def version():
    """The installed version."""
    import tinydiffeq

    del tinydiffeq
    return importlib.metadata.version("tinydiffeq")


def lacks(case, mode):
    """Dopri5, and long gradients, of which it would keep every stage."""
    if case.method == "dopri5":
        return "no Dopri5"
    if (case.steps or 0) > MOST_STEPS:
        return "its bounded loop keeps every stage of every step"
    return None


def _solution(case, y0, args, rtol, atol, *, loop, max_steps):
    import tinydiffeq as td

    dtype = y0.dtype.type
    fixed = case.dt is not None
    ts = None if case.ts is None else case.ts.astype(y0.dtype)
    return td.solve_ode(
        lambda x, t, args, p: case.field(t, x, p),
        {"tsit5": td.Tsit5, "euler": td.Euler}[case.method](),
        dtype(case.t0),
        dtype(case.t1),
        y0,
        p=args,
        dt_0=dtype(case.dt if fixed else case.dt0),
        save_at=td.SaveAt(t_1=True) if ts is None else td.SaveAt(ts=ts),
        controller=None if fixed else td.PIController(rtol=rtol, atol=atol),
        max_steps=case.steps if fixed else max_steps,
        adaptive_loop="bounded" if fixed else loop,
    )


def _solver(loop, max_steps):
    def solve(case, y0, args, rtol, atol):
        options = {"loop": loop, "max_steps": max_steps}
        return _solution(case, y0, args, rtol, atol, **options).xs

    return solve


def _count(case, y0, args, rtol, atol):
    options = {"loop": "forward", "max_steps": MOST_STEPS}
    return _solution(case, y0, args, rtol, atol, **options).num_steps


def _counted(case, mode):
    """A solve whose bound is counted at its first inputs, so it compiles for each tolerance."""
    count = jax_common.build(_count, case, "forward")

    def at(tolerance):
        compiled = {}

        def solve(inputs):
            if not compiled:
                most = int(1.1 * count(tolerance)(inputs).max()) + 1
                compiled["run"] = jax_common.build(_solver("bounded", most), case, mode)(tolerance)
            return compiled["run"](inputs)

        return solve

    return at


def build(case, mode):
    """`at(tolerance) -> solve(inputs)`."""
    if case.steps is not None or (mode == "forward" and case.saves is None):
        return jax_common.build(_solver("forward", MOST_STEPS), case, mode)
    return _counted(case, mode)
