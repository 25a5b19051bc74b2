"""Coefficient tables, read from texts that look like the arrays that papers print.

A method is data. Its table is written as a Butcher array, entry for entry as in the paper, so that
a reader can hold the two side by side::

    name: Bosh3
    order: 3(2)
    reference: bogacki1989

    0   |
    1/2 | 1/2
    3/4 | 0    3/4
    1   | 2/9  1/3  4/9
    ----+---------------------
    b     | 2/9   1/3  4/9  0
    b_hat | 7/24  1/4  1/3  1/8

The grammar, for every kind of table:

* A header of ``key: value`` lines, ended by an empty line. It may be left out.
* ``label | entries``: a row. Entries are separated by blanks, so an entry has none inside. A line
  without ``|`` continues the row above it, and a line that ends in an operator continues its last
  entry too. Entries missing at the right end are zero.
* ``name = entry``: a constant, usable in the entries below it.
* Lines of dashes are for the eye. What follows a ``#`` is a remark.

An entry is a rational, a decimal, or arithmetic on these with ``+ - * / **``, ``sqrt`` and
``cbrt``. Everything is a `fractions.Fraction` until the very end: a decimal means what it says
(``0.1`` is 1/10), a root is carried to 60 digits, and each number is rounded to float64 once. So
differences such as b - b_hat lose nothing, and order conditions can be tested exactly.

Texts are parsed when a table is made, so that one that cannot be read is refused where it stands.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from typing import ClassVar, NamedTuple, NoReturn

import numpy as np
from jaxtyping import Float

from diffeq.methods.interpolant import in_chebyshev
from diffeq.methods.order import order_of, precise, rosenbrock_order_of

__all__ = ["NystromTableau", "RosenbrockTableau", "Splitting", "Tableau", "table_of"]

type Row = tuple[Fraction, ...]
type Matrix = tuple[Row, ...]

_DIGITS = 60
_ZERO = Fraction(0)
_ONE = Fraction(1)


# --- entries -----------------------------------------------------------------------------------


def _integer_root(value: int, degree: int) -> int:
    """The floor of the root of a non-negative integer, by Newton from above."""
    if degree == 2:
        return math.isqrt(value)
    guess = 1 << -(-value.bit_length() // degree)
    while True:
        better = ((degree - 1) * guess + value // guess ** (degree - 1)) // degree
        if better >= guess:
            return guess
        guess = better


def _root(value: Fraction, degree: int) -> Fraction:
    """The real root of a fraction: exact where it is rational, else to 60 digits."""
    if value < 0:
        if degree % 2 == 0:
            raise ValueError(f"even root of the negative number {value}")
        return -_root(-value, degree)
    top = _integer_root(value.numerator, degree)
    bottom = _integer_root(value.denominator, degree)
    if top**degree == value.numerator and bottom**degree == value.denominator:
        return Fraction(top, bottom)
    scale = 10**_DIGITS
    radicand = value.numerator * value.denominator ** (degree - 1) * scale**degree
    return Fraction(_integer_root(radicand, degree), value.denominator * scale)


def _rational_power(base: Fraction, exponent: Fraction) -> Fraction:
    return _root(base, exponent.denominator) ** exponent.numerator


_BINARY: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: _rational_power,
}
_UNARY: dict[type[ast.unaryop], Callable[[Fraction], Fraction]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_FUNCTION_DEGREE = {"sqrt": 2, "cbrt": 3}


def _evaluate(node: ast.expr, source: str, names: dict[str, Fraction]) -> Fraction:
    """Walks an expression; only numbers, known names, arithmetic and roots pass."""
    match node:
        case ast.Constant(value=int() | float()):
            # The digits, not the float that Python made of them.
            return Fraction(ast.get_source_segment(source, node) or "")
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_evaluate(operand, source, names))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](
                _evaluate(left, source, names), _evaluate(right, source, names)
            )
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if (
            name in _FUNCTION_DEGREE
        ):
            return _root(_evaluate(argument, source, names), _FUNCTION_DEGREE[name])
    raise ValueError(f"cannot read {source!r}: a number, a constant or arithmetic was wanted")


def _parse_entry(token: str, names: dict[str, Fraction]) -> Fraction:
    """The value of one entry of a table."""
    try:
        return Fraction(token)  # rationals and decimals, which is nearly all of them
    except ValueError:
        pass
    try:
        tree = ast.parse(token, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"cannot read the entry {token!r}") from error
    return _evaluate(tree.body, token, names)


# --- texts -------------------------------------------------------------------------------------

_RULE = re.compile(r"[-+=|\s]*")
_CONSTANT = re.compile(r"([A-Za-z_]\w*)\s*=\s*(\S+)")


def _split_header(text: str) -> tuple[dict[str, str], str]:
    """Header and body of a text."""
    head, gap, body = text.strip("\n").partition("\n\n")
    if not gap or "|" in head.partition("\n")[0]:
        return {}, text
    pairs = (line.partition(":") for line in head.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}, body


def _continue(tokens: list[str], more: list[str]) -> None:
    """Appends the entries of a further line; an operator at a line's end binds across it."""
    if tokens and tokens[-1][-1] in "+-*/":
        tokens[-1] += more.pop(0)
    tokens.extend(more)


