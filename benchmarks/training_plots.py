"""The plots of `benchmarks.training`."""

from pathlib import Path

type Curves = dict[str, dict[str, list[tuple[int, float]]]]
"""Points of size and seconds, by what grows and by contestant."""

AXES = {"reactions": "reactions, written out", "layers": "hidden layers of 32 units"}
# Colours that differ in print and for those who see few of them; the libraries by full lines.
STYLES = {
    "diffeq": {"color": "#0072b2", "marker": "o", "linestyle": "-", "linewidth": 2.0, "zorder": 4},
    "Diffrax": {"color": "#d55e00", "marker": "s", "linestyle": "-"},
    "bare, unrolled": {"color": "#7f7f7f", "marker": "^", "linestyle": "--"},
    "bare, rolled": {"color": "#000000", "marker": "v", "linestyle": ":"},
}


def compile_time(curves: Curves, folder: Path) -> str:
    """Processor seconds of the first gradient by the size of the field; the name of the file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    width = 3.5 * len(curves)
    figure, panels = plt.subplots(
        1, len(curves), figsize=(width, 3.2), sharey=True, squeeze=False, layout="constrained"
    )
    for letter, axes, (grows, by_contestant) in zip(
        "abcd", panels[0], curves.items(), strict=False
    ):
        _panel(axes, by_contestant)
        axes.set_xlabel(AXES.get(grows, grows))
        axes.set_title(f"({letter})", loc="left", fontsize=10)
    panels[0][0].set_ylabel("first gradient, processor seconds")
    handles = {}
    for axes in panels[0]:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    order = [name for name in STYLES if name in handles]
    figure.legend([handles[name] for name in order], order, loc="outside upper center",
                  ncols=len(order), frameon=False, fontsize=9)  # fmt: skip
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / "training_compile.png", dpi=200)
    plt.close(figure)
    return "plots/training_compile.png"


def _panel(axes, by_contestant: dict[str, list[tuple[int, float]]]) -> None:
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, ScalarFormatter

    for who, points in by_contestant.items():
        sizes, seconds = zip(*points, strict=True)
        axes.plot(sizes, seconds, label=who, markersize=4.5, **STYLES[who])
    axes.set(xscale="log", yscale="log")
    sizes = sorted({size for points in by_contestant.values() for size, _ in points})
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(ScalarFormatter())
    axes.grid(which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
