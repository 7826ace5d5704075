"""rnncore: a compiled core for recurrent networks, called from NumPy.

`functional` has recurrent layers as pure functions on arrays; `RNN`, `LSTM` and `GRU` are layers with parameters.
`SGD`, `RMSprop`, `Adam` and `AdamW` train them, `schedules` has learning rates that change, `init` initial values.
`reference` is the float64 NumPy oracle of every cell, `testing` has gradient checks and a contract suite for layers.
"""

from rnncore import functional, init, schedules
from rnncore.clipping import clip_norm, clip_value
from rnncore.controls import (
    available_isas,
    get_num_threads,
    set_num_threads,
    show_config,
    use_isa,
)
from rnncore.frozen import Frozen
from rnncore.layers import GRU, LSTM, RNN
from rnncore.optim import SGD, Adam, AdamW, RMSprop

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Adam",
    "AdamW",
    "Frozen",
    "RMSprop",
    "available_isas",
    "clip_norm",
    "clip_value",
    "functional",
    "get_num_threads",
    "init",
    "schedules",
    "set_num_threads",
    "show_config",
    "use_isa",
]
