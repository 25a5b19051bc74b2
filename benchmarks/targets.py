"""The table of what the library is held to: a metric of the results, a bound, a further goal."""

from dataclasses import dataclass

SECOND_CALL_MODES = ("forward", "grad", "jvp", "vmap", "jit of grad", "hessian")


@dataclass(frozen=True)
class Target:
    """`metric` must be at least (or at most) `bound`; `reach` is the further goal."""

    title: str
    metric: str
    sense: str
    bound: float
    reach: float | None
    unit: str = "×"

    def met(self, value, bound):
        """Whether a measured value is on the right side."""
        return value >= bound if self.sense == ">=" else value <= bound


def _faster(title, metric, bound, reach, rival="diffrax"):
    return Target(f"{title}, against {rival}", f"{metric}/speedup/{rival}", ">=", bound, reach)


def _first_call(mode):
    return _faster(f"first call, Lotka–Volterra {mode}", f"first_call/{mode}", 2.0, 4.0)


def _scan(mode):
    metric = f"euler_mlp/{mode}/slowdown/lax_scan"
    return Target(f"1,000 Euler steps, {mode}, against lax.scan", metric, "<=", 1.2, 1.05)


def _long(case, title):
    gradient = f"gradient of {title}, against its forward solve"
    memory = f"gradient of {title}, temporary memory in √N states"
    return [
        Target(gradient, f"{case}/gradient_over_forward/ours", "<=", 6.0, 4.0),
        Target(memory, f"{case}/gradient/memory/ours", "<=", 4.0, None, "√N states"),
    ]


def _second_call(mode):
    """A field that calls a counter may read what has changed, and is traced once for it. Through
    `jax.jit` a fresh function is another one, as it is to JAX.
    """
    compiles = 1 if mode == "jit of grad" else 0
    title = f"second call, fresh lambda, {mode}"
    return [
        Target(f"{title}: compiles", f"second_call/{mode}/compiles", "<=", compiles, None, ""),
        Target(f"{title}: traces of the field", f"second_call/{mode}/traces", "<=", 1, None, ""),
    ]


TARGETS = [
    _faster("Lotka–Volterra to t = 100, end state", "lv_end/forward", 2.0, 3.0),
    _faster("Lotka–Volterra, 101 saves to t = 10", "lv_saves/forward", 2.0, 3.0),
    _faster("value and gradient, 101 saves", "lv_saves/gradient", 2.5, 4.0),
    _faster("vmap over 1,000 parameter sets, forward", "lv_vmap/forward", 4.0, 8.0),
    _faster("vmap over 1,000 parameter sets, gradient", "lv_vmap/gradient", 2.5, 5.0),
    _faster("ode_demo step, batch as one state", "ode_demo/gradient", 2.0, 4.0),
    _faster("ode_demo step, batch as one state", "ode_demo/gradient", 150, None, "torchdiffeq"),
    _faster("ode_demo step, by vmap", "ode_demo_vmap/gradient", 2.0, 4.0),
    _faster("ode_demo step, by vmap", "ode_demo_vmap/gradient", 150, None, "torchdiffeq"),
    _faster("field 64→128→64, batch 64, gradient", "field64/gradient", 1.5, 2.2),
    _scan("forward"),
    _scan("gradient"),
    _first_call("forward"),
    _first_call("gradient"),
    *(target for mode in SECOND_CALL_MODES for target in _second_call(mode)),
    *_long("long_fixed", "100,000 fixed steps, 1,000 states"),
    *_long("long_adaptive", "about 100,000 adaptive steps, 1,000 states"),
    Target("import, beyond jax and equinox", "import/ours", "<=", 0.3, 0.1, "s"),
]
