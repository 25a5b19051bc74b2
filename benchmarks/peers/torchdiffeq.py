"""`torchdiffeq` with `odeint_adjoint`, in a process of its own (see `torch_worker`).

The process runs the interpreter that the environment variable DIFFEQ_BENCH_TORCH_PYTHON names, this
one by default, so PyTorch may live apart from JAX. It times itself; what it is asked is interleaved
with the calls of the other peers.
"""

import functools

from benchmarks.peers import torch_client

ADJOINT = True
HOST = True


def version():
    """The versions of torchdiffeq and of PyTorch."""
    return torch_client.worker().version


def lacks(case, mode):
    """Batches with their own steps (a batch is one state); Dopri5 stands in for Tsit5."""
    return torch_client.lacks(case)


def build(case, mode):
    """`at(tolerance) -> solve(inputs)`."""
    return functools.partial(torch_client.RemoteSolve, case, mode, ADJOINT)
