"""Compute the reference solution of `de.zoo.egfr_network`: `references_network.json`.

    python tools/zoo_network_references.py

Run by hand, from anywhere; a minute on one core. It needs numpy and scipy, and neither JAX nor
diffeq: a reference that shares code with what it checks proves nothing. The package enumerates
species and reactions; here there are none. Dimers are a symmetric matrix M of 24 × 24, half of the
dimers with the states r and s in either order, and what happens at the sites of a receptor is one
matrix T of rates between its 24 states, so that M' = T M + M Tᵀ + kp2/2 L Lᵀ − km2 M.

The network is stiff by little (its fastest rate is 34 a second), so that Taylor series are
possible: the right-hand side is of second degree, and a coefficient is a sum of products of those
before it. The numbers have 64 bits of mantissa (`numpy.longdouble` of x86). Compared with it are a
second run of another order and step, and scipy's DOP853 and LSODA in double precision.

Inputs are doubles, taken as exact, as in `zoo_references.py`.
"""

import json
from pathlib import Path

import numpy as np
from scipy.integrate import solve_ivp

OUTPUT = Path(__file__).parents[1] / "src" / "diffeq" / "zoo" / "references_network.json"
DATE = "2026-12-01"  # by hand, so that two runs write the same file
END = 120.0
FINE, COARSE = {"order": 26, "tol": 1e-21}, {"order": 20, "tol": 1e-20}

RATES = {
    "p1": 1.667e-6, "m1": 0.06, "p2": 5.556e-6, "m2": 0.1, "p3": 0.5, "m3": 4.505, "p14": 3.0,
    "m14": 0.03, "m16": 0.005, "p9": 8.333e-7, "m9": 0.05, "p10": 5.556e-6, "m10": 0.06,
    "p11": 1.25e-6, "m11": 0.03, "p13": 2.5e-5, "m13": 0.6, "p15": 2.5e-7, "m15": 0.3,
    "p17": 1.667e-6, "m17": 0.1, "p18": 2.5e-7, "m18": 0.3, "p19": 5.556e-6, "m19": 0.0214,
    "p20": 6.667e-8, "m20": 0.12, "p24": 5e-6, "m24": 0.0429, "p21": 1.667e-6, "m21": 0.1,
    "p23": 1.167e-5, "m23": 0.1, "p12": 5.556e-8, "m12": 0.0015, "p22": 1.667e-5, "m22": 0.064,
}  # fmt: skip

EGF, GRB2, SHC, SOS, GRB2_SOS, SHCP, SHCP_GRB2, SHCP_GRB2_SOS = range(8)
# The number of a rate; the molecule that binds; the state before and after.
Y1068 = [(9, GRB2, 1, 2), (11, GRB2_SOS, 1, 3), (10, SOS, 2, 3)]
Y1148 = [
    (13, SHC, 1, 2), (15, SHCP, 1, 3), (18, SHCP_GRB2, 1, 4), (20, SHCP_GRB2_SOS, 1, 5),
    (17, GRB2, 3, 4), (24, GRB2_SOS, 3, 5), (19, SOS, 4, 5),
]  # fmt: skip
CYTOSOL = [
    (12, GRB2, SOS, GRB2_SOS), (21, SHCP, GRB2, SHCP_GRB2),
    (23, SHCP, GRB2_SOS, SHCP_GRB2_SOS), (22, SHCP_GRB2, SOS, SHCP_GRB2_SOS),
]  # fmt: skip
SITES = [(Y1068, 4, lambda T: np.kron(T, np.eye(6, dtype=T.dtype))),
         (Y1148, 6, lambda T: np.kron(np.eye(4, dtype=T.dtype), T))]  # fmt: skip


# --- the right-hand side, linear and bilinear -------------------------------------------------


def moved(table: np.ndarray, rate: float, before: int, after: int) -> None:
    """A rate from one state to another, into a table of such rates."""
    table[after, before] += rate
    table[before, before] -= rate


