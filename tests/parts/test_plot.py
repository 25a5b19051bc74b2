"""What a solution draws: lines, points, and of many a band."""

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest

import diffeq as de

mpl.use("agg")
TURN = de.ODEProblem(
    lambda t, y, k: {"x": y["v"], "v": -k * y["x"]}, {"x": 1.0, "v": 0.0}, (0.0, 3.0)
)
AT = jnp.linspace(0.0, 3.0, 7)
ONE = jax.jit(lambda k: de.solve(TURN.replace(args=k), saveat=AT, throw=False))
MANY = jax.jit(jax.vmap(ONE))


@pytest.fixture(autouse=True)
def _closed():
    yield
    mpl.pyplot.close("all")


def test_one_is_lines_with_points():
    ax = ONE(1.0).plot()
    assert ax.get_legend_handles_labels()[1] == ["v", "x"]
    np.testing.assert_allclose(ax.lines[2].get_ydata(), np.cos(AT), atol=1e-3)
    assert [line.get_marker() for line in ax.lines] == ["None", "o"] * 2


def test_few_are_thin_lines():
    ax = MANY(jnp.array([0.5, jnp.nan, 2.0])).plot()  # the one that failed is left out
    assert len(ax.lines) == 4
    assert not ax.collections
    np.testing.assert_allclose(ax.lines[2].get_ydata(), np.cos(np.sqrt(0.5) * AT), atol=1e-3)


def test_many_have_a_median_and_a_band():
    rates = jnp.linspace(0.5, 2.0, 31)
    ax = MANY(rates).plot()
    assert ax.get_legend_handles_labels()[1] == ["v", "x"]
    assert len(ax.lines) == 2 * (12 + 1)
    every = np.cos(np.sqrt(rates)[:, None] * AT)
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), np.median(every, 0), atol=1e-3)
    edge = ax.collections[1].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose(edge.min(), np.quantile(every, 0.05, axis=0).min(), atol=1e-3)


def test_refused():
    with pytest.raises(ValueError, match="one row"):
        de.solve(TURN.replace(args=1.0)).plot()
    with pytest.raises(ValueError, match="no trajectory of two rows"):
        MANY(jnp.full(2, jnp.nan)).plot()
    with pytest.raises(ValueError, match=r"this batch is \(2, 1\)"):
        jax.tree.map(lambda x: x[:, None], MANY(jnp.ones(2))).plot()
