"""An ensemble on several devices, of one machine or of several.

Each device has a share of the trajectories, in the order of their numbers, and runs the strategy on
it alone. Under automatic sharding the loops of all devices would be one, with a reduction over all
of them at each step to know whether another one is due; inside `shard_map` each device has loops of
its own, and communicates with the others once, at the end, when statistics are merged.

Several processes (`jax.distributed`) run the same program. Their inputs are the same arrays of the
host in each, or global arrays of which each holds a part.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.multihost_utils import broadcast_one_to_all
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from ..autodiff.jax_internals import Tracer

__all__ = [
    "check_mesh",
    "distribute_rows",
    "from_first",
    "in_one_process",
    "is_global",
    "known_here",
    "platform",
    "replicate_shared",
    "row_at",
    "run_sharded",
    "select_rows",
]


def check_mesh(mesh: Any, size: int) -> Mesh:
    """The mesh as it is used; raises an error if it is none, or gives no equal shares of `size`.

    Unless it is the context's (`jax.set_mesh`), its axes become automatic: with explicit ones, as
    `jax.make_mesh` makes them, `sol[i]` would need a sharding.
    """
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"mesh is {mesh!r}; a jax.sharding.Mesh is wanted, such as "
            "jax.make_mesh((jax.device_count(),), ('i',))."
        )
    count = mesh.devices.size
    if size % count:
        less = size // count * count
        near = f"{less + count}" if not less else f"{less} or {less + count}"
        fits = max(k for k in range(1, count + 1) if not size % k)
        raise ValueError(
            f"mesh has {count} devices, and there are {size} trajectories: each device takes as "
            f"many as any other. Give {near} of them (a row may be repeated, and its result left "
            f"out), or a mesh of {fits}."
        )
    in_context = not jax.sharding.get_abstract_mesh().empty
    return mesh if in_context else Mesh(mesh.devices, mesh.axis_names)


def platform(mesh: Mesh | None = None) -> str:
    """The platform of a solve, "cpu", "gpu" or "tpu": that of a mesh, or JAX's default.

    >>> with jax.default_device(jax.devices("cpu")[0]):
    ...     platform()
    'cpu'
    """
    if mesh is not None:
        return mesh.devices.flat[0].platform
    device: Any = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if device is None:
        return jax.default_backend()
    # It may be a platform by name, and that the kind of GPU.
    return jax.devices(device)[0].platform if isinstance(device, str) else device.platform


def run_sharded(
    mesh: Mesh, share: Callable, merged: Callable[[Sequence], PyTree] | None
) -> Callable:
    """Runs `share(leaves, rows, index)` on each device, with its part of rows and index. Returns
    the state of the statistics, merged from those of the devices by `merged` (if any), and the
    solution of each trajectory.
    """
    axes = mesh.axis_names

    def one(*args: PyTree) -> tuple[PyTree, PyTree]:
        state, sol = share(*args)
        if merged is None:
            return state, sol
        states = lax.all_gather(state, axes)
        merge = merged
        first, rest = jax.tree.map(lambda x: x[0], states), jax.tree.map(lambda x: x[1:], states)
        return lax.scan(lambda a, b: (merge([a, b]), None), first, rest)[0], sol

    # The loop and the tape are primitives of our own, without rules for values that vary over axes.
    return jax.shard_map(
        one, mesh=mesh, in_specs=(P(), P(axes), P(axes)), out_specs=(P(), P(axes)), check_vma=False
    )


def distribute_rows(rows: Sequence, mesh: Mesh) -> list:
    """Rows of all trajectories, with the part of each device in its memory."""
    return [_put_on_devices(x, mesh, P(mesh.axis_names)) for x in rows]


def replicate_shared(leaves: Sequence, mesh: Mesh) -> list:
    """The shared inputs, in the memory of each device; Python numbers stay as they are."""
    return [
        _put_on_devices(x, mesh, P()) if isinstance(x, (jax.Array, np.ndarray)) else x
        for x in leaves
    ]


def _put_on_devices(x: Array | np.ndarray, mesh: Mesh, spec: P) -> Array:
    """The array on all devices. It has to be equal in all processes; this is not checked, as the
    check would send all of it.
    """
    sharding = NamedSharding(mesh, spec)
    asks = AxisType.Explicit in mesh.axis_types or not jax.typeof(x).sharding.mesh.empty
    if isinstance(x, Tracer) and not asks:  # `jit` takes it to all devices, and derivatives back
        return x
    if in_one_process(mesh) or is_global(x) or isinstance(x, Tracer):
        return jax.device_put(x, sharding)
    if _is_key(x):
        kind = jax.random.key_impl(x)
        return jax.random.wrap_key_data(
            _put_on_devices(jax.random.key_data(x), mesh, spec), impl=kind
        )
    known = np.asarray(x)
    return jax.make_array_from_callback(known.shape, sharding, lambda part: known[part])


def _is_key(x: Array | np.ndarray) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.extended)


def select_rows(rows: Sequence, index: np.ndarray, mesh: Mesh) -> list:
    """The rows of these numbers, with the part of each device in its memory."""
    whole = NamedSharding(mesh, P())
    return distribute_rows([x.at[index].get(out_sharding=whole) for x in rows], mesh)


def row_at(x: Array, i: int, mesh: Mesh | None) -> Array:
    """One of the rows, in this process."""
    if isinstance(x, Tracer) or (mesh is None and _is_key(x)):
        return x[i]
    if mesh is None:  # on the host, where it needs no compilation
        return jnp.asarray(np.asarray(x)[i])
    return x.at[i].get(out_sharding=NamedSharding(mesh, P())).addressable_data(0)


def known_here(x: Array | np.ndarray, mesh: Mesh | None) -> Array | np.ndarray:
    """An array with all its numbers in this process; for a global one, a call in every process."""
    if isinstance(x, np.ndarray) or not is_global(x):
        return x
    if x.is_fully_replicated:
        return x.addressable_data(0)
    assert mesh is not None  # a global array is on one
    return jax.jit(jnp.copy, out_shardings=NamedSharding(mesh, P()))(x).addressable_data(0)


def from_first(data: bytes, mesh: Mesh | None) -> bytes:
    """The data of the first process, in every process of the mesh."""
    if in_one_process(mesh):
        return data
    size = int(broadcast_one_to_all(np.int32(len(data))))
    mine = np.frombuffer(data.ljust(size, b"\0")[:size], np.uint8)
    return np.asarray(broadcast_one_to_all(mine), np.uint8).tobytes()


def in_one_process(mesh: Mesh | None) -> bool:
    """True if all devices belong to this process."""
    here = jax.process_index()
    return mesh is None or all(device.process_index == here for device in mesh.devices.flat)


def is_global(x: Array | np.ndarray) -> bool:
    """True if other processes hold parts of an array."""
    return isinstance(x, jax.Array) and not isinstance(x, Tracer) and not x.is_fully_addressable