class Network:
    """f(z) = linear(z) + bilinear(z, z), z = (8 molecules, 24 receptors, 24 with EGF, M)."""

    def __init__(self, kind: type) -> None:
        k = {name: kind(value) for name, value in RATES.items()}
        self.k, self.kind = k, kind
        loose = []
        self.binding = []  # for each molecule that binds: its number, and the rates between states
        for rules, n, spread in SITES:
            back = np.zeros((n, n), kind)
            moved(back, k["m3"], 1, 0)
            for number, molecule, before, after in rules:
                moved(back, k[f"m{number}"], after, before)
                forth = np.zeros((n, n), kind)
                moved(forth, k[f"p{number}"], before, after)
                self.binding.append((molecule, spread(forth)))
            if rules is Y1148:
                moved(back, k["m14"], 3, 2)
            loose.append(spread(back))
        across = [np.zeros((4, 4), kind), np.zeros((6, 6), kind)]
        moved(across[0], k["p3"], 0, 1)
        moved(across[1], k["p3"], 0, 1)
        moved(across[1], k["p14"], 2, 3)
        self.alone = loose[0] + loose[1]
        self.paired = self.alone + SITES[0][2](across[0]) + SITES[1][2](across[1])

    def parts(self, z):
        free, R, L, M = np.split(z, [8, 32, 56], axis=-1)
        return free, R, L, M.reshape(*z.shape[:-1], 24, 24)

    def joined(self, free, R, L, M):
        return np.concatenate([free, R, L, M.reshape(*M.shape[:-2], 576)], axis=-1)

    def linear(self, z):
        k = self.k
        free, R, L, M = self.parts(z)
        d = np.zeros_like(free)
        states = (R + L + 2 * M.sum(axis=-1)).T
        by_site = states.reshape(4, 6, *states.shape[1:])
        counts = {4: by_site.sum(axis=1), 6: by_site.sum(axis=0)}
        for rules, n, _ in SITES:
            for number, molecule, _, after in rules:
                d[..., molecule] += k[f"m{number}"] * counts[n][after]
        for number, a, b, c in CYTOSOL:
            lost = k[f"m{number}"] * free[..., c]
            d[..., a] += lost
            d[..., b] += lost
            d[..., c] -= lost
        d[..., SHCP] -= k["m16"] * free[..., SHCP]
        d[..., SHC] += k["m16"] * free[..., SHCP]
        d[..., EGF] += k["m1"] * L.sum(axis=-1)
        dR = R @ self.alone.T + k["m1"] * L
        dL = L @ self.alone.T - k["m1"] * L + 2 * k["m2"] * M.sum(axis=-1)
        turned = self.paired @ M
        dM = turned + np.swapaxes(turned, -1, -2) - k["m2"] * M
        return self.joined(d, dR, dL, dM)

    def bilinear(self, x, z):
        """The sum over the rows of x and z."""
        k = self.k
        mine, _, own, _ = self.parts(x)
        free, R, L, M = self.parts(z)
        d = np.zeros(8, x.dtype)
        states = R + L + 2 * M.sum(axis=-1)
        tables = np.zeros((len(x), 24, 24), x.dtype)
        for molecule, forth in self.binding:
            tables += mine[:, molecule, None, None] * forth
            lost = -np.minimum(np.diag(forth), 0)
            d[molecule] -= mine[:, molecule] @ (states @ lost)
        for number, a, b, c in CYTOSOL:
            gained = k[f"p{number}"] * (mine[:, a] @ free[:, b])
            d[a] -= gained
            d[b] -= gained
            d[c] += gained
        bound = k["p1"] * (mine[:, EGF] @ R)
        d[EGF] -= bound.sum()
        met = k["p2"] * np.einsum("jr,js->rs", own, L)
        dR = np.einsum("jrs,js->r", tables, R) - bound
        dL = np.einsum("jrs,js->r", tables, L) + bound - met.sum(axis=0)
        turned = np.hstack(list(tables)) @ np.vstack(list(M))
        return self.joined(d, dR, dL, turned + turned.T + (met + met.T) / 4)

    def __call__(self, t, z):
        return self.linear(z) + self.bilinear(z[None], z[None])


def start(kind: type) -> np.ndarray:
    """Grb2 and Sos in equilibrium, and nothing else bound; the doubles of the package."""
    grb2, sos = 1.49e5, 6.2e4
    half = (grb2 + sos + RATES["m12"] / RATES["p12"]) / 2
    both = grb2 * sos / (half + np.sqrt(half**2 - grb2 * sos))
    z = np.zeros(632, kind)
    z[[EGF, GRB2, SHC, SOS, GRB2_SOS, 8]] = 1.2e6, grb2 - both, 2.7e5, sos - both, both, 1.8e5
    return z


def species(z: np.ndarray) -> np.ndarray:
    """The 356 species of the package, in its order, of z."""
    rows, columns = np.triu_indices(24)
    M = z[..., 56:].reshape(*z.shape[:-1], 24, 24)[..., rows, columns]
    return np.concatenate([z[..., :56], np.where(rows == columns, 1, 2) * M], axis=-1)


# --- Taylor series ----------------------------------------------------------------------------


