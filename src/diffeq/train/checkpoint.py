"""The file of a fit that can go on: all that the next step depends on, and what the fit was of."""

import hashlib
import io
import json
import re
import time
import zipfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..autodiff.jax_internals import is_key
from ..closures import Captured, captured
from ..core.atomic_write import write_whole
from ..validation.values import shown
from .batches import Draws
from .compiled_step import Optimizer

__all__ = ["Checkpoint", "Progressed", "checked_checkpoint", "marks_of_inputs", "optimizer_mark"]

_SECONDS = 10.0  # between two checkpoints, where no number of steps is given
_UNREADABLE = (ValueError, LookupError, TypeError, EOFError, OSError, zipfile.BadZipFile)


class Progressed(NamedTuple):
    """The place that a fit has reached.

    Attributes:
        phase, done: the number of the phase, and the steps made in it.
        planned: the steps of the phases before it.
        starts: where in the history each phase starts.
        searches: whether its optimiser evaluates the loss itself.
        history: the losses.
    """

    phase: int
    done: int
    planned: tuple[int, ...]
    starts: tuple[int, ...]
    searches: bool
    history: tuple[float, ...]


class Checkpoint:
    """A folder with one file, `fit.npz`: arrays as bytes, and a head in JSON; no pickle."""

    def __init__(self, folder: str | PathLike, every: int | None) -> None:
        self.folder, self.every = Path(folder).expanduser(), every
        self.file = self.folder / "fit.npz"
        self.saved = time.monotonic()

    def due(self, steps: int) -> bool:
        """True if a fit that has made so many steps is to be written."""
        if self.every is not None:
            return steps % self.every == 0
        return time.monotonic() - self.saved >= _SECONDS

    def write(self, progressed: Progressed, marks: dict[str, str], carry: PyTree) -> None:
        """Writes the fit: the place it has reached, its marks, and the carry."""
        leaves = jax.tree.leaves(carry)
        head = progressed._replace(history=())._asdict() | {"marks": marks, "arrays": _kinds(carry)}
        arrays = {str(i): _as_bytes(x) for i, x in enumerate(leaves)}
        arrays["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
        arrays["history"] = np.asarray(progressed.history, np.float64)

        def write(stream: BinaryIO) -> None:
            np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType]

        write_whole(self.file, write)
        self.saved = time.monotonic()

    def read(self) -> "Written | None":
        """The contents of the file; None if there is none, and then the folder is made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.file.exists():
            return None
        try:
            with np.load(io.BytesIO(self.file.read_bytes()), allow_pickle=False) as arrays:
                head = json.loads(arrays["head"].tobytes())
                count = len(head["arrays"])
                contents = [arrays[str(i)].tobytes() for i in range(count)]
                history = tuple(arrays["history"].tolist())
            marks, kinds = head.pop("marks"), [tuple(kind) for kind in head.pop("arrays")]
            lists = {name: tuple(head[name]) for name in ("planned", "starts")}
            progressed = Progressed(**(head | lists | {"history": history}))
        except _UNREADABLE as error:
            raise ValueError(
                f"{self.file} cannot be read ({error}): remove it, and the fit starts anew."
            ) from error
        return Written(self, progressed, marks, kinds, contents)


class Written(NamedTuple):
    """The contents of a checkpoint."""

    checkpoint: Checkpoint
    progressed: Progressed
    marks: dict[str, str]
    kinds: list[tuple]
    contents: list[bytes]

    def check(self, marks: dict[str, str], steps: Sequence[int]) -> None:
        """Raises an error unless it is of the fit with these marks and steps of its phases."""
        done = self.progressed
        other = [name for name in self.marks if self.marks[name] != marks.get(name)]
        for number, count in enumerate(done.planned):
            if number >= len(steps) or steps[number] != count:
                other.append(f"the steps of phase {number} ({count})")
        if other:
            self._refuse(f"of another fit, which differs in {', '.join(other)}")
        if done.done > steps[done.phase]:
            made = f"{done.done} steps of phase {done.phase} were made"
            self._refuse(f"longer than this one ({made}, and {steps[done.phase]} are asked for)")

    def carry(self, like: PyTree) -> PyTree:
        """The carry that was written, for one like it."""
        if self.kinds != [tuple(kind) for kind in _kinds(like)]:
            self._refuse("of another fit, with other arrays in its optimiser")
        leaves, tree = jax.tree.flatten(like)
        return tree.unflatten(map(_from_bytes, self.contents, leaves))

    def _refuse(self, what: str) -> None:
        folder = str(self.checkpoint.folder)
        raise ValueError(
            f"checkpoint={folder!r} holds a fit that is {what}: name another folder, or remove "
            "this one."
        )


def _kinds(carry: PyTree) -> list[tuple[str, str, list[int]]]:
    """The path, dtype and shape of each array."""
    flat = jax.tree.leaves_with_path(carry)
    return [(jax.tree_util.keystr(path), str(x.dtype), list(x.shape)) for path, x in flat]


def _as_bytes(x: Any) -> np.ndarray:
    plain = np.asarray(jax.random.key_data(x) if is_key(x) else x)
    return np.frombuffer(np.ascontiguousarray(plain).tobytes(), np.uint8)


def _from_bytes(content: bytes, like: Array) -> Array:
    """An array of the kind, and on the devices, of another one."""
    plain = jax.random.key_data(like) if is_key(like) else like
    found = jnp.asarray(np.frombuffer(content, plain.dtype).reshape(plain.shape))
    if is_key(like):
        found = jax.random.wrap_key_data(found, impl=jax.random.key_impl(like))
    return jax.device_put(found, like.sharding)


# --- what a fit is of -----------------------------------------------------------------------------


def marks_of_inputs(
    theta: PyTree, state: tuple, draws: Draws, objective: Captured
) -> dict[str, str]:
    """Identifies a fit but for its optimisers: the names of its parts, and their hashes."""
    return {
        "the model that it starts from": _hash(str(_kinds((theta, state))), (theta, state)),
        "the loss, or what it closes over": _mark_of(objective),
        "data": _hash(str(jax.tree.structure(draws.data)), draws.data),
        "batch_size": str(draws.size),
        "key": _hash(str(draws.keyed), draws.key),
    }


def optimizer_mark(optimizer: Optimizer, theta: PyTree) -> str:
    """Identifies an optimiser, its learning rate and its schedules included."""
    import optax

    def first_updates(theta: PyTree) -> PyTree:
        loss = lambda theta: sum(jnp.sum(jnp.abs(x) ** 2) for x in jax.tree.leaves(theta))  # noqa: E731
        value = jnp.asarray(loss(theta), jnp.result_type(float))
        update = optax.with_extra_args_support(optimizer).update  # pyright: ignore[reportArgumentType]
        state = optimizer.init(theta)
        return update(theta, state, theta, value=value, grad=theta, value_fn=loss)

    return _mark_of(captured(first_updates, theta))


def _mark_of(function: Captured) -> str:
    """Identifies a traced function: its equations, its constants and the arrays it closes over."""
    text = re.sub(r"0x[0-9a-f]+", "", str(function.program.equations))
    return _hash(text, (function.program.constants, function.inputs))


def _hash(text: str, arrays: PyTree) -> str:
    found = hashlib.sha256(text.encode())
    for x in jax.tree.leaves(arrays):
        found.update(_as_bytes(x if hasattr(x, "dtype") else np.asarray(x)).tobytes())
    return found.hexdigest()[:16]


def checked_checkpoint(folder: Any, every: Any) -> Checkpoint | None:
    """The checkpoint of a fit, or None. Raises a TypeError or a ValueError for what is none."""
    if folder is None:
        if every is not None:
            raise ValueError(
                f"every is {shown(every)}, and there is no checkpoint: give a folder as well, "
                'checkpoint="fit".'
            )
        return None
    if not isinstance(folder, (str, PathLike)):
        raise TypeError(f'checkpoint is {shown(folder)}; a folder is wanted, such as "fit".')
    whole = isinstance(every, (int, np.integer)) and not isinstance(every, bool)
    if every is not None and not whole:
        raise TypeError(f"every is {shown(every)}; a whole number of steps is wanted.")
    if every is not None and every < 1:
        raise ValueError(f"every is {every}; at least one step is wanted.")
    if Path(folder).expanduser().is_file():
        raise ValueError(f"checkpoint={str(folder)!r} is a file; a folder is wanted.")
    return Checkpoint(folder, None if every is None else int(every))
