"""rnncore: a compiled core for recurrent networks, called from NumPy.

`functional` has recurrent layers as pure functions on arrays; `RNN`, `LSTM` and `GRU` are layers with parameters;
`losses` and `CTC` say how far outputs are from targets, with gradients.
`reference` is the float64 NumPy oracle of every cell, `testing` has gradient checks and a contract suite for layers.
"""

from rnncore import functional
from rnncore.controls import (
    available_isas,
    get_num_threads,
    set_num_threads,
    show_config,
    use_isa,
)
from rnncore.ctc import CTC
from rnncore.frozen import Frozen
from rnncore.layers import GRU, LSTM, RNN
from rnncore.losses import MAE, MSE, BinaryCrossEntropy, CrossEntropy, GaussianNLL, Huber, LossGradient, Quantile

__version__ = "0.1.0"

__all__ = [
    "CTC",
    "GRU",
    "LSTM",
    "MAE",
    "MSE",
    "RNN",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Frozen",
    "GaussianNLL",
    "Huber",
    "LossGradient",
    "Quantile",
    "available_isas",
    "functional",
    "get_num_threads",
    "set_num_threads",
    "show_config",
    "use_isa",
]
