"""rnncore: a compiled core for recurrent networks, called from NumPy.

`functional` has recurrent layers as pure functions on arrays; `RNN`, `LSTM` and `GRU` are layers with parameters.
`data` cuts sequences and series into batches for training.
`reference` is the float64 NumPy oracle of every cell, `testing` has gradient checks and a contract suite for layers.
"""

from rnncore import data, functional
from rnncore.controls import (
    available_isas,
    get_num_threads,
    set_num_threads,
    show_config,
    use_isa,
)
from rnncore.frozen import Frozen
from rnncore.layers import GRU, LSTM, RNN

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Frozen",
    "available_isas",
    "data",
    "functional",
    "get_num_threads",
    "set_num_threads",
    "show_config",
    "use_isa",
]