def _parse_rows(body: str) -> Iterator[tuple[str | Fraction, Row]]:
    """The rows of a body: a label, or the number that stands there, and the entries."""
    names: dict[str, Fraction] = {}
    pending: list[tuple[str, list[str]]] = []
    for line in (raw.partition("#")[0].strip() for raw in body.splitlines()):
        if _RULE.fullmatch(line):
            continue
        if constant := _CONSTANT.fullmatch(line):
            names[constant[1]] = _parse_entry(constant[2], names)
        elif "|" in line:
            label, _, entries = line.partition("|")
            pending.append((label.strip(), entries.split()))
        elif pending:
            _continue(pending[-1][1], line.split())
        else:
            raise ValueError(f"a row 'label | entries' was wanted, not {line!r}")
    for label, tokens in pending:
        named = re.fullmatch(r"[A-Za-z]\w*", label) is not None and label not in names
        values = tuple(_parse_entry(token, names) for token in tokens)
        yield (label if named else _parse_entry(label, names)), values


def _padded(row: Row, length: int, what: str) -> Row:
    if len(row) > length:
        raise ValueError(f"{what}: {len(row)} entries where at most {length} were wanted")
    return row + (_ZERO,) * (length - len(row))


def _orders(value: str) -> tuple[int | None, int | None]:
    """'5(4)' means order 5 with an embedded method of order 4; '8(5,3)' has two of these."""
    numbers = [int(number) for number in re.findall(r"\d+", value)]
    return (numbers[0] if numbers else None), (numbers[1] if len(numbers) > 1 else None)


def _floats(rows: Sequence[Fraction] | Matrix, shape: tuple[int, ...]) -> np.ndarray:
    """Rounded once, read-only."""
    flat = [float(x) for row in rows for x in (row if isinstance(row, tuple) else (row,))]
    array = np.array(flat, dtype=np.float64).reshape(shape)
    array.flags.writeable = False
    return array


def _format_fraction(value: Fraction) -> str:
    text = str(value)
    return text if len(text) <= 11 else f"{float(value):.7g}"


def _layout(rows: Sequence[tuple[str, Row]]) -> str:
    """Rows in aligned columns, with a rule where numbers end and names begin."""
    cells = [(label, [_format_fraction(x) for x in row]) for label, row in rows]
    left = max((len(label) for label, _ in cells), default=0)
    widest = max((len(row) for _, row in cells), default=0)
    widths = [max(len(row[j]) for _, row in cells if j < len(row)) for j in range(widest)]
    lines = []
    for label, row in cells:
        if label == "b":
            lines.append("-" * left + "-+" + "-" * (sum(widths) + 2 * widest))
        line = "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=False))
        lines.append(f"{label.ljust(left)} | {line}".rstrip())
    return "\n".join(lines)


class _Text:
    """The base of all tables: the text, its header, and identity by text.

    Two tables are the same if their texts are: so a table is hashable and can be static in a
    compiled function without ever being compiled twice.
    """

    name: str
    description: str
    reference: str
    embedded_order: int | None
    dense_order: int | None
    split_dense_order: int | None
    _declared_order: int | None
    _text: str
    _body: str
    _header: dict[str, str]

    def __init__(self, text: str):
        if not isinstance(text, str):
            raise TypeError(
                f"a {type(self).__name__} is read from a text with rows 'label | entries'; "
                f"{type(text).__name__} came."
            )
        header, body = _split_header(text)
        order, embedded_order = _orders(header.get("order", ""))
        dense_order, split_dense_order = _orders(header.get("dense", ""))
        vars(self).update(
            name=header.get("name", "custom"),
            description=header.get("description", ""),
            reference=header.get("reference", ""),
            embedded_order=embedded_order,
            dense_order=dense_order,
            split_dense_order=split_dense_order or dense_order,
            _declared_order=order,
            _text=text,
            _body=body,
            _header=header,
        )
        # A text that cannot be read is refused where it stands.
        _ = self.exact  # pyright: ignore[reportAttributeAccessIssue]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{self.name}: a table is never changed; write another text")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._text == vars(other)["_text"]

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        """The name and the order: methods and messages show that; `print` shows the table."""
        return self._title()

    def _title(self) -> str:
        order = "" if self._declared_order is None else f" of order {self._declared_order}"
        pair = "" if self.embedded_order is None else f"({self.embedded_order})"
        return f"{type(self).__name__} {self.name}{order}{pair}"


# --- Runge-Kutta -------------------------------------------------------------------------------


class Exact(NamedTuple):
    """The coefficients of a `Tableau` as fractions, row by row."""

    A: Matrix
    b: Row
    b_hat: Row | None
    b_hat3: Row | None
    c: Row
    extra_A: Matrix
    extra_c: Row
    dense: Matrix | None
    dense_error: Row | None
    explicit_A: Matrix | None


def _nested_dense(weights: Row, end: int, terms: Matrix) -> Matrix:
    """The polynomial b_i(theta) of the nested form in which Hairer and Wanner print theirs.

    y(theta) - y0 = theta (r1 + (1 - theta) (r2 + theta (r3 + (1 - theta) (r4 + ...)))), where r1,
    r2, r3 make the cubic Hermite polynomial, and r4, ... are dt * sum_i d_i k_i with the d printed.
    """
    total = len(terms[0])
    unit = [tuple(_ONE if i == j else _ZERO for i in range(total)) for j in (0, end)]
    first = _padded(weights, total, "b")
    second = tuple(start - x for start, x in zip(unit[0], first, strict=True))
    third = tuple(x - last - r for x, last, r in zip(first, unit[1], second, strict=True))
    nest = [first, second, third, *terms]
    polynomials = []
    for i in range(total):
        poly = [_ZERO]  # by powers of theta, lowest first
        for depth in reversed(range(len(nest))):
            poly[0] += nest[depth][i]
            shifted = [_ZERO, *poly]
            if depth % 2:  # times (1 - theta), else times theta
                poly = [a - b for a, b in zip([*poly, _ZERO], shifted, strict=True)]
            else:
                poly = shifted
        polynomials.append(tuple(poly[1:]))
    return tuple(polynomials)


