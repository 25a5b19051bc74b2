"""The report of steps that led to values that are not finite: when, and in which arrays."""

from collections.abc import Sequence

import numpy as np

from .compiled_step import FINITE, NAN, Refusals

__all__ = ["message_of"]

_SHOWN = 3  # names in a message


def message_of(
    refusals: Refusals, names: Sequence[str], history: Sequence[float], *, finite: bool, ended: bool
) -> str:
    """The report of the refused steps of a fit; "" if there are none.

    Args:
        refusals: the steps, on the host.
        names: the paths of the parameters.
        history: the losses.
        finite: True if any step was not refused.
        ended: True if the fit ended because of them.
    """
    total, first = int(refusals.total), int(refusals.first)
    if not total:
        return ""
    value, gradient, theta = np.split(np.asarray(refusals.codes), [1, 1 + len(names)])
    if value[0] == FINITE:
        what = (
            f"the loss was {history[first]:.4g} and its gradient by {_list_arrays(gradient, names)}"
        )
    else:
        what = f"the loss was {history[first]:g}"
    if theta.any():
        what = f"the optimiser's new value of {_list_arrays(theta, names)}, by a finite gradient"
    if not finite and first == 0:
        if theta.any():
            listed = _list_arrays(theta, names)
            return f"the model that was given has values that are not finite: {listed}"
        return f"at the model that was given {what}"
    text = f"{total} of {len(history)} evaluations led to a step that was refused; in the first of "
    text += f"them, at step {first}, {what}"
    if ended:
        text += f". The last {int(refusals.row)} were refused in a row, which ended the fit"
    return text


def _list_arrays(codes: np.ndarray, names: Sequence[str]) -> str:
    """The arrays that are not finite, and what they have.

    >>> _list_arrays(np.array([0, 2, 1]), [".a", ".b", ".c"])
    '.b, .c had NaN'
    """
    bad = [name for name, code in zip(names, codes, strict=True) if code != FINITE]
    more = f" and {len(bad) - _SHOWN} others" if len(bad) > _SHOWN else ""
    kind = "NaN" if (codes == NAN).any() else "infinities"
    return f"{', '.join(bad[:_SHOWN])}{more} had {kind}"
