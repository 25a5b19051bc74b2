"""The noise of torchsde is the same in each run of the tests."""

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _noise_of_torchsde() -> None:
    """Seeds the generator from which torchsde draws its noise: NumPy's global one, not PyTorch's.

    Without it two samples differ by three standard deviations now and then.
    """
    np.random.seed(1)  # noqa: NPY002
