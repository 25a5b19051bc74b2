"""The versions of torch and torchax that serve, and the import of torchax; before all else of this
part.
"""

import importlib.metadata
import re

__all__ = ["check_versions"]

# What pyproject.toml has in the extra `torch`: the lowest that serves, and the first that is not
# known to.
_RANGES = {"torch": ((2, 11), (2, 13)), "torchax": ((0, 0, 13), (0, 0, 14))}


def check_versions() -> None:
    """Raises an ImportError where torch or torchax are not there, or are of another version."""
    for package, (low, high) in _RANGES.items():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = None
        found = tuple(map(int, re.findall(r"\d+", version or "")[: len(low)]))
        if version is None or not low <= found < high:
            least, first = (".".join(map(str, x)) for x in (low, high))
            raise ImportError(
                f"diffeq.torch needs {package} {least} or newer, below {first}, and "
                f"{f'there is {version}' if version else 'it is not installed'}: "
                "pip install 'diffeq[torch]'."
            )


def _import_torchax() -> None:
    """Imports torchax as a package that evaluates operations on arrays of JAX.

    By itself it says to torch that it is an accelerator, of which torch.compile asks for streams
    that it does not have: each function that is compiled in the process would fail.
    """
    from torchax import device_module

    device_module.is_available = lambda: False


check_versions()
_import_torchax()
