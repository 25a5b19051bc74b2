"""SciPy's `solve_ivp` with RK45 (Dopri5), and a right-hand side in NumPy."""

import importlib.metadata

import numpy as np

HOST = True


def _lotka_volterra(t, y, args):
    prey, predator = y
    a, b, c, d = args
    return np.array([a * prey - b * prey * predator, -c * predator + d * prey * predator])


FIELDS = {"lotka_volterra": _lotka_volterra}


def version():
    """The installed version."""
    import scipy

    del scipy
    return importlib.metadata.version("scipy")


def lacks(case, mode):
    """Gradients, batches, fixed steps."""
    if mode == "gradient":
        return "no gradients"
    if case.vmap is not None:
        return "no batches of trajectories with their own steps"
    if case.steps is not None:
        return "no fixed steps"
    if case.field.__name__ not in FIELDS:
        return f"no NumPy copy of the field {case.field.__name__}"
    return None


def build(case, mode):
    """`at(tolerance) -> solve(inputs)`."""
    from scipy.integrate import solve_ivp

    field = FIELDS[case.field.__name__]
    span = (case.t0, case.t1)

    def at(tolerance):
        options = {"rtol": tolerance, "atol": tolerance * case.atol_ratio, "t_eval": case.ts}

        def solve(inputs):
            y0, args = np.asarray(inputs.y0), np.asarray(inputs.args).tolist()
            sol = solve_ivp(field, span, y0, method="RK45", args=(args,), **options)
            if not sol.success:
                raise RuntimeError(sol.message)
            return sol.y[:, -1] if case.ts is None else sol.y.T

        return solve

    return at