def _end_stage(A: Matrix, c: Row, extra_A: Matrix, extra_c: Row, b: Row) -> int | None:
    """The stage that is f(t1, y1), if there is one."""
    total = len(b) + len(extra_c)
    wanted = _padded(b, total, "b")
    stages = zip((*A, *extra_A), (*c, *extra_c), strict=True)
    found = [
        i for i, (row, ci) in enumerate(stages) if ci == 1 and _padded(row, total, "") == wanted
    ]
    return found[0] if found else None


_ERROR = "dense_error"
# The powers' coefficients of Tsit5 are 200 in all, at values of at most 8; those of Vern8 are four
# millions, at values of 200.
_CANCELLING = 300


def _parse(body: str) -> Exact:
    """A Butcher array with whatever rows stand below it."""
    named: dict[str, Row] = {}
    stages: list[tuple[Fraction, Row]] = []
    extras: list[tuple[Fraction, Row]] = []
    for label, row in _parse_rows(body):
        if isinstance(label, str):
            if label in named:
                raise ValueError(f"two rows are called {label!r}")
            named[label] = row
        else:
            (extras if "b" in named else stages).append((label, row))
    if "b" not in named:
        raise ValueError("a tableau needs a row 'b | ...'")
    s, total = len(stages), len(stages) + len(extras)
    A = tuple(_padded(row, s, f"stage {i + 1}") for i, (_, row) in enumerate(stages))
    extra_A = tuple(_padded(row, total, f"stage {s + i + 1}") for i, (_, row) in enumerate(extras))
    c, extra_c = tuple(x for x, _ in stages), tuple(x for x, _ in extras)
    weights = {
        key: _padded(named.pop(key), s, key) if key in named else None
        for key in ("b", "b_hat", "b_hat3")
    }
    b = weights["b"]
    assert b is not None  # checked above
    end = _end_stage(A, c, extra_A, extra_c, b)
    explicit_A = _explicit_half(named, s)
    error = _padded(named.pop(_ERROR), s, _ERROR) if _ERROR in named else None
    dense = _dense(named, b, total, end)
    pairs = weights["b_hat"], weights["b_hat3"]
    return Exact(A, b, *pairs, c, extra_A, extra_c, dense, error, explicit_A)


def _explicit_half(named: dict[str, Row], s: int) -> Matrix | None:
    """Takes rows e2, e3, ... out of those named: the explicit half of an additive pair."""
    labels = [label for label in named if re.fullmatch(r"e\d+", label)]
    rows = {int(label[1:]) - 1: named.pop(label) for label in labels}
    if not rows:
        return None
    if not rows.keys() <= set(range(1, s)):
        raise ValueError(f"rows {', '.join(labels)}: e2 to e{s} are wanted")
    found = []
    for i in range(s):
        row = _padded(rows.get(i, ()), i, f"e{i + 1}")
        found.append(_padded(row, s, f"e{i + 1}"))
    return tuple(found)


def _dense(named: dict[str, Row], b: Row, total: int, end: int | None) -> Matrix | None:
    """Rows b1, b2, ...: the polynomial of each stage. Rows d4, d5, ...: the nested form."""
    if not named:
        return None
    kinds = {label[0] for label in named}
    if any(not re.fullmatch(r"[bd]\d+", label) for label in named) or len(kinds) > 1:
        raise ValueError(f"unknown rows {', '.join(named)}")
    if kinds == {"d"}:
        labels = sorted(named, key=lambda label: int(label[1:]))
        if end is None:
            raise ValueError("the nested form needs a stage at (t1, y1)")
        return _nested_dense(b, end, tuple(_padded(named[label], total, label) for label in labels))
    degree = max(len(row) for row in named.values())
    blank = (_ZERO,) * degree
    rows = {int(label[1:]) - 1: _padded(row, degree, label) for label, row in named.items()}
    if not rows.keys() <= set(range(total)):
        raise ValueError(f"the dense output names stage {max(rows) + 1} of {total}")
    return tuple(rows.get(i, blank) for i in range(total))


def table_of[T](kind: type[T]) -> Callable[[object], T]:
    """A check of the table that a method is made of, which returns it.

    >>> table_of(Tableau)("Tsit5")
    Traceback (most recent call last):
    TypeError: tableau is 'Tsit5'; a de.Tableau is wanted, ... such as de.Tsit5(), bring theirs.
    """

    def check(tableau: object) -> T:
        if not isinstance(tableau, kind):
            raise TypeError(
                f"tableau is {tableau!r}; a de.{kind.__name__} is wanted, read from its text: "
                f"de.{kind.__name__}(text). Methods with a name, such as de.Tsit5(), bring theirs."
            )
        return tableau

    return check


