"""The libraries that are compared, each behind the same three functions.

    version() -> str                       raises ImportError where the peer is not installed
    lacks(case, mode) -> str | None        why this peer cannot do this case; None when it can
    build(case, mode) -> at                `at(tolerance) -> solve`, `solve(inputs) -> outputs`

`mode` is "forward" (outputs: the saved states) or "gradient" (outputs: the loss, and its gradient
by the parameters). The relative tolerance is `tolerance`, the absolute one `tolerance *
case.atol_ratio`; with fixed steps neither is used. A solve that runs in another process has a
method `seconds(inputs)`, the time of one call as that process sees it. A module with `HOST = True`
is given NumPy arrays, the others arrays on the device; with `COMPILES_EACH = True` it compiles for
each tolerance, and gets fewer points in the plots.
"""

import importlib

NAMES = (
    "ours",
    "diffrax",
    "tinydiffeq",
    "jax_odeint",
    "lax_scan",
    "scipy",
    "torchdiffeq",
    "torchdiffeq_direct",
)


def load(name):
    """The adapter module of a peer."""
    if name not in NAMES:
        raise ValueError(f"unknown peer {name!r}; there are {', '.join(NAMES)}")
    return importlib.import_module(f"benchmarks.peers.{name}")