def taylor(ts: list[float], *, order: int, tol: float) -> tuple[np.ndarray, int]:
    """The states at ts and the number of steps."""
    kind = np.longdouble
    network, z, t, rows, steps = Network(kind), start(kind), kind(0), [], 0
    for target in map(kind, ts):
        while t < target:
            series = z[None]
            for m in range(order):
                later = network.linear(series[m]) + network.bilinear(series, series[::-1])
                series = np.vstack([series, later[None] / kind(m + 1)])
            size = np.abs(z).max()
            h = min(
                (kind(tol) * size / np.abs(series[m]).max()) ** (kind(1) / m)
                for m in (order - 1, order)
            )
            h = min(h, target - t)
            z = series[order]
            for m in range(order - 1, -1, -1):
                z = series[m] + h * z
            t, steps = (target if h == target - t else t + h), steps + 1
        rows.append(species(z))
    return np.array(rows), steps


# --- comparisons ------------------------------------------------------------------------------


def distance(rows: np.ndarray, others: np.ndarray) -> float:
    """The largest difference, relative to the largest component at its time."""
    return float((np.abs(rows - others) / np.abs(rows).max(axis=1, keepdims=True)).max())


def by_scipy(method: str, ts: list[float], rtol: float) -> np.ndarray:
    network = Network(np.float64)
    solution = solve_ivp(
        network, (0.0, END), start(np.float64), method=method, t_eval=ts, rtol=rtol, atol=1e-8
    )
    return species(solution.y.T)


def amplification(steps: int = 240) -> float:
    """The maximum norm of ∂y(t1)/∂y0: the variational equation by the implicit midpoint rule, from
    a solution by LSODA. Steps lengthen with time, for the beginning is fast.
    """
    network, n = Network(np.float64), 632
    ts = END * np.linspace(0.0, 1.0, steps + 1) ** 2
    middle = (ts[1:] + ts[:-1]) / 2
    found = solve_ivp(network, (0.0, END), start(np.float64), method="LSODA", t_eval=middle,
                      rtol=1e-9, atol=1e-6)  # fmt: skip
    rows, places = np.triu_indices(24)
    units = np.zeros((356, n))  # one molecule of each species
    units[np.arange(56), np.arange(56)] = 1.0
    of_dimers = units[56:, 56:].reshape(300, 24, 24)
    of_dimers[np.arange(300), rows, places] += 0.5
    of_dimers[np.arange(300), places, rows] += 0.5
    units[56:, 56:] = of_dimers.reshape(300, 576)
    fixed, moving = network.linear(np.eye(n)).T, units.T
    for h, z in zip(np.diff(ts), found.y.T, strict=True):
        columns = [network.bilinear(np.array([z, e]), np.array([e, z])) for e in np.eye(n)]
        half = h / 2 * (fixed + np.array(columns).T)
        moving = np.linalg.solve(np.eye(n) - half, moving + half @ moving)
    return float(np.abs(species(moving.T)).sum(axis=0).max())


def _rounded(x: float) -> float:
    """Two figures: enough for an error, and the same on every machine."""
    return float(f"{x:.1e}")


def main() -> None:
    """Compute the reference and write the file."""
    ts = [END * k / 4 for k in (1, 2, 3, 4)]
    ys, steps = taylor(ts, **FINE)
    print("series of order", FINE["order"], steps, "steps", flush=True)
    second, _ = taylor(ts, **COARSE)
    agreement = {
        "taylor": distance(ys, second),
        "dop853": distance(ys, by_scipy("DOP853", ts, 1e-13)),
        "lsoda": distance(ys, by_scipy("LSODA", ts, 1e-12)),
    }
    print(agreement, flush=True)
    if agreement["taylor"] > 1e-17:
        raise ValueError(f"the two runs differ: {agreement}")
    entry = {
        "y0": species(start(np.float64)).tolist(),
        "tspan": [0.0, END],
        "args": list(RATES.values()),
        "ts": ts,
        "ys": ys.astype(float).tolist(),
        "how": "Taylor series of order {order}, tolerance {tol:g}, 64 bits of mantissa, "
        "{steps} steps".format(**FINE, steps=steps),
        "agreement": {key: _rounded(value) for key, value in agreement.items()},
        "amplification": _rounded(amplification()),
    }
    body = f'  "egfr_network": {json.dumps(entry)}'
    head = f'{{"date": "{DATE}", "script": "tools/zoo_network_references.py", "cases": {{\n'
    OUTPUT.write_text(f"{head}{body}\n}}}}\n")
    print(entry["amplification"], f"wrote {OUTPUT.name}")


if __name__ == "__main__":
    main()
