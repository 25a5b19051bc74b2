"""The self-test of an installation says what is right, and what is wrong."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from diffeq import selftest
from diffeq.core import jax_contracts


def known(*values):
    return lambda: jnp.array(values)


def broken():
    raise ValueError("of whatever kind\nand more")


def test_right_and_wrong_checks_are_told_apart(capsys):
    checks = [
        selftest.Check("good", known(1.0, 2.0), (1.0, 2.05), 0.1),
        selftest.Check("far", known(1.0, 2.0), (1.0, 2.2), 0.1),
        selftest.Check("no number", known(jnp.nan), (1.0,), 0.1),
        selftest.Check("no answer", broken, (1.0,), 0.1),
    ]
    assert selftest.main(checks) == 3
    said = capsys.readouterr().out
    assert "right    good\n" in said
    assert "WRONG    far: 1; 1 is known, 2; 2.2 is known, with an error of at most 0.1" in said
    assert "WRONG    no number: nan; 1 is known" in said
    assert "WRONG    no answer: ValueError: of whatever kind" in said
    assert "3 of 4 checks are wrong." in said
    assert f"jax {jax.__version__}" in said


def test_a_part_of_jax_that_is_gone_is_told(capsys, monkeypatch):
    monkeypatch.setattr(jax_contracts, "_USED", (("jax.extend.core", "bygone", "reads fields"),))
    assert selftest.main([selftest.Check("good", known(1.0), (1.0,), 0.1)]) == 1
    assert "this JAX has no jax.extend.core.bygone, by which diffeq reads fields" in (
        capsys.readouterr().out
    )


@pytest.mark.thorough
def test_this_installation_is_right():
    command = [sys.executable, "-m", "diffeq.selftest"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"All {len(selftest.CHECKS)} checks are right." in done.stdout
    assert done.stderr == ""
