"""`captured`: a user's function as a program, and the arrays that it closes over as its inputs.

A function is traced when a call is made, and the program is what was traced: so a call returns what
a fresh trace would return, whatever the function reads and wherever that lies. Arrays of JAX that
it closes over, tracers included, become inputs: they differentiate, and another array of the same
shape is the same program. NumPy arrays and Python numbers are constants of the program, as they are
under `jax.jit`. A function that reads what it read before (`reading_of`) is not traced again.
"""

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..autodiff.jax_internals import Jaxpr, bound, evaluate, input_types, output_types
from ..core.promotion import user_promotion
from .bounds_check import check_indices
from .numpy_draws import notice_draws
from .reading import reading_key, reading_of
from .same_program import constant_key, key_of_jaxpr, same_program
from .structure import flatten, unflatten

__all__ = ["Captured", "CapturedProgram", "captured"]

_KEPT = 512  # functions that are not traced again while they read the same
_captured: OrderedDict[Hashable, "Captured"] = OrderedDict()
# A NumPy array of more bytes is an input: a program is not compared by megabytes.
_LARGE = 1024


class CapturedProgram:
    """The equations of a function: its inputs are of `types` after the `constants`, where None is
    an array that it closes over. Equal programs are one object (`same_program`).
    """

    def __init__(self, equations: Jaxpr, constants: list, out: "_OutputTree") -> None:
        self.equations, self.constants, self.out = equations, constants, out
        self.types = input_types(equations)[len(constants) :]

    def __call__(self, inputs: Sequence, leaves: Sequence) -> PyTree:
        return self.out.joined(evaluate(self.equations, self.operands(inputs, leaves)))

    def operands(self, inputs: Sequence, leaves: Sequence) -> list:
        """All inputs of its jaxpr: constants, what it closes over, and the arguments."""
        found = iter(inputs)
        consts = [next(found) if c is None else c for c in self.constants]
        pairs = zip(leaves, self.types, strict=True)
        leaves = [x if _dtype(x) == a.dtype else jnp.asarray(x, a.dtype) for x, a in pairs]
        return [*consts, *leaves]


class _OutputTree:
    """The tree that a function returns: its arrays are computed, and the rest is as it is."""

    def __init__(self, value: PyTree) -> None:
        leaves, self.tree = jax.tree.flatten(value)
        self.rest = [None if _is_array(x) else x for x in leaves]
        self.known = [not _is_array(x) for x in leaves]

    @property
    def key(self) -> Hashable:
        return self.tree, tuple(self.known), reading_key(self.rest)

    def joined(self, arrays: Sequence) -> PyTree:
        found, each = iter(arrays), zip(self.rest, self.known, strict=True)
        return jax.tree.unflatten(self.tree, [x if known else next(found) for x, known in each])


class Captured:
    """A function that was traced. A pytree of the arrays that it closes over."""

    def __init__(self, program: CapturedProgram, inputs: list, function: "_Original") -> None:
        self.program, self.inputs, self.function = program, inputs, function

    def __call__(self, *args: PyTree) -> PyTree:
        return self.program(self.inputs, flatten(args)[0])

    def operands(self, *args: PyTree) -> list:
        """All inputs of its jaxpr, for these arguments."""
        return self.program.operands(self.inputs, flatten(args)[0])

    def result(self, arrays: Sequence) -> PyTree:
        """Returns the tree that the function returns, of the outputs of its jaxpr."""
        return self.program.out.joined(arrays)

    @property
    def returned(self) -> PyTree:
        """The shapes and dtypes of what it returns."""
        types = output_types(self.program.equations)
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in types]
        return self.program.out.joined(shapes)

    @property
    def __name__(self) -> str:
        return self.function.name

    @property
    def __signature__(self) -> inspect.Signature | None:
        return self.function.signature

    def __repr__(self) -> str:
        return self.function.name


jax.tree_util.register_pytree_node(
    Captured,
    lambda f: ((f.inputs,), (f.program, f.function)),
    lambda aux, children: Captured(aux[0], *children, aux[1]),
)


