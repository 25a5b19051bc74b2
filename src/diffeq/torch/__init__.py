"""PyTorch by one import: the functions of torchdiffeq and torchsde, and modules, by `diffeq.solve`.

`import diffeq` does not import torch; `import diffeq.torch` does.
"""

from . import versions as _versions  # noqa: F401 - before all that imports torch
from .odeint import odeint, odeint_adjoint, odeint_event

__all__ = ["odeint", "odeint_adjoint", "odeint_event"]
