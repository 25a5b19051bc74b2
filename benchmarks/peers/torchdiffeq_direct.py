"""`torchdiffeq` with plain `odeint`: back-propagation through its operations, often the faster."""

import functools

from benchmarks.peers import torch_client

ADJOINT = False
HOST = True


def version():
    """The versions of torchdiffeq and of PyTorch."""
    return torch_client.worker().version


def lacks(case, mode):
    """The same as the adjoint."""
    return torch_client.lacks(case)


def build(case, mode):
    """`at(tolerance) -> solve(inputs)`."""
    return functools.partial(torch_client.RemoteSolve, case, mode, ADJOINT)
