"""`import diffeq` is light: it brings in nothing heavy that its own foundations do not.

Not a timed test: what is imported decides the time, and sys.modules says what was.
"""

import subprocess
import sys

FOUNDATIONS = "import jax, jax.numpy, equinox, lineax, jaxtyping"
HEAVY = {"optax", "optimistix", "matplotlib", "tqdm", "torch", "torchax", "flax", "scipy"}


def loaded_after(statement: str) -> set[str]:
    """The packages that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_brings_in_nothing_heavy() -> None:
    heavy = (loaded_after("import diffeq") - loaded_after(FOUNDATIONS)) & HEAVY
    assert not heavy, f"import diffeq also imports {sorted(heavy)}"
