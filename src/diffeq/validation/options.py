"""The options of a call, as a user gives them: one object, which checks itself."""

import os
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import PyTree

from ..adjoints import overridden
from .problem_checks import check_no_torch
from .saveat_checks import check_save
from .suggestions import check_adjoint_is_one, check_controller, check_method

__all__ = ["SaveTimes", "SolveOption", "SolveOptions"]

type SaveTimes = PyTree
"""None, "steps", times, or a dict of these."""

type SolveOption = PyTree
"""A value as a user gave it to an option of `solve`, which checks it."""

_NUMBERS = ("saveat", "stops", "dt", "dt0", "rtol", "atol")
_COUNTS = ("max_steps", "max_saves", "max_events")


@dataclass(frozen=True)
class SolveOptions:
    """The options of `solve`: its documentation says what each of them means.

    Raises:
        TypeError, ValueError: an option is wrong by itself. Whether it fits the problem and the
            other options is checked by `checked_call`.
    """

    # Fields have no types that say what is right: a value is as a user gave it until it is checked.
    method: Any = None
    saveat: Any = None
    save: Any = None
    dense: Any = False
    rtol: Any = None
    atol: Any = None
    dt: Any = None
    dt0: Any = None
    controller: Any = None
    events: Any = ()
    stops: Any = ()
    adjoint: Any = None
    max_steps: Any = None
    max_saves: Any = None
    max_events: Any = None
    init: Any = "consistent"
    key: Any = None
    progress: Any = None
    throw: Any = True

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            check_no_torch(name, getattr(self, name))
        check_method(self.method)
        check_controller(self.controller)
        check_adjoint_is_one(self.adjoint)
        for name in _COUNTS:
            _check_count(name, getattr(self, name))
        if not isinstance(self.init, str) or self.init not in ("consistent", "check", "given"):
            raise ValueError(f"init is {self.init!r}; 'consistent', 'check' or 'given' is wanted.")
        if self.dense not in (True, False):
            raise ValueError(f"dense is {self.dense!r}; True or False is wanted.")
        if self.progress not in (None, True, False):
            raise ValueError(f"progress is {self.progress!r}; True or False is wanted.")
        if self.throw not in (True, False, "compiled"):
            raise ValueError(f"throw is {self.throw!r}; True, False or 'compiled' is wanted.")
        check_save(self.save)

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> "SolveOptions":
        """The options among the arguments of a function that takes them; `check_gradient`, if one
        runs, replaces the adjoint and the tolerances.
        """
        given = {name: arguments[name] for name in cls.names() if name in arguments}
        overriding = ("adjoint", "rtol", "atol")
        values = overridden(*(given[name] for name in overriding))
        return cls(**given | dict(zip(overriding, values, strict=True)))

    @classmethod
    def names(cls) -> list[str]:
        """The names of all options."""
        return [field.name for field in fields(cls)]

    @property
    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: x for name, (x, default) in values.items() if not _is_left_out(x, default)}

    @property
    def raises_inside_jit(self) -> bool:
        """True if a failure raises from compiled code, too."""
        return self.throw == "compiled" or (self.throw is True and _throws_compiled_by_default())


def _is_left_out(value: Any, default: Any) -> bool:
    empty = isinstance(value, (tuple, list)) and not value
    return value is None or empty or (type(value) is type(default) and value == default)


def _check_count(name: str, value: Any) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if value is not None and not (whole and value >= 1):
        raise TypeError(
            f"{name} is {value!r}; a positive whole number, known before tracing, is wanted."
        )


def _throws_compiled_by_default() -> bool:
    value = os.environ.get("DIFFEQ_THROW", "")
    if value not in ("", "compiled"):
        raise ValueError(
            f"the environment variable DIFFEQ_THROW is {value!r}; 'compiled' is wanted, or nothing."
        )
    return value == "compiled"