class Tableau(_Text):
    """A Runge-Kutta method, explicit or implicit, as a Butcher array.

    k_i = f(t + c_i dt, y + dt sum_j A_ij k_j),   y1 = y + dt sum_i b_i k_i

    Rows below the array, all but ``b`` optional: ``b_hat``, the embedded weights (never b - b_hat),
    and ``b_hat3``, a second embedded row for methods that blend two estimates, as DOP853 does.
    Then come *extra stages*, numbered on from s, which only dense output evaluates, and the dense
    output y(t + theta dt) = y + dt sum_i b_i(theta) k_i, i over stages and extra stages, either
    as rows ``b1``, ``b2``, ... that list the coefficients of theta, theta^2, ... for the stages
    named (the others are zero), or as rows ``d4``, ``d5``, ... in the nested form of Hairer and
    Wanner, which is expanded here.

    A row ``dense_error`` estimates how far the interpolant, own or cubic, is off inside the step,
    dt sum_i dense_error_i k_i: written where the difference b - b_hat does not tell, as that of two
    stiffly accurate solutions does not for stiff components, however long a step is.

    Rows ``e2``, ``e3``, ... are the explicit half of an additive (IMEX) pair, which shares b and c
    with A: stages y + dt sum_j A_ij g(t_j, y_j) + dt sum_j explicit_A_ij h(t_j, y_j) for
    y' = g + h.

    Where a method is not FSAL but its interpolant uses f(t1, y1), that value is simply an extra
    stage with c = 1 and the row b. `end_stage` finds it, in FSAL methods too.

    The header names ``order`` as 5(4): without it the order is found from the order conditions. It
    names the order of the dense output as ``dense``; 4(3), if that is smaller in a split problem.

    ``exact`` holds the fractions; every array is read-only float64:

    * ``A`` (s, s), ``b`` (s,), ``c`` (s,), ``b_hat`` and ``b_hat3`` (s,) or None
    * ``b_error`` = b - b_hat and ``b_error3`` = b - b_hat3, subtracted before rounding, or None
    * ``extra_A`` (e, s + e), ``extra_c`` (e,), empty where there are none
    * ``dense`` (s + e, degree) or None: b_i(theta) = sum_d dense[i, d] theta^(d + 1)
    * ``dense_chebyshev``, where the sum of powers of theta would lose digits, else None:
      b_i(theta) = theta sum_k dense_chebyshev[i, k] T_k(2 theta - 1)
    * ``dense_error`` (s,) or None
    * ``explicit_A`` (s, s) or None

    Raises:
        ValueError: the text cannot be read; it names the table and the entry.

    Reference: hairer1993, II.

    Example:
        >>> import diffeq as de
        >>> table = de.Tableau('''
        ... name: Mine
        ... order: 2(1)
        ...
        ... 0     |
        ... 1/2   | 1/2
        ... b     | 0    1
        ... b_hat | 1    0
        ... ''')
        >>> table.stages, table.order, table.fsal, table.b_error.tolist()
        (2, 2, False, [-1.0, 1.0])
        >>> de.ExplicitRK(table).adaptive
        True
    """

    @cached_property
    def exact(self) -> Exact:
        try:
            return _parse(self._body)
        except ValueError as error:
            raise ValueError(f"tableau {self.name}: {error}") from error

    @cached_property
    def order(self) -> int:
        declared = self._declared_order
        if declared is not None:
            return declared
        return order_of(precise(self.exact.A), precise(self.exact.b), precise(self.exact.c))

    @cached_property
    def stages(self) -> int:
        return len(self.exact.b)

    @cached_property
    def extra_stages(self) -> int:
        return len(self.exact.extra_c)

    @cached_property
    def A(self) -> Float[np.ndarray, "s s"]:
        return _floats(self.exact.A, (self.stages, self.stages))

    @cached_property
    def b(self) -> Float[np.ndarray, " s"]:
        return _floats(self.exact.b, (self.stages,))

    @cached_property
    def c(self) -> Float[np.ndarray, " s"]:
        return _floats(self.exact.c, (self.stages,))

    def _row(self, row: Row | None, minuend: Row | None = None) -> np.ndarray | None:
        if row is None:
            return None
        if minuend is not None:
            row = tuple(x - y for x, y in zip(minuend, row, strict=True))
        return _floats(row, (self.stages,))

    @cached_property
    def b_hat(self) -> Float[np.ndarray, " s"] | None:
        return self._row(self.exact.b_hat)

    @cached_property
    def b_hat3(self) -> Float[np.ndarray, " s"] | None:
        return self._row(self.exact.b_hat3)

    @cached_property
    def b_error(self) -> Float[np.ndarray, " s"] | None:
        return self._row(self.exact.b_hat, self.exact.b)

    @cached_property
    def b_error3(self) -> Float[np.ndarray, " s"] | None:
        return self._row(self.exact.b_hat3, self.exact.b)

    @cached_property
    def extra_A(self) -> Float[np.ndarray, "e total"]:
        return _floats(self.exact.extra_A, (self.extra_stages, self.stages + self.extra_stages))

    @cached_property
    def extra_c(self) -> Float[np.ndarray, " e"]:
        return _floats(self.exact.extra_c, (self.extra_stages,))

    @cached_property
    def dense(self) -> Float[np.ndarray, "total degree"] | None:
        rows = self.exact.dense
        return None if rows is None else _floats(rows, (len(rows), len(rows[0])))

    @cached_property
    def dense_chebyshev(self) -> Float[np.ndarray, "total degree"] | None:
        rows, powers = self.exact.dense, self.dense
        if rows is None or powers is None or np.abs(powers).sum(axis=0).max() < _CANCELLING:
            return None
        turned = tuple(tuple(in_chebyshev(row)) for row in rows)
        return _floats(turned, (len(turned), len(turned[0])))

    @cached_property
    def dense_error(self) -> Float[np.ndarray, " s"] | None:
        return self._row(self.exact.dense_error)

    @cached_property
    def explicit(self) -> bool:
        return not any(any(row[i:]) for i, row in enumerate(self.exact.A))

    @cached_property
    def explicit_A(self) -> Float[np.ndarray, "s s"] | None:
        rows = self.exact.explicit_A
        return None if rows is None else _floats(rows, (self.stages, self.stages))

    @cached_property
    def diagonally_implicit(self) -> bool:
        """Each stage depends on itself and on those before it."""
        return not any(any(row[i + 1 :]) for i, row in enumerate(self.exact.A))

    @cached_property
    def stiffly_accurate(self) -> bool:
        """The last stage is the result: the limit of infinite stiffness is right."""
        exact = self.exact
        return exact.c[-1] == 1 and exact.A[-1] == exact.b

    @cached_property
    def fsal(self) -> bool:
        """First same as last: the last stage is the first one of the next step."""
        return self.stiffly_accurate and not any(self.exact.A[0])

    @cached_property
    def end_stage(self) -> int | None:
        """The index, among stages and extra stages, of the one that is f(t1, y1)."""
        exact = self.exact
        return _end_stage(exact.A, exact.c, exact.extra_A, exact.extra_c, exact.b)

    def __str__(self) -> str:
        exact = self.exact
        rows = [
            (_format_fraction(c), row[:i] if self.explicit else row)
            for i, (c, row) in enumerate(zip(exact.c, exact.A, strict=True))
        ]
        rows += [
            (label, row)
            for label in ("b", "b_hat", "b_hat3")
            if (row := getattr(exact, label)) is not None
        ]
        tail = f"\n{self.extra_stages} extra stages" if self.extra_stages else ""
        dense = "" if exact.dense is None else f"\ndense output of order {self.dense_order}"
        return f"{self._title()}\n{_layout(rows)}{tail}{dense}"


