"""Solves the Mackey–Glass equation with JiTCDDE or ddeint, on request, in an interpreter that has
them. Each line of standard input is a JSON object {"peer", "t1", "rtol", "repeat"}; each answer is
one line of JSON, {"y1", "seconds"} or {"lacking"}.
"""

import json
import sys
import time

sys.path.pop(0)  # this folder, where scipy.py is another one

BETA, GAMMA, POWER, LAG, START = 0.2, 0.1, 10, 17.0, 0.5
_built = {}


def _jitcdde():
    """Compiled C, once; then the same object is started anew."""
    if "jitcdde" not in _built:
        from jitcdde import jitcdde, t, y

        old = y(0, t - LAG)
        dde = jitcdde([BETA * old / (1 + old**POWER) - GAMMA * y(0)], max_delay=LAG)
        dde.compile_C(simplify=False)
        _built["jitcdde"] = dde
    return _built["jitcdde"]


def solve_jitcdde(t1, rtol):
    """Steps on discontinuities, then its own controlled steps."""
    dde = _jitcdde()
    dde.purge_past()
    dde.constant_past([START])
    dde.set_integration_parameters(rtol=rtol, atol=rtol, first_step=1e-3, max_step=10.0)
    start = time.perf_counter()
    dde.step_on_discontinuities()
    y1 = dde.integrate(t1)
    return float(y1[0]), time.perf_counter() - start


def solve_ddeint(t1, rtol):
    """It has no tolerance for its past, only the spacing of its output: rtol is that."""
    import numpy as np
    from ddeint import ddeint

    def field(y, t):
        old = y(t - LAG)
        return BETA * old / (1 + old**POWER) - GAMMA * y(t)

    times = np.linspace(0.0, t1, int(t1 / rtol) + 1)
    start = time.perf_counter()
    found = ddeint(field, lambda t: START, times)
    return float(np.ravel(found[-1])[0]), time.perf_counter() - start


SOLVERS = {"jitcdde": solve_jitcdde, "ddeint": solve_ddeint}


def main():
    """Answers until the input ends."""
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            runs = [SOLVERS[ask["peer"]](ask["t1"], ask["rtol"]) for _ in range(ask["repeat"])]
            answer = {"y1": runs[0][0], "seconds": [s for _, s in runs]}
        except Exception as failure:  # whatever a library raises is why it is left out
            answer = {"lacking": f"{type(failure).__name__}: {failure}"}
        print(json.dumps(answer), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    sys.stdout = sys.stderr  # libraries talk; only answers go to the client
    main()
