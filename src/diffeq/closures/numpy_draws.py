"""`notice_draws`: a function that draws from NumPy while it is traced."""

import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import numpy as np

from ..core.notices import INSIDE
from .purity import parts_of

__all__ = ["notice_draws"]

_MOST = 1000  # things that are looked at


@contextmanager
def notice_draws(name: str, f: Callable | None) -> Iterator[None]:
    """Warns if what runs inside, a trace of f, draws a random number that is then a constant.

    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     with notice_draws("f", None):
    ...         _ = np.random.rand()
    >>> str(caught[0].message)[:49]
    'f drew a random number of NumPy while it was trac'
    """
    before = _states(f)
    yield
    if _states(f) != before:
        warnings.warn(
            f"{name} drew a random number of NumPy while it was traced: it is one number "
            "for the whole solve, and another at the next call. Draw before the solve and give the "
            "number in args; noise in time is a de.SDEProblem.",
            skip_file_prefixes=INSIDE,
        )


def _states(f: Callable | None) -> list[Hashable]:
    """The states of NumPy's own generator, and of each that f can reach."""
    own = np.random.get_state(legacy=False)  # noqa: NPY002 - the generator that is looked at
    legacy = (own["state"]["pos"], own["has_gauss"], own["state"]["key"].tobytes())
    return [legacy, *(str(x.bit_generator.state) for x in _generators(f, set()))]


def _generators(x: object, seen: set[int]) -> Iterator[np.random.Generator]:
    """The generators that a function closes over, or an object holds."""
    if id(x) in seen or len(seen) > _MOST:
        return
    seen.add(id(x))
    if isinstance(x, np.random.Generator):
        yield x
        return
    for _, part in parts_of(x):
        yield from _generators(part, seen)
