"""The style of figures: one for all of them."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

__all__ = ["style"]

# Okabe and Ito's colours, in an order in which the first ones differ most in lightness, too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")

_SETTINGS: dict[str, Any] = {
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "figure.figsize": (6.4, 3.6),
    "font.size": 9.5,
    "image.cmap": "viridis",
    "legend.borderaxespad": 0.3,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.0,
    "savefig.dpi": 160,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}


def style(changes: Mapping[str, Any] | None = None) -> AbstractContextManager:
    """Gives the figures of matplotlib the style of this library, from now on or inside a `with`.

    Colours are those of Okabe and Ito, which people of every colour vision tell apart; "C0" to "C6"
    name them in the order blue, vermilion, green, purple, orange, sky blue, grey. Legends have no
    frame, axes none on top and on the right, titles stand on the left, and labels are kept inside.

    Args:
        changes: settings of matplotlib's `rcParams` on top, such as `{"font.size": 12}`.

    Returns:
        A context, at whose end the settings are what they were before.

    Raises:
        KeyError: `changes` has a name that matplotlib does not know; nothing was set.

    Reference: okabe2008.

    Example:
        >>> import matplotlib.pyplot as plt, diffeq as de
        >>> with de.plot.style({"font.size": 12}):
        ...     plt.rcParams["font.size"], plt.rcParams["axes.prop_cycle"].by_key()["color"][0]
        (12.0, '#0072B2')
    """
    from matplotlib import rcParams
    from matplotlib.rcsetup import cycler

    cycle = cycler(color=_COLOURS)
    settings: dict = {**_SETTINGS, "axes.prop_cycle": cycle, **(changes or {})}
    before: dict = {name: rcParams[name] for name in settings}
    rcParams.update(settings)
    restored = ExitStack()
    restored.callback(rcParams.update, before)
    return restored
