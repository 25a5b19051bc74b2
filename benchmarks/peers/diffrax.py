"""`diffrax`, as its documentation recommends: jitted, default adjoint, default `throw`."""

import importlib.metadata

from benchmarks.peers import jax_common


def version():
    """The installed version."""
    import diffrax

    del diffrax
    return importlib.metadata.version("diffrax")


def lacks(case, mode):
    """Nothing: it can do every case."""


def _solver(case):
    import diffrax

    return {"tsit5": diffrax.Tsit5, "dopri5": diffrax.Dopri5, "euler": diffrax.Euler}[case.method]()


def _controller(case, rtol, atol):
    import diffrax

    if case.dt is not None:
        return diffrax.ConstantStepSize()
    return diffrax.PIDController(rtol=rtol, atol=atol)


def _solve(case, y0, args, rtol, atol):
    import diffrax

    end = case.ts is None
    saveat = diffrax.SaveAt(t1=True) if end else diffrax.SaveAt(ts=case.ts.astype(y0.dtype))
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(case.field),
        _solver(case),
        t0=y0.dtype.type(case.t0),
        t1=y0.dtype.type(case.t1),
        dt0=None if case.dt is None else y0.dtype.type(case.dt),
        y0=y0,
        args=args,
        saveat=saveat,
        stepsize_controller=_controller(case, rtol, atol),
        max_steps=case.max_steps,
    )
    return sol.ys[-1] if end else sol.ys


def build(case, mode):
    """`at(tolerance) -> solve(inputs)`."""
    return jax_common.build(_solve, case, mode)
