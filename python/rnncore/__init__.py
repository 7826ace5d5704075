"""rnncore: a compiled core for recurrent networks, called from NumPy.

`functional` has recurrent layers as pure functions on arrays; `RNN`, `LSTM` and `GRU` are layers with parameters, other
layers stand beside them, `ChildSumTreeLSTM` and others read trees, `Recurrent` makes a layer of a step in Python, which
`scan` runs, and `Sequential` makes models of layers. `data` cuts sequences and series into batches for training;
`losses` and `CTC` say how far outputs are from targets, with gradients; `SGD`, `RMSprop`, `Adam` and `AdamW` step
parameters, `schedules` has learning rates that change, `init` initial values; `decoding` makes sequences of what a
model expects. `reference` is the float64 NumPy oracle of every cell, `testing` has gradient checks and contract suites
for layers and cells.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rnncore import functional
from rnncore.controls import (
    available_isas,
    get_num_threads,
    set_num_threads,
    show_config,
    use_isa,
)
from rnncore.elementwise import LRU, QRNN, SRU, IndRNN, MinGRU, MinLSTM
from rnncore.feedforward import Embedding, Linear
from rnncore.frozen import Frozen
from rnncore.gated import GRU, LSTM, MGU, RNN, SLSTM
from rnncore.layer import Layer, load
from rnncore.models import Concat, Residual, Sequential
from rnncore.online import Learnt, OnlineStream
from rnncore.packed import Packed
from rnncore.rowwise import Activation, Dropout, LayerNorm
from rnncore.steps import Last, MeanPool, Repeat
from rnncore.streaming import Stream

if TYPE_CHECKING:  # what not every program needs is imported when it is first asked for
    from rnncore import data, decoding, init, metrics, schedules
    from rnncore.callbacks import Callback, StepInfo
    from rnncore.clipping import clip_norm, clip_value
    from rnncore.ctc import CTC
    from rnncore.custom import Recurrent
    from rnncore.delayed_stream import DelayedStream
    from rnncore.esn import ESN
    from rnncore.forest import Forest, Trees
    from rnncore.history import History
    from rnncore.losses import MAE, MSE, BinaryCrossEntropy, CrossEntropy, GaussianNLL, Huber, LossGradient, Quantile
    from rnncore.optim import SGD, Adam, AdamW, RMSprop
    from rnncore.plots import plot_attention
    from rnncore.python_stream import PythonStream
    from rnncore.scanning import scan, scan_vjp
    from rnncore.seq2seq import Seq2Seq
    from rnncore.training import Trainer
    from rnncore.trees import BinaryTreeLSTM, ChildSumTreeLSTM, Root, TreeRNN

__version__ = "0.1.0"

__all__ = [
    "CTC",
    "ESN",
    "GRU",
    "LRU",
    "LSTM",
    "MAE",
    "MGU",
    "MSE",
    "QRNN",
    "RNN",
    "SGD",
    "SLSTM",
    "SRU",
    "Activation",
    "Adam",
    "AdamW",
    "BinaryCrossEntropy",
    "BinaryTreeLSTM",
    "Callback",
    "ChildSumTreeLSTM",
    "Concat",
    "CrossEntropy",
    "DelayedStream",
    "Dropout",
    "Embedding",
    "Forest",
    "Frozen",
    "GaussianNLL",
    "History",
    "Huber",
    "IndRNN",
    "Last",
    "Layer",
    "LayerNorm",
    "Learnt",
    "Linear",
    "LossGradient",
    "MeanPool",
    "MinGRU",
    "MinLSTM",
    "OnlineStream",
    "Packed",
    "PythonStream",
    "Quantile",
    "RMSprop",
    "Recurrent",
    "Repeat",
    "Residual",
    "Root",
    "Seq2Seq",
    "Sequential",
    "StepInfo",
    "Stream",
    "Trainer",
    "TreeRNN",
    "Trees",
    "available_isas",
    "clip_norm",
    "clip_value",
    "data",
    "decoding",
    "functional",
    "get_num_threads",
    "init",
    "load",
    "metrics",
    "plot_attention",
    "scan",
    "scan_vjp",
    "schedules",
    "set_num_threads",
    "show_config",
    "use_isa",
]

_LATER = {
    "callbacks": ("Callback", "StepInfo"),
    "clipping": ("clip_norm", "clip_value"),
    "ctc": ("CTC",),
    "custom": ("Recurrent",),
    "data": (),
    "decoding": (),
    "delayed_stream": ("DelayedStream",),
    "esn": ("ESN",),
    "forest": ("Forest", "Trees"),
    "history": ("History",),
    "init": (),
    "losses": ("MAE", "MSE", "BinaryCrossEntropy", "CrossEntropy", "GaussianNLL", "Huber", "LossGradient", "Quantile"),
    "metrics": (),
    "optim": ("SGD", "Adam", "AdamW", "RMSprop"),
    "plots": ("plot_attention",),
    "python_stream": ("PythonStream",),
    "scanning": ("scan", "scan_vjp"),
    "seq2seq": ("Seq2Seq",),
    "schedules": (),
    "training": ("Trainer",),
    "trees": ("BinaryTreeLSTM", "ChildSumTreeLSTM", "Root", "TreeRNN"),
}
_MODULE_OF = {name: module for module, names in _LATER.items() for name in (module, *names)}


def __getattr__(name: str) -> Any:
    """Import what not every program needs when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_MODULE_OF[name]}")
    value = module if name == _MODULE_OF[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return all names, those not yet imported among them."""
    return sorted(globals() | _MODULE_OF)
