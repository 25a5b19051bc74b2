"""Status codes: all outcomes of a solve."""

from enum import IntEnum

__all__ = ["Status"]


class Status(IntEnum):
    """The outcome of a solve. Integer arrays of it live in solutions, so it survives jit and vmap.

    `status.reason` is a sentence, and `status.ok` says whether the solution is complete.

    Example:
        >>> import diffeq as de
        >>> de.Status(0).name, de.Status.success == 0
        ('success', True)
        >>> de.Status.nonfinite.reason
        'the state or its derivative became infinite or NaN'
    """

    success = 0
    terminated = 1
    running = 2
    max_steps = 3
    step_too_small = 4
    nonfinite = 5
    dtmin = 6
    bad_times = 7
    too_many_saves = 8
    tape_overflow = 9
    inconsistent = 10
    newton_failed = 11
    zeno = 12
    too_many_events = 13
    not_at_rest = 20
    history_overflow = 21
    beyond_present = 22
    bad_lags = 23
    stiff = 24
    undifferentiable = 25
    wrong_index = 26
    wrong_pattern = 27

    @property
    def ok(self) -> bool:
        """True if the solution is complete (a terminal event is a success)."""
        return self in (Status.success, Status.terminated)

    @property
    def reason(self) -> str:
        """One sentence for a person."""
        return _REASONS[self]


_REASONS = {
    Status.success: "the solve reached the end",
    Status.terminated: "a terminal event ended the solve",
    Status.running: "the solve is not finished",
    Status.max_steps: "max_steps attempts were made before the end was reached",
    Status.step_too_small: "the step became too small to change t",
    Status.nonfinite: "the state or its derivative became infinite or NaN",
    Status.dtmin: "the error estimate asks for a step below dtmin",
    Status.bad_times: "saveat or tspan has times out of order, outside tspan, or not finite",
    Status.too_many_saves: "more rows were to be saved than max_saves",
    Status.tape_overflow: "the solve took more steps than its tape can replay",
    Status.inconsistent: "the initial values do not satisfy the algebraic equations",
    Status.newton_failed: "the equations of an implicit step could not be solved",
    Status.not_at_rest: "no steady state was found",
    Status.zeno: "events went on happening without time going on",
    Status.too_many_events: "more events happened than max_events",
    Status.history_overflow: "the field asked for a past that is no longer kept",
    Status.beyond_present: "the field asked for past(s) at a time s after t",
    Status.bad_lags: "a lag is negative or not finite",
    Status.undifferentiable: "the jump of y0 came back by a lag that depends on the state, so that "
    "what was solved has no derivative",
    Status.wrong_index: "the index of the equations is not the one that is stated (1, if none is)",
    Status.wrong_pattern: "∂f/∂y has an entry that jac says is zero",
    Status.stiff: "the problem turned out to be stiff, and the method is for others",
}
