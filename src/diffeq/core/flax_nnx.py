"""Flax NNX, known by name so that it need not be installed."""

__all__ = ["is_nnx", "is_nnx_module"]


def is_nnx(x: object) -> bool:
    """True if x is a module or a variable of Flax NNX."""
    return any(c.__module__.startswith("flax.nnx") for c in type(x).__mro__)


def is_nnx_module(x: object) -> bool:
    """True if x is a Flax NNX module: a graph with state (and no bare variable of one)."""
    return any(c.__module__ in ("flax.nnx.module", "flax.nnx.pytreelib") for c in type(x).__mro__)
