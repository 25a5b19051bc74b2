"""What a solution draws: lines, points, and of many a band."""

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
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
    plt.close("all")


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


SWEPT = np.meshgrid(np.linspace(0.0, 1.0, 4), np.geomspace(0.1, 10.0, 3), indexing="ij")
A, B = (v.ravel() for v in SWEPT)


def test_a_grid_is_drawn_in_cells_in_any_order_of_its_points():
    order = np.random.default_rng(0).permutation(12)
    values = np.where(A == 0.0, np.nan, A + B)
    shuffled = [v[order] for v in (A, B, values)]
    ax = de.plot.heat(*shuffled, xlabel="a", ylabel="b", label="sum", centre=1.0)
    cells = ax.collections[0]
    known = np.where(SWEPT[0] == 0.0, np.nan, SWEPT[0] + SWEPT[1])
    np.testing.assert_allclose(cells.get_array().filled(np.nan), known.T)
    corners = cells.get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], np.arange(-0.5, 4) / 3)
    np.testing.assert_allclose(corners[:, 0, 1], 10.0 ** np.array([-1.5, -0.5, 0.5, 1.5]))
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")
    assert ax.figure.axes[1].get_ylabel() == "sum"
    assert cells.norm(1.0) == 0.5
    np.testing.assert_allclose(np.sort(ax.collections[1].get_offsets()[:, 1]), B[:3])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["3 failed"]
    by_axes = de.plot.heat(np.unique(A), np.unique(B), values).collections[0]
    np.testing.assert_array_equal(by_axes.get_array(), cells.get_array())


def test_points_that_make_no_grid_are_points():
    values = A[:-1] + B[:-1]
    failed = np.arange(11) == 4
    ax = de.plot.heat(A[:-1], B[:-1], values, failed=failed, vmax=3.0)
    shown, crossed = ax.collections[:2]
    np.testing.assert_allclose(shown.get_offsets(), np.c_[A, B][:-1][~failed])
    np.testing.assert_allclose(shown.get_array(), values[~failed])
    np.testing.assert_allclose(crossed.get_offsets(), [[A[4], B[4]]])
    with pytest.raises(ValueError, match=r"x has 12, y has 12, values has 11: one x, y and value"):
        de.plot.heat(A, B, values)
    with pytest.raises(ValueError, match="no value is a number"):
        de.plot.heat(A, B, np.full(12, np.nan))


def test_refused():
    with pytest.raises(ValueError, match="one row"):
        de.solve(TURN.replace(args=1.0)).plot()
    with pytest.raises(ValueError, match="no trajectory of two rows"):
        MANY(jnp.full(2, jnp.nan)).plot()
    with pytest.raises(ValueError, match=r"this batch is \(2, 1\)"):
        jax.tree.map(lambda x: x[:, None], MANY(jnp.ones(2))).plot()


def test_the_style_ends_with_its_context():
    before = dict(mpl.rcParams)
    with de.plot.style({"lines.linewidth": 3.0}):
        figure, ax = plt.subplots()
        (line,) = ax.plot([0, 1])
        assert line.get_color() == "#0072B2"
        assert line.get_linewidth() == 3.0
        assert not ax.spines["top"].get_visible()
        assert figure.get_layout_engine() is not None
    assert dict(mpl.rcParams) == before


def test_the_style_stays_without_a_context_and_refuses_what_is_unknown():
    with mpl.rc_context():
        de.plot.style()
        assert mpl.rcParams["axes.titlelocation"] == "left"
        before = dict(mpl.rcParams)
        with pytest.raises(KeyError, match="line_width"):
            de.plot.style({"font.size": 20, "line_width": 2})
        assert dict(mpl.rcParams) == before


def test_colours_of_the_style_are_told_apart():
    """Also by those who do not see red or green (Viénot, Brettel and Mollon 1999), in pairs."""
    with de.plot.style():
        ours = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    assert nearest_colours(ours) > 0.12
    assert nearest_colours(mpl.colormaps["tab10"].colors[:7]) < 0.05  # matplotlib's own


def nearest_colours(colours) -> float:
    rgb = np.array([mpl.colors.to_rgb(colour) for colour in colours]) ** 2.2
    no_red = np.array([[0.1124, 0.8876, 0], [0.1124, 0.8876, 0], [0.004, -0.004, 1]])
    no_green = np.array([[0.2927, 0.7073, 0], [0.2927, 0.7073, 0], [-0.0223, 0.0223, 1]])
    nearest = []
    for matrix in (np.eye(3), no_red, no_green):
        shown = np.clip(rgb @ matrix.T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(shown[:, None] - shown[None], axis=-1)
        nearest.append(apart[np.triu_indices(len(colours), 1)].min())
    return min(nearest)
