"""The parts of JAX that it does not document and that are used here: each is looked for when the
package is imported, so that a release of JAX without one is told as that, and by name.

Nothing is traced for this. `tests/parts/test_contract.py` and `test_jax_internals.py` hold how
these parts behave, on the oldest and on the newest release.
"""

import importlib
from collections.abc import Iterator

import jax

from .notices import log_once

__all__ = ["NEWEST", "OLDEST", "check_jax", "missing_parts"]

# The releases of JAX that the tests run with; pyproject.toml has the first as its lower bound.
OLDEST, NEWEST = (0, 11), (0, 12)

# Each module, what is used of it, and for what.
_USED = (
    ("jax.core", "ShapedArray Trace Tracer eval_jaxpr", "evaluates the equations of a field"),
    (
        "jax.extend.core",
        "Jaxpr JaxprEqn Literal Primitive Var jaxpr_as_fun jaxprs_in_params",
        "reads the equations of a field",
    ),
    (
        "jax.extend.core:Jaxpr",
        "consts constvars debug_info effects eqns in_avals invars is_high outvars replace",
        "takes a jaxpr apart",
    ),
    (
        "jax.extend.core:JaxprEqn",
        "ctx effects invars outvars params primitive replace source_info",
        "takes an equation apart",
    ),
    (
        "jax.extend.core:Primitive",
        "bind def_abstract_eval def_impl get_bind_params multiple_results",
        "defines its own loops",
    ),
    (
        "jax.extend.core.primitives",
        "closed_call_p cond_p custom_jvp_call_p custom_vjp_call_p jit_p remat_p scan_p while_p",
        "knows loops and calls in a field",
    ),
    ("jax.extend.linear_util", "WrappedFun", "reads what a rule of a derivative closes over"),
    ("jax.extend.source_info_util", "current_name_stack user_context", "names a user's line"),
    (
        "jax.interpreters.ad",
        "Zero is_undefined_primal primitive_jvps primitive_transposes",
        "differentiates its own loops",
    ),
    ("jax.interpreters.batching", "fancy_primitive_batchers", "batches its own loops"),
    (
        "jax.interpreters.mlir",
        "core_call_lowering lower_fun register_lowering",
        "compiles its own loops",
    ),
)

_MISSING = (
    "diffeq uses {part}, by which it {purpose}, and JAX {version} does not have it. Install a "
    "newer diffeq, or a JAX that this one is tested with: pip install 'jax>={oldest},<{above}'."
)
_NEWER = (
    "diffeq is tested with JAX {oldest} to {newest}, and this is JAX {version}. It has all parts "
    "that are used; python -m diffeq.selftest tries them."
)


def check_jax() -> None:
    """Looks for the parts that are used, and logs one sentence if this JAX is newer than those that
    are tested.

    Raises:
        ImportError: a part is missing; it says which, what it is for, and which JAX has it.
    """
    for part, purpose in missing_parts():
        raise ImportError(_MISSING.format(part=part, purpose=purpose, **_versions()))
    if jax.__version_info__[:2] > NEWEST:
        log_once(_NEWER.format(**_versions()))


def missing_parts() -> Iterator[tuple[str, str]]:
    """The parts that this JAX lacks, each with what it is used for.

    >>> list(missing_parts())
    []
    """
    for place, names, purpose in _USED:
        module, _, owner = place.partition(":")
        shown = place.replace(":", ".")
        try:
            holder = importlib.import_module(module)
            holder = getattr(holder, owner) if owner else holder
        except (ImportError, AttributeError):
            yield shown, purpose
            continue
        yield from ((f"{shown}.{x}", purpose) for x in names.split() if not hasattr(holder, x))


def _versions() -> dict[str, str]:
    """This JAX, and those that are tested, as texts."""
    above = (NEWEST[0], NEWEST[1] + 1)
    tested = {"oldest": OLDEST, "newest": NEWEST, "above": above}
    shown = {name: ".".join(map(str, pair)) for name, pair in tested.items()}
    return {**shown, "version": jax.__version__}