# --- Rosenbrock ----------------------------------------------------------------------------------


class ExactRosenbrock(NamedTuple):
    """The coefficients of a `RosenbrockTableau` as fractions, row by row."""

    gamma: Fraction
    A: Matrix
    C: Matrix
    c: Row
    d: Row
    b: Row
    b_hat: Row | None
    dense: Matrix | None
    dense_error: Row | None


def _lower_inverse(M: Matrix) -> Matrix:
    """The inverse of a lower triangular matrix."""
    rows: list[list[Fraction]] = []
    for i, row in enumerate(M):
        known = [sum((row[k] * rows[k][j] for k in range(j, i)), _ZERO) for j in range(i)]
        rows.append([*(-x / row[i] for x in known), 1 / row[i], *[_ZERO] * (len(M) - i - 1)])
    return tuple(map(tuple, rows))


def _row_times_matrix(row: Row, M: Matrix) -> Row:
    return tuple(
        sum((x * y for x, y in zip(row, column, strict=True)), _ZERO)
        for column in zip(*M, strict=True)
    )


def _strictly_lower(named: dict[str, Row], letter: str, s: int) -> Matrix:
    """Rows C2, C3, ... (or g2, g3, ...): what a stage has of the stages before it."""
    rows = [named.pop(f"{letter}{i + 1}", ()) for i in range(s)]
    return tuple(_padded(_padded(row, i, f"{letter}{i + 1}"), s, "") for i, row in enumerate(rows))


def _with_diagonal(M: Matrix, diagonal: Fraction, sign: int) -> Matrix:
    """The diagonal, and sign times what M has below it."""
    return tuple(
        tuple(diagonal if i == j else sign * x for j, x in enumerate(row))
        for i, row in enumerate(M)
    )


def _above_ends(b: Row, terms: Sequence[Row]) -> Matrix:
    """The polynomials of theta b + theta (1 - theta) (h2 + theta h3 + theta^2 h4 + ...)."""
    padded = [_padded(row, len(b), "h") for row in terms]
    by_power = [tuple(x + y for x, y in zip(b, padded[0], strict=True))]
    for low, high in zip(padded, [*padded[1:], (_ZERO,) * len(b)], strict=True):
        by_power.append(tuple(y - x for x, y in zip(low, high, strict=True)))
    return tuple(zip(*by_power, strict=True))


