"""A few calls against the oracle, and the contract of every layer: for Pythons that the whole suite is not run on."""

import numpy as np

import rnncore as rc
from rnncore import reference
from rnncore.testing import check_layer

rc.show_config()
rng = np.random.default_rng(0)
x, w_ih, w_hh = (rng.standard_normal(shape) for shape in ((3, 9, 5), (68, 5), (68, 17)))
assert np.allclose(rc.functional.lstm(x, w_ih, w_hh).y, reference.lstm(x, w_ih, w_hh).y, rtol=0, atol=1e-12)
for kind in (rc.RNN, rc.LSTM, rc.GRU):
    check_layer(kind(5, 17, num_layers=2, dtype=np.float64, rng=0), x, lengths=[9, 0, 4])
print("fine")
