"""An ensemble in blocks, one after another, with a progress bar, and checkpoints on disk from which
it can be resumed.

Each block leaves a state of the statistics and a few numbers of each trajectory. In a folder they
are one file each, written whole or not at all; a call that finds them there reads them, and its
result is that of one run. Of several processes that share an ensemble only the first one reads the
folder, and broadcasts to the others.
"""

import io
import json
import zipfile
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..core.atomic_write import write_whole
from ..solution import Solution
from .sharded import from_first, in_one_process
from .strategies import Ensemble

__all__ = ["in_blocks"]

_NUMBERS, _MOST = 2**22, 2**14  # the most numbers, and trajectories, in memory at once
_EVEN = 8  # a block is a multiple of so many chunks: even shares for 2, 4 or 8 cores


def in_blocks(ensemble: Ensemble, resume: str | PathLike | None, *, progress: bool) -> Solution:
    """Solves the whole ensemble. `resume` is a folder, or None."""
    from tqdm.auto import tqdm

    size, block = ensemble.inputs.size, _block(ensemble)
    folder = None if resume is None else _Folder(Path(resume).expanduser(), ensemble, block)
    state, parts = None, []
    shown = progress and (in_one_process(ensemble.mesh) or jax.process_index() == 0)
    with tqdm(total=size, disable=not shown, desc="solve_ensemble", unit="") as bar:
        for number, start in enumerate(range(0, size, block)):
            index = np.arange(start, start + block)
            solve = partial(ensemble.part, np.where(index < size, index, -1).astype(np.int32))
            seen, sol = solve() if folder is None else folder.kept(number, solve)
            state = seen if state is None else ensemble.merged([state, seen])
            count = min(block, size - start)
            parts.append(jax.tree.map(lambda x, n=count: np.asarray(x)[:n], sol))
            bar.update(count)
    together = jax.tree.map(lambda *xs: jnp.asarray(np.concatenate(xs)), *parts)
    return ensemble.joined(state, together)


def _block(ensemble: Ensemble) -> int:
    """The number of trajectories of a block."""
    numbers = ensemble.numbers()
    least = ensemble.plan.chunk * _EVEN * ensemble.devices
    fits = min(_NUMBERS // max(numbers, 1), _MOST) // least * least
    return min(ensemble.inputs.size, max(fits, least))


_FOUND, _FAILED = b"+", b"-"  # the first byte of what the first process sends


class _Folder:
    """The blocks of one ensemble, a file each."""

    def __init__(self, path: Path, ensemble: Ensemble, block: int) -> None:
        self.path, self.ensemble = path, ensemble
        self.first = in_one_process(ensemble.mesh) or jax.process_index() == 0
        settings = {"n": ensemble.inputs.size, "block": block, "strategy": ensemble.strategy}
        settings |= {"reduce": repr(ensemble.shared["reduce"]), **ensemble.marks()}
        other = self._from_first_process(lambda: self._other(settings).encode())
        if other:
            raise ValueError(
                f"resume={str(self.path)!r} holds blocks of another ensemble ({other.decode()}): "
                "name another folder, or remove this one."
            )

    def _from_first_process(self, look: Callable) -> bytes:
        """The result of `look` in the first process, in all of them; so is its error, for which the
        others would wait for ever.
        """
        error, message = None, b""
        if self.first:
            try:
                message = _FOUND + look()
            except (OSError, ValueError) as raised:
                error, message = raised, _FAILED + str(raised).encode()
        message = from_first(message, self.ensemble.mesh)
        if error is not None:
            raise error
        if message[:1] == _FAILED:
            raise ValueError(message[1:].decode())
        return message[1:]

    def _other(self, settings: dict) -> str:
        """The differences from the settings of the ensemble in the folder; empty if there
        are none.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / "settings.json"
        if not file.exists():
            write_whole(file, lambda stream: stream.write(json.dumps(settings, indent=1).encode()))
            return ""
        try:
            found = dict(json.loads(file.read_text(encoding="utf8")))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{file} cannot be read ({error}): it says which ensemble the blocks beside it are "
                f"of. Name another folder, or remove {str(self.path)!r}."
            ) from error
        other = [name for name in settings if settings[name] != found.get(name)]
        return "; ".join(f"{k} was {found.get(k)}, and is {settings[k]}" for k in other)

    def kept(self, number: int, solve: Callable[[], PyTree]) -> PyTree:
        """Reads a block from its file; solves and writes it, if there is none."""
        file = self.path / f"block-{number:06}.npz"
        data = self._from_first_process(lambda: file.read_bytes() if file.exists() else b"")
        if not data:
            found = solve()
            if self.first:
                leaves = [np.asarray(x) for x in jax.tree.leaves(found)]
                write_whole(file, lambda stream: np.savez(stream, *leaves))
            return found
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                leaves = [jnp.asarray(arrays[f"arr_{i}"]) for i in range(len(arrays.files))]
            return jax.tree.unflatten(self.ensemble.tree, leaves)
        except (ValueError, LookupError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{file} cannot be read ({error}): remove it, and its block is solved again."
            ) from error