class RosenbrockTableau(_Text):
    """A Rosenbrock method, as papers print it, or in the form in which codes run it.

    With J = df/dy and f_t = df/dt at (t, y), and a mass matrix M (or 1)::

        M k_i = f(t + c_i dt, y + dt sum_j alpha_ij k_j) + dt J sum_j gamma_ij k_j + dt d_i f_t
        y1 = y + dt sum_i b_i k_i

    where sum_j gamma_ij goes up to the diagonal, which is gamma in every stage. The products with J
    disappear in the variables u_i = dt sum_j gamma_ij k_j, in which codes run the method::

        (M - dt gamma J) u_i = dt gamma (f(t + c_i dt, y + sum_j a_ij u_j) + dt d_i f_t)
                               + gamma M sum_j C_ij u_j
        y1 = y + sum_i m_i u_i

    Either form can be written down. Stages are rows ``c | a_i1 a_i2 ...``. With rows ``g2``,
    ``g3``, ... for the gamma_ij below the diagonal, the entries of the stages are alpha_ij, and
    ``b``, ``b_hat`` and the dense output belong to the k_i: the form of papers. With rows ``C2``,
    ``C3``, ... they belong to the u_i: the form of codes. ``gamma`` is a row of one number, and
    ``d`` is found from the others where it is not given. The dense output is either rows ``b1``,
    ``b2``, ... with the coefficients of theta, theta^2, ... of a stage, or rows ``h2``, ``h3``, ...
    of y + theta b + theta (1 - theta) (h2 + theta h3 + ...), the form of Hairer and Wanner. A row
    ``dense_error`` estimates the error of that inside the step, as in a `Tableau`.

    ``exact`` holds fractions in the variables u_i; ``classical`` gives (alpha, beta, b, b_hat) with
    beta = alpha + gamma, for order conditions. Arrays are read-only float64: ``A``, ``C`` (s, s),
    ``c``, ``d``, ``b``, ``b_hat``, ``b_error``, ``dense_error`` (s,), ``dense`` (s, degree).

    Raises:
        ValueError: no row ``gamma`` or ``b``, an unknown row, or one that is too long.

    Reference: hairer1996, IV.7.

    Example:
        The linearly implicit Euler method:

        >>> import diffeq as de
        >>> table = de.RosenbrockTableau('''
        ... name: LinearlyImplicitEuler
        ... order: 1
        ...
        ... gamma | 1
        ... 0     |
        ... b     | 1
        ... ''')
        >>> table.stages, table.gamma, de.Rosenbrock(table).adaptive
        (1, 1.0, False)
    """

    @cached_property
    def exact(self) -> ExactRosenbrock:
        try:
            return self._parsed()
        except ValueError as error:
            raise ValueError(f"tableau {self.name}: {error}") from error

    def _parsed(self) -> ExactRosenbrock:
        named: dict[str, Row] = {}
        stages: list[tuple[Fraction, Row]] = []
        for label, row in _parse_rows(self._body):
            if isinstance(label, str):
                named[label] = row
            else:
                stages.append((label, row))
        if not {"gamma", "b"} <= named.keys():
            raise ValueError("rows gamma and b are needed")
        s, (gamma,) = len(stages), named.pop("gamma")
        A = tuple(_padded(row, s, f"stage {i + 1}") for i, (_, row) in enumerate(stages))
        b, b_hat, d, error = (
            _padded(named.pop(key), s, key) if key in named else None
            for key in ("b", "b_hat", "d", _ERROR)
        )
        assert b is not None  # checked above
        printed = any(re.fullmatch(r"g\d+", label) for label in named)
        C = _strictly_lower(named, "g" if printed else "C", s)
        dense = self._dense(named, b, s)
        if printed:  # u = dt Gamma k, hence k-rows times Gamma^-1
            inverse = _lower_inverse(_with_diagonal(C, gamma, 1))
            A, C = (
                tuple(_row_times_matrix(row, inverse) for row in A),
                _with_diagonal(inverse, _ZERO, -1),
            )
            b, b_hat, error = (x and _row_times_matrix(x, inverse) for x in (b, b_hat, error))
            assert b is not None  # checked above
            if dense is not None:
                by_power = [
                    _row_times_matrix(column, inverse) for column in zip(*dense, strict=True)
                ]
                dense = tuple(zip(*by_power, strict=True))
        Gamma = _lower_inverse(_with_diagonal(C, 1 / gamma, -1))
        d = d or tuple(sum(row, _ZERO) for row in Gamma)
        nodes = tuple(c for c, _ in stages)
        return ExactRosenbrock(gamma, A, C, nodes, d, b, b_hat, dense, error)

    @staticmethod
    def _dense(named: dict[str, Row], b: Row, s: int) -> Matrix | None:
        """Rows h2, h3, ... or b1, b2, ...: what is left when all else has been read."""
        if not named:
            return None
        if all(re.fullmatch(r"h\d+", label) for label in named):
            return _above_ends(b, [named[f"h{i + 2}"] for i in range(len(named))])
        numbers = {label: re.fullmatch(r"b(\d+)", label) for label in named}
        rows = {int(found[1]): named[label] for label, found in numbers.items() if found}
        if len(rows) < len(named) or max(rows) > s:
            raise ValueError(f"unknown rows {', '.join(named)}")
        degree = max(map(len, rows.values()))
        return tuple(_padded(rows.get(i + 1, ()), degree, f"b{i + 1}") for i in range(s))

    @cached_property
    def classical(self) -> tuple[Matrix, Matrix, Row, Row | None]:
        """(alpha, beta, b, b_hat) of the k_i."""
        exact = self.exact
        Gamma = _lower_inverse(_with_diagonal(exact.C, 1 / exact.gamma, -1))
        alpha = tuple(_row_times_matrix(row, Gamma) for row in exact.A)
        beta = tuple(
            tuple(x + y for x, y in zip(*rows, strict=True))
            for rows in zip(alpha, Gamma, strict=True)
        )
        b_hat = None if exact.b_hat is None else _row_times_matrix(exact.b_hat, Gamma)
        return alpha, beta, _row_times_matrix(exact.b, Gamma), b_hat

    @cached_property
    def classical_dense(self) -> Matrix | None:
        """The dense output's polynomials of the k_i."""
        exact = self.exact
        if exact.dense is None:
            return None
        Gamma = _lower_inverse(_with_diagonal(exact.C, 1 / exact.gamma, -1))
        by_power = [_row_times_matrix(column, Gamma) for column in zip(*exact.dense, strict=True)]
        return tuple(zip(*by_power, strict=True))

    @cached_property
    def order(self) -> int:
        declared = self._declared_order
        if declared is not None:
            return declared
        alpha, beta, b, _ = self.classical
        return rosenbrock_order_of(precise(alpha), precise(beta), precise(b))

    @cached_property
    def stages(self) -> int:
        return len(self.exact.b)

    @cached_property
    def gamma(self) -> float:
        return float(self.exact.gamma)

    @cached_property
    def A(self) -> Float[np.ndarray, "s s"]:
        return _floats(self.exact.A, (self.stages, self.stages))

    @cached_property
    def C(self) -> Float[np.ndarray, "s s"]:
        return _floats(self.exact.C, (self.stages, self.stages))

    @cached_property
    def gamma_C(self) -> Float[np.ndarray, "s s"]:
        """Gamma C, multiplied before rounding."""
        exact = self.exact
        rows = tuple(tuple(exact.gamma * x for x in row) for row in exact.C)
        return _floats(rows, (self.stages, self.stages))

    @cached_property
    def c(self) -> Float[np.ndarray, " s"]:
        return _floats(self.exact.c, (self.stages,))

    @cached_property
    def d(self) -> Float[np.ndarray, " s"]:
        return _floats(self.exact.d, (self.stages,))

    @cached_property
    def b(self) -> Float[np.ndarray, " s"]:
        return _floats(self.exact.b, (self.stages,))

    @cached_property
    def b_hat(self) -> Float[np.ndarray, " s"] | None:
        row = self.exact.b_hat
        return None if row is None else _floats(row, (self.stages,))

    @cached_property
    def b_error(self) -> Float[np.ndarray, " s"] | None:
        exact = self.exact
        if exact.b_hat is None:
            return None
        return _floats([x - y for x, y in zip(exact.b, exact.b_hat, strict=True)], (self.stages,))

    @cached_property
    def dense(self) -> Float[np.ndarray, "s degree"] | None:
        rows = self.exact.dense
        return None if rows is None else _floats(rows, (len(rows), len(rows[0])))

    @cached_property
    def dense_error(self) -> Float[np.ndarray, " s"] | None:
        row = self.exact.dense_error
        return None if row is None else _floats(row, (self.stages,))

    @property
    def fsal(self) -> bool:
        """Never: a step begins with the field and its derivatives, which are found together."""
        return False

    def __str__(self) -> str:
        exact = self.exact
        rows = [("gamma", (exact.gamma,))]
        rows += [
            (_format_fraction(c), row[:i])
            for i, (c, row) in enumerate(zip(exact.c, exact.A, strict=True))
        ]
        rows += [(f"C{i + 1}", row[:i]) for i, row in enumerate(exact.C) if i]
        rows += [("b", exact.b), *([] if exact.b_hat is None else [("b_hat", exact.b_hat)])]
        dense = "" if exact.dense is None else f"\ndense output of order {self.dense_order}"
        return f"{self._title()}\n{_layout(rows)}{dense}"


