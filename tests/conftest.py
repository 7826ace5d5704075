"""Fixtures that choose an instruction set or a number of threads, and put back what was there."""

import numpy as np
import pytest

import rnncore as rc
from cases import CELLS, DTYPES, ISAS


@pytest.fixture(params=ISAS)
def isa(request):
    """Run the test on each instruction set this CPU has. Its kernels leave the x87 registers alone."""
    rc.use_isa(request.param)
    yield request.param
    rc.use_isa(ISAS[0])
    assert np.longdouble(1) + np.longdouble(2) == 3, "an MMX register was used: the next long double is NaN"


@pytest.fixture(params=CELLS, ids=str)
def cell(request):
    return request.param


@pytest.fixture(params=DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def dtype(request):
    return request.param


@pytest.fixture
def threads():
    """A function that sets the number of threads; the old number returns after the test."""
    before = rc.get_num_threads()
    yield rc.set_num_threads
    rc.set_num_threads(before)


@pytest.fixture
def rng():
    return np.random.default_rng(20)
