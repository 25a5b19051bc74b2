"""The series are the published ones."""

import numpy as np

from diffeq import datasets


def test_hare_lynx():
    data = datasets.hare_lynx()
    np.testing.assert_array_equal(data.years, np.arange(1900, 1921))
    assert data.hare.shape == data.lynx.shape == (21,)
    assert (data.hare[0], data.lynx[0]) == (30.0, 4.0)
    assert (data.hare[-1], data.lynx[-1]) == (24.7, 8.6)
    # The peaks, and sums as a check on every digit between them.
    assert (data.years[data.hare.argmax()], data.hare.max()) == (1903, 77.4)
    assert (data.years[data.lynx.argmax()], data.lynx.max()) == (1904, 59.4)
    np.testing.assert_allclose([data.hare.sum(), data.lynx.sum()], [715.7, 423.5], rtol=1e-14)


def test_hare_lynx_is_a_fresh_copy():
    datasets.hare_lynx().hare[0] = 0.0
    assert datasets.hare_lynx().hare[0] == 30.0