# --- splittings --------------------------------------------------------------------------------


class Splitting(_Text):
    """A composition of kicks and drifts for H(t, q, p) = T(t, p) + V(t, q).

    For i = 1, ..., s, in this order::

        p = p - kick_i  dt dV/dq(t + kick_c_i  dt, q)
        q = q + drift_i dt dT/dp(t + drift_c_i dt, p)

    so each stage kicks first and then drifts with the new momentum; a zero entry leaves its half
    out. Hence rows ``kick`` and ``drift`` of equal length, without more. A force reads the clock of
    the drifts, kick_c_i = drift_1 + ... + drift_(i-1), and a velocity the clock of the kicks,
    drift_c_i = kick_1 + ... + kick_i, which is what makes a non-autonomous H keep its order.

    Some methods have their order only where T is quadratic in p, as in x'' = f(t, x): the header
    then says ``kinetic: quadratic``, and `quadratic_kinetic` is True.

    Raises:
        ValueError: rows other than ``kick`` and ``drift``, or of different length.

    Reference: yoshida1990.

    Example:
        >>> import diffeq as de
        >>> leapfrog = de.Splitting('''
        ... name: Leapfrog
        ... order: 2
        ...
        ... kick  | 1/2  1/2
        ... drift | 1    0
        ... ''')
        >>> leapfrog.symmetric, leapfrog.fsal, de.Symplectic(leapfrog).order
        (True, True, 2)
    """

    @property
    def quadratic_kinetic(self) -> bool:
        return self._header.get("kinetic") == "quadratic"

    @cached_property
    def exact(self) -> tuple[Row, Row]:
        """(kick, drift) as fractions."""
        rows = {str(label): row for label, row in _parse_rows(self._body)}
        if rows.keys() != {"kick", "drift"} or len(rows["kick"]) != len(rows["drift"]):
            raise ValueError(f"splitting {self.name}: rows kick and drift of equal length wanted")
        return rows["kick"], rows["drift"]

    @property
    def order(self) -> int | None:
        return self._declared_order

    @cached_property
    def stages(self) -> int:
        return len(self.exact[0])

    @cached_property
    def kick(self) -> Float[np.ndarray, " s"]:
        return _floats(self.exact[0], (self.stages,))

    @cached_property
    def drift(self) -> Float[np.ndarray, " s"]:
        return _floats(self.exact[1], (self.stages,))

    @cached_property
    def kick_c(self) -> Float[np.ndarray, " s"]:
        drift = self.exact[1]
        return _floats([sum(drift[:i], _ZERO) for i in range(self.stages)], (self.stages,))

    @cached_property
    def drift_c(self) -> Float[np.ndarray, " s"]:
        kick = self.exact[0]
        return _floats([sum(kick[: i + 1], _ZERO) for i in range(self.stages)], (self.stages,))

    @cached_property
    def fsal(self) -> bool:
        """The last force is the first one of the next step: nothing drifts after the last kick."""
        return self.exact[1][-1] == 0 and self.exact[0][0] != 0

    @cached_property
    def symmetric(self) -> bool:
        """The method is its own adjoint, so it runs backwards exactly and has even order."""
        kick, drift = self.exact
        factors = [x for pair in zip(kick, drift, strict=True) for x in pair]
        ends = [i for i, x in enumerate(factors) if x != 0]
        if not ends or (ends[-1] - ends[0]) % 2:  # begins and ends with different flows
            return False
        core = factors[ends[0] : ends[-1] + 1]
        return core == core[::-1]

    def __str__(self) -> str:
        kick, drift = self.exact
        return f"{self._title()}\n{_layout([('kick', kick), ('drift', drift)])}"


# --- Runge-Kutta-Nystrom -----------------------------------------------------------------------


class ExactNystrom(NamedTuple):
    """The coefficients of a `NystromTableau` as fractions, row by row."""

    A: Matrix
    b: Row
    b_dot: Row
    b_hat: Row | None
    b_dot_hat: Row | None
    c: Row
    dense: Matrix | None
    dense_dot: Matrix | None


