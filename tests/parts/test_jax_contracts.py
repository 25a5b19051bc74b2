"""A JAX newer than the tested ones is told as that, and one that lacks a part by its name."""

import logging
import tomllib
from pathlib import Path

import jax
import pytest
from jax.extend.core.primitives import closed_call_p
from jax.interpreters import batching

from diffeq.autodiff import jax_internals
from diffeq.core import jax_contracts, notices

ROOT = Path(__file__).parents[2]


@pytest.fixture
def said(caplog, monkeypatch):
    monkeypatch.setattr(notices.logging.getLogger("diffeq"), "propagate", True)
    notices.log_once.cache_clear()
    yield caplog
    notices.log_once.cache_clear()


def test_a_tested_jax_has_every_part_and_nothing_is_said(said):
    assert list(jax_contracts.missing_parts()) == []
    jax_contracts.check_jax()
    assert not said.messages
    assert jax_contracts.OLDEST <= jax.__version_info__[:2] <= jax_contracts.NEWEST


def test_a_newer_jax_is_told_once_and_not_printed(said, monkeypatch, capsys):
    monkeypatch.setattr(jax, "__version_info__", (97, 3, 0))
    monkeypatch.setattr(jax, "__version__", "97.3.0")
    jax_contracts.check_jax()
    jax_contracts.check_jax()
    (record,) = said.records
    assert record.name == "diffeq"
    assert record.levelno == logging.WARNING
    assert "tested with JAX 0.11 to 0.12, and this is JAX 97.3.0" in record.message
    assert capsys.readouterr().out == ""


def test_a_part_that_is_gone_is_named_with_what_to_do(monkeypatch):
    monkeypatch.delattr(batching, "fancy_primitive_batchers")
    with pytest.raises(ImportError) as found:
        jax_contracts.check_jax()
    text = str(found.value)
    assert "jax.interpreters.batching.fancy_primitive_batchers, by which it batches" in text
    assert f"JAX {jax.__version__} does not have it" in text
    assert "pip install 'jax>=0.11,<0.13'" in text


def test_a_module_and_an_attribute_that_are_gone_are_named(monkeypatch):
    strange = ("jax.extend.bygone", "thing", "x"), ("jax.extend.core:Jaxpr", "eqns bygone", "y")
    monkeypatch.setattr(jax_contracts, "_USED", strange)
    assert [part for part, _ in jax_contracts.missing_parts()] == [
        "jax.extend.bygone",
        "jax.extend.core.Jaxpr.bygone",
    ]


def test_the_oldest_tested_release_is_the_lower_bound_and_there_is_no_upper_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    (jax_needed,) = (d for d in project["dependencies"] if d.startswith("jax>"))
    assert jax_needed == "jax>={}.{}".format(*jax_contracts.OLDEST)
    assert not [d for d in project["dependencies"] if "<" in d]


def test_calls_are_known_by_the_names_of_this_release():
    """From 0.12 `closed_call` is named `eval_jaxpr`."""
    inner = jax.make_jaxpr(lambda x: 2.0 * x)(1.0)
    assert closed_call_p.name in jax_internals.CALLS
    if jax.__version_info__ >= (0, 12):
        call = lambda x: closed_call_p.bind(x, call_jaxpr=inner)
        (equation,) = jax.make_jaxpr(call)(1.0).eqns
        assert jax_internals.inlinable(equation) is inner
    (equation,) = jax.make_jaxpr(jax.jit(lambda x: 2.0 * x))(1.0).eqns
    assert [e.primitive.name for e in jax_internals.inlinable(equation).eqns] == ["mul"]
    (equation,) = jax.make_jaxpr(jax.checkpoint(lambda x: 2.0 * x))(1.0).eqns
    assert jax_internals.inlinable(equation) is None
    assert [e.primitive.name for e in jax_internals.called(equation).eqns] == ["mul"]