class _Original:
    """The name and the signature of a function, for messages; all are equal, since no program
    depends on them.
    """

    def __init__(self, f: Callable) -> None:
        self.name = getattr(f, "__name__", type(f).__name__)
        try:
            self.signature = inspect.signature(f)
        except (TypeError, ValueError):
            self.signature = None

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Original)


@user_promotion()
def captured(
    f: Callable,
    *args: PyTree,
    guard: Callable[..., AbstractContextManager] | None = None,
    name: str = "",
) -> Captured:
    """`f`, traced for arguments like these: trees of arrays, or of their shapes and dtypes.

    `guard(*args)` surrounds the trace: it may check it, and explain what fails in it. `name`
    is what messages call f.

    >>> scale, shift = jnp.array(2.0), 1.0
    >>> f = captured(lambda t, y: scale * y + shift, 0.0, jnp.zeros(2))
    >>> len(f.inputs), f(0.0, jnp.ones(2))
    (1, Array([3., 3.], dtype=float32))
    >>> g = captured(lambda t, y: scale * y + shift, 0.0, jnp.zeros(2))
    >>> f.program is g.program
    True
    """
    leaves, structure = flatten(args)
    shapes = [_argument_shape(x) for x in leaves]
    reading = reading_of(f)
    avals = tuple((s.shape, s.dtype, s.weak_type) for s in shapes)
    key = (reading.key, structure, avals, _settings())
    if reading.certain and key in _captured:
        _captured.move_to_end(key)
        return _captured[key]
    name = name or getattr(f, "__name__", type(f).__name__)
    # What reads the same each time draws nothing.
    with nullcontext() if reading.certain else notice_draws(name, f):
        found = _trace_program(f, structure, shapes, guard or (lambda *_: nullcontext()))
    check_indices(name, found.program.equations, found.program.constants)
    if reading.certain:
        _captured[key] = found
        if len(_captured) > _KEPT:
            _captured.popitem(last=False)
    return found


def _trace_program(f: Callable, structure: Hashable, shapes: list, guard: Callable) -> Captured:
    assert isinstance(structure, tuple)
    outputs: list[_OutputTree] = []

    @functools.wraps(f, assigned=(), updated=())  # JAX's errors name the user's function
    def call(*leaves: PyTree) -> list:
        args = unflatten(structure, leaves)
        with guard(*args):
            value = f(*args)
        outputs.append(_OutputTree(value))  # without the tracers in it
        return [x for x in jax.tree.leaves(value) if _is_array(x)]

    jaxpr, consts = bound(call, *shapes)
    out = outputs[-1]
    inputs = [x for x in consts if _is_input(x)]
    constants = [None if _is_input(x) else x for x in consts]
    fixed = tuple(None if x is None else constant_key(x) for x in constants)
    # Functions in args are part of what was traced, and no part of the key.
    tree, rest = structure
    places = tuple(s is None for s in rest)
    key = (key_of_jaxpr(jaxpr, fixed), tree, places, out.key)
    program = same_program(key, CapturedProgram(jaxpr, constants, out))
    return Captured(program, inputs, _Original(f))


def _argument_shape(x: PyTree) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an argument; that of a Python number yields to those of arrays."""
    weak = getattr(x, "weak_type", type(x) in (int, float, complex))
    return jax.ShapeDtypeStruct(np.shape(x), _dtype(x), weak_type=weak)


def _dtype(x: PyTree) -> Any:
    """The dtype that JAX gives it: of an array of NumPy in double precision single, without x64."""
    return x.dtype if isinstance(x, (jax.Array, jax.ShapeDtypeStruct)) else jnp.result_type(x)


def _is_array(x: PyTree) -> bool:
    return isinstance(x, (jax.Array, np.ndarray, np.generic))


def _is_input(x: PyTree) -> bool:
    return isinstance(x, jax.Array) or np.asarray(x).nbytes > _LARGE


# Settings of JAX that change what a trace makes.
_SETTINGS = (
    "jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion", "jax_default_prng_impl", "jax_threefry_partitionable",
    "jax_disable_jit", "jax_debug_nans", "jax_enable_custom_prng",
)  # fmt: skip


def _settings() -> tuple:
    return tuple(getattr(jax.config, name, None) for name in _SETTINGS)
