"""Measure everything and write the results as JSON, then the report.

    python -m benchmarks.run [--quick] [--only CASE ...] [--out benchmarks/results]

`--quick` runs smaller cases a few times: a smoke test, whose figures mean nothing. `--only` takes
names of cases, or of the probes `first_call`, `second_call` and `import`.
"""

import argparse
import datetime
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks import machine, peers, precision, probes, timing
from benchmarks.cases import BOTH, all_cases

QUICK_PEERS = ("ours", "diffrax", "lax_scan", "scipy")
PROBES = ("first_call", "second_call", "import")
CURVE_ROUNDS = 7


def measure(case, settings):
    """All peers and modes of one case, interleaved; the entry of the results."""
    with jax.enable_x64(case.dtype == "float64"):
        inputs = case.inputs()
        device = [jax.tree.map(jnp.asarray, each) for each in inputs]
        entrants, entries, curves = {}, [], []
        for mode in case.modes:
            wanted = precision.references(case, mode, inputs)
            for name in _asked(case, settings):
                entry, built = _enter(case, name, mode, (inputs, device), wanted)
                entries.append(entry)
                if built is None:
                    continue
                entrants[name, mode] = timing.Contestant(*built[:2])
                if case.curve and settings["curves"]:
                    points = _curve(case, _decades(case, name, mode), built, wanted)
                    curves += [{"peer": name, "mode": mode} | point for point in points]
        if entrants:
            rounds = min(case.most_rounds, settings["most_rounds"])
            timing.interleave(list(entrants.values()), settings["budget"], rounds)
    for entry in entries:
        _add_timings(entry, entrants)
    return {
        "name": case.name,
        "title": case.title,
        "dtype": case.dtype,
        "target_error": case.target_error,
        "entries": entries,
        "curves": curves,
        "gradient_over_forward": _gradient_over_forward(case, entrants),
    }


def _asked(case, settings):
    return [name for name in case.peers if name in settings["peers"]]


def _enter(case, name, mode, inputs, wanted):
    """One entry, and (solve, inputs, at) for the contest; None where the peer cannot do it."""
    entry = {"peer": name, "mode": mode}
    try:
        peer = peers.load(name)
        lacking = machine.available(name) or peer.lacks(case, mode)
        if lacking:
            return entry | {"lacking": lacking}, None
        on_host, on_device = inputs
        mine = on_host if getattr(peer, "HOST", False) else on_device
        at = peer.build(case, mode)
        tolerance, error = _tolerance(case, at, mine, wanted)
        solve = at(tolerance)
        entry |= {"tolerance": tolerance, "error": error}
        if case.memory and mode == "gradient":
            entry["memory"] = float(probes.temporary_states(case, solve, mine[0]))
        return entry, (solve, mine, at)
    except Exception as failure:
        reason = f"failed: {type(failure).__name__}: {failure}".splitlines()[0]
        print(f"    {name} {mode} {reason}", file=sys.stderr)
        return entry | {"lacking": reason}, None


def _tolerance(case, at, inputs, wanted):
    """The tolerance to time at and its error; a failing solve is reported as it is."""
    if case.target_error is not None:
        return precision.loosest(case, at, inputs, wanted)
    tolerance = case.tolerance or 0.0
    return tolerance, precision.achieved(at(tolerance), inputs, wanted)


def _decades(case, name, mode):
    """The tolerances of a curve; few where each one compiles, none where that takes long."""
    last = 9 if case.dtype == "float64" else 6
    if not getattr(peers.load(name), "COMPILES_EACH", False):
        return range(3, last + 1)
    return range(3, last + 1, 2) if mode == "forward" else ()


def _curve(case, decades, built, wanted):
    """Points of error and time over the decades of tolerance."""
    _, inputs, at = built
    points = []
    for decade in decades:
        solve = at(10.0**-decade)
        error = precision.achieved_or_infinite(solve, inputs, wanted)
        if error > 1:
            continue
        contestant = timing.Contestant(solve, inputs)
        timing.interleave([contestant], 0.1, CURVE_ROUNDS)
        median = timing.summary(contestant.samples.values())["median"]
        points.append({"tolerance": 10.0**-decade, "error": error, "seconds": median})
    return points


def _add_timings(entry, entrants):
    contestant = entrants.get((entry["peer"], entry["mode"]))
    if contestant is None:
        return
    entry["seconds"] = timing.summary(contestant.samples.values())
    ours = entrants.get(("ours", entry["mode"]))
    if ours is not None and contestant is not ours:
        entry["speedup"] = timing.ratio(contestant, ours)
        entry["slowdown"] = timing.ratio(ours, contestant)


def _gradient_over_forward(case, entrants):
    return {
        name: timing.ratio(entrants[name, "gradient"], entrants[name, "forward"])
        for name in case.peers
        if (name, "gradient") in entrants and (name, "forward") in entrants
    }


def _settings(quick):
    if quick:
        settings = {"budget": 0.3, "most_rounds": 5, "curves": False, "processes": 1}
    else:
        settings = {"budget": 6.0, "most_rounds": 200, "curves": True, "processes": 3}
    return settings | {"quick": quick, "peers": QUICK_PEERS if quick else peers.NAMES}


def _probes(names, settings):
    """The results of the probes that were asked for."""
    count, quick = settings["processes"], settings["quick"]
    calls = {
        "first_call": lambda: probes.first_calls(count, ("forward",) if quick else BOTH),
        "second_call": lambda: probes.second_calls(("forward", "grad") if quick else None),
        "import": lambda: probes.imports(count),
    }
    return {name: _announced(name, calls[name]) for name in PROBES if name in names}


def _announced(name, call):
    start = time.perf_counter()
    print(f"{name} …", flush=True)
    result = call()
    print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
    return result


def run(only=(), quick=False):
    """Measure; the results as one JSON-ready dictionary."""
    settings = _settings(quick)
    cases = all_cases(quick)
    known = [case.name for case in cases] + list(PROBES)
    unknown = set(only) - set(known)
    if unknown:
        raise SystemExit(f"no case {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = set(only) or set(known)
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": settings,
        "machine": machine.machine(),
        "versions": machine.versions(),
        "cases": [
            _announced(case.name, lambda case=case: measure(case, settings))
            for case in cases
            if case.name in chosen
        ],
        "probes": _probes(chosen, settings),
    }


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke test, below a minute")
    parser.add_argument("--only", nargs="+", default=(), metavar="CASE")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    results = run(options.only, options.quick)
    options.out.mkdir(parents=True, exist_ok=True)
    name = "quick.json" if options.quick else "-".join(["results", *options.only]) + ".json"
    (options.out / name).write_text(json.dumps(results, indent=1) + "\n")
    from benchmarks import report

    if options.quick:
        print("A smoke test: these figures mean nothing, and sizes are not those of the titles.")
    print(report.table(results))
    if not options.quick and not options.only:
        report.write(results, Path(__file__).parent)


if __name__ == "__main__":
    main()
