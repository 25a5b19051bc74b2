"""Signs of stiffness: on linear fields, whose eigenvalues are known."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.methods.order import real_stability_interval, stability_reach
from diffeq.methods.stiffness import no_signs, read_signs, stability_limits

RK4, TSIT5 = de.RK4().tableau, de.Tsit5().tableau
PAIRS = [de.Tsit5().tableau, de.Dopri5().tableau, de.Vern7().tableau]


def test_stability_along_a_ray():
    assert stability_reach(RK4.A, RK4.b, math.pi / 2) == pytest.approx(2 * math.sqrt(2), rel=1e-4)
    assert stability_reach(RK4.A, RK4.b, math.pi) == real_stability_interval(RK4.A, RK4.b)
    # Tsit5 grows from 0 on along the imaginary axis, by less than 5 % until 2.2.
    assert stability_reach(TSIT5.A, TSIT5.b, math.pi / 2) < 0.5
    assert 2.1 < stability_reach(TSIT5.A, TSIT5.b, math.pi / 2, 0.05) < 2.3


def block(z):
    """A matrix with the eigenvalues z and its conjugate."""
    return [[z.real, -z.imag], [z.imag, z.real]] if z.imag else [[z.real, 0], [0, 0.3 * z.real]]


def signs(table, z, y=(1.0, 0.5, 0.7)):
    """The signs after an attempt, for eigenvalues z, z̄ and −0.01."""
    J = np.zeros((3, 3))
    J[:2, :2], J[2, 2] = block(z), -0.01
    stages = []
    for a in np.asarray(table.A, float):
        stages.append(J @ (np.asarray(y) + sum(x * k for x, k in zip(a, stages, strict=False))))
    stages = tuple(map(jnp.asarray, stages))
    b, b_hat = (np.asarray(x, float) for x in (table.b, table.b_hat))
    error = sum(x * k for x, k in zip(b - b_hat, stages, strict=False))
    return read_signs(table, stages, error, jnp.ones(()), no_signs(stages[0]))


def votes(table, z):
    """The votes after an accepted and a rejected attempt."""
    accepted, rejected, _ = signs(table, z)
    return int(accepted.votes), int(rejected.votes)


@pytest.mark.parametrize("table", PAIRS, ids=lambda table: table.name)
def test_eigenvalues_are_compared_with_the_region_and_not_with_its_interval(table):
    real, imaginary = stability_limits(table)
    assert imaginary < real
    outside = [-1.05 * real, -3 * real, 1.1j * imaginary, -0.01 + 3j * imaginary]
    for z in map(complex, outside):
        accepted, rejected = votes(table, z)
        assert accepted > 0 < rejected, z
    assert votes(table, complex(-3 * real))[0] > votes(table, complex(-1.05 * real))[0]
    for z in map(complex, (-0.9 * imaginary, 0.9j * imaginary, -0.5, 0.3j)):
        assert votes(table, z) == (0, 0), z
    assert votes(table, complex(-0.9 * real))[0] == 0
    assert votes(table, complex(2 * real))[0] == 0  # what grows is no sign of stiffness


@pytest.mark.parametrize("table", PAIRS, ids=lambda table: table.name)
def test_an_attempt_far_outside_decides_alone(table):
    real, imaginary = stability_limits(table)
    for z in map(complex, (-2 * real, 2j * real)):
        assert list(signs(table, z).decisive) == [True, False], z
    for z in map(complex, (-1.5 * real, 1.5j * imaginary, 2 * real, -0.5)):
        assert list(signs(table, z).decisive) == [False, False], z
    assert signs(table, complex(-1e13)).decisive[1], "a first attempt that explodes"