class NystromTableau(_Text):
    """An explicit Runge-Kutta-Nystrom method for x'' = f(t, x, args).

    k_i = f(t + c_i dt, x + c_i dt v + dt^2 sum_j A_ij k_j)
    x1 = x + dt v + dt^2 sum_i b_i k_i,   v1 = v + dt sum_i b_dot_i k_i

    Rows ``b``, ``b_dot``, and for the embedded method ``b_hat``, ``b_dot_hat``. Dense output, where
    there is any, by stage: rows ``x1``, ``x2``, ... list the coefficients of theta^2, theta^3, ...
    of b_i(theta), and rows ``v1``, ``v2``, ... those of theta, theta^2, ... of b_dot_i(theta):

    x(theta) = x + theta dt v + dt^2 sum_i b_i(theta) k_i
    v(theta) = v + dt sum_i b_dot_i(theta) k_i

    ``dense`` and ``dense_dot`` are these as (s, degree) arrays, or None.

    Raises:
        ValueError: no row ``b`` or ``b_dot``, or one that is too long.

    Reference: dormand1987; hairer1993, II.14.

    Example:
        Verlet's method, as a table for x'' = f(t, x):

        >>> import diffeq as de
        >>> table = de.NystromTableau('''
        ... name: Verlet
        ... order: 2
        ...
        ... 0     |
        ... 1     | 1/2
        ... b     | 1/2  0
        ... b_dot | 1/2  1/2
        ... ''')
        >>> table.stages, table.fsal, de.Nystrom(table).adaptive
        (2, True, False)
    """

    velocity_free: ClassVar[bool] = True

    @cached_property
    def exact(self) -> ExactNystrom:
        named: dict[str, Row] = {}
        stages: list[tuple[Fraction, Row]] = []
        for label, row in _parse_rows(self._body):
            if isinstance(label, str):
                named[label] = row
            else:
                stages.append((label, row))
        s = len(stages)
        keys = ("b", "b_dot", "b_hat", "b_dot_hat")
        rows = [_padded(named.pop(key), s, key) if key in named else None for key in keys]
        A = tuple(_padded(row, s, f"stage {i + 1}") for i, (_, row) in enumerate(stages))
        if rows[0] is None or rows[1] is None:
            raise ValueError(f"Nystrom tableau {self.name}: rows b and b_dot are needed")
        positions, velocities = (self._polynomials(named, letter, s) for letter in "xv")
        c = tuple(node for node, _ in stages)
        return ExactNystrom(A, rows[0], rows[1], rows[2], rows[3], c, positions, velocities)

    def _polynomials(self, named: dict[str, Row], letter: str, s: int) -> Matrix | None:
        rows = {int(key[1:]) - 1: row for key, row in named.items() if key[0] == letter}
        if not rows:
            return None
        degree = max(len(row) for row in rows.values())
        return tuple(_padded(rows.get(i, ()), degree, letter) for i in range(s))

    @property
    def order(self) -> int | None:
        return self._declared_order

    @cached_property
    def stages(self) -> int:
        return len(self.exact.b)

    @cached_property
    def A(self) -> Float[np.ndarray, "s s"]:
        return _floats(self.exact.A, (self.stages, self.stages))

    @cached_property
    def c(self) -> Float[np.ndarray, " s"]:
        return _floats(self.exact.c, (self.stages,))

    def _row(self, key: str) -> np.ndarray | None:
        row = getattr(self.exact, key)
        return None if row is None else _floats(row, (self.stages,))

    def _difference(self, key: str) -> np.ndarray | None:
        embedded = getattr(self.exact, f"{key}_hat")
        if embedded is None:
            return None
        pairs = zip(getattr(self.exact, key), embedded, strict=True)
        return _floats([x - y for x, y in pairs], (self.stages,))

    @cached_property
    def b(self) -> Float[np.ndarray, " s"]:
        return _floats(self.exact.b, (self.stages,))

    @cached_property
    def b_dot(self) -> Float[np.ndarray, " s"]:
        return _floats(self.exact.b_dot, (self.stages,))

    @cached_property
    def b_hat(self) -> Float[np.ndarray, " s"] | None:
        return self._row("b_hat")

    @cached_property
    def b_dot_hat(self) -> Float[np.ndarray, " s"] | None:
        return self._row("b_dot_hat")

    @cached_property
    def b_error(self) -> Float[np.ndarray, " s"] | None:
        return self._difference("b")

    @cached_property
    def b_dot_error(self) -> Float[np.ndarray, " s"] | None:
        return self._difference("b_dot")

    def _poly(self, rows: Matrix | None) -> np.ndarray | None:
        return None if rows is None else _floats(rows, (len(rows), len(rows[0])))

    @cached_property
    def dense(self) -> Float[np.ndarray, "s degree"] | None:
        return self._poly(self.exact.dense)

    @cached_property
    def dense_dot(self) -> Float[np.ndarray, "s degree"] | None:
        return self._poly(self.exact.dense_dot)

    @cached_property
    def fsal(self) -> bool:
        """The last stage is the first one of the next step."""
        return self.exact.c[-1] == 1 and self.exact.A[-1] == self.exact.b

    def __str__(self) -> str:
        exact = self.exact
        pairs = zip(exact.c, exact.A, strict=True)
        rows = [(_format_fraction(c), row[:i]) for i, (c, row) in enumerate(pairs)]
        rows += [
            (label, row)
            for label in ("b", "b_dot", "b_hat", "b_dot_hat")
            if (row := getattr(exact, label)) is not None
        ]
        return f"{self._title()}\n{_layout(rows)}"
