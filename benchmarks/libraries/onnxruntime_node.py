"""A model of one LSTM, GRU or RNN node with constant weights, run by ONNX Runtime on NumPy arrays."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from libraries import Task
from problems import CELLS, Array, Problem

__all__ = ["forward", "new_session"]

# places of ONNX's gates in torch's order: iofc of ifgo, zrh of rzn
GATE_ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}


def forward(problem: Problem, threads: int) -> Task:
    """Make ready a run of the session."""
    session = new_session(problem, threads)
    feed = {"X": problem.x}

    def results(returned: Any) -> dict[str, Array]:
        y, *states = returned  # Y (T, 1, N, H); Y_h and Y_c (1, N, H)
        return {"y": y[:, 0]} | dict(zip(("h_n", "c_n"), (state[0] for state in states), strict=False))

    return Task(lambda: session.run(None, feed), results)


def new_session(problem: Problem, threads: int, carried: bool = False) -> Any:
    """Make a session of the layer, with inputs `initial_h` and, of an LSTM, `initial_c` if states are carried."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    model = _model(problem, carried).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _model(problem: Problem, carried: bool) -> onnx.ModelProto:
    T, N, I, H = problem.shape
    w_ih, w_hh, b_ih, b_hh = (_reorder(problem.cell, array) for array in problem.weights)
    weights = {"W": w_ih[None], "R": w_hh[None], "B": np.concatenate([b_ih, b_hh])[None]}
    outputs = ["Y", "Y_h", "Y_c"] if problem.cell == "lstm" else ["Y", "Y_h"]
    initial = ["initial_h", "initial_c"][: len(outputs) - 1] if carried else []
    attributes: dict[str, Any] = {"linear_before_reset": 1} if problem.cell == "gru" else {}
    node = helper.make_node(
        problem.cell.upper(),
        ["X", *weights, *([""] if carried else []), *initial],
        outputs,
        hidden_size=H,
        direction="forward",
        **attributes,
    )
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "layer",
        [
            helper.make_tensor_value_info("X", float32, [T, N, I]),
            *(helper.make_tensor_value_info(name, float32, [1, N, H]) for name in initial),
        ],
        [helper.make_tensor_value_info(name, float32, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _reorder(cell: str, array: Array) -> Array:
    gates = array.reshape(CELLS[cell], -1, *array.shape[1:])
    return gates[list(GATE_ORDER[cell])].reshape(array.shape)
