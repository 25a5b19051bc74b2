"""`events/first_passage.py`: the first crossing of a path with noise, by halving its cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffeq as de
from diffeq.brownian import Steps, Tree, eighths, halve_cell
from diffeq.brownian.increments import LEVELS, TICKS, Drawn, Inside

KEY = jax.random.key(5)
TREE = Tree((2,), "float64", True, cuts=True, marked=True)
GIVEN = Steps((2,), "float64", False, cuts=True)


def drawn_of_a_tree(start, end):
    """A step of a tree between two ticks, as `Tree.draw` records it."""
    source = TREE.source(KEY, jnp.array(0.0), jnp.array(1.0))
    level = (start ^ (end - 1)).bit_length()
    w, h = TREE._between(
        source, TREE.ahead(source), jnp.int32(start), jnp.int32(end), jnp.int32(level)
    )
    w0 = TREE.value(source.words, jnp.int32(start))
    path = TREE.start(source, jnp.array(0.0), jnp.array(1.0))._replace(tick=jnp.int32(start), w=w0)
    normal = jnp.stack([w, h]) / jnp.sqrt((end - start) / TICKS)
    return source, Drawn(path, normal, jnp.int32(end - start))


def drawn_of_given_steps(start):
    """The rest of given step number 3 from a tick on."""
    source = GIVEN.source(KEY, jnp.array(0.0), jnp.array(1.0))
    words, cell = GIVEN._cell(source, jnp.int32(3))
    one = jnp.array(1.0)
    path = Inside(jnp.int32(3), jnp.int32(0), jnp.zeros(2), one, jnp.array(False))
    whole = Drawn(path, jnp.stack(cell), jnp.int32(TICKS))
    _, w0 = GIVEN._at(source, whole, jnp.array(start / TICKS))
    rest = Drawn(
        path._replace(tick=jnp.int32(start), w=w0), jnp.stack(cell), jnp.int32(TICKS - start)
    )
    return source, rest, words, cell


@pytest.mark.parametrize(
    ("start", "end"), [(5 << 24, 6 << 24), (3 * 2**20 + 77, 2**22), (12, 13), (2**29, 2**30)]
)
def test_the_cell_of_a_step_has_the_path_of_the_key(start, end):
    source, drawn = drawn_of_a_tree(start, end)
    step = TREE.step_cell(source, drawn)
    size = 2 ** int(step.cell.level)
    assert int(step.cell.tick) <= start < end <= int(step.cell.tick) + size
    assert int(step.cell.level) == (start ^ (end - 1)).bit_length()
    assert (int(step.first.tick), int(step.last.tick)) == (start, end)
    at = jax.vmap(lambda tick: TREE.value(source.words, tick))
    parts = eighths(TREE, step.words, step.cell)
    np.testing.assert_allclose(parts.start, at(parts.tick), atol=1e-12)
    ends = jnp.append(parts.tick[1:], step.cell.tick + size)
    assert (jnp.diff(ends) >= 0).all()
    np.testing.assert_allclose(parts.start + parts.w, at(ends), atol=1e-12)
    np.testing.assert_allclose(step.last.w, at(jnp.int32(end)[None])[0], atol=1e-12)


def test_the_cell_of_the_rest_of_a_given_step_is_all_of_it():
    source, drawn, words, (w, _) = drawn_of_given_steps(TICKS // 3)
    step = GIVEN.step_cell(source, drawn)
    assert (int(step.cell.tick), int(step.cell.level)) == (0, LEVELS)
    np.testing.assert_array_equal(step.words, words)
    np.testing.assert_allclose(step.last.w, w, rtol=1e-14)
    parts = eighths(GIVEN, step.words, step.cell)
    whole = drawn._replace(path=drawn.path._replace(tick=jnp.int32(0)), ticks=jnp.int32(TICKS))
    places = jnp.arange(8) / 8
    expected = jax.vmap(lambda theta: GIVEN._at(source, whole, theta)[1])(places)
    np.testing.assert_allclose(parts.start, expected, atol=1e-14)


def test_a_single_tick_has_no_halves():
    source, drawn = drawn_of_a_tree(12, 13)
    cell = TREE.step_cell(source, drawn).cell
    left, right = halve_cell(TREE, source.words, cell)
    np.testing.assert_array_equal(left.w, cell.w)
    np.testing.assert_array_equal(right.w, 0)
    assert int(right.tick) == 13


OPTIONS = {"controlled": {}, "given": {"method": de.EulerMaruyama(), "dt": 0.1}}


@pytest.mark.thorough
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_a_solve_ends_on_the_side_that_the_path_crosses_to(options, dtype):
    y0 = jnp.array([1.0, 0.0], dtype)
    problem = de.SDEProblem(
        lambda t, y, a: jnp.stack([-y[0], 0 * y[1]]),
        lambda t, y, a: jnp.stack([0.3 * y[0], jnp.ones_like(y[1])]),
        y0,
        (dtype(0.0), dtype(3.0)),
    )
    level = 0.4
    hit = de.Event(lambda t, y, a: jnp.stack([y[1] - level, -level - y[1]]))

    @jax.jit
    @jax.vmap
    def run(key):
        sol = de.solve(problem, key=key, events=hit, **options)
        return sol.events[0].num, sol.t1, sol.y1[1]

    num, t1, after = run(jax.random.split(KEY, 64))
    assert after.dtype == dtype
    hits = np.asarray(num) > 0
    assert hits.sum() > 50
    assert (np.abs(after[hits]) >= level).all()
    # A path moves by the root of a tick of the interval, or of a given step; and in single
    # precision the place in a step is known to 2⁻²⁴ of it.
    np.testing.assert_allclose(
        np.abs(after[hits]), level, atol=5e-4 if dtype == jnp.float64 else 5e-3
    )
    assert (np.asarray(t1)[~hits] == 3.0).all()


def test_the_first_of_several_conditions_is_found():
    """The first of two levels happens, and each when it is met."""
    walk = de.SDEProblem(lambda t, y, a: 0 * y, lambda t, y, a: 1 + 0 * y, 0.0, (0.0, 4.0))
    both = de.Event(
        lambda t, y, a: jnp.stack([y - 0.2, y - 0.3]), lambda t, y, a, fired: y, direction=1
    )

    @jax.jit
    @jax.vmap
    def run(key):
        events = de.solve(
            walk, de.EulerMaruyama(), dt=0.5, key=key, events=both, max_events=512
        ).events[0]
        return events.num, events.fired[0], events.before[0]

    num, fired, y = run(jax.random.split(KEY, 32))
    hit = np.asarray(num) > 0
    assert hit.sum() > 20
    assert fired[hit, 0].all()
    assert not fired[hit, 1].any()
    np.testing.assert_allclose(y[hit], 0.2, atol=1e-3)
